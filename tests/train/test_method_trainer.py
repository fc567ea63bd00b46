"""Do trainers that methods bring themselves get what we say, at our budget, and count tokens?"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast import methods, models
from holdfast.config import LoraSpec, TrainSpec
from holdfast.data import chat
from holdfast.data.batching import Budget, deal, plain_budget
from holdfast.data.chat import IGNORED
from holdfast.errors import StudyError, TrainingError
from holdfast.lab.problems import problems
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.methods import Lesson, gkd
from holdfast.methods._counting import COUNTS, TokenCounts
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.runs import store
from holdfast.train import data
from holdfast.train.arguments import trainer_arguments
from holdfast.train.job import TrainJob
from holdfast.train.meters import Meters
from holdfast.train.method_trainer import SHARED, prompt_order, quiet, train_with
from holdfast.types import Example, Message

SPEC = TrainSpec(
    optim="adamw_torch", learning_rate=1e-2, micro_batch_size=2, gradient_accumulation_steps=2,
    gradient_checkpointing=False, logging_steps=1,
)  # fmt: skip
STEPS, PER_STEP, DRAWN = 4, 4, 4
OPTIONS: dict[str, dict[str, Any]] = {
    "sdft": {"max_new_tokens": DRAWN},
    "gkd": {"max_new_tokens": DRAWN, "lmbda": 0.5},
}


def _examples(count: int = 12) -> list[Example]:
    return [
        Example(f"p{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems("train", count, (1, 2)))
    ]


def _method(name: str, **options: Any) -> Any:
    return methods.build(name, OPTIONS[name] | options, "study.yaml", "arms.a.loss")


def _distill(
    ref: ModelRef, folder: Path, method: Any, spec: TrainSpec = SPEC, **more: Any
) -> dict[str, Any]:
    examples = more.pop("examples", _examples())
    encoded, _, _ = data.encode_all(ref, _examples(), spec)
    costs = [row.cost for row in encoded]
    budget = plain_budget(costs, STEPS, spec.accumulation, spec.per_device_train_batch_size)
    meters, progress = more.pop("meters", None), more.pop("progress", Silent())
    job = replace(_job(ref, folder, budget, spec), **more)
    return dict(train_with(method, job, examples, meters, progress))


def _job(ref: ModelRef, folder: Path, budget: Budget, spec: TrainSpec = SPEC) -> TrainJob:
    return TrainJob(ref, spec, budget, seed=7, save_at=(2, 4), folder=folder, device="cpu")


@pytest.fixture()
def ref(tiny_model: Path) -> ModelRef:
    return ModelRef(str(tiny_model))


@pytest.fixture(scope="session")
def other_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same vocabulary that says other things, as a teacher."""
    import torch
    from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("other-model")
    torch.manual_seed(1)
    LlamaForCausalLM(AutoConfig.from_pretrained(tiny_model)).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return dict(load_file(folder / "adapter_model.safetensors"))


def _logits(ref: ModelRef, adapter: Path | None, wrap: Any = None) -> Any:
    import torch
    from peft import PeftModel

    model = models.load_model(ref, torch.float32, "cpu")
    if adapter is not None:
        model = PeftModel.from_pretrained(model, adapter)
    ids = torch.arange(5, 25).unsqueeze(0)
    with torch.no_grad():
        return (wrap(model) if wrap else model)(input_ids=ids).logits


@pytest.mark.parametrize("name", ["sdft", "gkd"])
def test_a_run_of_either_trainer(
    ref: ModelRef, other_model: Path, tmp_path: Path, name: str
) -> None:
    import torch

    more = {"teacher": str(other_model)} if name == "gkd" else {}
    spent = _distill(ref, tmp_path, _method(name, **more))
    assert set(spent) == {
        "steps", "stopped_at", "supervised_tokens", "tokens", "reference_tokens",
        "generated_tokens", "examples_seen", "trainable_parameters", "device", "loss", "memory",
        "recomputed",
    }  # fmt: skip
    assert (spent["steps"], spent["examples_seen"]) == (STEPS, STEPS * PER_STEP)
    assert [step for step, _ in spent["loss"]] == [1, 2, 3, 4]
    assert all(0 < loss < 100 for _, loss in spent["loss"])
    kept = json.loads((tmp_path / "summary.json").read_text())
    assert {**spent, "seal": kept["seal"]} == kept
    steps = [one for _, one in store.read_objects(tmp_path / COUNTS)]
    assert sum(one["generated_tokens"] for one in steps) == spent["generated_tokens"]
    assert 0 < spent["generated_tokens"] <= STEPS * PER_STEP * DRAWN
    assert spent["tokens"] > spent["supervised_tokens"] >= spent["generated_tokens"]
    if name == "gkd":
        assert spent["reference_tokens"] == spent["tokens"], (
            "the teacher reads what the student does"
        )
    else:
        assert spent["reference_tokens"] > spent["tokens"], "the teacher is shown the answer too"
    for step in (2, 4):
        folder = tmp_path / f"checkpoint-{step}"
        assert (folder / "complete").is_file()
        assert not torch.equal(_logits(ref, folder), _logits(ref, None)), "it learned something"
        assert torch.equal(_logits(ref, folder, gkd.untouched), _logits(ref, None))
    assert not list(tmp_path.rglob("optimizer.pt"))
    assert _distill(ref, tmp_path, _method(name, **more)) == spent, "it is not trained twice"


