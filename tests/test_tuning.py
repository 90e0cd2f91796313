"""Measured choices: kept, the same for everyone who has them, and never trusted."""

import json
from itertools import count

import numpy as np
import pytest
import striate
from striate import Graph, ops, tuning
from striate.packed_weights import PackedWeights
from striate.plan import Plan
from striate.tuning import fastest

X = np.random.default_rng(0).standard_normal((2, 20, 20, 24), dtype=np.float32)

ACCURACY = 1e-5
"""Of the largest output: what every choice must keep."""


def net():
    """Return layers that have something to choose."""
    random = np.random.default_rng(1)

    def kernel(*shape):
        fan_in = np.prod(shape[:-1])
        return random.standard_normal(shape, dtype=np.float32) / np.sqrt(fan_in)

    graph = Graph("net")
    x = graph.input("image", ("N", "H", "W", 24))
    x = graph.add(ops.Conv(padding="same"), x, name="c1", kernel=kernel(3, 3, 24, 48))
    x = graph.add(ops.Conv(), x, name="c2", kernel=kernel(1, 1, 48, 64))
    graph.output(graph.add(ops.GlobalAveragePool(), x, name="pool"))
    return graph


@pytest.fixture
def path(tmp_path):
    striate.save(net(), tmp_path / "net.h5")
    return tmp_path / "net.h5"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "kept").mkdir()
    return tmp_path / "kept"


@pytest.fixture
def trials(monkeypatch):
    """Return a function that sets what the trials seem to take, by their number."""

    def seem(seconds):
        numbers = count()

        def layer_seconds(plans, inputs):
            return [
                dict.fromkeys([s.layer for s in plan.stages], seconds(next(numbers)))
                for plan in plans
            ]

        monkeypatch.setattr(tuning, "_layer_seconds", layer_seconds)

    return seem


@pytest.fixture
def last_is_fastest(trials):
    """Make the last option of every question seem the fastest."""
    trials(lambda number: 0.5**number)


def algorithms(model, x=X):
    """Return the algorithm of each step."""
    return [step.algorithm for step in model.profile(x, runs=1)]


def answers(folder):
    """Return what the only file of answers holds."""
    (file,) = folder.glob(f"*-{striate.__version__}-*.json")
    return file, json.loads(file.read_text())


def test_without_tuning_the_guess_counts(path):
    with striate.load(path) as model:
        assert any(name.startswith("winograd F(4x4)") for name in algorithms(model))


def test_the_fastest_is_taken(path, last_is_fastest):
    with striate.load(path, tune=True) as model:
        found = algorithms(model)
        assert any(name.startswith("taps gemm") for name in found)
        (want,) = model.graph.reference({"image": X.astype(np.float64)}).values()
        np.testing.assert_allclose(model(X), want, atol=ACCURACY * abs(want).max())


def test_a_gain_that_noise_could_be_is_none(path, trials):
    trials(lambda number: 1 - 0.001 * (number % 5))
    with striate.load(path) as plain, striate.load(path, tune=True) as model:
        assert algorithms(model) == algorithms(plain)


def test_answers_are_kept_and_taken(path, folder, last_is_fastest, monkeypatch):
    with striate.load(path, tune=True, cache=folder) as model:
        wanted = model(X)
        taken = algorithms(model)
    _, kept = answers(folder)
    assert list(kept) == ["image (20, 20, 24)"]
    assert "c1 (20, 20, 48): winograd tile" in kept["image (20, 20, 24)"]
    monkeypatch.setattr(tuning, "fastest", None)
    for threads in (1, 2, 3):
        with striate.load(path, tune=True, cache=folder, threads=threads) as model:
            assert algorithms(model) == taken
            np.testing.assert_array_equal(model(X), wanted)
            np.testing.assert_array_equal(model(X[1:]), wanted[1:])
    with striate.load(path, cache=folder) as model:
        assert algorithms(model) != taken


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"image (20, 20, 24)": 1}', '{"image (20, 20, 24)": {"c1": []}}'],
)
def test_a_damaged_file_is_measured_anew(path, folder, text):
    with striate.load(path, tune=True, cache=folder) as model:
        model(X)
    file, kept = answers(folder)
    file.write_text(text)
    with striate.load(path, tune=True, cache=folder) as model:
        model(X)
    assert answers(folder)[1].keys() == kept.keys()


