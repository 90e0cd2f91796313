"""Questions about single numbers."""

import numpy as np
import pytest
from check import check
from hypothesis import given
from strategies import generators, shapes
from striate import DTypeError, Spec, ops

QUESTIONS = [
    (ops.IsNaN(), [True, False, False, False, False]),
    (ops.IsInf(), [False, True, True, False, False]),
    (ops.IsInf(negative=False), [False, True, False, False, False]),
    (ops.IsInf(positive=False), [False, False, True, False, False]),
    (ops.IsInf(negative=False, positive=False), [False] * 5),
]
NUMBERS = np.float32([np.nan, np.inf, -np.inf, 0, -3.4e38])


@pytest.mark.parametrize(("op", "want"), QUESTIONS, ids=repr)
def test_known_values(op, want):
    assert check(op, NUMBERS, exact=True).tolist() == want


@pytest.mark.parametrize(("op", "want"), QUESTIONS, ids=repr)
@given(shape=shapes(), rng=generators())
def test_matches_reference(op, want, shape, rng):
    y = check(op, rng.choice(NUMBERS, shape), exact=True)
    assert y.dtype == bool


def test_rejects():
    with pytest.raises(DTypeError, match="IsNaN: found int32"):
        ops.IsNaN().infer(Spec((3,), "int32"))
