"""Normalisation by statistics of the tensor itself."""

import itertools

import numpy as np
import pytest
import torch
from check import check, compare, reference, run
from hypothesis import given
from hypothesis import strategies as st
from strategies import WIDTHS, generators, images, normal, shapes
from striate import DTypeError, Graph, ShapeError, Spec, kernels, ops

UNIT = 2.0**-24


def bound(op, x, gamma=None, beta=None):
    """Return how far off a result may be.

    A sum of n terms is off by c = 48 + n / 128 roundings: 32 in each of 4 running
    sums, those and their lanes joined, then one more for every 128 terms. The mean m is
    off by dm = (c + 1) u mean|x|. The variance is larger by dm^2 and off by c + 4
    roundings; half of that, relative to what the root is taken of, is the scale's.
    """
    x = x.astype(np.float64)
    y, axes = x, getattr(op, "axes", None)
    shape = x.shape
    if isinstance(op, ops.InstanceNorm):
        axes = tuple(range(1, x.ndim - 1))
    elif isinstance(op, ops.GroupNorm):
        y = x.reshape(*shape[:-1], op.groups, -1)
        axes = (*range(1, x.ndim - 1), x.ndim)
    elif isinstance(op, ops.LpNorm):
        axes = (op.axis,)
    n = np.prod([y.shape[a] for a in axes])
    c = 48 + n / 128
    if isinstance(op, ops.LpNorm):
        size = np.abs(op.reference(x))
        return (c + 4) * UNIT * size + 2.0**-119
    mean, dm = 0, 0
    if not isinstance(op, ops.RMSNorm):
        mean = y.mean(axis=axes, keepdims=True)
        dm = (c + 1) * UNIT * np.abs(y).mean(axis=axes, keepdims=True)
    variance = ((y - mean) ** 2).mean(axis=axes, keepdims=True)
    scale = 1 / np.sqrt(variance + op.epsilon)
    root = variance + op.epsilon
    if isinstance(op, ops.MeanVarianceNorm):
        scale = 1 / (np.sqrt(variance) + op.epsilon)
        root = np.maximum(variance, op.epsilon**2)
    relative = (dm**2 + (c + 4) * UNIT * variance) / (2 * root) + 3 * UNIT
    size = np.abs(y - mean)
    off = scale * (dm + UNIT * size + size * (relative + 3 * UNIT))
    off = off.reshape(shape)
    if gamma is not None:
        off = off * np.abs(gamma)
    params = [] if isinstance(op, ops.MeanVarianceNorm) else [gamma]
    params += [beta] if beta is not None else []
    result = np.abs(op.reference(x, *params))
    return off + 2 * UNIT * (result + (0 if beta is None else np.abs(beta))) + 2.0**-119


def weights(rng, shape, which):
    """Return gamma, beta, both or neither."""
    return {name: normal(rng, shape) for name in which}


WHICH = st.sampled_from([(), ("gamma",), ("beta",), ("gamma", "beta")])


@given(shape=images(), which=WHICH, rng=generators())
def test_instance_norm_matches_reference(shape, which, rng):
    x = normal(rng, shape, 3) + np.float32(rng.choice([0, 10]))
    given_weights = weights(rng, shape[-1:], which)
    op = ops.InstanceNorm(1e-3)
    check(op, x, bound=bound(op, x, **given_weights), **given_weights)


@pytest.mark.parametrize(
    ("channels", "groups"),
    [
        (c, g)
        for c in (1, 6, 12, 32, 35, 96, 100)
        for g in range(1, c + 1)
        if c % g == 0
    ],
)
def test_group_norm_with_every_width(channels, groups):
    rng = np.random.default_rng(channels * 100 + groups)
    x = normal(rng, (2, 3, 5, channels), 2)
    given_weights = weights(rng, (channels,), ("gamma", "beta"))
    op = ops.GroupNorm(groups)
    check(op, x, bound=bound(op, x, **given_weights), **given_weights)


@given(
    lead=images().map(lambda s: s[:-1]),
    groups=st.integers(1, 5),
    each=st.integers(1, 20),
    which=WHICH,
    rng=generators(),
)
def test_group_norm_matches_reference(lead, groups, each, which, rng):
    channels = groups * each
    x = normal(rng, (*lead, channels), 2) - 1
    given_weights = weights(rng, (channels,), which)
    op = ops.GroupNorm(groups, 1e-3)
    check(op, x, bound=bound(op, x, **given_weights), **given_weights)


@st.composite
def with_axes(draw):
    """Draw a shape and some of its axes."""
    shape = draw(shapes())
    axes = draw(st.sets(st.integers(0, len(shape) - 1), min_size=1))
    return shape, tuple(a - draw(st.sampled_from([0, len(shape)])) for a in axes)


