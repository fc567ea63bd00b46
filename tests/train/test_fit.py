"""Does `fit` train what it says, on what it says, and go on after a kill as if nothing happened?"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import TrainSpec
from holdfast.data import chat
from holdfast.data.batching import Budget, plain_budget
from holdfast.data.chat import IGNORED, Encoded
from holdfast.errors import ModelError, OutOfMemory, StudyError, TrainingError
from holdfast.lab.problems import problems
from holdfast.memory.memory_plan import MemoryPlan
from holdfast.methods import Term
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.runs import store
from holdfast.train import checkpoints, data
from holdfast.train.data import TrainingData
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob
from holdfast.types import Example, Message

SPEC = TrainSpec(
    optim="adamw_torch", learning_rate=1e-2, micro_batch_size=2, gradient_accumulation_steps=2,
    gradient_checkpointing=False,
)  # fmt: skip


def _examples(count: int = 24) -> list[Example]:
    return [
        Example(f"p{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems("train", count, (1, 2)))
    ]


def _fit(
    ref: ModelRef, folder: Path, spec: TrainSpec = SPEC, steps: int = 6, **more: Any
) -> dict[str, Any]:
    encoded, _, _ = data.encode_all(ref, _examples(), spec)
    size = spec.per_device_train_batch_size
    budget = plain_budget([row.cost for row in encoded], steps, spec.accumulation, size)
    progress = more.pop("progress", None)
    job = TrainJob(ref, spec, budget, more.pop("seed", 1126), (3, 6), folder, device="cpu", **more)
    return dict(fit(job, TrainingData(encoded), progress=progress))


@pytest.fixture()
def ref(tiny_model: Path) -> ModelRef:
    return ModelRef(str(tiny_model))


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    name = "adapter_model.safetensors"
    return load_file(folder / name if (folder / name).exists() else folder / "model.safetensors")


def test_checkpoints_and_what_was_spent(ref: ModelRef, tmp_path: Path) -> None:
    spent = _fit(ref, tmp_path)
    assert spent["steps"] == 6
    assert spent["examples_seen"] == 24
    assert spent["supervised_tokens"] > 0
    losses = [loss for _, loss in spent["loss"]]
    assert losses[-1] < losses[0]
    assert sorted(one.name for one in tmp_path.glob("checkpoint-*")) == [
        "checkpoint-3", "checkpoint-6",
    ]  # fmt: skip
    left = {one.name for one in (tmp_path / "checkpoint-6").iterdir()}
    assert "adapter_model.safetensors" in left
    assert not left & {"optimizer.pt", "training_args.bin"}, "only weights are kept"
    assert not list(tmp_path.rglob("*.bin")), "safetensors only"


def test_the_same_seed_gives_the_same_weights(ref: ModelRef, tmp_path: Path) -> None:
    import torch

    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        _fit(ref, tmp_path / name, seed=seed)
    a, b, c = (_weights(tmp_path / name / "checkpoint-6") for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert not all(torch.equal(a[key], c[key]) for key in a)


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


def _log(folder: Path) -> list[dict[str, float]]:
    """Rows of the log, without what depends on the clock."""
    clock = ("train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss",
             "total_flos", "time", "tokens_per_s", "memory_bytes")  # fmt: skip
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text("utf-8").splitlines()]
    return [{key: row[key] for key in row if key not in clock} for row in rows]


def test_a_damaged_checkpoint_is_not_gone_on_from(ref: ModelRef, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        _fit(ref, tmp_path, SPEC, progress=DiesAt(5))
    state = tmp_path / "checkpoint-3" / "trainer_state.json"
    state.write_bytes(state.read_bytes()[:100])
    said: list[str] = []
    checkpoints.tidy(tmp_path, said.append)
    (line,) = said
    assert "checkpoint-3 is damaged (trainer_state.json has another size)" in line
    assert checkpoints.last_complete(tmp_path) is None


def test_how_far_a_plan_had_come_down_may_be_taken_away(ref: ModelRef, tmp_path: Path) -> None:
    """A process that gives up removes it, since the next plan has a micro-batch of its own."""
    with pytest.raises(Killed):
        _fit(ref, tmp_path, SPEC, progress=DiesAt(5))
    kept = tmp_path / "checkpoint-3"
    (kept / "split.json").write_text("{}", "utf-8")
    checkpoints.mark_complete(kept)
    (kept / "split.json").unlink()
    said: list[str] = []
    checkpoints.tidy(tmp_path, said.append)
    assert said == [] and checkpoints.last_complete(tmp_path) == kept


@pytest.mark.parametrize("compares", [True, False])
def test_what_is_compared_counts_where_recomputation_is_decided(
    compares: bool, ref: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole logits of the answers, the model's and the base's, are most of a large vocabulary's."""
    told: list[Any] = []

    def settled(spec: TrainSpec, *rest: Any) -> TrainSpec:
        told.extend(rest)
        raise Killed

    monkeypatch.setattr("holdfast.train.fit.settled_on_cpu", settled)
    rows, _, _ = data.encode_all(ref, _examples(4), SPEC)
    budget = plain_budget([row.cost for row in rows], 1, 2, 2)
    job = TrainJob(ref, SPEC, budget, 1, (1,), tmp_path, device="cpu")
    terms = (Term(penalty=lambda model: 0), Term(divergence=lambda ours, base: ours))
    with pytest.raises(Killed):
        fit(job, TrainingData(rows), terms=terms if compares else terms[:1])
    *_, overhead, answers = told
    assert overhead.reference is compares and overhead.logits == (
        "policy+reference" if compares else "none"
    )
    assert answers == max(row.cost.supervised for row in rows)


