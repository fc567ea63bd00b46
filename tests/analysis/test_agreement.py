"""Is agreement beyond chance what the literature computes for the same ratings?"""

from __future__ import annotations

import random

import pytest

from holdfast.analysis.agreement import cohens_kappa, krippendorffs_alpha


def _ratings(table: list[list[int]]) -> tuple[list[str], list[str]]:
    """Two judges' ratings from the table of how often they said what."""
    one, other = [], []
    for row, counts in enumerate(table):
        for column, times in enumerate(counts):
            one += [str(row)] * times
            other += [str(column)] * times
    return one, other


@pytest.mark.parametrize(
    ("table", "kappa"),
    [
        ([[20, 5], [10, 15]], 0.4),  # the grant proposals of many textbooks
        ([[45, 15], [25, 15]], 0.1304),  # same agreement, other habits ...
        ([[25, 35], [5, 35]], 0.2593),  # ... other kappa
        ([[88, 14, 18], [10, 40, 10], [2, 6, 12]], 0.4915),  # Cohen 1960, table 1, in counts of 200
        ([[5, 0], [0, 5]], 1.0),
        ([[0, 5], [5, 0]], -1.0),
    ],
)
def test_kappa_of_published_tables(table: list[list[int]], kappa: float) -> None:
    assert cohens_kappa(*_ratings(table)) == pytest.approx(kappa, abs=5e-5)


def test_kappa_where_there_is_none() -> None:
    assert cohens_kappa([], []) is None
    assert cohens_kappa(["safe"] * 9, ["safe"] * 9) is None, "chance alone would agree"
    assert cohens_kappa(["safe"] * 9, ["unsafe"] * 9) == 0, "they never agree, nor would chance"
    assert cohens_kappa([None, "safe"], ["safe", None]) is None
    with pytest.raises(ValueError):
        cohens_kappa(["safe"], [])


def test_missing_ratings_are_left_out() -> None:
    one, other = _ratings([[20, 5], [10, 15]])
    assert cohens_kappa([*one, None, "0"], [*other, "1", None]) == pytest.approx(0.4)


def _split(text: str) -> list[str | None]:
    return [None if one == "." else one for one in text.split()]


# Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011), examples A, B and C (nominal).
BINARY = [_split("0 1 0 0 0 0 0 0 1 0"), _split("1 1 1 0 0 1 0 0 0 0")]
NOMINAL = [_split("a a b b d c c c e d d a"), _split("b a b b b c c c e d d d")]
FOUR = [
    _split("1 2 3 3 2 1 4 1 2 . . ."),
    _split("1 2 3 3 2 2 4 1 2 5 . 3"),
    _split(". 3 3 3 2 3 4 2 2 5 1 ."),
    _split("1 2 3 3 2 4 4 1 2 5 1 ."),
]


@pytest.mark.parametrize(("ratings", "alpha"), [(BINARY, 0.095), (NOMINAL, 0.692), (FOUR, 0.743)])
def test_alpha_of_published_examples(ratings: list[list[str | None]], alpha: float) -> None:
    assert krippendorffs_alpha(ratings) == pytest.approx(alpha, abs=5e-4)


def test_alpha_where_there_is_none() -> None:
    assert krippendorffs_alpha([]) is None
    assert krippendorffs_alpha([["safe", None], [None, "safe"]]) is None, "nothing is rated twice"
    assert krippendorffs_alpha([["safe"] * 3, ["safe"] * 3]) is None
    assert krippendorffs_alpha([["a", "b"], ["a", "b"], ["a", "b"]]) == 1
    with pytest.raises(ValueError):
        krippendorffs_alpha([["a"], ["a", "b"]])


def test_order_of_judges_and_names_of_labels_play_no_part() -> None:
    drawn = random.Random(1)
    ratings = [[drawn.choice(["x", "y", "z", None]) for _ in range(40)] for _ in range(3)]
    alpha = krippendorffs_alpha(ratings)
    other = [[None if one is None else ord(one) for one in judge] for judge in ratings[::-1]]
    assert krippendorffs_alpha(other) == pytest.approx(alpha)
    assert cohens_kappa(*other[:2]) == pytest.approx(cohens_kappa(*ratings[:0:-1]))


def test_kappa_equals_other_peoples() -> None:
    from sklearn import metrics
    from statsmodels.stats import inter_rater as rater

    drawn = random.Random(2)
    one = [drawn.choice("abc") for _ in range(60)]
    other = [drawn.choice([mine, *"abc"]) for mine in one]
    table = metrics.confusion_matrix(one, other)
    assert cohens_kappa(one, other) == pytest.approx(metrics.cohen_kappa_score(one, other))
    assert cohens_kappa(one, other) == pytest.approx(rater.cohens_kappa(table).kappa)