class Killed(Exception):
    """Stands for the power cut."""


class DiesAt(Silent):
    """A progress that raises after so many steps."""

    def __init__(self, step: int) -> None:
        self.left = step

    def advance(self, amount: int = 1) -> None:
        self.left -= amount
        if self.left <= 0:
            raise Killed


@pytest.mark.parametrize("name", ["sdft", "gkd", "ema"])
def test_a_killed_run_ends_in_the_same_weights(
    ref: ModelRef, other_model: Path, tmp_path: Path, name: str
) -> None:
    import torch

    method = {
        "sdft": lambda: _method("sdft"),
        "gkd": lambda: _method("gkd", teacher=str(other_model)),
        "ema": lambda: _method("sdft", ema=0.5),
    }[name]
    whole = _distill(ref, tmp_path / "whole", method())
    with pytest.raises(Killed):
        _distill(ref, tmp_path / "cut", method(), progress=DiesAt(4))
    assert (tmp_path / "cut" / "checkpoint-2" / "complete").is_file()
    assert _distill(ref, tmp_path / "cut", method()) == whole
    one, two = (_weights(tmp_path / name / "checkpoint-4") for name in ("whole", "cut"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    left = {path.name for path in (tmp_path / "cut" / "checkpoint-4").iterdir()}
    assert "teacher" not in left, "the running mean is no part of what was trained"


def _lesson(ref: ModelRef, folder: Path, examples: list[Example]) -> Lesson:
    encoded, _, _ = data.encode_all(ref, examples, SPEC)
    budget = Budget(2, 2, 1, 2)
    ours = trainer_arguments(SPEC, budget, 7, folder, "cpu", False)
    return Lesson(
        _student(ref), ref, examples, encoded, [3, 0, 2, 1, 5, 4, 7, 6], 2, 2,
        {name: getattr(ours, name) for name in SHARED},
        lambda batch: data.collate(batch, 0), lambda slots: data.dataset(encoded, slots),
        TokenCounts(folder, 0),
    )  # fmt: skip


def _student(ref: ModelRef) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model

    model = models.load_model(ref, torch.float32, "cpu")
    return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))


@pytest.mark.parametrize("name", ["sdft", "gkd"])
def test_trl_gets_our_prompts_in_our_order_and_our_arguments(
    ref: ModelRef, tmp_path: Path, name: str
) -> None:
    examples = _examples(8)
    system = Message("system", "Be brief.")
    examples[3] = replace(examples[3], messages=(system, *examples[3].messages))
    lesson = _lesson(ref, tmp_path, examples)
    tokenizer = models.load_tokenizer(ref)
    with quiet():
        trainer = _method(name).trainer(lesson)
    asked: list[list[int]] = []
    for batch in trainer.get_train_dataloader():
        if name == "sdft":  # a step's prompts come once for each of its two micro-batches
            asked += trainer._tokenize_prompts([one["prompt"] for one in batch])
        else:
            masks = batch["prompt_attention_mask"].bool()
            asked += [ids[mask].tolist() for ids, mask in zip(batch["prompts"], masks, strict=True)]
    if name == "sdft":
        assert asked[:4] == asked[4:8]
        asked = asked[:4] + asked[8:12]
    assert asked == [chat.prompt_ids(tokenizer, examples[i].messages) for i in lesson.order]
    for argument in SHARED:
        assert getattr(trainer.args, argument) == lesson.settings[argument], argument
    assert trainer.args.gradient_accumulation_steps == 2


def test_the_order_is_that_of_the_plain_arm(ref: ModelRef) -> None:
    examples = _examples()
    encoded, _, _ = data.encode_all(ref, examples, SPEC)
    costs = [row.cost for row in encoded]
    plain = plain_budget(costs, 6, 2, 2)
    dealt = [index for slot in deal(costs, ["task"] * 12, plain, 7, True) for index in slot]
    for tokens in (1, plain.supervised_tokens, 9999):  # answers are not what a step is filled by
        budget = replace(plain, supervised_tokens=tokens)
        assert prompt_order(encoded, examples, _job(ref, Path("nowhere"), budget)) == dealt


