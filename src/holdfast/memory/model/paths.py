"""Which matrices a study's words mean in a model whose class told their whole names.

As `holdfast.train.targets` chooses them, on names with stars for numbers: what only some words mean
(routers, towers, mixers that read a weight without calling its layer) is where training has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from holdfast.errors import StudyError
from holdfast.memory.model.layer import Linear
from holdfast.memory.model.shape import Shape
from holdfast.memory.model.words import ALL_LINEAR, PRESETS, compiled, is_pattern
from holdfast.registry import nearest

EMBEDDINGS = frozenset({"embed_tokens", "wte", "embed_in", "word_embeddings"})
"""Names of what is no matrix of a layer; its adapters are not counted."""


def adaptable(shape: Shape) -> list[Linear]:
    """One layer's matrices that PEFT adapts; fused experts only where it knows their names."""
    linears = [one for one in shape.linears if one.reach != "never"]
    return [*linears, *(one for one in shape.fused if one.targets)]


def by_paths(
    shape: Shape, target_modules: str | Iterable[str], layers: Sequence[int] | None = None
) -> list[tuple[Linear, int]]:
    """The matrices that get adapters, and how many of each the whole model has.

    Args:
        shape: of a model whose class told the paths.
        target_modules: see `holdfast.memory.model.targets.targeted`.
        layers: only these; None: all, and what is in no layer.

    Raises:
        StudyError: a name that the model does not have, or half of a fused pair.
    """
    found = [(one, shape.layers * one.count) for one in adaptable(shape)]
    found += [(one, one.count) for one in shape.tower if layers is None]
    word = target_modules if isinstance(target_modules, str) else ""
    if is_pattern(word):
        meant = compiled(word)
        shares = [_matched(one, meant, layers) for one, _ in found]
    elif word.lower() == ALL_LINEAR or word in PRESETS:
        shares = [float(_sensible(one, word.lower(), one in shape.tower)) for one, _ in found]
    else:
        shares = _named(shape, found, [word] if word else list(target_modules))
    if layers is not None and not is_pattern(word):
        shares = [share * len(set(layers) & set(one.layers)) / max(1, len(one.layers))
                  for (one, _), share in zip(found, shares, strict=True)]  # fmt: skip
    counts = [round(total * share) for (_, total), share in zip(found, shares, strict=True)]
    return [(one, count) for (one, _), count in zip(found, counts, strict=True) if count]


def pattern_of(
    shape: Shape, target_modules: str | Iterable[str]
) -> tuple[str | tuple[str, ...], bool]:
    """The same for a plain script: names where they mean nothing else, or else a pattern.

    Returns:
        What PEFT's `target_modules` should be, and whether it means stacked experts.
    """
    meant = {one: list(one.targets or (one.name,)) for one, _ in by_paths(shape, target_modules)}
    others = [one for one in (*shape.linears, *shape.tower) if one not in meant]
    stacked = any(one.targets for one in meant)
    word = target_modules if isinstance(target_modules, str) else ""
    if word.lower() == ALL_LINEAR and not others and not stacked:
        return ALL_LINEAR, False
    names = {name for found in meant.values() for name in found}
    if not any(one.name in names and one.reach != "never" for one in others):
        return tuple(sorted(names)), stacked
    paths = {f"{one.path.rpartition('.')[0]}.{name}" for one in meant for name in meant[one]}
    return "|".join(re.escape(one).replace(r"\*", r"\d+") for one in sorted(paths)), stacked


def _sensible(one: Linear, word: str, tower: bool) -> bool:
    """Whether a short word means a matrix: of the language model, where an adapter helps."""
    if tower or one.reach != "all":
        return False
    if word == ALL_LINEAR:
        return True
    return set(one.targets) <= set(PRESETS[word]) if one.targets else one.kind == word


def _matched(one: Linear, meant: re.Pattern[str], layers: Sequence[int] | None) -> float:
    """The share of a path's matrices whose whole names a pattern matches."""
    before = one.path.rpartition(".")[0]
    paths = [one.path, *(f"{before}.{name}" for name in one.targets)]
    hits = [
        number
        for number in one.layers
        if (layers is None or number in layers)
        and any(meant.fullmatch(path.replace("*", str(number), 1).replace("*", "0"))
                for path in paths)
    ]  # fmt: skip
    return len(hits) / max(1, len(one.layers))


def _named(
    shape: Shape, found: Sequence[tuple[Linear, float]], given: Sequence[str]
) -> list[float]:
    """The shares that are meant by names, which are ends of paths; bare ones spare the towers.

    Raises:
        StudyError: see `by_paths`.
    """
    wanted = {name.rpartition(".")[2] for name in given}
    shares = [float(bool(set(one.targets) & wanted)) for one, _ in found]
    for one, _ in found:
        if set(one.targets) & wanted and not set(one.targets) <= wanted:
            raise StudyError(
                f"{' and '.join(sorted(one.targets))} are one matrix in {shape.name}",
                where="target_modules",
                remedy="name both or neither",
            )
    experts = {name for one, _ in found for name in one.targets}
    known = {one.name for one, _ in found if not one.targets} | experts
    for name in given or [""]:
        numbers = [int(part) for part in name.split(".") if part.isdecimal()]
        here = [place for place, (one, _) in enumerate(found)
                if not one.targets and _ends(one, name, numbers)]  # fmt: skip
        inside = [place for place in here if found[place][0] not in shape.tower]
        for place in inside if inside and "." not in name else here:
            one, total = found[place]
            each = total if len(numbers) >= one.path.count("*") else len(one.layers)
            shares[place] = min(1.0, shares[place] + (1 / each if numbers else 1.0))
        if not here and name.rpartition(".")[2] not in experts | EMBEDDINGS:
            raise StudyError(
                f"{shape.name} has no linear layer called {name!r}{nearest(name, known)}",
                where="target_modules",
                remedy=f'give "{ALL_LINEAR}", or names out of: {", ".join(sorted(known))}',
            )
    return shares


def _ends(one: Linear, name: str, numbers: Sequence[int]) -> bool:
    """Whether a name is the end of a matrix's path, of a layer that has it."""
    stars = ".".join("*" if part.isdecimal() else part for part in name.split("."))
    if not f".{one.path}".endswith(f".{stars}"):
        return False
    return len(numbers) < one.path.count("*") or set(numbers[:1]) <= set(one.layers)
