"""Converters and command lines."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from striate import Graph
from striate.errors import ModelFormatError, SettingError

__all__ = ["convert"]


def convert(
    source: str | os.PathLike[str],
    *,
    io: str = "channels_last",
    progress: Callable[[int, int], None] | None = None,
) -> Graph:
    """Return the network of another framework's file.

    Parameters
    ----------
    source : path
        An ONNX file, ``.onnx``.
    io : str
        How images go in and come out: ``"channels_last"`` for (N, H, W, C), or
        ``"source"`` for the order the file has, so that callers keep their arrays.
        Inside, everything is channels-last either way.
    progress : callable, optional
        Called with the number of nodes done and their number.

    Returns
    -------
    Graph
        Its `provenance` says where it comes from, ``metadata["conversion"]`` what was
        done: nodes in and out, what was folded, which transposes were necessary.

    Raises
    ------
    ModelFormatError
        If the file is not what its name says, or not whole.
    UnsupportedModelError
        If the network holds what has no equal; the message is a table of all of it.
    MissingExtraError
        If a package for reading it is not installed; the message says which.
    """
    if io not in ("channels_last", "source"):
        raise SettingError(f"io {io!r}, wanted 'channels_last' or 'source'")
    suffix = Path(source).suffix.lower()
    if suffix != ".onnx":
        raise ModelFormatError(
            f"no converter for {suffix or 'files without an ending'}; wanted .onnx",
            code="not_onnx",
            path=str(source),
        )
    from striate.tools.from_onnx.importer import from_onnx

    return from_onnx(source, io=io, progress=progress)
