"""Model files that must be refused: one builder each, from one small good model.

A builder writes one file that breaks exactly one rule; `HOSTILE` lists them with the
code of the refusal they must meet. `write` without changes gives the good model.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5f, h5g, h5p, h5s, h5t
from striate import Postprocess, Preprocess, Resize
from striate.kernels._checksum import lookup3

Builder = Callable[[Path], object]
Change = Callable[[bytes], bytes]
Edit = Callable[[Any], object]
Rewrite = Callable[[dict[str, Any]], object]

HOSTILE: dict[str, tuple[str, Builder]] = {}

EARLY = (h5d.ALLOC_TIME_EARLY,)
RNG = np.random.default_rng(0)
TENSORS = {
    "conv1/kernel": RNG.standard_normal((3, 3, 1, 4), dtype=np.float32),
    "conv1/bias": RNG.standard_normal(4, dtype=np.float32),
    "fc/kernel": RNG.standard_normal((4, 3), dtype=np.float32),
    "fc/bias": RNG.standard_normal(3, dtype=np.float32),
}
LABELS = np.array([b"left", b"right", b"\xc3\xbc"])
GRAPH: dict[str, Any] = {
    "name": "small",
    "ops": {"Conv": 1, "Dense": 1, "GlobalAveragePool": 1, "Relu": 1},
    "inputs": [{"name": "image", "dtype": "float32", "shape": ["N", 8, 8, 1]}],
    "nodes": [
        {
            "name": "conv1",
            "op": "Conv",
            "inputs": ["image"],
            "attributes": {
                "stride": [1, 1],
                "dilation": [1, 1],
                "padding": "valid",
                "groups": 1,
            },
            "params": {"kernel": "conv1/kernel", "bias": "conv1/bias"},
        },
        {"name": "relu1", "op": "Relu", "inputs": ["conv1"]},
        {
            "name": "pool",
            "op": "GlobalAveragePool",
            "inputs": ["relu1"],
            "attributes": {"keepdims": False},
        },
        {
            "name": "fc",
            "op": "Dense",
            "inputs": ["pool"],
            "params": {"kernel": "fc/kernel", "bias": "fc/bias"},
        },
    ],
    "outputs": ["fc"],
    "tensors": {
        name: {
            "dtype": "float32",
            "shape": list(array.shape),
            "sha256": hashlib.sha256(array).hexdigest(),
        }
        for name, array in TENSORS.items()
    },
    "labels": {"count": 3, "sha256": hashlib.sha256(LABELS).hexdigest()},
    "preprocess": Preprocess("L", resize=Resize("exact", (8, 8))).attributes(),
    "postprocess": Postprocess("fc", top=2).attributes(),
    "metadata": {"note": "small \u00fc", "numbers": [1, 2.5, None, True]},
}


def graph(change: Rewrite) -> bytes:
    """Return the good graph's text after `change`."""
    document = copy.deepcopy(GRAPH)
    change(document)
    return json.dumps(document, indent=1).encode()


def string(size: int) -> Any:
    """Return the type of strings in model files."""
    kind = h5t.C_S1.copy()
    kind.set_size(size)
    kind.set_strpad(h5t.STR_NULLPAD)
    kind.set_cset(h5t.CSET_UTF8)
    return kind


def group_properties() -> Any:
    """Return what makes a group of the profile."""
    properties = h5p.create(h5p.GROUP_CREATE)
    properties.set_obj_track_times(False)
    properties.set_link_creation_order(h5p.CRT_ORDER_TRACKED)
    return properties


