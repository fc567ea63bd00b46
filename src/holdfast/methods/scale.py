"""Scale: applies only a share of what training changed.

W + λ·ΔW for several λ (WiSE-FT: Wortsman et al., arXiv:2109.01903; for safety after fine-tuning,
where it is called pre- and post-merging: Farn et al., arXiv:2412.19512). Nothing is trained again.
A LoRA adapter is scaled where it is loaded; of a model whose weights were all trained a copy is
written for each λ.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from holdfast.config import Section
from holdfast.methods import WeightMethod
from holdfast.models import lora_files
from holdfast.models.stored_tensors import StoredTensors, rewritten


class Scale(WeightMethod):
    """Measure shares of the change too."""

    options: Options

    class Options(Section):
        """Settings of ``scale``."""

        factors: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
            (0.2, 0.4, 0.6, 0.8), min_length=1
        )
        """Shares of the change, besides the whole of it."""
        checkpoints: Literal["last", "all"] = "last"
        """Scale the last checkpoint, or every one."""

        @field_validator("factors")
        @classmethod
        def _ordered(cls, given: tuple[float, ...]) -> tuple[float, ...]:
            if len(set(given)) != len(given):
                raise ValueError("a factor is given twice")
            return tuple(sorted(given))

    def __init__(self, options: Options) -> None:
        """Take the settings."""
        super().__init__(options)
        self.factors = options.factors
        self.checkpoints = options.checkpoints

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        return f"scaled by {', '.join(f'{one:g}' for one in self.factors)}"


def scaled_adapter(folder: Path, factor: float, to: Path) -> None:
    """Write a LoRA adapter whose change is a share of another one's.

    B is multiplied rather than ``lora_alpha``, which is a whole number to many a loader.

    Args:
        folder: of the adapter.
        factor: λ.
        to: gets ``adapter_config.json`` and ``adapter_model.safetensors``; made if need be.

    Raises:
        ModelError: no such adapter, or one that is no plain product.
    """
    if lora_files.adds_elsewhere(folder):
        lora_files.write_scaled(folder, factor, to)
        return
    config, products = lora_files.read(folder)
    lora_files.write(to, config, {name: (a, b * factor) for name, (a, b) in products.items()})


def interpolated_model(
    base: Path | str, tuned: Path, factor: float, to: Path, revision: str | None = None
) -> Mapping[str, object]:
    """Write (1-λ)·base + λ·tuned, one file of weights at a time.

    See `stored_tensors.rewritten`.

    Args:
        base: folder of the untouched model, or its id on the hub, once it was downloaded.
        tuned: folder of the same model with all weights trained.
        factor: λ.
        to: the new model's folder; made if need be.
        revision: of the base on the hub.

    Returns:
        How many tensors and parameters were mixed.

    Raises:
        ModelError: no weights, or a tensor that the base does not have or has in another shape.
    """
    stored = StoredTensors(base, revision)
    return rewritten(stored, tuned, to, lambda before, after: before.lerp(after, factor))
