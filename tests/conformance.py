"""ONNX's own test cases against striate: passed, failed, refused, by operator.

``python -m tests.conformance`` from the project's root prints a table for each suite
and compares with ``conformance_passed.txt``, the cases that have passed before. A case
that is on that list and no longer passes is an error, and so is one that fails.
"""

import argparse
import json
import re
import sys
import tempfile
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from functools import cache
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from striate import Model
from striate.errors import StriateError
from striate.tools import convert

SUITES = ("node", "pytorch-converted", "pytorch-operator")
ALLOWED = Path(__file__).with_name("conformance_passed.txt")
GOOD = ("passed", "float32", "folded")
RELATIVE, ABSOLUTE = 1e-3, 1e-5
SECONDS = 120
"""The longest that one case may take."""

NARROW = ("float16", "bfloat16")
"""Element types whose expected values are rounded too coarsely to compare."""


@dataclass
class Case:
    """One model with inputs and the outputs that are wanted for them."""

    suite: str
    name: str
    model: onnx.ModelProto
    data: list

    @property
    def op(self):
        return next((n.op_type for n in self.model.graph.node), "?")


@dataclass
class Outcome:
    """What became of a case, and why.

    The verdict is passed, float32 (the numbers are right, but float32 where float64
    was wanted), folded (right, but only with every input a constant), failed,
    crashed or refused.
    """

    suite: str
    name: str
    op: str
    verdict: str
    reason: str = ""
    frozen: list = field(default_factory=list)


class Refused(Exception):
    """The case asks for what is not offered."""


@cache
def cases(suite):
    """Return the cases of a suite by name."""
    return {
        entry.name: Case(suite, entry.name, *_contents(entry))
        for entry in load_model_tests(kind=suite)
    }


def _contents(entry):
    if entry.model is not None:
        return entry.model, entry.data_sets
    folder = Path(entry.model_dir)
    model = onnx.load(folder / "model.onnx")
    data = []
    for part in sorted(folder.glob("test_data_set_*")):
        both = []
        for what in ("input", "output"):
            files = sorted(
                part.glob(f"{what}_*.pb"), key=lambda f: int(f.stem.split("_")[1])
            )
            both.append(
                [onnx.TensorProto.FromString(file.read_bytes()) for file in files]
            )
        data.append(tuple(both))
    return model, data


def _array(value):
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, (list, dict)) or value is None:
        raise Refused("values that are no tensors")
    return np.asarray(value)


def run(case):
    """Convert and run a case; return an `Outcome`."""
    outcome = Outcome(case.suite, case.name, case.op, "refused")
    try:
        sets = [tuple([_array(v) for v in part] for part in both) for both in case.data]
        for array in (array for both in sets for part in both for array in part):
            if array.dtype.name in NARROW:
                raise Refused(f"{array.dtype} is computed in float32")
        graph, outcome.frozen = _converted(case, sets[0][0])
        with Model(graph, threads=1) as model:
            for given, wanted in sets:
                _compare(case, model, outcome.frozen, given, wanted)
        double = any(a.dtype == np.float64 for _, part in sets for a in part)
        outcome.verdict = "float32" if double else "passed"
        if outcome.frozen and len(outcome.frozen) == len(sets[0][0]):
            outcome.verdict = "folded"
    except (Refused, StriateError) as error:
        outcome.reason = _line(error)
    except AssertionError as error:
        outcome.verdict, outcome.reason = "failed", _line(error)
    except Exception as error:
        outcome.verdict = "failed"
        outcome.reason = f"{type(error).__name__}: {_line(error)}"
    return outcome


def _line(error):
    """Return the reason: of a table of operators the first row's."""
    lines = [line for line in str(error).splitlines() if line]
    text = lines[0] if lines else type(error).__name__
    if text.startswith("Not equal") and len(lines) > 1:
        text = f"{text}: {lines[1]}"
    if len(lines) > 2 and lines[1].startswith("operator"):
        start, end = lines[1].index("reason"), lines[1].index("nodes")
        text = f"{lines[2].split()[0]}: {lines[2][start:end].strip()}"
    return re.sub(r"\S*/case\.onnx: ", "", text)


