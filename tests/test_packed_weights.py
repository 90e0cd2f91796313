"""Weights are packed once, by as many threads as a run may have, or not at all."""

import os
import threading

import numpy as np
import pytest
from striate.packed_weights import BYTES_PER_THREAD, Filling, PackedWeights
from test_fork import run_script

SIZE = BYTES_PER_THREAD // 4
WEIGHTS = [np.ones(1, np.float32) for _ in range(3)]


def numbered(value):
    """Return what writes a number everywhere."""

    def fill(packed):
        assert not packed.any()
        packed[:] = value

    return fill


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_every_place_is_filled_and_remembered(threads):
    packed = PackedWeights()
    filling = Filling(packed)
    places = [
        filling.place(w, "t", SIZE + i, numbered(i)) for i, w in enumerate(WEIGHTS)
    ]
    assert filling.place(WEIGHTS[0], "t", SIZE, numbered(9)) is places[0]
    assert filling.place(WEIGHTS[0], "other", 3, numbered(5)) is not places[0]
    assert packed.find(WEIGHTS[0], "t") is None
    before = threading.active_count()
    filling.finish(threads)
    assert threading.active_count() == before
    for i, (weight, place) in enumerate(zip(WEIGHTS, places, strict=True)):
        assert packed.find(weight, "t") is place
        assert place.shape == (SIZE + i,)
        assert (place == i).all()
    again = Filling(packed)
    assert again.place(WEIGHTS[0], "t", SIZE, numbered(9)) is places[0]
    again.finish(threads)
    assert (places[0] == 0).all()


def filled_by(threads, size):
    """Return the threads that fill three places of a size."""
    filling = Filling(PackedWeights())
    names = set()
    together = threading.Barrier(threads)

    def fill(_):
        together.wait(timeout=20)
        names.add(threading.get_ident())

    for weight in WEIGHTS[:threads]:
        filling.place(weight, "t", size, fill)
    filling.finish(threads)
    return names


def test_several_threads_fill_at_the_same_time():
    assert len(filled_by(3, SIZE)) == 3
    assert filled_by(1, SIZE) == {threading.get_ident()}


def test_a_little_is_filled_by_the_caller():
    filling = Filling(PackedWeights())
    names = []
    for weight in WEIGHTS:
        filling.place(weight, "t", 16, lambda _: names.append(threading.get_ident()))
    filling.finish(8)
    assert names == [threading.get_ident()] * 3


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("error", [MemoryError, IndexError, ValueError])
def test_an_error_is_raised_and_what_failed_is_not_remembered(threads, error):
    packed = PackedWeights()
    filling = Filling(packed)
    kept = [filling.place(weight, "t", 2 * SIZE, numbered(1)) for weight in WEIGHTS[:2]]

    def fail(_):
        raise error("no")

    filling.place(WEIGHTS[2], "t", SIZE, fail)
    with pytest.raises(error, match="no"):
        filling.finish(threads)
    assert packed.find(WEIGHTS[2], "t") is None
    for weight, place in zip(WEIGHTS, kept, strict=False):
        assert packed.find(weight, "t") is None or (place == 1).all()
    again = Filling(packed)
    place = again.place(WEIGHTS[2], "t", SIZE, numbered(3))
    again.finish(threads)
    assert (place == 3).all()


def test_without_more_threads_the_caller_fills_all(monkeypatch):
    def refused(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refused)
    packed = PackedWeights()
    filling = Filling(packed)
    for weight in WEIGHTS:
        filling.place(weight, "t", SIZE, numbered(4))
    filling.finish(4)
    assert all((packed.find(weight, "t") == 4).all() for weight in WEIGHTS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_child_forked_while_weights_are_packed_packs_them_itself(tmp_path):
    code = """
        import os, signal, sys, threading
        sys.path.insert(0, sys.argv[1])
        import numpy as np
        from striate import Graph, Model, kernels, ops
        graph = Graph("wide")
        x = graph.input("x", ("N", 4, 4, 1024))
        for i in range(3):
            kernel = np.random.default_rng(i).standard_normal((1, 1, 1024, 1024), "f4")
            x = graph.add(ops.Conv(), x, kernel=kernel)
        graph.output(x)
        picture = np.ones((1, 4, 4, 1024), np.float32)
        wanted = Model(graph, threads=1)(picture).tobytes()
        conv = kernels.load("conv")
        pack, begun, go = conv.pack_weights, threading.Semaphore(0), threading.Event()

        def slow(*arguments):
            begun.release()
            go.wait()
            pack(*arguments)

        conv.pack_weights = slow
        model = Model(graph, threads=2)
        found = []
        thread = threading.Thread(target=lambda: found.append(model(picture)))
        thread.start()
        begun.acquire()
        begun.acquire()
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            conv.pack_weights = pack
            os._exit(0 if model(picture).tobytes() == wanted else 1)
        assert os.waitpid(child, 0)[1] == 0
        go.set()
        thread.join()
        assert found[0].tobytes() == wanted
    """
    run_script(code, tmp_path)