def test_the_teacher_is_shown_the_answer(ref: ModelRef, tmp_path: Path) -> None:
    """Braces in question and answer are text; a system turn stays where it is."""
    turns = (Message("system", "Be {brief}."), Message("user", "What is {x}?"))
    lesson = _lesson(ref, tmp_path, [Example(f"e{i}", turns, "{2} apples") for i in range(8)])
    shown = "{question} | {{for example}} {answer}"
    with quiet():
        trainer = _method("sdft", demonstration=shown).trainer(lesson)
    row = trainer.train_dataset[0]
    builder = trainer.teacher_context_builder
    assert builder._compose_teacher_prompt(row["prompt"], row["privileged_context"]) == [
        {"role": "system", "content": "Be {brief}."},
        {"role": "user", "content": "What is {x}? | {for example} {2} apples"},
    ]


def test_micro_batches_with_prompts() -> None:
    batch = [
        {"input_ids": [[5, 6, 7, 8], [9, 1]], "labels": [[IGNORED, IGNORED, 7, 8], [IGNORED, 1]]}
    ]
    both = data.collate(batch, 0) | gkd.prompts_of(batch, 0)
    made = {name: value.tolist() for name, value in both.items()}
    assert made == {
        "input_ids": [[5, 6, 7, 8], [9, 1, 0, 0]],
        "labels": [[IGNORED, IGNORED, 7, 8], [IGNORED, 1, IGNORED, IGNORED]],
        "attention_mask": [[1, 1, 1, 1], [1, 1, 0, 0]],
        "prompts": [[5, 6], [0, 9]],
        "prompt_attention_mask": [[1, 1], [0, 1]],
    }


def test_gkd_from_the_base_begins_at_its_teacher(ref: ModelRef, tmp_path: Path) -> None:
    """Student and teacher are the same at first, so there is nothing to learn; and it is said."""
    method = _method("gkd")
    assert _distill(ref, tmp_path, method)["loss"][0] == [1, 0.0]
    assert method.apply(_examples(), None, {})[1] == [gkd.NOTHING_NEW]
    assert _method("gkd", teacher="lab").apply(_examples(), None, {})[1] == []


@pytest.mark.parametrize("lmbda", [0.0, 1.0])
def test_gkd_counts_what_it_compares(
    ref: ModelRef, other_model: Path, tmp_path: Path, lmbda: float
) -> None:
    """And its loss is a mean over just that, however long the gold answers are."""
    spec = SPEC.model_copy(update={"group_by_length": False})
    method = _method("gkd", teacher=str(other_model), lmbda=lmbda)
    spent = _distill(ref, tmp_path / "a", method, spec)
    if lmbda == 0:
        encoded, _, _ = data.encode_all(ref, _examples(), spec)
        gold = [row.cost.supervised for row in encoded]
        order = deal([row.cost for row in encoded], ["task"] * 12,
                     plain_budget([row.cost for row in encoded], 4, 2, 2), 7)  # fmt: skip
        assert spent["generated_tokens"] == 0
        assert spent["supervised_tokens"] == sum(gold[i] for slot in order for i in slot)
        return
    assert spent["supervised_tokens"] == spent["generated_tokens"]
    longer = [replace(one, target=f"{one.target} {one.target}") for one in _examples()]
    assert _distill(ref, tmp_path / "b", method, spec, examples=longer)["loss"] == spent["loss"]


def test_memory_has_no_bearing_on_what_sdft_learns(ref: ModelRef, tmp_path: Path) -> None:
    whole = _distill(ref, tmp_path / "whole", _method("sdft"))
    less = SPEC.model_copy(update={"gradient_checkpointing": True})
    plan = MemoryPlan("cpu", checkpointing=True, micro_batch=3, accumulation=2, dtype="float32")
    cut = _distill(ref, tmp_path / "cut", _method("sdft"), less, plan=plan)
    assert [loss for _, loss in cut["loss"]] == pytest.approx([x for _, x in whole["loss"]], 1e-4)
    assert cut["generated_tokens"] == whole["generated_tokens"]
    skipped = _distill(ref, tmp_path / "skipped", _method("sdft", skip=2, top_k=None))
    assert 0 < skipped["supervised_tokens"] < skipped["generated_tokens"]


def test_a_meter_may_end_it(ref: ModelRef, tmp_path: Path) -> None:
    encoded, _, _ = data.encode_all(ref, _examples(2), SPEC)
    meters = Meters(encoded, {"cross_entropy": 0.0}, tmp_path)
    spent = _distill(ref, tmp_path, _method("sdft"), meters=meters)
    assert (spent["steps"], spent["stopped_at"], spent["examples_seen"]) == (2, 2, 2 * PER_STEP)
    assert [path.name for path in tmp_path.glob("checkpoint-*")] == ["checkpoint-2"]


