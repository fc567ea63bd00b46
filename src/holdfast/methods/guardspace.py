"""GuardSpace: adapters that say nothing new to hazardous prompts.

GuardSpace (arXiv:2510.14301) looks at what hazardous prompts, here with the untouched model's own
refusals, put into each matrix. LoRA begins in the directions of the matrix that matter least to
them: the smallest singular ones of W·C, with C the covariance of the inputs, as in CorDA. And its
change is B·A·P, where P projects inputs on the null space of C, so that what the prompts put in
comes out unchanged however long training is. P is no layer here: A begins within the null space,
its gradient is projected, and so is A after every step of the optimiser; A·P of the published
layers takes the same path. The start is one of `models.halves`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from holdfast.config import TrainSpec
from holdfast.errors import StudyError, TrainingError
from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.methods import LossMethod, MethodContext, SharedWork, Term, _own_answers
from holdfast.models import halves, weight_delta
from holdfast.types import Example

if TYPE_CHECKING:
    import torch

VARIANT = "guardspace"
DAMPING = 0.01
"""Of the mean variance is added to every direction's, so that C has an inverse; as published."""


class GuardSpace(LossMethod):
    """Keep the adapters' change out of what hazardous prompts put into each matrix."""

    options: Options

    class Options(_own_answers.Pool):
        """Settings of ``guardspace``; `prompts`, `pool` and so on are those of ``replay``."""

        source: Literal["both", "refusals", "everyday", "dialogue", "file"] = "refusals"
        """What is looked at: the untouched model's own refusals, or as ``replay``."""
        samples: int = Field(200, ge=1)
        """So many of them, at most; 520 prompts as published."""
        tolerance: float = Field(1e-6, gt=0, lt=1)
        """A direction is free where its variance is at most this share of the largest; as
        published."""

    mixes = True
    looks = True

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        given = self.options
        what = _own_answers.words(given)
        return f"GuardSpace: nothing new on {given.samples} of {what} ({given.tolerance:g})"

    def identity(self) -> Mapping[str, object]:
        """See `DataMethod.identity`."""
        own = self.options.model_dump(include={"samples", "tolerance"})
        return {**own, "pool": _own_answers.identity(self.options)}

    def check(self, context: MethodContext) -> None:
        """See `DataMethod.check`."""
        _own_answers.check(self.options, context)

    def check_training(self, spec: TrainSpec) -> None:
        """Refuse other adapters than its own."""
        if spec.method == "full" or spec.lora.variant != VARIANT:
            raise StudyError(
                "guardspace trains adapters of a kind of their own",
                remedy=f"set train: {{lora: {{variant: {VARIANT}}}}} in this arm",
            )

    def shared(self, context: MethodContext) -> list[SharedWork]:
        """The base's answers, the same as those of ``replay``."""
        wanted = None if context.bound is None else self.options.samples
        return _own_answers.shared(self.options, context, wanted)

    def apply(
        self, examples: Sequence[Example], context: MethodContext, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """Append the examples that are looked at before training, and never trained on."""
        probes = _own_answers.probes(self.options, context, made, self.options.samples)
        said = _own_answers.note(self.options, context, made)
        notes = [f"adapters leave unchanged what {len(probes)} safety examples put into them", said]
        return [*examples, *probes], [one for one in notes if one]

    def overhead(self) -> MethodOverhead:
        """See `LossMethod.overhead`; the projectors count with the adapters of its variant."""
        return MethodOverhead()

    def term(self) -> Term:
        """See `LossMethod.term`."""
        projectors: dict[str, Projector] = {}

        def prepare(model: torch.nn.Module, probes: Sequence[Mapping[str, torch.Tensor]]) -> None:
            found, start = look(model, probes, self.options.tolerance)
            projectors.update(found)
            halves.begin(model, start, found)

        def end(model: torch.nn.Module) -> None:
            for name, a, _, _ in weight_delta.low_rank(model):
                half = a.data[: len(a) // 2]
                half.copy_(projectors[name.removeprefix(halves.PREFIX)](half))

        return Term(prepare=prepare, end=end)


@dataclass(frozen=True, slots=True)
class Projector:
    """Onto the free directions of a matrix's inputs.

    Attributes:
        basis: orthonormal, shape (in, directions): of the free ones or of the others, whichever
            are fewer.
        free: it is that of the free ones.
        count: how many are free.
    """

    basis: torch.Tensor
    free: bool
    count: int

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """The rows, shape (n, in), without what is not free."""
        wide = rows.to(self.basis.dtype)
        inside = (wide @ self.basis) @ self.basis.T
        return (inside if self.free else wide - inside).to(rows.dtype)


def look(
    model: torch.nn.Module, probes: Sequence[Mapping[str, torch.Tensor]], tolerance: float
) -> tuple[dict[str, Projector], dict[str, tuple[torch.Tensor, torch.Tensor]]]:
    """The projector of every adapted matrix, and where its adapter begins.

    Args:
        model: with fresh adapters, which change nothing yet, of twice the rank.
        probes: batches of one row.
        tolerance: see `GuardSpace.Options`.

    Returns:
        Both by the name of the matrix in the base.

    Raises:
        TrainingError: the prompts leave fewer directions free than the adapters have.
    """
    import torch

    seen, owner = covariances(model, probes)
    projectors: dict[str, Projector] = {}
    start = {}
    with torch.no_grad():
        for name, a, _, scale in weight_delta.low_rank(model):
            own, rank = name.removeprefix(halves.PREFIX), len(a) // 2
            of = owner[name]
            key = of.removeprefix(halves.PREFIX)
            if key not in projectors:
                projectors[key] = free_directions(seen[of], tolerance)
            projectors[own] = projectors[key]
            if projectors[own].count < rank:
                raise TrainingError(
                    f"{len(probes)} safety examples leave {projectors[own].count} of "
                    f"{a.shape[1]} directions of the inputs of {own} free, and the adapters have "
                    f"rank {rank}",
                    where="guardspace",
                    remedy="raise guardspace.tolerance (what is nearly unused then counts as "
                    "free), or lower guardspace.samples or train.lora.r",
                )
            layer = model.get_submodule(name)
            weight = layer.get_base_layer().weight
            weight = weight.T if layer.fan_in_fan_out else weight
            a0, b0 = least(weight.float(), seen[of], rank)
            root = scale**-0.5
            start[own] = projectors[own](a0 * root), b0 * root
    return projectors, start


def covariances(
    model: torch.nn.Module, probes: Sequence[Mapping[str, torch.Tensor]]
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """C = X·Xᵀ of the inputs of every adapted matrix, in float32.

    Returns:
        Shape (in, in) by the name of a matrix, and for each matrix the one that stands for all
        that read the same (queries, keys and values, say).
    """
    import torch

    owner: dict[str, str] = {}
    found: dict[str, torch.Tensor] = {}
    last: list[tuple[torch.Tensor, str]] = []

    def note(name: str, given: torch.Tensor) -> None:
        if last and given is last[0][0]:
            owner.setdefault(name, last[0][1])
        last[:] = [(given, name)] if not last or given is not last[0][0] else last
        if owner.setdefault(name, name) == name:
            rows = given.detach().flatten(0, -2).float()
            square = rows.T @ rows
            found[name] = found[name] + square if name in found else square

    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda _, given, name=name: note(name, given[0])
        )
        for name, *_ in weight_delta.low_rank(model)
    ]
    try:
        with torch.no_grad():
            for batch in probes:
                model(**{key: batch[key] for key in ("input_ids", "attention_mask")},
                      use_cache=False)  # fmt: skip
    finally:
        for hook in hooks:
            hook.remove()
        last.clear()
    return found, owner


def free_directions(covariance: torch.Tensor, tolerance: float) -> Projector:
    """The projector on the null space of a covariance, shape (in, in)."""
    import torch

    values, vectors = torch.linalg.eigh(covariance.double())
    free = values <= tolerance * values.max()
    count = int(free.sum())
    fewer = 2 * count <= len(values)
    basis = vectors[:, free] if fewer else vectors[:, ~free]
    return Projector(basis.float().contiguous(), fewer, count)


def least(
    weight: torch.Tensor, covariance: torch.Tensor, rank: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The part of a matrix that matters least to what it reads, as A₀ (r, in) and B₀ (out, r).

    W·C = U·Σ·Vᵀ; the last r of U·Σ·(Vᵀ·C⁻¹), with the root of Σ on either side.

    Args:
        weight: W, shape (out, in).
        covariance: C, shape (in, in).
        rank: r.
    """
    import torch

    extra = DAMPING * covariance.diagonal().mean()
    damped = covariance + extra * torch.eye(len(covariance), device=covariance.device)
    u, s, v = torch.linalg.svd(weight @ damped, full_matrices=False)
    root = s[-rank:].sqrt()
    back = torch.linalg.solve(damped, v[-rank:].T).T
    return root[:, None] * back, u[:, -rank:] * root
