"""What a Keras file says: its layers, who reads whom, and where the weights are.

Both kinds of file are read here, `.keras` archives and `.h5` files, of Keras 2 and 3,
to the same classes. Nothing in them is executed, and no size is believed before it has
been compared with the file's.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from striate.errors import ModelFormatError, UnsupportedModelError
from striate.spec import Array
from striate.tools.conversion import MALFORMED, sha256_of
from striate.tools.from_keras.hdf5 import SIGNATURE, Hdf5File
from striate.tools.from_keras.registry import weights_of

ZIP = b"PK\x03\x04"

METADATA = "metadata.json"

CONFIG = "config.json"

WEIGHTS = "model.weights.h5"

LARGEST_TEXT = 64 << 20
"""The most bytes of a description."""

SWELLING = 64
"""How many times larger than in the archive a large member may be."""

UNSUSPICIOUS = 64 << 20
"""Members up to this size may swell as they like."""

NETS = ("Functional", "Sequential", "Model")
"""What holds layers of its own."""

KERAS = re.compile(r"(keras|tf_keras|keras_core|tensorflow|builtins)(\.|\Z)")
"""Modules whose classes are Keras's own."""

CONSTANT = "_CONSTANT_VALUE"
"""What Keras 2 writes in the place of a layer for an argument that is a number."""


@dataclass(frozen=True)
class Reference:
    """One result of one call of a layer.

    Parameters
    ----------
    layer : str
        Its name.
    call, output : int
        Which call of the layer, and which of that call's results.
    shape : tuple of int or None
        The shape where the file says it; empty if it does not.
    """

    layer: str
    call: int
    output: int
    shape: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        """Raise `TypeError` unless it is a name and two numbers."""
        if [type(part) for part in self.key] != [str, int, int]:
            raise TypeError(f"{self.key} refers to nothing")

    @property
    def key(self) -> tuple[str, int, int]:
        """Equal for references to the same result."""
        return self.layer, self.call, self.output


