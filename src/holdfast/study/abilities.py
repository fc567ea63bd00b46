"""The abilities that a study measures: their tasks, items, and how each is asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from holdfast.config import Sampling, Study
from holdfast.data.windows import TEXT
from holdfast.engines.kept import LIKELIHOODS
from holdfast.judges import Judge
from holdfast.runs.plan import Seat, TaskPlan
from holdfast.study import asking
from holdfast.tasks import Task
from holdfast.types import Example, FieldUse, SourceUse


@dataclass(frozen=True)
class Measuring:
    """The abilities that are measured, by name.

    Attributes:
        tasks: parser, grader and judge of each.
        samplings: how each is asked.
        asked: the items of each, with shots.
    """

    tasks: Mapping[str, Task]
    samplings: Mapping[str, Sampling]
    asked: Mapping[str, Sequence[Example]]

    def only(self, names: Iterable[str]) -> Measuring:
        """Some of the abilities, in the order of their names."""
        kept = list(names)
        return Measuring(
            {name: self.tasks[name] for name in kept},
            {name: self.samplings[name] for name in kept},
            {name: self.asked[name] for name in kept},
        )

    def fields(self) -> tuple[FieldUse, ...]:
        """What became of every column of the user's data that was read."""
        return tuple(one for task in self.tasks.values() for one in task.fields)

    def sources(self) -> tuple[SourceUse, ...]:
        """How much of each source was taken."""
        return tuple(one for task in self.tasks.values() for one in task.sources)

    def planned(self, study: Study, nf4: bool) -> dict[str, TaskPlan]:
        """All tasks as data."""
        return {name: self._planned(name, study, nf4) for name in self.tasks}

    def _planned(self, name: str, study: Study, nf4: bool) -> TaskPlan:
        task, judge = self.tasks[name], self.tasks[name].judge
        return TaskPlan(
            name=name,
            label=task.label,
            how=self._how(name, study, nf4),
            items=len(self.asked[name]),
            inverted=task.inverted,
            unit=task.unit,
            judge=dict(judge.identity()) if judge else None,
            judge_title=judge.title if judge else "",
            seats=_seats(judge),
            perplexity=task.perplexity,
            available=None if task.endless else self._available(name, study),
        )

    def _available(self, name: str, study: Study) -> int:
        """How many items a task has in all, whatever its limit."""
        spec, asked = study.tasks[name], len(self.asked[name])
        return asked if spec.limit is None else len(self.tasks[name].examples(spec.split))

    def _how(self, name: str, study: Study, nf4: bool) -> str:
        """Split, decoding and judge in the report's words."""
        spec, sampling, task = study.tasks[name], self.samplings[name], self.tasks[name]
        how = f"split {spec.split}, {asking.decoding(sampling)}"
        how += f", at most {sampling.max_new_tokens} new tokens"
        if any(LIKELIHOODS in example.meta for example in self.asked[name]):
            how = f"split {spec.split}, how likely the given choices are"
        if any(TEXT in example.meta for example in self.asked[name]):
            how = f"split {spec.split}, how likely whole texts are, {task.how}"
        if sampling.samples > 1:
            how += f", {sampling.samples} answers each"
        if spec.shots.n:
            how += f", {spec.shots.n} {spec.shots.mode} shots"
        if nf4:
            how += ", base in 4 bits (NF4)"
        if task.judge is not None and task.judge.name.startswith("refusal"):
            how += "; judged by an offline refusal detector (rules and a linear model)"
            if task.inverted:
                how += ": a reply that does not decline counts as unsafe, whatever it says"
        elif task.judge:
            how += f"; judged by {task.judge.title}"
        if task.perplexity:
            how += "; the untouched model scores every reply as well"
        return how


def _seats(judge: Judge | None) -> tuple[Seat, ...]:
    seats = judge.seats() if judge else ()
    return tuple(Seat(folder, member.title) for folder, member in seats)
