"""Which remedies are worth trying first, by what was recorded of them here.

The evidence is what Holdfast's own studies measured: the arms on the lab's model with three seeds
(docs/remedies.md), those that learn from their own answers also on problems that the lab's model
can solve, a small instruct model with one seed and, where it was taught to count, with two
(docs/real.md), and how long each takes (docs/benchmarks.md). Remedies without a recorded comparison
are named, and not ranked. What is recorded of two small models is a reason to try something first,
no promise.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from holdfast.analysis.lookup import final
from holdfast.analysis.results import Results
from holdfast.analysis.story import NOTICED, may_have_lost
from holdfast.config import ArmSpec, Study
from holdfast.types import BASE

LAB_GAIN, LAB_LOST, REAL_LOST = 32.1, 83.4, 28.3
"""What plain fine-tuning gained on the lab's target, and lost of the refusals there and on the real
model, in points."""
COUNT_GAIN, COUNT_LOST = 54.2, 33.0
"""And on the real model that was taught to count: of problems solved within 64 tokens, and of
harmful prompts that it does not help with."""
SOLVED_GAIN, SOLVED_LOST = 13.9, 44.5
"""And on the lab's problems of which the untouched model solves two in three."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is recorded of one remedy.

    Attributes:
        method: its name.
        arm: how it is written below an arm of the study.
        gain: points gained on the lab's target.
        lost: points lost of the lab's refusals.
        real_lost: points lost of the real model's refusals, where it learned nothing; None: not
            measured there.
        time: training, as a multiple of plain fine-tuning; 0: nothing is trained.
        needs: what must be there for it; "" for nothing.
        counted: points gained and lost by the real model that was taught to count; None: not
            measured.
        along: it is made while plain fine-tuning trains, which has to be done again where it is
            done already.
        solved: points gained and lost on problems that the untouched model mostly solves; None: not
            measured.
    """

    method: str
    arm: Mapping[str, object]
    gain: float
    lost: float
    real_lost: float | None = None
    time: float = 1.0
    needs: str = ""
    counted: tuple[float, float] | None = None
    along: bool = False
    solved: tuple[float, float] | None = None

    @property
    def worth(self) -> float:
        """The share of the gain times the share of the loss avoided, the mean of all studies.

        Where nothing was learned the lab's gain stands for the study's own.
        """
        learned = self.gain / LAB_GAIN
        shares = [(learned, self.lost / LAB_LOST)]
        shares += [] if self.real_lost is None else [(learned, self.real_lost / REAL_LOST)]
        others = (self.counted, COUNT_GAIN, COUNT_LOST), (self.solved, SOLVED_GAIN, SOLVED_LOST)
        shares += [(own[0] / gain, own[1] / lost) for own, gain, lost in others if own is not None]
        each = [max(0.0, min(1.0, gained)) * (1 - max(0.0, lost)) for gained, lost in shares]
        return max(0.0, sum(each) / len(each))


OLD = "prompts of the old kind, which Holdfast has built in for refusals"
SOLVED = "problems that the untouched model sometimes solves"
EVIDENCE = (
    Evidence(
        "replay", {"data": [{"replay": {"share": 0.1}}]}, 32.1, 0.8, 6.7, 1.06, OLD,
        counted=(40.6, 6.4),
    ),
    Evidence(
        "kl", {"loss": [{"kl": {"weight": 1.0, "share": 0.1}}]}, 31.0, 0.2, 4.6, 0.98, OLD,
        counted=(43.8, -3.2),
    ),
    Evidence(
        "l2_init", {"loss": [{"l2_init": {"weight": 0.001}}]}, 27.8, 24.1, counted=(54.2, 31.9)
    ),
    Evidence("ewc", {"loss": [{"ewc": {"weight": 0.001}}]}, 27.8, 26.7, None, 1.48, OLD),
    Evidence("scale", {"weights": [{"scale": {"factors": [0.5, 0.8]}}]}, 27.4, 57.1, 19.6, 0.0),
    Evidence("loss_weight", {"loss": [{"loss_weight": {"by": "eaft"}}]}, 29.2, 70.5, None, 0.97),
    Evidence("selfgen", {"data": ["selfgen"]}, 5.1, 8.6, None, 1.88),
    Evidence("token_mask", {"loss": ["token_mask"]}, -0.7, 38.9, None, 1.11),
    Evidence(
        "mask_target", {"loss": [{"mask_target": {"weight": 0.1}}]}, 29.3, 25.1, None, 1.20,
        counted=(55.2, 21.3),
    ),
    Evidence(
        "guardspace", {"loss": ["guardspace"], "train": {"lora": {"variant": "guardspace"}}},
        21.9, 0.1, None, 1.16, OLD, counted=(-1.0, 3.2),
    ),
    Evidence("ema", {"weights": ["ema"]}, 12.9, 25.9, None, 0.0, along=True),
    Evidence("fapm", {"weights": ["fapm"]}, 4.7, 7.1, None, 0.0),
    Evidence("grpo", {"loss": ["grpo"]}, 6.0, 0.3, None, 9.38, SOLVED, solved=(15.0, 0.5)),
    Evidence("raft", {"loss": ["raft"]}, 3.7, 0.8, None, 1.72, SOLVED, solved=(14.9, 0.3)),
    Evidence("first_tokens", {"loss": ["first_tokens"]}, 32.1, 87.1, None, 1.17),
    Evidence("lisa", {"loss": ["lisa"]}, -6.0, 0.0, None, 1.30, OLD),
    Evidence("star", {"loss": ["star"]}, 32.1, 83.4, None, 0.98, "a judge"),
    Evidence("dpo", {"loss": ["dpo"]}, -13.9, 48.2, None, 1.71, SOLVED),
    Evidence("sdft", {"loss": ["sdft"]}, -56.4, 55.0, None, 1.9),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Question:
    """What is known of a study.

    Attributes:
        tried: names of the methods that it has already.
        plain: its arm of plain fine-tuning; "" for none.
        plain_minutes: that its training took, all seeds together; None: not known.
        gained: whether plain fine-tuning clearly gained; None: not measured, or open.
        lost: the retained tasks that lost by it, or may have; None: not measured.
        minutes: at hand for training; None: no limit.
        misfits: methods that cannot be run on the hardware that there is, and why.
        plans: methods that fit it otherwise than plain training does, and how.
        unknown: why nobody knows what fits; "" where it is known, or was not asked.
    """

    tried: Collection[str] = ()
    plain: str = ""
    plain_minutes: float | None = None
    gained: bool | None = None
    lost: Sequence[str] | None = None
    minutes: float | None = None
    misfits: Mapping[str, str] = field(default_factory=dict)
    plans: Mapping[str, str] = field(default_factory=dict)
    unknown: str = ""


def of_study(study: Study, minutes: float | None = None) -> Question:
    """What is known of a study before it has run."""
    used = {name: methods_of(arm) for name, arm in study.arms.items()}
    plain = next((name for name, arm in study.arms.items() if _is_plain(arm)), "")
    return Question({one for some in used.values() for one in some}, plain, minutes=minutes)


def of_results(results: Results, minutes: float | None = None) -> Question | None:
    """What is known of a finished study; None where it trained nothing plainly, or in stages.

    Plain fine-tuning is the first arm that was trained without a remedy.
    """
    trained = [arm for arm in results.arms if arm.examples and arm.name != BASE]
    plain = next((arm for arm in trained if arm.methods == ()), None)
    if plain is None or results.learned or any(arm.methods is None for arm in trained):
        return None
    took = plain.seconds * max(1, len(results.seeds)) / 60
    gains, lost, seems = [], [], False
    for task in results.tasks:
        cell = final(results, plain.name, task.name)
        if cell is None or cell.diff is None or cell.diff.mean is None:
            continue
        if task.role == "target":
            gains.append(cell.diff.direction == "better")
            seems |= not task.unit and cell.diff.mean >= NOTICED
        elif may_have_lost(cell.diff, task.unit):
            lost.append(task.name)
    gained = True if any(gains) else None if seems or not gains else False
    tried = {one for arm in results.arms for one in arm.methods or ()}
    return Question(tried, plain.family or plain.name, took, gained, lost, minutes)


def methods_of(arm: ArmSpec) -> tuple[str, ...]:
    """Names of the remedies of an arm, in order."""
    return tuple(
        name
        for steps in (arm.data, arm.loss, arm.weights, arm.ask)
        for step in steps
        for name in step
    )


def _is_plain(arm: ArmSpec) -> bool:
    return not methods_of(arm) and arm.source is None


@dataclass(frozen=True, slots=True)
class Advice:
    """One arm that is worth trying.

    Attributes:
        method: the remedy.
        arm: as it is written in the study.
        why: the evidence.
        cost: what it takes.
    """

    method: str
    arm: Mapping[str, object]
    why: str
    cost: str


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to try, in order, and what was left out.

    Attributes:
        first: what matters more than any remedy; "" for nothing.
        advice: the best first.
        left_out: sentences on remedies that would have been among them.
    """

    first: str = ""
    advice: Sequence[Advice] = ()
    left_out: Sequence[str] = field(default_factory=tuple)