def dataset_properties() -> Any:
    """Return what makes a dataset of the profile."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    return properties


def simple(*shape: int) -> Any:
    """Return a dataspace."""
    return h5s.create_simple(shape) if shape else h5s.create(h5s.SCALAR)


def attach(owner: Any, name: bytes, value: Any) -> None:
    """Add an attribute: bytes as a string, else int32."""
    if isinstance(value, bytes):
        kind = string(len(value))
        h5a.create(owner, name, kind, simple()).write(np.array(value), kind)
    else:
        array = np.array(value, "<i4")
        h5a.create(owner, name, h5t.STD_I32LE, simple(*array.shape)).write(array)


def store(
    group: Any, name: bytes, array: Any, kind: Any = None, properties: Any = None
) -> Any:
    """Add a dataset with its data."""
    array = np.asarray(array)
    properties = properties or dataset_properties()
    if array.dtype.kind == "S":
        kind = string(array.itemsize)
    file_kind = kind or h5t.py_create(array.dtype)
    dataset = h5d.create(group, name, file_kind, simple(*array.shape), properties)
    dataset.write(h5s.ALL, h5s.ALL, array, kind if array.dtype.kind == "S" else None)
    return dataset


def declare(
    group: Any, shape: tuple[int, ...], kind: Any = h5t.IEEE_F32LE, **settings: Any
) -> Any:
    """Add a dataset ``kernel`` without data; `settings` are calls on its properties."""
    properties = dataset_properties()
    for setting, arguments in settings.items():
        getattr(properties, setting)(*arguments)
    return h5d.create(group, b"kernel", kind, simple(*shape), properties)


def write(
    path: Path,
    text: bytes | None = None,
    *,
    without: Iterable[str] = (),
    edit: Edit | None = None,
    attributes: dict[bytes, Any] | None = None,
    track_times: bool = False,
    user_block: int = 0,
    paged: bool = False,
    latest: bool = False,
) -> Path:
    """Write the good model with changes.

    Parameters
    ----------
    text : bytes
        Another ``/graph``.
    without : iterable of str
        Tensors to leave out.
    edit : callable
        Gets the open root group before the file is closed.
    attributes : dict
        Root attributes that differ; None leaves one out.
    track_times, user_block, paged, latest
        HDF5 features that model files do not have.
    """
    text = json.dumps(GRAPH, indent=1).encode() if text is None else text
    access = h5p.create(h5p.FILE_ACCESS)
    high = h5f.LIBVER_LATEST if latest else h5f.LIBVER_V18
    access.set_libver_bounds(
        *((h5f.LIBVER_V110,) * 2 if paged else (h5f.LIBVER_V18, high))
    )
    access.set_alignment(1, 64)
    creation = h5p.create(h5p.FILE_CREATE)
    creation.set_obj_track_times(track_times)
    creation.set_link_creation_order(h5p.CRT_ORDER_TRACKED)
    if user_block:
        creation.set_userblock(user_block)
    if paged:
        creation.set_file_space_strategy(h5f.FSPACE_STRATEGY_PAGE, False, 1)
    file = h5f.create(os.fsencode(path), h5f.ACC_TRUNC, creation, access)
    root = h5g.open(file, b"/")
    wanted = {
        b"format": b"striate",
        b"format_version": [1, 0],
        b"model_id": hashlib.sha256(text).hexdigest().encode(),
        b"producer": b"hostile",
        **(attributes or {}),
    }
    for name, value in wanted.items():
        if value is not None:
            attach(root, name, value)
    store(root, b"graph", np.array(text))
    store(root, b"labels", LABELS)
    weights = h5g.create(root, b"weights", gcpl=group_properties())
    layers: dict[str, Any] = {}
    for name, array in TENSORS.items():
        layer, operand = name.split("/")
        if name not in without:
            if layer not in layers:
                layers[layer] = h5g.create(
                    weights, layer.encode(), gcpl=group_properties()
                )
            store(layers[layer], operand.encode(), array)
    if edit:
        edit(root)
    layers.clear()
    del weights, root
    file.close()
    return path


def good_bytes() -> bytes:
    """Return the good model."""
    with tempfile.TemporaryDirectory() as folder:
        return write(Path(folder) / "good.h5").read_bytes()


def resealed(data: bytes, position: int) -> bytes:
    """Return `data` with the checksum of the object header around `position` right."""
    start = data.rindex(b"OHDR", 0, position)
    flags = data[start + 5]
    width = 1 << (flags & 3)
    prefix = start + 6 + (4 if flags & 0x10 else 0)
    end = prefix + width + int.from_bytes(data[prefix : prefix + width], "little")
    return data[:end] + lookup3(data[start:end]).to_bytes(4, "little") + data[end + 4 :]


def resealed_superblock(data: bytes) -> bytes:
    """Return `data` with the checksum of the superblock right."""
    return data[:44] + lookup3(data[:44]).to_bytes(4, "little") + data[48:]


def replaced(data: bytes, old: bytes, new: bytes) -> bytes:
    """Return `data` with the only `old`, in an object header, replaced."""
    assert data.count(old) == 1
    position = data.index(old)
    return resealed(data[:position] + new + data[position + len(old) :], position)


def flipped(data: bytes, position: int) -> bytes:
    """Return `data` with one bit changed."""
    return data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]


def layout(address: int, size: int) -> bytes:
    """Return the layout message of a dataset."""
    return struct.pack("<BBQQ", 3, 1, address, size)


def address_of(data: bytes, name: str) -> int:
    """Return where a tensor lies."""
    found = data.index(TENSORS[name].tobytes())
    assert data.count(layout(found, TENSORS[name].nbytes)) == 1
    return found


def moved(data: bytes, name: str, address: int) -> bytes:
    """Return `data` with the header of a tensor saying that it lies elsewhere."""
    size = TENSORS[name].nbytes
    return replaced(data, layout(address_of(data, name), size), layout(address, size))


def hostile(code: str) -> Callable[[Builder], Builder]:
    """Register a builder of a whole file; its name is the case's."""

    def register(builder: Builder) -> Builder:
        HOSTILE[builder.__name__] = code, builder
        return builder

    return register


