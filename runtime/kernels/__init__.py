"""The compiled kernels, and the choice among the instruction sets this CPU runs.

``STRIATE_ISA=avx2`` in the environment picks a lower one, for tests and bug reports.
"""

from __future__ import annotations

import os
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from threading import RLock
from types import ModuleType

from ..errors import SettingError
from ._cpu import cache_bytes, supported

SUPPORTED: list[str] = [
    isa for isa in supported() if find_spec(f"{__name__}.conv_{isa}")
]
"""The instruction sets this machine runs and kernels were built for, best first."""

LEVEL1_BYTES, LEVEL2_BYTES = cache_bytes()


def checked_isa(name: str) -> str:
    """Return `name` if this machine runs that instruction set.

    Raises
    ------
    SettingError
        If it does not.
    """
    if name not in SUPPORTED:
        raise SettingError(
            f"instruction set {name!r}: this machine runs {', '.join(SUPPORTED)}"
        )
    return name


ISA: str = checked_isa(os.environ.get("STRIATE_ISA") or SUPPORTED[0])
"""The instruction set used unless a call names another."""


_IMPORTING = RLock()
"""Held while a kernel is imported, and so while the process forks: a child could wait
for ever for an import that a thread of its parent had begun."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_IMPORTING.acquire,
        after_in_parent=_IMPORTING.release,
        after_in_child=_IMPORTING.release,
    )


@cache
def load(family: str, isa: str = ISA) -> ModuleType:
    """Return the module of kernel `family` (a file of ``pyx/``) built for `isa`.

    Raises
    ------
    MemoryError
        If there is no room for it.
    """
    try:
        with _IMPORTING:
            return import_module(f"{__name__}.{family}_{isa}")
    except ImportError as error:
        if "failed to map" in str(error) or "annot allocate" in str(error):
            raise MemoryError(str(error)) from error
        raise
