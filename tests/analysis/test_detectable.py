"""Do the chances hold that are told beforehand? Against simulations of the tests that are used."""

from __future__ import annotations

import numpy as np
import pytest

from holdfast.analysis.selection import visible
from holdfast.analysis.stats import detectable, paired_difference
from holdfast.analysis.stats.detectable import Design
from holdfast.analysis.stats.intervals import keeps, worse_end


def _tables(design: Design, loss: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A base and its trainings: of the items a part is moved by all trainings alike, and each
    training loses more or less than the others."""
    n, seeds = design.items, design.seeds
    base = (rng.random(n) < 0.5).astype(float)
    drawn = rng.random((seeds, n))
    alike = rng.random(n) < design.common
    drawn[:, alike] = drawn[0, alike]
    extra = rng.normal(0, design.spread, size=(seeds, 1)) if seeds > 1 else np.zeros((1, 1))
    lost = np.clip(design.churn + loss + extra, 0, 0.5)
    flipped = drawn < np.where(base == 1, 2 * lost, 2 * design.churn)
    return base, np.where(flipped, 1 - base, base)


@pytest.mark.parametrize(
    ("n", "churn", "loss"),
    [(100, 0.05, 0.12), (300, 0.02, 0.04), (60, 0.0, 0.1), (800, 0.1, 0.05), (200, 0.05, 0.0)],
)
def test_a_loss_is_seen_as_often_as_told(n: int, churn: float, loss: float) -> None:
    rng, design, times = np.random.default_rng(1), Design(n, churn), 1500
    seen = 0
    for _ in range(times):
        base, tuned = _tables(design, loss, rng)
        high = paired_difference(base, tuned).high
        assert high is not None
        seen += high < 0
    told = detectable.chance_seen(design, loss)
    assert seen / times == pytest.approx(told, abs=4 * (0.25 / times) ** 0.5)


@pytest.mark.parametrize(
    ("n", "churn", "margin", "loss"),
    [(300, 0.02, 0.03, 0.0), (600, 0.02, 0.02, 0.0), (200, 0.05, 0.05, 0.02), (209, 0.0, 0.02, 0)],
)
def test_a_margin_is_kept_as_often_as_told(
    n: int, churn: float, margin: float, loss: float
) -> None:
    rng, design, times = np.random.default_rng(2), Design(n, churn), 1500
    kept = 0
    for _ in range(times):
        base, tuned = _tables(design, loss, rng)
        low = paired_difference(base, tuned).low
        assert low is not None
        kept += low >= -margin - 1e-9
    told = detectable.chance_kept(design, margin, loss)
    assert kept / times == pytest.approx(told, abs=4 * (0.25 / times) ** 0.5)


@pytest.mark.parametrize("loss", [0.0, 0.08])
def test_several_trainings(loss: float) -> None:
    """An approximation: within a few points of what the crossed interval does."""
    rng, design, times = np.random.default_rng(3), Design(300, 0.04, 3, 0.02, 0.5), 800
    seen = 0
    for _ in range(times):
        base, tuned = _tables(design, loss, rng)
        high = paired_difference(base, tuned).high
        seen += high is not None and high < 0
    assert seen / times == pytest.approx(detectable.chance_seen(design, loss), abs=0.06)


def test_the_inverses() -> None:
    design = Design(200, 0.03)
    loss = detectable.smallest_loss(design)
    assert loss is not None
    assert detectable.chance_seen(design, loss) >= 0.8
    assert detectable.chance_seen(design, loss - 3 * detectable.STEP) < 0.8
    wanted = detectable.items_for_margin(design, 0.02)
    assert wanted is not None
    assert detectable.chance_kept(design.with_items(wanted), 0.02) >= 0.8
    assert detectable.chance_kept(design.with_items(wanted * 9 // 10), 0.02) < 0.8
    some = detectable.items_to_see(design, loss)
    assert some == pytest.approx(200, rel=0.06)
    assert detectable.smallest_loss(Design(3, 0.05)) is None
    assert detectable.smallest_loss(Design(100, 0.5)) is None
    assert detectable.items_for_margin(Design(1, 0.05, 2, 0.05), 0.02) is None, "trainings differ"


def test_more_items_and_fewer_flips_see_more() -> None:
    losses = [detectable.smallest_loss(Design(n, 0.05)) for n in (50, 200, 1000, 5000)]
    assert all(one is not None for one in losses)
    assert losses == sorted(losses, reverse=True)  # type: ignore[type-var]
    few, many = (detectable.smallest_loss(Design(300, churn)) for churn in (0.01, 0.1))
    assert few is not None and many is not None and few < many


def test_keeps_agrees_with_the_end_of_the_interval() -> None:
    for lost, won, n in ((0, 0, 209), (3, 1, 300), (10, 12, 150), (1, 0, 301)):
        end = worse_end(lost, won, n)
        assert keeps(lost, won, n, end - 1e-6)
        assert not keeps(lost, won, n, end + 1e-6)


def test_flips_of_a_run() -> None:
    base = np.array([1.0] * 50 + [0.0] * 50)
    one, two = base.copy(), base.copy()
    one[:4], one[50:52] = 0.0, 1.0  # 4 lost, 2 won
    two[0] = np.nan
    found = visible.observed(base, [[one], [two]])
    assert found.items == 100
    assert found.churn == pytest.approx(((2 + 1) / 102 + (0 + 1) / 101) / 2)
    assert found.spread == detectable.SPREAD, "one training each says nothing of it"
    apart = visible.observed(base, [[one, base, base]])
    assert apart.spread < detectable.SPREAD
    assert visible.observed(base, []).churn == visible.ASSUMED


def test_the_table_fits_a_terminal() -> None:
    found = [visible.visible("overrefusal", Design(100, 0.05), 60),
             visible.visible("", Design(50, 0.4))]  # fmt: skip
    lines = visible.table(found, 0.8)
    assert max(map(len, lines)) <= 80
    assert "*: more than the task has" in lines
    assert visible.ahead({}, 1) == []
    (line,) = visible.ahead({"a": 100, "b": 100}, 1)
    assert line.startswith("Power: with 100 items a loss of")
    assert "(a, b)" not in line, "where all tasks have as many items, none is named"
    first, last = visible.ahead({"a": 100, "b": 50}, 1)
    assert "(a)" in first and "(b), if" in last