@st.composite
def stretched(draw, shape):
    """Draw a shape that broadcasts to `shape`."""
    sizes = tuple(draw(st.sampled_from([1, n])) for n in shape)
    return sizes[draw(st.integers(0, len(shape))) :]


@given(drawn=with_axes(), data=st.data(), rng=generators())
def test_layer_norm_matches_reference(drawn, data, rng):
    shape, axes = drawn
    x = normal(rng, shape, 2) + 1
    gamma = normal(rng, data.draw(stretched(shape)))
    beta = normal(rng, data.draw(stretched(shape)))
    op = ops.LayerNorm(axes, 1e-3)
    check(op, x, bound=bound(op, x), beta=np.zeros((), np.float32))
    check(op, x, bound=bound(op, x, gamma, beta), gamma=gamma, beta=beta)


@given(drawn=with_axes(), data=st.data(), rng=generators())
def test_rms_norm_matches_reference(drawn, data, rng):
    shape, axes = drawn
    x = normal(rng, shape, 2) + 1
    gamma = normal(rng, data.draw(stretched(shape)))
    op = ops.RMSNorm(axes, 1e-3)
    check(op, x, bound=bound(op, x))
    check(op, x, gamma, bound=bound(op, x, gamma))


@given(drawn=with_axes(), p=st.sampled_from([1, 2]), rng=generators())
def test_lp_norm_matches_reference(drawn, p, rng):
    shape, axes = drawn
    x = normal(rng, shape, 2)
    op = ops.LpNorm(axes[0], p)
    check(op, x, bound=bound(op, x))


@given(drawn=with_axes(), rng=generators())
def test_mean_variance_norm_matches_reference(drawn, rng):
    shape, axes = drawn
    x = normal(rng, shape, 2) + 1
    op = ops.MeanVarianceNorm(axes, 1e-3)
    check(op, x, bound=bound(op, x))


@pytest.mark.parametrize("n", [*WIDTHS, 63, 64, 65, 127, 128, 129, 5000])
def test_long_sets(n):
    rng = np.random.default_rng(n)
    for op, shape in (
        (ops.LayerNorm(), (3, n)),
        (ops.InstanceNorm(), (1, n, 5)),
        (ops.RMSNorm((0,)), (n, 9)),
    ):
        x = normal(rng, shape)
        check(op, x, bound=bound(op, x))


@pytest.mark.parametrize("mean", [1.0, 1e3, 1e5])
def test_a_large_mean_costs_only_what_the_bound_says(mean):
    x = normal(np.random.default_rng(3), (2, 40, 40, 5)) + np.float32(mean)
    op = ops.InstanceNorm()
    check(op, x, bound=bound(op, x))


def test_weights_may_be_values():
    rng = np.random.default_rng(4)
    x, gamma, beta = (normal(rng, s) for s in ((2, 3, 7), (3, 7), (3, 1)))
    op = ops.LayerNorm((1, 2))
    check(op, x, gamma, beta, bound=bound(op, x, gamma, beta))


@pytest.mark.parametrize(
    "axes", [a for k in (1, 2, 3) for a in itertools.combinations(range(3), k)]
)
def test_statistics(axes):
    x = normal(np.random.default_rng(5), (3, 4, 18)) + 2
    op = ops.LayerNorm(axes, statistics=True)
    graph = Graph()
    names = graph.add(op, graph.input("x", x.shape), outputs=("y", "mean", "scale"))
    graph.output(*names)
    wanted = reference(graph, {"x": x})
    limits = [bound(ops.LayerNorm(axes), x), 1e-5, 1e-5]
    for isa in kernels.SUPPORTED:
        alone = run(graph, {"x": x}, isa, 1)
        for got, want, limit in zip(alone, wanted, limits, strict=True):
            compare(got, want, limit, f"{op} on {isa}")
        for got, same in zip(run(graph, {"x": x}, isa, 2), alone, strict=True):
            assert got.tobytes() == same.tobytes()
    np.testing.assert_allclose(wanted[1], x.mean(axes, keepdims=True), rtol=1e-5)
    assert [spec.shape for spec in op.infer(Spec(x.shape))] == [w.shape for w in wanted]


