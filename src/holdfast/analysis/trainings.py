"""The trainings of one arm taken together (one, or one for each chapter), and what they cost."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from holdfast.errors import ModelError
from holdfast.memory.model.reading import read_shape
from holdfast.runs import records, store
from holdfast.runs.chapters import data_of
from holdfast.runs.plan import ArmPlan, Plan
from holdfast.types import Point

SUMS = (
    "steps", "supervised_tokens", "examples_seen", "tokens", "reference_tokens", "generated_tokens",
    "probe_tokens",
)  # fmt: skip


def stages_of(plan: Plan) -> list[str]:
    """The stages that train, of all arms and seeds."""
    return [one.stage for run in plan.trained for one in plan.trainings(*run)]


def folders(plan: Plan, arm: str, seeds: Iterable[int]) -> list[Path]:
    """Of all its trainings."""
    return [plan.folder / one.stage for seed in seeds for one in plan.trainings(arm, seed)]


def data_summary(plan: Plan, arm: str) -> records.Summary:
    """What the stages that make an arm's training sets say, numbers added up."""
    stages = data_of(plan.chapters, arm)
    found = [records.summary(plan.folder / one) for one in stages]
    if not plan.chapters:
        return found[0]
    by_source: dict[str, float] = {}
    spent: dict[str, float] = {}
    for one in found:
        _add(by_source, one["by_source"])
        _add(spent, one["spent"])
    together = {
        "examples": sum(one["examples"] for one in found),
        "by_source": by_source,
        "notes": [
            f"{chapter.task}: {note}"
            for chapter, one in zip(plan.chapters, found, strict=True)
            for note in one["notes"]
        ],
        "spent": spent,
        "alike": any(one["alike"] for one in found),
    }
    return records.Summary(together, plan.folder / stages[-1])


def rewarded(plan: Plan, arm: str) -> list[str]:
    """How often a question's answers differed in what they earned, where answers earn something.

    Where none is ever right there is nothing to learn from, which explains a small gain.
    """
    files = [one / records.REWARDS for one in folders(plan, arm, plan.study.seeds)]
    rows = [row for file in files if file.is_file() for _, row in store.read_objects(file)]
    if not any(row["groups"] for row in rows):
        return []
    names = dict.fromkeys(name for row in rows for name in row.get("targets", ()))
    of = {name: [row["targets"][name] for row in rows if name in row["targets"]] for name in names}
    told = []
    for name, some in (of or {"": rows}).items():
        groups = sum(row["groups"] for row in some)
        texts = [
            f"answers to one question differed in reward in {_share(some, 'mixed')} of {groups:,} "
            "groups, and only these teach anything"
        ]
        if all("never" in row for row in some):
            texts.append(f"no answer of a group earned anything in {_share(some, 'never')} of them")
        told += [f"{name}: {text}" if name else text for text in texts]
    return told


def lessons(plan: Plan, arm: ArmPlan) -> list[records.Summary]:
    """What was learned for an arm's last weights after its training, one for each seed.

    Empty where nothing was, and as long as they are not made.
    """
    if not arm.merged:
        return []
    step, scale = arm.places[-1]
    made = [plan.made_in(Point(arm.name, seed, step, scale)) for seed in arm.seeds]
    folders = [plan.folder / one for one in made]
    found = [records.summary(one) for one in folders if records.read(one) is not None]
    return [one for one in found if "loss_before" in one]


def told(taught: Collection[records.Summary]) -> list[str]:
    """How much was learned after training, and whether it helped."""
    if not taught:
        return []
    steps = round(fmean(one["steps"] for one in taught))
    before, after = (fmean(one[name] for one in taught) for name in ("loss_before", "loss_after"))
    return [
        f"{steps:,} more steps after training, one example each, which are counted in the budget: "
        f"the loss of these went from {before:.3f} to {after:.3f}"
    ]


