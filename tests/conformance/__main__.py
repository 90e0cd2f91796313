"""The command: a table for each suite, and an exit status.

``python -m tests.conformance`` from the project's root prints a table for each suite
and compares with ``passed.txt``, the cases that have passed before. A case that is on
that list and no longer passes is an error, and so is one that fails. The cases of old
versions of onnx run when a folder for their wheels is given.
"""

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path

from .cases import SUITES, TIERS, WHEELS, cases
from .verdict import GOOD, run_all

ALLOWED = Path(__file__).with_name("passed.txt")


def allowed():
    """Return the cases that have passed before, as ``suite/name``."""
    return ALLOWED.read_text().split() if ALLOWED.exists() else []


def lost(outcomes):
    """Return the outcomes that may not be: failures, crashes, and passes lost."""
    known = set(allowed())
    return [
        o
        for o in outcomes
        if o.verdict in ("failed", "crashed")
        or (o.verdict not in GOOD and f"{o.suite}/{o.name}" in known)
    ]


def table(outcomes):
    """Return the lines of a table by suite and operator."""
    rows = defaultdict(list)
    for outcome in outcomes:
        rows[outcome.suite, outcome.op].append(outcome)
    lines = []
    for suite in dict.fromkeys(o.suite for o in outcomes):
        lines.append(f"{suite:26} tier passed float32 folded failed refused  reasons")
        for (of, op), group in sorted(rows.items()):
            if of == suite:
                reasons = Counter(o.reason for o in group if o.reason)
                frozen = sorted({name for o in group for name in o.frozen})
                text = [f"{reason} ({n})" for reason, n in reasons.most_common()]
                text += [f"constant here: {', '.join(frozen)}"] if frozen else []
                tier = max(o.tier for o in group) or "-"
                lines.append(f"  {op:26} {tier} {_counts(group)}  {'; '.join(text)}")
        whole = [o for o in outcomes if o.suite == suite]
        lines.append(f"  {'in all':26}   {_counts(whole)}")
        lines += _tiers(whole)
    return lines


def _tiers(outcomes):
    """Return a line for each tier: how many of its cases pass."""
    lines = []
    for tier in TIERS:
        group = [o for o in outcomes if o.tier == tier]
        plain = [o for o in group if o.plain]
        if group:
            good = [sum(o.verdict in GOOD for o in part) for part in (plain, group)]
            lines.append(
                f"  tier {tier}: {good[0]} of {len(plain)} cases in plain element "
                f"types, {good[1]} of {len(group)} in all"
            )
    return lines


def _counts(group):
    verdicts = Counter(o.verdict for o in group)
    bad = verdicts["failed"] + verdicts["crashed"]
    passed, narrowed, folded = (verdicts[verdict] for verdict in GOOD)
    return f"{passed:6} {narrowed:7} {folded:6} {bad:6} {verdicts['refused']:7}"


def main(arguments=None):
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.conformance",
        description="Run ONNX's own test cases and print a table.",
    )
    parser.add_argument("--suite", choices=SUITES, action="append")
    parser.add_argument(
        "--wheels",
        metavar="FOLDER",
        help="run the node cases of old versions, whose wheels are kept here",
    )
    parser.add_argument("--only", metavar="REGEX", default="")
    parser.add_argument("--json", action="store_true", help="print every case")
    parser.add_argument("--update", action="store_true", help="add the new passes")
    options = parser.parse_args(arguments)
    suites = options.suite or SUITES
    if options.wheels:
        suites = options.suite or [f"onnx-{version}" for version in WHEELS]
    wanted = [
        (suite, name)
        for suite in suites
        for name in cases(suite, options.wheels)
        if re.search(options.only, name)
    ]
    outcomes = list(run_all(wanted, options.wheels))
    if options.json:
        text = json.dumps([asdict(o) for o in outcomes], indent=1)
    else:
        text = "\n".join(table(outcomes))
    sys.stdout.write(f"{text}\n")
    if options.update:
        passed = {
            f"{o.suite}/{o.name}"
            for o in outcomes
            if o.verdict in GOOD and o.suite in SUITES
        }
        ALLOWED.write_text("\n".join(sorted(passed | set(allowed()))) + "\n")
    bad = lost(outcomes)
    for o in bad:
        sys.stderr.write(f"{o.suite}/{o.name}: {o.verdict}: {o.reason}\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
