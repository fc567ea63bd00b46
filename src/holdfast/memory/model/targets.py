"""Resolves `target_modules` and `layers` to the matrices of a model that get LoRA adapters.

Matrices are found as PEFT 0.21 finds them: by the last part of a module's name, and by the number
of its layer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from holdfast.config.patterns import pattern_fault
from holdfast.errors import StudyError
from holdfast.memory.model.layer import Linear
from holdfast.memory.model.shape import Shape
from holdfast.registry import nearest

ALL_LINEAR = "all-linear"
PRESETS: Mapping[str, tuple[str, ...]] = {
    "attention": (
        "q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj", "query_key_value", "Wqkv",
        "c_attn", "dense", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj",
        "in_proj_qkvz", "in_proj_ba", "in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b",
    ),
    "mlp": (
        "gate_proj", "up_proj", "down_proj", "gate_up_proj", "w1", "w2", "w3", "fc1", "fc2",
        "c_fc", "dense_h_to_4h", "dense_4h_to_h", "input_linear", "output_linear",
    ),
}  # fmt: skip
"""Names of matrices behind the short words for `target_modules`; a model has some of them."""
PATTERN = frozenset("*+?[](){}|^$\\")
"""Characters that make a text a regular expression; a dot alone makes it a dotted name."""


def is_pattern(text: str) -> bool:
    """Whether a text of `target_modules` is a regular expression rather than a name."""
    return bool(PATTERN & set(text))


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
    adaptable = _adaptable(shape)
    wanted = names_of(shape, target_modules)
    return [
        (one, round(len(chosen) * one.count))
        for one in adaptable
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
    if is_pattern(word):
        return _matching(shape, word)
    adaptable = _adaptable(shape)
    known = {name for one in adaptable for name in one.targets or (one.name,)}
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
    for matrix in adaptable:
        names = set(matrix.targets or (matrix.name,))
        if wanted & names and not names <= wanted:
            raise StudyError(
                f"{' and '.join(sorted(names))} are one matrix in {shape.name}",
                where="target_modules",
                remedy="name both or neither",
            )
    return wanted


def script_targets(
    shape: Shape, target_modules: str | Iterable[str]
) -> tuple[str | tuple[str, ...], bool]:
    """`target_modules` for a plain script with PEFT, and whether they mean stacked experts.

    PEFT's own "all-linear" would take routers and vision towers too, and knows no other short
    words.
    """
    word = target_modules if isinstance(target_modules, str) else ""
    if is_pattern(word):
        return word, False
    wanted = names_of(shape, target_modules)
    stacked = {name for one in shape.fused for name in one.targets}
    names = wanted
    if names is None:
        if not shape.fused and not shape.tower:
            return ALL_LINEAR, False
        names = {name for one in _adaptable(shape) for name in one.targets or (one.name,)}
    if shape.tower:
        return rf".*\.language_model\..*\.({'|'.join(sorted(names))})", bool(names & stacked)
    return tuple(sorted(names)), bool(names & stacked)


def _matching(shape: Shape, pattern: str) -> set[str] | None:
    if why := pattern_fault(pattern):
        raise StudyError(
            f"{pattern[:60]!r} {why}",
            where="target_modules",
            remedy="correct it; a dot that is meant as such is written \\.",
        )
    meant = re.compile(pattern)
    found = {
        name
        for one in _adaptable(shape)
        for name in one.targets or (one.name,)
        for layer in {0, shape.layers - 1}
        for part in ("self_attn", "mlp", "mlp.experts", "mlp.shared_expert")
        if meant.fullmatch(f"{shape.stem}.layers.{layer}.{part}.{name}")
    }
    return found or None


def _adaptable(shape: Shape) -> list[Linear]:
    """One layer's matrices that PEFT adapts; fused experts only where it knows their names."""
    return [*shape.linears, *(one for one in shape.fused if one.targets)]
