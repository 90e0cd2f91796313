"""No file can do more than be refused."""

import copy
import hashlib
import json
import random
import re
import struct
import subprocess
import sys
from pathlib import Path

import hostile
import numpy as np
import pytest
from hostile import GRAPH, HOSTILE
from striate import ModelFormatError
from striate.graph_json import LabelsEntry, TensorEntry, encode
from striate.hdf5_reader import read_hdf5
from striate.kernels._checksum import lookup3
from striate.model_file import read

DOCUMENT = Path(__file__).parent.parent / "docs" / "format.md"
METADATA_EDITS = 4000
GRAPH_EDITS = 1500
TEXT_EDITS = 1500
CODES = {
    "alias",
    "alignment",
    "attribute",
    "bounds",
    "budget",
    "checksum",
    "corrupt",
    "dtype",
    "graph",
    "limit",
    "link",
    "not_a_file",
    "not_hdf5",
    "not_striate",
    "object",
    "op",
    "overlap",
    "shape",
    "size",
    "storage",
    "superblock",
    "tensors",
    "version",
}


@pytest.fixture(scope="module")
def good():
    return hostile.good_bytes()


def meaning(graph):
    """Return all that a graph says, comparable."""
    return (
        graph.name,
        graph.inputs,
        graph.nodes,
        graph.outputs,
        [(n, a.dtype.str, a.shape, a.tobytes()) for n, a in graph.params.items()],
        graph.labels,
        graph.preprocess,
        graph.postprocess,
        graph.provenance,
        graph.metadata,
    )


def outcome(data):
    """Return the graph or None if the file is refused; nothing else may happen."""
    try:
        return read(data)
    except ModelFormatError as error:
        refusal = error
    assert refusal.code in CODES
    assert refusal.path == "<bytes>"
    return None


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_with_its_code(name, tmp_path):
    code, build = HOSTILE[name]
    path = tmp_path / f"{name}.h5"
    build(path)
    for copied in (False, True):
        with pytest.raises(ModelFormatError) as caught:
            read(path, copy=copied)
        assert caught.value.code == code
        assert caught.value.path == str(path)
        assert "\n" not in str(caught.value)


def test_there_are_68_and_the_unchanged_file_is_good(good):
    assert len(HOSTILE) == 68
    graph = read(good)
    assert graph.outputs == ["fc"]
    assert graph.labels == ("left", "right", "ü")
    for name, array in hostile.TENSORS.items():
        np.testing.assert_array_equal(graph.params[name], array)


def test_every_code_of_a_refused_file_is_tried():
    assert {code for code, _ in HOSTILE.values()} == CODES


def test_the_document_explains_every_code():
    text = DOCUMENT.read_text().partition("## 10.")[2].partition("## 11.")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.M)) == CODES | {"unwritable"}


def test_every_truncation_is_refused(good):
    assert [size for size in range(len(good)) if outcome(good[:size])] == []


def test_every_flipped_bit_is_noticed(good):
    """One bit of each byte, whatever the byte is for."""
    generator = random.Random(0)
    for position in range(len(good)):
        bit = 1 << generator.randrange(8)
        changed = bytearray(good)
        changed[position] ^= bit
        assert outcome(bytes(changed)) is None, (position, bit)


BLOCK = re.compile(b"OHDR|OCHK")


def reseal(data):
    """Make the checksums of all object headers and the superblock right, in place."""
    for match in BLOCK.finditer(bytes(data)):
        start = match.start()
        if match.group() == b"OHDR":
            flags = data[start + 5]
            width = 1 << (flags & 3)
            size_at = start + 6 + (4 if flags & 0x10 else 0)
            size = int.from_bytes(data[size_at : size_at + width], "little")
            end = size_at + width + size
        else:
            end = start + CONTINUED.get(start, 0) - 4
        if start < end <= len(data) - 4:
            data[end : end + 4] = lookup3(bytes(data[start:end])).to_bytes(4, "little")
    data[44:48] = lookup3(bytes(data[:44])).to_bytes(4, "little")


