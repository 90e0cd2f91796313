"""Packed weights in a folder: the same answers, shared, and never trusted unread."""

import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import striate
from striate import Graph, ops
from striate.packed_cache import CachedWeights

X = np.random.default_rng(0).standard_normal((1, 12, 12, 3), dtype=np.float32)


def net(seed=0):
    """Return layers whose weights are packed, with what passes fold into them."""
    random = np.random.default_rng(seed)

    def normal(*shape):
        return random.standard_normal(shape, dtype=np.float32)

    graph = Graph("net")
    x = graph.input("image", ("N", "H", "W", 3))
    x = graph.add(ops.Conv(padding="same"), x, name="c1", kernel=normal(3, 3, 3, 16))
    norm = dict(zip(("gamma", "beta", "mean"), normal(3, 16), strict=True))
    x = graph.add(ops.BatchNorm(), x, name="b1", variance=normal(16) ** 2 + 1, **norm)
    x = graph.add(ops.Relu(), x, name="r1")
    x = graph.add(ops.Conv(padding="same"), x, name="c2", kernel=normal(3, 3, 16, 16))
    x = graph.add(ops.GlobalAveragePool(), x, name="pool")
    graph.output(graph.add(ops.Dense(), x, name="fc", kernel=normal(16, 5)))
    return graph


@pytest.fixture
def path(tmp_path):
    striate.save(net(), tmp_path / "net.h5")
    return tmp_path / "net.h5"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def packed_of(model):
    """Return the arrays in which kernels read weights, in an order of their own."""
    arrays = (packed for packed, _ in model._packed._made.values())
    return sorted(arrays, key=lambda packed: packed.tobytes())


def test_nothing_is_written_unless_asked_for(path, folder, tmp_path):
    with striate.load(path) as model:
        model(X)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "net.h5"]
    assert list(folder.iterdir()) == []


def test_every_process_gets_the_same_bits(path, folder):
    with striate.load(path) as model:
        wanted = model(X)
        others = packed_of(model)
    for _ in range(2):
        with striate.load(path, cache=folder) as model:
            np.testing.assert_array_equal(model(X), wanted)
            found = packed_of(model)
            assert len(found) == len(others) > 2
            for array, other in zip(found, others, strict=True):
                np.testing.assert_array_equal(array, other)
                assert not array.flags.writeable
                assert array.ctypes.data % 64 == 0
    (file,) = folder.glob("*.h5")
    graph = striate.read(path)
    name = f"{graph.model_id}-{striate.__version__}-{striate.kernels.ISA}.h5"
    assert file.name == name


def test_the_second_process_packs_nothing(path, folder, monkeypatch):
    with striate.load(path, cache=folder) as model:
        model(X)
    monkeypatch.setattr(CachedWeights, "keep", lambda self: bool(self._new))
    with striate.load(path, cache=folder) as model:
        model(X)
        assert model._packed._new == {}


def test_each_model_and_instruction_set_has_a_file(path, folder, tmp_path):
    striate.save(net(seed=1), tmp_path / "other.h5")
    for isa in striate.kernels.SUPPORTED:
        with striate.load(path, cache=folder, isa=isa) as model:
            model(X)
    with striate.load(tmp_path / "other.h5", cache=folder) as model:
        assert (model(X) != striate.load(path)(X)).any()
    assert len(list(folder.glob("*.h5"))) == len(striate.kernels.SUPPORTED) + 1


def test_another_shape_adds_what_it_needs(path, folder):
    wide = np.ones((2, 40, 40, 3), np.float32)
    with striate.load(path) as model:
        wanted = model(X), model(wide)
    with striate.load(path, cache=folder) as model:
        np.testing.assert_array_equal(model(X), wanted[0])
        np.testing.assert_array_equal(model(wide), wanted[1])
        np.testing.assert_array_equal(model(X), wanted[0])
    with striate.load(path, cache=folder) as model:
        np.testing.assert_array_equal(model(wide), wanted[1])
        assert model._packed._new == {}


def test_layers_asked_for_by_name_do_not_mix_with_folded_ones(path, folder):
    """`c1` alone has its own kernel, in the model it has one with `b1` folded in."""
    with striate.load(path) as model:
        wanted = model.run({"image": X}, ["c1"])["c1"], model(X)
    for _ in range(2):
        with striate.load(path, cache=folder) as model:
            found = model.run({"image": X}, ["c1"])["c1"]
            np.testing.assert_array_equal(found, wanted[0])
            np.testing.assert_array_equal(model(X), wanted[1])


@pytest.mark.parametrize("damage", ["flip", "cut", "text", "other"])
def test_a_damaged_file_is_replaced(path, folder, damage, tmp_path):
    with striate.load(path, cache=folder) as model:
        wanted = model(X)
    (file,) = folder.glob("*.h5")
    good = file.read_bytes()
    if damage == "other":
        striate.save(net(seed=1), file)
    else:
        flipped = good[:-1] + bytes([good[-1] ^ 1])
        bad = {"flip": flipped, "cut": good[:-9], "text": b"no model"}
        file.unlink()
        file.write_bytes(bad[damage])
    with striate.load(path, cache=folder) as model:
        np.testing.assert_array_equal(model(X), wanted)
    assert file.read_bytes() == good


def test_a_folder_that_cannot_be_written_is_no_obstacle(path, tmp_path):
    (tmp_path / "file").write_text("no folder")
    with striate.load(path) as model:
        wanted = model(X)
    for folder in ("file", "none"):
        with striate.load(path, cache=tmp_path / folder) as model:
            np.testing.assert_array_equal(model(X), wanted)


def run(path, folder, index):
    """Run a model in a process of its own and leave its answer."""
    with striate.load(path, cache=folder) as model:
        for _ in range(3):
            answer = model(X)
    np.save(Path(folder).parent / f"answer{index}.npy", answer)


def test_processes_that_begin_at_once_do_not_disturb_each_other(path, folder):
    with striate.load(path) as model:
        wanted = model(X)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=run, args=(path, folder, i)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode == 0
    for index in range(4):
        answer = np.load(folder.parent / f"answer{index}.npy")
        np.testing.assert_array_equal(answer, wanted)
    assert [p.suffix for p in folder.iterdir() if p.suffix != ".json"] == [".h5"]
