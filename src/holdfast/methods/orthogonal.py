"""Orthogonal: every stage learns in directions that earlier stages left alone.

O-LoRA (Wang et al., arXiv:2310.14152): each task of a sequence gets a low-rank adapter of its own;
those of earlier tasks stay as they are, and the new one is held orthogonal to them by a penalty on
A_earlier·A_newᵀ. Paper and code differ: the paper squares the entries (its equation 8), the
authors' code sums their absolute values, with the weight 0.5. This follows the code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from holdfast.config import Section, TrainSpec
from holdfast.errors import StudyError
from holdfast.methods import LossMethod, Term
from holdfast.models import weight_delta

if TYPE_CHECKING:
    import torch

KEEPS_ZERO = ("adamw", "adam", "lion", "sgd", "rmsprop", "adagrad", "adafactor", "paged_")
"""How optimisers begin that leave alone what has no gradient; those that project or mix the entries
of a matrix might not."""


class Orthogonal(LossMethod):
    """Learn every stage beside those before it."""

    options: Options
    grows = True

    class Options(Section):
        """Settings of ``orthogonal``."""

        weight: float = Field(0.5, gt=0)
        """Nats per supervised token and unit of Σ |A_earlier·A_newᵀ|."""

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        return f"orthogonal to earlier stages ({self.options.weight:g})"

    def check_training(self, spec: TrainSpec) -> None:
        """Refuse what would move the adapters of earlier stages, or has no plain ones."""
        lora = spec.lora
        widths = ("rank_pattern", "alpha_pattern", "modules_to_save", "target_parameters")
        given = [name for name in (*widths, "trainable_token_indices") if getattr(lora, name)]
        if spec.method == "full" or lora.variant != "lora" or given:
            said = "all weights" if spec.method == "full" else given[0] if given else lora.variant
            raise StudyError(
                f"orthogonal gives every stage a plain LoRA of its own, and {said} would be shared "
                "by all",
                where="train",
                remedy="use train.method lora or qlora, lora.variant lora, and one rank",
            )
        if spec.weight_decay:
            raise StudyError(
                "weight decay would shrink the adapters of earlier stages",
                where="train.weight_decay",
                remedy="set it to 0",
            )
        if not spec.optim.startswith(KEEPS_ZERO):
            raise StudyError(
                f"{spec.optim} may move weights that have no gradient, and so the adapters of "
                "earlier stages",
                where="train.optim",
                remedy="use adamw_torch, or another of the family",
            )

    def term(self) -> Term:
        """See `LossMethod.term`."""

        def penalty(model: torch.nn.Module) -> torch.Tensor:
            import torch

            found = [
                overlap(a, rank)
                for name, a, *_ in weight_delta.low_rank(model)
                if (rank := weight_delta.earlier_rank(model.get_submodule(name)))
            ]
            if not found:  # the first stage: there is nothing to be orthogonal to
                return next(model.parameters()).new_zeros((), dtype=torch.float32)
            device = found[0].device
            return self.options.weight * torch.stack([one.to(device) for one in found]).sum()

        return Term(penalty=penalty)


def overlap(a: torch.Tensor, rank: int) -> torch.Tensor:
    """Σ |A_earlier·A_newᵀ|, a scalar; no gradient reaches what is earlier.

    Args:
        a: shape (r, in), the rows of earlier stages first.
        rank: how many they are.
    """
    earlier, new = a[:rank].detach().float(), a[rank:].float()
    return (earlier @ new.T).abs().sum()
