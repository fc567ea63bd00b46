"""Are moving averages kept as the formula says, written with checkpoints, and gone on with?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from holdfast import methods
from holdfast.config import TrainSpec
from holdfast.data.batching import plain_budget
from holdfast.errors import ModelError, TrainingError
from holdfast.lab.problems import problems
from holdfast.methods import Making
from holdfast.models import ModelRef
from holdfast.models.averages import averaged_in, averaged_name
from holdfast.train import data
from holdfast.train.data import TrainingData
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob, read_job, write_job
from holdfast.train.kept import Average, keeping
from holdfast.types import Example, Message

SPEC = TrainSpec(
    optim="adamw_torch", learning_rate=1e-2, micro_batch_size=2, gradient_accumulation_steps=1,
    gradient_checkpointing=False, lora={"dropout": 0.0},
)  # fmt: skip
STEPS = tuple(range(1, 7))


def _job(model: Path, folder: Path, save_at: tuple[int, ...], **more: Any) -> Any:
    ref, spec = ModelRef(str(model)), more.pop("spec", SPEC)
    examples = [
        Example(f"p{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems("train", 8, (1, 2)))
    ]
    encoded, _, _ = data.encode_all(ref, examples, spec)
    budget = plain_budget([row.cost for row in encoded], 6, spec.accumulation, 2)
    job = TrainJob(ref, spec, budget, 1, save_at, folder, device="cpu", **more)
    return job, TrainingData(encoded)


def _tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    return {name: one.numpy() for file in files for name, one in load_file(file).items()}


def _start(model: Path, folder: Path) -> dict[str, Any]:
    """The adapters before the first step: those of the same seed, after a step of no size."""
    spec = SPEC.model_copy(update={"learning_rate": 1e-30})
    fit(*_job(model, folder, (1,), spec=spec))
    return _tensors(folder / "checkpoint-1")


def test_the_average_of_every_step_by_numpy(tiny_model: Path, tmp_path: Path) -> None:
    """Every checkpoint's weights, averaged outside, give what training kept."""
    run = tmp_path / "run"
    fit(*_job(tiny_model, run, STEPS, averages=(0.6, 0.9)))
    expected = {decay: _start(tiny_model, tmp_path / "zero") for decay in (0.6, 0.9)}
    for step in STEPS:
        now = _tensors(run / f"checkpoint-{step}")
        for decay, average in expected.items():
            for name in average:
                average[name] = decay * average[name] + (1 - decay) * now[name]
            found = _tensors(averaged_in(run / f"checkpoint-{step}", decay))
            assert found.keys() == average.keys()
            for name, one in average.items():
                np.testing.assert_allclose(found[name], one, atol=1e-6, err_msg=name)
    assert not list(run.glob("checkpoint-*/kept.pt"))


def test_keeping_an_average_changes_nothing_about_training(
    tiny_model: Path, tmp_path: Path
) -> None:
    fit(*_job(tiny_model, tmp_path / "plain", (3, 6)))
    fit(*_job(tiny_model, tmp_path / "kept", (3, 6), averages=(0.9,)))
    plain, kept = (_tensors(tmp_path / one / "checkpoint-6") for one in ("plain", "kept"))
    assert all(np.array_equal(plain[name], kept[name]) for name in plain)


