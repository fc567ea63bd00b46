"""The single findings that `Results` is made of: tasks, arms, shares, cells, decision and so on.

All are frozen and round-trip through JSON. Import them from `holdfast.analysis.results`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Direction = Literal["better", "worse", "no clear change"]


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """How one ability was measured."""

    name: str
    role: str  # "target" (what training is for) or "retained" (what must not be lost)
    label: str  # what the figure is, e.g. "accuracy (tolerant extraction)"
    n: int  # items
    how: str  # a sentence: split, decoding, shots, judge
    inverted: bool = False
    judge: Mapping[str, object] = field(default_factory=dict)  # all that its verdicts depend on
    unit: str = ""  # of a figure that is no share and is shown with its sign turned: bits/byte

    @property
    def lower_is_better(self) -> bool:
        """The way round in which its figure is shown."""
        return self.inverted or bool(self.unit)


@dataclass(frozen=True, slots=True)
class ArmInfo:
    """What one arm was trained on and what it cost; for `base` all of it is zero."""

    name: str
    recipe: str  # in words, e.g. "replay (share 0.1)"; "untouched model" for base
    examples: int = 0  # distinct training examples
    by_source: Mapping[str, int] = field(default_factory=dict)
    steps: int = 0
    supervised_tokens: int = 0  # summed over the whole run, mean over seeds
    examples_seen: int = 0
    seconds: float = 0.0  # training time, mean over seeds
    notes: tuple[str, ...] = ()  # e.g. "412 of 600 problems solved by the model itself"
    loss: tuple[tuple[int, float], ...] = ()  # (step, training loss), first seed
    family: str = ""  # the arm of the study file; several arms when it is a sweep
    shared_seconds: float = 0.0  # making its data, once for all arms that use it
    flops: float = 0.0  # estimate: training, reference passes, generation, shared work included
    tokens: int = 0  # put through the model in training, mean over seeds
    generated_tokens: int = 0  # written by the model for its data or in training
    methods: tuple[str, ...] | None = None  # names of its remedies; None where nobody noted them


@dataclass(frozen=True, slots=True)
class Share:
    """A mean with its interval: `mean` is None when nothing could be scored."""

    mean: float | None
    low: float | None
    high: float | None
    n: int
    unscored: int = 0

    def turned(self) -> Share:
        """`1 - mean` with its interval: a share of good answers as the share of bad ones."""
        if self.mean is None:
            return self
        low = None if self.high is None else 1 - self.high
        high = None if self.low is None else 1 - self.low
        return Share(1 - self.mean, low, high, self.n, self.unscored)

    def negated(self) -> Share:
        """`-mean` with its interval: a measure of which less is better, and the other way round."""

        def minus(value: float | None) -> float | None:
            return None if value is None else -value

        ends = minus(self.high), minus(self.low)
        return Share(minus(self.mean), *ends, self.n, self.unscored)

    @property
    def direction(self) -> Direction:
        """What a difference says: better or worse only if its interval leaves out 0."""
        if self.low is not None and self.low > 0:
            return "better"
        return "worse" if self.high is not None and self.high < 0 else "no clear change"


@dataclass(frozen=True, slots=True)
class MeanGain:
    """What one model gained over several targets: the mean of its paired differences to base."""

    arm: str
    step: int
    scale: float
    change: Share


@dataclass(frozen=True, slots=True)
class Flips:
    """Items that changed sides against base: 1 to 0 is lost, 0 to 1 is won."""

    lost: int
    won: int
    n: int
    p: float  # exact McNemar; several seeds: its form for one base against several runs
    p_holm: float  # corrected over arms and retained tasks; within groups: over the groups


@dataclass(frozen=True, slots=True)
class Cell:
    """One arm at one checkpoint on one task, over all seeds, and its paired difference to base."""

    arm: str
    step: int  # 0 for base
    task: str
    score: Share
    diff: Share | None = None  # paired difference to base, same orientation as score (1 is good)
    outcomes: Mapping[str, int] = field(default_factory=dict)
    groups: Mapping[str, Share] = field(default_factory=dict)  # per hazard, persona
    scale: float = 1.0  # share of the training's change that is applied
    retained_share: Share | None = None  # after / before
    p_holm: float | None = None  # of the difference, corrected like the flips; final ones only
    flips: Flips | None = None  # final checkpoints only
    group_flips: Mapping[str, Flips] = field(default_factory=dict)
    read_as: Mapping[str, Share] = field(default_factory=dict)  # per way of reading the replies
    outcome_shares: Mapping[str, Share] = field(default_factory=dict)  # of the four outcomes
    group_outcomes: Mapping[str, Mapping[str, Share]] = field(default_factory=dict)  # final ones


@dataclass(frozen=True, slots=True)
class Noise:
    """What differs when the untouched model is asked again."""

    task: str
    repeats: int
    flipped: float  # share of items whose value differs between two askings
    floor: float  # largest difference between two means


@dataclass(frozen=True, slots=True)
class Dose:
    """Does more gain go with more forgetting? Of one arm, or pooled within arms (arm "")."""

    arm: str
    task: str  # retained
    points: int
    rho: Share | None  # Spearman's, gain against loss; n counts points
    words: str  # supported | not supported | too little data
    curve: tuple[tuple[float, float], ...] = ()  # monotone fit: (gain, loss), shares
    rise: Share | None = None  # loss at the largest gain less that at the smallest, by the fit


@dataclass(frozen=True, slots=True)
class EqualGain:
    """What an arm had lost on a retained task by the time that it had gained a common amount."""

    arm: str
    task: str  # retained
    gain: float  # on the target, a share
    change: Share  # on the retained task; mean None where the arm never gains that much
    reached: float  # share of the resamples of items in which it does
    against: Share | None  # this change less that of the first arm, in pairs; None for that arm


@dataclass(frozen=True, slots=True)
class EqualLoss:
    """The most that an arm had gained before it had lost a common amount of a retained task."""

    arm: str
    task: str  # retained
    loss: float  # of it, a share
    gain: Share  # on the target
    reached: float  # share of the resamples of items in which it loses that much at all
    against: Share | None  # this gain less that of the first arm, in pairs; None for that arm


@dataclass(frozen=True, slots=True)
class Learned:
    """One stage of a study that learns several tasks one after the other."""

    task: str
    step: int  # optimiser steps when it was over, those of the stages before included


@dataclass(frozen=True, slots=True)
class Transfer:
    """What an arm had of all stages' tasks after the last one; None where it was not measured.

    Shares in which 1 is good, and differences of them; means over tasks, which weigh alike.
    """

    arm: str
    scale: float  # share of the training's change at which it was read
    average: Share | None  # accuracy over all of them
    backward: Share | None  # what later stages did to earlier tasks; negative is forgetting
    forward: Share | None  # what earlier stages did to later tasks, against base
    forgetting: Share | None  # best after an earlier stage less the last; positive is forgetting
    against: Share | None = None  # its average less the first arm's; None for that arm
    since: Mapping[str, Share] = field(default_factory=dict)  # by task, change since it was learned


@dataclass(frozen=True, slots=True)
class Meter:
    """One reading of the drift meters in training."""

    arm: str
    seed: int
    step: int
    kl: float  # nats per token, base against tuned, on the task's prompts
    cross_entropy: float  # nats per token, of the tuned model on the base's answers
    norm: float | None  # Frobenius norm of the change of the weights; None where unknown


@dataclass(frozen=True, slots=True)
class Choice:
    """One candidate for shipping, with its figures on all items."""

    arm: str
    seed: int | None
    step: int
    scale: float
    changes: Mapping[str, Share]  # paired differences to base by task; they allow for the choice
    levels: Mapping[str, float]  # of the intervals of the changes, by task
    allowed: bool  # by the rule


@dataclass(frozen=True, slots=True)
class Decision:
    """Which checkpoint may be shipped."""

    answer: str  # ship | do not ship | not enough evidence; of a comparison kept | not kept
    reason: str  # a sentence or two, with the figures
    rule: str  # in words
    summary: str = ""  # the answer in a sentence, without figures
    next_step: str = ""  # what to do now
    chosen: Choice | None = None
    runner_up: Choice | None = None  # where nothing is chosen, the nearest miss
    why_not: str = ""  # why the runner-up lost
    more_items: tuple[tuple[str, int], ...] = ()  # by task, about so many more would decide: all
    passed: Mapping[str, str] = field(default_factory=dict)  # by arm, why its first is not shipped
    items: Mapping[str, int] = field(default_factory=dict)  # by task


@dataclass(frozen=True, slots=True)
class Front:
    """One arm's hypervolume: area dominated over target score and worst retained change."""

    arm: str
    volume: Share
    points: tuple[tuple[int, float], ...] = ()  # (step, scale) on the frontier of all arms


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """How far two judges agree on the replies that both voted on."""

    judges: tuple[str, str]
    replies: int
    agree: float | None  # share of replies
    kappa: float | None  # Cohen's; None where it is not defined


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far an ensemble's judges agree on one arm's replies, final checkpoint, all seeds."""

    arm: str
    task: str
    replies: int
    votes: Mapping[str, int]  # cast by each judge
    alpha: float | None  # Krippendorff's, over all judges; None where it is not defined
    pairs: tuple[PairAgreement, ...]


@dataclass(frozen=True, slots=True)
class ReplyShown:
    """One reply, kept for the part of the report that shows them (only on request)."""

    arm: str
    task: str
    prompt: str
    reply: str
    outcome: str
    item: str = ""  # the example's id, which is the same for every arm
    groups: tuple[str, ...] = ()  # hazard, persona
    change: str = ""  # against base's reply: lost (good to bad) or won (bad to good)
