"""What does each arm of a study ask of memory?

Arms differ in their adapters and in what their loss methods keep; a plan for a study must hold for
the arm that takes most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from holdfast import methods
from holdfast.config import Study, TrainSpec
from holdfast.config.sweeps import expand
from holdfast.memory.estimate.method_overhead import NOTHING, Extra, together


@dataclass(frozen=True, slots=True)
class Demand:
    """One training, as far as memory cares.

    Attributes:
        arm: whose.
        train: the study's training settings with the arm's own.
        extra: what its loss methods ask for.
    """

    arm: str
    train: TrainSpec
    extra: Extra = NOTHING


def of_study(study: Study) -> list[Demand]:
    """The demands of all arms that are trained, in the study's order.

    Raises:
        StudyError: see `holdfast.config.sweeps.expand` and `holdfast.methods.build`.
    """
    found = []
    for variant in expand(study, study.name).values():
        if not variant.trains:
            continue
        where = f"arms.{variant.family}.loss"
        loss = [
            methods.build(name, options, study.name, where)
            for step in variant.spec.loss
            for name, options in step.items()
        ]
        found.append(Demand(variant.name, variant.train, of_methods(loss)))
    return found


def of_methods(loss: Sequence[Any]) -> Extra:
    """What an arm's loss methods ask for together."""
    return together(method.overhead() for method in loss)
