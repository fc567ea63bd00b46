"""What does a loss keep that compares the model with the base, to the trace?

The tensors are those of `holdfast.train.objective` and of TRL's `GKDTrainer`. The trace has no
data, so every position that was asked for is gathered. Read only in the estimator's own process.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from holdfast.memory.trace.ledger import Ledger
from holdfast.memory.trace.traced import TraceJob


def compared(job: TraceJob, run: Callable[[], Any], model: Any, ledger: Ledger) -> Any:
    """The loss of one micro-batch, a scalar.

    Args:
        job: says which loss.
        run: the model's whole logits, shape (rows, positions, words), float32.
        model: its adapters are switched off for the base's pass.
        ledger: told when the model's own pass begins.
    """
    if job.logits == "divergence":
        return _divergence(run, model)
    import torch

    before = _gathered(_of_base(run, model))
    ledger.enter("embedding", "activations")
    logits = run()
    log_probs = torch.log_softmax(_gathered(logits), -1)
    own = log_probs[:, 0]
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs).sum(-1)
    now = _gathered(logits)
    base, after = torch.log_softmax(before, -1), torch.log_softmax(now, -1)
    return -own.sum() + (base.exp() * (base - after)).sum() + 0 * entropy.sum()


def _divergence(run: Callable[[], Any], model: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental
        from trl.experimental.gkd import GKDTrainer

    student = run()
    teacher = _of_base(run, model)
    return GKDTrainer.generalized_jsd_loss(student[:, :-1], teacher[:, :-1], beta=0.5)


def _of_base(run: Callable[[], Any], model: Any) -> Any:
    import torch

    switch = model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()
    with torch.no_grad(), switch:
        return run()


def _gathered(logits: Any) -> Any:
    """All positions as `logits[mask]` picks them: a copy, shape (rows x positions, words)."""
    import torch

    rows, positions = logits.shape[:2]
    places = torch.zeros(rows * positions, dtype=torch.int64)
    return logits[places, places]
