"""Functions of one number, applied to every element."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

import numpy as np

from .. import kernels
from ..record import record
from ..spec import Array, Spec
from ..step import Step
from ..view import View
from .base import Lowering, Op, as_view, finite_fields, require_float32


class Elementwise(Op, abstract=True):
    """A function of one number: any shape to the same shape."""

    function: ClassVar[str]
    """The name of `code` in ``elementwise.pyx``."""

    @property
    def code(self) -> int:
        """The number by which kernels know the function."""
        module = kernels.load("elementwise")
        code: int = (module.CODES | module.LIBRARY_CODES)[self.function]
        return code

    @property
    def alpha(self) -> float:
        """The function's first parameter."""
        return 0.0

    @property
    def beta(self) -> float:
        """The function's second parameter."""
        return 0.0

    def infer(self, x: Spec) -> Spec:
        """Return the input's spec."""
        require_float32(type(self).__name__, x)
        return x

    def lower(self, low: Lowering, out: View, x: View | Array) -> list[Step]:
        """Return the kernel; `out` may be `x`."""
        source = as_view(low, x)
        kernel = low.load("elementwise").unary(
            out.shape, out.strides, source.strides, self.code, self.alpha, self.beta
        )
        return [Step(kernel, (out, source), "elementwise")]


class Activation(Elementwise, abstract=True):
    """An elementwise function that any layer that fuses can apply to its result.

    Such layers need only `code`, `alpha` and `beta`.
    """


class Relu(Activation):
    """Replace negative numbers by zero: max(x, 0)."""

    function: ClassVar[str] = "CLAMP"

    @property
    def beta(self) -> float:
        """No upper limit."""
        return math.inf

    def reference(self, x: Array) -> Array:
        """Return max(x, 0)."""
        y: Array = np.maximum(x, 0)
        return y


@record
class Clip(Activation):
    """Limit numbers to an interval: min(max(x, minimum), maximum).

    Parameters
    ----------
    minimum, maximum : float
        Finite; the largest float32, 3.4028234663852886e38, serves as an open end.
    """

    minimum: float
    maximum: float

    function: ClassVar[str] = "CLAMP"

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that is not finite."""
        finite_fields(self, "minimum", "maximum")

    @property
    def alpha(self) -> float:
        """The lower limit."""
        return self.minimum

    @property
    def beta(self) -> float:
        """The upper limit."""
        return self.maximum

    def reference(self, x: Array) -> Array:
        """Return min(max(x, minimum), maximum)."""
        y: Array = np.minimum(np.maximum(x, self.minimum), self.maximum)
        return y


@record
class LeakyRelu(Activation):
    """Scale negative numbers: x, or alpha x where x < 0."""

    alpha: float = 0.01

    function: ClassVar[str] = "LEAKY"

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` if it is not finite."""
        finite_fields(self, "alpha")

    def reference(self, x: Array) -> Array:
        """Return x, or alpha x where x < 0."""
        return np.where(x < 0, self.alpha * x, x)