@dataclass(frozen=True)
class Call:
    """What a layer is called with: numbers, texts, `Reference`, lists of these."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def reads(self) -> list[Reference]:
        """Return every result that the call reads."""
        return list(references((self.args, dict(self.kwargs))))


@dataclass
class SourceLayer:
    """A layer, an operation of ``keras.ops``, or a network inside another.

    Parameters
    ----------
    kind : str
        Its class.
    name : str
        Its own name.
    settings : dict
        Its settings, as Keras writes them.
    calls : list of Call
        Each one adds a result, or several.
    foreign : str
        Where its class comes from, if that is not Keras.
    operation : bool
        Whether it is an operation of ``keras.ops``.
    net : SourceNet, optional
        The layers inside it.
    inner : list of SourceLayer
        The layers it wraps, in the order of their weights.
    arrays : list of Array
        Its weights, those that are trained first.
    identity : int
        Equal for layers that are one and have one set of weights; 0 if it is alone.
    """

    kind: str
    name: str
    settings: dict[str, Any]
    calls: list[Call]
    foreign: str = ""
    operation: bool = False
    net: SourceNet | None = None
    inner: list[SourceLayer] = field(default_factory=list)
    arrays: list[Array] = field(default_factory=list)
    identity: int = 0

    @property
    def chain(self) -> bool:
        """Whether it is a Sequential network."""
        return self.kind == "Sequential"

    @property
    def trainable(self) -> bool:
        """Whether its weights were trained; if not, their order in a file differs."""
        return self.settings.get("trainable") is not False

    def leaves(self) -> Iterator[SourceLayer]:
        """Yield the layers that have weights themselves."""
        inside = self.net.layers if self.net else self.inner
        for layer in inside:
            yield from layer.leaves()
        if not inside and not self.operation:
            yield self


@dataclass
class SourceNet:
    """Layers and the results that go in and come out.

    Parameters
    ----------
    name : str
        What the network is called.
    layers : list of SourceLayer
        In the order of the file.
    inputs, outputs : list of Reference
        The results that are given, and those that are wanted.
    """

    name: str
    layers: list[SourceLayer]
    inputs: list[Reference]
    outputs: list[Reference]

    def size(self) -> int:
        """Return the number of calls of layers, those inside others included."""
        return sum(
            len(layer.calls) * (layer.net.size() if layer.net else 1)
            for layer in self.layers
        )


@dataclass
class SourceModel:
    """A Keras file.

    Parameters
    ----------
    net : SourceNet
        Its layers.
    path : str
        The file.
    format : str
        What kind of file, for the provenance.
    version : str
        The version of Keras that wrote it.
    sha256 : str
        Of the whole file.
    """

    net: SourceNet
    path: str
    format: str
    version: str
    sha256: str

    @property
    def old(self) -> bool:
        """Whether Keras 2, or 1, wrote it."""
        return self.version[:2] in ("1.", "2.")


def read_model(path: str | os.PathLike[str]) -> SourceModel:
    """Return what a Keras file says.

    Raises
    ------
    ModelFormatError
        If it is none, not whole, or does what only a hostile file does.
    """
    name = str(path)
    if not Path(path).is_file():
        raise ModelFormatError("no such file", code="not_a_file", path=name)
    try:
        with Path(path).open("rb") as file:
            head = file.read(len(SIGNATURE))
            if head[:4] == ZIP:
                return _read_archive(file, name)
            if head == SIGNATURE:
                return _read_legacy(file, name)
    except OSError as error:
        raise ModelFormatError(
            error.strerror or str(error), code="not_a_file", path=name
        ) from None
    raise ModelFormatError(
        "not a Keras model; wanted a .keras archive or an HDF5 file",
        code="not_keras",
        path=name,
    )


def _read_archive(file: BinaryIO, path: str) -> SourceModel:
    """Read a ``.keras`` archive."""
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                parts = entry.filename.replace("\\", "/").split("/")
                if ".." in parts or not parts[0]:
                    raise ModelFormatError(
                        f"its member {entry.filename!r} points out of the archive",
                        code="keras_archive",
                        path=path,
                    )
            members = _Members(archive, path)
            config = members.json(CONFIG)
            version = str(members.json(METADATA).get("keras_version", ""))
            members.require_hdf5()
            contents = np.frombuffer(members.read(WEIGHTS), np.uint8)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        raise ModelFormatError(
            f"not a whole archive: {error}", code="keras_archive", path=path
        ) from None
    store = Hdf5File(contents, path)
    net = _net(config, path)
    _place(net, store, "")
    _share(net, {})
    return SourceModel(net, path, f"Keras {version} archive", version, sha256_of(path))


class _Members:
    """The members of an archive, read by name and only to their stated size."""

    def __init__(self, archive: zipfile.ZipFile, path: str) -> None:
        self.archive = archive
        self.path = path
        self.names = Counter(archive.namelist())

    def read(self, name: str) -> bytes:
        """Return the bytes of a member."""
        if self.names[name] != 1:
            count = "no" if not self.names[name] else "more than one"
            raise self.error(f"{count} member {name!r}")
        entry = self.archive.getinfo(name)
        most = max(UNSUSPICIOUS, SWELLING * entry.compress_size)
        if entry.file_size > (LARGEST_TEXT if name.endswith(".json") else most):
            raise self.error(
                f"{name!r} would swell from {entry.compress_size} to "
                f"{entry.file_size} bytes"
            )
        if entry.flag_bits & 1:
            raise self.error(f"{name!r} is encrypted")
        with self.archive.open(entry) as member:
            found = member.read(entry.file_size + 1)
        if len(found) != entry.file_size:
            raise self.error(f"{name!r} is not as long as the archive says")
        return found

    def json(self, name: str) -> dict[str, Any]:
        """Return a member that is a JSON object."""
        return _object(self.read(name).decode("utf-8", "replace"), name, self.path)

    def require_hdf5(self) -> None:
        """Raise `ModelFormatError` if the weights are kept in another way."""
        if not self.names[WEIGHTS] and self.names["model.weights.npz"]:
            raise self.error(
                "its weights are an .npz of pickled objects, which are never read; "
                "save it with Keras's default, HDF5 weights"
            )

    def error(self, message: str) -> ModelFormatError:
        """Return the exception for something in this archive."""
        return ModelFormatError(message, code="keras_archive", path=self.path)


def _read_legacy(file: BinaryIO, path: str) -> SourceModel:
    """Read an ``.h5`` file."""
    contents = np.memmap(file, np.uint8, "r")
    store = Hdf5File(contents, path, file)
    text = store.text("", "model_config")
    if not text:
        raise ModelFormatError(
            "no model_config in it; wanted a whole model, as model.save writes it, not "
            "weights alone",
            code="not_keras",
            path=path,
        )
    version = store.text("", "keras_version") or "1.0"
    net = _net(_object(text, "model_config", path), path)
    _hand_out(net.layers, store)
    return SourceModel(net, path, f"Keras {version} HDF5", version, sha256_of(path))


def _object(text: str, name: str, path: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(
            f"{name} is not JSON: {error}", code="keras_config", path=path
        ) from None
    if not isinstance(found, dict):
        raise ModelFormatError(
            f"{name} is no JSON object", code="keras_config", path=path
        )
    return found


def _net(config: dict[str, Any], path: str) -> SourceNet:
    """Return the network that a description tells of."""
    try:
        layer = _layer(config)
    except (*MALFORMED, AttributeError) as error:
        raise ModelFormatError(
            f"its description makes no sense: {type(error).__name__}: {error}",
            code="keras_config",
            path=path,
        ) from None
    except RecursionError:
        raise ModelFormatError(
            "its description is nested too deep", code="keras_config", path=path
        ) from None
    if layer.foreign or layer.net is None:
        wanted = "wanted a Sequential or functional model of Keras"
        found = f"{layer.foreign}{layer.kind}"
        raise UnsupportedModelError(f"{path}: the model is a {found}; {wanted}")
    return layer.net


def _layer(entry: dict[str, Any]) -> SourceLayer:
    """Return a layer of a description, with what is inside."""
    kind = str(entry["class_name"])
    settings = entry.get("config") or {}
    if isinstance(settings, list):
        settings = {"layers": settings}
    if not isinstance(settings, dict):
        raise TypeError(f"the settings of a {kind} are no object")
    module = str(entry.get("module") or "")
    name = str(entry.get("name") or settings.get("name") or kind)
    layer = SourceLayer(kind, name, settings, [])
    layer.identity = int(entry.get("shared_object_id") or 0)
    registered = str(entry.get("registered_name") or "")
    if module and not KERAS.match(module):
        layer.foreign = f"{module}."
    elif ">" in registered or ">" in kind:
        package = (registered if ">" in registered else kind).partition(">")[0]
        layer.foreign = "" if KERAS.match(package.lower()) else f"{package}>"
        layer.kind = kind.rpartition(">")[2]
    numbers = module.startswith(("keras.src.ops", "keras.ops"))
    nodes = entry.get("inbound_nodes") or []
    bare = not module and not {"trainable", "dtype", "layers"} & settings.keys()
    layer.operation = numbers or (bare and any(isinstance(n, dict) for n in nodes))
    layer.calls = [_call(node) for node in nodes]
    if kind in NETS and not layer.foreign and "layers" in settings:
        inside = [_layer(part) for part in settings["layers"]]
        linked = "input_layers" in settings
        layer.net = (_functional if linked else _sequential)(name, inside, entry)
        layer.operation = False
    else:
        layer.inner = _inner(layer)
    return layer


def _inner(layer: SourceLayer) -> list[SourceLayer]:
    """Return the layers that a layer wraps."""
    parts = [layer.settings.get(name) for name in ("layer", "backward_layer")]
    found = [_layer(part) for part in parts if isinstance(part, dict)]
    if layer.kind == "Bidirectional" and len(found) == 1:
        backwards = not found[0].settings.get("go_backwards")
        settings = {**found[0].settings, "go_backwards": backwards}
        found.append(replace(found[0], settings=settings, arrays=[]))
    return found


def _functional(
    name: str, layers: list[SourceLayer], entry: dict[str, Any]
) -> SourceNet:
    """Return a network whose layers say whom they read.

    The calls of a network inside another are counted from 1 by Keras 2, which lists
    what a call reads, and by Keras 3 from 1 only where they are outputs.
    """
    settings = entry["config"]
    listed = any(
        isinstance(call, list)
        for part in settings["layers"]
        for call in part.get("inbound_nodes") or []
    )
    nets = {layer.name for layer in layers if layer.net}
    functional = {layer.name for layer in layers if layer.net and not layer.chain}
    inputs, outputs = (_ends(settings[w]) for w in ("input_layers", "output_layers"))
    read = [each for layer in layers for call in layer.calls for each in call.reads()]
    if listed:
        nets -= {each.layer for each in (*read, *outputs) if each.call == 0}
        for layer in layers:
            layer.calls = [_mapped(call, nets) for call in layer.calls]
    late = nets if listed else functional
    return SourceNet(name, layers, inputs, [_earlier(end, late) for end in outputs])


def _sequential(
    name: str, layers: list[SourceLayer], entry: dict[str, Any]
) -> SourceNet:
    """Return a network whose layers read each the one before."""
    if not layers or layers[0].kind != "InputLayer":
        shape = _first_shape(layers, entry)
        wish = f"{layers[0].name}_input" if layers else "input"
        layers = [SourceLayer("InputLayer", wish, {"batch_shape": shape}, []), *layers]
    for before, layer in itertools.pairwise(layers):
        layer.calls = [Call((Reference(before.name, 0, 0),), {})]
    first, last = layers[0], layers[-1]
    return SourceNet(
        name, layers, [Reference(first.name, 0, 0)], [Reference(last.name, 0, 0)]
    )


def _first_shape(layers: Sequence[SourceLayer], entry: Mapping[str, Any]) -> Any:
    """Return the shape that the first layer of a chain reads, None if not said."""
    settings = entry["config"]
    if layers and layers[0].net is not None:
        for layer in layers[0].net.layers:
            if layer.kind == "InputLayer":
                return input_shape(layer)
    own = layers[0].settings.get("batch_input_shape") if layers else None
    built = (entry.get("build_config") or {}).get("input_shape")
    return own or settings.get("build_input_shape") or built


def input_shape(layer: SourceLayer) -> Any:
    """Return the shape of an input layer as the file has it, None if not said."""
    return layer.settings.get("batch_shape") or layer.settings.get("batch_input_shape")


def _ends(value: Any) -> list[Reference]:
    """Return the references in a description of inputs or outputs."""
    if isinstance(value, dict):
        return [end for key in sorted(value) for end in _ends(value[key])]
    if len(value) == 3 and isinstance(value[0], str):
        return [Reference(value[0], int(value[1]), int(value[2]))]
    return [end for part in value for end in _ends(part)]


def _call(entry: Any) -> Call:
    """Return one call of a layer, as Keras 3 or Keras 2 writes it."""
    if isinstance(entry, dict):
        args = tuple(_value(value) for value in entry["args"])
        return Call(args, {k: _value(v) for k, v in entry["kwargs"].items()})
    single = isinstance(entry[0], str)
    parts = [entry] if single else entry
    kwargs: dict[str, Any] = {}
    found: list[Any] = []
    for part in parts:
        constant = part[0] == CONSTANT
        found.append(part[2] if constant else Reference(part[0], part[1], part[2]))
        kwargs.update(part[3] if len(part) > 3 else {})
    named = {name: _listed(value) for name, value in kwargs.items()}
    return Call(tuple(found) if len(found) == 1 else (found,), named)


def _listed(value: Any) -> Any:
    """Return an argument of Keras 2, in which a list may be a reference."""
    if not isinstance(value, list):
        return value
    if [type(part) for part in value[:3]] == [str, int, int]:
        return Reference(*value[:3])
    return [_listed(part) for part in value]


def _value(value: Any) -> Any:
    """Return an argument of Keras 3."""
    if isinstance(value, list):
        return [_value(part) for part in value]
    if not isinstance(value, dict):
        return value
    settings = value.get("config")
    kind = value.get("class_name")
    if not isinstance(settings, dict) or kind is None:
        return {key: _value(part) for key, part in value.items()}
    if kind == "__keras_tensor__":
        name, call, output = settings["keras_history"]
        return Reference(name, call, output, tuple(settings["shape"]))
    if kind in ("__numpy__", "__tensor__"):
        return np.asarray(settings["value"], settings["dtype"])
    if kind == "__slice__":
        return slice(settings["start"], settings["stop"], settings["step"])
    if kind == "__ellipsis__":
        return Ellipsis
    return value


def references(value: Any) -> Iterator[Reference]:
    """Yield the references in an argument, those of a dictionary by its sorted keys."""
    if isinstance(value, Reference):
        yield value
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from references(part)
    elif isinstance(value, dict):
        for key in sorted(value):
            yield from references(value[key])


def mapped(value: Any, function: Callable[[Reference], Any]) -> Any:
    """Return an argument with `function` of every reference in it."""
    if isinstance(value, Reference):
        return function(value)
    if isinstance(value, (list, tuple)):
        return type(value)(mapped(part, function) for part in value)
    if isinstance(value, dict):
        return {key: mapped(part, function) for key, part in value.items()}
    return value


def _mapped(call: Call, nets: Set[str]) -> Call:
    """Return a call that counts the calls of some networks from 0."""

    def one(reference: Reference) -> Reference:
        return _earlier(reference, nets)

    return Call(mapped(call.args, one), mapped(dict(call.kwargs), one))


def _earlier(reference: Reference, nets: Set[str]) -> Reference:
    """Return a reference to the call before, if it is of one of the networks."""
    if reference.layer not in nets:
        return reference
    return replace(reference, call=reference.call - 1)


def snake_case(name: str) -> str:
    """Return a class name as it is in a path of weights: ``p_re_lu`` of PReLU."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _place(net: SourceNet, store: Hdf5File, group: str) -> None:
    """Give the layers of a network their weights out of an archive."""
    used: Counter[str] = Counter()
    old = f"{group}_layer_checkpoint_dependencies"
    inside = old if store.has(old) else f"{group}layers"
    for layer in net.layers:
        if layer.operation:
            continue
        name = snake_case(layer.kind)
        number = f"_{used[name]}" if used[name] else ""
        used[name] += 1
        _place_in(layer, store, f"{inside}/{name}{number}")


