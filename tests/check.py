"""The one comparison: an operator's compiled steps against its reference.

`check` runs a graph of one layer through `striate.Model`, on every instruction set of
this machine, alone and with two threads, and compares with the reference evaluated in
float64. Inputs are read-only and not contiguous; arenas and output arrays are full of
NaN beforehand, so an element that is not written, or read too early, shows. The layer
runs twice more with its input cut out of a larger tensor and its output inside one, so
that its strides are not the dense ones.

How far off a result may be is never a matter of taste:

- `exact`, for inputs that are small whole numbers (and for operators that only move
  elements): equal.
- `terms=K`: 2 sqrt(K) u times the reference of the magnitudes, u = 2^-24, for sums of K
  products. Winograd's algorithm with fractions, for which neither of the two holds,
  is left out; it has bounds of its own.
- `ulps=n`: n units in the last place of the result, as the kernel's docstring states.
- `bound`: an array, where none of these fits.
"""

import json
import math
from contextlib import contextmanager, nullcontext

import numpy as np
import pytest
from striate import Graph, Model, Spec, kernels, ops
from striate.algorithms.winograd import winograd_tile
from striate.graph import stored
from striate.graph_json import check_types
from striate.ops.base import operand_names

UNIT = 2.0**-24
"""Half a unit in the last place of 1 in float32."""

FLUSHED = 2.0**-119
"""Results below this may have lost precision to flushed denormals on the way."""


@contextmanager
def plain_sums():
    """Leave Winograd's algorithm out, except where its factors are whole numbers."""

    def tile(out, kernel, stride):
        return winograd_tile(out, kernel, stride) if stride == 2 else 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("striate.ops.conv.winograd_tile", tile)
        patch.setattr("striate.ops.conv.row_tile", lambda *_: 0)
        yield


def check(
    op, *inputs, exact=False, terms=None, ulps=None, bound=None, isas=None, **weights
):
    """Assert that `op` computes its reference; return the float64 result.

    Parameters
    ----------
    op : Op
        The operator.
    *inputs : Array
        The operands that are values.
    exact, terms, ulps, bound
        Exactly one of the rules above.
    isas : list of str, optional
        Instruction sets; all of this machine's if left out.
    **weights : Array
        The operands that are weights, by name.
    """
    if [exact, terms is not None, ulps is not None, bound is not None].count(True) != 1:
        raise TypeError("one of exact, terms, ulps and bound")
    with plain_sums() if exact or terms is not None else nullcontext():
        return _check(op, inputs, weights, terms, ulps, bound, isas)


def _check(op, inputs, weights, terms, ulps, bound, isas):
    check_types(op)
    stored = json.loads(json.dumps(op.attributes()))
    assert type(op).from_attributes(stored) == op, "a file keeps the attributes"
    weights = {name: w for name, w in weights.items() if w is not None}
    plain, cut = _graph(op, inputs, weights), _cut_graph(op, inputs, weights)
    feeds = {f"x{i}": x for i, x in enumerate(inputs)}
    wanted = reference(plain, feeds)
    specs = plain.specs({name: x.shape for name, x in feeds.items()})
    limits = [np.zeros(1)] * len(wanted)
    if terms is not None:
        limits = _magnitude_bounds(op, inputs, weights, terms)
    elif ulps is not None:
        limits = [ulps * _spacing(want) + FLUSHED for want in wanted]
    elif bound is not None:
        limits = [np.asarray(bound)] * len(wanted)
    for name, want in zip(plain.outputs, wanted, strict=True):
        assert specs[name] == Spec(want.shape, specs[name].dtype), "infer and reference"
    for isa in isas or kernels.SUPPORTED:
        alone = run(plain, feeds, isa, 1)
        for got, want, limit in zip(alone, wanted, limits, strict=True):
            compare(got, want, limit, f"{op} on {isa}")
        for got, same in zip(run(plain, feeds, isa, 2), alone, strict=True):
            _same_bits(got, same, f"{op} on {isa}: two threads")
        if cut is None:
            continue
        alone = run(cut, _surrounded(feeds), isa, 1)
        for got, want, limit in zip(alone, wanted, limits, strict=True):
            inside = got[(slice(1, -1),) * got.ndim]
            compare(inside, want, limit, f"{op} on {isa}, cut out")
        for got, same in zip(run(cut, _surrounded(feeds), isa, 2), alone, strict=True):
            _same_bits(got, same, f"{op} on {isa}, cut out: two threads")
    return wanted[0] if len(wanted) == 1 else wanted


def reference(graph, feeds):
    """Return the graph's outputs, evaluated in float64."""
    precise = {
        name: x.astype(np.float64) if x.dtype.kind == "f" else x
        for name, x in feeds.items()
    }
    with np.errstate(all="ignore"):
        results = graph.reference(precise)
    return [results[name] for name in graph.outputs]


