"""Is no more made than the training uses, and is what is used a function of seed and data alone?"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fixtures.methods import Cut, apply, build, setting
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config import Sampling
from holdfast.data.batching import Cost, deal, plain_budget, seen_order
from holdfast.engines import Usage
from holdfast.engines.chunks import spent_in
from holdfast.engines.kept import Kept
from holdfast.engines.resumable import ask
from holdfast.methods import MethodContext, _own_answers, _replay_prompts
from holdfast.methods._bound import Bound, in_rounds
from holdfast.progress import Silent
from holdfast.runs import store
from holdfast.types import Example, Message

QUESTIONS = [
    Example(f"train-{n}", (Message("user", f"What is {n} and {n}?"),), f"#### {2 * n}", "gold")
    for n in range(60)
]
ORDER = seen_order(len(QUESTIONS), 1126)


class Said:
    """Solves two questions of three, each at its own length; remembers what it was asked."""

    def __init__(self, fails: int = 10**9) -> None:
        self.asked: list[str] = []
        self.fails = fails

    def __call__(self, example: Example, adapter: str | None, sample: int) -> str:
        if len(self.asked) == self.fails:
            self.fails = 10**9
            raise RuntimeError("power cut")
        self.asked.append(f"{example.id}#{sample}")
        number = int(example.id.split("-")[1])
        right = 2 * number if (number + sample) % 3 else "none"
        return f"{'so ' * (1 + number % 4)}#### {right}"


def words(examples: Sequence[Example]) -> list[int]:
    return [len((one.target or "").split()) for one in examples]


def bounded(said: Any, tokens: int, **more: object) -> MethodContext:
    """A study that trains on so many words of `QUESTIONS`."""
    bound = Bound(max(1, tokens // 4), ORDER, words, len(QUESTIONS), tokens=lambda: tokens)
    return replace(setting(said), plain=QUESTIONS, bound=bound, **more)


def made(method: Any, context: MethodContext, folder: Path) -> list[Example]:
    return apply(method, context, folder, QUESTIONS)[0]


def place(example: Example) -> int:
    return ORDER.index(int(example.id.split("-")[1].split("/")[0]))


METHODS = [
    build("selfgen", samples=1, unsolved="drop"),
    build("selfgen", samples=2, unsolved="gold", keep=2),
    build("selfgen", samples=1, unsolved=["rewrite", "drop"]),
    build("rewrite"),
    build("rewrite", otherwise="drop"),
]
NAMES = ["drop", "gold", "rewritten", "rewrite", "rewrite or drop"]


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> list[list[Example]]:
    """What each of `METHODS` makes where nothing bounds it."""
    folder, context = tmp_path_factory.mktemp("all"), replace(bounded(Said(), 0), bound=None)
    return [made(one, context, folder / name) for one, name in zip(METHODS, NAMES, strict=True)]


def first_of(every: Sequence[Example], tokens: int) -> list[Example]:
    """The first in the order of training that have so many words, as they lie in the data."""
    kept: set[int] = set()
    for number in range(len(ORDER)):
        if sum(words([one for one in every if place(one) in kept])) >= tokens:
            break
        kept.add(number)
    return [one for one in every if place(one) in kept]


@given(
    which=st.integers(0, len(METHODS) - 1),
    tokens=st.integers(1, 260),
    fails=st.none() | st.integers(0, 120),
    before=st.none() | st.integers(1, 260),
)
def test_what_is_used_is_the_beginning_whatever_was_cut_off_or_kept(
    which: int,
    tokens: int,
    fails: int | None,
    before: int | None,
    everything: list[list[Example]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The same for a budget whether it was interrupted, or a smaller or larger one came before."""
    folder, method, said = tmp_path_factory.mktemp("b"), METHODS[which], Said()
    earlier: set[str] = set()
    if before is not None:
        first = Said()
        made(method, bounded(first, before, answers=folder / "kept"), folder / "before")
        earlier = set(first.asked)
    said.fails = 10**9 if fails is None else fails
    context = bounded(said, tokens, answers=folder / "kept")
    try:
        found = made(method, context, folder / "made")
    except RuntimeError:
        found = made(method, context, folder / "made")
    assert found == first_of(everything[which], tokens)
    assert not earlier & set(said.asked), "what was kept is not asked for again"
    shutil.rmtree(folder)


