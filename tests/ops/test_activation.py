"""Elementwise functions of one number."""

import math

import numpy as np
import pytest
from check import check
from hypothesis import given
from hypothesis import strategies as st
from strategies import any_magnitude, generators, normal, shapes
from striate import DTypeError, Spec, kernels, ops

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
    (ops.Silu(), 3),
    (ops.HardSwish(), 3),
    (ops.Gelu(), 8),
    (ops.Softplus(), 3),
    (ops.Mish(), 5),
    (ops.Exp(), 1.5),
    (ops.Abs(), 0),
    (ops.Neg(), 0),
    (ops.Erf(), 2),
    (ops.Reciprocal(), 0.5),
]
"""Each function and the error its kernel states."""

ALL = [
    *(op for op, _ in ULPS),
    ops.HardSigmoid(),
    ops.Gelu("tanh"),
    ops.Log(),
    ops.Sqrt(),
]


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


@pytest.mark.parametrize("isa", kernels.SUPPORTED)
def test_functions_are_the_kernels(isa):
    codes = kernels.load("elementwise", isa).CODES
    assert len(set(codes.values())) == len(codes)
    used = {kind.function for kind in ops.Activation.__subclasses__()}
    assert codes.keys() - used == {"NONE", "GELU_TANH"}
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
    with pytest.raises(ValueError, match="approximate 'fast'"):
        ops.Gelu("fast")


@given(minimum=NUMBERS.map(lambda a: -a), maximum=NUMBERS)
def test_clip_stays_inside(minimum, maximum):
    y = check(
        ops.Clip(minimum, maximum), normal(np.random.default_rng(0), 33, 5), exact=True
    )
    assert minimum <= y.min() <= y.max() <= maximum
