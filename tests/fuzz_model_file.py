"""Fuzz the reader of model files: no mutant may crash, hang, eat memory or mislead it.

``python -m tests.fuzz_model_file --files 200000 --seed 1`` mutates the golden files:

- `flip`: bits anywhere;
- `structure`: fields of HDF5's structures, their checksums made right afterwards;
- `document`: parts of the JSON text, the model id made right;
- `characters`: bytes of the JSON text, the id made right;
- `data`: bytes of weights, labels and examples, hashes and id made right;
- `length`: files cut short or with bytes added;
- `splice`: pieces moved within a file, or taken from another.

Each must be refused by `ModelFormatError`, or mean what it says: then the HDF5 library
reads the same tensors, and writing the graph's text again says the same. Children of
this process read the files, so a crash is only a finding. ``--only INDEX`` repeats one.
"""

import argparse
import copy
import faulthandler
import hashlib
import io
import json
import mmap
import os
import random
import resource
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from striate import ModelFormatError
from striate.graph_json import (
    LabelsEntry,
    QuantisationEntry,
    TensorEntry,
    encode,
)
from striate.hdf5_reader import Reader
from striate.kernels._checksum import lookup3
from striate.model_file import read

GOLDEN = Path(__file__).with_name("golden")
PIECE = 2000
"""Files a child reads before another takes over."""

HANG_SECONDS = 2.0
"""Of CPU time; nothing a mutant says may cost that much."""

DEAD_SECONDS = 60
"""Of real time without an end, after which a child is stopped."""

BUDGET = 16 << 20
"""What runs of a mutant may take; the least that the golden files need is far below."""

SPARE = 64 << 20
"""Memory that reading may take besides the budget and the file's size."""

NUMBERS = [0, 1, 48, 64, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 64, 2**64 - 1]
BYTES = [0, 1, 2, 3, 4, 7, 8, 16, 64, 127, 128, 254, 255]
VALUES = [
    *(0, 1, -1, 2, 3, 2**31, 2**63 - 1, 0.0, 1.5, -1e308, True, False, None),
    *("", "fc", "conv1", "image", "N", "same", "fc/bias", "../x", "a" * 200, "é"),
    *("uint8", "int8", "float32", "bfloat16", "bool", "fc/kernel.scale"),
    *([], {}, [1], [1, 1], [[1, 1], [0, 2]], ["fc"], {"fc": 1}),
    *({"scale": "fc/bias"}, {"scale": "fc/bias", "axis": 0}),
]
KEYS = [value for value in VALUES if isinstance(value, str)]


class Base:
    """A good file, and where its parts are."""

    def __init__(self, data):
        self.data = data
        reader = Reader(memoryview(data), "base")
        blocks = []
        claim = reader.claim
        reader.claim = lambda *block: (blocks.append(block[:2]), claim(*block))
        reader.object("", reader.superblock(), depth=0)
        self.blocks = sorted(blocks)
        self.datasets = reader.contents.datasets
        self.places = [p for at, size in self.blocks for p in range(at, at + size)]
        self.text = self.datasets["graph"]
        self.document = json.loads(self.bytes_of("graph"))

    def bytes_of(self, name):
        found = self.datasets[name]
        return self.data[found.address : found.address + found.nbytes]


def reseal(data, base):
    """Make the checksums of every structure right, in place."""
    for start, size in base.blocks:
        kind = bytes(data[start : start + 4])
        if kind == b"FHDB":
            data[start + 17 : start + 21] = bytes(4)
            seal = lookup3(bytes(data[start : start + size]))
            data[start + 17 : start + 21] = seal.to_bytes(4, "little")
            continue
        end = start + size - 4
        if kind == b"OHDR":
            flags = data[start + 5]
            width = 1 << (flags & 3)
            prefix = start + 6 + (4 if flags & 0x10 else 0)
            length = int.from_bytes(data[prefix : prefix + width], "little")
            end = min(prefix + width + length, len(data) - 4)
        data[end : end + 4] = lookup3(bytes(data[start:end])).to_bytes(4, "little")


def with_text(base, text, data=None):
    """Return the file with another text, filled up with spaces, and the right id."""
    data = bytearray(base.data if data is None else data)
    text = text.ljust(base.text.nbytes)
    if len(text) > base.text.nbytes:
        return None
    old = hashlib.sha256(base.bytes_of("graph")).hexdigest().encode()
    data[base.text.address : base.text.address + base.text.nbytes] = text
    at = base.data.index(old)
    data[at : at + 64] = hashlib.sha256(text).hexdigest().encode()
    reseal(data, base)
    return bytes(data)


