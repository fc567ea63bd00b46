"""Does reinforcement by the task's grader draw, mark, count, stop and go on as it says?"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast import methods, models
from holdfast.config import LoraSpec, Sampling, Section, TrainSpec
from holdfast.data import chat
from holdfast.data.batching import plain_budget
from holdfast.data.leakage import LeakIndex
from holdfast.engines.hf import HFEngine
from holdfast.engines.live import Live
from holdfast.errors import DataError, StudyError, TrainingError
from holdfast.lab.problems import problems
from holdfast.methods import MethodContext, Target
from holdfast.methods._counting import COUNTS
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.runs import store
from holdfast.runs.records import REWARDS
from holdfast.tasks import Task
from holdfast.train import data
from holdfast.train.job import Graded, TrainJob, read_job, write_job
from holdfast.train.method_trainer import train_with
from holdfast.types import Example, Message, Reading, Reply, Verdict

SPEC = TrainSpec(
    optim="adamw_torch", learning_rate=1e-2, micro_batch_size=2, gradient_accumulation_steps=2,
    gradient_checkpointing=False, logging_steps=1,
)  # fmt: skip
STEPS, PER_STEP, GROUP, DRAWN = 4, 4, 4, 5
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


def _examples(count: int = 12) -> list[Example]:
    return [
        Example(f"p{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems("train", count, (1, 2)))
    ]


def _grpo(**options: Any) -> Any:
    given = {"group": GROUP, "max_new_tokens": DRAWN} | options
    return methods.build("grpo", given, "study.yaml", "arms.a.loss")


def _train(
    ref: ModelRef, folder: Path, method: Any, mark: Marks = _even, spec: TrainSpec = SPEC,
    progress: Any = None, plan: Any = None,
) -> dict[str, Any]:  # fmt: skip
    job = TrainJob(
        ref, spec, _budget(ref), seed=7, save_at=(2, 4), folder=folder, device="cpu", plan=plan
    )
    target = Target(Marked(mark), Sampling())
    return dict(train_with(method, job, _examples(), None, progress or Silent(), None, target))


@pytest.fixture()
def ref(tiny_model: Path) -> ModelRef:
    return ModelRef(str(tiny_model))


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "adapter_model.safetensors"))


def test_a_run_counts_what_is_drawn_and_earned(ref: ModelRef, tmp_path: Path) -> None:
    spent = _train(ref, tmp_path, _grpo())
    assert (spent["steps"], spent["examples_seen"]) == (STEPS, STEPS * PER_STEP)
    steps = [row for _, row in store.read_objects(tmp_path / COUNTS)]
    earned = [row for _, row in store.read_objects(tmp_path / REWARDS)]
    assert [row["step"] for row in earned] == [1, 2, 3, 4]
    assert all(row["answers"] == PER_STEP * GROUP and row["groups"] == PER_STEP for row in earned)
    assert sum(row["mixed"] for row in earned) > 0
    assert all(0 <= row["never"] <= row["groups"] - row["mixed"] for row in earned)
    assert spent["generated_tokens"] == sum(row["generated_tokens"] for row in steps)
    assert spent["supervised_tokens"] == spent["generated_tokens"]
    assert 0 < spent["generated_tokens"] <= STEPS * PER_STEP * GROUP * DRAWN
    asked = sum(row["prompt_tokens"] for row in steps)
    assert spent["tokens"] == asked + spent["generated_tokens"]
    assert spent["reference_tokens"] == 0
    log = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [row["reward"] for row in log if "reward" in row] == pytest.approx(
        [row["reward"] for row in earned]
    )
    one, other = (_weights(tmp_path / f"checkpoint-{step}") for step in (2, 4))
    assert any(not values.equal(other[name]) for name, values in one.items())


class Killed(Exception):
    """Stands for the power cut."""


class DiesAt(Silent):
    def __init__(self, step: int) -> None:
        self.left = step

    def advance(self, amount: int = 1) -> None:
        self.left -= amount
        if self.left <= 0:
            raise Killed


@pytest.mark.parametrize("options", [{}, {"beta": 0.1, "loss_type": "dr_grpo"}])
def test_a_killed_run_ends_in_the_same_weights(
    ref: ModelRef, tmp_path: Path, options: dict[str, Any]
) -> None:
    import torch

    whole = _train(ref, tmp_path / "whole", _grpo(**options))
    with pytest.raises(Killed):
        _train(ref, tmp_path / "cut", _grpo(**options), progress=DiesAt(4))
    assert _train(ref, tmp_path / "cut", _grpo(**options)) == whole
    one, two = (_weights(tmp_path / name / "checkpoint-4") for name in ("whole", "cut"))
    assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)
    rows = [(tmp_path / name / REWARDS).read_text() for name in ("whole", "cut")]
    assert rows[0] == rows[1]
    assert not (tmp_path / "whole" / "checkpoint-4" / "ref").exists()
    if options:
        assert whole["reference_tokens"] == whole["tokens"]


def test_the_answers_are_those_of_the_engine_that_measures(ref: ModelRef) -> None:
    """Same weights, question and seed: word for word what `HFEngine` says; dropout is off."""
    import torch
    from peft import LoraConfig, get_peft_model

    sampling = Sampling(max_new_tokens=6, temperature=1.0, samples=3, seed=5)
    with HFEngine(ref, "cpu", "float32") as engine:
        wanted = [reply for some in engine.generate(_examples(3), sampling, None, Silent())
                  for reply in some]  # fmt: skip
    model = get_peft_model(
        models.load_model(ref, torch.float32, "cpu"),
        LoraConfig(r=2, target_modules=["q_proj"], lora_dropout=0.5, task_type="CAUSAL_LM"),
    ).train()
    tokenizer = models.load_tokenizer(ref)
    asked = [(one, chat.asked_ids(tokenizer, one), n) for one in _examples(3) for n in range(3)]
    said = Live(model, tokenizer, 2).answers(asked, sampling)
    assert [one.reply for one in said] == wanted
    assert model.training
    batches = Live(model, tokenizer, 2)
    batches._unsuited = "a test"
    assert [one.reply for one in batches.answers(asked, sampling)] == wanted


@pytest.mark.parametrize("loss_type", ["grpo", "dapo", "dr_grpo"])
def test_the_loss_is_that_of_the_papers(ref: ModelRef, tmp_path: Path, loss_type: str) -> None:
    """TRL's loss of one step, by an independent computation from log-probabilities."""
    import torch

    method = _grpo(loss_type=loss_type, scale_rewards="none" if loss_type == "dr_grpo" else "group")
    caught: list[dict[str, Any]] = []
    losses: list[float] = []
    make = method.trainer

    def watched(lesson: Any) -> Any:
        trainer = make(lesson)
        compute = trainer._compute_loss

        def computing(model: Any, inputs: Any) -> Any:
            logits = model(
                input_ids=torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], 1),
                attention_mask=torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], 1),
            ).logits.detach()
            caught.append({**inputs, "logits": logits})
            found = compute(model, inputs)
            losses.append(float(found.detach()))
            return found

        trainer._compute_loss = computing
        return trainer

    method.trainer = watched
    spec = SPEC.model_copy(update={"lora": LoraSpec(dropout=0.0)})
    _train(ref, tmp_path, method, spec=spec)
    first = PER_STEP * GROUP // SPEC.per_device_train_batch_size
    every = sum(int(one["completion_mask"].sum()) for one in caught[:first])
    for one, loss in zip(caught[:first], losses, strict=False):
        wide = one["completion_ids"].shape[1]
        chances = one["logits"][:, -wide - 1 : -1].log_softmax(-1)
        logps = chances.gather(-1, one["completion_ids"].unsqueeze(-1)).squeeze(-1)
        assert torch.isfinite(logps).all()
        mask, gain = one["completion_mask"].float(), one["advantages"].unsqueeze(1)
        each = -gain * torch.ones_like(mask)  # the ratio is 1: the answers are the model's own
        by_answer = float(((each * mask).sum(1) / mask.sum(1)).mean()) / first
        wanted = {
            "grpo": by_answer,
            "dapo": float((each * mask).sum()) / every,
            "dr_grpo": float((each * mask).sum()) / (len(mask) * DRAWN) / first,
        }[loss_type]
        assert math.isclose(loss, wanted, abs_tol=1e-5)


