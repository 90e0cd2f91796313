"""Max pooling with indices, and unpooling: references, PyTorch, and their law."""

import numpy as np
import pytest
import torch
from check import check, compare, reference, run
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import generators, normal, whole
from striate import DTypeError, Graph, GraphError, ShapeError, Spec, kernels, ops

ORDERS = ["channels_last", "channels_first", "channels_first_columns"]


@st.composite
def cases(draw):
    """Draw (op, input shape), of one to three spatial axes."""
    rank = draw(st.integers(1, 3))
    per_axis = st.tuples(*[st.integers(1, 3)] * rank)
    kernel, stride, dilation = draw(per_axis), draw(per_axis), draw(per_axis)
    span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    less = [st.integers(0, k - 1) for k in span]
    pairs = st.tuples(*[st.tuples(n, n) for n in less])
    padding = draw(st.sampled_from(["valid", "same", "same_lower"]) | pairs)
    size = tuple(draw(st.integers(k, k + 5)) for k in span)
    channels = draw(st.sampled_from([1, 7, 8, 16, 17, 33]))
    order = draw(st.sampled_from(ORDERS))
    ceil_mode = draw(st.booleans())
    op = ops.MaxPoolIndices(kernel, stride, dilation, padding, ceil_mode, order)
    shape = (draw(st.integers(1, 2)), *size, channels)
    assume(all(n for axis in op._boxes(Spec(shape)) for _, n in axis))
    return op, shape


def both(op, x):
    """Return values and indices, from every kernel, as the reference has them."""
    graph = Graph()
    graph.output(*graph.add(op, graph.input("x", x.shape), outputs=("y", "z")))
    feeds = {"x": x}
    wanted = reference(graph, feeds)
    for isa in kernels.SUPPORTED:
        for threads in (1, 2):
            found = run(graph, feeds, isa, threads)
            for got, want in zip(found, wanted, strict=True):
                compare(got, want, 0, f"{op} on {isa}, {threads} threads")
    assert wanted[1].dtype == np.int64
    return wanted


@given(case=cases(), rng=generators())
def test_it_matches_reference_and_max_pooling(case, rng):
    op, shape = case
    x = whole(rng, shape)
    values, indices = both(op, x)
    plain = ops.MaxPool(op.kernel, op.stride, op.dilation, op.padding, op.ceil_mode)
    np.testing.assert_array_equal(values, plain.reference(x))
    axes = {
        "channels_last": range(x.ndim),
        "channels_first": (0, x.ndim - 1, *range(1, x.ndim - 1)),
        "channels_first_columns": (0, x.ndim - 1, *range(x.ndim - 2, 0, -1)),
    }
    flat = x.transpose(axes[op.index_order]).reshape(-1)
    np.testing.assert_array_equal(flat[indices], values)


@given(case=cases(), rng=generators())
def test_values_in_cut_out_tensors(case, rng):
    op, shape = case
    x = normal(rng, shape)
    graph = Graph()
    whole_x = graph.input("x", tuple(n + 2 for n in shape))
    inside = ops.Slice((1,) * len(shape), [n + 1 for n in shape], range(len(shape)))
    y, z = graph.add(op, graph.add(inside, whole_x), outputs=("y", "z"))
    graph.output(graph.add(ops.Pad(((1, 1),) * len(shape)), y), z)
    feeds = {"x": np.pad(x, 1, constant_values=np.nan)}
    for isa in kernels.SUPPORTED:
        for got, want in zip(
            run(graph, feeds, isa, 2), reference(graph, feeds), strict=True
        ):
            compare(got, want, 0, f"{op} on {isa}")


