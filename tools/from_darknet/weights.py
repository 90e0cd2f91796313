"""The stream of weights beside a Darknet configuration."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
from striate.errors import UnsupportedModelError
from striate.spec import Array
from striate.tools.from_darknet.config import refused


class WeightStream:
    """The numbers of a weights file, in the order in which layers take them.

    A header of three whole numbers, the version, is followed by how many pictures the
    network has seen, in 8 bytes from version 0.2 on and 4 before, and by float32.

    Parameters
    ----------
    path : Path
        The file.

    Attributes
    ----------
    version : str
        As in the header.
    transposed : bool
        Whether matrices are stored by inputs.
    fault : str
        What was missing, once something was.

    Raises
    ------
    ModelFormatError
        If the file has no such header.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        data = path.read_bytes()
        self.size = len(data)
        if self.size < 16:
            raise refused(
                path, f"found {self.size} bytes, wanted a header of 16", "truncated"
            )
        major, minor, revision = struct.unpack_from("<3i", data)
        if min(major, minor, revision) < 0 or max(major, minor) > 1 << 16:
            raise refused(
                path, f"version {major}.{minor}.{revision}: not Darknet weights"
            )
        self.transposed = major > 1000 or minor > 1000
        wide = major * 10 + minor >= 2 and not self.transposed
        self.header = 20 if wide else 16
        if self.size < self.header:
            raise refused(
                path,
                f"found {self.size} bytes, wanted a header of {self.header}",
                "truncated",
            )
        self.version = f"{major}.{minor}.{revision}"
        self.fault = ""
        count = (self.size - self.header) // 4
        self._numbers = np.frombuffer(data, "<f4", count, self.header)
        self._next = 0

    def take(self, *shape: int) -> Array:
        """Return the next numbers of the stream.

        Raises
        ------
        UnsupportedModelError
            If there are not so many; `fault` says so too.
        """
        end = self._next + math.prod(shape)
        if end > len(self._numbers):
            self.fault = (
                f"found {self.size} bytes, wanted {self.header + 4 * end} or more"
            )
            raise UnsupportedModelError(self.fault)
        found = self._numbers[self._next : end].reshape(shape)
        self._next = end
        return found

    def require_end(self) -> None:
        """Raise `ModelFormatError` unless every byte was taken."""
        wanted = self.header + 4 * self._next
        if wanted != self.size:
            raise refused(
                self.path, f"found {self.size} bytes, wanted {wanted}", "weights"
            )
