"""Resolves `target_modules` and `layers` to the matrices of a model that get LoRA adapters.

Matrices are found as PEFT 0.21 finds them: by the last part of a module's name, and by the number
of its layer.
"""

from __future__ import annotations

from collections.abc import Iterable

from holdfast.errors import StudyError
from holdfast.memory.model.layer import Linear
from holdfast.memory.model.paths import adaptable, by_paths
from holdfast.memory.model.shape import Shape
from holdfast.memory.model.words import ALL_LINEAR, PRESETS, compiled, is_pattern
from holdfast.registry import nearest


def targeted(
    shape: Shape,
    target_modules: str | Iterable[str] = ALL_LINEAR,
    layers: Iterable[int] | None = None,
) -> list[tuple[Linear, int]]:
    """The matrices that get adapters, and how many of each the whole model has.

    Args:
        shape: the model.
        target_modules: "all-linear", "attention", "mlp", or names of modules; a dotted name counts
            by its end.
        layers: only these decoder layers, counted from 0; None: all.

    Raises:
        StudyError: a name or a layer that the model does not have, or half of a fused pair.
    """
    chosen = range(shape.layers) if layers is None else sorted(set(layers))
    for layer in chosen:
        if not 0 <= layer < shape.layers:
            raise StudyError(
                f"{shape.name} has no layer {layer}",
                where="lora.layers",
                remedy=f"its layers are numbered 0 to {shape.layers - 1}",
            )
    if shape.told:
        return by_paths(shape, target_modules, None if layers is None else chosen)
    wanted = names_of(shape, target_modules)
    return [
        (one, round(len(chosen) * one.count))
        for one in adaptable(shape)
        if wanted is None or set(one.targets or (one.name,)) <= wanted
    ]


def lora_parameters(
    shape: Shape,
    r: int,
    target_modules: str | Iterable[str] = ALL_LINEAR,
    layers: Iterable[int] | None = None,
) -> int:
    """Parameters of the LoRA matrices, as PEFT 0.21 creates them.

    Args:
        shape: the model.
        r: rank.
        target_modules: see `targeted`.
        layers: only these decoder layers, counted from 0; None: all.

    Raises:
        StudyError: a name that no layer has, half of a fused pair, or no such layer.
    """
    found = targeted(shape, target_modules, layers)
    return sum(count * matrix.each(r) for matrix, count in found)


def names_of(shape: Shape, target_modules: str | Iterable[str]) -> set[str] | None:
    """The names that `target_modules` mean for this model; None: every matrix of its layers.

    What a regular expression means is found by trying it on the usual names of modules; where none
    fits, and where a model of another family has names that are not known, every matrix is counted.

    Raises:
        StudyError: a name that the model does not have, or half of a fused pair.
    """
    word = target_modules if isinstance(target_modules, str) else ""
    if word.lower() == ALL_LINEAR:
        return None
    if shape.told:
        meant = by_paths(shape, target_modules)
        return {name for one, count in meant if count for name in one.targets or (one.name,)}
    if is_pattern(word):
        return _matching(shape, word)
    known = {name for one in adaptable(shape) for name in one.targets or (one.name,)}
    if word in PRESETS:
        return known & set(PRESETS[word])
    given = [word] if word else list(target_modules)
    wanted = {one.rpartition(".")[2] for one in given}
    if not shape.exact and wanted - known - {"embed_tokens"} and not shape.fused:
        return None  # its names may be others
    for name in sorted(wanted - known - {"embed_tokens"}) or ([] if wanted else [""]):
        raise StudyError(
            f"{shape.name} has no linear layer called {name!r}{nearest(name, known)}",
            where="target_modules",
            remedy=f'give "{ALL_LINEAR}", or names out of: {", ".join(sorted(known))}',
        )
    for matrix in adaptable(shape):
        names = set(matrix.targets or (matrix.name,))
        if wanted & names and not names <= wanted:
            raise StudyError(
                f"{' and '.join(sorted(names))} are one matrix in {shape.name}",
                where="target_modules",
                remedy="name both or neither",
            )
    return wanted


def _matching(shape: Shape, pattern: str) -> set[str] | None:
    meant = compiled(pattern)
    found = {
        name
        for one in adaptable(shape)
        for name in one.targets or (one.name,)
        for layer in {0, shape.layers - 1}
        for part in ("self_attn", "mlp", "mlp.experts", "mlp.shared_expert")
        if meant.fullmatch(f"{shape.stem}.layers.{layer}.{part}.{name}")
    }
    return found or None
