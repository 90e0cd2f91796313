"""Products of matrices, and Einstein's convention."""

import numpy as np
import pytest
from check import check
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import WIDTHS, generators, normal, whole
from striate import DTypeError, Graph, Model, ShapeError, Spec, ops

SIZES = st.sampled_from([1, 2, 5, 8, 13, 17, 40])


@st.composite
def factors(draw):
    """Draw two shapes that multiply, with batches that broadcast."""
    m, k, n = draw(SIZES), draw(SIZES), draw(SIZES)
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    thin = [draw(st.sampled_from([1, size])) for size in batch]
    pair = draw(st.permutations([batch, thin[draw(st.integers(0, len(thin))) :]]))
    return (*pair[0], m, k), (*pair[1], k, n)


@settings(max_examples=30)
@given(pair=factors(), rng=generators())
def test_whole_numbers_are_exact(pair, rng):
    x, y = (whole(rng, shape) for shape in pair)
    check(ops.MatMul(), x, y, exact=True)
    check(ops.MatMul(), x, exact=True, y=y)
    check(ops.MatMul(), y, exact=True, x=x)


@settings(max_examples=15)
@given(pair=factors(), rng=generators())
def test_error(pair, rng):
    x, y = (normal(rng, shape) for shape in pair)
    check(ops.MatMul(), x, y, terms=pair[0][-1])


@pytest.mark.parametrize("m", range(1, 18))
@pytest.mark.parametrize("n", WIDTHS)
def test_every_tile(m, n):
    rng = np.random.default_rng(m * n)
    check(ops.MatMul(), whole(rng, (m, 3)), whole(rng, (3, n)), exact=True)


@pytest.mark.parametrize("n", [1, 3, 16, 33])
def test_vectors(n):
    rng = np.random.default_rng(n)
    v, a, b = whole(rng, n), whole(rng, (2, 4, n)), whole(rng, (3, n, 5))
    check(ops.MatMul(), v, v, exact=True)
    check(ops.MatMul(), v, exact=True, y=v)
    check(ops.MatMul(), a, v, exact=True)
    check(ops.MatMul(), a, exact=True, y=v)
    check(ops.MatMul(), v, b, exact=True)
    check(ops.MatMul(), b, exact=True, x=v)


def test_large_products_are_cut_into_chunks():
    rng = np.random.default_rng(5)
    x, y = whole(rng, (300, 700)), whole(rng, (2, 700, 70))
    check(ops.MatMul(), x, y, exact=True)
    check(ops.MatMul(), np.tile(x, (3, 1)), exact=True, y=y[0].copy())


def test_nan_stays_in_its_row():
    x = np.ones((9, 4), np.float32)
    x[3, 2] = np.nan
    y = check(ops.MatMul(), x, np.ones((4, 33), np.float32), exact=True)
    assert np.isnan(y).sum() == np.isnan(y[3]).sum() == 33


def test_attention():
    rng = np.random.default_rng(6)
    graph = Graph()
    q, k, v = (graph.input(name, ("N", 4, 10, 8)) for name in "qkv")
    turned = graph.add(ops.Transpose((0, 1, 3, 2)), k)
    odds = graph.add(ops.Softmax(), graph.add(ops.MatMul(), q, turned))
    graph.output(graph.add(ops.MatMul(), odds, v, name="y"))
    feeds = {name: normal(rng, (2, 4, 10, 8)) for name in "qkv"}
    wide = {name: x.astype(np.float64) for name, x in feeds.items()}
    found = Model(graph).run(feeds)["y"]
    np.testing.assert_allclose(found, graph.reference(wide)["y"], atol=1e-5)


EQUATIONS = {
    "ij->ji": [(3, 5)],
    "ij->i": [(3, 17)],
    "ij->": [(3, 17)],
    "ii->i": [(4, 4)],
    "ii": [(4, 4)],
    "ij,jk": [(3, 4), (4, 5)],
    "ij,jk->ik": [(3, 4), (4, 17)],
    "bij,bjk->bik": [(2, 3, 4), (2, 4, 9)],
    "...ij,...jk->...ik": [(2, 1, 3, 4), (5, 4, 3)],
    "bhqd,bhkd->bhqk": [(2, 3, 4, 8), (2, 3, 5, 8)],
    "nhwc,co->nohw": [(2, 3, 4, 5), (5, 6)],
    "i,j->ij": [(3,), (17,)],
    "i,i->": [(33,), (33,)],
    "i,i->i": [(33,), (33,)],
    "ab,bc,cd->ad": [(2, 3), (3, 4), (4, 5)],
    "abc,c,a->b": [(2, 3, 4), (4,), (2,)],
    "ijj,jk->ki": [(2, 3, 3), (3, 4)],
    "a...,b->...ab": [(2, 3, 4), (5,)],
    " b n h w , n m -> b m h w ": [(1, 2, 3, 3), (2, 4)],
    "...,...": [(2, 3), (3,)],
}


@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum(equation):
    rng = np.random.default_rng(7)
    shapes = EQUATIONS[equation]
    check(ops.Einsum(equation), *(whole(rng, s) for s in shapes), exact=True)
    xs = [normal(rng, s) for s in shapes]
    check(ops.Einsum(equation), *xs, terms=100)


def test_rejects():
    with pytest.raises(ShapeError, match=r"MatMul: \(2, 3\) and \(4, 5\) do not fit"):
        ops.MatMul().infer(Spec((2, 3)), Spec((4, 5)))
    with pytest.raises(ShapeError, match="do not fit"):
        ops.MatMul().infer(Spec((2, 2, 3)), Spec((3, 3, 5)))
    with pytest.raises(ShapeError, match="do not fit"):
        ops.MatMul().infer(Spec(()), Spec((3,)))
    with pytest.raises(DTypeError, match="MatMul: found int32"):
        ops.MatMul().infer(Spec((3,)), Spec((3,), "int32"))
    with pytest.raises(ShapeError, match=r"an axis has 4 and 3 elements in \(3, 4\)"):
        ops.Einsum("ii").infer(Spec((3, 4)))
    with pytest.raises(ShapeError, match="1 operands, wanted 2"):
        ops.Einsum("i,i").infer(Spec((3,)))
    with pytest.raises(ShapeError, match="'ij' for a tensor of 3 axes"):
        ops.Einsum("ij").infer(Spec((3, 4, 5)))
    for wrong in ("i1", "ij->ii", "i->j", "..i..", "i.j"):
        with pytest.raises(ValueError, match="equation"):
            ops.Einsum(wrong)
