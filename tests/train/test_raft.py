"""Does self-training in rounds learn its own right answers, anew in each round, and go on alike?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast import methods, models
from holdfast.config import ModelSpec, Sampling, Section, TrainSpec
from holdfast.data import chat
from holdfast.data.batching import plain_budget
from holdfast.errors import StudyError, TrainingError
from holdfast.lab.problems import problems
from holdfast.methods import Target
from holdfast.methods._counting import COUNTS
from holdfast.methods._rewards import Rewards
from holdfast.methods.raft import _Kept, _Round, _Rounds
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.runs import store
from holdfast.tasks import Task
from holdfast.tasks._targets import Targets, named
from holdfast.train import data
from holdfast.train.job import TrainJob
from holdfast.train.method_trainer import prompt_order, train_with
from holdfast.types import Example, Message, Reading, Reply, Verdict

SPEC = TrainSpec(
    optim="adamw_torch", learning_rate=1e-2, micro_batch_size=2, gradient_accumulation_steps=2,
    gradient_checkpointing=False, logging_steps=1,
)  # fmt: skip
STEPS, PER_STEP, SAMPLES, DRAWN = 4, 4, 3, 64
Marks = Callable[[Reply], float | None]


class Marked(Task):
    """Marks answers by a rule that a test gives."""

    Options = Section

    def __init__(self, mark: Marks) -> None:
        super().__init__(Section())
        self.plugin, self.mark = "marked", mark

    def examples(self, split: str) -> list[Example]:
        return _examples()

    def grade(self, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
        return Reading(example.id, reply.sample, self.mark(reply), "marked")


def _even(reply: Reply) -> float:
    return float(len(reply.text) % 2 == 0)


def _examples(count: int = 16) -> list[Example]:
    return [
        Example(f"p{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems("train", count, (1, 2)))
    ]


def _raft(**options: Any) -> Any:
    given = {"rounds": 2, "samples": SAMPLES, "max_new_tokens": DRAWN} | options
    return methods.build("raft", given, "study.yaml", "arms.a.loss")


@pytest.fixture()
def ref() -> ModelRef:
    """The lab's model, whose answers come to an end."""
    return models.reference(ModelSpec(id=models.LAB))


def _job(ref: ModelRef, folder: Path) -> TrainJob:
    costs = [row.cost for row in data.encode_all(ref, _examples(), SPEC)[0]]
    budget = plain_budget(costs, STEPS, SPEC.accumulation, SPEC.per_device_train_batch_size)
    return TrainJob(ref, SPEC, budget, seed=7, save_at=(2, 4), folder=folder, device="cpu")


def _train(
    ref: ModelRef, folder: Path, method: Any, mark: Marks = _even, progress: Any = None
) -> dict[str, Any]:
    target = Target(Marked(mark), Sampling())
    job = _job(ref, folder)
    return dict(train_with(method, job, _examples(), None, progress or Silent(), None, target))


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "adapter_model.safetensors"))


def test_each_round_learns_right_answers_to_its_own_questions(
    ref: ModelRef, tmp_path: Path
) -> None:
    marked: list[Reply] = []

    def mark(reply: Reply) -> float:
        marked.append(reply)
        return _even(reply)

    spent = _train(ref, tmp_path, _raft(), mark)
    marked = [one for one in marked if one.text not in {e.target for e in _examples()}]
    tokenizer = models.load_tokenizer(ref)
    order = prompt_order(*data.encode_all(ref, _examples(), SPEC)[:2], _job(ref, tmp_path))
    drawn = learned = 0
    for number, rows in enumerate(_files(tmp_path)):
        about, *kept = rows
        some = [_examples()[at] for at in order[number * 8 : number * 8 + 8]]
        assert about["asked"] == 8 and about["answers"] == 8 * SAMPLES
        prompts = [chat.asked_ids(tokenizer, one) for one in some]
        right = {one.text for one in marked if one.finish == "stop" and _even(one)}
        assert 0 < about["right"] == len(kept) <= 8
        for row in kept:
            assert row["ids"][: row["start"]] in prompts
            assert row["ids"][-1] == tokenizer.eos_token_id
            said = tokenizer.decode(row["ids"][row["start"] :], skip_special_tokens=True)
            assert said in right
        drawn += about["drawn"]
    steps = [row for _, row in store.read_objects(tmp_path / COUNTS)]
    learned = sum(row["supervised_tokens"] for row in steps)
    assert [row["generated_tokens"] > 0 for row in steps] == [True, False, True, False]
    assert spent["generated_tokens"] == drawn > spent["supervised_tokens"] == learned > 0
    prompts_read = sum(row["prompt_tokens"] for row in steps)
    assert spent["tokens"] == prompts_read + learned