@pytest.fixture()
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways of large models, on a small one."""
    monkeypatch.setattr("holdfast.models.cpu_training.NARROWEST", 1)
    monkeypatch.setattr("holdfast.models.cpu_head.FEWEST_WORDS", 1)


def test_the_ways_of_large_models_reach_the_same_loss(
    ref: ModelRef, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    spec = SPEC.model_copy(update={"logging_steps": 1})
    dry = spec.model_copy(update={"lora": spec.lora.model_copy(update={"dropout": 0.0})})
    wanted = _fit(ref, tmp_path / "plain", dry)
    request.getfixturevalue("quick")
    found = _fit(ref, tmp_path / "quick", dry)
    assert "dropout_masks" not in found
    losses = [[loss for _, loss in one["loss"]] for one in (found, wanted)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-4) and len(losses[0]) == 6
    logs = [_log(tmp_path / name)[0] for name in ("quick", "plain")]
    for key in ("entropy", "mean_token_accuracy", "num_tokens", "grad_norm"):
        assert logs[0][key] == pytest.approx(logs[1][key], rel=1e-3), key
    assert _fit(ref, tmp_path / "dropout", spec)["dropout_masks"] == "PCG64, sparse"


def test_on_a_cpu_nothing_is_recomputed_where_memory_suffices(
    ref: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick: None
) -> None:
    import torch

    asked = SPEC.model_copy(update={"gradient_checkpointing": True})
    free = _fit(ref, tmp_path / "free", asked)
    monkeypatch.setattr("holdfast.train.planning.host_ram_bytes", lambda: 1 << 20)
    tight = _fit(ref, tmp_path / "tight", asked)
    assert (free["recomputed"], tight["recomputed"]) == (False, True)
    assert tight["loss"] == free["loss"]
    one, two = (_weights(tmp_path / name / "checkpoint-6") for name in ("free", "tight"))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert _fit(ref, tmp_path / "never", SPEC, steps=1)["recomputed"] is False


@pytest.mark.parametrize("method", ["lora", "full", "lora quick"])
def test_a_killed_run_ends_in_the_same_weights(
    ref: ModelRef, tmp_path: Path, method: str, request: pytest.FixtureRequest
) -> None:
    import torch

    method, _, ways = method.partition(" ")
    if ways:
        request.getfixturevalue(ways)
    spec = SPEC.model_copy(update={"method": method, "learning_rate": 1e-3, "logging_steps": 4})
    whole = _fit(ref, tmp_path / "whole", spec)
    with pytest.raises(Killed):
        _fit(ref, tmp_path / "cut", spec, progress=DiesAt(5))
    assert (tmp_path / "cut" / "checkpoint-3" / "complete").exists()
    half = tmp_path / "cut" / "checkpoint-5"
    half.mkdir()
    (half / "adapter_model.safetensors").write_bytes(b"half written")
    resumed = _fit(ref, tmp_path / "cut", spec)
    assert not half.exists(), "a checkpoint without its mark is not trusted"
    assert resumed["loss"] == whole["loss"]
    assert [step for step, _ in whole["loss"]] == [4], "the row spans the cut after step 3"
    assert _log(tmp_path / "cut") == _log(tmp_path / "whole"), "tokens and accuracy too"
    one, two = (_weights(tmp_path / name / "checkpoint-6") for name in ("whole", "cut"))
    assert all(torch.equal(one[key], two[key]) for key in one)


class RunsCode:
    """What a pickle may hold: reading it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_a_state_that_would_run_code_is_refused(ref: ModelRef, tmp_path: Path) -> None:
    import torch

    with pytest.raises(Killed):
        _fit(ref, tmp_path / "cut", progress=DiesAt(5))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        shutil.copytree(tmp_path / "cut", tmp_path / name)
        state = tmp_path / name / "checkpoint-3" / name
        assert state.is_file()
        torch.save(RunsCode(tmp_path / "ran"), state)
        checkpoints.mark_complete(state.parent)  # whoever means harm can seal anew
        with pytest.raises(TrainingError, match="holds more than numbers") as caught:
            _fit(ref, tmp_path / name)
        assert caught.value.where.endswith("checkpoint-3") and caught.value.remedy
    assert not (tmp_path / "ran").exists()


