"""What becomes of a case: it is converted, run and compared."""

import re
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from striate import Model
from striate.errors import StriateError
from striate.tools import convert

from .cases import WRONG, cases

GOOD = ("passed", "float32", "folded")
SECONDS = 120
"""The longest that one case may take."""

NARROW = ("float16", "bfloat16")
"""Element types whose expected values are rounded too coarsely to compare."""


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
    tier: int = 0
    plain: bool = False


class Refused(Exception):
    """The case asks for what is not offered."""


def run(case):
    """Convert and run a case; return an `Outcome`."""
    outcome = Outcome(case.suite, case.name, case.op, "refused")
    outcome.tier, outcome.plain = case.tier, case.plain
    try:
        sets = [tuple([_array(v) for v in part] for part in both) for both in case.data]
        for array in (array for both in sets for part in both for array in part):
            if array.dtype.name in NARROW:
                raise Refused(f"{array.dtype} is computed in float32")
        if f"{case.suite}/{case.name}" in WRONG:
            raise Refused("its outputs were corrected in a later version")
        if "BFLOAT16" in case.name:
            raise Refused("bfloat16 is computed in float32")
        outcome.frozen = _compared(case, sets)
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


def _array(value):
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    if isinstance(value, (list, dict)) or value is None:
        raise Refused("values that are no tensors")
    return np.asarray(value)


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


def _compared(case, sets):
    """Return the inputs that had to become constants for it to run."""
    names = [entry.name for entry in case.model.graph.input]
    fed = dict(zip(names, sets[0][0], strict=False))
    whole = tuple(n for n in names[1:] if n in fed and fed[n].dtype.kind != "f")
    rest = tuple(name for name in names[1:] if name in fed)
    first = None
    for frozen in dict.fromkeys(((), whole, rest, tuple(fed))):
        error = _refusal(case, frozen, names, sets)
        if error is None:
            return [*frozen]
        first = first or error
    raise first


def _refusal(case, frozen, names, sets):
    """Return why a case is refused with some inputs as constants, None if it is not."""
    try:
        for given, wanted in sets:
            _compare(case, frozen, dict(zip(names, given, strict=False)), wanted)
    except StriateError as error:
        return error
    return None


def _compare(case, frozen, given, wanted):
    graph = _graph(case.model, {name: given[name] for name in frozen})
    order = graph.metadata["conversion"]["order"]
    feeds = {e.name: _single(given[order[e.name]["source"]]) for e in graph.inputs}
    with Model(graph, threads=1) as model:
        found = {order[name]["source"]: y for name, y in model.run(feeds).items()}
    outputs = [entry.name for entry in case.model.graph.output]
    for name, want in zip(outputs, map(_single, wanted), strict=False):
        have = found[name]
        assert have.dtype == want.dtype, f"{name}: {have.dtype}, wanted {want.dtype}"
        assert have.shape == want.shape, f"{name}: {have.shape}, wanted {want.shape}"
        if want.dtype.kind == "f":
            scale = np.abs(want).max(initial=0) if case.scaled else 1
            with np.errstate(all="ignore"):
                np.testing.assert_allclose(
                    have, want, case.relative, case.absolute * scale, verbose=False
                )
        else:
            same = np.array_equal(have, want)
            assert same, f"{name}: other {want.dtype} values"


def _single(array):
    """Return float64 as float32, which is infinite where that ends."""
    with np.errstate(over="ignore"):
        return array.astype(np.float32) if array.dtype == np.float64 else array


def _graph(proto, constants):
    model = onnx.ModelProto()
    model.CopyFrom(proto)
    for name, array in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "case.onnx"
        onnx.save(model, path)
        return convert(path, io="source")


def _run_named(suite, name, wheels):
    return run(cases(suite, wheels)[name])


def run_all(wanted, wheels=None):
    """Yield the outcome of each (suite, name), each in a child that may crash."""
    pool = None
    for suite, name in wanted:
        pool = pool or ProcessPoolExecutor(1, get_context("fork"))
        try:
            yield pool.submit(_run_named, suite, name, wheels).result(SECONDS)
        except (BrokenProcessPool, TimeoutError) as error:
            case = cases(suite, wheels)[name]
            yield Outcome(suite, name, case.op, "crashed", type(error).__name__)
            for process in list((pool._processes or {}).values()):
                process.kill()
            pool.shutdown(cancel_futures=True)
            pool = None
    if pool:
        pool.shutdown()
