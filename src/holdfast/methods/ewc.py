"""EWC: holds weights near where they began, the more so the more the old data need them.

Elastic weight consolidation (arXiv:1612.00796): a quadratic penalty whose weights are the diagonal
of the Fisher information, measured on some of the base's own answers to old prompts. Under LoRA the
penalty is on the change of the matrices, and its diagonal is that of Kronecker-factored curvature
(arXiv:1503.05671): mean squared input times mean squared output gradient, two vectors for each
matrix instead of a copy of it. When all weights are trained it is the plain diagonal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from pydantic import Field

from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.methods import LossMethod, MethodContext, SharedWork, Term, _own_answers
from holdfast.models import weight_delta
from holdfast.types import Example

if TYPE_CHECKING:
    import torch

Tensors: TypeAlias = "Mapping[str, torch.Tensor]"
"""One batch."""


class EWC(LossMethod):
    """Hold the weights that the old data need near the base's."""

    options: Options

    class Options(_own_answers.Pool):
        """Settings of ``ewc``; `source`, `pool` and so on are those of ``replay``."""

        weight: float = Field(0.01, gt=0)
        """As that of ``l2_init``: the importances have a mean of 1."""
        samples: int = Field(200, ge=1)
        """Old examples on which the importance is measured."""

    mixes = True
    looks = True

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        given = self.options
        return f"EWC ({given.weight:g}, on {given.samples} of {_own_answers.words(given)})"

    def identity(self) -> Mapping[str, object]:
        """See `DataMethod.identity`."""
        given = self.options
        return {
            "weight": given.weight,
            "samples": given.samples,
            "pool": _own_answers.identity(given),
        }

    def check(self, context: MethodContext) -> None:
        """See `DataMethod.check`."""
        _own_answers.check(self.options, context)

    def shared(self, context: MethodContext) -> list[SharedWork]:
        """The base's answers to old prompts, the same as those of ``replay``."""
        wanted = None if context.bound is None else self.options.samples
        return _own_answers.shared(self.options, context, wanted)

    def apply(
        self, examples: Sequence[Example], context: MethodContext, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """Append the examples that are looked at before training, and never trained on."""
        probes = _own_answers.probes(self.options, context, made, self.options.samples)
        note = f"importance of the weights measured on {len(probes)} old answers"
        return [*examples, *probes], [note]

    def overhead(self) -> MethodOverhead:
        """See `LossMethod.overhead`."""
        return MethodOverhead(("ewc",), copies=2)

    def term(self) -> Term:
        """See `LossMethod.term`."""
        held: list[Any] = []

        def prepare(model: torch.nn.Module, probes: Sequence[Tensors]) -> None:
            if weight_delta.only_low_rank(model):
                held.extend((None, factored(model, probes)))
            else:
                held.extend((weight_delta.copies(model), diagonal(model, probes)))

        def penalty(model: torch.nn.Module) -> torch.Tensor:
            return self.options.weight / 2 * weight_delta.square(model, *held)

        return Term(prepare=prepare, penalty=penalty)


def factored(
    model: torch.nn.Module, probes: Sequence[Tensors]
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Diagonal of the Kronecker-factored Fisher information of every adapted matrix, mean 1.

    Args:
        model: with fresh adapters, which change nothing yet.
        probes: batches of one row, with ``input_ids``, ``attention_mask`` and ``labels``.

    Returns:
        Module name to mean squared inputs, shape (in,), and mean squared gradients of the outputs,
        shape (out,), per token.
    """
    names = [name for name, *_ in weight_delta.low_rank(model)]
    modules = {name: model.get_submodule(name) for name in names}
    inputs: dict[str, torch.Tensor] = {}
    outputs: dict[str, torch.Tensor] = {}
    reading = [False]

    def add(into: dict[str, torch.Tensor], name: str, values: torch.Tensor) -> None:
        squares = values.detach().float().flatten(0, -2).square().sum(0)
        into[name] = into[name] + squares if name in into else squares

    def look(name: str, given: Sequence[torch.Tensor], out: torch.Tensor) -> None:
        if reading[0]:  # but not when a layer is recomputed in the backward pass
            add(inputs, name, given[0])
            out.register_hook(lambda gradient: add(outputs, name, gradient))

    hooks = [
        module.register_forward_hook(lambda _, given, out, name=name: look(name, given, out))
        for name, module in modules.items()
    ]
    try:
        tokens = 0
        for batch in probes:
            tokens += int(batch["attention_mask"].sum())
            reading[0] = True
            loss = _loss(model, batch)
            reading[0] = False
            loss.backward()
            model.zero_grad(set_to_none=True)
    finally:
        for hook in hooks:
            hook.remove()
    total = sum(float(inputs[n].sum()) * float(outputs[n].sum()) for n in names) / tokens**2
    count = sum(len(inputs[name]) * len(outputs[name]) for name in names)
    mean = max(total / count, 1e-30)
    return {
        name: (inputs[name] / tokens / mean**0.5, outputs[name] / tokens / mean**0.5)
        for name in names
    }


def diagonal(
    model: torch.nn.Module, probes: Sequence[Tensors]
) -> dict[str, tuple[torch.Tensor, None]]:
    """Diagonal of the Fisher information of everything that is trained, mean 1.

    Returns:
        Parameter name to (importance of the parameter's shape, None).
    """
    import torch

    found: dict[str, torch.Tensor] = {}
    for batch in probes:
        _loss(model, batch).backward()
        for name, weight in model.named_parameters():
            if weight.requires_grad and weight.grad is not None:
                square = weight.grad.detach().float().square()
                found[name] = found[name] + square if name in found else square
        model.zero_grad(set_to_none=True)
    total = sum(float(one.sum()) for one in found.values())
    mean = max(total / sum(one.numel() for one in found.values()), 1e-30)
    with torch.no_grad():
        return {name: (one / mean, None) for name, one in found.items()}


def _loss(model: torch.nn.Module, batch: Tensors) -> torch.Tensor:
    """The sum of the cross-entropies of the answer's tokens."""
    import torch

    given = {key: batch[key] for key in ("input_ids", "attention_mask")}
    logits = model(**given, use_cache=False).logits[:, :-1]
    labels = batch["labels"][:, 1:].to(logits.device)
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), ignore_index=-100, reduction="sum"
    )
