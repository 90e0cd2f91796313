"""What a caller wants between the steps of a run: to see values, to end in time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .errors import DeadlineError, NotFiniteError, SettingError
from .spec import Array

Hook = Callable[[str, Array], object]
"""Called with the name and a copy of every layer's value as a run computes it."""


class Watch(NamedTuple):
    """What a caller wants between the steps of a run.

    Parameters
    ----------
    timeout, end : float
        Seconds allowed, and when they are over, by `time.monotonic`.
    check : bool
        Whether every value must be finite.
    hook : callable or None
        Gets every value.
    """

    timeout: float
    end: float
    check: bool
    hook: Hook | None

    @classmethod
    def wanted(
        cls, timeout: float | None, check_finite: bool, hook: Hook | None
    ) -> Watch | None:
        """Return what is to be watched; None, for the shortest way, if nothing is.

        Raises
        ------
        SettingError
            If `timeout` is no time.
        """
        if timeout is None:
            if not check_finite and hook is None:
                return None
            timeout = math.inf
        elif not isinstance(timeout, (int, float)) or not timeout > 0:
            raise SettingError(f"timeout {timeout!r}: wanted seconds, more than 0")
        return cls(timeout, time.monotonic() + timeout, check_finite, hook)

    @property
    def looks(self) -> bool:
        """Whether it wants to see the values."""
        return self.check or self.hook is not None

    def left(self, layer: str) -> float:
        """Return the seconds that are left.

        Raises
        ------
        DeadlineError
            If there are none; `layer` is what would have been next.
        """
        left = self.end - time.monotonic()
        if left <= 0:
            raise DeadlineError(
                f"not done after {self.timeout:g} s, reached layer {layer!r}",
                layer=layer,
            )
        return left

    def see(self, name: str, array: Array) -> None:
        """Look at a value; raise `NotFiniteError` if it must be finite and is not."""
        if self.check:
            check_finite(f"layer {name!r} made of finite inputs", name, array)
        if self.hook is not None:
            self.hook(name, array.copy())


def check_finite(what: str, name: str, array: Array) -> None:
    """Raise `NotFiniteError` if a value is NaN or infinite."""
    if array.dtype.kind != "f":
        return
    finite = np.isfinite(array)
    if finite.all():
        return
    wrong = np.argwhere(~finite)
    at = tuple(map(int, wrong[0]))
    raise NotFiniteError(
        f"{what} {array[at]} at {at}; "
        f"{len(wrong)} of {array.size} values are not finite",
        layer=name,
    )