def run(graph, feeds, isa, threads):
    """Return the graph's outputs, computed by `threads` threads whatever the work."""
    model = Model(graph, isa=isa, threads=threads)
    model._poison = True
    prepared = model._prepared(tuple(x.shape for x in feeds.values()), None)
    prepared.plan.threads = threads
    awkward = {name: _awkward(x) for name, x in feeds.items()}
    if len(graph.outputs) == 1 and len(feeds) == 1:
        spec = prepared.plan.outputs[0][1]
        nothing = np.nan if np.dtype(spec.dtype).kind == "f" else 77
        out = np.full(spec.shape, nothing, spec.dtype)
        (x,) = awkward.values()
        assert model(x, out=out) is out
        return [out]
    results = model.run(awkward)
    return [results[name] for name in graph.outputs]


def compare(got, want, limit, what):
    """Assert that `got` is `want` to within `limit`; NaN and infinity exactly."""
    assert got.shape == want.shape, what
    if want.dtype.kind == "f":
        with np.errstate(over="ignore"):
            rounded = want.astype(got.dtype)
        finite = np.isfinite(rounded)
        np.testing.assert_array_equal(got[~finite], rounded[~finite], err_msg=what)
    else:
        finite = np.ones(want.shape, bool)
    with np.errstate(invalid="ignore"):
        error = np.abs(got.astype(np.float64) - want)
        wrong = finite & ~(error <= limit)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        allowed = np.broadcast_to(limit, want.shape)[at]
        raise AssertionError(
            f"{what}: {int(wrong.sum())} of {want.size} wrong; at {at} found "
            f"{got[at]!r}, wanted {want[at]!r}, off by {error[at]:.3g}, "
            f"allowed {allowed:.3g}"
        )


def _graph(op, inputs, weights):
    graph = Graph("one layer")
    names = [graph.input(f"x{i}", x.shape, str(x.dtype)) for i, x in enumerate(inputs)]
    graph.output(*_layer(graph, op, names, inputs, weights))
    return graph


def _cut_graph(op, inputs, weights):
    """Return the layer between slices of larger inputs and padding of its outputs."""
    if not inputs or any(not x.ndim for x in inputs):
        return None
    graph = Graph("one layer, cut out")
    names = []
    for i, x in enumerate(inputs):
        name = graph.input(f"x{i}", tuple(n + 3 for n in x.shape), str(x.dtype))
        part = ops.Slice((1,) * x.ndim, tuple(n + 1 for n in x.shape), range(x.ndim))
        names.append(graph.add(part, name))
    outputs = _layer(graph, op, names, inputs, weights)
    specs = graph.specs()
    for name in outputs:
        around = ((1, 1),) * specs[name].rank
        graph.output(graph.add(ops.Pad(around), name) if around else name)
    return graph


def _layer(graph, op, names, inputs, weights):
    """Add the layer and return the names of its outputs."""
    free = [name for name in operand_names(type(op)) if name not in weights]
    if free and free[0].startswith("*"):
        parts = op.infer(*map(_spec, inputs))
    else:
        named = dict(zip(free, inputs, strict=False)) | weights
        parts = op.infer(**{name: _spec(stored(x)) for name, x in named.items()})
    count = len(parts) if isinstance(parts, tuple) else 0
    outputs = tuple(f"y{i}" for i in range(count))
    value = graph.add(op, *names, name="layer", outputs=outputs, **weights)
    return outputs or (value,)


def _spec(x):
    return Spec(x.shape, str(x.dtype))


def _surrounded(feeds):
    """Return every input inside a larger array of NaN, or of a high number."""
    return {
        name: np.pad(
            x, [(1, 2)] * x.ndim, constant_values=np.nan if x.dtype.kind == "f" else 77
        )
        for name, x in feeds.items()
    }


def _awkward(x):
    """Return a read-only array of the same values that is not contiguous."""
    wide = np.zeros((*x.shape, 2), x.dtype)
    wide[..., 0] = x
    view = wide[..., 0]
    view.flags.writeable = False
    return view


def _magnitude_bounds(op, inputs, weights, terms):
    magnitudes = _graph(
        op, [np.abs(x) for x in inputs], {n: np.abs(w) for n, w in weights.items()}
    )
    sizes = reference(magnitudes, {f"x{i}": np.abs(x) for i, x in enumerate(inputs)})
    return [2 * math.sqrt(terms) * UNIT * size + FLUSHED for size in sizes]


def _spacing(want):
    """Return a unit in the last place of float32 at each number."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.spacing(np.abs(want).astype(np.float32)).astype(np.float64)


def _same_bits(got, want, what):
    assert got.tobytes() == want.tobytes(), f"{what} give other bits"
