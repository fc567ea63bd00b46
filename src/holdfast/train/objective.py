"""The loss of a step where methods weigh tokens, compare with the base, or add penalties.

Without whole logits nothing changes about the forward pass: TRL's tiled head returns
log-probabilities and entropies, and what methods make of them is added as a correction; the base's
log-probabilities are those of the same head with the adapters switched off. Where a method compares
whole predictions with the base's, all logits are computed for the positions that need them, by the
model as it is and by the base: no second copy of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, TypeAlias

import torch

from holdfast.data.chat import IGNORED
from holdfast.methods import Term
from holdfast.methods._term import ABSENT
from holdfast.models.language_head import largest, spread, watched
from holdfast.train.packed import apart, predictions, together

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers.modeling_outputs import ModelOutput

WEIGHTS = "kl_weights"
Outputs: TypeAlias = "ModelOutput | SimpleNamespace"
"""What TRL's fused head returns, or the same fields made from whole logits; and `extra`."""


@dataclass(slots=True)
class Objective:
    """The terms of an arm, and what they did in the forward pass under way.

    Attributes:
        terms: of the arm's loss methods, in their order.
        gathered: several processes hold shares of the weights and gather them in every pass
            together, so each has to make as many passes as the others.
        said: what the last pass showed, for the log: means over tokens.
    """

    terms: Sequence[Term]
    gathered: bool = False
    said: dict[str, float] = field(default_factory=dict)

    def forward(
        self,
        model: torch.nn.Module,
        plain: torch.nn.Module,
        inputs: Mapping[str, torch.Tensor],
        weights: torch.Tensor | None,
        places: Sequence[tuple[int, int, int]] | None = None,
    ) -> Outputs:
        """Run the model on one micro-batch.

        Args:
            model: as the trainer wraps it.
            plain: the same without the wrapping of data parallel, for the base's pass.
            inputs: of the model; labels included.
            weights: of the divergences, shape (rows, width); None: no token is compared.
            places: of the examples, where several share a row (`packed.EXAMPLES`).

        Returns:
            What TRL's fused head returns, and `extra`: what is to be added to the sum of the
            cross-entropies, a scalar.
        """
        self.said = {}
        comparing = [one for one in self.terms if one.divergence]
        held = None if weights is None or not comparing else weights[:, 1:] > 0
        if held is None or weights is None or not bool(held.any()):
            if held is not None and self.gathered:  # for the others, which may compare
                first = torch.arange(len(held), device=held.device) < 1
                _base(plain, inputs, first, first.new_zeros(1, dtype=torch.long))
            before = self._reference(plain, inputs)
            with watched(self._most) as tops:
                outputs = model(**inputs, fused_lm_head=True)
            own_rows = predictions(places, inputs["labels"].shape[1]) if places else None
            top = tops[0] if tops else None
            outputs.extra = self._weighed(outputs, top, own_rows, before, None)
            return outputs
        wanted = held | (inputs["labels"][:, 1:] != IGNORED)
        columns = wanted.any(0).nonzero().squeeze(1)
        own = held.any(1)
        before = _base(plain, inputs, own, columns)[held[own][:, columns]]
        reference = self._reference(plain, inputs)
        outputs = model(**_without_labels(inputs), logits_to_keep=columns)
        logits = outputs.logits
        found = _scores(logits, inputs["labels"][:, 1:][:, columns])
        found.aux_loss = getattr(outputs, "aux_loss", None)
        now = logits[held[:, columns]]
        each = weights[:, 1:][held].to(now.device)
        next_words = inputs["input_ids"][:, 1:][held].to(now.device)
        pair = now.float(), before.float().to(now.device)
        drift = sum(_drift(one, *pair, next_words, one is comparing[-1]) for one in comparing)
        self.said["drift"] = float(drift.detach().mean())
        most = self._most
        top = largest(logits[found.label_mask].detach(), most).float() if most else None
        width = inputs["labels"].shape[1]
        own_rows = predictions(places, width, columns) if places else None
        if reference is not None:
            reference = reference[:, columns]
        left = self._left(weights[:, 1:][:, columns])
        weighed = self._weighed(found, top, own_rows, reference, left)
        found.extra = weighed + (each * drift).sum()
        return found

    def _left(self, weights: torch.Tensor) -> torch.Tensor | None:
        """What of each token's cross-entropy its divergence leaves; None: all.

        Args:
            weights: of the divergences, shape (rows, positions).
        """
        found = [weights / one.instead for one in self.terms if one.instead is not None]
        return (1 - found[0]).clamp(min=0) if found else None

    @property
    def _most(self) -> int:
        """Of how many words the largest logits are asked for."""
        return max((one.top_k or 0 for one in self.terms if one.weights), default=0)

    def _reference(
        self, plain: torch.nn.Module, inputs: Mapping[str, torch.Tensor]
    ) -> torch.Tensor | None:
        """The base's log-probabilities of the labels, shape (rows, positions); None: unasked."""
        if not any(one.reference for one in self.terms):
            return None
        with torch.no_grad(), adapters_off(plain):
            found: torch.Tensor = plain(**inputs, fused_lm_head=True).log_probs
        return found

    def _weighed(
        self,
        outputs: Outputs,
        top: torch.Tensor | None,
        own_rows: torch.Tensor | None,
        reference: torch.Tensor | None,
        left: torch.Tensor | None,
    ) -> torch.Tensor:
        """What token weights change of the sum of the cross-entropies.

        Args:
            outputs: of the model.
            top: the largest logits.
            own_rows: see `packed.predictions`: a method is shown each example in a row of its own.
            reference: see `_reference`.
            left: see `_left`.
        """
        total = torch.zeros((), device=outputs.log_probs.device)
        mask = outputs.label_mask
        product = None if left is None else left.to(total.device)
        for term in self.terms:
            if term.weights:
                seen = outputs.entropy.detach()
                if term.top_k is not None and top is not None:  # `watched` raises where it is None
                    seen = spread(top[:, : term.top_k], mask)
                shown = [outputs.log_probs.detach(), seen, mask]
                if term.reference and reference is not None:
                    shown.append(reference.to(mask.device))
                if own_rows is not None:
                    shown = [apart(one, own_rows) for one in shown]
                factors = term.weights(*shown)
                if own_rows is not None:
                    factors = together(factors, own_rows, mask)
                product = factors if product is None else product * factors
        if product is None:
            return total
        if bool(mask.any()):
            self.said["weight"] = float(product[mask].mean())
        return total + ((product - 1) * -outputs.log_probs)[mask].sum()

    def penalties(self, model: torch.nn.Module) -> torch.Tensor | None:
        """The sum of the penalties, nats per supervised token; None without any."""
        found = [term.penalty(model) for term in self.terms if term.penalty]
        if not found:
            return None
        total = sum(found[1:], found[0])
        self.said["penalty"] = float(total.detach())
        return total