def test_an_interrupted_average_goes_on(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit(*_job(tiny_model, tmp_path / "whole", (3, 6), averages=(0.8,)))
    update, calls = Average.update, [0]

    def broken(self: Average, model: Any) -> None:
        calls[0] += 1
        if calls[0] == 5:
            raise RuntimeError("power cut")
        update(self, model)

    monkeypatch.setattr(Average, "update", broken)
    with pytest.raises(RuntimeError, match="power cut"):
        fit(*_job(tiny_model, tmp_path / "cut", (3, 6), averages=(0.8,)))
    monkeypatch.undo()
    fit(*_job(tiny_model, tmp_path / "cut", (3, 6), averages=(0.8,)))
    whole, cut = (
        _tensors(averaged_in(tmp_path / one / "checkpoint-6", 0.8)) for one in ("whole", "cut")
    )
    assert all(np.array_equal(whole[name], cut[name]) for name in whole)


def test_a_checkpoint_that_lacks_what_was_kept_is_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, calls = Average.update, [0]

    def broken(self: Average, model: Any) -> None:
        calls[0] += 1
        if calls[0] == 5:
            raise RuntimeError("power cut")
        update(self, model)

    with pytest.raises(RuntimeError), monkeypatch.context() as patched:
        patched.setattr(Average, "update", broken)
        fit(*_job(tiny_model, tmp_path, (3, 6), averages=(0.8,)))
    (tmp_path / "checkpoint-3" / "complete").write_text("")  # as an older version marked it
    (tmp_path / "checkpoint-3" / "kept.pt").unlink()
    with pytest.raises(TrainingError, match=r"lacks kept\.pt"):
        fit(*_job(tiny_model, tmp_path, (3, 6), averages=(0.8,)))


def test_a_sharded_model_is_refused_before_its_first_step() -> None:
    class Sharded:
        is_fsdp_enabled = True

    callback: Any = keeping(Sharded(), (), (0.9,))  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="sharded"):
        callback.on_train_begin(None, None, None)


def test_the_average_in_sixteen_bits_is_kept_in_thirty_two() -> None:
    model = torch.nn.Linear(3, 1, bias=False, dtype=torch.bfloat16)
    average = Average(0.999, model)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1.0
    for _ in range(3):
        average.update(model)
    expected = before.float() + (1 - 0.999**3) * (model.weight.detach().float() - before.float())
    torch.testing.assert_close(average.values["weight"], expected)
    now = model.weight.detach().clone()
    with average.in_place(model):
        assert model.weight.dtype == torch.bfloat16
        torch.testing.assert_close(model.weight.detach(), expected.bfloat16())
    assert torch.equal(model.weight.detach(), now)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_an_average_becomes_weights_of_their_own(
    tiny_model: Path, tmp_path: Path, method: str
) -> None:
    """What `ema` makes loads like the checkpoint that it is of."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from holdfast.models.peft_adapter import load_adapter

    spec = SPEC.model_copy(update={"method": method})
    fit(*_job(tiny_model, tmp_path / "run", (6,), averages=(0.9,), spec=spec))
    ema = methods.build("ema", {"decay": 0.9}, "s", "arms.a.weights")
    assert (ema.averages, ema.whole, ema.products, ema.makes) == ((0.9,), True, False, True)
    checkpoint = tmp_path / "run" / "checkpoint-6"
    making = Making(ModelRef(str(tiny_model)), whole=method == "full")
    ema.make_from(making, [checkpoint], tmp_path / "made")
    found, average = _tensors(tmp_path / "made"), _tensors(averaged_in(checkpoint, 0.9))
    assert found.keys() == average.keys() == _tensors(checkpoint).keys()
    assert all(np.array_equal(found[name], average[name]) for name in found)
    if method == "full":
        AutoModelForCausalLM.from_pretrained(tmp_path / "made")
        assert AutoTokenizer.from_pretrained(tmp_path / "made").chat_template
    else:
        load_adapter(AutoModelForCausalLM.from_pretrained(tiny_model), str(tmp_path / "made"))
    other = methods.build("ema", {"decay": 0.5}, "s", "arms.a.weights")
    with pytest.raises(ModelError, match=r"no moving average of decay 0\.5"):
        other.make_from(making, [checkpoint], tmp_path / "x")


def test_a_job_with_averages_is_written_and_read(tiny_model: Path, tmp_path: Path) -> None:
    job, _ = _job(tiny_model, tmp_path, (6,), averages=(0.9, 0.99))
    write_job(job, tmp_path / "job.json")
    assert read_job(tmp_path / "job.json") == job
    assert averaged_name(0.995) == "averages/0.995"
