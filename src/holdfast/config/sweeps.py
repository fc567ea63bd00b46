"""Writes the sweeps of a study out: one variant for each combination of settings.

An arm whose `train` holds a list is a sweep: it becomes one variant for each value, and all of them
are one family. An arm with `from` shares the training of another one, sweep included.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from holdfast.config import ArmSpec, Study, TrainSpec
from holdfast.config.load import parse
from holdfast.config.mistakes import known_keys, unknown
from holdfast.config.names import spelled_out
from holdfast.config.section import LONGEST_MADE, unusable
from holdfast.config.training import own_name
from holdfast.errors import StudyError
from holdfast.memory.model.words import ALL_LINEAR, PRESETS
from holdfast.registry import nearest
from holdfast.types import BASE

EQUAL = {
    "num_train_epochs", "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps",
    "global_batch_size", "keep_shortest", "max_length", "overlong", "completion_only_loss",
    "train_on", "cut_template_header", "checkpoints", "save_steps", "logging_steps",
    "save_total_limit", "method", "val_size", "val_path", "eval_steps",
    "early_stopping_patience", "early_stopping_threshold",
}  # fmt: skip
"""Settings of `train` that are the budget, or must not differ for arms to be comparable."""
LISTS = {
    "optim_target_modules", "lora.target_modules", "lora.layers", "lora.exclude_modules",
    "lora.target_parameters", "lora.layers_pattern", "lora.modules_to_save",
    "lora.trainable_token_indices",
}  # fmt: skip
"""Settings that are lists themselves; a sweep over them is a list of lists."""
WHOLE = {"lr_scheduler_kwargs", "optim_args"}
"""Settings that are mappings themselves."""
MOST = 1000
"""Variants of one arm; each is a training of its own."""
MOST_TRAININGS = 2000
"""Of a study; planning so many takes some seconds."""
KINDS = (ALL_LINEAR, *PRESETS)
"""Names of many matrices at once; a list of them is a sweep all the same."""
SHORT = {"learning_rate": "lr", "lora.r": "r", "lora.alpha": "alpha", "weight_decay": "wd"}


@dataclass(frozen=True, slots=True)
class Variant:
    """One arm as it is trained and measured.

    Attributes:
        name: of its folders; unique.
        family: the arm of the study file.
        spec: what the file says.
        train: the study's training settings with the arm's own.
        source: the variant whose training it uses: itself, another one, or `base`.
    """

    name: str
    family: str
    spec: ArmSpec
    train: TrainSpec
    source: str

    @property
    def trains(self) -> bool:
        """Whether it has a training of its own."""
        return self.source == self.name


def expand(study: Study, source: str = "study") -> dict[str, Variant]:
    """All variants of a study by name, in its order, sweeps written out.

    Args:
        study: what the user wrote.
        source: the study file's name, for messages.

    Raises:
        StudyError: a setting that does not exist or must not differ, an unknown `from`, two
            variants of one name.
    """
    found: dict[str, Variant] = {}
    taken = {BASE}
    for family, spec in study.arms.items():
        where = f"{source}: arms.{family}"
        made = (
            _shared(study, family, spec, where)
            if spec.source
            else [
                Variant(name, family, spec, _merged(study.train, changes, where), name)
                for name, changes in _sweep(family, spec.train, where)
            ]
        )
        if not spec.source:
            _refuse_equal(made, where)
        for variant in made:
            if why := unusable(variant.name, LONGEST_MADE):
                shown = variant.name if len(variant.name) <= 60 else f"{variant.name[:60]}..."
                raise StudyError(
                    f"the sweep makes an arm called {shown!r}: {why}",
                    where=where,
                    remedy="sweep over other or shorter values, or write an arm for each",
                )
            if variant.name.casefold() in taken:
                raise StudyError(
                    f"two arms are called {variant.name!r}",
                    where=where,
                    remedy="rename one of them; case does not count, as in some file systems",
                )
            found[variant.name] = variant
            taken.add(variant.name.casefold())
            if len(found) * len(study.seeds) > MOST_TRAININGS:
                raise StudyError(
                    f"arms, sweeps and seeds come to more than {MOST_TRAININGS:,} models",
                    where=where,
                    remedy="make several studies of it",
                )
    return found


def _refuse_equal(made: Sequence[Variant], where: str) -> None:
    """Refuse a sweep that trains the same thing twice, such as one over `[1e-3, 0.001]`."""
    seen: dict[str, str] = {}
    for variant in made if len(made) > 1 else ():
        first = seen.setdefault(variant.train.model_dump_json(), variant.name)
        if first != variant.name or sum(one.name == first for one in made) > 1:
            raise StudyError(
                f"the sweep tries one setting twice: {first} and {variant.name} are trained alike",
                where=where,
                remedy="leave one of them out",
            )


def _shared(study: Study, family: str, spec: ArmSpec, where: str) -> list[Variant]:
    if spec.source == BASE:
        return [Variant(family, family, spec, study.train, BASE)]
    other = study.arms.get(spec.source or "")
    if other is None or other.source:
        plain = [name for name, one in study.arms.items() if not one.source]
        near = nearest(spec.source or "", plain)
        raise StudyError(
            f"from: {spec.source} is no arm with a training of its own{near}",
            where=where,
            remedy=f"arms that train: {', '.join(plain) or 'none'}; or `base`",
        )
    return [
        Variant(
            f"{family}{name.removeprefix(spec.source or '')}",
            family, spec, _merged(study.train, changes, where), name,
        )
        for name, changes in _sweep(spec.source or "", other.train, where)
    ]  # fmt: skip


def settings_of(train: Mapping[str, object]) -> list[str]:
    """The settings that an arm gives, by their own names: ``learning_rate``, ``lora.r``."""
    return [own_name(key) for key in _flat(spelled_out(train))]


def _sweep(
    family: str, train: Mapping[str, object], where: str
) -> list[tuple[str, dict[str, object]]]:
    """Names and settings of all combinations of an arm's lists."""
    try:
        flat = _flat(spelled_out(train))
    except ValueError as error:
        raise StudyError(
            f"train.{error}", where=where, remedy="docs/study.md lists the names of a setting"
        ) from error
    names = [own_name(key) for key in flat]
    if twice := [name for name in names if names.count(name) > 1]:
        raise StudyError(
            f"train.{twice[0]} is given under two names", where=where, remedy="give it once"
        )
    if "lora" in flat:
        raise StudyError(
            "train.lora is no section", where=where, remedy="write it as lora: {r: 8, ...}"
        )
    axes = {
        key: value
        for key, value in flat.items()
        if isinstance(value, list | tuple) and _swept(key, value)
    }
    for key, values in axes.items():
        if not values:
            raise StudyError(f"train.{key}: the sweep is empty", where=where, remedy="fill it in")
    if (count := math.prod(len(values) for values in axes.values())) > MOST:
        raise StudyError(
            f"the sweep has {count} combinations", where=where, remedy=f"{MOST} is the most"
        )
    found = []
    for combination in itertools.product(*axes.values()):
        chosen = dict(zip(axes, combination, strict=True))
        name = "-".join([family, *(f"{_word(key)}{_value(v)}" for key, v in chosen.items())])
        found.append((name, flat | chosen))
    return found


