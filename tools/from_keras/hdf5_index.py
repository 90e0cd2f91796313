"""List what a foreign HDF5 file holds, as a process of its own.

The HDF5 library can be made to crash, to allocate without end and to read other files
by what a file says. So this script is run by `striate.tools.from_keras.hdf5` with the
file as its standard input, in a process that can open nothing else, has bounded memory
and time, and whose only result is text: where each array lies in the file. The arrays
themselves are never read here.

Its arguments are the module search path. It prints one JSON object: ``datasets`` maps
each path to [element type or null, shape, offset or null], ``attributes`` maps each
path to the texts found there; or ``error`` alone says why the file is refused.
"""

from __future__ import annotations

import io
import json
import re
import resource
import sys
from pathlib import Path
from typing import Any

CPU_SECONDS = 60

MEMORY = 2 << 30
"""What the process may take besides twice the size of a file that is not seekable."""

OBJECTS = 200_000
"""The most groups and datasets that are looked at."""

DEPTH = 64
"""The deepest nesting of groups."""

TEXTS = 64 << 20
"""The most characters of attributes."""

WANTED = re.compile(
    r"(model_config|keras_version|backend|dtype|(layer|weight)_names\d*)\Z"
)
"""The attributes that say something of a model."""


class RefusedError(Exception):
    """The file does what a file of weights has no reason to do."""


def main() -> None:
    """Print the index of the file on standard input."""
    sys.path[:] = sys.argv[1:]
    import h5py

    source: Any = sys.stdin.buffer
    size = 0
    if not source.seekable():
        contents = source.read()
        size = len(contents)
        source = io.BytesIO(contents)
    _confine(size)
    try:
        with h5py.File(source, "r") as file:
            found = _Walk(h5py).of(file)
    except RefusedError as error:
        found = {"error": str(error)}
    except Exception as error:
        found = {"error": f"the HDF5 library cannot read it: {error}"}
    sys.stdout.write(json.dumps(found))


def _confine(size: int) -> None:
    """Give up whatever reading one open file does not need."""
    pages = Path("/proc/self/statm").read_text("ascii").split()[0]
    used = int(pages) * resource.getpagesize()
    limit = used + MEMORY + 2 * size
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, 0))


class _Walk:
    """One pass over the groups of a file, link by link."""

    def __init__(self, h5py: Any) -> None:
        self.h5py = h5py
        self.datasets: dict[str, Any] = {}
        self.attributes: dict[str, dict[str, Any]] = {}
        self.seen: set[tuple[int, int]] = set()
        self.texts = 0
        h5t = h5py.h5t
        self.types = {
            "<f2": h5t.IEEE_F16LE,
            "<f4": h5t.IEEE_F32LE,
            "<f8": h5t.IEEE_F64LE,
            "|i1": h5t.STD_I8LE,
            "|u1": h5t.STD_U8LE,
            "<i4": h5t.STD_I32LE,
            "<u4": h5t.STD_U32LE,
            "<i8": h5t.STD_I64LE,
            "<u8": h5t.STD_U64LE,
        }

    def of(self, file: Any) -> dict[str, Any]:
        """Return the index of an open file."""
        root = self.h5py.h5o.open(file.id, b"/")
        self._attributes(root, "")
        self._group(root, "", 0)
        return {"datasets": self.datasets, "attributes": self.attributes}

    def _group(self, group: Any, path: str, depth: int) -> None:
        if depth > DEPTH:
            raise RefusedError(f"groups deeper than {DEPTH}")
        names: list[bytes] = []

        def keep(name: bytes, *_: Any) -> None:
            names.append(name)
            if len(names) > OBJECTS:
                raise RefusedError(f"more than {OBJECTS} objects")

        group.links.iterate(keep)
        for name in names:
            inside = f"{path}/{name.decode('utf-8', 'replace')}".lstrip("/")
            if group.links.get_info(name).type != self.h5py.h5l.TYPE_HARD:
                raise RefusedError(f"{inside!r} is a link to somewhere else")
            self._object(self.h5py.h5o.open(group, name), inside, depth)

    def _object(self, item: Any, path: str, depth: int) -> None:
        facts = self.h5py.h5o.get_info(item)
        key = (facts.fileno, facts.addr)
        if facts.rc != 1 or key in self.seen:
            raise RefusedError(f"{path!r} is in the file under another name as well")
        self.seen.add(key)
        if len(self.seen) > OBJECTS:
            raise RefusedError(f"more than {OBJECTS} objects")
        self._attributes(item, path)
        if isinstance(item, self.h5py.h5g.GroupID):
            self._group(item, path, depth + 1)
        elif isinstance(item, self.h5py.h5d.DatasetID):
            self.datasets[path] = self._dataset(item, path)
        else:
            raise RefusedError(f"{path!r} is neither a group nor an array")

    def _dataset(self, item: Any, path: str) -> list[Any]:
        """Return element type, shape and offset, None for what can have no offset."""
        made = item.get_create_plist()
        layout = made.get_layout()
        if layout == self.h5py.h5d.VIRTUAL or made.get_external_count():
            raise RefusedError(f"the elements of {path!r} are in another file")
        whole = layout == self.h5py.h5d.CONTIGUOUS and not made.get_nfilters()
        shape = item.get_space().get_simple_extent_dims() if whole else ()
        offset = item.get_offset() if whole else None
        return [self._dtype(item.get_type()), list(shape or ()), offset]

    def _dtype(self, kind: Any) -> str | None:
        h5t = self.h5py.h5t
        for name, stored in self.types.items():
            if kind.equal(stored):
                return name
        if kind.get_class() == h5t.OPAQUE and kind.get_size() == 2:
            return "bfloat16"
        return None

    def _attributes(self, item: Any, path: str) -> None:
        for index in range(self.h5py.h5a.get_num_attrs(item)):
            attribute = self.h5py.h5a.open(item, index=index)
            name = attribute.name.decode("utf-8", "replace")
            if not WANTED.match(name):
                continue
            found = self._text(self.h5py.AttributeManager(_Holder(item))[name])
            if found is not None:
                self.texts += (
                    len(found) if isinstance(found, str) else sum(map(len, found))
                )
                if self.texts > TEXTS:
                    raise RefusedError(f"more than {TEXTS} characters of attributes")
                self.attributes.setdefault(path, {})[name] = found

    def _text(self, value: Any) -> str | list[str] | None:
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, str):
            return value
        if hasattr(value, "tolist") and getattr(value, "ndim", 0) == 1:
            texts = [self._text(entry) for entry in value.tolist()]
            return [text for text in texts if isinstance(text, str)]
        return None


class _Holder:
    """What h5py's attributes want of their owner."""

    def __init__(self, item: Any) -> None:
        self.id = item


if __name__ == "__main__":
    main()
