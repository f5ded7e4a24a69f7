import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from results.front import front

points = st.lists(
    st.tuples(st.integers(0, 6) | st.just(math.nan), st.integers(0, 6) | st.just(math.nan)),
    max_size=12,
)


def beats(a, b):
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(points)
def test_the_front_is_what_nothing_beats(cloud):
    kept = front([c for c, _ in cloud], [s for _, s in cloud])
    known = [i for i, pair in enumerate(cloud) if not any(map(math.isnan, pair))]
    expected = {i for i in known if not any(beats(cloud[j], cloud[i]) for j in known)}
    assert set(kept) == expected
    assert len(kept) == len(expected)
    assert kept == sorted(kept, key=lambda i: cloud[i][0])


def test_ties():
    assert front([1, 1, 2, 2, 3], [5, 5, 5, 6, 6]) == [0, 1, 3]


def test_lists_of_different_length_are_a_bug():
    with pytest.raises(ValueError, match="zip"):
        front([1.0], [])