CONTINUED = {}
"""Continuation blocks of the good file and their sizes."""

INTERESTING = [0, 1, 2, 3, 4, 7, 8, 16, 64, 127, 128, 254, 255]
NUMBERS = [0, 1, 48, 64, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 64, 2**64 - 1]


def metadata_bytes(data):
    """Return the positions of all bytes that are neither tensors nor text."""
    contents = read_hdf5(memoryview(data), "good")
    taken = set()
    for dataset in contents.datasets.values():
        taken.update(range(dataset.address, dataset.address + dataset.nbytes))
    return [p for p in range(len(data)) if p not in taken]


def test_no_edit_of_the_metadata_changes_the_meaning(good):
    """Bytes and addresses are edited as an attacker would, the checksums made right."""
    for match in re.finditer(b"\x10\x10\0", good):
        address, size = struct.unpack_from("<QQ", good, match.end() + 1)
        if good[address : address + 4] == b"OCHK":
            CONTINUED[address] = size
    wanted = meaning(read(good))
    places = metadata_bytes(good)
    headers = [m.start() for m in BLOCK.finditer(good)]
    generator = random.Random(1)
    accepted = 0
    for _ in range(METADATA_EDITS):
        data = bytearray(good)
        for _ in range(generator.randint(1, 3)):
            place = generator.choice(places)
            kind = generator.randrange(5)
            if kind == 0:
                data[place] ^= 1 << generator.randrange(8)
            elif kind == 1:
                data[place] = generator.choice(INTERESTING)
            elif kind == 2:
                number = generator.choice([*NUMBERS, *headers])
                data[place : place + 8] = struct.pack("<Q", number)[: len(data) - place]
            elif kind == 3:
                other = generator.choice(places)
                data[place : place + 4] = data[other : other + 4]
            else:
                data[place : place + 4] = generator.randbytes(4)
        del data[len(good) :]
        reseal(data)
        graph = outcome(bytes(data))
        if graph is not None:
            accepted += 1
            assert meaning(graph) == wanted
    assert accepted > 0


