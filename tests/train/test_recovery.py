"""Does a run whose memory ran out learn the same as one that never noticed?"""

from __future__ import annotations

import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fixtures.paths import TESTS

from holdfast.config import TrainSpec
from holdfast.errors import OutOfMemory, TrainingError, UsageError, located
from holdfast.lab.problems import problems
from holdfast.memory import out_of_memory
from holdfast.memory.fault_injection import VARIABLE, FaultInjector, capped
from holdfast.memory.loading import loading
from holdfast.models import LAB_FOLDER, ModelRef
from holdfast.train import data
from holdfast.types import Example, Message

MICRO, ACCUMULATION, STEPS = 4, 4, 3


def deal() -> list[list[Any]]:
    """Micro-batches of four examples; the second of each step has only three."""
    examples = [
        Example(f"p{i}", (Message("user", one.question),), one.human)
        for i, one in enumerate(problems("train", MICRO * ACCUMULATION * STEPS, (1, 2, 3, 4)))
    ]
    encoded, _, _ = data.encode_all(ModelRef(str(LAB_FOLDER)), examples, TrainSpec())
    dealt = [list(encoded[i : i + MICRO]) for i in range(0, len(encoded), MICRO)]
    for slot in dealt[1::ACCUMULATION]:
        slot.pop()
    return dealt


@pytest.fixture(scope="module")
def slots() -> list[list[Any]]:
    return deal()


@pytest.fixture(scope="module")
def calm(slots: list[list[Any]]) -> Run:
    """The run that nothing happens to."""
    return Run(slots).go()


class Run:
    """A short training of the lab model with LoRA, and what is to be compared of it."""

    def __init__(
        self,
        slots: Sequence[Sequence[Any]],
        folder: Path | None = None,
        dropout: float = 0.0,
        steps: int = STEPS,
        on_model: Callable[[Any], None] = lambda _: None,
        device: str = "cpu",
        checkpointing: bool = False,
        save_steps: int = 0,
        **options: Any,
    ) -> None:
        import tempfile

        import torch
        from datasets import Dataset
        from peft import LoraConfig
        from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
        from transformers.trainer_utils import set_seed
        from trl import SFTConfig

        from holdfast.train.trainer import Trainer

        torch.set_flush_denormal(True)
        self.folder = folder or Path(tempfile.mkdtemp())
        tokenizer = AutoTokenizer.from_pretrained(LAB_FOLDER)
        model = AutoModelForCausalLM.from_pretrained(LAB_FOLDER, dtype=torch.float32)
        model.config.use_cache = False
        set_seed(1)
        self.lines: list[str] = []
        self.gradients: list[dict[str, Any]] = []
        self.trainer = Trainer(
            model=model,
            args=SFTConfig(
                output_dir=str(self.folder), max_steps=steps, per_device_train_batch_size=1,
                gradient_accumulation_steps=ACCUMULATION, train_sampling_strategy="sequential",
                learning_rate=1e-3, optim="adamw_torch", activation_checkpointing=checkpointing,
                bf16=False, use_cpu=device == "cpu", seed=1, logging_steps=1,
                logging_nan_inf_filter=False, save_strategy="steps" if save_steps else "no",
                save_steps=save_steps or 500, max_length=None, remove_unused_columns=False,
                dataset_kwargs={"skip_prepare_dataset": True}, report_to=[], disable_tqdm=True,
                dataloader_pin_memory=False,
            ),
            train_dataset=Dataset.from_dict({
                "input_ids": [[one.ids for one in slot] for slot in slots],
                "labels": [[one.labels for one in slot] for slot in slots],
            }),
            data_collator=lambda batch: data.collate(batch, tokenizer.pad_token_id),
            processing_class=tokenizer,
            peft_config=LoraConfig(
                r=4, lora_alpha=8, lora_dropout=dropout, target_modules="all-linear",
                task_type="CAUSAL_LM",
            ),
            callbacks=[self._watch()],
            say=self.lines.append,
            **options,
        )  # fmt: skip
        self.trainer.remove_callback(PrinterCallback)
        on_model(self.trainer.model)

    def go(self, start: str | None = None) -> Run:
        self.trainer.train(resume_from_checkpoint=start)
        return self

    def _watch(self) -> Any:
        from transformers import TrainerCallback

        gradients = self.gradients

        class Watch(TrainerCallback):  # type: ignore[misc]
            def on_pre_optimizer_step(
                self, args: Any, state: Any, control: Any, model: Any = None, **_: Any
            ) -> None:
                gradients.append({
                    name: one.grad.clone() for name, one in model.named_parameters()
                    if one.requires_grad
                })  # fmt: skip

        return Watch()

    @property
    def logs(self) -> list[dict[str, float]]:
        wanted = ("loss", "entropy", "mean_token_accuracy", "num_tokens", "grad_norm")
        return [
            {key: log[key] for key in wanted}
            for log in self.trainer.state.log_history if "loss" in log
        ]  # fmt: skip

    @property
    def weights(self) -> dict[str, Any]:
        return {
            name: one.detach().clone()
            for name, one in self.trainer.model.named_parameters() if one.requires_grad
        }  # fmt: skip