@given(case=cases(), rng=generators())
def test_it_is_pytorch(case, rng):
    op, shape = case
    rank = len(shape) - 2
    span = [d * (k - 1) + 1 for k, d in zip(op.kernel, op.dilation, strict=True)]
    padding = [min(1, k // 2) for k in op.kernel]
    assume(all(2 * p <= k for p, k in zip(padding, span, strict=True)))
    pairs = tuple((p, p) for p in padding)
    op = ops.MaxPoolIndices(
        op.kernel, op.stride, op.dilation, pairs, index_order="channels_first"
    )
    x = normal(rng, (1, *shape[1:-1], 1))
    assume(all(n for axis in op._boxes(Spec(x.shape)) for _, n in axis))
    values, indices = op.reference(x)
    pool = getattr(torch.nn.functional, f"max_pool{rank}d")
    y, z = pool(
        torch.from_numpy(np.moveaxis(x, -1, 1).copy()),
        op.kernel,
        op.stride,
        padding,
        op.dilation,
        return_indices=True,
    )
    np.testing.assert_array_equal(np.moveaxis(y.numpy(), 1, -1), values)
    np.testing.assert_array_equal(np.moveaxis(z.numpy(), 1, -1), indices)


def test_a_worked_example():
    x = np.array([[1, 5, 5], [2, 0, 9], [3, 3, 3]], np.float32)
    x = np.stack([x, -x], axis=-1)[None]
    values, indices = both(ops.MaxPoolIndices(2), x)
    np.testing.assert_array_equal(values[0, ..., 0], [[5, 9], [3, 9]])
    np.testing.assert_array_equal(indices[0, ..., 0], [[2, 10], [12, 10]])
    np.testing.assert_array_equal(indices[0, ..., 1], [[9, 9], [9, 9]])
    _, indices = both(ops.MaxPoolIndices(2, index_order="channels_first"), x)
    np.testing.assert_array_equal(indices[0, ..., 0], [[1, 5], [6, 5]])
    np.testing.assert_array_equal(indices[0, ..., 1], [[13, 13], [13, 13]])
    _, indices = both(ops.MaxPoolIndices(2, index_order="channels_first_columns"), x)
    np.testing.assert_array_equal(indices[0, ..., 0], [[3, 7], [2, 7]])


def test_not_a_number_wins_and_nothing_is_always_somewhere():
    x = np.zeros((1, 4, 4, 20), np.float32)
    x[0, 1, 1, 3] = x[0, 1, 2, 3] = np.nan
    x[0, :, :, 5] = -np.inf
    _, indices = both(ops.MaxPoolIndices(3, padding=1), x)
    assert indices[0, 1, 2, 3] == 5 * 20 + 3
    assert indices[0, 0, 0, 5] == 5


@given(rng=generators(), order=st.sampled_from(ORDERS[:2]), rank=st.integers(1, 3))
def test_unpooling_inverts_pooling_on_its_support(rng, order, rank):
    """Pooling what was unpooled gives the values back; elsewhere there are zeros."""
    shape = (2, *(4, 6, 2)[:rank], 17)
    x = np.abs(normal(rng, shape)) + 1
    op = ops.MaxPoolIndices(2, 2, index_order=order)
    values, indices = op.reference(x)
    y = check(ops.MaxUnpool(shape[1:-1], order), values, indices, exact=True)
    kept = y != 0
    np.testing.assert_array_equal(y[kept], x[kept])
    assert kept.sum() == values.size
    again, places = op.reference(y)
    np.testing.assert_array_equal(again, values)
    np.testing.assert_array_equal(places, indices)


@given(
    rng=generators(),
    order=st.sampled_from(ORDERS[:2]),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    channels=st.sampled_from([1, 7, 16, 17]),
)
def test_unpooling_any_indices(rng, order, size, channels):
    """Several values for one place, and indices outside."""
    x = normal(rng, (2, 3, 4, channels))
    total = 2 * size[0] * size[1] * channels
    indices = rng.integers(-3, total + 3, x.shape)
    check(ops.MaxUnpool(size, order), x, indices, exact=True)


@given(rng=generators())
def test_unpooling_is_pytorch(rng):
    x = normal(rng, (1, 6, 8, 1))
    op = ops.MaxPoolIndices((3, 2), (3, 2), index_order="channels_first")
    values, indices = op.reference(x)
    theirs = torch.nn.functional.max_unpool2d(
        torch.from_numpy(np.moveaxis(values, -1, 1).copy()),
        torch.from_numpy(np.moveaxis(indices, -1, 1).copy()),
        (3, 2),
        output_size=(6, 8),
    )
    y = check(ops.MaxUnpool((6, 8), "channels_first"), values, indices, exact=True)
    np.testing.assert_array_equal(np.moveaxis(theirs.numpy(), 1, -1), y)


def test_unpooling_into_part_of_a_tensor():
    x = normal(np.random.default_rng(4), (2, 4, 6, 5))
    graph = Graph()
    pool = ops.MaxPoolIndices(2, 2)
    y, z = graph.add(pool, graph.input("x", x.shape), outputs=("y", "z"))
    back = graph.add(ops.MaxUnpool((4, 6)), graph.add(ops.Relu(), y), z)
    graph.output(graph.add(ops.Pad(((1, 1),) * 4), back))
    for isa in kernels.SUPPORTED:
        for threads in (1, 2):
            (got,) = run(graph, {"x": x}, isa, threads)
            compare(got, reference(graph, {"x": x})[0], 0, isa)


def test_shapes_that_do_not_fit():
    with pytest.raises(ShapeError, match="does not fit"):
        ops.MaxPoolIndices(4).infer(Spec((1, 3, 3, 2)))
    with pytest.raises(ShapeError, match="nothing of the input"):
        ops.MaxPoolIndices(2, padding=2).infer(Spec((1, 8, 8, 2)))
    x, z = Spec((1, 2, 2, 3)), Spec((1, 2, 2, 4), "int64")
    with pytest.raises(ShapeError, match="wanted the same shape"):
        ops.MaxUnpool(4).infer(x, z)
    with pytest.raises(DTypeError, match="wanted int64"):
        ops.MaxUnpool(4).infer(x, x)
    with pytest.raises(ShapeError, match="output_size has 3"):
        ops.MaxUnpool((4, 4, 4)).infer(x, Spec(x.shape, "int64"))


def test_attributes_that_make_no_sense():
    with pytest.raises(ValueError, match="index_order"):
        ops.MaxPoolIndices(2, index_order="rows")
    with pytest.raises(ValueError, match="index_order"):
        ops.MaxUnpool(2, "channels_first_columns")
    with pytest.raises(ValueError, match="output_size"):
        ops.MaxUnpool(0)
    plain = ops.MaxPoolIndices((2, 3), 2, padding="same").attributes()
    assert ops.MaxPoolIndices.from_attributes(plain).kernel == (2, 3)
    with pytest.raises(GraphError):
        ops.MaxPoolIndices.from_attributes({**plain, "ceil_mode": 1})