def test_matches_torch():
    rng = np.random.default_rng(6)
    x = rng.standard_normal((2, 5, 6, 12))
    gamma, beta = rng.standard_normal((2, 12))
    first = torch.from_numpy(np.moveaxis(x, -1, 1))
    g, b = torch.from_numpy(gamma), torch.from_numpy(beta)
    torch_of = torch.nn.functional
    pairs = [
        (
            ops.InstanceNorm(1e-3).reference(x, gamma, beta),
            torch_of.instance_norm(first, weight=g, bias=b, eps=1e-3),
        ),
        (
            ops.GroupNorm(3, 1e-3).reference(x, gamma, beta),
            torch_of.group_norm(first, 3, g, b, 1e-3),
        ),
        (
            ops.LayerNorm((-1,), 1e-3).reference(x, gamma, beta),
            torch_of.layer_norm(torch.from_numpy(x), (12,), g, b, 1e-3).moveaxis(-1, 1),
        ),
        (
            ops.RMSNorm((-1,), 1e-3).reference(x, gamma),
            torch_of.rms_norm(torch.from_numpy(x), (12,), g, 1e-3).moveaxis(-1, 1),
        ),
        (ops.LpNorm(-1, 2, 3.0).reference(x), torch_of.normalize(first, eps=3.0)),
        (ops.LpNorm(1, 1).reference(x), torch_of.normalize(first, p=1, dim=2)),
    ]
    for got, want in pairs:
        np.testing.assert_allclose(got, np.moveaxis(want.numpy(), 1, -1), rtol=1e-10)


def test_known_values():
    x = np.float32([[1, 3], [5, 5]])
    np.testing.assert_array_equal(
        check(ops.LayerNorm(epsilon=0.0), x[:1], exact=True), [[-1, 1]]
    )
    np.testing.assert_array_equal(check(ops.LayerNorm(), x[1:], exact=True), 0)
    np.testing.assert_array_equal(
        check(ops.LpNorm(p=1), np.float32([[1, -3], [0, 0]]), exact=True),
        [[0.25, -0.75], [0, 0]],
    )
    np.testing.assert_array_equal(
        check(ops.LpNorm(0, epsilon=10.0), np.float32([3, 4]), ulps=1), [0.3, 0.4]
    )
    np.testing.assert_array_equal(
        check(ops.MeanVarianceNorm((0,), 1.0), np.float32([1, 3]), exact=True),
        [-0.5, 0.5],
    )
    np.testing.assert_allclose(
        check(ops.RMSNorm(epsilon=0.0), np.float32([1, 7]), ulps=2), [0.2, 1.4]
    )


def test_group_norm_has_two_limits():
    x = np.random.default_rng(7).standard_normal((2, 3, 4, 6))
    np.testing.assert_allclose(
        ops.GroupNorm(6).reference(x), ops.InstanceNorm().reference(x)
    )
    np.testing.assert_allclose(
        ops.GroupNorm(1).reference(x), ops.LayerNorm((1, 2, 3)).reference(x)
    )


def test_nan_stays_in_its_set():
    x = np.ones((2, 4, 33), np.float32)
    x[1, 2, 17] = np.nan
    assert np.isnan(check(ops.InstanceNorm(), x, exact=True)).sum() == 4
    assert np.isnan(check(ops.GroupNorm(11), x, exact=True)).sum() == 12
    assert np.isnan(check(ops.LayerNorm(), x, exact=True)).sum() == 33


def test_rejects():
    with pytest.raises(
        ShapeError, match=r"gamma \(4,\) does not fit the input \(1, 2, 3\)"
    ):
        ops.InstanceNorm().infer(Spec((1, 2, 3)), Spec((4,)))
    with pytest.raises(ShapeError, match=r"InstanceNorm wants .*, found \(2, 3\)"):
        ops.InstanceNorm().infer(Spec((2, 3)))
    with pytest.raises(ShapeError, match="4 groups do not divide"):
        ops.GroupNorm(4).infer(Spec((1, 2, 6)))
    with pytest.raises(ShapeError, match=r"beta \(2, 3\) does not broadcast"):
        ops.LayerNorm().infer(Spec((3,)), None, Spec((2, 3)))
    with pytest.raises(ShapeError, match="axis 3 is outside"):
        ops.RMSNorm((3,)).infer(Spec((2, 3)))
    with pytest.raises(ShapeError, match="repeat one"):
        ops.MeanVarianceNorm((0, -2)).infer(Spec((2, 3)))
    with pytest.raises(DTypeError, match="LpNorm: found int64"):
        ops.LpNorm().infer(Spec((3,), "int64"))
    with pytest.raises(ValueError, match="epsilon -1"):
        ops.InstanceNorm(-1.0)
    with pytest.raises(ValueError, match="groups 0"):
        ops.GroupNorm(0)
    with pytest.raises(ValueError, match=r"axes \(\), wanted one or more"):
        ops.LayerNorm(())
    with pytest.raises(ValueError, match="p 3, wanted 1 or 2"):
        ops.LpNorm(p=3)