def recommend(asked: Question, unranked: Collection[str], count: int = 3) -> Recommendation:
    """Which arms are worth trying first, in order, with reasons and costs.

    Args:
        asked: what is known of the study.
        unranked: all remedies that there are; those without evidence, or that cannot be written
            without a prompt, a model or an arm of the user's, are named.
        count: how many, at most.
    """
    if asked.gained is False:
        return Recommendation(
            "Plain fine-tuning gained nothing measurable, and a remedy gives back what was kept at "
            "the price of gain: look for a gain first (more steps, a higher rate, other data)."
        )
    if asked.lost is not None and not asked.lost:
        return Recommendation(
            "Nothing that was measured was clearly lost by plain fine-tuning: no remedy is needed "
            "for it. Measure what else must be kept."
        )
    left = None if asked.minutes is None else asked.minutes
    advice: list[Advice] = []
    out: list[str] = []
    for one in sorted(EVIDENCE, key=_rank):
        if one.method in asked.tried or one.worth <= 0 or len(advice) == count:
            continue
        times = 1.0 if one.along and asked.lost is not None else one.time
        took = None if asked.plain_minutes is None else times * asked.plain_minutes
        if one.method in asked.misfits:
            out.append(f"{one.method}: {asked.misfits[one.method]}")
        elif left is not None and took is not None and took > left:
            out.append(f"{one.method}: takes {_minutes(took)}, and {_minutes(left)} are left")
        elif one.time == 0 and not asked.plain:
            out.append(f"{one.method}: needs an arm of plain fine-tuning to take a share of")
        else:
            source = {"from": asked.plain} if one.time == 0 else {}
            cost = _cost(one, times, took, asked.plans.get(one.method, ""))
            advice.append(Advice(one.method, {**source, **one.arm}, _why(one), cost))
            left = None if left is None or took is None else left - took
    known = {one.method for one in EVIDENCE}
    if rest := sorted(set(unranked) - known - set(asked.tried)):
        out.append(
            f"not ranked, as nothing is recorded or they want something of yours: {', '.join(rest)}"
        )
    if asked.unknown:
        out.append(f"whether these fit the memory is not known: {asked.unknown}")
    return Recommendation("", tuple(advice), tuple(out))