def test_advantages_are_of_the_group(ref: ModelRef, tmp_path: Path) -> None:
    """One group of 4: reward 1 for even lengths; (reward - mean) / spread, and the form beside."""
    marks: list[float] = []

    def mark(reply: Reply) -> float:
        marks.append(_even(reply))
        return marks[-1]

    method, seen = _grpo(format="a", format_weight=0.5), []
    make = method.trainer

    def watched(lesson: Any) -> Any:
        trainer = make(lesson)
        score = trainer._generate_and_score_completions

        def scoring(inputs: Any) -> Any:
            found = score(inputs)
            texts = lesson.tokenizer.batch_decode(found["completion_ids"], skip_special_tokens=True)
            seen.append((texts, found["advantages"].tolist()))
            return found

        trainer._generate_and_score_completions = scoring
        return trainer

    method.trainer = watched
    _train(ref, tmp_path, method, mark)
    texts, advantages = seen[0]
    for start in range(0, PER_STEP * GROUP, GROUP):
        earned = [
            marks[at] + 0.5 * ("a" in texts[at]) for at in range(start, start + GROUP)
        ]  # fmt: skip
        mean = sum(earned) / GROUP
        spread = math.sqrt(sum((one - mean) ** 2 for one in earned) / (GROUP - 1))
        wanted = [(one - mean) / (spread + 1e-4) for one in earned]
        assert advantages[start : start + GROUP] == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    ("mark", "message"),
    [
        (lambda reply: 0.0, "always 0 "),
        (lambda reply: 1.0, "always 1 "),
        (lambda reply: float(reply.example_id in {"p1", "p2", "p3"}), "the same for every answer"),
        (lambda reply: None, "no answer could be scored"),
    ],
)
def test_a_reward_that_never_differs_stops_the_run(
    ref: ModelRef, tmp_path: Path, mark: Marks, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("holdfast.methods.grpo.TRIED", 2 * PER_STEP * GROUP)
    with pytest.raises(TrainingError, match=message) as caught:
        _train(ref, tmp_path, _grpo(), mark)
    assert caught.value.remedy
    assert [row["step"] for _, row in store.read_objects(tmp_path / REWARDS)] == [1, 2]


def test_a_short_run_is_stopped_at_its_end(ref: ModelRef, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=f"{STEPS * PER_STEP * GROUP} answers were tried"):
        _train(ref, tmp_path, _grpo(), lambda reply: 0.0)


def test_several_steps_on_the_same_answers(ref: ModelRef, tmp_path: Path) -> None:
    """The reference reads each drawing once, the model too; only its questions are seen."""
    import torch

    method = _grpo(iterations=2, epsilon=0.1, epsilon_high=0.3, beta=0.1)
    readings: list[int] = []
    again: list[int] = []
    make = method.trainer

    def watched(lesson: Any) -> Any:
        trainer = make(lesson)
        score = trainer._get_per_token_logps_and_entropies

        def scoring(model: Any, *given: Any, **named: Any) -> Any:
            found = score(model, *given, **named)
            if getattr(model, "active_adapters", ["default"]) != ["default"]:
                readings.append(trainer.state.global_step)
            elif not torch.is_grad_enabled():
                again.append(trainer.state.global_step)
            return found

        trainer._get_per_token_logps_and_entropies = scoring
        return trainer

    method.trainer = watched
    spent = _train(ref, tmp_path, method)
    assert set(readings) == set(again) == {0, 2}, "of the steps that are over by then"
    counted = [row for _, row in store.read_objects(tmp_path / COUNTS)]
    assert [bool(row["reference_tokens"]) for row in counted] == [True, False, True, False]
    assert spent["reference_tokens"] == spent["tokens"], "half of them, read twice"
    assert spent["examples_seen"] == STEPS * PER_STEP // 2
    assert [row["step"] for _, row in store.read_objects(tmp_path / REWARDS)] == [1, 3]
    assert spent["supervised_tokens"] == 2 * spent["generated_tokens"]
    assert not method.resumable and _grpo().resumable
    with pytest.raises(StudyError, match="no multiple"):
        method.check_steps(5)


@pytest.mark.parametrize(
    "options",
    [{"epsilon": 0.1}, {"format_weight": 0.1}, {"format": "("}, {"group": 1}, {"beta": -1}],
)
def test_settings_without_effect_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(StudyError, match="grpo"):
        _grpo(**options)


def _context(task: Task, plain: list[Example] | None = None, seen: int = 16) -> MethodContext:
    return MethodContext(
        task, _examples() if plain is None else plain, Sampling(), lambda: None,  # type: ignore[arg-type,return-value]
        LeakIndex([]), 7, seen=seen,
    )  # fmt: skip


def test_a_task_that_cannot_reward_is_refused_before_anything_runs() -> None:
    _grpo().check(_context(Marked(lambda reply: 1.0)))
    for mark, message in ((lambda reply: None, "no value"), (lambda reply: 0.0, "no credit")):
        with pytest.raises(StudyError, match=message):
            _grpo().check(_context(Marked(mark)))
    text = [Example("t", (), "plain text")]
    with pytest.raises(DataError, match="plain text"):
        _grpo().check(_context(Marked(_even), text))
    with pytest.raises(StudyError, match="asks no judge"):
        _grpo(judged=10).check(_context(Marked(_even)))


def test_a_judge_needs_a_cap_that_suffices() -> None:
    from holdfast import judges

    task = Marked(_even)
    task.judge = judges.build("refusal")  # rules cost nothing
    _grpo().check(_context(task))
    settings = {"url": "http://localhost:1", "model": "m", "format": "yes_no"}
    task.judge = judges.build({"remote": settings})
    for options, message in (({}, "no cap is set"), ({"judged": 63}, "the cap is 63")):
        with pytest.raises(StudyError, match=message):
            _grpo(**options).check(_context(task))
    _grpo(judged=64).check(_context(task))
    task.judge = judges.build("qwen3guard")
    with pytest.raises(StudyError, match="beside the model that trains"):
        _grpo(judged=64).check(_context(task))


def test_what_it_cannot_train_is_refused() -> None:
    with pytest.raises(StudyError, match="lm_head"):
        _grpo().check_training(
            SPEC.model_copy(update={"lora": LoraSpec(target_modules=("q_proj", "lm_head"))})
        )
    with pytest.raises(StudyError, match="corda does not allow"):
        _grpo(beta=0.1).check_training(SPEC.model_copy(update={"lora": LoraSpec(variant="corda")}))


def test_answers_that_would_not_fit_are_refused(ref: ModelRef, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="the model reads 512 in all"):
        _train(ref, tmp_path, _grpo(max_new_tokens=500))


def test_identity_and_memory() -> None:
    assert _grpo().identity() != _grpo(group=6).identity()
    overhead = _grpo(beta=0.1).overhead()
    assert (overhead.generated_tokens, overhead.answers, overhead.kept) == (DRAWN, GROUP, 1)
    assert overhead.second_pass and not _grpo().overhead().second_pass
    assert _grpo().own_trainer and _grpo().graded and "4 answers" in _grpo().recipe()


def test_a_job_carries_its_grader(tmp_path: Path, ref: ModelRef) -> None:
    from holdfast.config import TaskSpec

    spec = TaskSpec(role="target", items=4)  # type: ignore[call-arg]
    graded = Graded({"lab_math": spec}, Sampling(max_new_tokens=9, stop=("Q:",)))
    job = TrainJob(ref, SPEC, _budget(ref), 7, (2,), tmp_path, graded=graded)
    write_job(job, tmp_path / "job.json")
    found = read_job(tmp_path / "job.json")
    assert found.graded == job.graded
    assert replace(found, graded=None, train=job.train) == replace(job, graded=None)


def _budget(ref: ModelRef) -> Any:
    costs = [row.cost for row in data.encode_all(ref, _examples(), SPEC)[0]]
    return plain_budget(costs, STEPS, 2, 2)
