"""Elementwise functions of one number."""

import math

import numpy as np
import pytest
import torch
from check import check, compare
from hypothesis import given
from hypothesis import strategies as st
from strategies import any_magnitude, generators, normal, shapes
from striate import DTypeError, Graph, Model, Spec, kernels, ops

BIG = float(np.finfo(np.float32).max)

ULPS = [
    (ops.Relu(), 0),
    (ops.Clip(0.0, 6.0), 0),
    (ops.Clip(-0.75, BIG), 0),
    (ops.LeakyRelu(), 1),
    (ops.LeakyRelu(1.5), 1),
    (ops.Elu(), 1.5),
    (ops.Elu(0.3), 2.5),
    (ops.Sigmoid(), 3),
    (ops.Tanh(), 3),
    (ops.Silu(), 3.5),
    (ops.HardSwish(), 3),
    (ops.Gelu(), 8),
    (ops.Softplus(), 3.5),
    (ops.Mish(), 5),
    (ops.Exp(), 1.5),
    (ops.Abs(), 0),
    (ops.Neg(), 0),
    (ops.Erf(), 2),
    (ops.Reciprocal(), 0.5),
    (ops.Selu(), 3.5),
    (ops.Selu(0.5, 2.0), 3.5),
    (ops.Celu(), 3.5),
    (ops.Celu(0.3), 3.5),
    (ops.Softsign(), 1.5),
    (ops.ThresholdedRelu(), 0),
    (ops.ThresholdedRelu(-0.5), 0),
    (ops.Shrink(), 0),
    (ops.Shrink(0.5, 0.25), 0.5),
    (ops.Swish(), 3.5),
    (ops.Sign(), 0),
    (ops.Floor(), 0),
    (ops.Ceil(), 0),
    (ops.Round(), 0),
]
"""Each function and the error its kernel states."""

ALL = [
    *(op for op, _ in ULPS),
    ops.HardSigmoid(),
    ops.Gelu("tanh"),
    ops.Log(),
    ops.Sqrt(),
    ops.Swish(1.7),
]

LIBRARY = [
    *(kind() for kind in (ops.Sin, ops.Cos, ops.Tan, ops.Asin, ops.Acos, ops.Atan)),
    *(kind() for kind in (ops.Sinh, ops.Cosh, ops.Asinh, ops.Acosh, ops.Atanh)),
]
"""Functions of the C library, good to 4 units in the last place."""


NUMBERS = st.floats(0, 8, width=32, allow_subnormal=False)


def name(op):
    return repr(op).replace("38234663852886e+38", "")


@pytest.mark.parametrize(("op", "ulps"), ULPS, ids=lambda v: repr(v))
@given(shape=shapes(), rng=generators())
def test_matches_reference(op, ulps, shape, rng):
    check(op, normal(rng, shape, 3), ulps=ulps)


@pytest.mark.parametrize(("op", "ulps"), ULPS, ids=lambda v: repr(v))
def test_error_over_all_magnitudes(op, ulps):
    rng = np.random.default_rng(1)
    near = np.linspace(-20, 20, 40_001, dtype=np.float32)
    far = rng.uniform(-110, 110, 20_001).astype(np.float32)
    check(op, np.concatenate([near, far, any_magnitude(rng, 50_003)]), ulps=ulps)


@pytest.mark.parametrize(("op", "ulps"), [(ops.Log(), 1), (ops.Sqrt(), 0.5)], ids=repr)
def test_error_over_positive_numbers(op, ulps):
    rng = np.random.default_rng(2)
    near = rng.uniform(0.25, 4, 50_001).astype(np.float32)
    check(op, np.concatenate([near, abs(any_magnitude(rng, 50_003))]), ulps=ulps)


def test_error_of_hard_sigmoid():
    x = np.random.default_rng(3).uniform(-9, 9, 20_001).astype(np.float32)
    op = ops.HardSigmoid(0.3, 0.4)
    check(op, x, bound=2.0**-23 * (0.3 * np.abs(x) + 0.4))


def test_error_of_gelu_tanh():
    x = np.random.default_rng(4).uniform(-14, 14, 50_001).astype(np.float32)
    u = math.sqrt(2 / math.pi) * (x + 0.044715 * x.astype(np.float64) ** 3)
    y = np.abs(ops.Gelu("tanh").reference(x.astype(np.float64)))
    ulp = np.spacing(y.astype(np.float32)).astype(np.float64)
    check(ops.Gelu("tanh"), x, bound=(4 + 8 * np.abs(u)) * ulp + 2.0**-119)