@record
class Elu(Activation):
    """Bend negative numbers: x, or alpha (exp(x) - 1) where x < 0."""

    alpha: float = 1.0

    function: ClassVar[str] = "ELU"

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` if it is not finite."""
        finite_fields(self, "alpha")

    def reference(self, x: Array) -> Array:
        """Return x, or alpha (exp(x) - 1) where x < 0."""
        return np.where(x < 0, self.alpha * np.expm1(np.minimum(x, 0)), x)


class Sigmoid(Activation):
    """Squeeze numbers into 0 to 1: 1 / (1 + exp(-x))."""

    function: ClassVar[str] = "SIGMOID"

    def reference(self, x: Array) -> Array:
        """Return 1 / (1 + exp(-x)), in a form that does not overflow."""
        return _sigmoid(x)


class Tanh(Activation):
    """Squeeze numbers into -1 to 1 by the hyperbolic tangent."""

    function: ClassVar[str] = "TANH"

    def reference(self, x: Array) -> Array:
        """Return tanh(x)."""
        y: Array = np.tanh(x)
        return y


class Silu(Activation):
    """Weigh numbers by their sigmoid: x / (1 + exp(-x)), also called swish."""

    function: ClassVar[str] = "SILU"

    def reference(self, x: Array) -> Array:
        """Return x sigmoid(x)."""
        y: Array = x * _sigmoid(x)
        return y


@record
class HardSigmoid(Activation):
    """Approximate the sigmoid by a line: alpha x + beta, limited to 0 to 1."""

    alpha: float = 0.2
    beta: float = 0.5

    function: ClassVar[str] = "HARD_SIGMOID"

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that is not finite."""
        finite_fields(self, "alpha", "beta")

    def reference(self, x: Array) -> Array:
        """Return alpha x + beta, limited to 0 to 1."""
        y: Array = np.clip(self.alpha * x + self.beta, 0, 1)
        return y


class HardSwish(Activation):
    """Approximate `Silu` by lines: x (x + 3) / 6 between -3 and 3, 0 below, x above."""

    function: ClassVar[str] = "HARD_SWISH"

    def reference(self, x: Array) -> Array:
        """Return x min(max(x + 3, 0), 6) / 6."""
        y: Array = x * np.clip(x + 3, 0, 6) / 6
        return y


@record
class Gelu(Activation):
    """Weigh numbers by the normal distribution: x (1 + erf(x / sqrt 2)) / 2.

    Parameters
    ----------
    approximate : str
        ``"none"``, or ``"tanh"`` for x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2.
    """

    approximate: Literal["none", "tanh"] = "none"

    function: ClassVar[str] = "GELU"

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` on another word."""
        if self.approximate not in ("none", "tanh"):
            raise ValueError(
                f"approximate {self.approximate!r}, wanted 'none' or 'tanh'"
            )

    @property
    def code(self) -> int:
        """The number by which kernels know the function."""
        function = "GELU_TANH" if self.approximate == "tanh" else "GELU"
        code: int = kernels.load("elementwise").CODES[function]
        return code

    def reference(self, x: Array) -> Array:
        """Return the formula, written so that nothing cancels where x < 0."""
        if self.approximate == "tanh":
            y: Array = x * _sigmoid(math.sqrt(8 / math.pi) * (x + 0.044715 * x**3))
        else:
            y = x * _each(math.erfc, -x / math.sqrt(2)) / 2
        return y


class Softplus(Activation):
    """Smooth `Relu`: ln(1 + exp(x))."""

    function: ClassVar[str] = "SOFTPLUS"

    def reference(self, x: Array) -> Array:
        """Return ln(exp(0) + exp(x))."""
        y: Array = np.logaddexp(0, x)
        return y


class Mish(Activation):
    """Weigh numbers by tanh(softplus(x))."""

    function: ClassVar[str] = "MISH"

    def reference(self, x: Array) -> Array:
        """Return x tanh(ln(1 + exp(x)))."""
        y: Array = x * np.tanh(np.logaddexp(0, x))
        return y


class Exp(Activation):
    """Raise e to the power of x."""

    function: ClassVar[str] = "EXP"

    def reference(self, x: Array) -> Array:
        """Return exp(x)."""
        y: Array = np.exp(x)
        return y


class Log(Activation):
    """Take the natural logarithm; minus infinity at zero, NaN below it."""

    function: ClassVar[str] = "LOG"

    def reference(self, x: Array) -> Array:
        """Return ln(x)."""
        y: Array = np.log(x)
        return y


class Sqrt(Activation):
    """Take the square root; NaN of negative numbers."""

    function: ClassVar[str] = "SQRT"

    def reference(self, x: Array) -> Array:
        """Return the square root of x."""
        y: Array = np.sqrt(x)
        return y


class Abs(Activation):
    """Drop the sign."""

    function: ClassVar[str] = "ABS"

    def reference(self, x: Array) -> Array:
        """Return |x|."""
        y: Array = np.abs(x)
        return y


class Neg(Activation):
    """Change the sign."""

    function: ClassVar[str] = "NEG"

    def reference(self, x: Array) -> Array:
        """Return -x."""
        y: Array = np.negative(x)
        return y


class Erf(Activation):
    """Evaluate the error function, 2 / sqrt(pi) times the integral of exp(-t^2)."""

    function: ClassVar[str] = "ERF"

    def reference(self, x: Array) -> Array:
        """Return erf(x)."""
        return _each(math.erf, x)


class Reciprocal(Activation):
    """Divide one by x."""

    function: ClassVar[str] = "RECIPROCAL"

    def reference(self, x: Array) -> Array:
        """Return 1 / x."""
        y: Array = np.reciprocal(x)
        return y


@record
class Selu(Activation):
    """Scale `Elu`: gamma x, or gamma alpha (exp(x) - 1) where x <= 0."""

    alpha: float = 1.6732632423543772
    gamma: float = 1.0507009873554805

    function: ClassVar[str] = "SELU"

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that is not finite."""
        finite_fields(self, "alpha", "gamma")

    @property
    def beta(self) -> float:
        """The scale."""
        return self.gamma

    def reference(self, x: Array) -> Array:
        """Return gamma x, or gamma alpha (exp(x) - 1) where x <= 0."""
        negative = self.alpha * np.expm1(np.minimum(x, 0))
        y: Array = self.gamma * np.where(x > 0, x, negative)
        return y


