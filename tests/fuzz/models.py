"""Random ONNX models of one operator against ONNX Runtime.

``python -m tests.fuzz.models --cases 300 --seed 7 --operators Conv,Resize`` from the
project's root prints a table: how many of each operator's models are right, refused
(with reasons), wrong or crashed. Every model must be right or refused.

The oracle is ONNX Runtime. Where it refuses a model, or differs from striate, ONNX's
own evaluator is asked. A model is *disputed* if striate agrees with that one and ONNX
Runtime does not: these are counted apart and shown. It is *not judged* if ONNX Runtime
refuses it, or crashes, and the evaluator does not agree.

What is disputed, and what striate does:

- Resize by scales with aligned corners, or into a region, where the new length is not
  whole: ONNX's evaluator and test cases count with the length as it is, ONNX Runtime
  with the rounded one. striate does as the test cases.
- Resize to the input's own size, by another scale or of a region: ONNX Runtime copies.
- MeanVarianceNormalization along axes of one element: ONNX Runtime divides by zero.
- Nearest neighbours at a coordinate that is exactly between two, but for rounding.

Where runtimes give a setting different meanings and no test case decides, as automatic
padding of dilated pooling, striate refuses it.
"""

import argparse
import contextlib
import math
import re
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx.reference import ReferenceEvaluator
from striate import Model
from striate.errors import StriateError
from striate.tools import convert

from . import elementwise, layers, movement, sampling, windows
from .draft import FAMILIES, drawn
from .draw import Draw
from .isolated import isolated
from .windows import GROWTH

MODULES = (elementwise, layers, movement, sampling, windows)
"""The modules that register families."""

UNIT = 2.0**-24
"""Half a unit in the last place of 1 in float32."""

NARROW_UNIT = 2.0**-11
"""Half a unit in the last place of 1 in float16."""

VERDICTS = ("right", "refused", "disputed", "not judged", "wrong", "crashed")


@dataclass
class Outcome:
    """What became of a case: one of `VERDICTS`, and why."""

    verdict: str
    reason: str = ""


def session(model):
    """Return ONNX Runtime on a model, on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def by_onnx_runtime(model, feeds):
    """Return a model's outputs by name, and why there are none."""
    try:
        return _named(model, session(model).run(None, feeds)), ""
    except Exception as error:
        return None, str(error)


def by_onnx(model, feeds):
    """Return a model's outputs by name as ONNX's evaluator has them, or None."""
    try:
        with np.errstate(all="ignore"):
            return _named(model, ReferenceEvaluator(model).run(None, feeds))
    except Exception:
        return None


def _named(model, results):
    names = [entry.name for entry in model.graph.output]
    return dict(zip(names, map(np.asarray, results), strict=True))


def by_striate(model, feeds, draw, folder):
    """Return a model's outputs by name and in the model's order of axes."""
    path = Path(folder) / "case.onnx"
    path.write_bytes(model.SerializeToString())
    graph = convert(path, io=draw.one_of("source", "channels_last"))
    order = graph.metadata["conversion"]["order"]
    given = {
        e.name: feeds[order[e.name]["source"]].transpose(order[e.name]["axes"])
        for e in graph.inputs
        if order[e.name]["source"] in feeds
    }
    with Model(graph, threads=draw.one_of(1, 2)) as running:
        found = running.run(given)
    return {
        order[name]["source"]: y.transpose(np.argsort(order[name]["axes"]))
        for name, y in found.items()
    }


def judge(case, draw, folder):
    """Return the `Outcome` of a case."""
    wanted, refusal = by_onnx_runtime(case.model, case.feeds)
    try:
        found = by_striate(case.model, case.feeds, draw, folder)
    except StriateError as error:
        return Outcome("refused", reason(error))
    except Exception as error:
        return Outcome("crashed", f"{type(error).__name__}: {error}")
    limits = Limits(case)
    first = limits.difference(found, wanted) if wanted else refusal
    if not first:
        return Outcome("right")
    second = by_onnx(case.model, case.feeds)
    if second is None:
        verdict = "wrong" if wanted else "not judged"
        return Outcome(verdict, first)
    other = limits.difference(found, second)
    if other:
        verdict = "wrong" if wanted else "not judged"
        return Outcome(verdict, f"{first}; ONNX's evaluator: {other}")
    if wanted:
        return Outcome("disputed", f"ONNX Runtime: {first}")
    return Outcome("right", "by ONNX's evaluator alone")