def test_what_was_kept_costs_what_it_cost(tmp_path: Path) -> None:
    class Counting(Cut):
        def generate(self, examples: Any, *rest: Any, **more: Any) -> Any:
            self.usage.read += 5 * len(examples)
            self.usage.written += sum(words(examples))
            return super().generate(examples, *rest, **more)

    engine, kept = Counting(lambda example, adapter, sample: example.id), Kept(tmp_path / "kept")

    def cost(some: Sequence[Example], name: str) -> Usage:
        ask(lambda: engine, some, Sampling(), tmp_path / name, Silent(), kept=kept)
        return spent_in(tmp_path / name)

    assert cost(QUESTIONS[:20], "first") == Usage(100, 40)
    assert cost(QUESTIONS[:30], "more") == Usage(150, 60), "twenty of them then, ten now"
    assert cost(QUESTIONS[:20], "again") == Usage(100, 40)
    assert (engine.usage.read, engine.usage.written) == (0, 0), "said by the chunks alone"


def test_a_kept_answer_that_was_changed_is_asked_for_again(tmp_path: Path) -> None:
    first, then = Said(), Said()
    wanted = made(METHODS[0], bounded(first, 40, answers=tmp_path / "kept"), tmp_path / "first")
    (file,) = (tmp_path / "kept").glob("*.jsonl")
    file.write_text(file.read_text().replace("so so", "ha ha", 1), encoding="utf-8")
    found = made(METHODS[0], bounded(then, 40, answers=tmp_path / "kept"), tmp_path / "then")
    assert found == wanted
    assert len(then.asked) == 1


def test_no_more_is_asked_than_is_seen(tmp_path: Path) -> None:
    """Twenty-four of sixty questions are enough, where two of three are solved."""
    said, method = Said(), METHODS[0]
    context = bounded(said, 40)
    used = made(method, context, tmp_path)
    (shared,) = method.shared(context)
    record = store.read_json(tmp_path / shared.name / store.RECORD)["summary"]
    assert record["asked"] == len(said.asked) < 36
    assert record["used"] - record["reserve"] == len(used) == record["counts"]["self"]
    assert record["reserve"] == record["counts"]["dropped"] > 0
    assert "of 60 asked, in the order in which they are seen" in record["note"]
    assert shared.asks == {"questions": 60, "expected": 34, "samples": 1, "new_tokens": 512}
    assert shared.needs == ("budget",)


@pytest.mark.parametrize(
    ("method", "share"), list(zip(METHODS, [0.3, 1.0, 0.5, 1.0, 0.5], strict=True)), ids=NAMES
)
def test_more_is_expected_to_be_asked_than_is_used(method: Any, share: float) -> None:
    (shared,) = method.shared(bounded(Said(), 60))
    assert shared.asks["expected"] == math.ceil(15 / share)
    (every,) = method.shared(replace(bounded(Said(), 60), bound=None))
    assert every.asks["expected"] == every.asks["questions"] == 60


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_what_a_step_before_has_made_of_questions_stays(method: Any, tmp_path: Path) -> None:
    """One that it left out is not brought back, and one that it changed is another question."""
    context = replace(bounded(Said(), 0), bound=None)
    every = made(method, context, tmp_path / "all")
    other = replace(QUESTIONS[7], messages=(Message("user", "Was ist 7 und 7?"),))
    given = [other if one is QUESTIONS[7] else one for one in QUESTIONS[:20]]
    found, notes = apply(method, context, tmp_path / "some", given)
    kept = {one.id.split("/")[0] for one in found}
    assert kept <= {one.id for one in QUESTIONS[:20]}
    assert found.count(other) == 1
    same = [one for one in every if place(one) in {ORDER.index(n) for n in range(20) if n != 7}]
    assert [one for one in found if one.id != other.id] == same
    if method.plugin == "selfgen":
        assert notes[1:] == ["1 questions that a method before has changed stay as they are"]


@pytest.mark.parametrize("method", METHODS, ids=NAMES)
def test_a_budget_of_many_rounds_asks_all_as_before(method: Any, tmp_path: Path) -> None:
    every = made(method, replace(bounded(Said(), 0), bound=None), tmp_path / "all")
    found, notes = apply(method, bounded(Said(), 10_000), tmp_path / "many", QUESTIONS)
    assert found == every
    assert "asked, in the order" not in notes[0]