@record
class Celu(Activation):
    """Bend negative numbers smoothly: x, or alpha (exp(x / alpha) - 1) where x < 0.

    Parameters
    ----------
    alpha : float
        More than zero.
    """

    alpha: float = 1.0

    function: ClassVar[str] = "CELU"

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` unless it is positive."""
        finite_fields(self, "alpha")
        if self.alpha <= 0:
            raise ValueError(f"alpha {self.alpha}, wanted a positive number")

    def reference(self, x: Array) -> Array:
        """Return x, or alpha (exp(x / alpha) - 1) where x < 0."""
        negative = self.alpha * np.expm1(np.minimum(x, 0) / self.alpha)
        return np.where(x < 0, negative, x)


class Softsign(Activation):
    """Squeeze numbers into -1 to 1: x / (1 + |x|); NaN at infinity."""

    function: ClassVar[str] = "SOFTSIGN"

    def reference(self, x: Array) -> Array:
        """Return x / (1 + |x|)."""
        y: Array = x / (1 + np.abs(x))
        return y


@record
class ThresholdedRelu(Activation):
    """Replace small numbers by zero: x, or 0 where x <= alpha."""

    alpha: float = 1.0

    function: ClassVar[str] = "THRESHOLD"

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` if it is not finite."""
        finite_fields(self, "alpha")

    def reference(self, x: Array) -> Array:
        """Return x, or 0 where x <= alpha."""
        return np.where(x <= self.alpha, 0, x)


@record
class Shrink(Activation):
    """Move numbers towards zero: x + bias below -lambd, x - bias above lambd, else 0.

    A bias of zero is the hard, one of `lambd` the soft threshold.
    """

    bias: float = 0.0
    lambd: float = 0.5

    function: ClassVar[str] = "SHRINK"

    def __post_init__(self) -> None:
        """Check the fields; raise `ValueError` on one that is not finite."""
        finite_fields(self, "bias", "lambd")

    @property
    def alpha(self) -> float:
        """The threshold."""
        return self.lambd

    @property
    def beta(self) -> float:
        """The bias."""
        return self.bias

    def reference(self, x: Array) -> Array:
        """Return x + bias below -lambd, x - bias above lambd, else 0."""
        y = np.where(x > self.lambd, x - self.bias, 0 * np.nan_to_num(x))
        y = np.where(x < -self.lambd, x + self.bias, y)
        return np.where(np.isnan(x), x, y)


@record
class Swish(Activation):
    """Weigh numbers by the sigmoid of alpha x: x / (1 + exp(-alpha x))."""

    alpha: float = 1.0

    function: ClassVar[str] = "SWISH"

    def __post_init__(self) -> None:
        """Check the field; raise `ValueError` if it is not finite."""
        finite_fields(self, "alpha")

    def reference(self, x: Array) -> Array:
        """Return x sigmoid(alpha x)."""
        y: Array = x * _sigmoid(self.alpha * x)
        return y


class Sign(Activation):
    """Return -1, 0 or 1."""

    function: ClassVar[str] = "SIGN"

    def reference(self, x: Array) -> Array:
        """Return the sign of x."""
        y: Array = np.sign(x)
        return y


class Floor(Activation):
    """Round down to a whole number."""

    function: ClassVar[str] = "FLOOR"

    def reference(self, x: Array) -> Array:
        """Return the largest whole number that is not above x."""
        y: Array = np.floor(x)
        return y


class Ceil(Activation):
    """Round up to a whole number."""

    function: ClassVar[str] = "CEIL"

    def reference(self, x: Array) -> Array:
        """Return the smallest whole number that is not below x."""
        y: Array = np.ceil(x)
        return y


class Round(Activation):
    """Round to the nearest whole number, halves to the even one."""

    function: ClassVar[str] = "ROUND"

    def reference(self, x: Array) -> Array:
        """Return the nearest whole number."""
        y: Array = np.rint(x)
        return y


class Sin(Elementwise):
    """Take the sine; NaN at infinity."""

    function: ClassVar[str] = "SIN"

    def reference(self, x: Array) -> Array:
        """Return sin(x)."""
        y: Array = np.sin(x)
        return y


class Cos(Elementwise):
    """Take the cosine; NaN at infinity."""

    function: ClassVar[str] = "COS"

    def reference(self, x: Array) -> Array:
        """Return cos(x)."""
        y: Array = np.cos(x)
        return y


class Tan(Elementwise):
    """Take the tangent; NaN at infinity."""

    function: ClassVar[str] = "TAN"

    def reference(self, x: Array) -> Array:
        """Return tan(x)."""
        y: Array = np.tan(x)
        return y


class Asin(Elementwise):
    """Take the arc sine; NaN outside -1 to 1."""

    function: ClassVar[str] = "ASIN"

    def reference(self, x: Array) -> Array:
        """Return asin(x)."""
        y: Array = np.arcsin(x)
        return y


class Acos(Elementwise):
    """Take the arc cosine; NaN outside -1 to 1."""

    function: ClassVar[str] = "ACOS"

    def reference(self, x: Array) -> Array:
        """Return acos(x)."""
        y: Array = np.arccos(x)
        return y


class Atan(Elementwise):
    """Take the arc tangent."""

    function: ClassVar[str] = "ATAN"

    def reference(self, x: Array) -> Array:
        """Return atan(x)."""
        y: Array = np.arctan(x)
        return y


class Sinh(Elementwise):
    """Take the hyperbolic sine."""

    function: ClassVar[str] = "SINH"

    def reference(self, x: Array) -> Array:
        """Return sinh(x)."""
        y: Array = np.sinh(x)
        return y


class Cosh(Elementwise):
    """Take the hyperbolic cosine."""

    function: ClassVar[str] = "COSH"

    def reference(self, x: Array) -> Array:
        """Return cosh(x)."""
        y: Array = np.cosh(x)
        return y


class Asinh(Elementwise):
    """Take the inverse of the hyperbolic sine."""

    function: ClassVar[str] = "ASINH"

    def reference(self, x: Array) -> Array:
        """Return asinh(x)."""
        y: Array = np.arcsinh(x)
        return y


class Acosh(Elementwise):
    """Take the inverse of the hyperbolic cosine; NaN below 1."""

    function: ClassVar[str] = "ACOSH"

    def reference(self, x: Array) -> Array:
        """Return acosh(x)."""
        y: Array = np.arccosh(x)
        return y


class Atanh(Elementwise):
    """Take the inverse of the hyperbolic tangent; NaN outside -1 to 1."""

    function: ClassVar[str] = "ATANH"

    def reference(self, x: Array) -> Array:
        """Return atanh(x)."""
        y: Array = np.arctanh(x)
        return y


def _sigmoid(x: Array) -> Array:
    y: Array = np.exp(-np.logaddexp(0, -x))
    return y


def _each(function: Any, x: Array) -> Array:
    y: Array = np.vectorize(function, otypes=[x.dtype])(x)
    return y
