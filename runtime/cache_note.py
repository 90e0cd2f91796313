"""What a process leaves in a cache folder for those that come after it.

# Design
A note is a small file of JSON. It is replaced in one step, and one that cannot be read,
or holds something else, counts as missing: it can cost time and nothing else.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

COARSE_NS = 2_000_000_000
"""The coarsest clock of a file system, in nanoseconds."""


class CacheNote:
    """A file of JSON that others may replace at any time.

    Parameters
    ----------
    path : Path
        Where it is or will be.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Any:
        """Return what the file holds; None if there is none, or it is damaged."""
        try:
            return json.loads(self.path.read_text())
        except (OSError, ValueError, RecursionError):
            return None

    def write(self, value: Any) -> None:
        """Replace the file, whole or not at all; raise `OSError` if it cannot be."""
        new = self.path.with_name(f".{self.path.name}.{os.urandom(8).hex()}")
        try:
            new.write_text(json.dumps(value, indent=1))
            new.replace(self.path)
        finally:
            with suppress(OSError):
                new.unlink()


class VerifiedFiles:
    """Notes of model files whose tensors had the right hashes.

    A file is the same as long as the system says the same of it: where it is, its size
    and the times of its last changes. One of them is set by the system whenever the
    content, a name or the rights change, and by nobody else. A file that changed just
    now is not noted, because another change could have the same time.

    Parameters
    ----------
    folder : path
        Where the notes are; only writable by whom the models' users trust.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)

    def holds(self, model_id: str, status: os.stat_result) -> bool:
        """Return whether this file was verified as that model and is as it was."""
        return bool(self._note(model_id).read() == _identity(status))

    def add(self, model_id: str, status: os.stat_result) -> None:
        """Note that the file, with this status before it was read, has been verified.

        A folder that cannot be written to is no error.
        """
        if time.time_ns() - status.st_ctime_ns > COARSE_NS:
            with suppress(OSError):
                self._note(model_id).write(_identity(status))

    def _note(self, model_id: str) -> CacheNote:
        return CacheNote(self._folder / f"{model_id}-verified.json")


def _identity(status: os.stat_result) -> dict[str, int]:
    """Return what tells a file in one state from every other."""
    return {
        "device": status.st_dev,
        "inode": status.st_ino,
        "size": status.st_size,
        "modified_ns": status.st_mtime_ns,
        "changed_ns": status.st_ctime_ns,
    }