def leaves(value, path=()):
    """Yield the path of every part of a JSON value."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from leaves(value[index], (*path, index))


VALUES = [
    *(0, 1, -1, 2, 3, 2**31, 2**63 - 1, 0.0, 1.5, -1e308, True, False, None),
    *("", "fc", "conv1", "image", "N", "same", "fc/bias", "../x", "a" * 200, "é"),
    *([], {}, [1], [1, 1], [[1, 1], [0, 2]], ["fc"], {"fc": 1}),
]


def mutated(document, generator):
    """Return a copy of a JSON value with a few parts changed."""
    document = copy.deepcopy(document)
    for _ in range(generator.randint(1, 2)):
        paths = [path for path in leaves(document) if path]
        *path, last = generator.choice(paths)
        parent = document
        for step in path:
            parent = parent[step]
        kind = generator.randrange(5)
        if kind == 0:
            del parent[last]
        elif kind == 1 and isinstance(parent, list):
            parent.insert(last, copy.deepcopy(generator.choice(parent)))
        elif kind == 2 and isinstance(parent, dict):
            parent[generator.choice(VALUES[13:23])] = copy.deepcopy(parent[last])
        elif kind == 3:
            *other, end = generator.choice([p for p in leaves(document) if p])
            source = document
            for step in other:
                source = source[step]
            parent[last] = copy.deepcopy(source[end])
        else:
            parent[last] = copy.deepcopy(generator.choice(VALUES))
        if not isinstance(document, dict) or not document:
            break
    return document


def with_text(good, text):
    """Return the good file with another text of the same length and the right id."""
    contents = read_hdf5(memoryview(good), "good")
    place = contents.datasets["graph"]
    assert len(text) == place.nbytes
    data = bytearray(good)
    old = hashlib.sha256(data[place.address : place.address + place.nbytes]).hexdigest()
    data[place.address : place.address + place.nbytes] = text
    new = hashlib.sha256(text).hexdigest()
    changed = bytes(data).replace(old.encode(), new.encode())
    return hostile.resealed(changed, changed.index(new.encode()))


def said(document):
    """Return what a text says, comparable: parts that may be left out are there."""
    document = copy.deepcopy(document)
    for key in ("provenance", "metadata"):
        document.setdefault(key, {})
    for node in document["nodes"]:
        for key in ("attributes", "params"):
            node.setdefault(key, {})
        node.setdefault("outputs", [node["name"]])
    return json.dumps(document, sort_keys=True)


def entries_of(document):
    """Return the entries of the tensors and the labels, as `encode` wants them."""
    tensors = {
        name: TensorEntry(e["dtype"], tuple(e["shape"]), e["sha256"])
        for name, e in document["tensors"].items()
    }
    labels = document.get("labels")
    return tensors, LabelsEntry(**labels) if labels else None


def test_what_is_accepted_of_a_changed_graph_is_all_it_says(tmp_path):
    """Nothing in the text is ignored: writing the graph again says the same."""
    room = 4000
    text = json.dumps(GRAPH).encode()
    path = hostile.write(tmp_path / "roomy.h5", text + b" " * (room - len(text)))
    good = path.read_bytes()
    generator = random.Random(2)
    accepted = 0
    for _ in range(GRAPH_EDITS):
        document = mutated(GRAPH, generator)
        text = json.dumps(document).encode()
        if len(text) > room:
            continue
        graph = outcome(with_text(good, text + b" " * (room - len(text))))
        if graph is None:
            continue
        accepted += 1
        from_graph = json.loads(encode(graph, *entries_of(document)))
        assert said(from_graph) == said(document)
    assert accepted > 50


def test_text_edits_are_refused_or_said(tmp_path):
    """Bytes of the text are changed at random, the id made right."""
    text = json.dumps(GRAPH).encode()
    good = hostile.write(tmp_path / "small.h5", text).read_bytes()
    generator = random.Random(3)
    for _ in range(TEXT_EDITS):
        changed = bytearray(text)
        for _ in range(generator.randint(1, 3)):
            place = generator.randrange(len(text))
            if generator.random() < 0.5:
                changed[place] = generator.choice(b'"{}[]:,0129.eE-+\\ \x00\xff')
            else:
                changed[place] ^= 1 << generator.randrange(8)
        graph = outcome(with_text(good, bytes(changed)))
        if graph is not None:
            document = json.loads(bytes(changed))
            from_graph = json.loads(encode(graph, *entries_of(document)))
            assert said(from_graph) == said(document)


def test_a_hostile_file_costs_neither_time_nor_memory(tmp_path):
    """Every hostile file together, in a process that may use little of either."""
    for name in ("gzip_bomb", "never", "late", "deep", "json_deep", "act_bomb"):
        HOSTILE[name][1](tmp_path / name)
    program = (
        "import resource, sys\n"
        "from striate import ModelFormatError\n"
        "from striate.model_file import read\n"
        "before = resource.getrusage(resource.RUSAGE_SELF)\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n"
        "        read(path)\n"
        "        sys.exit(path)\n"
        "    except ModelFormatError:\n"
        "        pass\n"
        "after = resource.getrusage(resource.RUSAGE_SELF)\n"
        "assert after.ru_utime - before.ru_utime < 2, after\n"
        "assert after.ru_maxrss - before.ru_maxrss < 64 << 10, after\n"
        "assert 'h5py' not in sys.modules\n"
    )
    files = [str(path) for path in tmp_path.iterdir()]
    subprocess.run([sys.executable, "-c", program, *files], check=True, timeout=60)