@pytest.mark.parametrize("answer", [3, -1, "4", True, 2**70])
def test_an_answer_that_was_not_offered_counts_for_nothing(path, folder, answer):
    with striate.load(path, tune=True, cache=folder) as model:
        model(X)
    file, kept = answers(folder)
    pictures = {key: answer for key in kept["image (20, 20, 24)"] if "tile" in key}
    file.write_text(json.dumps({"image (20, 20, 24)": pictures}))
    with (
        striate.load(path, tune=True, cache=folder) as model,
        striate.load(path) as plain,
    ):
        assert algorithms(model) == algorithms(plain)


def test_every_question_is_answered_with_an_option(last_is_fastest):
    found = fastest(net(), {"image": X.shape}, striate.kernels.ISA)
    shapes, isa = {"image": X.shape}, striate.kernels.ISA
    asked = Plan(net(), shapes, isa, 1, PackedWeights(), found).questions
    several = [question for question in asked if len(question.options) > 1]
    assert {question.layer for question in several} == {"c1", "c2"}
    for question in several:
        assert found[question.key] == question.options[-1]


@pytest.mark.parametrize("tile", [4, 2, 0])
@pytest.mark.parametrize(
    ("size", "channels", "guess"), [(14, 368, 2), (13, 368, 2), (7, 32, 2), (22, 20, 4)]
)
@pytest.mark.parametrize("pooled", [False, True])
def test_every_tile_of_winograd_may_be_the_fastest(
    tmp_path, monkeypatch, size, channels, pooled, guess, tile
):
    """Where the pooling is done on the way out only Winograd will do."""
    random = np.random.default_rng(2)
    kernel = random.standard_normal((3, 3, channels, channels), dtype=np.float32)
    graph = Graph("net")
    y = graph.input("x", ("N", size, size, channels))
    y = graph.add(ops.Conv(padding=1), y, name="c", kernel=kernel)
    graph.output(graph.add(ops.MaxPool(2, 2), y, name="y") if pooled else y)
    striate.save(graph, tmp_path / "net.h5")
    used = []

    def answer(graph, shapes, isa):
        questions = Plan(graph, shapes, isa, 1, PackedWeights()).questions
        (asked,) = [q for q in questions if q.key.endswith("winograd tile")]
        assert asked.options in [(guess, 6 - guess), (guess, 6 - guess, 0)]
        used.append(tile if tile in asked.options else guess)
        return {asked.key: tile}

    monkeypatch.setattr(tuning, "fastest", answer)
    x = random.standard_normal((8, size, size, channels), dtype=np.float32)
    with striate.load(tmp_path / "net.h5", tune=True) as model:
        names = algorithms(model, x)
        (want,) = graph.reference({"x": x.astype(np.float64)}).values()
        np.testing.assert_allclose(model(x), want, atol=ACCURACY * abs(want).max())
    wanted = f"F({used[0]}x{used[0]})" if used[0] else "taps gemm"
    assert any(wanted in name for name in names)


@pytest.mark.parametrize(("tile", "wanted"), [(4, "F(4, 3)"), (0, "pointwise")])
def test_rows_may_be_slower_than_the_matrix_product(
    tmp_path, monkeypatch, tile, wanted
):
    random = np.random.default_rng(2)
    kernel = random.standard_normal((3, 48, 40), dtype=np.float32)
    graph = Graph("net")
    x = graph.input("x", ("N", 90, 48))
    graph.output(graph.add(ops.Conv(padding=1), x, name="c", kernel=kernel))
    striate.save(graph, tmp_path / "net.h5")

    def answer(graph, shapes, isa):
        questions = Plan(graph, shapes, isa, 1, PackedWeights()).questions
        (asked,) = [q for q in questions if q.key.endswith("row tile")]
        assert asked.options == (4, 0)
        return {asked.key: tile}

    monkeypatch.setattr(tuning, "fastest", answer)
    x = random.standard_normal((2, 90, 48), dtype=np.float32)
    with striate.load(tmp_path / "net.h5", tune=True) as model:
        assert any(wanted in name for name in algorithms(model, x))
        (want,) = graph.reference({"x": x.astype(np.float64)}).values()
        np.testing.assert_allclose(model(x), want, atol=ACCURACY * abs(want).max())


def test_the_guesses_stay_if_the_whole_is_not_faster(trials):
    trials(lambda number: 0.5**number if number < 8 else 1.0)
    found = fastest(net(), {"image": X.shape}, striate.kernels.ISA)
    trials(lambda number: 0.5**number)
    assert fastest(net(), {"image": X.shape}, striate.kernels.ISA)
    assert found == {}