def _flat(train: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in train.items():
        pattern = str(key).endswith("_pattern")
        if isinstance(value, Mapping) and not pattern and prefix + str(key) not in WHOLE:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _swept(key: str, values: Sequence[object]) -> bool:
    """Whether a list is one of values to be tried, not a value itself."""
    if key == "lora.target_modules" and values and all(value in KINDS for value in values):
        return True
    return key not in LISTS or any(isinstance(value, list | tuple) for value in values)


def _word(key: str) -> str:
    return SHORT.get(own_name(key), key.rpartition(".")[2] + "-")


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        text = ".".join(f"{key}{_value(one)}" for key, one in value.items())
    elif isinstance(value, list | tuple):
        text = ".".join(map(str, value))
    else:
        text = str(value)
    return re.sub(r"[^A-Za-z0-9._-]", "_", text)


def _merged(train: TrainSpec, changes: Mapping[str, object], where: str) -> TrainSpec:
    if not changes:
        return train
    values = train.model_dump(exclude_unset=True)
    lora = dict(values.pop("lora", {}))
    for key, value in changes.items():
        name = own_name(key)
        if name in EQUAL:
            raise StudyError(
                f"train.{key} cannot differ between arms: their budgets would not be equal",
                where=where,
                remedy=f"set it under `train:` for all arms; an arm may change "
                f"{', '.join(sorted(set(TrainSpec.model_fields) - EQUAL))}",
            )
        head, _, last = name.rpartition(".")
        if head == "lora":
            lora[last] = value
        elif head:
            raise StudyError(
                f"train.{key[:60]}: unknown key", where=where, remedy="see `holdfast schema`"
            )
        else:
            values[name] = value
    if lora:
        values["lora"] = lora
    strange = [key for key in values if key not in known_keys(TrainSpec)]
    if strange:
        raise StudyError(
            f"train.{strange[0][:60]}: {unknown(strange[0], TrainSpec)}",
            where=where,
            remedy="see `holdfast schema`",
        )
    return parse(TrainSpec, values, where, at=("train",))
