"""Weights as whole numbers: what they stand for, in memory and in files."""

import hashlib
import json
import subprocess
import sys

import fuzz_model_file
import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from striate import (
    DTypeError,
    Graph,
    GraphError,
    ModelFormatError,
    Quantisation,
    ShapeError,
    ops,
    read,
    save,
)

ZERO = np.zeros((), np.int32)


def net(scheme=None):
    """Return a dense layer whose kernel the scheme can store."""
    graph = Graph("small")
    x = graph.input("x", ("N", 4))
    kernel = np.random.default_rng(0).standard_normal((4, 3), dtype=np.float32)
    kernel = kernel if scheme is None else scheme.rounded(kernel)
    graph.output(graph.add(ops.Dense(), x, name="fc", kernel=kernel))
    return graph


SCHEMES = {
    "one scale": Quantisation("int8", np.float32(0.02).reshape(()), ZERO),
    "a zero point": Quantisation("uint8", np.full((), 0.02, np.float32), ZERO + 120),
    "each column": Quantisation(
        "uint8", np.float32([0.01, 0.02, 0.03]), np.int32([0, 128, 255]), axis=1
    ),
    "each row": Quantisation(
        "int8", np.float32([0.01, 0.02, 0.03, 1]), np.int32([0, 0, -128, 127]), axis=0
    ),
    "wide": Quantisation("int32", np.full((), 1e-7, np.float32), ZERO),
}


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_what_is_stored_as_whole_numbers_is_read_as_float32(scheme, tmp_path):
    graph = net(scheme)
    save(graph, tmp_path / "net.h5", quantised={"fc/kernel": scheme})
    found = read(tmp_path / "net.h5")
    assert list(found.params) == ["fc/kernel"]
    assert found.params["fc/kernel"].tobytes() == graph.params["fc/kernel"].tobytes()
    assert found.params["fc/kernel"].dtype == np.float32
    assert not found.params["fc/kernel"].flags.writeable
    with h5py.File(tmp_path / "net.h5") as file:
        numbers = file["weights/fc/kernel"][...]
        assert numbers.dtype == scheme.dtype
        assert file["weights/fc/kernel.scale"].dtype == np.float32
        entry = json.loads(file["graph"][()])["tensors"]["fc/kernel"]["quantisation"]
        has_zero = "weights/fc/kernel.zero_point" in file
    assert has_zero == bool(scheme.zero_point.any())
    wanted = {"scale": "fc/kernel.scale"}
    if has_zero:
        wanted["zero_point"] = "fc/kernel.zero_point"
    if scheme.axis is not None:
        wanted["axis"] = scheme.axis
    assert entry == wanted


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_the_formula(scheme):
    """In exact arithmetic, then rounded once or, for wide numbers, twice."""
    graph = net(scheme)
    numbers = scheme.integers(graph.params["fc/kernel"])
    for (row, column), value in np.ndenumerate(graph.params["fc/kernel"]):
        at = {None: (), 0: (row,), 1: (column,)}[scheme.axis]
        difference = int(numbers[row, column]) - int(scheme.zero_point[at])
        assert value == np.float32(difference * float(scheme.scale[at]))


@given(st.integers(0, 2**32 - 1), st.sampled_from([None, 0, 1, 2]))
def test_fitting_loses_half_a_step_at_most(seed, axis):
    weights = np.random.default_rng(seed).standard_normal((3, 2, 4), dtype=np.float32)
    scheme = Quantisation.fitting(weights, axis)
    shape = [-1 if a == axis else 1 for a in range(3)]
    limit = scheme.scale.reshape(shape if axis is not None else ()) * np.float32(0.5001)
    assert (np.abs(scheme.rounded(weights) - weights) <= limit).all()
    once = scheme.rounded(weights)
    assert scheme.rounded(once).tobytes() == once.tobytes()
    assert scheme.rounded(np.zeros((3, 2, 4), np.float32)).max() == 0


