"""Archives as `torch.save` and `torch.export.save` write them.

Members lie in them uncompressed and apart, so that all of them together are no larger
than the file. An archive that is otherwise is refused; members are read by their names
and nothing is extracted.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from types import TracebackType

from striate.errors import ModelFormatError
from striate.tools.from_torch.storage import refusal

MOST_MEMBERS = 1 << 18
"""The most members an archive may have."""


class Archive:
    """An archive of one folder whose members are read by name.

    Parameters
    ----------
    path : path
        The file.

    Raises
    ------
    ModelFormatError
        If it is not a whole archive of that kind.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = str(path)
        try:
            self._zip = zipfile.ZipFile(Path(path))
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise refusal(
                self.path, f"no whole archive: {error}", "truncated"
            ) from None
        try:
            self._check()
        except ModelFormatError:
            self._zip.close()
            raise

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._zip.close()

    def _check(self) -> None:
        members = self._zip.infolist()
        if not members or len(members) > MOST_MEMBERS:
            raise refusal(self.path, f"an archive of {len(members)} members")
        for member in members:
            name = member.filename
            if name.startswith("/") or "\\" in name or ".." in name.split("/"):
                raise refusal(
                    self.path, f"a member called {name[:80]!r}", "member_name"
                )
            if member.compress_type != zipfile.ZIP_STORED:
                raise refusal(
                    self.path,
                    f"the member {name[:80]!r} is compressed, wanted an archive as "
                    "PyTorch writes it",
                    "compressed",
                )
        total = sum(member.file_size for member in members)
        if total > Path(self.path).stat().st_size:
            raise refusal(
                self.path, f"its members claim {total} bytes, more than it has", "size"
            )
        folders = {member.filename.split("/")[0] for member in members}
        if len(folders) != 1:
            raise refusal(self.path, f"{len(folders)} folders in it, wanted one")
        self.folder = folders.pop()
        self._sizes = {member.filename: member.file_size for member in members}

    def __contains__(self, name: str) -> bool:
        return f"{self.folder}/{name}" in self._sizes

    def size(self, name: str) -> int:
        """Return the bytes of a member, 0 if there is none."""
        return self._sizes.get(f"{self.folder}/{name}", 0)

    def read(self, name: str) -> bytes:
        """Return a member.

        Raises
        ------
        ModelFormatError
            If there is none of that name, or it is damaged.
        """
        if name not in self:
            raise refusal(self.path, f"no member {name[:80]!r} in it", "truncated")
        try:
            return self._zip.read(f"{self.folder}/{name}")
        except (
            zipfile.BadZipFile,
            OSError,
            ValueError,
            EOFError,
            RuntimeError,
        ) as error:
            raise refusal(
                self.path, f"the member {name!r}: {error}", "truncated"
            ) from None
