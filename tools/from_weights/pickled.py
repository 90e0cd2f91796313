"""Weights that `torch.save` wrote: tensors in dictionaries, never objects.

A pickle is a program. It is not given to Python's unpickler here but read by a machine
that knows dictionaries, lists, numbers, strings and the functions that rebuild tensors,
and that refuses everything else before it has any effect.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from striate.errors import ModelFormatError
from striate.spec import Array
from striate.tools.from_torch.storage import decoded, refusal, strided, width
from striate.tools.from_torch.zipped import Archive

LONGEST_PICKLE = 1 << 28
"""The most bytes of a pickle that are read."""

MAGIC = 0x1950A86A20F9469CFC6C
"""What the files of PyTorch before 1.6 begin with."""

MARK = object()

STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
"""Element types by the class of what holds them."""

REBUILDERS = ("_rebuild_tensor_v2", "_rebuild_tensor", "_rebuild_parameter")

HOW_TO_EXPORT = (
    "only tensors in dictionaries are read. In a program that trusts the file, save "
    "torch.save(model.state_dict(), 'weights.pth'), or the whole network as "
    "torch.export.save(torch.export.export(model.eval(), (x,)), 'model.pt2')"
)


@dataclass(frozen=True)
class Name:
    """A class or function that a pickle mentions, one of the few allowed."""

    module: str
    name: str


@dataclass(frozen=True)
class Storage:
    """Where elements are: a name in the file, their type and number."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True)