def flip(base, others, generator):
    data = bytearray(base.data)
    for _ in range(generator.choice([1, 1, 2, 8])):
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
    return bytes(data)


def structure(base, others, generator):
    data = bytearray(base.data)
    places = base.places
    starts = [start for start, _ in base.blocks]
    for _ in range(generator.randint(1, 3)):
        place = generator.choice(places)
        kind = generator.randrange(6)
        if kind == 0:
            data[place] ^= 1 << generator.randrange(8)
        elif kind == 1:
            data[place] = generator.choice(BYTES)
        elif kind == 2:
            number = generator.choice([*NUMBERS, *starts, len(data)])
            data[place : place + 8] = struct.pack("<Q", number)
        elif kind == 3:
            other = generator.choice(places)
            data[place : place + 4] = data[other : other + 4]
        elif kind == 4:
            data[place : place + 4] = generator.randbytes(4)
        else:
            number = int.from_bytes(data[place : place + 8], "little")
            number += generator.choice([-64, -8, -1, 1, 8, 64])
            data[place : place + 8] = struct.pack("<Q", number % 2**64)
    del data[len(base.data) :]
    reseal(data, base)
    return bytes(data)


def leaves(value, path=()):
    """Yield the path of every part of a JSON value."""
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from leaves(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(len(value)):
            yield from leaves(value[index], (*path, index))


def at(value, path):
    for step in path:
        value = value[step]
    return value


def changed(document, generator):
    """Return a copy of a JSON value with a few parts changed."""
    document = copy.deepcopy(document)
    for _ in range(generator.randint(1, 2)):
        paths = [path for path in leaves(document) if path]
        if not paths:
            break
        *path, last = generator.choice(paths)
        parent = at(document, path)
        kind = generator.randrange(5)
        if kind == 0:
            del parent[last]
        elif kind == 1 and isinstance(parent, list):
            parent.insert(last, copy.deepcopy(generator.choice(parent)))
        elif kind == 2 and isinstance(parent, dict):
            parent[generator.choice(KEYS)] = copy.deepcopy(parent[last])
        elif kind == 3:
            parent[last] = copy.deepcopy(at(document, generator.choice(paths)))
        else:
            parent[last] = copy.deepcopy(generator.choice(VALUES))
    return document


def document(base, others, generator):
    said = changed(base.document, generator)
    return with_text(base, json.dumps(said, separators=(",", ":")).encode())


def characters(base, others, generator):
    text = bytearray(base.bytes_of("graph"))
    for _ in range(generator.randint(1, 3)):
        place = generator.randrange(len(text))
        if generator.random() < 0.5:
            text[place] = generator.choice(b'"{}[]:,0129.eE-+\\ \x00\xff')
        else:
            text[place] ^= 1 << generator.randrange(8)
    return with_text(base, bytes(text))


def data(base, others, generator):
    names = [name for name in base.datasets if name != "graph"]
    if not names:
        return flip(base, others, generator)
    name = generator.choice(names)
    found = base.datasets[name]
    content = bytearray(base.bytes_of(name))
    for _ in range(generator.randint(1, 4)):
        content[generator.randrange(len(content))] = generator.choice(BYTES)
    old = hashlib.sha256(base.bytes_of(name)).hexdigest().encode()
    text = base.bytes_of("graph")
    if generator.random() < 0.9:
        text = text.replace(old, hashlib.sha256(content).hexdigest().encode())
    mutant = bytearray(base.data)
    mutant[found.address : found.address + found.nbytes] = content
    return with_text(base, text, mutant)


def length(base, others, generator):
    size = len(base.data)
    if generator.random() < 0.5:
        return base.data[: generator.randrange(size)]
    mutant = bytearray(base.data + generator.randbytes(generator.choice([1, 64, 4096])))
    if generator.random() < 0.5:
        mutant[28:36] = struct.pack("<Q", len(mutant))
        mutant[44:48] = lookup3(bytes(mutant[:44])).to_bytes(4, "little")
    return bytes(mutant)


def splice(base, others, generator):
    donor = generator.choice(others).data
    mutant = bytearray(base.data)
    size = generator.choice([4, 16, 64, 256, 1024])
    source, target = generator.randrange(len(donor)), generator.randrange(len(mutant))
    if generator.random() < 0.5:
        mutant[target : target + size] = donor[source : source + size]
        reseal(mutant, base)
    elif generator.random() < 0.5:
        mutant[target:target] = donor[source : source + size]
    else:
        del mutant[target : target + size]
    return bytes(mutant)


MUTATORS = (flip, structure, structure, document, characters, data, length, splice)


def said(document):
    """Return what a text says, comparable: parts that may be left out are there."""
    absent = {"provenance": {}, "metadata": {}}
    nodes = [
        {"attributes": {}, "params": {}, "outputs": [node["name"]], **node}
        for node in document["nodes"]
    ]
    whole = json.dumps({**absent, **document, "nodes": nodes}, sort_keys=True)
    return json.dumps(json.loads(whole, parse_int=float))  # 4 says what 4.0 says


def entry_of(value):
    """Return the entry of a tensor, as `encode` wants it."""
    scheme = value.get("quantisation")
    return TensorEntry(
        value["dtype"],
        tuple(value["shape"]),
        value["sha256"],
        QuantisationEntry(**scheme) if scheme else None,
    )


def entries_of(document):
    """Return what `encode` wants besides the graph."""
    tensors = {name: entry_of(value) for name, value in document["tensors"].items()}
    labels = document.get("labels")
    examples = [
        {name: entry_of(value) for name, value in example.items()}
        for example in document.get("examples", [])
    ]
    return tensors, LabelsEntry(**labels) if labels else None, examples


def stored_value(found, dtype):
    """Return what the library read of a tensor, as arrays of a graph hold it."""
    if dtype == "bfloat16":
        found = np.asarray(found).astype(np.float32)
    return np.asarray(found).astype(dtype.replace("bfloat16", "float32"))


def disagreement(data, graph):
    """Return how a graph differs from what its file says, or an empty text."""
    with h5py.File(io.BytesIO(data), "r") as file:
        text = bytes(file["graph"][()])
        document = json.loads(text)
        again = json.loads(encode(graph, *entries_of(document)))
        if said(again) != said(document):
            return "the text written again says something else"
        if graph.model_id != hashlib.sha256(text).hexdigest():
            return "another id"
        if file.attrs["model_id"] != graph.model_id.encode():
            return "another id in the file"
        stored = {}

        def note(path, found):
            if isinstance(found, h5py.Dataset):
                stored[path] = found[()]

        file.visititems(note)
        labels = stored.pop("labels", np.array([], "S1")).tolist()
        if [label.decode() for label in labels] != list(graph.labels):
            return "labels"
        del stored["graph"]
        entries = document["tensors"]
        for name, array in graph.params.items():
            entry = entries[name]
            wanted = stored_value(stored[f"weights/{name}"], entry["dtype"])
            if "quantisation" in entry:
                wanted = dequantised(wanted, entry["quantisation"], stored)
            if not same(array, wanted):
                return f"weight {name}"
        for number, example in enumerate(graph.examples):
            for name, array in example.items():
                if not same(array, stored[f"examples/{number}/{name}"]):
                    return f"example {number} of {name}"
        places = {f"weights/{name}" for name in entries}
        places |= {f"examples/{i}/{n}" for i, e in enumerate(graph.examples) for n in e}
        if stored.keys() != places:
            return "datasets"
    return ""


def dequantised(integers, scheme, stored):
    """Return the numbers of a quantised tensor, by the formula of the document."""
    scale = stored["weights/" + scheme["scale"]].astype(np.float64)
    zero = np.int64(0)
    if "zero_point" in scheme:
        zero = stored["weights/" + scheme["zero_point"]].astype(np.int64)
    integers = integers.astype(np.int64)
    if "axis" in scheme:
        integers = np.moveaxis(integers, scheme["axis"], -1)
    with np.errstate(over="ignore"):
        numbers = ((integers - zero) * scale).astype(np.float32)
    return np.moveaxis(numbers, -1, scheme["axis"]) if "axis" in scheme else numbers


def same(found, wanted):
    """Return whether two arrays are equal, NaN to NaN."""
    if found.dtype == np.bool_:
        found = found.view(np.uint8)
    if wanted.dtype == np.bool_:
        wanted = wanted.view(np.uint8)
    equal_nan = found.dtype.kind == "f"
    return (
        found.shape == wanted.shape
        and found.dtype == wanted.dtype
        and np.array_equal(found, wanted, equal_nan=equal_nan)
    )


@dataclass
class Tally:
    """What became of the mutants."""

    made: Counter = field(default_factory=Counter)
    accepted: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    findings: list = field(default_factory=list)
    slowest: float = 0.0
    largest: int = 0

    def add(self, other):
        for name in ("made", "accepted", "refused"):
            getattr(self, name).update(other[name])
        self.findings += other["findings"]
        self.slowest = max(self.slowest, other["slowest"])
        self.largest = max(self.largest, other["largest"])


def mutant_of(bases, seed, index):
    """Return the name of the mutator and the file of that number."""
    generator = random.Random(f"{seed}:{index}")
    base = generator.choice(bases)
    mutator = generator.choice(MUTATORS)
    mutant = mutator(base, bases, generator)
    while mutant is None:
        mutant = mutator(base, bases, generator)
    return mutator.__name__, mutant


def peak():
    """Return the most memory this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def examine(data, name, tally):
    """Read one mutant and return what is wrong with how that went, or an empty text."""
    tally.made[name] += 1
    before, start = peak(), time.process_time()
    graph, wrong = None, ""
    try:
        graph = read(data, max_activation_bytes=BUDGET)
    except ModelFormatError as error:
        tally.refused[error.code] += 1
        if "\n" in str(error) or error.path != "<bytes>":
            wrong = f"refused by {str(error)!r}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    spent, grown = time.process_time() - start, peak() - before
    tally.slowest, tally.largest = max(tally.slowest, spent), max(tally.largest, grown)
    if spent > HANG_SECONDS:
        return f"took {spent:.1f} s"
    if grown > len(data) + BUDGET + SPARE:
        return f"took {grown >> 20} MiB"
    if graph is not None:
        tally.accepted[name] += 1
        try:
            wrong = disagreement(data, graph)
        except Exception as error:
            wrong = f"accepted, but {type(error).__name__}: {error}"
    return wrong


def bases():
    """Return the golden files."""
    return [Base(path.read_bytes()) for path in sorted(GOLDEN.glob("*.h5"))]


def run(files, seed=0, seconds=None, first=0):
    """Examine mutants `first` to `first + files`, as many as the time allows."""
    originals = bases()
    tally = Tally()
    for base in originals:
        problem = examine(base.data, "unchanged", tally)
        assert not problem, problem
    at_work = mmap.mmap(-1, 8)
    end = time.monotonic() + (seconds or 1e9)
    for start in range(first, first + files, PIECE):
        stop = min(start + PIECE, first + files)
        while start < stop and time.monotonic() < end:
            start = in_child(originals, seed, (start, stop), end, at_work, tally)
    return tally


def in_child(originals, seed, span, end, at_work, tally):
    """Let a child examine some mutants; return the number of the next."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        status = 1
        try:
            own = Tally()
            for index in range(*span):
                if time.monotonic() > end:
                    break
                struct.pack_into("<q", at_work, 0, index)
                faulthandler.dump_traceback_later(DEAD_SECONDS, exit=True)
                name, mutant = mutant_of(originals, seed, index)
                problem = examine(mutant, name, own)
                if problem:
                    own.findings.append((index, name, problem))
            with os.fdopen(sending, "w") as pipe:
                json.dump(vars(own), pipe)
            status = 0
        finally:
            os._exit(status)
    os.close(sending)
    with os.fdopen(receiving) as pipe:
        told = pipe.read()
    _, status = os.waitpid(child, 0)
    reached = struct.unpack_from("<q", at_work, 0)[0]
    if status == 0:
        tally.add(json.loads(told))
        return span[1]
    signal = os.waitstatus_to_exitcode(status)
    name, _ = mutant_of(originals, seed, reached)
    tally.findings.append((reached, name, f"the process ended with {signal}"))
    return reached + 1


def report(tally):
    """Yield what is to be said, line by line."""
    for name, count in sorted(tally.made.items()):
        yield f"{name:12} {count:8} files, {tally.accepted[name]} accepted"
    yield "refused: " + ", ".join(f"{c} {n}" for c, n in tally.refused.most_common())
    yield f"slowest {tally.slowest:.3f} s, memory {tally.largest >> 20} MiB"
    for index, name, problem in tally.findings:
        yield f"finding: mutant {index}, {name}: {problem}"
    yield f"{sum(tally.made.values())} files, {len(tally.findings)} findings"


def main(argv=None):
    """Fuzz as the command line says; return whether there are findings."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--files", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="the number to start with")
    parser.add_argument("--seconds", type=float, help="stop after this long")
    parser.add_argument("--only", type=int, help="write this mutant to standard output")
    options = parser.parse_args(argv)
    if options.only is not None:
        sys.stdout.buffer.write(mutant_of(bases(), options.seed, options.only)[1])
        return 0
    tally = run(options.files, options.seed, options.seconds, options.first)
    sys.stdout.write("\n".join(report(tally)) + "\n")
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
