"""Seeded random models, samples and networks: the commands of `fuzz`, cut short."""

import os

import pytest
from fuzz import graphs, models, opinfo
from fuzz.draft import FAMILIES

COMMON = ("Conv", "ConvTranspose", "MaxPool", "AveragePool", "LpPool", "Resize", "Pad")
"""What has the most settings and is in every network."""

SEED = 20_000


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("module", [m.__name__.split(".")[-1] for m in models.MODULES])
def test_random_models_are_right_or_refused(module):
    operators = [op for op, f in FAMILIES.items() if f.__module__.endswith(module)]
    common = [op for op in operators if op in COMMON]
    outcomes = [*models.fuzz(operators, 5, SEED), *models.fuzz(common, 25, SEED + 1)]
    assert not [o for o in outcomes if o[2].verdict in ("wrong", "crashed")]
    right = {op for op, _, outcome in outcomes if outcome.verdict == "right"}
    assert len(right) > 0.9 * len(operators)


@pytest.mark.filterwarnings("ignore")
def test_a_sample_of_pytorchs_samples_is_right_or_refused():
    operators = ("conv2d", "conv_transpose2d", "max_pool2d", "avg_pool2d", "layer_norm")
    operators += ("pad.reflect", "interpolate.bilinear")
    outcomes = [o for *_, o in opinfo.fuzz(operators, 4)]
    assert not [o for o in outcomes if o.verdict in ("wrong", "crashed")]
    assert sum(o.verdict == "right" for o in outcomes) >= 15


def test_random_networks_compute_their_reference():
    assert not [text for _, text in graphs.fuzz(250, SEED) if text]


def test_a_wrong_answer_shows():
    case = models.drawn("Conv", SEED, 0)
    (name,) = (entry.name for entry in case.model.graph.output[:1])
    wanted, _ = models.by_onnx_runtime(case.model, case.feeds)
    off = {n: y + (n == name) for n, y in wanted.items()}
    limits = models.Limits(case)
    assert not limits.difference(wanted, wanted)
    assert limits.difference(off, wanted)


def test_a_wrong_network_shows():
    graph, feeds, _ = graphs.network(SEED, 0)
    found = graph.reference(feeds)
    largest = dict.fromkeys(found, 1.0)
    graphs.compare(found, found, found, largest)
    graphs.same(found, found, "")
    off = {name: y + 1 for name, y in found.items()}
    with pytest.raises(graphs.Wrong, match="off, at"):
        graphs.compare(off, found, found, largest)
    with pytest.raises(graphs.Wrong, match="other bits"):
        graphs.same(off, found, "")


def test_a_crash_is_told():
    ((call, result, ended),) = models.isolated(_crash, [(0,)])
    assert (call, result) == ((0,), None)
    assert ended == "BrokenProcessPool"


def _crash(_):
    os._exit(1)
