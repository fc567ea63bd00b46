"""Traces one training step of the user's own code: the bytes that are alive, phase by phase.

The model class, PEFT's layers, the checkpointing and TRL's loss are the real ones; only the tensors
are fake, so nothing is computed and nothing is allocated. Two layers of each kind are traced at
several batches, and stacks with one more tell what a layer adds. `holdfast.memory.trace.estimates`
starts this module as a process of its own, gives it jobs as JSON on standard input and reads one
line of JSON for each from standard output.

What differs between the CPU, whose operators the fake tensors run, and CUDA is replaced when the
job is for CUDA: dropout's mask is bool there, and TRL's fused head folds its tiles in a Triton
kernel that allocates nothing.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from holdfast.memory.trace.allocation_tracker import AllocationTracker
from holdfast.memory.trace.fake_model import (
    Untraceable,
    build,
    compared,
    gathering,
    layer_kinds,
    layers_of,
    materialise,
    name_of,
    plain_loss,
    read_config,
    whole_logits,
)
from holdfast.memory.trace.trace_job import TraceJob

BATCHES = (1, 2, 4, 8, 16, 32)
"""Of the smallest stack: as the batch grows another moment of a phase can become its highest, and
the fused head's tile stops growing."""
LAYER_BATCHES = (1, 2, 4)
"""At which the bytes of one more layer are traced: linear in the batch from 2 on. A batch of 1 is
of its own, because dimensions of size 1 change which views need a copy."""
MOST_TOKENS = 1 << 15
"""Tokens after which larger batches are not traced but extrapolated."""
ON_CPU = "holdfast.models.cpu_training"
"""What training on a CPU does otherwise; by name, for this package is below them."""
REPEAT = 2
"""Layers of each kind in the smallest stack, so that a first and a last one can differ."""
BLOCKS = 256
"""Values that share a scale in bitsandbytes' 8-bit optimisers."""
EIGHT_BIT_FROM = 4096
"""Parameters smaller than this keep 32-bit states in bitsandbytes' 8-bit optimisers."""


def trace(job: TraceJob) -> dict[str, object]:
    """All stacks that a job needs, as `holdfast.memory.trace.trace_job.Traced` takes them.

    Raises:
        Untraceable: a model that the trace does not cover.
    """
    started = time.perf_counter()
    stack = layer_kinds(read_config(job))
    # In the order of their last layers, so that the last kind stays last.
    kinds = sorted(set(stack), key=lambda kind: len(stack) - 1 - stack[::-1].index(kind))
    smallest = kinds * REPEAT
    stacks = [smallest]
    for kind in kinds:
        place = smallest.index(kind)
        stacks.append([*smallest[:place], kind, *smallest[place:]])
    batches = [
        batch for batch in BATCHES if batch in LAYER_BATCHES or batch * job.seq <= MOST_TOKENS
    ]
    points = [
        {
            "kinds": {kind: layers.count(kind) for kind in kinds},
            "batch": batch,
            "peaks": trace_stack(job, layers, batch),
        }
        for layers in stacks
        for batch in (batches if layers is smallest else LAYER_BATCHES)
    ]
    return {"stack": stack, "points": points, "seconds": time.perf_counter() - started}


def trace_stack(job: TraceJob, stack: Sequence[str], batch: int) -> dict[str, dict[str, int]]:
    """Peak bytes by category of each phase, for a model of exactly these layers."""
    tracker = AllocationTracker(cuda=job.device == "cuda")
    with _as_trained(job):
        model = build(job, stack)
        fake = FakeTensorMode()
        with fake, tracker:
            materialise(model, tracker)
            if job.device == "cpu" and job.phase == "train" and job.method != "full":
                importlib.import_module(ON_CPU).quicken(model)
            if job.phase == "answer":
                _answer(model, job, stack, batch, tracker)
            else:
                _step(model, job, stack, batch, tracker)
    return {phase: dict(parts) for phase, parts in tracker.peaks.items() if phase}


@contextlib.contextmanager
def _as_trained(job: TraceJob) -> Iterator[None]:
    """Replace what cannot be decided without data, and what only the CPU does."""
    with contextlib.ExitStack() as stack:

        def replace(place: str, new: object) -> None:
            stack.enter_context(mock.patch(place, new))

        # Reads the positions' values; without packing its answer is None.
        found = torch.zeros_like if job.packed else lambda _: None
        replace("transformers.masking_utils.find_packed_sequence_indices", found)
        if job.device == "cuda":
            replace("torch.nn.functional.dropout", _bool_mask_dropout)
        if job.device == "cuda" and job.fused_loss:
            _triton_head(replace)
        if job.device == "cpu":
            replace(f"{ON_CPU}.dropped", _as_many_dropped)
        yield


def _as_many_dropped(count: int, p: float) -> torch.Tensor:
    """As many places as are dropped on average; which ones makes no difference."""
    return torch.zeros(max(1, int(count * p)), dtype=torch.int32)