def _furthest(one: dict[str, Any], other: dict[str, Any]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


@pytest.mark.parametrize("micro_batch", [1, 2, ACCUMULATION])
@pytest.mark.parametrize("place", ["forward", "backward"])
def test_a_split_step_learns_what_the_whole_one_learns(
    slots: list[list[Any]], calm: Run, place: str, micro_batch: int, monkeypatch: Any
) -> None:
    monkeypatch.setenv(VARIABLE, f"{place}:{micro_batch}")
    run = Run(slots, steps=1).go()
    (found,) = run.trainer.events
    size = 3 if micro_batch == 2 else 4
    assert (found["phase"], found["step"]) == (place, 1)
    assert (found["from_micro_batch"], found["to_micro_batch"]) == (size, 2)
    largest = max(float(one.abs().max()) for one in calm.gradients[0].values())
    assert _furthest(run.gradients[0], calm.gradients[0]) <= min(1e-6, 1e-6 * largest)
    assert run.logs[0] == pytest.approx(calm.logs[0], abs=1e-6, rel=1e-6)
    assert run.logs[0]["loss"] == pytest.approx(calm.logs[0]["loss"], abs=1e-6)
    assert len(run.lines) == 1 and f"{place} pass of {size} examples" in run.lines[0]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_an_interrupted_run_ends_in_the_same_weights(
    slots: list[list[Any]], calm: Run, checkpointing: bool, monkeypatch: Any
) -> None:
    monkeypatch.setenv(VARIABLE, f"backward:{ACCUMULATION + 3}")  # in the second step
    run = Run(slots, checkpointing=checkpointing).go()
    assert [one["step"] for one in run.trainer.events] == [2]
    assert run.trainer.most_examples == 2
    for mine, theirs in zip(run.logs, calm.logs, strict=True):
        assert mine == pytest.approx(theirs, abs=2e-6, rel=2e-6)
    assert _furthest(run.weights, calm.weights) <= 1e-6


def test_the_smaller_size_is_kept_and_halves_again(
    slots: list[list[Any]], calm: Run, monkeypatch: Any
) -> None:
    widest = max(len(one.ids) for slot in slots for one in slot)
    monkeypatch.setenv(VARIABLE, f"backward>{widest}")  # one example fits, two long ones do not
    run = Run(slots).go()
    found = [(one["from_micro_batch"], one["to_micro_batch"]) for one in run.trainer.events]
    assert found == [(4, 2), (2, 1)]
    assert {one["step"] for one in run.trainer.events} == {1}, "not once in every step"
    assert _furthest(run.gradients[0], calm.gradients[0]) <= 1e-6
    # Adam divides by the gradient's own size: where that is near its epsilon, rounding is enlarged
    # by up to the learning rate (1e-3); seen here: 1.2e-6 after three steps.
    assert _furthest(run.weights, calm.weights) <= 1e-5


def test_what_the_failed_attempt_held_is_free_before_the_retry(
    slots: list[list[Any]], monkeypatch: Any
) -> None:
    seen: list[Any] = []
    alive: list[bool] = []

    def look(module: Any, inputs: Any, output: Any) -> None:
        alive.append(any(one() is not None for one in seen))
        seen.append(weakref.ref(output[0] if isinstance(output, tuple) else output))

    def watch(model: Any) -> None:
        model.get_base_model().model.layers[0].register_forward_hook(look)

    monkeypatch.setenv(VARIABLE, "backward:1")
    Run(slots, steps=1, on_model=watch).go()
    assert alive[:2] == [False, False], "the first output is gone when the second is made"


def test_with_dropout_it_goes_on_deterministically(
    slots: list[list[Any]], monkeypatch: Any
) -> None:
    monkeypatch.setenv(VARIABLE, "backward:2")
    one, two = (Run(slots, dropout=0.2, steps=1).go() for _ in range(2))
    assert one.trainer.events and one.logs == two.logs
    assert _furthest(one.weights, two.weights) == 0


def test_a_replay_draws_the_same_random_numbers(slots: list[list[Any]], monkeypatch: Any) -> None:
    """Where nothing can be split, the replayed dropout must be that of the first attempt."""
    single = [[slot[0]] for slot in slots]
    calm = Run(single, dropout=0.2, steps=1).go()
    monkeypatch.setenv(VARIABLE, "backward:3")
    run = Run(single, dropout=0.2, steps=1)
    monkeypatch.setattr(run.trainer, "_cannot_replay", lambda items: "")
    run.go()
    assert len(run.trainer.events) == 1
    assert _furthest(run.gradients[0], calm.gradients[0]) == 0


def test_a_resumed_run_keeps_the_size(
    slots: list[list[Any]], tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setenv(VARIABLE, "forward:2")
    whole = Run(slots, tmp_path, dropout=0.2, save_steps=2).go()
    monkeypatch.delenv(VARIABLE)
    rest = Run(slots, tmp_path, dropout=0.2, save_steps=2).go(str(tmp_path / "checkpoint-2"))
    assert rest.trainer.most_examples == 2
    assert _furthest(whole.weights, rest.weights) == 0


@pytest.mark.parametrize(
    ("drill", "phase", "step", "sizes"),
    [
        ("forward>0", "forward", 1, [(4, 2), (2, 1), (1, None)]),
        ("backward>0", "backward", 1, [(4, 2), (2, 1), (1, None)]),
        ("step:2", "step", 2, [(None, None)]),
        ("save:1", "save", 2, [(None, None)]),
    ],
)
def test_what_cannot_be_replayed_ends_the_run(
    slots: list[list[Any]], tmp_path: Path, drill: str, phase: str, step: int, sizes: Any,
    monkeypatch: Any,
) -> None:  # fmt: skip
    monkeypatch.setenv(VARIABLE, drill)
    run = Run(slots, tmp_path, save_steps=2)
    with pytest.raises(OutOfMemory) as caught:
        run.go()
    assert (caught.value.phase, caught.value.exit_code) == (phase, 1)
    assert caught.value.remedy and "CUDA out of memory" in str(caught.value)
    found = run.trainer.events
    assert [(one["from_micro_batch"], one["to_micro_batch"]) for one in found] == sizes
    assert (found[-1]["phase"], found[-1]["step"]) == (phase, step)
    assert found[-1]["allocated_bytes"] is None, "nothing is invented on a CPU"


def test_recovery_can_be_switched_off(slots: list[list[Any]], monkeypatch: Any) -> None:
    monkeypatch.setenv(VARIABLE, "forward:1")
    with pytest.raises(OutOfMemory, match="recovery is off"):
        Run(slots, recover=False).go()


def test_other_errors_are_not_swallowed(slots: list[list[Any]]) -> None:
    def spoil(model: Any) -> None:
        def fail(*_: Any) -> None:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

        model.register_forward_pre_hook(fail)

    run = Run(slots, on_model=spoil)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run.go()
    assert not run.trainer.events


def test_halves_are_trimmed_to_their_own_longest_row() -> None:
    import torch

    from holdfast.train.trainer import split

    some = [[1] * length for length in (2, 3, 1, 7, 4)]
    batch = data.collate([{"input_ids": some, "labels": some}], 0)
    whole = split(batch | {"use_cache": False}, None)
    assert len(whole) == 1 and whole[0]["input_ids"] is batch["input_ids"]
    pieces = split(batch | {"use_cache": False}, 3)
    assert [tuple(one["input_ids"].shape) for one in pieces] == [(3, 3), (2, 7)]
    assert all(one["labels"].shape == one["attention_mask"].shape for one in pieces)
    assert all(one["use_cache"] is False for one in pieces)
    assert sum(int(one["attention_mask"].sum()) for one in pieces) == 17
    assert torch.equal(pieces[1]["labels"][1], torch.tensor([1, 1, 1, 1, -100, -100, -100]))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("CUDA error: out of memory\nCompile with `TORCH_USE_CUDA_DSA`", True),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("Error out of memory at line 88 in file /src/csrc/ops.cu", True),
        ("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate "
         "memory: you tried to allocate 9 bytes. Error code 12 (Cannot allocate memory)", True),
        ("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED.", False),
        ("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`", False),
        ("CUDA error: device-side assert triggered", False),
        ("out of resource: shared memory, Required: 131072", False),
        ("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)", False),
    ],
)  # fmt: skip
def test_what_counts_as_out_of_memory(message: str, expected: bool) -> None:
    assert out_of_memory.is_out_of_memory(RuntimeError(message)) is expected
    assert not out_of_memory.is_out_of_memory(ValueError(message))
    assert not out_of_memory.is_out_of_memory(TrainingError(message))