def _rank(one: Evidence) -> tuple[float, float, float]:
    """The best by the record first; the cheaper of those within a tenth."""
    return -round(one.worth, 1), one.time, -one.worth


def _why(one: Evidence) -> str:
    gained = f"{one.gain:.1f} of plain fine-tuning's {LAB_GAIN:.1f} points"
    text = f"on the lab it gained {gained} and lost {one.lost:.1f} of its {LAB_LOST:.1f}"
    if one.real_lost is not None:
        text += f"; on a small instruct model it lost {one.real_lost:.1f} of {REAL_LOST:.1f}"
    if one.counted is not None:
        more, less = one.counted
        text += (
            f"; where that was taught to count it gained {more:.1f} of {COUNT_GAIN:.1f} and lost "
            f"{max(0.0, less):.1f} of {COUNT_LOST:.1f}"
        )
    if one.solved is not None:
        more, less = one.solved
        text += (
            f"; on problems of which the untouched model solves two in three it gained {more:.1f} "
            f"beside {SOLVED_GAIN:.1f} and lost {less:.1f} of {SOLVED_LOST:.1f}"
        )
    return text


def _cost(one: Evidence, times: float, minutes: float | None, plan: str) -> str:
    how = "no training" if times == 0 else f"{times:.2g} times plain training"
    parts = ["plain training once more, which keeps the average" if times and one.along else how]
    if minutes is not None and times:
        parts.append(("about " if minutes >= 1 else "") + _minutes(minutes))
    parts += [f"needs {one.needs}"] if one.needs else []
    parts += [f"fits as: {plan}"] if plan else []
    return ", ".join(parts)


def _minutes(count: float) -> str:
    return f"{count:.0f} min" if count >= 1 else "less than a minute"


def told(found: Recommendation) -> list[str]:
    """A recommendation in sentences: what to try, in order, why, and what it takes."""
    lines = [found.first] if found.first else []
    lines += [
        f"{number}. {written(one.arm)}: {one.why}; {one.cost}"
        for number, one in enumerate(found.advice, 1)
    ]
    return [*lines, *(f"left out: {one}" for one in found.left_out)]


def arms() -> dict[str, Mapping[str, object]]:
    """The arms that could be recommended, by method."""
    return {one.method: one.arm for one in EVIDENCE if one.worth > 0 and one.time > 0}


def written(arm: Mapping[str, object]) -> str:
    """An arm as it is written in a study, in one line."""
    import yaml

    return yaml.safe_dump(dict(arm), default_flow_style=True, sort_keys=False, width=1000).strip()
