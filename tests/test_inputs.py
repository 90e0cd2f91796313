"""Every array a caller can hand over is run to the bit, or refused in one line."""

import array
import itertools
import random
import re

import numpy as np
import pytest
import torch
from small_nets import any_size, picture
from striate import (
    DTypeError,
    Graph,
    Model,
    ShapeError,
    StriateError,
    UnknownLayerError,
    ops,
)
from striate.spec import shape_text

SHAPE = (2, 12, 10, 3)


def double():
    """Return a network of one layer, and of open sizes."""
    graph = Graph("double")
    x = graph.input("x", ("N", "H", "W", 3))
    graph.output(graph.add(ops.Conv(), x, kernel=2 * np.eye(3).reshape(1, 1, 3, 3)))
    return graph


@pytest.fixture(scope="module")
def model():
    return Model(double(), threads=2)


X = np.random.default_rng(3).integers(-9, 9, SHAPE).astype(np.float32)


class Exporter:
    """An array of a library that speaks DLPack and nothing else."""

    def __init__(self, x):
        self.x = x

    def __dlpack__(self, **options):
        return self.x.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.x.__dlpack_device__()


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


def unaligned(x):
    raw = np.frombuffer(b"\0" + x.tobytes(), np.uint8)
    return raw[1:].view(x.dtype).reshape(x.shape)


TAKEN = {
    "as it is": lambda x: x,
    "read-only": read_only,
    "fortran": np.asfortranarray,
    "transposed": lambda x: np.ascontiguousarray(x.transpose(3, 1, 2, 0)).transpose(
        3, 1, 2, 0
    ),
    "every other": lambda x: np.repeat(x, 2, axis=2)[:, :, ::2],
    "backwards": lambda x: np.ascontiguousarray(x[:, ::-1, ::-1])[:, ::-1, ::-1],
    "unaligned": unaligned,
    "big-endian": lambda x: x.astype(">f4"),
    "float64": lambda x: x.astype(np.float64),
    "long double": lambda x: x.astype(np.longdouble),
    "float16": lambda x: x.astype(np.float16),
    "int8": lambda x: x.astype(np.int8),
    "int64, big-endian": lambda x: x.astype(">i8"),
    "list": lambda x: x.tolist(),
    "subclass": lambda x: x.view(type("Sub", (np.ndarray,), {})),
    "nothing masked": lambda x: np.ma.masked_array(x),
    "torch": lambda x: torch.from_numpy(x.copy()),
    "torch, permuted": lambda x: (
        torch.from_numpy(x.copy()).permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1)
    ),
    "dlpack": lambda x: Exporter(x.copy()),
    "memoryview": lambda x: memoryview(x),
}


@pytest.mark.parametrize("convert", TAKEN.values(), ids=TAKEN)
def test_arrays_that_mean_the_same_give_the_same_bits(model, convert):
    given = convert(X)
    np.testing.assert_array_equal(model(X), 2 * X)
    np.testing.assert_array_equal(model(given), 2 * X)
    np.testing.assert_array_equal(model.run({"x": given})["conv1"], 2 * X)


def test_zero_strides(model):
    x = np.broadcast_to(np.float32(3), SHAPE)
    np.testing.assert_array_equal(model(x), np.full(SHAPE, 6, np.float32))


def test_an_array_of_one_row_may_have_any_strides(model):
    x = np.lib.stride_tricks.as_strided(X[:1], (1, 12, 10, 3), (12345, 120, 12, 4))
    np.testing.assert_array_equal(model(x), 2 * X[:1])


@pytest.mark.parametrize(
    "wrap",
    [
        read_only,
        lambda x: torch.from_numpy(x),
        Exporter,
        lambda x: memoryview(x),
        lambda x: array.array("f", x.ravel().tolist()),
    ],
    ids=["read-only", "torch", "dlpack", "memoryview", "array.array"],
)
def test_arrays_that_fit_are_not_copied(wrap):
    from striate.graph import Input
    from striate.intake import as_array

    x = X.copy()
    given = wrap(x)
    entry = Input("x", SHAPE)
    if isinstance(given, array.array):
        entry = Input("x", (X.size,))
        address = given.buffer_info()[0]
    elif isinstance(given, np.ndarray):
        address = given.ctypes.data
    else:
        address = x.ctypes.data
    assert as_array(given, entry).ctypes.data == address


class Broken:
    def __array__(self, *_, **__):
        raise RuntimeError("no array today")


