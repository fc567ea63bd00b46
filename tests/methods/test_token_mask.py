"""Which labels does the mask drop, and is the base asked once only?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast import methods
from holdfast.config import Sampling, TaskSpec
from holdfast.data.leakage import LeakIndex
from holdfast.engines.kept import score
from holdfast.engines.scripted import ScriptedEngine
from holdfast.errors import DataError
from holdfast.methods import MethodContext
from holdfast.methods._bound import Bound
from holdfast.tasks import build
from holdfast.types import Example, Message


class Scorer(ScriptedEngine):
    """Gives every word the loss that is written in it, and the end of the turn none."""

    def __init__(self) -> None:
        super().__init__(lambda example, adapter, sample: "")
        self.scored = 0

    def token_nll(self, examples: Sequence[Example]) -> list[list[float]]:
        self.scored += len(examples)
        self.usage.read += 10 * len(examples)
        return [[*map(float, (one.target or "").split()), 0.0] for one in examples]


def _example(name: str, answer: str, **meta: object) -> Example:
    return Example(name, (Message("user", f"Q {name}"),), answer, meta=meta)


def _setting(engine: Scorer, scores: Path | None = None) -> MethodContext:
    task = build("t", TaskSpec(kind="gsm8k", path="nowhere"), "s")  # type: ignore[call-arg]
    return MethodContext(task, [], Sampling(), lambda: engine, LeakIndex([]), 1, scores)


def test_tokens_above_the_limit_are_dropped() -> None:
    method = methods.build("token_mask", {"max_perplexity": 2.5}, "s", "arms.a.loss")
    limit = math.log(2.5)
    given = [
        _example("a", f"{limit - 0.01} {limit + 0.01} 9 0.1"),
        _example("b", "0 0"),
        _example("r", "9 9", kind="replay"),
    ]
    found, notes = method.apply(given, _setting(Scorer()), {})
    assert [one.meta.get("dropped") for one in found] == [[1, 2], [], None]
    assert notes == ["25.0% of the task's tokens bear no loss (perplexity above 2.5)"]
    assert [one.target for one in found] == [one.target for one in given]


def test_a_mask_that_leaves_nothing_is_refused() -> None:
    method = methods.build("token_mask", {"max_perplexity": 1.01}, "s", "arms.a.loss")
    with pytest.raises(DataError, match="tokens are above") as caught:
        method.apply([_example("a", " ".join(["9"] * 40))], _setting(Scorer()), {})
    assert "max_perplexity" in caught.value.remedy


def test_an_answer_is_scored_once_for_all_arms(tmp_path: Path) -> None:
    engine, kept = Scorer(), tmp_path / "scores.jsonl"
    first = [_example("a", "1 2"), _example("b", "3")]
    assert score(lambda: engine, first, kept)[0] == [[1, 2, 0], [3, 0]]
    second = [_example("b", "3"), _example("a", "1 9")]
    losses, spent = score(lambda: engine, second, kept)
    assert losses == [[3, 0], [1, 9, 0]]
    assert engine.scored == 3, "only the new answer was asked for"
    assert spent.read == 20, "but both count, so that the order of the arms does not"

    def never() -> Scorer:
        raise AssertionError("opened the engine for nothing")

    again, paid = score(never, first, kept)
    assert again == [[1, 2, 0], [3, 0]]
    assert paid.read == 20
    assert paid.seconds > 0


def test_losses_belong_to_one_model(tmp_path: Path) -> None:
    engine, kept = Scorer(), tmp_path / "scores.jsonl"
    for of in ({"model": "a"}, {"model": "b"}, {"model": "a"}, {"model": "a", "nf4": True}):
        score(lambda: engine, [_example("a", "1 2")], kept, of)
    assert engine.scored == 3


def test_only_answers_that_fill_the_budget_are_looked_at() -> None:
    """Four of six tokens a question are left: eight questions of forty fill a budget of 30."""
    method = methods.build("token_mask", {"max_perplexity": 2.5}, "s", "arms.a.loss")
    plain = [_example(f"q{n}", "0 0 9 0 9") for n in range(40)]
    order, engine = list(reversed(range(40))), Scorer()

    def cost(examples: Sequence[Example]) -> list[int]:
        return [6 - len(one.meta["dropped"]) for one in examples]

    bound = Bound(16, order, cost, 40, tokens=lambda: 30)
    context = replace(_setting(engine), plain=plain, bound=bound)
    found, notes = method.apply(plain, context, {})
    assert [one.id for one in found] == [f"q{n}" for n in range(32, 40)]
    assert engine.scored == 8
    assert notes[0].endswith("; 8 of 40 answers looked at, 8 fill the budget")
    every, _ = method.apply(plain, replace(context, bound=None), {})
    assert found == every[32:]
    many = replace(context, bound=replace(bound, tokens=lambda: 10_000))
    assert method.apply(plain, many, {})[0] == every, "several rounds see all"


def test_other_kinds_keep_their_share_where_few_answers_are_looked_at() -> None:
    """A fifth of the answers is enough, and so a fifth of what is replayed stays: the first."""
    method = methods.build("token_mask", {"max_perplexity": 2.5}, "s", "arms.a.loss")
    plain = [_example(f"q{n}", "0 0 9 0 9") for n in range(40)]
    old = [_example(f"r{n}", "9 9", kind="replay") for n in range(10)]
    probes = [_example(f"p{n}", "9 9", kind="probe") for n in range(3)]
    bound = Bound(16, range(40), lambda some: [4] * len(some), 40, tokens=lambda: 30)
    engine = Scorer()
    context = replace(_setting(engine), plain=plain, bound=bound)
    found, _ = method.apply([*plain, *old, *probes], context, {})
    assert engine.scored == 8
    names = [one.id for one in found]
    assert names == [f"q{n}" for n in range(8)] + ["r0", "r1", "p0", "p1", "p2"]
    assert all("dropped" in one.meta for one in found[:8])
    assert found[8:] == [*old[:2], *probes]
    alone, _ = method.apply(old, context, {})
    assert alone == old


def test_answers_that_do_not_fill_the_budget_once_masked_are_said_to_be_seen_again() -> None:
    """As after `selfgen`, which made as much as would do without the mask."""
    method = methods.build("token_mask", {"max_perplexity": 2.5}, "s", "arms.a.loss")
    plain = [_example(f"q{n}", "0 0 9 0 9") for n in range(40)]
    bound = Bound(16, range(40), lambda some: [4] * len(some), 40, tokens=lambda: 48)
    context = replace(_setting(Scorer()), plain=plain, bound=bound)
    found, notes = method.apply(plain[:8], context, {})
    assert len(found) == 8
    assert notes[0].endswith(
        "; what is left of 8 answers fills 67% of the budget, so some are seen again"
    )
