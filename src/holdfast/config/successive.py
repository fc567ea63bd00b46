"""Which tasks can be learned one after the other, and what does not go with that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from holdfast.config.training import TrainSpec
from holdfast.registry import nearest

FEWEST = 2


def check_stages(stages: Sequence[str], roles: Mapping[str, str]) -> None:
    """Refuse stages that are no tasks to learn, each once, two at least.

    Args:
        stages: names of tasks, in the order in which they are learned.
        roles: of every task of the study.

    Raises:
        ValueError: naming the task and what to write.
    """
    for name in stages:
        if name not in roles:
            raise ValueError(f"stages: no task is called {name!r}{nearest(name, roles)}")
        if stages.count(name) > 1:
            raise ValueError(
                f"stages: {name!r} is named twice; to learn it again give it a second name under "
                "`tasks`, with items of its own"
            )
    if len(stages) < FEWEST:
        raise ValueError(
            f"stages: {len(stages)} named, and one after the other takes two at least; to learn "
            "one task leave `stages` out"
        )
    if kept := [name for name in stages if roles[name] != "target"]:
        raise ValueError(f"stages: {kept[0]!r} is learned, so it needs `role: target`")
    if left := [name for name, role in roles.items() if role == "target" and name not in stages]:
        raise ValueError(
            f"{left[0]!r} has `role: target` and is no stage: add it to `stages`, or make it "
            "`role: retained`"
        )


def unfit_for_stages(train: TrainSpec) -> Iterator[tuple[str, str]]:
    """Settings of a training that cannot be had where it has stages: each with the reason."""
    if train.validates:
        name = "val_path" if train.val_path else "val_size"
        yield name, "examples are held out of one training set, and every stage has its own"
    if train.method != "full" and train.lora.variant in ("oft", "osf", "corda"):
        yield "lora.variant", f"that {train.lora.variant} goes on from an adapter was not validated"


def grown(train: TrainSpec, stages: int) -> TrainSpec:
    """The settings after so many stages that have adapters of their own, side by side in one.

    Rank and alpha grow alike, so the scale alpha / r stays what it was.
    """
    lora = train.lora
    if stages == 1:
        return train
    wide = lora.model_copy(update={"r": lora.r * stages, "alpha": lora.alpha * stages})
    return train.model_copy(update={"lora": wide})