def with_bytes(code: str) -> Callable[[Change], Change]:
    """Register a change of the good file's bytes."""

    def register(change: Change) -> Change:
        def build(path: Path) -> None:
            path.write_bytes(change(good_bytes()))

        HOSTILE[change.__name__] = code, build
        return change

    return register


def with_edit(code: str, **settings: Any) -> Callable[[Edit], Edit]:
    """Register a change made through the library, given the root group."""

    def register(edit: Edit) -> Edit:
        HOSTILE[edit.__name__] = code, lambda path: write(path, edit=edit, **settings)
        return edit

    return register


def instead(code: str, **settings: Any) -> Callable[[Edit], Edit]:
    """Register another object in place of the tensor ``fc/kernel``, given its group."""

    def register(create: Edit) -> Edit:
        def edit(root: Any) -> None:
            create(h5g.open(root, b"weights/fc"))

        edit.__name__ = create.__name__
        with_edit(code, without=["fc/kernel"], **settings)(edit)
        return create

    return register


def with_graph(code: str) -> Callable[[Rewrite], Rewrite]:
    """Register a change of the graph; the id in the file is right."""

    def register(change: Rewrite) -> Rewrite:
        HOSTILE[change.__name__] = code, lambda path: write(path, graph(change))
        return change

    return register


@hostile("not_a_file")
def fifo(path: Path) -> None:
    os.mkfifo(path)


@with_bytes("size")
def empty(data: bytes) -> bytes:
    return b""


@with_bytes("not_hdf5")
def text(data: bytes) -> bytes:
    return b"hello " * 1400


@hostile("superblock")
def plain_h5(path: Path) -> None:
    h5py.File(path, "w").close()


@with_bytes("size")
def truncated(data: bytes) -> bytes:
    return data[:-1]