def test_an_empty_micro_batch_changes_nothing(ref: ModelRef, tmp_path: Path) -> None:
    """Answers longer than the plain arm's leave some micro-batches empty."""
    encoded, _, _ = data.encode_all(ref, _examples(), SPEC)
    spent = sum(row.cost.supervised for row in encoded)
    budget = Budget(steps=6, micro_batches=8, supervised_tokens=spent, per_micro_batch=1)
    job = TrainJob(ref, SPEC, budget, 1, (6,), tmp_path, device="cpu")
    summary = fit(job, TrainingData(encoded))
    assert summary["examples_seen"] == 24, "24 examples in 48 micro-batches"
    assert all(loss > 0.1 for _, loss in summary["loss"])


SPLIT = {"model.embed_tokens": 0, "model.layers.0": 0, "model.layers.1": 1, "model.norm": 1,
         "model.rotary_emb": 0, "lm_head": 1}  # fmt: skip
PLAN = MemoryPlan("cpu", checkpointing=False, micro_batch=2, accumulation=2, dtype="float32")


def test_a_plan_has_no_bearing_on_what_is_learned(ref: ModelRef, tmp_path: Path) -> None:
    import torch

    spec = SPEC.model_copy(update={"lora": SPEC.lora.model_copy(update={"dropout": 0.0})})
    plans = {"none": None, "same": PLAN, "cut": replace(PLAN, micro_batch=1, accumulation=4),
             "offload": replace(PLAN, placement="offload", gpus=(0,)),
             "split": replace(PLAN, placement="split", gpus=(0, 1), device_map=SPLIT)}  # fmt: skip
    losses = {}
    for name, plan in plans.items():
        losses[name] = _fit(ref, tmp_path / name, spec, plan=plan)["loss"]
    weights = {name: _weights(tmp_path / name / "checkpoint-6") for name in plans}
    none = weights["none"]
    for name in ("same", "offload", "split"):
        assert losses[name] == losses["none"]
        assert all(torch.equal(none[key], weights[name][key]) for key in none)
    assert any(not torch.equal(none[key], weights["cut"][key]) for key in none)
    for key in none:
        torch.testing.assert_close(none[key], weights["cut"][key], rtol=0, atol=1e-4)


