"""Which parts of a model get adapters: a study's words become the exact names that PEFT is given.

PEFT alone would take `all-linear` for every linear layer of whatever is loaded: vision and audio
towers, routers, and mixers whose code reads a weight without calling its layer. Here those are left
out and named; experts that are stacked in one parameter are adapted where PEFT 0.21 does it by
itself, without dropout, which it cannot apply there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from holdfast.config import LoraSpec
from holdfast.config.lora import TWO_HALVES
from holdfast.errors import StudyError
from holdfast.memory.model.parts import NOT_LANGUAGE, NUMBERED, Parts, is_transposed, kind_of, last
from holdfast.memory.model.words import ALL_LINEAR, PRESETS, is_pattern
from holdfast.registry import nearest
from holdfast.train.whole_modules import check_tied

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PLAIN = ("lora", "rslora")
"""Variants that PEFT can put on stacked experts."""
TOWERS = (
    "what reads pictures or sounds is left as it is (to train it too, give its names in "
    "train.lora.target_modules)"
)
UNSEEN = (
    "state-space mixers read these weights without calling their layer, so they get no adapters"
)
SHOWN = 4
"""Names written out in a notice."""


@dataclass(frozen=True, slots=True)
class Targets:
    """What gets adapters.

    Attributes:
        modules: by full name, in the model's order.
        parameters: stacked experts, by the shortest names that mean them and no others.
        ranks: ranks that differ, as PEFT reads them.
        alphas: scales that differ.
        dropout: that is used.
        transposed: the matrices are GPT-2's `Conv1D`.
        notices: what a reader of the figures must know.
    """

    modules: Mapping[str, torch.nn.Module]
    parameters: tuple[str, ...] = ()
    ranks: Mapping[str, int] = field(default_factory=dict)
    alphas: Mapping[str, int] = field(default_factory=dict)
    dropout: float = 0.0
    transposed: bool = False
    notices: tuple[str, ...] = ()


def choose(model: PreTrainedModel, lora: LoraSpec) -> Targets:
    """The modules and parameters that a study's settings mean for this model.

    Args:
        model: the base, not wrapped; may be on the meta device.
        lora: the study's settings.

    Raises:
        StudyError: they mean nothing here, or what PEFT cannot do.
    """
    return _Choice(model, lora).made()


class _Choice:
    """One model and one wish being brought together."""

    def __init__(self, model: PreTrainedModel, lora: LoraSpec) -> None:
        self.model, self.lora, self.notices = model, lora, list[str]()
        self.parts = Parts(model)

    def made(self) -> Targets:
        lora, asked = self.lora, self.lora.target_modules
        probe: str | set[str]
        if isinstance(asked, str) and asked.lower() == ALL_LINEAR:
            chosen, probe = self._sensible(lambda name: True), ALL_LINEAR
        elif isinstance(asked, str) and asked in PRESETS:
            chosen = self._sensible(lambda name: self.parts.kind(name) == asked)
            probe = set(PRESETS[asked])
        elif isinstance(asked, str) and is_pattern(asked):
            chosen, probe = self._matching(asked), asked
        else:
            given = [asked] if isinstance(asked, str) else list(asked)
            chosen, probe = self._named(given), set(given)
        parameters, ranks, alphas = self._experts(probe)
        self._unknown(asked, chosen, parameters)
        self._check_layers()
        chosen = [name for name in chosen if self._kept(name)]
        parameters = [name for name in parameters if self._kept(name)]
        if parameters and lora.variant not in PLAIN:
            self._tell(
                f"{lora.variant} cannot be put on experts that are stacked in one "
                "parameter: they stay as they are",
                parameters,
            )
            parameters = []
        chosen = self._reachable(chosen)
        if not chosen and not parameters:
            raise self._no_such(f"of {asked!r}{self._left_over()}")
        dropout = lora.dropout
        if parameters and dropout:
            self._tell(
                f"experts that are stacked in one parameter take no dropout: train.lora."
                f"dropout is 0 instead of {dropout:g}, for all adapters",
                parameters,
            )
            dropout = 0.0
        if not parameters and self.parts.stacked and asked != "attention":
            self._tell(
                "the experts are stacked in parameters that PEFT does not adapt by itself; "
                "they stay as they are, unless train.lora.target_parameters names them "
                "(with dropout: 0)",
                self.parts.stacked,
            )
        found = {name: self.parts.all[name] for name in self.parts.all if name in set(chosen)}
        self._check_patterns([*found, *parameters])
        check_tied(self.model, found)
        return Targets(
            found,
            tuple(self.parts.short(parameters)),
            {**(ranks if parameters else {}), **lora.rank_pattern},
            {**(alphas if parameters else {}), **lora.alpha_pattern},
            dropout,
            any(is_transposed(one) for one in found.values()),
            tuple(self.notices),
        )

    def _sensible(self, wanted: Callable[[str], bool]) -> list[str]:
        """Linear layers of the language model that an adapter does something for."""
        found = [name for name in self.parts.linear if wanted(name)]
        parts = self.parts
        for left, why in (
            (parts.is_tower, TOWERS),
            (NOT_LANGUAGE.search, "heads that predict several tokens at once are left as they are"),
            (parts.is_router, "what chooses experts is left as it is"),
            (parts.is_unseen, UNSEEN),
        ):
            out = [name for name in found if left(name)]
            if out:
                self._tell(why, out)
            found = [name for name in found if name not in set(out)]
        return found

    def _named(self, given: Sequence[str]) -> list[str]:
        """Modules by the ends of their names; a bare name means the language model's."""
        found: list[str] = []
        for name in given:
            here = [one for one in self.parts.all if one == name or one.endswith(f".{name}")]
            if any(self.parts.all[one] is self.parts.head for one in here):
                raise StudyError(
                    f"{name} is the output head, which takes no adapter: the loss reads its weight",
                    where="train.lora.target_modules",
                    remedy=f"train it whole with train.lora.modules_to_save: [{name}]",
                )
            inside = [one for one in here if not self.parts.is_tower(one)]
            if inside and len(inside) < len(here) and "." not in name:
                outside = [one for one in here if self.parts.is_tower(one)]
                self._tell(
                    "what reads pictures or sounds has layers of these names too; they are "
                    "left as they are (give longer names to train them)",
                    outside,
                )
                here = inside
            found += here
        return found

    def _matching(self, pattern: str) -> list[str]:
        """Modules whose whole name a regular expression matches, as PEFT reads it."""
        found = [name for name, _ in self.model.named_modules() if self._full(pattern, name)]
        out = [
            name
            for name in found
            if name not in self.parts.all or self.parts.all[name] is self.parts.head
        ]
        leaves = [name for name in out if not any(self.model.get_submodule(name).children())]
        if leaves and len(out) < len(found):
            self._tell("the pattern also means what takes no adapters; it is left as it is", leaves)
        return [name for name in found if name not in set(out)]

    def _full(self, pattern: str, name: str, setting: str = "target_modules") -> bool:
        try:
            return re.fullmatch(pattern, name) is not None
        except re.error as error:
            raise StudyError(
                f"{pattern!r} is no regular expression: {error}",
                where=f"train.lora.{setting}",
                remedy="correct it; a dot that is meant as such is written \\.",
            ) from error

    def _experts(
        self, probe: str | set[str]
    ) -> tuple[list[str], Mapping[str, int], Mapping[str, int]]:
        """Stacked experts that PEFT adapts by itself for these names, and those that are named."""
        from peft import LoraConfig
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

        lora, every = self.lora, dict(self.model.named_parameters())
        config = LoraConfig(
            r=lora.r, lora_alpha=lora.alpha, target_modules=probe, task_type="CAUSAL_LM"
        )
        if self.parts.stacked:
            try:
                convert_peft_config_for_transformers(config, self.model, None)
            except ValueError as error:
                raise StudyError(
                    f"half of a fused pair: {error}",
                    where="train.lora.target_modules",
                    remedy="name both, or neither",
                ) from error
        leaves = set(config.target_parameters or ())
        found = [name for name in self.parts.stacked if last(name) in leaves]
        ranks, alphas = dict(config.rank_pattern or {}), dict(config.alpha_pattern or {})
        for wanted in lora.target_parameters:
            here = [one for one in every if one == wanted or one.endswith(f".{wanted}")]
            if not here:
                raise StudyError(
                    f"the model has no parameter called {wanted!r}{nearest(wanted, every)}",
                    where="train.lora.target_parameters",
                    remedy=f"stacked experts here: {_some(self.parts.short(self.parts.stacked))}",
                )
            found += [one for one in here if one not in found]
        return found, ranks, alphas

    def _reachable(self, chosen: list[str]) -> list[str]:
        """Without what PEFT 0.21 takes for the stacked experts because of its name."""
        if self.lora.variant not in (*PLAIN, "dora", *TWO_HALVES):
            return chosen
        taken = {name for names in self.parts.translated.values() for name in names}
        kept = [name for name in chosen if last(name) not in taken]
        lost = [name for name in chosen if last(name) in taken]
        if lost:
            self._tell(
                "PEFT takes these for the stacked experts because of their names, so they "
                "get no adapters of their own",
                lost,
            )
        return kept

    def _kept(self, name: str) -> bool:
        """Whether neither a layer, nor an exclusion, nor a whole module to train forbids it."""
        lora = self.lora
        if lora.layers is not None and self._layer(name) not in lora.layers:
            return False
        out = lora.exclude_modules
        if isinstance(out, str) and is_pattern(out):
            if self._full(out, name, "exclude_modules"):
                return False
        elif any(name == one or name.endswith(f".{one}")
                 for one in ([out] if isinstance(out, str) else out)):  # fmt: skip
            return False
        return not any(part in name.split(".") for part in lora.modules_to_save)

    def _layer(self, name: str) -> int | None:
        """The number of the decoder layer that a module is in."""
        if self.parts.is_tower(name):
            return None
        for pattern in self.lora.layers_pattern:
            if found := re.match(rf"(?:^|.*?\.){pattern}\.(\d+)\.", name):
                return int(found[1])
        found = None if self.lora.layers_pattern else NUMBERED.match(name)
        return int(found[1]) if found else None

    def _check_layers(self) -> None:
        there = {
            one
            for one in map(self._layer, [*self.parts.linear, *self.parts.stacked])
            if one is not None
        }
        missing = sorted(set(self.lora.layers or ()) - there)
        if missing:
            raise StudyError(
                f"the model has no layer {missing[0]}",
                where="train.lora.layers",
                remedy=f"its layers are numbered {min(there, default=0)} to "
                f"{max(there, default=0)}",
            )

    def _check_patterns(self, adapted: Sequence[str]) -> None:
        """Refuse a rank or scale for what has no adapter; PEFT would pass it over."""
        for setting in ("rank_pattern", "alpha_pattern"):
            for key in getattr(self.lora, setting):
                if not any(self._full(rf"(.*\.)?({key})", name, setting) for name in adapted):
                    raise StudyError(
                        f"{key!r} means nothing that has an adapter",
                        where=f"train.lora.{setting}",
                        remedy=f"adapters are on {_some(sorted({last(one) for one in adapted}))}",
                    )

    def _unknown(
        self, asked: str | Sequence[str], chosen: Iterable[str], parameters: Iterable[str]
    ) -> None:
        """Refuse a name that means nothing here."""
        if isinstance(asked, str) and (asked.lower() == ALL_LINEAR or asked in PRESETS):
            return
        given = [asked] if isinstance(asked, str) else list(asked)
        if isinstance(asked, str) and is_pattern(asked):
            if not list(chosen) and not list(parameters):
                raise self._no_such(f"that {asked!r} matches as a whole name")
            return
        names = [*chosen, *parameters]
        for name in given:
            by_experts = any(True for _ in parameters) and name in _MAPPED
            if not by_experts and not any(n == name or n.endswith(f".{name}") for n in names):
                raise self._no_such(f"called {name!r}{nearest(name, map(last, self.parts.linear))}")

    def _no_such(self, what: str) -> StudyError:
        there = sorted({last(name) for name in self.parts.linear})
        example = next(iter(self.parts.linear), "")
        more = f"; a whole name is {example}" if example else ""
        if self.parts.stacked:
            stacked = _some(self.parts.short(self.parts.stacked))
            more += f"; stacked experts ({stacked}) go under target_parameters"
        return StudyError(
            f"the model has no matrix {what}",
            where="train.lora.target_modules",
            remedy=f"it has {', '.join(there)}{more}",
        )

    def _left_over(self) -> str:
        limits = [name for name in ("layers", "exclude_modules", "modules_to_save")
                  if getattr(self.lora, name)]  # fmt: skip
        return f" that {', '.join(limits)} would leave" if limits else ""

    def _tell(self, what: str, names: Sequence[str]) -> None:
        kinds = list(dict.fromkeys(kind_of(name) for name in names))
        self.notices.append(f"{what}: {_some(kinds)}")


_MAPPED = ("gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")
"""Names of experts' matrices in transformers 4, which PEFT translates."""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more kinds" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more if names else "none"
