"""No file can do more than be refused."""

import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import fuzz_model_file
import hostile
import numpy as np
import pytest
from hostile import HOSTILE
from striate import ModelFormatError
from striate.model_file import read

DOCUMENT = Path(__file__).parent.parent / "docs" / "format.md"
FUZZ_SECONDS = 5 if os.environ.get("STRIATE_ISA") else 25
"""No kernel takes part: a second run, on another instruction set, may be short."""

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


def test_mutants_are_refused_or_mean_what_they_say():
    """As many as the time allows, always the same ones first."""
    tally = fuzz_model_file.run(files=100_000, seed=0, seconds=FUZZ_SECONDS)
    assert tally.findings == []
    assert sum(tally.made.values()) > 500
    assert {m.__name__ for m in fuzz_model_file.MUTATORS} <= tally.made.keys()
    assert tally.refused.keys() <= CODES
    assert tally.accepted["data"] > 0
    assert tally.accepted["structure"] > 0


def test_the_fuzzer_notices():
    """What it looks for is found where it is."""
    originals = fuzz_model_file.bases()
    base = next(b for b in originals if b.document["name"] == "quantised")
    graph = read(base.data)
    assert fuzz_model_file.disagreement(base.data, graph) == ""
    graph.params["fc/kernel"] = graph.params["fc/kernel"] + np.float32(1)
    assert fuzz_model_file.disagreement(base.data, graph) == "weight fc/kernel"
    graph = read(base.data)
    graph.examples[0]["image"] = -graph.examples[0]["image"]
    assert fuzz_model_file.disagreement(base.data, graph) == "example 0 of image"
    graph = read(base.data)
    graph.metadata = {"other": 1}
    assert "says something else" in fuzz_model_file.disagreement(base.data, graph)
    graph = read(base.data)
    graph.labels = ("a",)
    assert fuzz_model_file.disagreement(base.data, graph) == "labels"


def busy(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("os.kill(os.getpid(), 9)", "ended with -9"),
        ("busy(0.5)", "took "),
        ("len(b'x' * (200 << 20))", "MiB"),
        ("{}['x']", "KeyError"),
    ],
)
def test_the_fuzzer_survives_what_it_finds(how, problem, monkeypatch):
    if problem == "took ":
        monkeypatch.setattr(fuzz_model_file, "HANG_SECONDS", 0.3)
    monkeypatch.setattr(fuzz_model_file, "bases", list)
    monkeypatch.setattr(
        fuzz_model_file, "mutant_of", lambda bases, seed, index: ("flip", b"%d" % index)
    )

    def read(data, **_):
        if data == b"1":
            eval(how)
        raise ModelFormatError("no", code="size", path="<bytes>")

    monkeypatch.setattr(fuzz_model_file, "read", read)
    tally = fuzz_model_file.run(files=3)
    assert [(index, name) for index, name, _ in tally.findings] == [(1, "flip")]
    assert problem in tally.findings[0][2]


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
