"""Packed weights that processes share: a file each of them maps.

# Design
The file is a model file of constants, so it is written in one step, read strictly,
verified and mapped as every model is; its name has the model's id, striate's version
and the instruction set. A process that packs something the file lacks writes a new file
with both and maps it. Two that do so at once each write a whole file; the last one
stays, and what it lacks is packed and added by whoever wants it next.
"""

from __future__ import annotations

import hashlib
import os
from importlib import import_module
from pathlib import Path

from .cache_note import VerifiedFiles
from .errors import DTypeError, ModelFormatError
from .graph import Graph
from .model_file import read, save
from .ops import Constant
from .packed_weights import PackedWeights
from .spec import Array

UNLIMITED = 1 << 62


class CachedWeights(PackedWeights):
    """Packed weights, of which those of a model's own graph are kept in a file.

    Parameters
    ----------
    folder : path
        Where the file is or will be; only writable by whom the models' users trust.
    whole : Graph
        The model's, from a file.
    isa : str
        The instruction set the weights are packed for.
    """

    def __init__(self, folder: str | os.PathLike[str], whole: Graph, isa: str) -> None:
        super().__init__(whole.file)
        version = import_module(__name__.partition(".")[0]).__version__
        self._key = f"{whole.model_id}-{version}-{isa}"
        self.path = Path(folder) / f"{self._key}.h5"
        self._verified = VerifiedFiles(folder)
        self._names: dict[int, str] = {}
        self._new: dict[str, tuple[tuple[int, object], Array]] = {}
        self._stored = self._read()

    def serve(self, graph: Graph | None) -> None:
        """Say whose weights are packed next; None if they are not to be kept."""
        params = {} if graph is None else graph.params
        self._names = {id(array): name for name, array in params.items()}

    def find(self, array: Array, tag: object) -> Array | None:
        """Return what was packed of this `array` for this `tag`, here or elsewhere."""
        found = super().find(array, tag)
        name = None if found is not None else self._name(array, tag)
        if name in self._stored:
            found = self._stored[name]
            self._made[id(array), tag] = found, array
        return found

    def add(self, array: Array, tag: object, packed: Array) -> None:
        """Remember what was packed of an array."""
        super().add(array, tag, packed)
        name = self._name(array, tag)
        if name is not None:
            self._new[name] = (id(array), tag), packed

    def _name(self, array: Array, tag: object) -> str | None:
        """Return what the file calls a packed array; None for one it does not keep."""
        if id(array) not in self._names:
            return None
        text = f"{self._names[id(array)]} {tag!r}"
        return hashlib.sha256(text.encode()).hexdigest()

    def keep(self) -> bool:
        """Write what the file lacks; return whether packed arrays were replaced."""
        if not self._new:
            return False
        new, self._new = self._new, {}
        graph = Graph(self._key)
        arrays = {**self._stored, **{name: packed for name, (_, packed) in new.items()}}
        for name, array in arrays.items():
            graph.add(Constant(), name=name, value=array)
        graph.output(next(iter(arrays)))
        try:
            save(graph, self.path)
        except (ModelFormatError, DTypeError):
            return False
        self._stored = self._read()
        for name, (key, _) in new.items():
            if name in self._stored:
                self._made[key] = self._stored[name], self._made[key][1]
        return True

    def _read(self) -> dict[str, Array]:
        """Return what the file holds; nothing if there is none, or it is damaged."""
        try:
            graph = read(
                self.path, max_activation_bytes=UNLIMITED, verified=self._verified
            )
        except ModelFormatError:
            return {}
        if graph.name != self._key:
            return {}
        return {node.name: graph.params[node.params["value"]] for node in graph.nodes}
