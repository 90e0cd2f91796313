"""Arrays and texts of a foreign HDF5 file, which may be hostile.

The HDF5 library looks at the file in a process of its own, `hdf5_index`, and says where
each array lies. Here that is checked against the file, whose bytes are then taken as
they are.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from striate.errors import ModelFormatError
from striate.spec import Array

SIGNATURE = b"\x89HDF\r\n\x1a\n"

SECONDS = 180
"""How long the index of a file may take."""


class Hdf5File:
    """The arrays and texts of one file.

    Parameters
    ----------
    contents : Array
        The bytes of the file, uint8.
    path : str
        What to call it in messages.
    file : binary file, optional
        The same file, open for reading, so that its bytes need not be copied.

    Raises
    ------
    ModelFormatError
        If it is no whole HDF5 file, or links to others.
    """

    def __init__(
        self, contents: Array, path: str, file: BinaryIO | None = None
    ) -> None:
        self.path = path
        self.contents = contents
        if contents[: len(SIGNATURE)].tobytes() != SIGNATURE:
            raise self.error("not an HDF5 file", "not_keras")
        found = self._index(file)
        if "error" in found:
            raise self.error(str(found["error"]), "hdf5")
        self._datasets: dict[str, list[Any]] = found["datasets"]
        self._attributes: dict[str, dict[str, Any]] = found["attributes"]
        self._require_apart()
        self._groups: dict[str, list[str]] = {}
        for name in self._datasets:
            self._groups.setdefault(name.rpartition("/")[0], []).append(name)

    def error(self, message: str, code: str) -> ModelFormatError:
        """Return the exception for something in this file."""
        return ModelFormatError(message, code=code, path=self.path)

    def names(self, group: str) -> list[str]:
        """Return the paths of the arrays directly in a group."""
        return list(self._groups.get(group, []))

    def has(self, group: str) -> bool:
        """Return whether there is a group of that path with arrays in it, or below."""
        return any(name.startswith(f"{group}/") for name in self._datasets)

    def text(self, group: str, name: str) -> str:
        """Return an attribute of a group, "" if it has none of that name."""
        found = self._attributes.get(group, {}).get(name, "")
        return found if isinstance(found, str) else ""

    def texts(self, group: str, name: str) -> list[str]:
        """Return an attribute of a group that is a list, in pieces if it is long."""
        here = self._attributes.get(group, {})
        found = []
        for piece in self._pieces(here, name):
            found += piece if isinstance(piece, list) else [piece]
        return found

    def array(self, name: str) -> Array:
        """Return a copy of an array; float32 where the file has a shorter float.

        Raises
        ------
        ModelFormatError
            If there is none of that name, or none that lies in the file as it is.
        """
        if name not in self._datasets:
            raise self.error(f"no array {name!r}", "keras_weights")
        dtype, shape, offset = self._datasets[name]
        if dtype is None:
            raise self.error(f"the elements of {name!r} are no numbers", "hdf5")
        short = dtype == "bfloat16"
        kind = np.dtype("<u2" if short else dtype)
        if 0 in shape:
            return np.zeros(shape, kind)
        if offset is None:
            raise self.error(
                f"the array {name!r} is compressed or not there; wanted one that lies "
                "in the file as it is, the way Keras writes it",
                "hdf5",
            )
        end = offset + math.prod(shape) * kind.itemsize
        found = np.frombuffer(self.contents[offset:end].tobytes(), kind).reshape(shape)
        if short:
            found = (found.astype(np.uint32) << 16).view(np.float32)
        array: Array = found.astype(np.float32) if kind == np.float16 else found
        return array

    def _index(self, file: BinaryIO | None) -> dict[str, Any]:
        """Return what the process with the HDF5 library found."""
        script = Path(__file__).with_name("hdf5_index.py")
        kept = {k: v for k, v in os.environ.items() if not k.startswith("HDF5_")}
        given: dict[str, Any] = {"stdin": file}
        if file is None:
            given = {"input": self.contents.tobytes()}
        else:
            file.seek(0)
        try:
            done = subprocess.run(
                [sys.executable, "-I", str(script), *sys.path],
                capture_output=True,
                timeout=SECONDS,
                check=False,
                env={**kept, "HDF5_PLUGIN_PRELOAD": "::", "HDF5_USE_FILE_LOCKING": "0"},
                **given,
            )
        except subprocess.TimeoutExpired:
            raise self.error("reading it takes too long", "hdf5") from None
        try:
            found: dict[str, Any] = json.loads(done.stdout)
        except ValueError:
            raise self.error(
                f"the HDF5 library fails on it, exit status {done.returncode}", "hdf5"
            ) from None
        return found

    def _require_apart(self) -> None:
        """Raise `ModelFormatError` if an array is not in the file, or in another."""
        extents = []
        for name, (dtype, shape, offset) in self._datasets.items():
            if dtype is None or offset is None:
                continue
            size = 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize
            extents.append((offset, offset + math.prod(shape) * size, name))
        last = 0
        for start, end, name in sorted(extents):
            if start < last or end > len(self.contents):
                raise self.error(
                    f"{name!r} lies outside the file or in another", "hdf5"
                )
            last = end

    @staticmethod
    def _pieces(here: dict[str, Any], name: str) -> Iterator[Any]:
        if name in here:
            yield here[name]
            return
        number = 0
        while f"{name}{number}" in here:
            yield here[f"{name}{number}"]
            number += 1
