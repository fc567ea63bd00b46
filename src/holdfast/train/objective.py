"""The loss of a step where methods weigh tokens, compare with the base, or add penalties.

Without whole logits nothing changes about the forward pass: TRL's tiled head returns
log-probabilities and entropies, and what methods make of them is added as a correction. For the
entropy among the likeliest words the tiles are computed once more, and only the largest logits of
each position are kept. Where a
method compares with the base, whole logits are computed for the positions that need them, by the
model as it is and by the model with its adapters switched off, which is the base: no second copy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from holdfast.data.chat import IGNORED
from holdfast.methods import Term

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers.modeling_outputs import ModelOutput

WEIGHTS = "kl_weights"
Outputs: TypeAlias = "ModelOutput | SimpleNamespace"
"""What TRL's fused head returns, or the same fields made from whole logits; and `extra`."""
TILE = 1024
"""Positions whose largest logits are looked for at a time."""


@dataclass(slots=True)
class Objective:
    """The terms of an arm, and what they did in the forward pass under way.

    Attributes:
        terms: of the arm's loss methods, in their order.
        said: what the last pass showed, for the log: means over tokens.
    """

    terms: Sequence[Term]
    said: dict[str, float] = field(default_factory=dict)

    def forward(
        self,
        model: torch.nn.Module,
        plain: torch.nn.Module,
        inputs: Mapping[str, torch.Tensor],
        weights: torch.Tensor | None,
    ) -> Outputs:
        """Run the model on one micro-batch.

        Args:
            model: as the trainer wraps it.
            plain: the same without the wrapping of data parallel, for the base's pass.
            inputs: of the model; labels included.
            weights: of the divergences, shape (rows, width); None: no token is compared.

        Returns:
            What TRL's fused head returns, and `extra`: what is to be added to the sum of the
            cross-entropies, a scalar.
        """
        self.said = {}
        comparing = [one.divergence for one in self.terms if one.divergence]
        if not comparing or weights is None or not bool((weights[:, 1:] > 0).any()):
            with watched(self._most) as tops:
                outputs = model(**inputs, fused_lm_head=True)
            outputs.extra = self._weighed(outputs, tops[0] if tops else None)
            return outputs
        held = weights[:, 1:] > 0
        wanted = held | (inputs["labels"][:, 1:] != IGNORED)
        columns = wanted.any(0).nonzero().squeeze(1)
        given = {key: value for key, value in inputs.items() if key != "labels"}
        with torch.no_grad(), adapters_off(plain):
            own = held.any(1)
            some = {k: v[own] if _by_row(v, own) else v for k, v in given.items()}
            before = plain(**some, logits_to_keep=columns).logits[held[own][:, columns]]
        outputs = model(**given, logits_to_keep=columns)
        logits = outputs.logits
        found = _scores(logits, inputs["labels"][:, 1:][:, columns])
        found.aux_loss = getattr(outputs, "aux_loss", None)
        now = logits[held[:, columns]]
        each = weights[:, 1:][held].to(now.device)
        drift = sum(compare(now.float(), before.float()) for compare in comparing)
        self.said["drift"] = float(drift.detach().mean())
        top = largest(logits[found.label_mask].detach().float(), self._most) if self._most else None
        found.extra = self._weighed(found, top) + (each * drift).sum()
        return found

    @property
    def _most(self) -> int:
        """Of how many words the largest logits are asked for."""
        return max((one.top_k or 0 for one in self.terms if one.weights), default=0)

    def _weighed(self, outputs: Outputs, top: torch.Tensor | None) -> torch.Tensor:
        """What the token weights change of the sum of the cross-entropies.

        Args:
            outputs: of the forward pass.
            top: largest logits in falling order, of each position or of each supervised one.
        """
        total = torch.zeros((), device=outputs.log_probs.device)
        product = None
        for term in self.terms:
            if term.weights:
                entropy = outputs.entropy.detach()
                if term.top_k is not None and top is not None:
                    entropy = _spread(entropy_among(top[:, : term.top_k]), outputs.label_mask)
                factors = term.weights(outputs.log_probs.detach(), entropy, outputs.label_mask)
                product = factors if product is None else product * factors
        if product is None:
            return total
        mask = outputs.label_mask
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


@contextmanager
def watched(count: int) -> Iterator[list[torch.Tensor]]:
    """Keep the largest logits of what TRL's tiled head projects for as long as this lasts.

    Its arguments are taken as they come: gathered weights, scaled and capped logits.

    Args:
        count: how many of each position; 0: nothing is watched.

    Yields:
        A list that gets a tensor of shape (positions, count) with every call.
    """
    kept: list[torch.Tensor] = []
    if not count:
        yield kept
        return
    from trl.trainer import utils

    head = utils._ChunkedLogProbFunction

    class Watching:
        @staticmethod
        def apply(*given: Any) -> object:
            hidden, weight, bias, _, temperature, chunk, cap, scale, *_ = given
            with torch.no_grad():
                tops = [largest_of_head(some, weight, bias, count, chunk)
                        for some in hidden.detach().split(TILE)]  # fmt: skip
                top = torch.cat(tops).float() * scale
                kept.append((top if cap is None else cap * torch.tanh(top / cap)) / temperature)
            return head.apply(*given)

    utils._ChunkedLogProbFunction = Watching
    try:
        yield kept
    finally:
        utils._ChunkedLogProbFunction = head


def largest_of_head(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, count: int, chunk: int
) -> torch.Tensor:
    """The largest logits of each position, in falling order; words are projected in chunks."""
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
    best: torch.Tensor | None = None
    for start in range(0, weight.shape[0], chunk):
        tile = hidden.to(dtype) @ weight[start : start + chunk].to(dtype).t()
        if bias is not None:
            tile += bias[start : start + chunk].to(dtype)
        found = largest(tile, count)
        best = found if best is None else largest(torch.cat([best, found], dim=1), count)
    return best if best is not None else hidden.new_zeros((len(hidden), 0))


def largest(logits: torch.Tensor, count: int) -> torch.Tensor:
    """The largest of each row in falling order, or all if there are fewer."""
    return logits.topk(min(count, logits.shape[1]), dim=1).values


def entropy_among(logits: torch.Tensor) -> torch.Tensor:
    """Entropy of each row in nats, as if there were no other words."""
    log_probs = torch.log_softmax(logits.float(), -1)
    return -(log_probs.exp() * log_probs).sum(1)


def _spread(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Values in the shape of the mask, from one for each position or for each that it marks."""
    mask = mask.to(values.device)
    if values.numel() == mask.numel():
        return values.view(mask.shape).masked_fill(~mask, 0)
    empty = torch.zeros(mask.shape, dtype=values.dtype, device=values.device)
    return empty.masked_scatter(mask, values)


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

    return SimpleNamespace(
        log_probs=_spread(own, mask), entropy=_spread(entropy, mask), is_top1=_spread(top, mask),
        label_mask=mask,
    )  # fmt: skip
