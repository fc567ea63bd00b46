"""The losses of a traced step, with the tensors of those that training computes.

This module needs torch; it is imported only in the tracer's own process.
"""

from __future__ import annotations

import contextlib
import importlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import torch

from holdfast.memory.trace.allocation_tracker import AllocationTracker
from holdfast.memory.trace.trace_job import TraceJob

HEAD_ON_CPU = "holdfast.models.cpu_head"
"""The head as training has it on a CPU; by name, for this package is below it."""
Batch = Mapping[str, torch.Tensor]


def plain_loss(model: torch.nn.Module, job: TraceJob, inputs: Batch) -> torch.Tensor:
    """As the trainer computes it; what the model returned is dropped before the backward pass."""
    more = {"fused_lm_head": True} if job.fused_loss else {}
    count = torch.ones((), dtype=torch.int64)
    on_cpu = job.device == "cpu" and job.fused_loss
    head = _head_on_cpu(model) if on_cpu else contextlib.nullcontext()
    with _autocast(job), head:
        outputs = model(**inputs, use_cache=False, num_items_in_batch=count, **more)
    if job.autocast:  # accelerate wraps the forward pass like this
        from accelerate.utils import convert_to_fp32  # type: ignore[import-untyped]

        outputs = convert_to_fp32(outputs)
    return (-outputs.log_probs).sum() / count if job.fused_loss else outputs.loss


def whole_logits(model: torch.nn.Module, job: TraceJob, inputs: Batch) -> torch.Tensor:
    """Whole logits of a row's last positions, as accelerate hands them out."""
    given = {key: value for key, value in inputs.items() if key != "labels"}
    with _autocast(job):
        wanted = torch.zeros(job.positions or job.seq, dtype=torch.int64)
        logits = model(**given, use_cache=False, logits_to_keep=wanted).logits
    return logits.float() if job.autocast else logits


def compared(
    job: TraceJob,
    run: Callable[[], torch.Tensor],
    model: torch.nn.Module,
    tracker: AllocationTracker,
) -> torch.Tensor:
    """The loss that compares the model with the base, of one micro-batch; a scalar.

    The tensors are those of `holdfast.train.objective` and of TRL's `GKDTrainer`. The trace has no
    data, so every position that was asked for is gathered.

    Args:
        job: says which loss.
        run: the model's whole logits, shape (rows, positions, words), float32.
        model: its adapters are switched off for the base's pass.
        tracker: told when the model's own pass begins.
    """
    if job.logits == "divergence":
        return _divergence(run, model)
    before = _gathered(_of_base(run, model))
    tracker.enter("embedding", "activations")
    logits = run()
    log_probs = torch.log_softmax(_gathered(logits), -1)
    own = log_probs[:, 0]
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs).sum(-1)
    now = _gathered(logits)
    base, after = torch.log_softmax(before, -1), torch.log_softmax(now, -1)
    return -own.sum() + (base.exp() * (base - after)).sum() + 0 * entropy.sum()


def _divergence(run: Callable[[], torch.Tensor], model: torch.nn.Module) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental
        from trl.experimental.gkd import GKDTrainer

    student = run()
    teacher = _of_base(run, model)
    return GKDTrainer.generalized_jsd_loss(student[:, :-1], teacher[:, :-1], beta=0.5)


def _of_base(run: Callable[[], torch.Tensor], model: torch.nn.Module) -> torch.Tensor:
    switch = (
        model.disable_adapter() if hasattr(model, "disable_adapter") else contextlib.nullcontext()
    )
    with torch.no_grad(), switch:
        return run()


def _gathered(logits: torch.Tensor) -> torch.Tensor:
    """All positions as `logits[mask]` picks them: a copy, shape (rows x positions, words)."""
    rows, positions = logits.shape[:2]
    places = torch.zeros(rows * positions, dtype=torch.int64)
    return logits[places, places]


def gathering(function: Any) -> type:
    """The same function of hidden states that were gathered; here: of all of them."""

    class Gathered:
        @staticmethod
        def apply(hidden: torch.Tensor, *rest: object) -> object:
            return function.apply(hidden.clone(), *rest)

    return Gathered


@contextlib.contextmanager
def _head_on_cpu(model: torch.nn.Module) -> Iterator[None]:
    """The head as training has it on a CPU, of all positions: which have a loss is not known."""
    from trl.trainer import utils

    with importlib.import_module(HEAD_ON_CPU).on_cpu(model):
        place, gathered = "trl.trainer.utils.", gathering(utils._ChunkedLogProbFunction)
        with (
            mock.patch(place + "_use_triton", lambda _: False),
            mock.patch(place + "_ChunkedLogProbFunction", gathered),
        ):
            yield


def _autocast(job: TraceJob) -> AbstractContextManager[None]:
    return torch.autocast("cpu", torch.bfloat16) if job.autocast else contextlib.nullcontext()
