"""Is a checkpoint written in the background what would have been written at once?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from holdfast.config import TrainSpec
from holdfast.data.batching import plain_budget
from holdfast.errors import TrainingError
from holdfast.lab.problems import problems
from holdfast.models import ModelRef
from holdfast.train import checkpoints, data, saving
from holdfast.train.data import TrainingData
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob
from holdfast.types import Example, Message

SPEC = TrainSpec(
    optim="adamw_torch", learning_rate=1e-2, micro_batch_size=2, gradient_accumulation_steps=2,
    gradient_checkpointing=False, async_save=True,
)  # fmt: skip
AT = (2, 4, 6)


def _job(ref: ModelRef, folder: Path, spec: TrainSpec = SPEC) -> tuple[TrainJob, TrainingData]:
    examples = [
        Example(f"p{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems("train", 24, (1, 2)))
    ]
    rows, _, _ = data.encode_all(ref, examples, spec)
    budget = plain_budget([row.cost for row in rows], 6, 2, 2)
    return TrainJob(ref, spec, budget, 1126, AT, folder, device="cpu"), TrainingData(rows)


def _fit(ref: ModelRef, folder: Path, spec: TrainSpec = SPEC) -> dict[str, Any]:
    job, rows = _job(ref, folder, spec)
    return dict(fit(job, rows))


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(next(folder.glob("*model.safetensors")))


@pytest.fixture()
def ref(tiny_model: Path) -> ModelRef:
    return ModelRef(str(tiny_model))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_the_same_weights_are_written(method: str, ref: ModelRef, tmp_path: Path) -> None:
    import torch

    spec = SPEC.model_copy(update={"method": method})
    _fit(ref, tmp_path / "at once", spec.model_copy(update={"async_save": False}))
    _fit(ref, tmp_path / "aside", spec)
    for step in AT:
        names = [
            sorted(one.name for one in (tmp_path / way / f"checkpoint-{step}").iterdir())
            for way in ("at once", "aside")
        ]
        assert names[0] == names[1]
        a, b = (_weights(tmp_path / way / f"checkpoint-{step}") for way in ("at once", "aside"))
        assert all(torch.equal(a[name], b[name]) for name in a) and a.keys() == b.keys()
    assert not [one for one in threading.enumerate() if one.name == "checkpoint"]


def test_training_goes_on_while_it_is_written(
    ref: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first mark waits until the next step has begun; what is written is of its own step."""
    import torch

    begun, waited = threading.Event(), []
    mark = checkpoints.mark_complete

    def slowly(folder: Path) -> None:
        if folder.name == "checkpoint-2":
            waited.append(begun.wait(60))
        mark(folder)

    from holdfast.train import trainer, watch

    class Noting(trainer.Trainer):
        def training_step(self, *given: Any, **more: Any) -> Any:
            if self.state.global_step == 2:
                begun.set()
            return super().training_step(*given, **more)

    monkeypatch.setattr(watch, "mark_complete", slowly)
    monkeypatch.setattr(trainer, "Trainer", Noting)
    _fit(ref, tmp_path / "aside")
    assert waited == [True], "training had gone on before the checkpoint was whole"
    monkeypatch.undo()
    _fit(ref, tmp_path / "at once", SPEC.model_copy(update={"async_save": False}))
    a, b = (_weights(tmp_path / way / "checkpoint-2") for way in ("aside", "at once"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_an_error_in_the_background_ends_the_training(
    ref: ModelRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    save = torch.save

    def full(value: Any, place: Any, *given: Any, **more: Any) -> None:
        if str(place).endswith("checkpoint-4/optimizer.pt"):
            raise OSError(28, "No space left on device")
        save(value, place, *given, **more)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match="No space left on device") as caught:
        _fit(ref, tmp_path)
    assert caught.value.where == "train.async_save"
    last = checkpoints.last_complete(tmp_path)
    assert last is not None and last.name == "checkpoint-2"
    assert (last / checkpoints.OPTIMIZER).is_file(), "its state is kept until the next is whole"
    monkeypatch.undo()
    assert torch.save is save
    assert _fit(ref, tmp_path)["steps"] == 6


DIES = """
import sys, time
from pathlib import Path

sys.path.insert(0, {tests!r})
import torch

from holdfast.models import ModelRef
from train.test_saving import _fit

save = torch.save

def half(value, place, *given, **more):
    if not str(place).endswith("checkpoint-4/optimizer.pt"):
        return save(value, place, *given, **more)
    save(value, place)
    whole = Path(place).read_bytes()
    Path(place).write_bytes(whole[: len(whole) // 2])
    print("half", flush=True)
    time.sleep(600)

torch.save = half
_fit(ModelRef({model!r}), Path({folder!r}))
"""


def test_a_process_killed_while_it_writes_leaves_no_torn_checkpoint(
    ref: ModelRef, tmp_path: Path
) -> None:
    import torch

    tests = Path(__file__).parents[1]
    folder = tmp_path / "killed"
    code = DIES.format(tests=str(tests), model=ref.base, folder=str(folder))
    place = os.pathsep.join([str(tests.parent / "src"), str(tests)])
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": place, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        assert child.stdout is not None
        assert any(line == "half\n" for line in iter(child.stdout.readline, ""))
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait(60)
        child.stdout.close()
    torn = folder / "checkpoint-4"
    assert (torn / checkpoints.OPTIMIZER).is_file() and not (torn / checkpoints.COMPLETE).exists()
    last = checkpoints.last_complete(folder)
    assert last is not None and last.name == "checkpoint-2"
    _fit(ref, folder)
    _fit(ref, tmp_path / "whole")
    a, b = (_weights(one / "checkpoint-6") for one in (folder, tmp_path / "whole"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_what_is_copied_is_what_was_there() -> None:
    import torch

    weight = torch.ones(3)
    weight.is_paged = True
    state = {0: {"step": 3, "m": weight}, 1: {"seen": [1]}}
    value: dict[str, Any] = {"state": state, "groups": [{"lr": 0.1}], "pair": (weight, 1)}
    found = saving.copied(value)
    weight.zero_()
    value["state"][1]["seen"].append(2)  # the next step
    value["groups"][0]["lr"] = 0.2
    assert found["state"][1] == {"seen": [1]} and found["groups"] == [{"lr": 0.1}]
    assert found["state"][0]["m"].tolist() == found["pair"][0].tolist() == [1, 1, 1]
    assert found["state"][0]["m"].is_paged and found["state"][0]["step"] == 3

    class Pair(NamedTuple):
        first: Any
        second: int

    pair = Pair(torch.ones(1), 2)
    found = saving.copied([pair])
    pair.first.zero_()
    assert type(found[0]) is Pair and found[0].first.item() == 1 and found[0].second == 2
    plain = {"a": [1, (2, 3)]}
    assert saving.copied(plain) is plain


def test_only_the_writing_of_a_checkpoint_is_put_off(tmp_path: Path) -> None:
    import io

    import torch

    writer, place, buffer = saving.Background(), tmp_path / "a.pt", io.BytesIO()
    plain = torch.save
    with writer.deferred():
        torch.save({"a": torch.ones(2)}, place)
        torch.save({"settings": 1}, tmp_path / "b.pt")
        torch.save(torch.ones(1), buffer)
    assert torch.save is plain
    assert not place.exists() and (tmp_path / "b.pt").exists() and buffer.getvalue()
    done: list[bool] = []
    writer.finish(lambda: done.append(place.exists()))
    writer.wait()
    assert done == [True]
    with pytest.raises(KeyError), writer.deferred():
        torch.save({"a": torch.ones(2)}, tmp_path / "c.pt")
        raise KeyError
    writer.finish(lambda: None)
    writer.wait()
    assert torch.save is plain and not (tmp_path / "c.pt").exists()
