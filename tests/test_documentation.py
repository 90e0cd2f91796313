"""What the documents show is so: examples run, links lead somewhere."""

import doctest
import pkgutil
import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import striate

PROJECT = Path(__file__).parent.parent
PAGES = sorted([PROJECT / "README.md", *PROJECT.glob("docs/*.md")])
README = (PROJECT / "README.md").read_text()


def modules():
    yield "striate"
    for found in pkgutil.walk_packages(striate.__path__, "striate."):
        if not re.search(r"\.kernels\.\w+_(base|avx2|avx512)$|make_", found.name):
            yield found.name


@pytest.mark.parametrize("name", sorted(modules()))
def test_examples_in_docstrings(name):
    result = doctest.testmod(import_module(name))
    assert not result.failed


def code_blocks(text):
    return re.findall(r"^```python\n(.*?)^```", text, re.M | re.S)


def test_the_ten_lines(monkeypatch, capsys):
    monkeypatch.chdir(PROJECT)
    names = {}
    exec(code_blocks(README)[0], names)
    assert "'7'" in capsys.readouterr().out
    assert names["y"].shape == (4, 10)


def test_the_network_by_hand():
    rng = np.random.default_rng(0)
    sizes = [(400, 120), (120, 84), (84, 10)]
    names = {
        "k1": rng.standard_normal((5, 5, 1, 6)),
        "b1": np.zeros(6),
        "k2": rng.standard_normal((5, 5, 6, 16)),
        "b2": np.zeros(16),
        "dense_layers": [(rng.standard_normal(s), np.zeros(s[1])) for s in sizes],
    }
    names["k5"], names["b5"] = names["dense_layers"][-1]
    exec(code_blocks(README)[1], names)
    assert names["model"](np.zeros((1, 28, 28, 1))).shape == (1, 10)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