def test_questions_are_asked_as_plain_training_sees_them() -> None:
    costs = [Cost(9, 5)] * 60
    budget = plain_budget(costs, steps=5, micro_batches=1, per_micro_batch=4)
    seen = [index for slot in deal(costs, ["task"] * 60, budget, 1126) for index in slot]
    assert seen == ORDER[:20]


@given(st.integers(1, 300), st.integers(1, 60), st.integers(1, 400), st.integers(0, 3))
def test_rounds_end_where_there_is_enough(count: int, first: int, wanted: int, each: int) -> None:
    sizes: list[tuple[int, int, int]] = []

    def work(number: int, start: int, end: int) -> float:
        sizes.append((number, start, end))
        return each * (end - start)

    done = in_rounds(count, first, wanted, work)
    assert [one[0] for one in sizes] == list(range(len(sizes)))
    assert [one[1] for one in sizes] == [0, *(one[2] for one in sizes[:-1])], "each once"
    assert done == sizes[-1][2] <= count
    assert done == count or each * done >= wanted
    if len(sizes) > 1:
        assert each * sizes[-1][1] < wanted, "the last round was needed"


def _moody(example: Example, adapter: str | None, sample: int) -> str:
    """Declines and helps by the letters of what it is asked, so that many are of no use."""
    mood = sum(map(ord, example.question)) % 5
    if example.id.startswith("declined") and mood < 3:
        return "I'm sorry, but I can't help with that."
    return "On and on…" if mood == 4 else "Of course! Start early, and take your time with it."


def old(share: float, seen: int, **options: object) -> tuple[list[Example], int, list[str]]:
    """What is replayed, how many prompts were asked, and the notes."""
    import tempfile

    asked: list[str] = []

    def say(example: Example, adapter: str | None, sample: int) -> str:
        asked.append(example.id)
        return _moody(example, adapter, sample)

    method = build("replay", share=share, **options)
    bound = Bound(seen, ORDER, words, len(QUESTIONS)) if seen else None
    context = replace(setting(say), plain=QUESTIONS, bound=bound)
    with tempfile.TemporaryDirectory() as folder:
        found, notes = apply(method, context, Path(folder), QUESTIONS)
    return found[len(QUESTIONS) :], len(set(asked)), notes


@pytest.mark.parametrize("source", ["both", "refusals", "everyday"])
@pytest.mark.parametrize("balance", [True, False])
@pytest.mark.parametrize("share", [0.05, 0.4])
def test_replay_of_many_rounds_is_what_it_was(source: str, balance: bool, share: float) -> None:
    before, all_asked, _ = old(share, 0, source=source, balance=balance)
    after, asked, _ = old(share, 10_000, source=source, balance=balance)
    assert after == before
    assert asked < all_asked / 2, "the pool of 400 is not needed"


@pytest.mark.parametrize("seen", [1, 7, 40])
@pytest.mark.parametrize("balance", [True, False])
@pytest.mark.parametrize("source", ["both", "refusals"])
def test_fewer_replays_are_the_first_of_more(seen: int, balance: bool, source: str) -> None:
    every, _, _ = old(0.5, 0, source=source, balance=balance)
    found, asked, _ = old(0.5, seen, source=source, balance=balance)
    distinct = [one for one in found if not one.meta.get("round")]
    assert len(found) == len(every) == 60, "the share of rows holds"
    assert len(distinct) == min(60, seen + 1)
    assert [o.question for o in distinct] == [o.question for o in every[: len(distinct)]]
    assert asked <= 4 * len(distinct) + 8


def test_a_model_that_never_refuses_is_asked_many_at_a_time(tmp_path: Path) -> None:
    """One kind of answer never comes: the whole pool is asked, and not in four hundred rounds."""

    def helps(example: Example, adapter: str | None, sample: int) -> str:
        return "Of course! Start early, and take your time with it."

    method = build("replay", share=0.25)
    bound = Bound(16, ORDER, words, len(QUESTIONS))
    context = replace(setting(helps), plain=QUESTIONS, bound=bound)
    apply(method, context, tmp_path, QUESTIONS)
    rounds = [path.name for path in tmp_path.rglob("replies-declined*.jsonl")]
    assert 1 < len(rounds) <= 12