def _bool_mask_dropout(
    input: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> torch.Tensor:
    """Dropout with CUDA's bool mask; the CPU keeps one in the input's dtype."""
    return torch.native_dropout(input, p, True)[0] if training and p > 0 else input


def _triton_head(replace: Callable[[str, object], None]) -> None:
    """TRL's fused head as it allocates on CUDA.

    Its Triton kernels work in place on the tile of logits, cuBLAS adds to fp32 sums without a
    copy, and the supervised tokens are gathered into a tensor of their own (here: all tokens).
    """
    from trl.trainer import utils

    place = "trl.kernels.chunked_logprob."
    replace("trl.trainer.utils._ChunkedLogProbFunction", gathering(utils._ChunkedLogProbFunction))
    replace(place + "_forward_tile", lambda *_, **__: None)
    replace(place + "_backward_tile", lambda *_, **__: None)
    replace(place + "_addmm_fp32", lambda *_: None)


def _step(
    model: torch.nn.Module,
    job: TraceJob,
    stack: Sequence[str],
    batch: int,
    tracker: AllocationTracker,
) -> None:
    """One micro-batch and one optimiser step, in the state that they find after the first step."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    tracker.enter("states", "optimiser")
    states = [_adam_states(parameter, job.optimizer) for parameter in trained]
    for parameter in trained:
        if job.accumulate:
            parameter.grad = torch.empty_like(parameter)
            tracker.label(parameter.grad, "gradients")
        parameter.register_post_accumulate_grad_hook(
            lambda weight: tracker.label(weight.grad, "gradients")
        )
    for place, layer in enumerate(layers_of(model, len(stack))):
        name = name_of(stack, place)
        layer.register_forward_pre_hook(_entering(tracker, f"forward {name}", "activations"))
        layer.register_forward_hook(_left(tracker, f"backward {name}", place == len(stack) - 1))
    tracker.enter("embedding", "activations")
    inputs = _inputs(job, batch)
    inputs["labels"] = torch.zeros_like(inputs["input_ids"])
    losses: list[Callable[[], torch.Tensor]] = []
    if job.logits != "divergence":  # micro-batches in which nothing is compared are plain
        losses.append(lambda: plain_loss(model, job, inputs))
    if job.logits != "none":
        run = functools.partial(whole_logits, model, job, inputs)
        losses.append(lambda: compared(job, run, model, tracker))
    for compute in losses:
        tracker.enter("embedding", "activations")
        loss = compute()
        tracker.enter("head", "logits")
        loss.backward()
    tracker.enter("step", "workspace")
    del loss
    extra = torch.empty(_step_bytes(trained, job), dtype=torch.uint8)
    del extra, states


def _answer(
    model: torch.nn.Module,
    job: TraceJob,
    stack: Sequence[str],
    batch: int,
    tracker: AllocationTracker,
) -> None:
    """Read the prompt, then one more token with the cache grown to `seq` tokens."""
    for place, layer in enumerate(layers_of(model, len(stack))):
        name = f"forward {name_of(stack, place)}"
        layer.register_forward_pre_hook(_entering(tracker, name, "activations"))
    tracker.enter("embedding", "activations")
    inputs = _inputs(job, batch)
    with torch.no_grad():
        output = model(**inputs, use_cache=True, logits_to_keep=1)
        tracker.enter("head", "logits")
        scores = output.logits[:, -1].float()
        cache, ids = output.past_key_values, inputs["input_ids"][:, :1]
        del output, scores
        for layer in layers_of(model, len(stack)):
            layer._forward_pre_hooks.clear()
        tracker.enter("decode", "activations")
        output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        output.logits[:, -1].float()


def _inputs(job: TraceJob, batch: int) -> dict[str, torch.Tensor]:
    ids = torch.zeros((batch, job.seq), dtype=torch.int64)
    # Without padding sdpa needs no mask, which the model finds out by looking at it.
    name = "position_ids" if job.packed else "attention_mask"
    told = job.packed or job.padded or job.attention == "eager"
    return {"input_ids": ids} | ({name: torch.ones_like(ids)} if told else {})


def _entering(tracker: AllocationTracker, phase: str, category: str) -> Callable[..., None]:
    return lambda *_: tracker.enter(phase, category)


def _left(tracker: AllocationTracker, backward: str, last: bool) -> Callable[..., None]:
    """After a layer: the loss follows the last one; its backward begins with its own gradient."""

    def hook(module: object, args: object, output: Any) -> None:
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        if hidden.requires_grad:  # the base's own pass has no way back
            hidden.register_hook(lambda _: tracker.enter(backward, "workspace"))
        if last:
            tracker.enter("loss", "logits")

    return hook


def _adam_states(parameter: torch.Tensor, optimizer: str) -> list[torch.Tensor]:
    """Both moments: torch's in the parameter's dtype, bitsandbytes' in 32 or 8 bits."""
    if "8bit" in optimizer and parameter.numel() >= EIGHT_BIT_FROM:
        scales = math.ceil(parameter.numel() / BLOCKS)
        kinds = [(parameter.numel(), torch.uint8), (scales, torch.float32)]
    elif "8bit" in optimizer or "32bit" in optimizer or "bnb" in optimizer:
        kinds = [(parameter.numel(), torch.float32)]
    else:
        kinds = [(parameter.numel(), parameter.dtype)]
    return [torch.empty(size, dtype=dtype) for size, dtype in (*kinds, *kinds)]


def _step_bytes(trained: Sequence[torch.Tensor], job: TraceJob) -> int:
    """What the step itself allocates: torch's plain AdamW takes roots of the second moments."""
    if job.optimizer != "adamw_torch":
        return 0
    sizes = [parameter.numel() * parameter.element_size() for parameter in trained]
    return sum(sizes) if job.device == "cuda" else 2 * max(sizes)  # all at once, or one by one


def main() -> None:
    """Read jobs from standard input; write one line for each, and nothing else, to the output."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print must not get between
    for value in json.load(sys.stdin):
        job = TraceJob(**value)
        try:
            result = trace(job)
        except Untraceable as error:
            result = {"reason": str(error)}
        except Exception as error:  # any model's own code: the formula answers instead
            first = (str(error).strip().splitlines() or [""])[0]
            passing = isinstance(error, ImportError | MemoryError | OSError)
            result = {"reason": f"{type(error).__name__}: {first[:300]}", "passing": passing}
        print(json.dumps(result), file=answers, flush=True)


if __name__ == "__main__":
    main()