def test_fitting_zeros():
    scheme = Quantisation.fitting(np.zeros((2, 3), np.float32), axis=0)
    assert scheme.scale.tolist() == [1, 1]


def test_what_would_lose_digits_is_refused(tmp_path):
    with pytest.raises(DTypeError, match=r"fc/kernel.*Quantisation\.rounded"):
        save(net(), tmp_path / "n.h5", quantised={"fc/kernel": SCHEMES["one scale"]})
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_or_named_twice_is_refused(tmp_path):
    scheme = SCHEMES["one scale"]
    with pytest.raises(GraphError, match="other/kernel"):
        save(net(scheme), tmp_path / "n.h5", quantised={"other/kernel": scheme})
    both = {"quantised": {"fc/kernel": scheme}, "bfloat16": ["fc/kernel"]}
    with pytest.raises(GraphError, match="twice"):
        save(net(scheme), tmp_path / "n.h5", **both)
    graph = net(scheme)
    graph.params["fc/kernel.scale"] = np.zeros(3, np.float32)
    graph.nodes[0].params["bias"] = "fc/kernel.scale"
    with pytest.raises(GraphError, match="names of scales"):
        save(graph, tmp_path / "n.h5", quantised={"fc/kernel": scheme})


@pytest.mark.parametrize(
    ("dtype", "scale", "zero", "axis", "error"),
    [
        ("int64", 1.0, 0, None, DTypeError),
        ("int8", 0.0, 0, None, ShapeError),
        ("int8", -1.0, 0, None, ShapeError),
        ("int8", np.inf, 0, None, ShapeError),
        ("int8", 1.0, 128, None, ShapeError),
        ("uint8", 1.0, -1, None, ShapeError),
        ("int8", [1.0, 2.0], [0, 0], None, ShapeError),
        ("int8", 1.0, 0, 0, ShapeError),
        ("int8", [1.0, 2.0], [0], 0, ShapeError),
    ],
)
def test_schemes_that_make_no_sense(dtype, scale, zero, axis, error):
    scale, zero = np.array(scale, np.float32), np.array(zero, np.int32)
    with pytest.raises(error):
        Quantisation(dtype, scale, zero, axis)


def test_scales_of_another_type_are_refused():
    with pytest.raises(DTypeError, match="float64"):
        Quantisation("int8", np.ones(()), ZERO)


@pytest.mark.parametrize(("axis", "count"), [(2, 3), (-1, 3), (0, 3)])
def test_scales_must_fit_the_tensor(axis, count):
    scales = np.ones(count, np.float32), np.zeros(count, np.int32)
    with pytest.raises(ShapeError, match="3 scales"):
        Quantisation("int8", *scales, axis).rounded(np.zeros((4, 3), np.float32))


def test_memory_is_bounded_before_numbers_are_widened(tmp_path):
    scheme = SCHEMES["one scale"]
    save(net(scheme), tmp_path / "net.h5", quantised={"fc/kernel": scheme})
    need = 4 * (4 + 3) + 4 * 12
    assert read(tmp_path / "net.h5", max_activation_bytes=need).params
    for most in (need - 1, 47):
        with pytest.raises(ModelFormatError) as caught:
            read(tmp_path / "net.h5", max_activation_bytes=most)
        assert caught.value.code == "budget"


WIDE = """
import resource, sys
import striate
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
graph = striate.read(sys.argv[1], max_activation_bytes=int(sys.argv[2]))
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert sum(array.nbytes for array in graph.params.values()) == 16 << 20
print(after - before)
"""