def test_the_few_replays_are_each_seen_before_any_is_seen_again() -> None:
    rows, _, notes = old(0.5, 20)
    assert len(rows) == 60
    kinds = ["task"] * 60 + ["replay"] * 60
    rounds = [0] * 60 + [int(one.meta["round"]) for one in rows]
    costs = [Cost(20, 10 + n % 3) for n in range(120)]
    budget = plain_budget(costs[:60], steps=10, micro_batches=1, per_micro_batch=4)
    for seed in range(5):
        slots = deal(costs, kinds, budget, seed, rounds=rounds)
        seen = [index for slot in slots for index in slot if index >= 60]
        assert len(seen) == 20
        assert len({rows[index - 60].question for index in seen}) == 20
    assert notes[0] == "50% of what is seen is replayed: 21 examples from a pool of 22"


def test_rounds_of_one_change_nothing() -> None:
    costs = [Cost(20, 5 + n % 7) for n in range(50)]
    budget = plain_budget(costs, steps=9, micro_batches=2, per_micro_batch=2)
    kinds = ["task"] * 40 + ["replay"] * 10
    assert deal(costs, kinds, budget, 7) == deal(costs, kinds, budget, 7, rounds=[0] * 50)


def test_methods_share_the_pool_that_has_most() -> None:
    context = replace(setting(_moody), plain=QUESTIONS, bound=Bound(100, ORDER, words, 60))
    (few,) = build("replay", share=0.05).shared(context)
    (more,) = build("kl", "loss", share=0.4).shared(context)
    (most,) = build("ewc", "loss", samples=150).shared(context)
    assert few.name == more.name == most.name
    assert [few.need, more.need, most.need] == [3, 40, 150]
    assert few.asks == {"questions": 400, "expected": 4, "samples": 1, "new_tokens": 256}
    (other,) = build("replay", balance=False).shared(context)
    assert other.name != few.name, "asked for in another order"


def test_dialogues_end_where_there_are_enough(tmp_path: Path) -> None:
    written: list[str] = []

    def say(example: Example, adapter: str | None, sample: int) -> str:
        if example.meta.get("continue") == "user":
            written.append(example.id)
            number = int(example.id.split("-")[1])
            return "Why?" if number % 3 == 0 else f"What is the number {number} good for?"
        return f"You ask: {example.question}"

    method = build("replay", share=0.25, source="dialogue", pool=100)
    context = replace(setting(say), plain=QUESTIONS, bound=Bound(1000, ORDER, words, 60))
    (shared,) = method.shared(context)
    assert shared.asks == {"questions": 100, "expected": 27, "samples": 1, "new_tokens": 256,
                           "turns": 2}  # fmt: skip
    found = apply(method, context, tmp_path / "few", QUESTIONS)[0][60:]
    few = len(written)
    every = apply(method, replace(context, bound=None), tmp_path / "all", QUESTIONS)[0][60:]
    assert found == every
    assert len(found) == 20 and few < 40 and len(written) - few == 100


def test_the_prompts_of_the_pool_are_those_of_before() -> None:
    pool = build("replay").options
    asked = _own_answers._prompts(pool, setting(_moody), True)
    texts = [text for _, text in _replay_prompts.prompts(200, True, 1126)]
    assert [one.question for one in asked] == texts


def test_the_samples_of_a_question_lie_side_by_side(tiny_model: Path) -> None:
    from holdfast.engines.hf import HFEngine
    from holdfast.models import ModelRef

    rows: list[tuple[str, int]] = []

    class Seen(HFEngine):
        def _decoded(self, model: Any, asked: Any, sampling: Sampling, progress: Any) -> Any:
            rows.extend((one.id, n) for one, _, n in asked)
            yield from super()._decoded(model, asked, sampling, progress)

    with Seen(ModelRef(str(tiny_model)), "cpu", batch_size=10) as engine:
        few = Sampling(samples=4, temperature=1.0, max_new_tokens=2)
        engine.generate(QUESTIONS[:7], few, None, Silent())
    assert [n for _, n in rows] == [0, 1, 2, 3] * 7
    assert all(len({name for name, _ in rows[i : i + 4]}) == 1 for i in range(0, 28, 4))


def test_a_chunk_of_other_questions_is_asked_for_again(tmp_path: Path) -> None:
    engine = Cut(lambda example, adapter, sample: example.id)
    ask(lambda: engine, QUESTIONS[:3], Sampling(), tmp_path, Silent())
    found = ask(lambda: engine, QUESTIONS[3:5], Sampling(), tmp_path, Silent())
    assert [one.text for one in found] == ["train-3", "train-4"]
