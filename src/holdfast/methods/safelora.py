"""Safe LoRA: turns a change of the weights towards what alignment changed, where it strays from it.

An aligned model and the one that it was aligned from differ by V in every matrix. A change B·A of
the aligned one is multiplied by V·Vᵀ / ‖V‖ wherever it and the result point apart
(arXiv:2405.16833, the approximate projection that its authors use; as in their code B alone is
multiplied). Needs the unaligned model's files; nothing is trained, and neither model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from holdfast import models
from holdfast.config import Section
from holdfast.errors import ModelError
from holdfast.methods import Making, WeightMethod
from holdfast.methods._products import Pair, inner
from holdfast.models import lora_files
from holdfast.models.stored_tensors import StoredTensors, check_readable
from holdfast.types import ModelRef

if TYPE_CHECKING:
    import torch

UNALIGNED = "that the base was aligned from"


class SafeLoRA(WeightMethod):
    """Project what strays from alignment onto what alignment changed."""

    options: Options

    class Options(Section):
        """Settings of ``safelora``."""

        unaligned: str
        """The model that the study's own was aligned from: a folder, or its id on the hub once it
        was downloaded."""
        revision: str | None = None
        """Of it on the hub."""
        threshold: float | None = Field(None, ge=-1, le=1)
        """Matrices whose change and its projection have a cosine of at most this are projected;
        0.5 where `matrices` is left out too, as in the authors' code."""
        matrices: int | None = Field(None, ge=1)
        """So many matrices instead: those with the lowest cosines."""
        checkpoints: Literal["last", "all"] = "last"
        """Project the last checkpoint, or every one."""

        @model_validator(mode="after")
        def _one_rule(self) -> Self:
            if self.threshold is not None and self.matrices is not None:
                raise ValueError("give `threshold` or `matrices`, not both")
            return self

    def __init__(self, options: Options) -> None:
        """Take the settings."""
        super().__init__(options)
        self.checkpoints = options.checkpoints

    @property
    def threshold(self) -> float:
        """The cosine up to which a matrix is projected."""
        return 0.5 if self.options.threshold is None else self.options.threshold

    def identity(self) -> Mapping[str, object]:
        """See `DataMethod.identity`; the unaligned model is known by its files."""
        given = self.options
        return {
            "unaligned": models.identity(ModelRef(given.unaligned, given.revision)),
            "rule": ["matrices", given.matrices] if given.matrices else self.threshold,
            "checkpoints": given.checkpoints,
        }

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        given = self.options
        which = f"cosine at most {self.threshold:g}"
        if given.matrices:
            which = f"the {given.matrices} matrices of lowest cosine"
        return f"projected onto alignment ({which}; unaligned: {Path(given.unaligned).name})"

    def check_base(self, base: ModelRef) -> None:
        """See `WeightMethod.check_base`.

        Raises:
            ModelError: the unaligned model is not there, or is the study's own.
        """
        check_readable(base, "safelora")
        theirs = self._unaligned()
        try:
            ours = StoredTensors(base.base, base.revision)
        except ModelError:
            return  # not downloaded yet; compared when the weights are made
        if ours.same_files(theirs):
            raise self._own()

    def check_targets(self, matrices: Mapping[str, tuple[int, ...]]) -> None:
        """See `WeightMethod.check_targets`; the unaligned model must hold every one of them.

        Raises:
            ModelError: it is another kind of model.
        """
        theirs = self._unaligned()
        shapes = theirs.shapes()
        lacking = [name for name, one in matrices.items() if shapes.get(theirs.named(name)) != one]
        if lacking:
            raise ModelError(
                f"lacks {len(lacking):,} of the {len(matrices):,} matrices that get adapters, or "
                f"has them in another shape, first {lacking[0]}",
                where=self.options.unaligned,
                remedy=f"name the model {UNALIGNED}",
            )

    def _own(self) -> ModelError:
        return ModelError(
            "has the study's own weights, so that alignment would have changed nothing",
            where=self.options.unaligned,
            remedy=f"name the model {UNALIGNED}",
        )

    def _unaligned(self) -> StoredTensors:
        return StoredTensors(self.options.unaligned, self.options.revision, UNALIGNED)

    def make_from(
        self, making: Making, trained: Sequence[Path], folder: Path
    ) -> Mapping[str, object]:
        """See `WeightMethod.make_from`.

        Returns:
            How many matrices were projected, of how many, and the lowest and mean cosine.

        Raises:
            ModelError: no plain LoRA, a model that lacks a matrix that it changes, or one that
                differs in none.
        """
        (source,) = trained
        aligned = StoredTensors(making.base.base, making.base.revision)
        unaligned = self._unaligned()
        config, products = lora_files.read(source)
        projected: dict[str, Pair] = {}
        differs = False
        cosines: dict[str, float] = {}
        for name, (a, b) in products.items():
            shape, turned = (b.shape[0], a.shape[1]), bool(config.get("fan_in_fan_out"))
            weights = (one.matrix(name, shape, turned) for one in (aligned, unaligned))
            difference = next(weights) - next(weights)
            differs = differs or bool(difference.any())
            new = project(b, difference)
            cosines[name] = cosine((a, b), (a, new))
            projected[name] = a, new
        if not differs:
            raise self._own()
        limit = self.threshold
        if self.options.matrices:
            limit = sorted(cosines.values())[: self.options.matrices][-1]
        chosen = {name for name, one in cosines.items() if one <= limit}
        made = {name: projected[name] if name in chosen else products[name] for name in products}
        lora_files.write(folder, config, made)
        return {
            "projected": len(chosen), "matrices": len(products),
            "lowest_cosine": min(cosines.values()),
            "mean_cosine": sum(cosines.values()) / len(cosines),
        }  # fmt: skip


def project(b: torch.Tensor, difference: torch.Tensor) -> torch.Tensor:
    """V·(Vᵀ·B) / ‖V‖, without forming V·Vᵀ; B itself where alignment changed nothing.

    Args:
        b: shape (out, r).
        difference: V, what alignment changed, shape (out, in).
    """
    norm = difference.norm()
    if float(norm) == 0:
        return b
    return difference @ (difference.T @ b) / norm


def cosine(first: Pair, second: Pair) -> float:
    """Of two changes B·A as long rows of numbers, from their factors; 1 where one is nothing."""
    product, norms = inner(first, second), inner(first, first) * inner(second, second)
    return product / norms**0.5 if norms > 0 else 1.0