class StoredTensor:
    """A tensor whose elements have not been looked at yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_pickled(path: Path) -> Any:
    """Return what `torch.save` wrote, with arrays for tensors.

    Raises
    ------
    ModelFormatError
        If it is not whole, or holds anything but tensors, numbers and strings.
    """
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    if zipped:
        return _zipped(path)
    return _legacy(path)


def _zipped(path: Path) -> Any:
    with Archive(path) as archive:
        if archive.size("data.pkl") > LONGEST_PICKLE:
            raise refusal(archive.path, "its pickle is too long", "size")
        if "byteorder" in archive and archive.read("byteorder") != b"little":
            raise refusal(archive.path, "from a big-endian machine", "byte_order")
        text = archive.read("data.pkl")
        result = Machine(archive.path).run(text)
        elements: dict[str, Array] = {}

        def load(storage: Storage) -> Array:
            if storage.key not in elements:
                data = archive.read(f"data/{storage.key}")
                if len(data) != storage.count * width(storage.dtype):
                    raise refusal(
                        archive.path,
                        f"{len(data)} bytes for {storage.count} elements",
                        "size",
                    )
                elements[storage.key] = decoded(data, storage.dtype)
            return elements[storage.key]

        return filled(archive.path, result, load)


def _legacy(path: Path) -> Any:
    """Read a file as before PyTorch 1.6: pickles, then the elements."""
    name = str(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        machine = Machine(name)
        if machine.run(file) != MAGIC:
            raise refusal(name, f"no weights that torch.save wrote; {HOW_TO_EXPORT}")
        if machine.run(file) != 1001:
            raise refusal(name, "an unknown version of torch.save", "torch_version")
        system = machine.run(file)
        if not isinstance(system, dict) or system.get("little_endian") is False:
            raise refusal(name, "from a big-endian machine", "byte_order")
        machine = Machine(name)
        result = machine.run(file)
        keys = machine.run(file)
        elements: dict[str, Array] = {}
        for key in keys if isinstance(keys, list) else []:
            storage = machine.storages.get(str(key))
            count = int.from_bytes(file.read(8), "little")
            if storage is None or count != storage.count:
                raise refusal(name, f"{count} elements of {str(key)[:40]!r}", "size")
            length = count * width(storage.dtype)
            if length > size - file.tell():
                raise refusal(name, "it ends among the elements", "truncated")
            elements[storage.key] = decoded(file.read(length), storage.dtype)

    def load(storage: Storage) -> Array:
        if storage.key not in elements:
            raise refusal(name, f"the elements {storage.key[:40]!r} are missing")
        return elements[storage.key]

    return filled(name, result, load)


def filled(path: str, result: Any, load: Callable[[Storage], Array]) -> Any:
    """Return a dictionary, or dictionaries in one, with arrays for stored tensors."""
    if isinstance(result, StoredTensor):
        try:
            return strided(
                load(result.storage), result.offset, result.shape, result.strides
            )
        except ValueError as error:
            raise refusal(path, f"a tensor: {error}", "size") from None
    if not isinstance(result, dict):
        return result
    return {
        key: filled(path, value, load)
        if isinstance(value, StoredTensor)
        else _inner(path, value, load)
        for key, value in result.items()
    }


def _inner(path: str, value: Any, load: Callable[[Storage], Array]) -> Any:
    """Return a dictionary of tensors, and all else as it is."""
    if not isinstance(value, dict):
        return value
    return {
        key: filled(path, each, load) if isinstance(each, StoredTensor) else each
        for key, each in value.items()
    }


class Machine:
    """Reads pickles that make dictionaries of tensors.

    Parameters
    ----------
    path : str
        The file, for messages.

    Attributes
    ----------
    storages : dict
        The storages mentioned, by key.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.storages: dict[str, Storage] = {}

    def run(self, pickle: bytes | IO[bytes]) -> Any:
        """Return what a pickle makes.

        Raises
        ------
        ModelFormatError
            If it is damaged or wants more than this machine does.
        """
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        try:
            for code, argument, _ in pickletools.genops(pickle):
                if code.name == "STOP":
                    return self.stack.pop()
                self._step(code.name, argument)
        except ModelFormatError:
            raise
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as e:
            raise refusal(
                self.path, f"its pickle makes no sense: {e}", "truncated"
            ) from None
        raise refusal(self.path, "its pickle has no end", "truncated")

    def _step(self, code: str, argument: Any) -> None:
        stack = self.stack
        if code in CONSTANTS:
            stack.append(CONSTANTS[code])
        elif code in LITERALS:
            stack.append(argument)
        elif code in EMPTY:
            stack.append(EMPTY[code]())
        elif code in ("PROTO", "FRAME"):
            pass
        elif code == "MARK":
            stack.append(MARK)
        elif code in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = stack[-1]
        elif code == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif code in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif code in ("TUPLE", "LIST", "DICT"):
            self._gathered(code)
        elif code in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(code[-1])
            stack[-count:] = [tuple(stack[-count:])]
        elif code in ("SETITEM", "SETITEMS"):
            self._set(2 if code == "SETITEM" else 0)
        elif code in ("APPEND", "APPENDS"):
            self._append(1 if code == "APPEND" else 0)
        elif code == "GLOBAL":
            stack.append(self._named(*argument.split(" ", 1)))
        elif code == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            stack.append(self._named(str(module), str(name)))
        elif code == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif code == "REDUCE":
            arguments = stack.pop()
            stack.append(self._called(stack.pop(), arguments))
        elif code == "BUILD":
            self._built()
        else:
            raise self._refused(f"its pickle has a {code}")

    def _refused(self, what: str) -> ModelFormatError:
        return refusal(self.path, f"{what}; {HOW_TO_EXPORT}", "pickle")

    def _top(self, count: int) -> list[Any]:
        """Take that many values, or those above the last mark."""
        if count:
            values = self.stack[-count:]
            del self.stack[-count:]
            return values
        place = len(self.stack) - 1
        while self.stack[place] is not MARK:
            place -= 1
            if place < 0:
                raise ValueError("no mark")
        values = self.stack[place + 1 :]
        del self.stack[place:]
        return values

    def _gathered(self, code: str) -> None:
        values = self._top(0)
        if code == "DICT":
            self.stack.append({})
            self._fill(self.stack[-1], values)
        else:
            self.stack.append(tuple(values) if code == "TUPLE" else values)

    def _set(self, count: int) -> None:
        values = self._top(count)
        self._fill(self.stack[-1], values)

    def _fill(self, target: Any, values: list[Any]) -> None:
        if type(target) is not dict or len(values) % 2:
            raise self._refused("it sets items of something else than a dictionary")
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, (str, int)):
                raise self._refused(f"a key that is a {type(key).__name__}")
            target[key] = value

    def _append(self, count: int) -> None:
        values = self._top(count)
        if type(self.stack[-1]) is not list:
            raise self._refused("it appends to something else than a list")
        self.stack[-1].extend(values)

    def _named(self, module: str, name: str) -> Any:
        if module == "collections" and name == "OrderedDict":
            return Name(module, name)
        if module == "torch._utils" and name in REBUILDERS:
            return Name(module, name)
        if module in ("torch", "torch.storage") and name in STORAGES:
            return Name(module, name)
        if (module, name) == ("torch", "Size"):
            return Name(module, name)
        raise self._refused(f"it would call {module[:60]}.{name[:60]}")

    def _storage(self, reference: Any) -> Storage:
        kind, holder, key, _, count, *_ = reference
        if kind != "storage" or not isinstance(holder, Name):
            raise ValueError("an unknown persistent object")
        key = str(key)
        if not key.isascii() or not key.replace("_", "").isalnum():
            raise ValueError(f"elements called {key[:40]!r}")
        if type(count) is not int or count < 0:
            raise ValueError(f"{count!r} elements")
        found = Storage(key, STORAGES[holder.name], count)
        if self.storages.setdefault(key, found) != found:
            raise ValueError(f"the elements {key[:40]!r} are of two kinds")
        return found

    def _called(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name) or type(arguments) is not tuple:
            raise self._refused("it calls something that is no known function")
        if function.name == "OrderedDict":
            found: dict[Any, Any] = {}
            for pair in arguments[0] if arguments else []:
                self._fill(found, list(pair))
            return found
        if function.name == "Size":
            return tuple(arguments[0])
        if function.name == "_rebuild_parameter":
            if not isinstance(arguments[0], StoredTensor):
                raise self._refused("a parameter of something else than a tensor")
            return arguments[0]
        if function.name in REBUILDERS:
            storage, offset, shape, strides = arguments[:4]
            if not isinstance(storage, Storage):
                raise self._refused("a tensor of something else than elements")
            return StoredTensor(storage, offset, tuple(shape), tuple(strides))
        raise self._refused(f"it would call {function.module}.{function.name}")

    def _built(self) -> None:
        """Leave out what is set on a dictionary besides its items."""
        self.stack.pop()
        if type(self.stack[-1]) is not dict:
            raise self._refused("it sets what an object is made of")


CONSTANTS: Mapping[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}

EMPTY: Mapping[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
}

LITERALS = frozenset(
    (
        "INT",
        "BININT",
        "BININT1",
        "BININT2",
        "LONG",
        "LONG1",
        "LONG4",
        "FLOAT",
        "BINFLOAT",
        "UNICODE",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "STRING",
        "BINSTRING",
        "SHORT_BINSTRING",
        "BINBYTES",
        "SHORT_BINBYTES",
    )
)
"""What pushes its argument."""


def tensors(found: Any) -> dict[str, Array]:
    """Return the tensors of a dictionary by name."""
    return {
        str(name): value
        for name, value in found.items()
        if isinstance(value, np.ndarray)
    }
