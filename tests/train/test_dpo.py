"""Does preference for one's own right answers pair, encode, learn and go on as it says?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast import methods, models
from holdfast.config import ModelSpec, Sampling, Section, TrainSpec
from holdfast.data import chat
from holdfast.data.batching import plain_budget
from holdfast.data.leakage import LeakIndex
from holdfast.errors import DataError, StudyError, TrainingError
from holdfast.methods import MethodContext
from holdfast.methods._counting import COUNTS
from holdfast.methods.dpo import REJECTED
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.runs import store
from holdfast.tasks import Task
from holdfast.train import data
from holdfast.train.job import TrainJob
from holdfast.train.method_trainer import train_with
from holdfast.types import Example, Message, Reading, Reply, Verdict

SPEC = TrainSpec(
    optim="adamw_torch", learning_rate=1e-2, micro_batch_size=2, gradient_accumulation_steps=2,
    gradient_checkpointing=False, logging_steps=1,
)  # fmt: skip
STEPS, PER_STEP = 4, 4


class Marked(Task):
    """Right is what ends in the word that the question ends in."""

    Options = Section

    def __init__(self) -> None:
        super().__init__(Section())
        self.plugin = "marked"

    def examples(self, split: str) -> list[Example]:
        return []

    def grade(self, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
        right = reply.text.split()[-1:] == [example.target]
        return Reading(example.id, reply.sample, float(right), "marked")


def _questions(count: int = 6) -> list[Example]:
    return [Example(f"q{n}", (Message("user", f"How many is {n}?"),), str(n)) for n in range(count)]


def _dpo(**options: Any) -> Any:
    given = {"samples": 4} | options
    return methods.build("dpo", given, "study.yaml", "arms.a.loss")


class Context(MethodContext):
    """Gives replies that a test wrote, instead of asking a model."""

    def ask(self, examples: Any, sampling: Any, folder: Any, progress: Any, name: Any) -> Any:
        return list(SAID)


SAID: Sequence[Reply] = ()


def _context(task: Task | None = None) -> MethodContext:
    return Context(
        task or Marked(), _questions(), Sampling(), lambda: None,  # type: ignore[arg-type,return-value]
        LeakIndex([]), 7,
    )  # fmt: skip


def _made(method: Any, replies: list[Reply], folder: Path) -> list[Example]:
    global SAID
    SAID = replies
    (work,) = method.shared(_context())
    place = folder / work.name
    place.mkdir(parents=True)
    summary = work.run(place, Silent())
    store.write_json(place / "record.json", {"summary": dict(summary)})
    examples, notes = method.apply(_questions(), _context(), {work.name: place})
    assert notes == [summary["note"]]
    return list(examples)


def _reply(name: str, sample: int, text: str, finish: str = "stop", tokens: int = 3) -> Reply:
    return Reply(name, sample, text, finish, tokens)  # type: ignore[arg-type]


REPLIES = [
    _reply("q0", 0, "I say 0"), _reply("q0", 1, "I say 9"), _reply("q0", 2, "it is 0"),
    _reply("q0", 3, "it is 8"),
    _reply("q1", 0, "1"), _reply("q1", 1, "1"),  # only right
    _reply("q2", 0, "7"), _reply("q2", 1, "8"),  # only wrong
    _reply("q3", 0, "3"), _reply("q3", 1, "I say", "length"),  # unfinished is not wrong
    _reply("q4", 0, "4", tokens=2), _reply("q4", 1, "no no no 5", tokens=9),  # too long
    _reply("q4", 2, "6", tokens=2),
]  # fmt: skip


def test_pairs_are_of_one_question_and_no_longer_than_what_is_right(tmp_path: Path) -> None:
    found = _made(_dpo(), REPLIES, tmp_path / "a")
    pairs = {one.id: (one.target, one.meta[REJECTED]["target"]) for one in found}
    assert pairs == {"q0": ("I say 0", "I say 9"), "q4": ("4", "6")}
    several = _made(_dpo(pairs=2), REPLIES, tmp_path / "b")
    assert [one.id for one in several] == ["q0", "q0/1", "q4"]
    with pytest.raises(DataError, match="no question has both"):
        _made(_dpo(), REPLIES[4:8], tmp_path / "c")


def test_what_cannot_be_is_refused() -> None:
    from holdfast import judges

    task = Marked()
    task.judge = judges.build("refusal")
    with pytest.raises(DataError, match="asks a judge"):
        _dpo().check(_context(task))
    with pytest.raises(StudyError, match="twice the pairs"):
        _dpo(pairs=3)
    _dpo().check(_context())


@pytest.fixture()
def ref() -> ModelRef:
    return models.reference(ModelSpec(id=models.LAB))


def _pairs() -> list[Example]:
    return [
        replace(one, target=f"The answer is #### {n}",
                meta={REJECTED: {"target": f"Well, so #### {n + 1}", "extra": {}}})
        for n, one in enumerate(_questions(12))
    ]  # fmt: skip


def _train(
    ref: ModelRef, folder: Path, method: Any, progress: Any = None, examples: Any = None
) -> dict[str, Any]:
    some = _pairs() if examples is None else examples
    costs = [row.cost for row in data.encode_all(ref, some, SPEC)[0]]
    budget = plain_budget(costs, STEPS, SPEC.accumulation, SPEC.per_device_train_batch_size)
    job = TrainJob(ref, SPEC, budget, seed=7, save_at=(2, 4), folder=folder, device="cpu")
    return dict(train_with(method, job, some, None, progress or Silent()))


def _watched(method: Any, caught: list[Any]) -> Any:
    make = method.trainer

    def watched(lesson: Any) -> Any:
        trainer = make(lesson)
        compute = trainer._compute_loss

        def computing(model: Any, inputs: Any, outputs: Any) -> Any:
            found = compute(model, inputs, outputs)
            caught.append((dict(inputs), float(found.detach()), model, lesson))
            return found

        trainer._compute_loss = computing
        return trainer

    method.trainer = watched
    return method


@pytest.mark.parametrize("sft", [0.0, 1.0])
def test_the_loss_is_that_of_the_paper_on_our_tokens(
    ref: ModelRef, tmp_path: Path, sft: float
) -> None:
    """The first micro-batch: the model is the base, so -log sigmoid(0); and the cross-entropy."""
    import torch

    caught: list[Any] = []
    spent = _train(ref, tmp_path, _watched(_dpo(sft=sft), caught))
    inputs, loss, model, lesson = caught[0]
    tokenizer = models.load_tokenizer(ref)
    order = [_pairs()[place] for place in lesson.order[:2]]
    for row, one in enumerate([*order, *order]):
        target = one.target if row < 2 else one.meta[REJECTED]["target"]
        whole = chat.encode(
            tokenizer, replace(one, target=target), frozenset({tokenizer.eos_token_id})
        )
        mask = inputs["attention_mask"][row].bool()
        assert inputs["input_ids"][row][mask].tolist() == list(whole.ids)
        learned = inputs["completion_mask"][row][mask].tolist()
        assert learned == [0] * whole.start + [1] * (len(whole.ids) - whole.start)
    wanted = math.log(2.0)
    if sft:
        with torch.no_grad(), model.disable_adapter():
            logits = model(
                input_ids=inputs["input_ids"][:2], attention_mask=inputs["attention_mask"][:2]
            ).logits[:, :-1].log_softmax(-1)  # fmt: skip
        ids, mask = inputs["input_ids"][:2, 1:], inputs["completion_mask"][:2, 1:].bool()
        wanted -= sft * float(logits.gather(-1, ids.unsqueeze(-1)).squeeze(-1)[mask].mean())
    assert loss == pytest.approx(wanted, abs=1e-4)
    assert spent["loss"][-1][1] < spent["loss"][0][1], "it learns to prefer"
    steps = [row for _, row in store.read_objects(tmp_path / COUNTS)]
    assert len(steps) == STEPS and spent["generated_tokens"] == 0
    assert spent["reference_tokens"] == spent["tokens"]
    assert spent["supervised_tokens"] == sum(row["supervised_tokens"] for row in steps) > 0


class Killed(Exception):
    """Stands for the power cut."""


class DiesAt(Silent):
    def __init__(self, step: int) -> None:
        self.left = step

    def advance(self, amount: int = 1) -> None:
        self.left -= amount
        if self.left <= 0:
            raise Killed


def test_a_killed_run_ends_in_the_same_weights(ref: ModelRef, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    whole = _train(ref, tmp_path / "whole", _dpo())
    with pytest.raises(Killed):
        _train(ref, tmp_path / "cut", _dpo(), DiesAt(4))
    assert _train(ref, tmp_path / "cut", _dpo()) == whole
    one, two = (load_file(tmp_path / name / "checkpoint-4" / "adapter_model.safetensors")
                for name in ("whole", "cut"))  # fmt: skip
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    assert not any(path.is_dir() for path in (tmp_path / "whole" / "checkpoint-4").iterdir())


def test_examples_that_are_no_pairs_are_refused(ref: ModelRef, tmp_path: Path) -> None:
    plain = [replace(one, meta={}) for one in _pairs()]
    with pytest.raises(TrainingError, match="no wrong answer beside"):
        _train(ref, tmp_path, _dpo(), examples=plain)


def test_what_it_is() -> None:
    method = _dpo(sft=1.0)
    overhead = method.overhead()
    assert (overhead.rows, overhead.kept, overhead.second_pass) == (2, 1, True)
    assert method.own_trainer and method.resumable and not method.graded
    assert "cross-entropy by 1" in method.recipe()
    names = {one.shared(_context())[0].name for one in (_dpo(), _dpo(beta=0.5), _dpo(pairs=2))}
    assert len(names) == 2, "arms that differ in beta alone share their pairs"