def adapters_off(model: PeftModel) -> AbstractContextManager[None]:
    """The base: for as long as this lasts, `model` runs without its adapters."""
    switch: AbstractContextManager[None] = model.disable_adapter()
    return switch


def _base(
    plain: torch.nn.Module,
    inputs: Mapping[str, torch.Tensor],
    rows: torch.Tensor,
    columns: torch.Tensor,
) -> torch.Tensor:
    """The base's logits at some positions of some rows, shape (rows, positions, words)."""
    some = {k: v[rows] if _by_row(v, rows) else v for k, v in _without_labels(inputs).items()}
    with torch.no_grad(), adapters_off(plain):
        found: torch.Tensor = plain(**some, logits_to_keep=columns).logits
    return found


def _without_labels(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value for key, value in inputs.items() if key != "labels"}


def _drift(
    term: Term, now: torch.Tensor, before: torch.Tensor, next_words: torch.Tensor, last: bool
) -> torch.Tensor:
    """One term's divergence at each position.

    Args:
        term: one with a divergence.
        now: logits, shape (positions, words).
        before: the base's.
        next_words: ids, shape (positions,).
        last: nobody else needs these logits, so that they are changed where they lie.
    """
    assert term.divergence is not None
    if term.without_target:
        how, gone = "scatter_" if last else "scatter", next_words[:, None]
        now, before = (getattr(one, how)(1, gone, ABSENT) for one in (now, before))
    return term.divergence(now, before)


def _by_row(value: object, rows: torch.Tensor) -> bool:
    return isinstance(value, torch.Tensor) and value.shape[:1] == rows.shape


def _scores(logits: torch.Tensor, labels: torch.Tensor) -> SimpleNamespace:
    """The fields of TRL's fused head, from whole logits.

    Args:
        logits: shape (rows, positions, words).
        labels: shape (rows, positions), already shifted.
    """
    mask = labels != IGNORED
    chosen = logits[mask].float()
    log_probs = torch.log_softmax(chosen, -1)
    own = log_probs.gather(1, labels[mask].to(chosen.device)[:, None]).squeeze(1)
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs).sum(1)
        top = chosen.argmax(1) == labels[mask].to(chosen.device)

    made = {"log_probs": own, "entropy": entropy, "is_top1": top}
    return SimpleNamespace(label_mask=mask, **{k: spread(v, mask) for k, v in made.items()})
