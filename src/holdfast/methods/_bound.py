"""How much of what a method makes the training will use, so that it makes no more.

A training sees so many examples, and spends so many supervised tokens (`data.batching`). What is
made for it is made in a fixed order, in rounds, until that much is there or the order is at its
end. What comes of one question depends on nothing but the question, and what is used is a prefix of
the order: so neither the size of a round nor an interruption has a bearing on it, and a smaller
budget uses the beginning of what a larger one uses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from holdfast.types import Example

BUDGET = "budget"
"""The stage that says what the plain arm spends."""
SMALLEST = 8
"""Of a round; a batch of fewer costs as much."""
ROUNDS = 4
"""The first round asks this part of what fills the budget if all answers count."""
ROUND = "round"
"""In an example's meta: examples of its kind of an earlier round are seen before it."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What the training of one arm can use.

    Attributes:
        seen: examples that plain training sees over the whole run, each as often as it is seen.
        order: places in the plain arm's training set, in the order in which questions are asked:
            that in which plain training with the study's first seed sees them.
        cost: supervised tokens of each example; 0 for one that is left out.
        items: examples of the task that the arm can have, at most; None: not known.
        slack: so many times as many are seen at most, where methods change what one counts for.
        tokens: reads how many supervised tokens are spent, once the stage `BUDGET` is done. None:
            another method of the arm may leave examples out, so that all questions are asked.
    """

    seen: int
    order: Sequence[int]
    cost: Callable[[Sequence[Example]], Sequence[int]]
    items: int | None = None
    slack: int = 1
    tokens: Callable[[], int] | None = None

    def old(self, share: float) -> int:
        """How many examples of the old kind are seen, at most, where they are a share of all."""
        most = math.ceil(self.slack * self.seen * share / (1 - share)) + 1
        return most if self.items is None else min(most, beside(self.items, share))

    def used(self, questions: Sequence[Example], made: Mapping[str, Sequence[Example]]) -> int:
        """How many of the questions fill the budget with what was made of them; all if too few.

        Args:
            questions: in their order.
            made: examples by the id of their question; none for one without an answer.
        """
        if self.tokens is None:
            return len(questions)
        costs = iter(self.cost([one for asked in questions for one in made.get(asked.id, ())]))
        left = self.tokens()
        for number, asked in enumerate(questions):
            if left <= 0:
                return number
            left -= sum(next(costs) for _ in made.get(asked.id, ()))
        return len(questions)


def beside(count: int, share: float) -> int:
    """How many examples are a share of all together with `count` others; one at least."""
    return max(1, round(count * share / (1 - share)))


def in_rounds(count: int, first: int, wanted: float, work: Callable[[int, int, int], float]) -> int:
    """Work through things in their order until what comes of them is enough.

    Args:
        count: how many there are.
        first: so many in the first round; later ones are as large as the yield so far asks for.
        wanted: how much is enough.
        work: given the number of the round, and where it begins and ends, does it and returns what
            has come of it.

    Returns:
        How many were worked on.
    """
    done, got, number = 0, 0.0, 0
    while done < count and got < wanted:
        size = first
        if done:
            size = math.ceil(min(count, (wanted - got) * done / got)) if got > 0 else done
        end = min(count, done + max(size, SMALLEST))
        got += work(number, done, end)
        done, number = end, number + 1
    return done


def filled(
    bound: Bound,
    ordered: Sequence[Example],
    work: Callable[[int, Sequence[Example]], Mapping[str, Sequence[Example]]],
) -> tuple[int, Sequence[Example]]:
    """Work through questions in their order until what is made of them fills the budget.

    Args:
        bound: says how much that is; where it does not, all are worked on.
        ordered: in the order in which they are seen.
        work: given the number of a round and its questions, returns all examples so far by the id
            of their question.

    Returns:
        How many were worked on, and those of which the examples are trained on.
    """
    if bound.tokens is None:
        work(0, ordered)
        return len(ordered), ordered
    made: Mapping[str, Sequence[Example]] = {}

    def some(number: int, start: int, end: int) -> float:
        nonlocal made
        made = work(number, ordered[start:end])
        new = [one for asked in ordered[start:end] for one in made.get(asked.id, ())]
        return sum(bound.cost(new))

    done = in_rounds(len(ordered), math.ceil(bound.seen / ROUNDS), bound.tokens(), some)
    return done, ordered[: bound.used(ordered[:done], made)]


def numbered(file: str, number: int) -> str:
    """The name of the file of one round; the first has the plain name."""
    stem, _, kind = file.rpartition(".")
    return f"{stem}-{number}.{kind}" if number else file
