"""One call of one compiled kernel, with every decision made."""

from __future__ import annotations

from typing import NamedTuple

from .view import View

Kernel = tuple[int, bytes]
"""What a kernel module returns: a C function's address and its geometry block."""


class Step(NamedTuple):
    """A kernel and the tensors it works on; the first is the one it writes.

    Parameters
    ----------
    kernel : Kernel
        Address and geometry; the geometry holds sizes and strides, never addresses,
        so one plan serves any number of arenas.
    operands : tuple of View
        In the order the kernel's docstring gives.
    algorithm : str
        What a profile prints, such as ``"taps gemm 14x2"``.
    together : bool
        Whether the next step may start before every thread has finished this one.
    """

    kernel: Kernel
    operands: tuple[View, ...]
    algorithm: str = ""
    together: bool = False