REFUSED = {
    "masked": (lambda x: np.ma.masked_equal(x, x[0, 0, 0, 0]), "masked elements"),
    "complex": (lambda x: x.astype(complex), "found complex128, wanted float32"),
    "text": (lambda x: x.astype(str), "only real numbers"),
    "object": (lambda x: x.astype(object), "found object, wanted float32"),
    "none": (lambda x: None, "found object, wanted float32"),
    "dates": (lambda x: x.astype("datetime64[s]"), "found datetime64"),
    "records": (lambda x: np.zeros(SHAPE, "f4,f4"), "only real numbers"),
    "ragged": (lambda x: [[1.0], [1.0, 2.0]], "found list, wanted an array of float32"),
    "broken": (lambda x: Broken(), "no array today"),
    "gradient": (lambda x: torch.zeros(SHAPE, requires_grad=True), "requires grad"),
    "bfloat16": (lambda x: torch.zeros(SHAPE, dtype=torch.bfloat16), "BFloat16"),
    "sparse": (lambda x: torch.zeros(SHAPE).to_sparse(), "found Tensor"),
    "dictionary": (lambda x: {"x": x}, "found object"),
    "set": (lambda x: {1, 2}, "found object"),
    "too exact": (lambda x: np.full(SHAPE, 2**24 + 1), "cannot hold 16777217"),
    "too large": (lambda x: np.full(SHAPE, 1e39), "too large"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_array_of_real_numbers_is_refused(model, make, message):
    with pytest.raises(DTypeError, match=message):
        model(make(X))


@pytest.mark.parametrize(
    "shape",
    [
        (),
        (0,),
        (3,),
        (12, 10, 3),
        (2, 3, 12, 10),
        (1, 2, 12, 10, 3),
        (0, 12, 10, 3),
        (2, 0, 10, 3),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_wrong_shapes_are_refused_with_both(model, shape, dtype):
    both = f"found shape {shape_text(shape)}, wanted (N, H, W, 3)"
    with pytest.raises(ShapeError, match=re.escape(both)):
        model(np.zeros(shape, dtype))


def test_a_scalar_is_refused(model):
    with pytest.raises(ShapeError, match=r"found shape \(\)"):
        model(3.0)


def test_a_huge_array_of_the_wrong_shape_is_not_copied(model):
    with pytest.raises(ShapeError, match="wanted"):
        model(np.broadcast_to(np.float64(1), (1 << 20, 1000, 1000, 4)))


@pytest.mark.parametrize("feeds", [X, None, [("x", X)], "x"])
def test_feeds_that_are_no_dictionary(model, feeds):
    with pytest.raises(ShapeError, match="wanted a dictionary of arrays"):
        model.run(feeds)


# Outputs.


@pytest.fixture(scope="module")
def pair():
    """Return a model of two outputs."""
    graph = Graph("pair")
    x = graph.input("x", (2, 6))
    graph.output(graph.add(ops.Relu(), x, name="up"))
    graph.output(graph.add(ops.Neg(), x, name="down"))
    return Model(graph, threads=2)


A = picture(5, 2, 6)


def test_out_for_several_outputs(pair):
    up, down = np.empty((2, 6), np.float32), np.empty((2, 6), np.float32)
    found = pair.run({"x": A}, out={"up": up, "down": down})
    assert found["up"] is up
    assert found["down"] is down
    np.testing.assert_array_equal(up, np.maximum(A, 0))
    np.testing.assert_array_equal(down, -A)
    some = pair.run({"x": A}, ["down"], out={"down": up})
    assert some["down"] is up


def test_out_that_overlaps(pair):
    both = np.empty(18, np.float32)
    out = {"up": both[:12].reshape(2, 6), "down": both[6:].reshape(2, 6)}
    with pytest.raises(ShapeError, match="'down' shares memory with an input or"):
        pair.run({"x": A}, out=out)
    x = both[3:15].reshape(2, 6)
    with pytest.raises(ShapeError, match="'up' shares memory with an input"):
        pair.run({"x": x}, out={"up": out["up"]})


@pytest.mark.parametrize(
    ("out", "found"),
    [
        (np.empty((2, 5), np.float32), r"float32 \(2, 5\)"),
        (np.empty((2, 6)), "float64"),
        (np.empty((2, 6), ">f4"), ">f4"),
        (read_only(A), ".*not contiguous, aligned and writable"),
        (A[:, ::-1], ".*not contiguous, aligned and writable"),
        (np.empty((6, 2), np.float32).T, ".*not contiguous"),
        (np.ma.zeros((2, 6), np.float32), "MaskedArray"),
        (torch.zeros(2, 6), "Tensor"),
        (None, "NoneType"),
    ],
)
def test_out_that_does_not_fit(pair, out, found):
    with pytest.raises(ShapeError, match=rf"wanted a writable .* found {found}"):
        pair.run({"x": A}, out={"up": out})


def test_out_for_what_there_is_not(pair):
    with pytest.raises(ShapeError, match=r"names \['down'\], wanted some of"):
        pair.run({"x": A}, ["up"], out={"down": np.empty((2, 6), np.float32)})
    with pytest.raises(UnknownLayerError, match="no layer 'sideways'"):
        pair.run({"x": A}, out={"sideways": np.empty((2, 6), np.float32)})
    with pytest.raises(ShapeError, match="use run"):
        pair(A, out=np.empty((2, 6), np.float32))


# Anything at all.


TYPES = ["f2", "f4", "f8", "g", "i1", ">i2", "i4", "<i8", ">f4", "u1", "?", "O", "U"]

LAYOUTS = [
    np.asfortranarray,
    unaligned,
    read_only,
    lambda x: np.ascontiguousarray(x[::-1])[::-1],
    lambda x: x[:0],
    lambda x: x[..., None],
    lambda x: x.ravel(),
    lambda x: x[..., :1],
    lambda x: x.reshape(x.shape[::-1]),
    lambda x: np.broadcast_to(x[:1], x.shape),
]

WRAPPERS = [
    lambda x: x.tolist(),
    memoryview,
    Exporter,
    np.ma.masked_array,
    lambda x: np.ma.masked_array(x, np.ones(x.shape, bool)),
    lambda x: [x, x],
    lambda x: x.view(type("Sub", (np.ndarray,), {})),
    lambda x: x.astype("c8"),
    lambda x: None,
]


def anything(rng, x):
    """Return something a caller might hand over."""
    if rng.random() < 0.6:
        x = x.astype(rng.choice(TYPES))
    for _ in range(rng.randint(0, 2)):
        if x.ndim and x.dtype.kind in "fiub":
            x = rng.choice(LAYOUTS)(x)
    return rng.choice(WRAPPERS)(x) if rng.random() < 0.3 else x


def fits(given):
    """Return whether the network must take it, by another rule than the runtime's."""
    if isinstance(given, np.ma.MaskedArray) and np.ma.is_masked(given):
        return False
    try:
        x = np.from_dlpack(given) if isinstance(given, Exporter) else np.asarray(given)
    except Exception:
        return False
    real = x.dtype.kind in "fiub" and x.size > 0
    return real and x.ndim == 4 and x.shape[-1] == 3


@pytest.mark.parametrize("seed", range(4))
def test_random_inputs_are_run_or_refused(seed):
    """Nothing but the errors of striate comes back, and no wrong number."""
    rng = random.Random(seed)
    model = Model(any_size(), threads=2)
    x = np.random.default_rng(seed).integers(-9, 9, SHAPE).astype(np.float32)
    taken = 0
    for _ in range(400):
        given = anything(rng, x)
        if fits(given):
            same = given.x if isinstance(given, Exporter) else np.asarray(given)
            wanted = model(same.astype(np.float32, order="C"))
            assert model(given).tobytes() == wanted.tobytes()
            taken += 1
        else:
            with pytest.raises(StriateError, match="wanted"):
                model(given)
    assert 50 < taken < 350


def apart(arrays):
    """Return whether contiguous arrays lie in memory of their own."""
    ends = sorted((a.ctypes.data, a.ctypes.data + a.nbytes) for a in arrays)
    return all(end <= start for (_, end), (start, _) in itertools.pairwise(ends))


def writable(given):
    """Return whether an output may be written there, by another rule too."""
    return (
        isinstance(given, np.ndarray)
        and not isinstance(given, np.ma.MaskedArray)
        and given.dtype == np.float32
        and given.shape == (2, 6)
        and given.strides == (24, 4)
        and given.ctypes.data % 4 == 0
        and given.flags.writeable
    )


@pytest.mark.parametrize("seed", range(4))
def test_random_outputs_are_written_or_refused(pair, seed):
    rng = random.Random(seed)
    block = np.zeros(60, np.float32)

    def piece():
        start = rng.randrange(len(block) - 11)
        return block[start : start + 12].reshape(2, 6)

    taken = 0
    for _ in range(400):
        x = piece()
        x[:] = A
        names = rng.sample(["up", "down"], rng.randint(1, 2))
        out = {
            name: piece() if rng.random() < 0.8 else anything(rng, A.copy())
            for name in names
        }
        if all(map(writable, out.values())) and apart([x, *out.values()]):
            found = pair.run({"x": x}, out=out)
            assert all(found[name] is out[name] for name in names)
            np.testing.assert_array_equal(found["up"], np.maximum(A, 0))
            np.testing.assert_array_equal(found["down"], -A)
            taken += 1
        else:
            with pytest.raises(ShapeError, match="out= for"):
                pair.run({"x": x}, out=out)
            np.testing.assert_array_equal(x, A)
    assert 50 < taken < 350
