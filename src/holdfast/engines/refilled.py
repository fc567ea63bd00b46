"""Answers prompts without waiting for anyone: a place that comes free is taken by the next prompt.

What all prompts begin with is read once, samples of one prompt share their reading, and finished
answers leave at once. Rows at a time double for as long as that gives more tokens a second
(`Pace`). An answer depends on neither the rows beside it nor their number, but for ties in the last
digits of a float.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import torch

from holdfast.config import Sampling
from holdfast.engines.cohorts import Cohort, Kept, Reading, Writing, joined, through
from holdfast.engines.log_likelihood import SHARED
from holdfast.engines.next_token import alike, drawing, lowered, pad_left
from holdfast.engines.pace import Pace
from holdfast.engines.reply_text import Until

if TYPE_CHECKING:
    from transformers import PreTrainedModel

READ = 2048
"""Tokens of prompts that are read in one pass."""
REFILL = 8
"""Places are filled again when one in so many is free: prompts are read faster together."""
COHORTS = 8


@dataclass(slots=True)
class Row:
    """One answer under way.

    Attributes:
        place: among the rows that were given.
        prompt: its own tokens, without what all begin with.
        noise: its generator; None where nothing is drawn.
        until: texts that end it.
        tokens: of the answer.
        seen: of shape (vocabulary,), where a penalty asks for it.
    """

    place: int
    prompt: Sequence[int]
    noise: torch.Generator | None
    until: Until | None
    tokens: list[int] = field(default_factory=list)
    seen: torch.Tensor | None = None


class Answering:
    """One model's answers to some prompts."""

    def __init__(
        self,
        model: PreTrainedModel,
        sampling: Sampling,
        stops: Sequence[int],
        pad: int,
        pace: Pace,
        entering: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Take how it answers.

        Args:
            model: a causal language model on its device, PEFT's wrapping taken off.
            sampling: how tokens are chosen, and the most new ones.
            stops: ids that end an answer.
            pad: the id of the padding token.
            pace: how many at a time; it learns.
            entering: is told the tokens that will be kept at most, before more rows begin.
        """
        self.model, self.sampling, self.pace, self.entering = model, sampling, pace, entering
        self.stops, self.pad, self.device = frozenset(stops), pad, str(model.device)
        self.before: dict[int, Kept] = {}
        self.shared: list[int] = []

    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        until: Sequence[Until | None] = (),
        ending: Callable[[int], bool] = lambda _: False,
    ) -> Iterator[tuple[int, list[int]]]:
        """Places and token ids, each as it ends, the stop token included when there is one.

        Args:
            prompts: token ids; those alike lie next to each other.
            seeds: one for each prompt; used when the temperature is above 0.
            until: for each prompt the texts that end its answer as well.
            ending: is told how many tokens were written since it was last asked; says whether the
                answers under way are the last ones.
        """
        self._share(prompts)
        skip, draws = len(self.shared), self.sampling.temperature > 0
        waiting = [
            Row(
                place, ids[skip:],
                torch.Generator(self.device).manual_seed(seeds[place]) if draws else None,
                until[place] if until else None,
            )
            for place, ids in enumerate(prompts)
        ]  # fmt: skip
        waiting.reverse()
        self.pace.begin(max(len(row.prompt) for row in waiting) + self.sampling.max_new_tokens)
        under: list[tuple[Cohort, list[Row]]] = []
        wrote = 0
        while waiting or under:
            if ending(wrote):
                waiting.clear()
                if not under:
                    return
            live = sum(len(rows) for _, rows in under)
            free = min(self.pace.rows - live, len(waiting), self.pace.next)
            some = min(max(1, self.pace.rows // REFILL), len(waiting))  # the last wait for none
            if waiting and (not under or free >= some):
                begun = [waiting.pop() for _ in range(free)]
                width = max(len(row.prompt) for row in begun) + self.sampling.max_new_tokens
                self.entering((live + free) * (skip + width))
                under.append(self._begin(begun))
                wrote = free
                self.pace.bound(under[-1][0].bytes(), self.model)
                yield from self._ended(under)
                under = self._fewer(under)
                continue
            started = time.perf_counter()
            self._step(under)
            wrote = live
            self.pace.took(live, time.perf_counter() - started, len(waiting))
            yield from self._ended(under)
            under = [(cohort, rows) for cohort, rows in under if rows]

    def _share(self, prompts: Sequence[Sequence[int]]) -> None:
        """Read what all prompts begin with; each keeps a token of its own."""
        count = min(alike(prompts), min(map(len, prompts)) - 1)
        if len(prompts) == 1 or count < SHARED:
            return
        self.shared = list(prompts[0][:count])
        cohort = Cohort([count], 0)
        self._read(cohort, slice(0, 1), [self.shared])
        self.before = cohort.kept

    def _read(self, cohort: Cohort, rows: slice, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Logits after each prompt, whose keys and values are kept in those rows."""
        ids, mask = pad_left(prompts, self.pad, self.device)
        places = (mask.cumsum(1) - 1).clamp(min=0)
        if self.before:
            places = places + len(self.shared)
        reading = Reading(cohort, rows, ids.shape[1], self.before)
        return through(self.model, reading, ids, places)

    def _begin(self, begun: list[Row]) -> tuple[Cohort, list[Row]]:
        """A cohort whose prompts are read, with the first token of each answer."""
        cohort = Cohort([len(row.prompt) for row in begun], self.sampling.max_new_tokens)
        done = 0
        while done < len(begun):
            start, width = done, len(begun[done].prompt)
            same = [[start]]
            for at in range(start + 1, len(begun)):
                if begun[at].prompt == begun[at - 1].prompt:
                    same[-1].append(at)
                    continue
                width = max(width, len(begun[at].prompt))
                if (len(same) + 1) * width > READ:
                    break
                same.append([at])
            done = same[-1][-1] + 1
            unlike = [places[0] for places in same]
            if len(unlike) == done - start:
                logits = self._read(
                    cohort, slice(start, done), [row.prompt for row in begun[start:done]]
                )
            else:
                prompts = [begun[at].prompt for at in unlike]
                once = Cohort(list(map(len, prompts)), 0)
                logits = self._read(once, slice(0, len(prompts)), prompts)
                of = [n for n, places in enumerate(same) for _ in places]
                cohort.take(once, of, start)
                logits = logits[of]
            self._choose(begun[start:done], logits)
        return cohort, begun

    def _step(self, under: Sequence[tuple[Cohort, list[Row]]]) -> None:
        """One more token for each row."""
        rows = [row for _, some in under for row in some]
        ids = torch.tensor([row.tokens[-1:] for row in rows], device=self.device)
        skip = len(self.shared) - 1
        places = [[skip + len(row.prompt) + len(row.tokens)] for row in rows]
        writing = Writing([cohort for cohort, _ in under], self.before)
        logits = through(self.model, writing, ids, torch.tensor(places, device=self.device))
        for cohort, _ in under:
            cohort.width += 1
        self._choose(rows, logits)

    def _choose(self, rows: Sequence[Row], scores: torch.Tensor) -> None:
        """The next token of each row."""
        with torch.inference_mode():
            if (penalty := self.sampling.repetition_penalty) != 1:
                for row in rows:
                    if row.seen is None:
                        row.seen = torch.zeros(scores.shape[1:], dtype=torch.bool)
                        row.seen[[*self.shared, *row.prompt]] = True
                    row.seen[row.tokens[-1:]] = True
                seen = torch.stack([row.seen for row in rows if row.seen is not None])
                scores = lowered(scores, seen.to(scores.device), penalty)
            noise = [row.noise for row in rows if row.noise is not None]
            for one in drawing(self.sampling, noise):
                scores = one(None, scores)
            chosen = scores.argmax(-1).tolist()
        for row, token in zip(rows, chosen, strict=True):
            row.tokens.append(token)

    def _ended(self, under: Sequence[tuple[Cohort, list[Row]]]) -> Iterator[tuple[int, list[int]]]:
        """Takes out the rows that have ended."""
        for cohort, rows in under:
            for at in reversed(range(len(rows))):
                row = rows[at]
                if (
                    row.tokens[-1] in self.stops
                    or len(row.tokens) >= self.sampling.max_new_tokens
                    or (row.until is not None and row.until.reached(row.tokens))
                ):
                    cohort.drop(at)
                    rows[at] = rows[-1]
                    rows.pop()
                    yield row.place, row.tokens

    def _fewer(self, under: list[tuple[Cohort, list[Row]]]) -> list[tuple[Cohort, list[Row]]]:
        """Cohorts, of which those of nearly one width are joined where there are many."""
        found = sorted(
            ((cohort, rows) for cohort, rows in under if rows), key=lambda one: one[0].width
        )
        while len(found) > COHORTS:
            waste = [
                (other.width - one.width) * one.rows + 0.1 * (one.rows + other.rows) * other.width
                for (one, _), (other, _) in pairwise(found)
            ]
            at = waste.index(min(waste))
            (one, rows), (other, more) = found[at : at + 2]
            found[at : at + 2] = [(joined(one, other), rows + more)]
        return found