@pytest.mark.parametrize("dtype", ["int8", "int32", "bfloat16"])
def test_reading_takes_the_file_the_budget_and_little_more(dtype, tmp_path):
    graph = Graph("wide")
    value = np.zeros((2048, 2048), np.float32)
    value[::7] = 1
    graph.output(graph.add(ops.Constant(), name="c", value=value))
    how = {"bfloat16": ["c/value"]}
    if dtype != "bfloat16":
        scales = np.ones(2048, np.float32), np.zeros(2048, np.int32)
        how = {"quantised": {"c/value": Quantisation(dtype, *scales, axis=1)}}
    save(graph, tmp_path / "net.h5", **how)
    budget = 2 * value.nbytes
    command = [sys.executable, "-c", WIDE, str(tmp_path / "net.h5"), str(budget)]
    grown = int(subprocess.run(command, check=True, capture_output=True).stdout) << 10
    assert grown < (tmp_path / "net.h5").stat().st_size + value.nbytes + (8 << 20)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Return a good file with a quantised kernel and room in its text."""
    path = tmp_path_factory.mktemp("quantised") / "net.h5"
    graph = net(SCHEMES["each column"])
    graph.metadata = {"room": " " * 300}
    save(graph, path, quantised={"fc/kernel": SCHEMES["each column"]})
    return fuzz_model_file.Base(path.read_bytes())


def edited(base, change):
    """Return the file with a changed text."""
    document = json.loads(json.dumps(base.document))
    document["metadata"] = {}
    change(document["tensors"])
    return fuzz_model_file.with_text(base, json.dumps(document).encode())


def refusal(data):
    with pytest.raises(ModelFormatError) as caught:
        read(data)
    return caught.value


def test_the_unchanged_file_is_good(base):
    assert read(edited(base, lambda tensors: None)).name == "small"


@pytest.mark.parametrize(
    "change",
    [
        {"axis": 0},
        {"axis": 2},
        {"axis": -1},
        {"axis": True},
        {"axis": None},
        {"scale": "fc/kernel"},
        {"scale": "fc/none"},
        {"scale": "../scale"},
        {"scale": 0.5},
        {"zero_point": "fc/kernel.scale"},
        {"zero_point": 0},
        {"zero_point": None},
        {"bits": 8},
    ],
    ids=str,
)
def test_entries_that_make_no_sense_are_refused(base, change):
    data = edited(base, lambda t: t["fc/kernel"]["quantisation"].update(change))
    assert refusal(data).code == "graph"


@pytest.mark.parametrize("key", ["axis", "scale", "zero_point"])
def test_parts_that_are_missing_are_refused(base, key):
    data = edited(base, lambda t: t["fc/kernel"]["quantisation"].pop(key))
    assert refusal(data).code == "graph"


def test_a_scale_cannot_be_quantised_itself(base):
    def change(tensors):
        entry = {"scale": "fc/kernel.scale"}
        tensors["fc/kernel.zero_point"]["quantisation"] = entry

    assert refusal(edited(base, change)).code == "graph"


def test_floats_cannot_be_quantised(base):
    def change(tensors):
        tensors["fc/kernel"]["dtype"] = "float32"

    assert refusal(edited(base, change)).code == "graph"


def test_a_kernel_of_whole_numbers_is_no_kernel(base):
    def change(tensors):
        del tensors["fc/kernel"]["quantisation"]
        del tensors["fc/kernel.scale"], tensors["fc/kernel.zero_point"]

    assert refusal(edited(base, change)).code == "tensors"


@pytest.mark.parametrize("value", [0.0, -1.0, np.inf, np.nan])
def test_scales_in_a_file_are_positive(base, value):
    assert refusal(with_number(base, "scale", np.float32(value))).code == "tensors"


@pytest.mark.parametrize("value", [-1, 256, 2**31 - 1])
def test_zero_points_in_a_file_are_of_the_type(base, value):
    assert refusal(with_number(base, "zero_point", np.int32(value))).code == "tensors"


def with_number(base, part, value):
    """Return the file with another first number in a part, its hash made right."""
    name = f"weights/fc/kernel.{part}"
    found = base.datasets[name]
    content = value.tobytes() + base.bytes_of(name)[4:]
    data = bytearray(base.data)
    data[found.address : found.address + found.nbytes] = content
    old = hashlib.sha256(base.bytes_of(name)).hexdigest().encode()
    new = hashlib.sha256(content).hexdigest().encode()
    text = base.bytes_of("graph").replace(old, new)
    return fuzz_model_file.with_text(base, text, data)
