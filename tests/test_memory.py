from hypothesis import given
from hypothesis import strategies as st
from striate.memory import ALIGNMENT, Lifetime, lower_bound, place

LIFETIMES = st.lists(
    st.builds(
        lambda nbytes, first, length: Lifetime(nbytes, first, first + length),
        st.integers(1, 5000),
        st.integers(0, 30),
        st.integers(0, 10),
    ),
    max_size=40,
)


@given(LIFETIMES)
def test_what_lives_together_does_not_overlap(lifetimes):
    offsets, total = place(lifetimes)
    for i, a in enumerate(lifetimes):
        assert offsets[i] % ALIGNMENT == 0
        assert offsets[i] + a.nbytes <= total
        for j, b in enumerate(lifetimes[:i]):
            if a.first <= b.last and b.first <= a.last:
                apart = (
                    offsets[i] + a.nbytes <= offsets[j]
                    or offsets[j] + b.nbytes <= offsets[i]
                )
                assert apart


@given(LIFETIMES)
def test_the_arena_is_no_smaller_than_what_lives(lifetimes):
    assert place(lifetimes)[1] >= lower_bound(lifetimes)


def test_memory_is_used_again():
    chain = [Lifetime(1 << 20, i, i + 1) for i in range(10)]
    assert place(chain)[1] == 2 << 20 == lower_bound(chain)


def test_a_gap_is_filled():
    lives = [Lifetime(6400, 0, 9), Lifetime(640, 0, 0), Lifetime(640, 1, 1)]
    offsets, total = place(lives)
    assert offsets[1] == offsets[2]
    assert total == 7040