def _place_in(layer: SourceLayer, store: Hdf5File, group: str) -> None:
    if layer.net is not None:
        _place(layer.net, store, f"{group}/")
    for part, inside in zip(layer.inner, ("layer", "backward_layer"), strict=False):
        first = "forward_layer" if layer.kind == "Bidirectional" else "layer"
        _place_in(part, store, f"{group}/{first if inside == 'layer' else inside}")
    names = store.names(f"{group}/vars") or store.names(f"{group}/cell/vars")
    names.sort(key=lambda path: int(path.rpartition("/")[2]))
    layer.arrays = [store.array(name) for name in names]


def _share(net: SourceNet, known: dict[int, SourceLayer]) -> None:
    """Give layers that are one and the same the weights, which the file has once."""
    for layer in net.layers:
        one = known.setdefault(layer.identity, layer) if layer.identity else layer
        for part, other in zip(layer.leaves(), one.leaves(), strict=False):
            full = part.arrays or other.arrays
            part.arrays, other.arrays = full, full
        if layer.net is not None:
            _share(layer.net, known)


def _hand_out(layers: Sequence[SourceLayer], store: Hdf5File) -> None:
    """Give layers their weights out of an ``.h5`` file.

    It keeps one list for each layer: what was trained, then the rest. Of a network
    that is a layer these are the lists of all its layers joined, a layer that was not
    to be trained being all rest.
    """
    for layer in layers:
        group = f"model_weights/{layer.name}"
        arrays = [
            store.array(f"{group}/{n}") for n in store.texts(group, "weight_names")
        ]
        leaves = list(layer.leaves())
        if len(leaves) == 1:
            leaves[0].arrays = arrays
            continue
        parts = [weights_of(leaf.kind).names(leaf.settings) for leaf in leaves]
        frozen = [not layer.trainable or not leaf.trainable for leaf in leaves]
        counts = [
            (0, len(trained) + len(kept)) if still else (len(trained), len(kept))
            for (trained, kept), still in zip(parts, frozen, strict=True)
        ]
        rest = iter(arrays)
        for place in (0, 1):
            for leaf, count in zip(leaves, counts, strict=True):
                leaf.arrays += itertools.islice(rest, count[place])
