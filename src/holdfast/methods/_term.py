"""What a loss method does in a step of Holdfast's trainer, as a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.data.phases import Phases

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Term:
    """What a loss method does in a training step; needs torch.

    The loss of a step is the sum over its supervised tokens of weight times cross-entropy, plus
    divergences and penalties, divided by the number of supervised tokens of the whole step.

    Attributes:
        prepare: called once before the first step with the model (fresh adapters, on its device)
            and the examples of kind `PROBE` as batches of tensors on that device.
        weights: (log-probabilities of the labels, entropies of the predictions in nats, mask), each
            of shape (rows, positions), to weights of the same shape, detached. Each row is one
            example.
        top_k: in the place of entropies `weights` gets the logits of so many likeliest words, in
            falling order, shape (rows, positions, words); a smaller vocabulary gives fewer.
        reference: `weights` gets a fourth argument: the base's log-probabilities of the labels, of
            the same shape; asks for a second pass with the adapters switched off.
        divergence: (logits, the base's logits), each of shape (positions, words), to nats, shape
            (positions,); asks for whole logits and a second pass with the adapters switched off.
        instead: a token's cross-entropy counts for less the more its divergence counts for: by the
            share that the divergence's weight is of this one. None: whole.
        without_target: both of these lack the word that comes next: its logit is `ABSENT`.
        penalty: the model, to a scalar in nats per supervised token; added once per step.
        begin: called before every step with the model, the steps behind it, and those of the run.
        end: called after every step with the model, before anything of it is kept or read.
        kept: tensors that outlast an interruption: written with every checkpoint, and put back
            before the first step that follows. `begin` fills and changes it.
        phases: examples of one kind have steps of their own; None: all kinds are mixed evenly.
    """

    prepare: Callable[[torch.nn.Module, Sequence[Mapping[str, torch.Tensor]]], None] | None = None
    weights: Callable[..., torch.Tensor] | None = None
    top_k: int | None = None
    reference: bool = False
    divergence: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None
    instead: float | None = None
    without_target: bool = False
    penalty: Callable[[torch.nn.Module], torch.Tensor] | None = None
    begin: Callable[[torch.nn.Module, int, int], None] | None = None
    end: Callable[[torch.nn.Module], None] | None = None
    kept: MutableMapping[str, torch.Tensor] | None = None
    phases: Phases | None = None

    @property
    def compares(self) -> bool:
        """Whether the base runs too, as the model with its adapters switched off."""
        return self.reference or self.divergence is not None


ABSENT = -1e9
"""The logit of a word that is left out: its probability is 0, and 0 times its logarithm is too."""
