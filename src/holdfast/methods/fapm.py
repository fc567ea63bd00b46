"""FAPM: keeps those entries of the change that are large, but small beside the weight they change.

Forgetting-aware pruning (arXiv:2509.08255): an entry ΔW of the change is scored
|ΔW| - mean|W|·|ΔW| / |W|, where W is the untouched weight and the mean that of its matrix, and the
highest tenth of each matrix is kept as it is. So of two entries of one size the one on the larger
weight is kept. The authors train all weights, and so it is done here: tensor by tensor. Under LoRA
what is kept has every rank, and the nearest matrix of a low rank is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from holdfast.config import Section
from holdfast.methods import Making, WeightMethod
from holdfast.methods._products import Pair, seeded_nearest
from holdfast.models import lora_files
from holdfast.models.stored_tensors import StoredTensors, check_readable, rewritten
from holdfast.types import ModelRef

if TYPE_CHECKING:
    import torch


class FAPM(WeightMethod):
    """Drop the changes that disturb the base most."""

    options: Options

    class Options(Section):
        """Settings of ``fapm``."""

        density: float = Field(0.1, gt=0, lt=1)
        """Share of the entries of each matrix that is kept; a tenth as published."""
        rank: int | None = Field(None, ge=1)
        """Under LoRA: rank of what is written; left out: the adapter's own. More holds more of
        what is kept."""
        checkpoints: Literal["last", "all"] = "last"
        """Thin out the last checkpoint, or every one."""

    whole = True

    def __init__(self, options: Options) -> None:
        """Take the settings."""
        super().__init__(options)
        self.checkpoints = options.checkpoints

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        rank = f", rank {self.options.rank}" if self.options.rank else ""
        return f"{self.options.density:.0%} of the change kept, by FAPM's score{rank}"

    def check_base(self, base: ModelRef) -> None:
        """See `WeightMethod.check_base`."""
        check_readable(base, "fapm")

    def make_from(
        self, making: Making, trained: Sequence[Path], folder: Path
    ) -> Mapping[str, object]:
        """See `WeightMethod.make_from`.

        Returns:
            The share of the squares of the change that is kept (`kept`), and of these the share
            that the written rank holds (`held`; 1 where all weights were trained).

        Raises:
            ModelError: no plain LoRA, or a base whose weights cannot be read as numbers.
        """
        (source,) = trained
        base = StoredTensors(making.base.base, making.base.revision)
        if making.whole:
            return self._whole(base, source, folder)
        config, products = lora_files.read(source)
        made: dict[str, Pair] = {}
        squares = dict.fromkeys(("all", "kept", "held"), 0.0)
        for name, (a, b) in products.items():
            change = b @ a
            shape = (b.shape[0], a.shape[1])
            weight = base.matrix(name, shape, bool(config.get("fan_in_fan_out")))
            kept = thinned(change, weight, self.options.density)
            made[name] = seeded_nearest(kept, self.options.rank or a.shape[0], _seed(name))
            squares["all"] += float(change.square().sum())
            squares["kept"] += float(kept.square().sum())
            squares["held"] += float(made[name][1].square().sum())
        lora_files.write(folder, config, made)
        return {
            "kept": squares["kept"] / squares["all"] if squares["all"] else 1.0,
            "held": squares["held"] / squares["kept"] if squares["kept"] else 1.0,
        }

    def _whole(self, base: StoredTensors, source: Path, folder: Path) -> Mapping[str, object]:
        squares = dict.fromkeys(("all", "kept"), 0.0)

        def change(before: torch.Tensor, after: torch.Tensor) -> torch.Tensor:
            kept = thinned(after - before, before, self.options.density)
            squares["all"] += float((after - before).square().sum())
            squares["kept"] += float(kept.square().sum())
            return before + kept

        found = rewritten(base, source, folder, change)
        share = squares["kept"] / squares["all"] if squares["all"] else 1.0
        return {**found, "kept": share, "held": 1.0}


def thinned(change: torch.Tensor, weight: torch.Tensor, density: float) -> torch.Tensor:
    """The entries of the highest scores as they are, and zero elsewhere.

    An entry that changes a weight of exactly zero is scored lowest of all.

    Args:
        change: ΔW.
        weight: W, of the same shape.
        density: share of the entries that is kept, rounded down.
    """
    import torch

    size = weight.abs()
    score = change.abs() - size.mean() * change.abs() / size
    score = torch.where(size > 0, score, -torch.inf).flatten()
    best = score.topk(int(score.numel() * density)).indices
    kept = torch.zeros_like(change).flatten()
    kept[best] = change.flatten()[best]
    return kept.view_as(change)


def _seed(name: str) -> int:
    """Of the decomposition of one module, whatever the order in which they come."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=6).digest())