def _converted(case, given):
    """Return the graph, and the inputs that had to become constants for it."""
    names = [entry.name for entry in case.model.graph.input]
    fed = dict(zip(names, given, strict=False))
    whole = [name for name in names[1:] if name in fed and fed[name].dtype.kind != "f"]
    rest = tuple(name for name in names[1:] if name in fed)
    choices = list(dict.fromkeys(((), tuple(whole), rest, tuple(fed))))
    first = None
    for frozen in choices:
        constants = {name: fed[name] for name in frozen}
        graph, error = _attempt(case.model, constants)
        if graph is not None:
            return graph, [*frozen]
        first = first or error
    raise first


def _attempt(proto, constants):
    try:
        return _graph(proto, constants), None
    except StriateError as error:
        return None, error


def _graph(proto, constants):
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.onnx"
        onnx.save(model, path)
        return convert(path, io="source")


def _compare(case, model, frozen, given, wanted):
    names = [entry.name for entry in case.model.graph.input]
    fed = {n: a for n, a in zip(names, given, strict=False) if n not in frozen}
    order = model.graph.metadata["conversion"]["order"]
    feeds = {e.name: fed[order[e.name]["source"]] for e in model.graph.inputs}
    found = {order[name]["source"]: y for name, y in model.run(feeds).items()}
    outputs = [entry.name for entry in case.model.graph.output]
    for name, want in zip(outputs, wanted, strict=False):
        have = found[name]
        want = want.astype(np.float32) if want.dtype == np.float64 else want
        assert have.dtype == want.dtype, f"{name}: {have.dtype}, wanted {want.dtype}"
        assert have.shape == want.shape, f"{name}: {have.shape}, wanted {want.shape}"
        if want.dtype.kind == "f":
            with np.errstate(all="ignore"):
                np.testing.assert_allclose(
                    have, want, RELATIVE, ABSOLUTE, verbose=False
                )
        else:
            same = np.array_equal(have, want)
            assert same, f"{name}: other {want.dtype} values"


def _run_named(suite, name):
    return run(cases(suite)[name])


def run_all(wanted):
    """Yield the outcome of each (suite, name), each in a child that may crash."""
    pool = None
    for suite, name in wanted:
        pool = pool or ProcessPoolExecutor(1, get_context("fork"))
        try:
            yield pool.submit(_run_named, suite, name).result(SECONDS)
        except (BrokenProcessPool, TimeoutError) as error:
            case = cases(suite)[name]
            yield Outcome(suite, name, case.op, "crashed", type(error).__name__)
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(cancel_futures=True)
            pool = None
    if pool:
        pool.shutdown()


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
        lines.append(f"{suite:28} passed float32 folded failed refused  reasons")
        for (of, op), group in sorted(rows.items()):
            if of == suite:
                reasons = Counter(o.reason for o in group if o.reason)
                frozen = sorted({name for o in group for name in o.frozen})
                text = [f"{reason} ({n})" for reason, n in reasons.most_common()]
                text += [f"constant here: {', '.join(frozen)}"] if frozen else []
                lines.append(f"  {op:26} {_counts(group)}  {'; '.join(text)}")
        lines.append(
            f"  {'in all':26} {_counts([o for o in outcomes if o.suite == suite])}"
        )
    return lines


def _counts(group):
    verdicts = Counter(o.verdict for o in group)
    bad = verdicts["failed"] + verdicts["crashed"]
    passed, narrowed, folded = (verdicts[verdict] for verdict in GOOD)
    return f"{passed:6} {narrowed:7} {folded:6} {bad:6} {verdicts['refused']:7}"


def main(arguments=None):
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--suite", choices=SUITES, action="append")
    parser.add_argument("--only", metavar="REGEX", default="")
    parser.add_argument("--json", action="store_true", help="print every case")
    parser.add_argument("--update", action="store_true", help="add the new passes")
    options = parser.parse_args(arguments)
    wanted = [
        (suite, name)
        for suite in options.suite or SUITES
        for name in cases(suite)
        if re.search(options.only, name)
    ]
    outcomes = list(run_all(wanted))
    if options.json:
        text = json.dumps([asdict(o) for o in outcomes], indent=1)
    else:
        text = "\n".join(table(outcomes))
    sys.stdout.write(f"{text}\n")
    if options.update:
        passed = {f"{o.suite}/{o.name}" for o in outcomes if o.verdict in GOOD}
        ALLOWED.write_text("\n".join(sorted(passed | set(allowed()))) + "\n")
    bad = lost(outcomes)
    for o in bad:
        sys.stderr.write(f"{o.suite}/{o.name}: {o.verdict}: {o.reason}\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