@with_bytes("size")
def cut_half(data: bytes) -> bytes:
    return data[: len(data) // 2]


@hostile("size")
def zip_tail(path: Path) -> None:
    with zipfile.ZipFile(write(path), "a") as archive:
        archive.writestr("evil.py", "print('hello')")


@hostile("not_hdf5")
def userblock(path: Path) -> None:
    with write(path, user_block=512).open("r+b") as file:
        file.write(b"#!/bin/sh\necho hello\n")


@with_bytes("not_hdf5")
def prefix(data: bytes) -> bytes:
    return bytes(1024) + data


@hostile("superblock")
def sb_ext(path: Path) -> None:
    write(path, paged=True)


@with_bytes("superblock")
def unclosed(data: bytes) -> bytes:
    return resealed_superblock(data[:8] + b"\3" + data[9:11] + b"\1" + data[12:])


@with_bytes("corrupt")
def flip_sb(data: bytes) -> bytes:
    return flipped(data, 40)


@with_bytes("corrupt")
def flip_meta(data: bytes) -> bytes:
    return flipped(data, data.rindex(b"OHDR") + 20)


@with_bytes("checksum")
def flip_data(data: bytes) -> bytes:
    return flipped(data, address_of(data, "conv1/kernel") + 5)


@instead("link")
def ext_link(fc: Any) -> None:
    fc.links.create_external(b"kernel", b"/etc/passwd", b"/kernel")


@with_edit("link", without=["fc/kernel", "fc/bias"])
def ext_link_mid(root: Any) -> None:
    weights = h5g.open(root, b"weights")
    weights.links.create_external(b"fc", b"other.h5", b"/")


@instead("link")
def soft_link(fc: Any) -> None:
    fc.links.create_soft(b"kernel", b"/weights/conv1/kernel")


@instead("link")
def soft_cycle(fc: Any) -> None:
    fc.links.create_soft(b"kernel", b"/weights/fc/other")
    fc.links.create_soft(b"other", b"/weights/fc/kernel")


@with_edit("alias")
def hard_cycle(root: Any) -> None:
    weights = h5g.open(root, b"weights")
    weights.links.create_hard(b"self", root, b"weights")


@with_edit("alias")
def hard_alias(root: Any) -> None:
    fc = h5g.open(root, b"weights/fc")
    fc.links.create_hard(b"again", fc, b"kernel")


@with_edit("limit")
def deep(root: Any) -> None:
    group = h5g.open(root, b"weights")
    for _ in range(1000):
        group = h5g.create(group, b"g", gcpl=group_properties())
    store(group, b"kernel", np.zeros(4, np.float32))


def _layer(root: Any, name: bytes) -> None:
    group = h5g.create(h5g.open(root, b"weights"), name, gcpl=group_properties())
    store(group, b"kernel", np.zeros(4, np.float32))


@with_edit("object")
def odd_name(root: Any) -> None:
    _layer(root, b"x\nevil")


@with_edit("link")
def bad_utf8(root: Any) -> None:
    _layer(root, b"\xff\xfe")


@instead("storage")
def ext_raw(fc: Any) -> None:
    declare(fc, (3,), set_external=(b"/etc/passwd", 0, 12))


@instead("storage")
def chunked(fc: Any) -> None:
    declare(fc, (4, 3), set_chunk=((2, 3),)).write(
        h5s.ALL, h5s.ALL, TENSORS["fc/kernel"]
    )


@instead("storage")
def gzip_bomb(fc: Any) -> None:
    size = 50 << 20
    dataset = declare(
        fc, (size,), set_chunk=((size,),), set_deflate=(9,), set_shuffle=()
    )
    squeezed = zlib.compressobj()
    once = b"".join(squeezed.compress(bytes(1 << 20)) for _ in range(200))
    dataset.write_direct_chunk((0,), zlib.compress(once + squeezed.flush()))


@instead("storage")
def never(fc: Any) -> None:
    declare(fc, (1 << 20, 1 << 20), set_chunk=((1024, 1024),))


@instead("storage")
def late(fc: Any) -> None:
    declare(fc, (1 << 28,), set_alloc_time=(h5d.ALLOC_TIME_LATE,))


@instead("storage")
def plugin(fc: Any) -> None:
    optional = 1
    declare(fc, (4, 3), set_chunk=((4, 3),), set_filter=(32_004, optional, ()))


@instead("storage", latest=True)
def vds_self(fc: Any) -> None:
    space = simple(4, 3)
    declare(fc, (4, 3), set_virtual=(space, b".", b"/weights/fc/kernel", space))


@instead("storage")
def compact(fc: Any) -> None:
    declare(fc, (4, 3), set_layout=(h5d.COMPACT,)).write(
        h5s.ALL, h5s.ALL, TENSORS["fc/kernel"]
    )


@with_bytes("overlap")
def overlap(data: bytes) -> bytes:
    return moved(data, "fc/bias", address_of(data, "conv1/bias"))


@with_bytes("bounds")
def oob(data: bytes) -> bytes:
    return moved(data, "fc/bias", 1 << 40)


@with_bytes("bounds")
def wrap(data: bytes) -> bytes:
    return moved(data, "fc/bias", 2**64 - 16)


@with_bytes("shape")
def dim_lie(data: bytes) -> bytes:
    sizes = struct.pack("<QQQQ", 4, 3, 4, 3)
    return replaced(data, sizes, struct.pack("<QQQQ", 2**62, 3, 2**62, 3))


@with_bytes("alignment")
def misaligned(data: bytes) -> bytes:
    content = TENSORS["fc/bias"].tobytes()
    new = (len(data) + 63) // 64 * 64 + 4
    data = moved(data, "fc/bias", new).replace(content, bytes(len(content)))
    data = data.ljust(new, b"\0") + content
    return resealed_superblock(data[:28] + struct.pack("<Q", len(data)) + data[36:])


@instead("dtype")
def big_endian(fc: Any) -> None:
    declare(fc, (4, 3), h5t.IEEE_F32BE, set_alloc_time=EARLY)


@instead("dtype")
def odd_float(fc: Any) -> None:
    kind = h5t.IEEE_F32LE.copy()
    kind.set_fields(31, 20, 11, 0, 20)
    declare(fc, (4, 3), kind, set_alloc_time=EARLY)


@instead("dtype")
def compound(fc: Any) -> None:
    kind = h5t.create(h5t.COMPOUND, 4)
    kind.insert(b"a", 0, h5t.IEEE_F32LE)
    declare(fc, (4, 3), kind, set_alloc_time=EARLY)


@instead("dtype")
def reference(fc: Any) -> None:
    declare(fc, (4, 3), h5t.STD_REF_OBJ, set_alloc_time=EARLY)


@with_edit("dtype")
def vlen_attr(root: Any) -> None:
    h5a.create(root, b"note", h5t.py_create(h5py.string_dtype(), True), simple())


@hostile("dtype")
def vlen_graph(path: Path) -> None:
    def edit(root: Any) -> None:
        kind = h5t.py_create(h5py.string_dtype(), True)
        root.unlink(b"graph")
        h5d.create(root, b"graph", kind, simple(), dataset_properties())

    write(path, edit=edit)


@with_edit("attribute")
def many_attrs(root: Any) -> None:
    for index in range(5):
        attach(root, b"more%d" % index, 1)


@with_edit("storage", without=["fc/kernel"])
def named_type(root: Any) -> None:
    kind = h5t.IEEE_F32LE.copy()
    kind.commit(root, b"type")
    declare(h5g.open(root, b"weights/fc"), (4, 3), kind, set_alloc_time=EARLY)


@hostile("object")
def timestamps(path: Path) -> None:
    write(path, track_times=True)


@instead("shape")
def resizable(fc: Any) -> None:
    space = h5s.create_simple((4, 3), (h5s.UNLIMITED, 3))
    properties = dataset_properties()
    properties.set_chunk((4, 3))
    h5d.create(fc, b"kernel", h5t.IEEE_F32LE, space, properties)


@instead("shape")
def null_space(fc: Any) -> None:
    space = h5s.create(h5s.NULL)
    h5d.create(fc, b"kernel", h5t.IEEE_F32LE, space, dataset_properties())


@instead("shape")
def zero_dim(fc: Any) -> None:
    declare(fc, (0, 3))


@instead("shape")
def rank9(fc: Any) -> None:
    declare(fc, (1,) * 9, set_alloc_time=EARLY)


@hostile("not_striate")
def not_striate(path: Path) -> None:
    write(path, attributes={b"format": None})


@hostile("version")
def future(path: Path) -> None:
    write(path, attributes={b"format_version": [2, 0]})


@hostile("checksum")
def id_mismatch(path: Path) -> None:
    right = hashlib.sha256(graph(lambda g: None)).hexdigest().encode()
    write(
        path, graph(lambda g: g.update(name="other")), attributes={b"model_id": right}
    )


@hostile("graph")
def json_dup(path: Path) -> None:
    write(path, graph(lambda g: None).replace(b'"ops"', b'"ops": {}, "ops"'))


@hostile("graph")
def json_nan(path: Path) -> None:
    write(path, graph(lambda g: None).replace(b"2.5", b"NaN"))


@hostile("graph")
def json_deep(path: Path) -> None:
    write(path, b"[" * 200_000)


@with_edit("tensors")
def extra_tensor(root: Any) -> None:
    _layer(root, b"extra")


@hostile("tensors")
def missing_tensor(path: Path) -> None:
    write(path, without=["fc/bias"])


@with_graph("tensors")
def transposed(g: dict[str, Any]) -> None:
    g["tensors"]["fc/kernel"]["shape"].reverse()


@with_graph("op")
def unknown_op(g: dict[str, Any]) -> None:
    g["ops"]["exec"] = 1


@with_graph("op")
def future_op(g: dict[str, Any]) -> None:
    g["ops"]["Conv"] = 9


@with_graph("graph")
def cycle(g: dict[str, Any]) -> None:
    g["nodes"][1]["inputs"] = ["pool"]


@with_graph("graph")
def dup_node(g: dict[str, Any]) -> None:
    g["nodes"][1]["name"] = "conv1"


@with_graph("graph")
def shape_clash(g: dict[str, Any]) -> None:
    g["inputs"][0]["shape"][3] = 2


@with_graph("budget")
def act_bomb(g: dict[str, Any]) -> None:
    g["inputs"][0]["shape"] = ["N", 3_000_000, 1_000_000, 1]


@with_graph("graph")
def stride0(g: dict[str, Any]) -> None:
    g["nodes"][0]["attributes"]["stride"] = [0, 0]


@with_graph("graph")
def path_param(g: dict[str, Any]) -> None:
    g["nodes"][0]["params"]["kernel"] = "../../etc/passwd"


@with_edit("attribute")
def extra_attr(root: Any) -> None:
    attach(root, b"extra", 1)


@with_edit("attribute")
def dset_attr(root: Any) -> None:
    attach(h5d.open(root, b"weights/fc/bias"), b"extra", 1)