@pytest.mark.parametrize("op", ALL, ids=name)
def test_nan_and_infinity_as_reference(op):
    special = np.array([np.nan, np.inf, -np.inf, 0.0, 1.0], np.float32)
    check(op, np.tile(special, 7), ulps=8)


@pytest.mark.parametrize("op", ALL, ids=name)
def test_nan_does_not_spread(op):
    x = np.ones(33, np.float32)
    x[5] = np.nan
    assert np.isnan(check(op, x, ulps=8)).sum() == 1


@pytest.mark.parametrize("op", LIBRARY, ids=name)
@given(shape=shapes(), rng=generators())
def test_library_matches_reference(op, shape, rng):
    check(op, normal(rng, shape, 3), ulps=4)


@pytest.mark.parametrize("op", LIBRARY, ids=name)
def test_library_over_all_magnitudes(op):
    rng = np.random.default_rng(6)
    near = np.linspace(-20, 20, 4_001, dtype=np.float32)
    inside = rng.uniform(-1, 1, 2_001).astype(np.float32)
    special = np.float32([np.nan, np.inf, -np.inf, 0, 1, -1])
    far = any_magnitude(rng, 3_001)
    check(op, np.concatenate([near, inside, special, far]), ulps=4)


CONVOLUTIONS = [
    (1, 1, 16),
    (1, 1, 88),
    (3, 1, 40),
    (5, 1, 16),
    (5, 1, 80),
    (3, 16, 16),
    (3, 40, 40),
]
"""Kernel, groups and outputs: a product of matrices, Winograd's, one by taps,
depthwise; in one block of vectors and in several, the last of them partly used."""


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
@pytest.mark.parametrize(("size", "groups", "outputs"), CONVOLUTIONS)
def test_convolutions_apply_them_to_their_result(size, groups, outputs, isa):
    rng = np.random.default_rng(size)
    channels = max(16, groups)
    x = normal(rng, (1, 9, 9, channels))
    kernel = normal(rng, (size, size, channels // groups, outputs), 0.3)

    def computed(*following):
        graph = Graph()
        value = graph.input("x", x.shape)
        value = graph.add(ops.Conv(padding="same", groups=groups), value, kernel=kernel)
        for op in following:
            value = graph.add(op, value)
        graph.output(value)
        with Model(graph, isa=isa, threads=1) as model:
            return model(x)

    plain = computed()
    for op in ALL:
        with np.errstate(all="ignore"):
            want = op.reference(plain.astype(np.float64))
        limit = 32 * np.spacing(np.abs(want).astype(np.float32)) + 1e-6
        compare(computed(op), want, limit, f"{op} on {isa}")


@pytest.mark.parametrize("alpha", [1.7, -0.5])
def test_error_of_swish(alpha):
    x = np.random.default_rng(5).uniform(-40, 40, 50_001).astype(np.float32)
    y = np.abs(ops.Swish(alpha).reference(x.astype(np.float64)))
    ulp = np.spacing(y.astype(np.float32)).astype(np.float64)
    check(ops.Swish(alpha), x, bound=(3 + 2 * np.abs(alpha * x)) * ulp + 2.0**-119)


def test_rounding_at_its_limits():
    halves = np.arange(-9, 9, dtype=np.float32) / 2
    large = np.float32([2.0**22 + 0.5, 2.0**22 + 1.5, 2.0**23 - 0.5, 2.0**23 + 1, 1e30])
    tiny = np.float32([1e-30, 0.49999997, 0.99999994, 1.0000001])
    x = np.concatenate([halves, large, -large, tiny, -tiny])
    for op in (ops.Floor(), ops.Ceil(), ops.Round()):
        check(op, x, exact=True)


@pytest.mark.parametrize(
    ("op", "torch_of"),
    [
        (ops.Selu(), torch.nn.functional.selu),
        (ops.Celu(0.7), lambda x: torch.nn.functional.celu(x, 0.7)),
        (ops.Softsign(), torch.nn.functional.softsign),
        (ops.ThresholdedRelu(0.3), lambda x: torch.nn.functional.threshold(x, 0.3, 0)),
        (ops.Shrink(), torch.nn.functional.hardshrink),
        (ops.Shrink(0.5, 0.5), torch.nn.functional.softshrink),
        (ops.Round(), torch.round),
        (ops.Sign(), torch.sign),
        (ops.Acosh(), torch.acosh),
    ],
)
def test_is_that_of_torch(op, torch_of):
    x = np.random.default_rng(7).standard_normal(1000) * 3
    want = torch_of(torch.from_numpy(x)).numpy()
    with np.errstate(invalid="ignore"):
        np.testing.assert_allclose(op.reference(x), want, rtol=1e-12, atol=1e-15)


def test_log_outside_its_domain():
    x = np.array([0, -0.0, -1, -np.inf, np.inf, np.nan, 1], np.float32)
    with np.errstate(all="ignore"):
        check(ops.Log(), x, exact=True)


def test_sqrt_outside_its_domain():
    check(ops.Sqrt(), np.array([0, -0.0, -1, -np.inf, np.inf], np.float32), exact=True)


def test_exp_at_its_limits():
    x = np.array([88.72283, 88.7229, 200, -87.3, -104, -200, 0, -0.0], np.float32)
    y = check(ops.Exp(), x, ulps=1.5)
    assert y[0] < BIG < y[1]


@pytest.mark.parametrize(
    "length", [1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 2047, 2048, 2049]
)
def test_every_element_of_a_row(length):
    x = np.arange(length, dtype=np.float32) - length // 2
    check(ops.Neg(), x, exact=True)


def test_known_values():
    x = np.array([-2, -0.5, 0, 3, 8], np.float32)

    def of(op):
        return op.reference(x).tolist()

    assert of(ops.Relu()) == [0, 0, 0, 3, 8]
    assert of(ops.Clip(-1, 6)) == [-1, -0.5, 0, 3, 6]
    assert of(ops.LeakyRelu(0.5)) == [-1, -0.25, 0, 3, 8]
    assert of(ops.HardSwish()) == pytest.approx([-1 / 3, -0.5 * 2.5 / 6, 0, 3, 8])
    assert of(ops.HardSigmoid()) == pytest.approx([0.1, 0.4, 0.5, 1, 1])
    assert ops.Sigmoid().reference(x)[2] == 0.5
    assert ops.Gelu().reference(np.array([1.0]))[0] == pytest.approx(0.8413447460685429)
    assert ops.Softplus().reference(np.zeros(1))[0] == pytest.approx(math.log(2))
    assert of(ops.Selu(2.0, 3.0))[2:] == [0, 9, 24]
    assert of(ops.Celu(0.5))[:2] == pytest.approx(
        [math.expm1(-4) / 2, math.expm1(-1) / 2]
    )
    assert of(ops.Softsign()) == pytest.approx([-2 / 3, -1 / 3, 0, 3 / 4, 8 / 9])
    assert of(ops.ThresholdedRelu(3.0)) == [0, 0, 0, 0, 8]
    assert of(ops.Shrink(1.0, 0.5)) == [-1, 0, 0, 2, 7]
    assert of(ops.Swish(2.0))[3] == pytest.approx(3 / (1 + math.exp(-6)))
    assert of(ops.Sign()) == [-1, -1, 0, 1, 1]
    assert of(ops.Floor()) == [-2, -1, 0, 3, 8]
    assert of(ops.Ceil()) == [-2, 0, 0, 3, 8]
    assert of(ops.Round()) == [-2, 0, 0, 3, 8]


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
def test_functions_are_the_kernels(isa):
    codes = kernels.load("elementwise", isa).CODES
    assert len(set(codes.values())) == len(codes)
    used = {kind.function for kind in ops.Activation.__subclasses__()}
    assert codes.keys() - used == {"NONE", "GELU_TANH"}
    others = kernels.load("elementwise", isa).LIBRARY_CODES
    assert others.keys() == {op.function for op in LIBRARY}
    assert not set(others.values()) & set(codes.values())
    assert ops.Gelu("tanh").code == codes["GELU_TANH"]


@given(shape=shapes())
def test_infer_keeps_the_spec(shape):
    assert ops.Silu().infer(Spec(shape)) == Spec(shape)


def test_rejects():
    with pytest.raises(DTypeError, match=r"Relu: found int32 \(3,\), wanted float32"):
        ops.Relu().infer(Spec((3,), "int32"))
    with pytest.raises(ValueError, match="minimum -inf"):
        ops.Clip(-math.inf, 6)
    with pytest.raises(ValueError, match="alpha nan"):
        ops.Elu(math.nan)
    with pytest.raises(ValueError, match="alpha 0"):
        ops.Celu(0.0)
    with pytest.raises(ValueError, match="lambd inf"):
        ops.Shrink(0.0, math.inf)
    with pytest.raises(ValueError, match="approximate 'fast'"):
        ops.Gelu("fast")


@given(minimum=NUMBERS.map(lambda a: -a), maximum=NUMBERS)
def test_clip_stays_inside(minimum, maximum):
    y = check(
        ops.Clip(minimum, maximum), normal(np.random.default_rng(0), 33, 5), exact=True
    )
    assert minimum <= y.min() <= y.max() <= maximum
