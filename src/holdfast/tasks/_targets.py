"""Several targets as the one task that methods speak to: each example is its own task's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from holdfast.config import Section
from holdfast.tasks import Task
from holdfast.types import Example, Reading, Reply, Verdict

BETWEEN = ":"
"""Between a target's name, which has none, and the id of its example."""


class Targets(Task):
    """Grades every answer by the task that its question is of, which its id begins with."""

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        """Take the targets by name, two or more."""
        super().__init__(Section())
        self._tasks = dict(tasks)
        self.plugin = " + ".join(one.plugin for one in self.parts)
        self.label = " + ".join(one.label for one in self.parts)
        self.code = " ".join(one.code for one in self.parts if one.code)
        self.perplexity = any(one.perplexity for one in self.parts)

    @property
    def parts(self) -> tuple[Task, ...]:
        """See `Task.parts`."""
        return tuple(self._tasks.values())

    def part_of(self, example: Example) -> Task:
        """See `Task.part_of`."""
        return self._tasks[self.target_of(example)]

    def target_of(self, example: Example) -> str:
        """See `Task.target_of`."""
        return example.id.partition(BETWEEN)[0]

    def bare(self, example: Example) -> Example:
        """See `Task.bare`."""
        return replace(example, id=example.id.partition(BETWEEN)[2])

    def examples(self, split: str) -> list[Example]:
        """All items of all targets."""
        return [
            named(name, one) for name, task in self._tasks.items() for one in task.examples(split)
        ]

    def grade(self, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
        """By the task that the example is of."""
        return self.part_of(example).grade(self.bare(example), reply, verdict)


def named(target: str, example: Example) -> Example:
    """An example of one target among several."""
    return replace(example, id=f"{target}{BETWEEN}{example.id}")


def as_one(tasks: Mapping[str, Task]) -> Task:
    """The targets as one task: the only one itself, or `Targets`."""
    (first, *others) = tasks.values()
    return Targets(tasks) if others else first


def of(target: str, examples: Sequence[Example]) -> list[Example]:
    """Those of one target, among several, as they were before `named`."""
    head = f"{target}{BETWEEN}"
    return [
        replace(one, id=one.id.removeprefix(head)) for one in examples if one.id.startswith(head)
    ]