class Limits:
    """How far the answers to a case may be off."""

    def __init__(self, case):
        self.case = case
        self._sums = None

    def difference(self, found, wanted):
        """Return how two answers differ; "" if by no more than rounding explains."""
        for name, want in wanted.items():
            have = found[name]
            if have.shape != want.shape:
                return f"shape {have.shape}, wanted {want.shape}"
            if want.dtype.kind != have.dtype.kind and want.size:
                return f"{have.dtype}, wanted {want.dtype}"
            text = self._values(name, have, want)
            if text:
                return text
        return ""

    def _values(self, name, have, want):
        if want.dtype.kind != "f":
            steps = self.case.rule[1] if self.case.rule[0] == "steps" else 0
            wrong = np.abs(have.astype(np.int64) - want) > steps
            return (
                f"{int(wrong.sum())} of {want.size} other values" if wrong.any() else ""
            )
        x, y = have.astype(np.float64), want.astype(np.float64)
        with np.errstate(invalid="ignore"):
            same = (x == y) | (np.isnan(x) & np.isnan(y))
            if same.all():
                return ""
            error = np.where(same, 0, np.abs(x - y))
            limit = self._limit(name, y)
            if self.case.narrow:
                limit = limit + 3 * NARROW_UNIT * np.abs(y) + 2.0**-24
            wrong = ~(error <= limit)
        if not wrong.any():
            return ""
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        allowed = np.broadcast_to(limit, want.shape)[at]
        return (
            f"{int(wrong.sum())} of {want.size} off, at {at} found {have[at]:.9g}, "
            f"wanted {want[at]:.9g}, allowed {allowed:.2g}"
        )

    def _limit(self, name, want):
        kind, number = self.case.rule
        if kind == "exact":
            return np.zeros(())
        if kind == "share":
            fed = [np.abs(x).max(initial=0) for x in self.case.feeds.values()]
            return number * max(np.abs(want).max(initial=0), *fed, 2.0**-100)
        if kind == "ulps":
            with np.errstate(over="ignore", invalid="ignore"):
                return number * np.spacing(np.abs(want).astype(np.float32)) + 2.0**-119
        sums = self._sum_of_magnitudes(name, want.shape)
        if kind == "filtered":
            sums = GROWTH * sums.max(initial=0)
        return 4 * math.sqrt(number) * UNIT * sums

    def _sum_of_magnitudes(self, name, shape):
        if self._sums is None:
            feeds = {n: np.abs(x) for n, x in self.case.feeds.items()}
            feeds = {
                n: x.astype(np.float32) if x.dtype == np.float16 else x
                for n, x in feeds.items()
            }
            found, refusal = by_onnx_runtime(self.case.magnitudes, feeds)
            if found is None:
                found = by_onnx(self.case.magnitudes, feeds)
            assert found is not None, refusal
            self._sums = next(iter(found.values())).astype(np.float64)
        sums = self._sums
        if name.endswith("_transpose"):
            sums = sums.T
        if name.endswith("_concat"):
            sums = np.concatenate([sums, sums])
        return sums if sums.shape == shape else np.full((1,), sums.max(initial=0))


def reason(error):
    """Return the reason: of a table of operators the first row's."""
    lines = [line for line in str(error).splitlines() if line]
    text = lines[0] if lines else type(error).__name__
    if len(lines) > 2 and lines[1].startswith("operator"):
        titles, row = (re.split(r"\s{2,}", line) for line in lines[1:3])
        text = f"{row[0]}: {row[titles.index('reason')]}"
    text = re.sub(r"\S*/case\.onnx: |layer '\S*': ", "", text)
    return re.sub(r"-?\d+(\.\d+)?(e-?\d+)?", "#", text)


def run(op, seed, index):
    """Return the outcome of a case by its number."""
    case = drawn(op, seed, index)
    with tempfile.TemporaryDirectory() as folder:
        return judge(case, Draw(seed, index), folder)


def run_alone(op, seed, index):
    """Run a case without any oracle, to see who crashes."""
    case = drawn(op, seed, index)
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(StriateError):
        by_striate(case.model, case.feeds, Draw(seed, index), folder)
    return True


def fuzz(operators, cases, seed):
    """Yield (operator, number, outcome) of every case."""
    calls = ((op, seed, index) for op in operators for index in range(cases))
    for call, outcome, ended in isolated(run, calls):
        if ended:
            ((_, alone, _),) = isolated(run_alone, [call])
            outcome = Outcome("crashed", ended)
            if alone:
                outcome = Outcome("not judged", f"the oracle crashes: {ended}")
        yield call[0], call[2], outcome


def table(outcomes, most=4):
    """Return the lines of a table by operator; reasons with how often they came up."""
    rows = defaultdict(list)
    for op, _, outcome in outcomes:
        rows[op].append(outcome)
    lines = [f"{'':26}" + "".join(f"{v:>11}" for v in VERDICTS) + "  reasons"]
    for op, group in sorted(rows.items()):
        reasons = Counter(o.reason for o in group if o.reason)
        text = "; ".join(f"{why[:110]} ({n})" for why, n in reasons.most_common(most))
        lines.append(f"{op:26}{_counts(group)}  {text}".rstrip())
    every = [outcome for group in rows.values() for outcome in group]
    lines.append(f"{'in all':26}{_counts(every)}")
    return lines


def _counts(group):
    verdicts = Counter(o.verdict for o in group)
    return "".join(f"{verdicts[verdict]:11}" for verdict in VERDICTS)


def main(arguments=None):
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100, help="of each operator")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--operators", metavar="A,B", default=",".join(FAMILIES))
    parser.add_argument("--reasons", type=int, default=4, help="shown an operator")
    parser.add_argument("--keep", metavar="FOLDER", type=Path, help="for failed models")
    options = parser.parse_args(arguments)
    outcomes = []
    for op, index, outcome in fuzz(
        options.operators.split(","), options.cases, options.seed
    ):
        outcomes.append((op, index, outcome))
        if outcome.verdict in ("wrong", "crashed", "disputed"):
            sys.stderr.write(
                f"{outcome.verdict}: {op} seed {options.seed} case {index}: "
                f"{outcome.reason[:400]}\n"
            )
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                path = options.keep / f"{op}-{options.seed}-{index}.onnx"
                onnx.save(drawn(op, options.seed, index).model, path)
    sys.stdout.write("\n".join(table(outcomes, options.reasons)) + "\n")
    return int(any(o.verdict in ("wrong", "crashed") for *_, o in outcomes))


if __name__ == "__main__":
    sys.exit(main())