def test_the_real_ones_count() -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert out_of_memory.is_out_of_memory(caught.value)
    assert out_of_memory.is_out_of_memory(torch.cuda.OutOfMemoryError("any words"))


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),  # Python, numpy, and C++'s bad_alloc as torch hands it on
        (RuntimeError("std::bad_alloc"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (OSError(28, "No space left on device"), False),
        (ImportError("libx.so: failed to map segment: Cannot allocate memory"), True),
        (ImportError("No module named x"), False),
        (OutOfMemory("told already", phase="load"), False),
    ],
)
def test_what_counts_on_a_cpu(error: Exception, expected: bool) -> None:
    assert out_of_memory.is_out_of_memory(error) is expected


def test_a_file_that_cannot_be_mapped_for_want_of_memory_counts() -> None:
    from safetensors import SafetensorError

    lacking = SafetensorError("Error while deserializing: Cannot allocate memory (os error 12)")
    assert out_of_memory.is_out_of_memory(lacking)
    assert not out_of_memory.is_out_of_memory(SafetensorError("header too large"))
    with pytest.raises(OutOfMemory) as caught, loading():
        raise lacking
    assert caught.value.phase == "load"


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_memory_is_taken_away_from_a_real_model(smollm2: Path) -> None:
    """The script says so itself: memory ran out, and losses are those of a calm run."""
    script = TESTS.parent / "benchmarks" / "real" / "oom.py"
    done = subprocess.run(
        [sys.executable, str(script), str(smollm2), "--only", "train"],
        capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_loading_says_that_the_model_does_not_fit(monkeypatch: Any) -> None:
    import torch

    with pytest.raises(OutOfMemory, match="does not fit") as caught, loading():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    assert caught.value.phase == "load" and "2.00 GiB" in str(caught.value)
    with pytest.raises(RuntimeError, match="corrupt"), loading():
        raise RuntimeError("corrupt header")
    with pytest.raises(TrainingError), loading():
        raise TrainingError("of ours")
    monkeypatch.setenv(VARIABLE, "load:1")
    with pytest.raises(OutOfMemory, match="injected fault"), loading():
        pass


def test_transformers_hides_it_while_quantising(monkeypatch: Any) -> None:
    """The pinned transformers turns errors of on-the-fly quantisation into a general one."""
    import torch
    from transformers.integrations.bitsandbytes import Bnb4bitQuantize

    from holdfast import models

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 130.00 MiB.")

    monkeypatch.setattr(Bnb4bitQuantize, "convert", full)
    ref = ModelRef(str(LAB_FOLDER))
    with pytest.raises(OutOfMemory, match=r"130\.00 MiB"), loading():
        models.load_model(ref, torch.float32, "cpu", nf4=True)


def test_the_place_of_an_error_is_added_and_its_phase_is_kept() -> None:
    with pytest.raises(OutOfMemory) as caught, located("study.yaml"):
        raise OutOfMemory("too big", phase="step", remedy="smaller")
    assert (caught.value.phase, str(caught.value)) == ("step", "study.yaml: too big\n  → smaller")


@pytest.mark.parametrize("text", ["forward", "sideways:1", "forward:x", "forward<3", "load:-1"])
def test_a_fault_that_cannot_be_read(text: str, monkeypatch: Any) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(UsageError, match="is not a fault"):
        FaultInjector.from_environment()


def test_a_fault_comes_where_it_was_told_to(monkeypatch: Any) -> None:
    import torch

    monkeypatch.setenv(VARIABLE, "answer>10, save:2")
    faults = FaultInjector.from_environment()
    faults.at("answer", 10)
    faults.at("save")
    faults.at("load")
    with pytest.raises(torch.OutOfMemoryError):
        faults.at("save")
    faults.at("save")
    for _ in range(2):
        with pytest.raises(torch.OutOfMemoryError):
            faults.at("answer", 11)


RANK = """
import sys
sys.path[:0] = [sys.argv[1], str(__import__("pathlib").Path(sys.argv[1]).parent)]
from pathlib import Path
from holdfast.errors import OutOfMemory
from test_recovery import Run, deal
try:
    Run(deal() * 2, Path(sys.argv[2])).go()
except OutOfMemory as error:
    print(error.phase, error.message, flush=True)
    raise SystemExit(1)
"""


@pytest.mark.slow
def test_several_processes_stop_instead_of_waiting_for_each_other(tmp_path: Path) -> None:
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    environment = os.environ | {VARIABLE: "forward:2", "OMP_NUM_THREADS": "1", "USE_CPU": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
               str(script), str(TESTS / "train"), str(tmp_path / "out")]  # fmt: skip
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode != 0
    assert "forward out of memory while other processes wait" in done.stdout, done.stderr[-2000:]


@pytest.mark.gpu
def test_scarce_gpu_memory_is_shared_out(slots: list[list[Any]]) -> None:
    """Needs a CUDA device; the cap is set between what one example and a micro-batch take."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    long = [[type(one)(one.ids * 8, one.labels * 8) for one in slot * 8] for slot in slots]
    calm = Run(long, device="cuda")
    at_rest = torch.cuda.memory_reserved()
    torch.cuda.reset_peak_memory_stats()
    calm.go()
    peak = torch.cuda.max_memory_reserved()
    weights, logs = calm.weights, calm.logs
    del calm
    out_of_memory.free()
    run = Run(long, device="cuda")
    with capped(at_rest + (peak - at_rest) * 5 // 8):
        run.go()
    assert run.trainer.events, "the cap was meant to be too low for whole micro-batches"
    assert all(one["allocated_bytes"] for one in run.trainer.events)
    assert run.logs[0]["loss"] == pytest.approx(logs[0]["loss"], abs=1e-5)
    assert _furthest(run.weights, weights) <= 1e-4  # kernels differ with the shape on a GPU