def test_a_rehearsal_leaves_no_trace(ref: ModelRef, tmp_path: Path) -> None:
    """With dropout: the random numbers are those of a run without rehearsal."""
    import torch

    logs = []
    for name in ("without", "with"):
        _fit(ref, tmp_path / name, plan=PLAN, rehearsal=name == "with")
        logs.append(_log(tmp_path / name))
    assert logs[0] == logs[1]
    a, b = (_weights(tmp_path / name / "checkpoint-6") for name in ("without", "with"))
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_what_does_not_fit_fails_before_the_first_step(
    ref: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(PLAN, micro_batch=1, accumulation=4)
    encoded, _, _ = data.encode_all(ref, _examples(), SPEC)
    longest = max(len(row.ids) for row in encoded)
    monkeypatch.setenv("HOLDFAST_FAULTS", f"forward>{longest - 1}")
    seen = DiesAt(1000)
    with pytest.raises(OutOfMemory, match=f"one example of {longest} tokens"):
        _fit(ref, tmp_path, plan=plan, rehearsal=True, progress=seen)
    assert seen.left == 1000, "no step was done"
    assert [value["phase"] for _, value in store.read_objects(tmp_path / "memory.jsonl")] == [
        "forward"
    ]


def test_too_few_processes_are_noticed(ref: ModelRef, tmp_path: Path) -> None:
    plan = replace(PLAN, placement="ddp", gpus=(0, 1))
    with pytest.raises(TrainingError, match="1 train together instead of 2"):
        _fit(ref, tmp_path, plan=plan)


def test_collate_pads_on_the_right() -> None:
    batch = data.collate([{"input_ids": [[5, 6, 7], [8]], "labels": [[IGNORED, 6, 7], [8]]}], 0)
    assert batch["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch["labels"].tolist() == [[IGNORED, 6, 7], [8, IGNORED, IGNORED]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_nan_stops_the_run(ref: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from holdfast.train.trainer import Trainer

    plain = Trainer.compute_loss

    def lost(self: Trainer, *given: Any, **named: Any) -> Any:
        return plain(self, *given, **named) * float("nan")

    monkeypatch.setattr(Trainer, "compute_loss", lost)
    with pytest.raises(TrainingError, match="the loss is nan at step 1"):
        _fit(ref, tmp_path / "out")


def test_weights_that_are_no_numbers_are_not_saved(
    ref: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step may break the weights and leave every loss that was seen in order."""
    import torch

    from holdfast.train import watch

    looked: list[int] = []

    def breaking(model: torch.nn.Module, step: int) -> None:
        looked.append(step)
        if step == 6:
            adapter = next(one for one in model.parameters() if one.requires_grad)
            adapter.data.view(-1)[-1] = float("inf")
        check(model, step)

    check = watch.check_numbers
    monkeypatch.setattr(watch, "check_numbers", breaking)
    with pytest.raises(TrainingError, match=r"NaN or infinite at step 6, first .*lora_A") as caught:
        _fit(ref, tmp_path / "out")
    assert looked == [3, 6]
    assert "train.learning_rate" in caught.value.remedy
    assert [one.name for one in (tmp_path / "out").glob("checkpoint-*")] == ["checkpoint-3"]


def test_a_base_that_is_no_numbers_is_not_trained(ref: ModelRef, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    broken = Path(shutil.copytree(ref.base, tmp_path / "broken"))
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"] *= float("nan")
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"first in model\.norm\.weight"):
        _fit(ModelRef(str(broken)), tmp_path / "out")


def test_what_the_trainer_refuses_is_explained(ref: ModelRef, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"optim": "adamw_tosh"})
    with pytest.raises(TrainingError, match="adamw_tosh"):
        _fit(ref, tmp_path, spec)
    spec = SPEC.model_copy(
        update={"lora": SPEC.lora.model_copy(update={"target_modules": ("nope",)})}
    )
    with pytest.raises(StudyError, match="nope"):
        _fit(ref, tmp_path, spec)


def test_overlong_examples_are_never_cut(ref: ModelRef) -> None:
    examples = _examples()
    encoded, _, preview = data.encode_all(ref, examples, SPEC)
    assert "⟦" in preview
    limit = sorted(len(row.ids) for row in encoded)[12]
    strict = SPEC.model_copy(update={"max_length": limit})
    with pytest.raises(TrainingError, match="longer than max_length"):
        data.encode_all(ref, examples, strict)
    drop = strict.model_copy(update={"overlong": "drop"})
    kept, of, _ = data.encode_all(ref, examples, drop)
    assert len(kept) == len(of) < 24
    assert all(row.labels[-1] != IGNORED for row in kept)
    with pytest.raises(TrainingError, match="no example is within"):
        data.encode_all(ref, examples, drop.model_copy(update={"max_length": 8}))


def test_probes_are_kept_apart_from_what_is_trained_on(ref: ModelRef) -> None:
    examples = _examples(6)
    examples[1] = replace(examples[1], meta={"kind": "probe"})
    examples[4] = replace(examples[4], meta={"kind": "replay"})
    found = data.training_data(ref, examples, SPEC)
    encoded, _, _ = data.encode_all(ref, examples, SPEC)
    assert found.rows == [encoded[i] for i in (0, 2, 3, 4, 5)]
    assert found.kinds == ["task", "task", "task", "replay", "task"]
    assert found.probes == [encoded[1]]
    assert TrainingData(encoded[:2]).kinds == ("task", "task"), "left out, all are the task's"


def test_loss_is_the_mean_over_supervised_tokens(ref: ModelRef, tmp_path: Path) -> None:
    """The first logged loss equals a hand-made one over the same micro-batches."""
    import torch
    from transformers import AutoModelForCausalLM

    spec = SPEC.model_copy(update={"logging_steps": 1.0, "group_by_length": False})
    encoded, _, _ = data.encode_all(ref, _examples(4), spec)
    budget = plain_budget([row.cost for row in encoded], 1, 2, 2)
    job = TrainJob(ref, spec, budget, 1, (1,), tmp_path, device="cpu")
    found = fit(job, TrainingData(encoded))
    model = AutoModelForCausalLM.from_pretrained(ref.base)
    total, count = 0.0, 0
    for row in encoded:
        with torch.no_grad():
            logits = model(torch.tensor([row.ids])).logits[0, :-1]
        labels = torch.tensor(row.labels[1:])
        total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        count += int((labels != IGNORED).sum())
    assert found["loss"][0][1] == pytest.approx(total / count, rel=1e-4)


def test_encoded_rows_know_their_cost() -> None:
    row = Encoded((1, 2, 3), (chat.IGNORED, 2, 3))
    assert (row.cost.tokens, row.cost.supervised) == (3, 2)
