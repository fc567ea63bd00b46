"""What was typed: as settings, as a request for a plan, and what to type next."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from unicodedata import normalize

from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast.config import Study
    from holdfast.memory.planner.request import PlanRequest

SOURCE = "the command line"
"""Where settings are from, in messages."""
TYPED: ContextVar[tuple[str, ...]] = ContextVar("typed", default=())
"""The words of the command line under way."""
SWITCHES = {"--dry-run", "--json", "--find-gpus", "--find-length", "--find-batch"}
"""Options without a value, of those that are ever left out."""


FULL_WIDTH = re.compile(r"[A-Za-z0-9_.-]*=?[-0-9.０-９．－＋]*[０-９][-0-9.０-９．－＋]*")


def half_width(words: Sequence[str]) -> list[str]:
    """The words of a command line with numbers as they are read: `４０９６` is `4096`."""
    return [normalize("NFKC", word) if FULL_WIDTH.fullmatch(word) else word for word in words]


def retyped(off: Sequence[str], values: Mapping[str, str], more: Sequence[str] = ()) -> str:
    """The command line under way with other options; "" where nothing was typed.

    Args:
        off: options that are left out, with their values.
        values: options with what they are to be.
        more: words at the end.
    """
    kept = without(TYPED.get(), {*off, *values, "--json"})
    if not kept:
        return ""
    return shlex.join(["holdfast", *kept, *more, *(x for pair in values.items() for x in pair)])


def without(words: Sequence[str], options: Collection[str]) -> list[str]:
    """A command line without some options and their values."""
    kept: list[str] = []
    skip = False
    for word in words:
        name, equals, _ = word.partition("=")
        if name in options:
            skip = not equals and name not in SWITCHES
        elif skip:
            skip = False
        else:
            kept.append(word)
    return kept


def study_of(
    asked: PlanRequest, file: Path, settings: Sequence[str], remedies: Sequence[str]
) -> tuple[Study, list[str]]:
    """The study with what was said beside it, and that as `key=value`.

    Raises:
        UsageError: loss methods beside a study.
        StudyError: a study that is none.
    """
    from holdfast.config import load
    from holdfast.models import gguf_cache

    if remedies:
        raise UsageError(
            "--remedy goes with --model", remedy="a study's arms name their own methods"
        )
    other = [*([f"model={asked.model}"] if asked.model else []), *settings]
    study = load.load(file, other)
    gguf_cache.base_of(study.model.id, study.model.revision)
    return study, other


def overrides_of(flags: Mapping[str, object], given: Sequence[str]) -> list[str]:
    """Settings as `key=value`: those of flags that were given, then those that were written so.

    Args:
        flags: keys of a study to values; None and False were not given.
        given: as the user wrote them.
    """
    found = []
    for key, value in flags.items():
        if value is None or value is False:
            continue
        names = str(value).replace(",", " ").split()
        listed = key == "train.lora.target_modules" and len(names) > 1
        found.append(f"{key}={json.dumps(names if listed else value)}")
    return [*found, *given]


def request_of(asked: PlanRequest, settings: Sequence[str], remedies: Sequence[str]) -> PlanRequest:
    """The request without a study: for a model, with these settings.

    Args:
        asked: what has flags of its own.
        settings: of `train`, `model` and `hardware`, as `key=value`.
        remedies: loss methods, as in an arm.

    Raises:
        StudyError: a setting that is none, or a method that is none.
        UsageError: a section that means nothing without a study.
    """
    from holdfast.config import HardwareSpec, ModelSpec, TrainSpec
    from holdfast.config.load import parse, said

    if not settings and not remedies:
        return asked
    sections = said(settings)
    if unknown := sorted(set(sections) - {"train", "model", "hardware"}):
        raise UsageError(
            f"{unknown[0]} means nothing without a study",
            remedy="give settings of train, model or hardware, or name a study file",
        )
    of_model = sections.get("model")
    named = of_model if isinstance(of_model, Mapping) else {"id": of_model or asked.model}
    model = parse(ModelSpec, {"id": asked.model, **named}, SOURCE, at=("model",))
    train = parse(TrainSpec, sections.get("train") or {}, SOURCE, at=("train",))
    hardware = parse(HardwareSpec, sections.get("hardware") or {}, SOURCE, at=("hardware",))
    said_method = train.method if "method" in train.model_fields_set else "auto"
    found = replace(
        asked,
        model=model.id,
        revision=model.revision,
        gpus=asked.gpus or hardware.gpus or ("cpu" if hardware.device == "cpu" else None),
        seq_len=asked.seq_len or train.row_tokens(None),
        strategy=asked.strategy or hardware.strategy,
        method=asked.method or said_method,
        train=train,
        attention=model.attn_implementation,
    )
    if not remedies:
        return found
    from holdfast.train.planning import overhead_of_named

    return replace(found, overhead=overhead_of_named(remedies))