def _files(folder: Path) -> list[list[dict[str, Any]]]:
    return [
        [json.loads(line) for line in (folder / f"round-{n}.jsonl").read_text().splitlines()]
        for n in range(2)
    ]


class Killed(Exception):
    """Stands for the power cut."""


class DiesAt(Silent):
    def __init__(self, step: int) -> None:
        self.left = step

    def advance(self, amount: int = 1) -> None:
        self.left -= amount
        if self.left <= 0:
            raise Killed


@pytest.mark.parametrize("at", [3, 4])
def test_a_killed_run_ends_in_the_same_weights(ref: ModelRef, tmp_path: Path, at: int) -> None:
    import torch

    whole = _train(ref, tmp_path / "whole", _raft())
    with pytest.raises(Killed):
        _train(ref, tmp_path / "cut", _raft(), progress=DiesAt(at))
    assert _train(ref, tmp_path / "cut", _raft()) == whole
    one, two = (_weights(tmp_path / name / "checkpoint-4") for name in ("whole", "cut"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert _files(tmp_path / "whole") == _files(tmp_path / "cut")


def test_later_rounds_are_drawn_from_later_weights(ref: ModelRef, tmp_path: Path) -> None:
    """One round or two: the first half of the questions gets the same answers, the rest others."""
    _train(ref, tmp_path / "two", _raft())
    _train(ref, tmp_path / "one", _raft(rounds=1))
    text = (tmp_path / "one" / "round-0.jsonl").read_text().splitlines()[1:]
    first, second = ((tmp_path / "two" / f"round-{n}.jsonl").read_text().splitlines()[1:]
                     for n in range(2))  # fmt: skip
    assert text[: len(first)] == first
    assert text[len(first) :] != second


def test_a_round_without_a_right_answer_stops_the_run(ref: ModelRef, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match="round 1 of 2 found no right answer among 24 answers"
    ) as caught:
        _train(ref, tmp_path, _raft(), lambda reply: 0.0)
    assert "samples" in str(caught.value.remedy)
    with pytest.raises(StudyError, match="5 rounds need as many"):
        _raft(rounds=5).check_steps(4)


def test_what_it_is() -> None:
    method = _raft()
    assert method.own_trainer and method.graded and method.resumable
    assert "2 rounds" in method.recipe()
    assert method.identity() != _raft(rounds=3).identity()
    assert method.overhead().generated_tokens == DRAWN
    assert _raft(samples=5).overhead().drawn == 5 and method.overhead().answers == 1


def test_several_targets_are_learned_in_the_shares_in_which_they_are_asked() -> None:
    """One right answer of a target counts as much as nine of another's."""
    targets = Targets({"a": Marked(_even), "b": Marked(_even)})
    examples = [named("ab"[i % 4 == 3], one) for i, one in enumerate(_examples())]
    kept = [_Kept([i], 0, "a") for i in range(9)] + [_Kept([99], 0, "b")]
    rounds: Any = object.__new__(_Rounds)
    rounds.lesson = SimpleNamespace(order=[*range(16)], steps=4, examples=examples, seed=1)
    rounds.options = SimpleNamespace(rounds=1)
    rounds.grader = Rewards(Target(targets, Sampling()), Path())
    rounds.known = {0: _Round(kept, 0, 16, 16)}
    dealt = rounds._dealt(0, 0, 16)
    assert [one.target for one in dealt] == [targets.target_of(one) for one in examples]
    assert [one for n in range(4) for one in rounds._dealt(0, 4 * n, 4)] == dealt
    assert len({one.ids[0] for one in dealt if one.target == "a"}) == 9, "all before one again"