SPLIT = MemoryPlan("split", gpus=(0, 1))


@pytest.mark.parametrize(
    ("changes", "more", "mark", "message"),
    [
        ({}, {"plan": SPLIT}, {}, "trains on one device"),
        ({"method": "full"}, {}, {}, "needs adapters"),
        ({"lora": LoraSpec(variant="dora")}, {}, {}, "no teacher"),
        ({}, {}, {"kind": "anchor"}, "another loss method"),
        ({}, {}, {"dropped": [1]}, "another loss method"),
    ],
)
def test_what_it_cannot_do_is_refused(
    ref: ModelRef, tmp_path: Path, changes: Any, more: Any, mark: Mapping[str, Any], message: str
) -> None:
    examples = [replace(one, meta=mark) for one in _examples()]
    with pytest.raises((StudyError, TrainingError), match=message) as caught:
        _distill(ref, tmp_path, _method("sdft", ema=0.1), SPEC.model_copy(update=changes),
                 examples=examples, **more)  # fmt: skip
    assert caught.value.remedy


def test_a_teacher_of_another_vocabulary(ref: ModelRef, other_model: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "other"
    shutil.copytree(other_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["xyzzy"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(TrainingError, match="another vocabulary"):
        _distill(ref, tmp_path, _method("gkd", teacher=str(folder)))


@pytest.mark.parametrize("text", ["no places", "only {question}", "{question} {answer} {", "{0}"])
def test_a_demonstration_shows_question_and_answer(text: str) -> None:
    with pytest.raises(StudyError, match=r"sdft|demonstration"):
        _method("sdft", demonstration=text)


def test_what_identifies_the_methods(other_model: Path, tmp_path: Path) -> None:
    shutil.copytree(other_model, tmp_path / "copy")
    one, two = (_method("gkd", teacher=str(path)) for path in (other_model, tmp_path / "copy"))
    assert one.identity() == two.identity(), "a teacher is what it contains, not where it lies"
    assert one.identity() != _method("gkd").identity()
    assert _method("sdft").identity() != _method("sdft", ema=0.01).identity()
    for name in OPTIONS:
        method = _method(name)
        assert (method.own_trainer, method.term(), method.shared(None)) == (True, None, [])
        assert method.recipe()


OWN = """
from holdfast.methods import LossMethod


class Own(LossMethod):
    def trainer(self, lesson):
        from trl import SFTConfig, SFTTrainer

        return SFTTrainer(
            model=lesson.model,
            args=lesson.batched_config(SFTConfig, loss_type="dft"),
            train_dataset=lesson.micro_batches(),
            data_collator=lesson.collate,
            processing_class=lesson.tokenizer,
        )
"""


def _own(folder: Path, code: str = OWN) -> Any:
    (folder / "own.py").write_text(code, encoding="utf-8")
    return methods.build("own.py:Own", None, "study.yaml", "arms.a.loss", folder)


def test_a_trainer_in_a_file_goes_on_where_it_was_killed(ref: ModelRef, tmp_path: Path) -> None:
    import torch

    method = _own(tmp_path)
    whole = _distill(ref, tmp_path / "whole", method)
    with pytest.raises(Killed):
        _distill(ref, tmp_path / "cut", method, progress=DiesAt(4))
    assert _distill(ref, tmp_path / "cut", method) == whole
    one, two = (_weights(tmp_path / name / "checkpoint-4") for name in ("whole", "cut"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    encoded, _, _ = data.encode_all(ref, _examples(), SPEC)
    assert whole["generated_tokens"] == whole["reference_tokens"] == 0
    order = prompt_order(encoded, _examples(), _job(ref, tmp_path, Budget(STEPS, 2, 0, 2)))
    assert whole["supervised_tokens"] == sum(encoded[i].cost.supervised for i in order)
    assert whole["tokens"] == sum(len(encoded[i].ids) for i in order)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("from trl import", "from trl import Nothing, ", "cannot be made: ImportError"),
        ("return SFTTrainer(", "return dict(", r"it is dict, no transformers\.Trainer"),
        ('loss_type="dft"', "max_steps=3", "ended without its checkpoint of step 4"),
    ],
)
def test_a_trainer_in_a_file_that_does_not_work(
    ref: ModelRef, tmp_path: Path, old: str, new: str, message: str
) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        _distill(ref, tmp_path / "run", _own(tmp_path, OWN.replace(old, new)))
    assert "Own" in str(caught.value) and caught.value.remedy
