"""What the flags of `holdfast plan` mean as settings of a study, and as a request for a plan."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from holdfast.errors import UsageError

if TYPE_CHECKING:
    from holdfast.memory.planner.request import PlanRequest

SOURCE = "the command line"


def overrides(flags: Mapping[str, object], given: Sequence[str]) -> list[str]:
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


def request(asked: PlanRequest, settings: Sequence[str], remedies: Sequence[str]) -> PlanRequest:
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
