"""Files that were verified are not hashed again, unless they may have changed."""

import json
import os
import time

import numpy as np
import pytest
import striate
from striate import Graph, ModelFormatError, cache_note, model_file, ops
from striate.cache_note import CacheNote, VerifiedFiles


def net():
    """Return a network whose weights are 32 ones."""
    graph = Graph("net")
    x = graph.input("x", ("N", 4))
    kernel = np.ones((4, 8), np.float32)
    graph.output(graph.add(ops.Dense(), x, name="fc", kernel=kernel))
    return graph


@pytest.fixture
def path(tmp_path):
    striate.save(net(), tmp_path / "net.h5")
    time.sleep(0.02)  # the next change must have another time on the coarsest kernel
    return tmp_path / "net.h5"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def exact_clock(monkeypatch):
    """Let a file that was just written be noted."""
    monkeypatch.setattr(cache_note, "COARSE_NS", -(10**9))


@pytest.fixture
def hashed(monkeypatch):
    """Return how many bytes of arrays were hashed, in turn."""
    sizes = []
    real = model_file._sha256

    def counted(data):
        if isinstance(data, memoryview):
            sizes.append(data.nbytes)
        return real(data)

    monkeypatch.setattr(model_file, "_sha256", counted)
    return sizes


def load(path, folder):
    """Open a model; nothing is packed, because it does not run."""
    striate.load(path, cache=folder).close()


def flip(path):
    """Change a bit of the weights where they are, and put the old time back."""
    status = path.stat()
    with path.open("r+b") as file:
        content = file.read()
        at = content.index(np.full(32, 1.0, np.float32).tobytes())
        file.seek(at)
        file.write(bytes([content[at] ^ 1]))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.usefixtures("exact_clock")
def test_the_second_load_hashes_nothing(path, folder, hashed):
    load(path, folder)
    assert hashed == [128]
    load(path, folder)
    assert hashed == [128]


@pytest.mark.usefixtures("exact_clock")
def test_without_a_cache_every_load_hashes(path, folder, hashed):
    load(path, folder)
    striate.load(path)
    striate.read(path)
    striate.load(path, cache=folder, copy=True)
    striate.load(path.read_bytes(), cache=folder)
    assert hashed == [128] * 5


@pytest.mark.usefixtures("exact_clock")
def test_a_file_changed_in_place_is_hashed_and_refused(path, folder):
    load(path, folder)
    flip(path)
    for _ in range(2):
        with pytest.raises(ModelFormatError, match="SHA-256 of weights/fc") as error:
            load(path, folder)
        assert error.value.code == "checksum"


@pytest.mark.usefixtures("exact_clock")
@pytest.mark.parametrize("change", ["copied", "touched", "renamed over", "linked"])
def test_another_state_of_the_file_is_hashed(path, folder, hashed, change):
    load(path, folder)
    if change == "touched":
        os.utime(path)
    elif change == "linked":
        os.link(path, path.with_name("other.h5"))
    else:
        other = path.with_name("other.h5")
        other.write_bytes(path.read_bytes())
        if change == "copied":
            path = other
        else:
            other.replace(path)
    load(path, folder)
    assert hashed == [128] * 2


@pytest.mark.usefixtures("exact_clock")
def test_what_was_not_verified_is_not_noted(path, folder, hashed):
    flip(path)
    striate.load(path, cache=folder, verify=False)
    striate.load(path, cache=folder, verify=False, copy=True)
    with pytest.raises(ModelFormatError, match="SHA-256"):
        load(path, folder)
    assert not list(folder.glob("*-verified.json"))
    assert hashed == [128]


def test_a_file_that_changed_just_now_is_not_noted(path, folder, hashed, monkeypatch):
    changed = path.stat().st_ctime_ns
    for seconds, count in ((0, 1), (1.9, 2), (-9, 3), (2.1, 4), (2.1, 4), (0, 4)):
        now = changed + int(seconds * 1e9)
        monkeypatch.setattr(time, "time_ns", lambda now=now: now)
        load(path, folder)
        assert len(hashed) == count


@pytest.mark.usefixtures("exact_clock")
@pytest.mark.parametrize(
    "text", ["", "[", "null", "[1]", "{}", '{"device": 1}', "[" * 9999]
)
def test_a_damaged_note_counts_for_nothing(path, folder, hashed, text):
    load(path, folder)
    (note,) = folder.glob("*-verified.json")
    note.write_text(text)
    load(path, folder)
    assert hashed == [128] * 2
    assert json.loads(note.read_text())["size"] == path.stat().st_size


@pytest.mark.usefixtures("exact_clock")
def test_a_folder_that_is_missing_is_no_error(path, tmp_path, hashed):
    for _ in range(2):
        load(path, tmp_path / "none")
    assert hashed == [128] * 2
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("exact_clock")
def test_packed_weights_are_verified_once_too(tmp_path, folder, hashed):
    graph = Graph("net")
    x = graph.input("x", ("N", 8, 8, 16))
    kernel = np.ones((3, 3, 16, 16), np.float32)
    graph.output(graph.add(ops.Conv(padding=1), x, kernel=kernel))
    striate.save(graph, tmp_path / "conv.h5")
    x = np.ones((1, 8, 8, 16), np.float32)
    counts = []
    for _ in range(3):
        with striate.load(tmp_path / "conv.h5", cache=folder) as model:
            model(x)
        counts.append(len(hashed))
    assert counts[0] == counts[1] == counts[2] > 1
    (packed,) = folder.glob("*.h5")
    with packed.open("r+b") as file:
        content = file.read()
        at = content.rindex(b"\x3f")
        file.seek(at)
        file.write(b"\x3e")
    with striate.load(tmp_path / "conv.h5", cache=folder) as model:
        np.testing.assert_array_equal(model(x), striate.Model(graph)(x))
    assert len(hashed) > counts[2]


def test_a_note_is_replaced_whole_or_not_at_all(tmp_path):
    note = CacheNote(tmp_path / "note.json")
    assert note.read() is None
    note.write({"a": 1})
    assert note.read() == {"a": 1}
    with pytest.raises(TypeError):
        note.write({"a": object()})
    assert note.read() == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["note.json"]


def test_notes_of_other_models_say_nothing(path, folder, monkeypatch):
    monkeypatch.setattr(cache_note, "COARSE_NS", -(10**9))
    notes = VerifiedFiles(folder)
    notes.add("1" * 64, path.stat())
    assert notes.holds("1" * 64, path.stat())
    assert not notes.holds("2" * 64, path.stat())
