"""Merge: makes one adapter of the weights of several trainings.

The changes ΔW = B·A of several adapters are averaged (model soups: Wortsman et al.,
arXiv:2203.05482; task arithmetic: Ilharco et al., arXiv:2212.04089), averaged along the arc
(SLERP), or thinned out first (TIES: Yadav et al., arXiv:2306.01708; DARE: Yu et al.,
arXiv:2311.03099). PEFT's functions thin out and add up; the agreement on signs is our own, as
PEFT's leaves the weights out of the vote and divides by heads. Averages are exact: factors are put
side by side, and the rank is the sum of the ranks. What is thinned out has every rank, and the
nearest matrix of that same sum of ranks is kept.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import AliasChoices, Field, model_validator

from holdfast.config import Section
from holdfast.errors import ModelError
from holdfast.methods import WeightMethod
from holdfast.methods._products import Pair, inner, nearest
from holdfast.models import lora_files

if TYPE_CHECKING:
    import torch

EXACT = {"linear", "slerp"}
MEANS = {"ties": "magnitude", "dare_ties": "random"}
"""How they prune. They divide by the weights that agree: 1 each where none are given, not 1/n."""
DENSITY = 0.5


class Merge(WeightMethod):
    """Make one adapter of several."""

    options: Options

    class Options(Section):
        """Settings of ``merge``."""

        partners: tuple[str, ...] = Field((), validation_alias=AliasChoices("with", "partners"))
        """Other arms; their weights of the same seed and step go in. [with]"""
        seeds: bool = False
        """All seeds of the arm, and of its partners, go into one."""
        stages: bool = False
        """Where tasks are learned one after the other: the weights after every stage so far."""
        how: Literal["linear", "slerp", "ties", "dare_linear", "dare_ties", "magnitude_prune"] = (
            "linear"
        )
        """Average, average along the arc, or thinned out: by sign, by chance, by size."""
        weights: tuple[float, ...] | None = None
        """Of the arm itself and of each partner; left out: equal."""
        density: float | None = Field(None, gt=0, lt=1)
        """Share of the entries that thinning out keeps; left out: a half."""
        seed: int = Field(0, ge=0)
        """Of what is dropped by chance."""
        checkpoints: Literal["last", "all"] = "last"
        """Merge the last checkpoints, or those of every step."""

        @model_validator(mode="after")
        def _makes_sense(self) -> Self:
            if self.how in EXACT:
                if self.density is not None:
                    raise ValueError(f"{self.how} keeps everything: leave `density` out")
                if not self.partners and not self.seeds and not self.stages:
                    raise ValueError(
                        "nothing to merge with: give `with: [ARM]`, `seeds: true` or `stages: true`"
                    )
            several = self.seeds or self.stages
            if self.how == "slerp" and (len(self.partners) != 1 or several):
                raise ValueError(
                    "an arc lies between two: give one arm in `with`, and no seeds or stages"
                )
            if self.weights is not None and len(self.weights) != 1 + len(self.partners):
                raise ValueError(
                    f"{len(self.weights)} weights for {1 + len(self.partners)} arms, the arm itself"
                    " included"
                )
            if self.weights is not None and not sum(self.weights):
                raise ValueError("the weights add up to nothing")
            return self

    def __init__(self, options: Options) -> None:
        """Take the settings."""
        super().__init__(options)
        self.partners = options.partners
        self.over_seeds = options.seeds
        self.over_stages = options.stages
        self.checkpoints = options.checkpoints

    def identity(self) -> Mapping[str, object]:
        """See `DataMethod.identity`; until weights had a vote in the sign, they led elsewhere."""
        found, weights = dict(super().identity()), self.options.weights
        if not self.over_stages:  # which came later
            del found["stages"]
        weighed = self.options.how in MEANS and weights and any(one != 1 for one in weights)
        return {**found, "signs": "weighed"} if weighed else found

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        chosen = self.options
        what = [*(["all seeds"] if chosen.seeds else []), *chosen.partners]
        what += ["the stages before"] * chosen.stages
        words = f"merged with {', '.join(what)} ({chosen.how})" if what else f"{chosen.how} alone"
        if chosen.how not in EXACT:
            words += f", {chosen.density or DENSITY:.0%} of the entries kept"
        return words

    def make(self, adapters: Sequence[Path], folder: Path) -> Mapping[str, object]:
        """See `WeightMethod.make`; also for one adapter alone, which is thinned out.

        Args:
            adapters: arm by arm, the arm's own first, each with as many seeds and stages.
            folder: gets the adapter.

        Returns:
            How many adapters, the largest rank, and the share of the squares of the merged change
            that the kept rank holds (1 where nothing was cut).

        Raises:
            ModelError: adapters that are no plain LoRA, or of different models.
        """
        config, changes = _read(adapters)
        weights = self._weights(len(adapters))
        names = list(dict.fromkeys(name for one in changes for name in one))
        made: dict[str, Pair] = {}
        held, whole = 0.0, 0.0
        for name in names:
            pairs = [one.get(name) for one in changes]
            if self.options.how in EXACT:
                made[name] = _side_by_side(pairs, self._coefficients(pairs, weights))
                continue
            made[name], kept, total = self._thinned(name, pairs, weights)
            held, whole = held + kept, whole + total
        lora_files.write(folder, config, made)
        return {
            "adapters": len(adapters),
            "rank": max(a.shape[0] for a, _ in made.values()),
            "kept": held / whole if whole else 1.0,
        }

    def _weights(self, count: int) -> list[float]:
        """One weight for each adapter."""
        chosen = self.options
        arms = 1 + len(chosen.partners)
        seeds, mean = count // arms, chosen.how in MEANS
        given = chosen.weights or ((1.0,) * arms if mean else (1 / arms,) * arms)
        return [one if mean else one / seeds for one in given for _ in range(seeds)]

    def _coefficients(self, pairs: Sequence[Pair | None], weights: list[float]) -> list[float]:
        if self.options.how == "slerp":
            first, second = pairs
            return slerp(first, second, weights[1] / sum(weights))
        return weights

    def _thinned(
        self, name: str, pairs: Sequence[Pair | None], weights: list[float]
    ) -> tuple[Pair, float, float]:
        """The merged factors of one module, and the squares of their product and of the whole."""
        import torch
        from peft.utils import merge_utils

        there = [(pair, weight) for pair, weight in zip(pairs, weights, strict=True) if pair]
        dense = [b @ a for (a, b), _ in there]
        share, each = self.options.density or DENSITY, torch.tensor([one for _, one in there])
        how, pruned = self.options.how, MEANS.get(self.options.how)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(self.options.seed, name))
            if pruned:
                rescale = pruned == "random"
                kept = [merge_utils.prune(one, share, pruned, rescale) for one in dense]
                merged = agreed(torch.stack(kept), each)
            else:
                merged = getattr(merge_utils, how)(dense, each, density=share)
            pair = nearest(merged, sum(a.shape[0] for (a, _), _ in there))
        return pair, float(pair[1].square().sum()), float(merged.square().sum())


def agreed(changes: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """The weighted mean of the entries that go the way which the weighted sum goes (TIES).

    Σ wᵢΔᵢ / Σ |wᵢ|, both over the i with sign(wᵢΔᵢ) = sign(Σⱼ wⱼΔⱼ): of weights their ratios count
    only. Weights of 1 give what PEFT's own `ties` gives, bit for bit.

    Args:
        changes: shape (adapters, out, in).
        weights: shape (adapters,); a negative one takes its change the other way.
    """
    import torch

    weights = weights.view(-1, 1, 1)
    weighed = changes * weights
    agree = weighed.sign() == torch.where(weighed.sum(0) >= 0, 1, -1)
    shares = (agree * weights.abs()).sum(0)
    return (weighed * agree).sum(0) / torch.where(shares > 0, shares, 1.0)


def slerp(first: Pair | None, second: Pair | None, share: float) -> list[float]:
    """Coefficients of two changes on the arc between them, from their factors alone.

    sin((1-t)·Ω) / sin Ω and sin(t·Ω) / sin Ω, where cos Ω = ⟨ΔW₁, ΔW₂⟩ / (‖ΔW₁‖·‖ΔW₂‖) and
    ⟨ΔW₁, ΔW₂⟩ = tr((B₁ᵀB₂)(A₂A₁ᵀ)) (Shoemake, 1985). Where there is no arc, the straight line's.

    Args:
        first: A (r, in) and B (out, r), or None where there is no change.
        second: likewise.
        share: t, 0 is the first and 1 the second.
    """
    if first is not None and second is not None:
        product = inner(first, second)
        norms = math.sqrt(inner(first, first) * inner(second, second))
        if norms > 0:
            angle = math.acos(max(-1.0, min(1.0, product / norms)))
            if math.sin(angle) > 1e-4:  # below, rounding decides; the line is as good
                return [
                    math.sin((1 - share) * angle) / math.sin(angle),
                    math.sin(share * angle) / math.sin(angle),
                ]
    return [1 - share, share]


def _side_by_side(pairs: Sequence[Pair | None], weights: Sequence[float]) -> Pair:
    """The weighted sum of products as one product."""
    import torch

    there = [(pair, weight) for pair, weight in zip(pairs, weights, strict=True) if pair]
    a = torch.cat([a for (a, _), _ in there])
    return a, torch.cat([b * weight for (_, b), weight in there], dim=1)


def _read(adapters: Sequence[Path]) -> tuple[dict[str, object], list[dict[str, Pair]]]:
    read = [lora_files.read(one) for one in adapters]
    first, products = read[0]
    for folder, (config, other) in zip(adapters, read, strict=True):
        for name in products.keys() & other.keys():
            (a, b), (c, d) = products[name], other[name]
            if (a.shape[1], b.shape[0]) != (c.shape[1], d.shape[0]):
                raise _other_model(folder, f"{name} has another shape")
        if config.get("base_model_name_or_path") != first.get("base_model_name_or_path"):
            raise _other_model(folder, f"its base is {config.get('base_model_name_or_path')}")
    return first, [one for _, one in read]


def _other_model(folder: Path, why: str) -> ModelError:
    return ModelError(
        f"belongs to another model than the first adapter: {why}",
        where=str(folder),
        remedy="merge adapters of one base model only",
    )


def _seed(seed: int, name: str) -> int:
    """Of one module, whatever the order in which they come."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=6).digest())
