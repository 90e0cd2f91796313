"""The programs that compare runtimes measure what they say they measure."""

import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

OTHERS = [n for n in ("onnxruntime", "torch") if importlib.util.find_spec(n)]

ACCURACY = 1e-5
"""Of the largest output: what striate says of whole networks."""


def program(name, *arguments):
    """Return the exit status, the output and the errors of a program."""
    command = [sys.executable, BENCHMARKS / name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def race():
    """Return the document of a short race of two pictures on two instruction sets."""
    from striate import kernels

    isas = list(dict.fromkeys([kernels.ISA, "base"]))
    names = ",".join(["striate", *OTHERS])
    status, out, err = program(
        "race.py", "--nets", "lenet,m5", "--runtimes", names, "--batch", 2,
        "--isa", ",".join(isas), "--seconds", 0.01, "--json",
    )  # fmt: skip
    assert status == 0, err
    return isas, json.loads(out)


def test_everyone_computes_the_same(race):
    isas, document = race
    entrants = {*(f"striate {isa}" for isa in isas), *OTHERS}
    assert [result["net"] for result in document["results"]] == ["lenet", "m5"]
    for result in document["results"]:
        assert result["ms"].keys() == result["error"].keys() == entrants
        assert max(result["error"].values()) < ACCURACY
        assert result["same_bits"] is True


def test_ratios_are_of_the_first_set_and_the_fastest_other(race):
    isas, document = race
    ours = f"striate {isas[0]}"
    for result in document["results"]:
        if OTHERS:
            fastest = min(result["ms"][name] for name in OTHERS)
            assert result["ratio"] == pytest.approx(fastest / result["ms"][ours])
    for name, figures in document["against"].items():
        if name == "the fastest other":
            ratios = {r["net"]: r["ratio"] for r in document["results"]}
        else:
            ratios = {
                r["net"]: r["ms"][name] / r["ms"][ours] for r in document["results"]
            }
        product = math.prod(ratios.values())
        assert figures["geometric_mean"] == pytest.approx(math.sqrt(product))
        assert figures["worst"] == ratios[figures["worst_net"]] == min(ratios.values())


def test_the_race_in_words():
    status, out, err = program(
        "race.py", "--nets", "lenet", "--runtimes", "striate", "--seconds", 0.01
    )
    assert status == 0, err
    assert out.splitlines()[1].startswith("lenet")
    assert "largest error of striate" in out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--nets", "nonet"], "nonet"),
        (["--runtimes", "striate,abacus"], "abacus"),
        (["--runtimes", "onnxruntime"], "striate"),
        (["--isa", "mmx"], "mmx"),
    ],
)
def test_a_race_that_makes_no_sense(arguments, word):
    status, out, err = program("race.py", *arguments)
    assert (status, out) == (2, "")
    assert word in err.splitlines()[-1]


@pytest.mark.skipif(sys.platform != "linux", reason="it reads /proc")
def test_a_fresh_process_is_timed_and_weighed():
    entrants = ["striate", "striate-unverified", *OTHERS[:1]]
    status, out, err = program(
        "fresh.py", "--nets", "lenet", "--rounds", 1, "--json",
        "--runtimes", ",".join(entrants),
    )  # fmt: skip
    assert (status, err) == (0, "")
    document = json.loads(out)
    assert document["import"].keys() == {"numpy", "striate", *OTHERS[:1]}
    assert document["lenet"].keys() == set(entrants)
    for figures in document["lenet"].values():
        assert figures["answer"] == pytest.approx(figures["load"] + figures["first"])
        assert 0 < figures["answer"] < figures["start"]
        assert figures["peak"] > 0
