"""How a step moves through its tensors, and how its sums are finished."""

from __future__ import annotations

from typing import NamedTuple

from ..lowering import Epilogue
from ..view import View

Four = tuple[int, int, int, int]


class Moves(NamedTuple):
    """How far input, output and residual move along four axes of output positions."""

    size: Four
    x: Four
    y: Four
    r: Four

    @classmethod
    def between(cls, out: View, x: tuple[int, ...], residual: View | None) -> Moves:
        """Return the moves, with axes that run on into each other merged.

        Parameters
        ----------
        out : View
            The last axis is channels.
        x : tuple of int
            The input's move for one step along each other axis of `out`.
        residual : View, optional
            Of the shape of `out`.
        """
        r = residual.strides if residual else (0,) * out.rank
        axes: list[Four] = []
        for axis in zip(out.shape[:-1], x, out.strides[:-1], r[:-1], strict=True):
            if axis[0] == 1:
                continue
            if axes and all(axes[-1][i] == axis[i] * axis[0] for i in (1, 2, 3)):
                axes[-1] = (axes[-1][0] * axis[0], *axis[1:])
            else:
                axes.append(axis)
        if len(axes) > 4:
            raise NotImplementedError(f"{len(axes)} separate axes of positions")
        axes = [(1, 0, 0, 0)] * (4 - len(axes)) + axes
        size, xs, ys, rs = (tuple(axis[i] for axis in axes) for i in range(4))
        return cls(size, xs, ys, rs)  # type: ignore[arg-type]


def finish(epilogue: Epilogue) -> tuple[int, float, float]:
    """Return the code and the numbers of the activation; zeros for none."""
    op = epilogue.activation
    return (0, 0.0, 0.0) if op is None else (op.code, op.alpha, op.beta)


def fused(algorithm: str, epilogue: Epilogue) -> str:
    """Return the algorithm's name with what is fused into it."""
    if epilogue.residual:
        algorithm += " + add"
    if epilogue.activation:
        algorithm += f" + {type(epilogue.activation).__name__}"
    if epilogue.halved:
        algorithm += " + MaxPool"
    return algorithm