def _share(rows: Sequence[Mapping[str, float]], name: str) -> str:
    return f"{sum(row[name] for row in rows) / sum(row['groups'] for row in rows):.0%}"


def run_summary(plan: Plan, arm: str, seed: int) -> records.Summary:
    """What the trainings of an arm with one seed say, numbers added up; steps count on."""
    trained = plan.trainings(arm, seed)
    found = [records.summary(plan.folder / one.stage) for one in trained]
    if not plan.chapters:
        return found[0]
    loss = [
        [step + of.before, value]
        for of, one in zip(trained, found, strict=True)
        for step, value in one["loss"]
    ]
    together = {
        **found[-1],
        **{name: sum(one.get(name, 0) for one in found) for name in SUMS},
        "loss": loss,
        "recomputed": any(one.get("recomputed") for one in found),
    }
    return records.Summary(together, plan.folder / trained[-1].stage)


def seconds(folder: Path) -> float:
    """What a finished stage took."""
    return float(records.finished(folder)["seconds"])


def _add(to: dict[str, float], more: Mapping[str, float]) -> None:
    for name, value in more.items():
        to[name] = to.get(name, 0) + value


FORWARD = 2.0


@dataclass(frozen=True, slots=True)
class Costs:
    """Of one arm; means over its seeds where there are several trainings.

    Attributes:
        seconds: of training.
        shared_seconds: of work that other arms may share.
        flops: estimate of all of it.
        tokens: put through the model in training.
        generated_tokens: written by the model, for its data or in training.
    """

    seconds: float
    shared_seconds: float
    flops: float
    tokens: int
    generated_tokens: int


def cost_of(
    plan: Plan,
    arm: ArmPlan,
    data: records.Summary,
    runs: Sequence[records.Summary],
    after: float = 0.0,
) -> Costs:
    """What one arm cost beyond its equal budget: seconds, tokens and arithmetic.

    Arithmetic is estimated as usual (Kaplan et al. 2020, arXiv:2001.08361): a forward pass takes
    two operations per parameter and token, a backward pass four; with adapters the gradients of the
    frozen weights are not formed, so that it takes two; recomputed activations cost another forward
    pass. Attention over the sequence is left out. Shared work counts in full for each arm that uses
    it.

    Args:
        plan: its study.
        arm: one that trains.
        data: the summary of its data stage.
        runs: the summaries of its trainings, one for each seed.
        after: tokens that were learned from when training was over.
    """
    train = arm.training
    backward = 4.0 if train["method"] == "full" else 2.0
    again = fmean(bool(run.get("recomputed", train["gradient_checkpointing"])) for run in runs)
    each = FORWARD + backward + FORWARD * again
    tokens = fmean(run["tokens"] for run in runs)
    reference = fmean(run["reference_tokens"] for run in runs)
    written = fmean(run["generated_tokens"] for run in runs)
    probed = fmean(run.get("probe_tokens", 0) for run in runs)
    passes = (
        each * tokens
        + (FORWARD + backward) * after
        + FORWARD * (reference + written)
        + 3 * FORWARD * probed
    )
    shared = [plan.folder / "shared" / name for name in arm.shared]
    spent = [records.summary(folder)["spent"] for folder in shared] + [data["spent"]]
    passes += FORWARD * sum(one["read"] + one["written"] for one in spent)
    taken = sum(map(seconds, folders(plan, arm.name, plan.study.seeds)))
    return Costs(
        seconds=round(taken / len(runs), 1),
        shared_seconds=round(sum(map(seconds, shared)) + data["spent"]["seconds"], 1),
        flops=passes * _active_parameters(plan),
        tokens=round(tokens + after),
        generated_tokens=round(written + sum(one["written"] for one in spent)),
    )


def _active_parameters(plan: Plan) -> int:
    """Of the model under test; 0 where its configuration does not say."""
    try:
        return read_shape(plan.model.base, plan.model.revision).active_parameters
    except ModelError:
        return 0
