"""Deals training examples into micro-batches so that every arm spends an equal budget.

The plain arm (the target task's own training set) sets the budget: its optimiser steps and the
supervised tokens it sees in them. Every arm gets the same number of steps of the same number of
micro-batches, and its examples are dealt out at the rate that spends the same supervised tokens:
shorter answers come more to a step, longer ones fewer. `deal` is a pure function, so the order of
training can be tested, printed and resumed.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import pstdev

from holdfast.errors import StudyError

MOST_CHECKPOINTS = 10_000
TOLERANCE = 0.005
"""A run's supervised tokens may miss the budget by this share before examples are swapped."""
GOLDEN = (5**0.5 - 1) / 2  # multiples of it, modulo 1, spread swaps over the whole run
MEGABATCH = 50  # batches whose examples are sorted by length together


@dataclass(frozen=True, slots=True)
class Budget:
    """What every arm may spend in one run.

    Attributes:
        steps: optimiser steps.
        micro_batches: forward passes per step, over all devices.
        supervised_tokens: tokens with a loss, summed over the run.
        per_micro_batch: examples per forward pass of the plain arm.
    """

    steps: int
    micro_batches: int
    supervised_tokens: int
    per_micro_batch: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What one training example weighs, in tokens."""

    tokens: int
    supervised: int


def steps_of(examples: int, batch_size: int, epochs: float, max_steps: int | None) -> int:
    """Optimiser steps of the plain arm; a last incomplete batch counts as a step."""
    return max_steps or max(1, math.ceil(examples * epochs / batch_size))


def checkpoint_steps(steps: int, checkpoints: int | None, save_steps: float) -> tuple[int, ...]:
    """The steps after which the model is saved and measured; the last step is always one.

    Args:
        steps: of the whole run.
        checkpoints: this many, evenly spaced; None: by `save_steps`.
        save_steps: every so many steps, or a share of the run when below 1 (rounded up, as
            transformers does).

    Raises:
        StudyError: more than anybody could measure.
    """
    every = math.ceil(steps * save_steps) if save_steps < 1 else int(save_steps)
    if min(checkpoints or steps // every, steps) > MOST_CHECKPOINTS:
        raise StudyError(
            f"{'checkpoints' if checkpoints else 'save_steps'}: {checkpoints or steps // every:,} "
            f"checkpoints; {MOST_CHECKPOINTS:,} is the most",
            remedy="set train.checkpoints: 10; each of them is measured on every task",
        )
    if checkpoints is not None:
        return tuple(sorted({math.ceil(steps * (i + 1) / checkpoints) for i in range(checkpoints)}))
    return tuple(sorted({*range(every, steps + 1, every), steps}))


def plain_budget(
    costs: Sequence[Cost], steps: int, micro_batches: int, per_micro_batch: int
) -> Budget:
    """The budget that plain training on these examples spends."""
    seen = steps * micro_batches * per_micro_batch
    mean = sum(cost.supervised for cost in costs) / len(costs)
    return Budget(steps, micro_batches, round(seen * mean), per_micro_batch)


def seen_order(count: int, seed: int) -> list[int]:
    """The order in which `deal` draws from so many examples of one kind in its first round."""
    order = list(range(count))
    _random(seed, 0).shuffle(order)
    return order


def _random(seed: int, number: int) -> random.Random:
    """Of one round."""
    return random.Random(f"{seed}:{number}")


def deal(
    costs: Sequence[Cost],
    kinds: Sequence[str],
    budget: Budget,
    seed: int,
    by_length: bool = False,
    rounds: Sequence[int] = (),
) -> list[list[int]]:
    """Deal examples into micro-batches.

    Examples of each kind (the task's own, replayed ones) are shuffled anew in every round and the
    kinds are interleaved evenly. A last round that takes only some is drawn before it is grouped by
    length, and takes such as spend what the budget has left (`_balanced`). An empty micro-batch is
    possible where answers are longer than those of the plain arm; it is trained as one row without
    loss.

    Args:
        costs: tokens of each example.
        kinds: the kind of each example; kinds keep their proportion all along the run.
        budget: steps, micro-batches and tokens to spend.
        seed: of the shuffling.
        by_length: put examples of similar length into the same step.
        rounds: of each example; of a kind those of an earlier round are drawn first, so that the
            same few can stand for many of which not all are seen. Left out: all are of one.

    Returns:
        steps x micro_batches lists of indices.
    """
    slots = budget.steps * budget.micro_batches
    every = sum(cost.supervised for cost in costs)
    rate = budget.supervised_tokens / (slots * every / len(costs))  # examples per micro-batch
    needed = math.floor(slots * rate + 0.5)
    whole, over = divmod(needed, len(costs))
    batch = budget.micro_batches * budget.per_micro_batch
    stream: list[int] = []
    for number in range(whole + (over > 0)):
        rng = _random(seed, number)
        members: dict[str, list[int]] = {}
        for index, kind in enumerate(kinds):
            members.setdefault(kind, []).append(index)
        for indices in members.values():
            rng.shuffle(indices)
            if rounds:
                indices.sort(key=rounds.__getitem__)
        turns = [kinds[index] for index in interleave(members)]
        if number == whole:  # the last round takes some only
            turns = turns[:over]
            left = budget.supervised_tokens - whole * every
            slack = TOLERANCE * budget.supervised_tokens
            members = _balanced(members, Counter(turns), costs, left, slack, rounds)
        if by_length:
            members = {k: _length_batches(own, costs, batch, rng) for k, own in members.items()}
        queues = {kind: iter(indices) for kind, indices in members.items()}
        stream += [next(queues[kind]) for kind in turns]
    ends = [min(needed, math.floor((slot + 1) * rate + 0.5)) for slot in range(slots)]
    return [stream[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]


def _balanced(
    members: Mapping[str, Sequence[int]],
    counts: Mapping[str, int],
    costs: Sequence[Cost],
    wanted: float,
    slack: float,
    rounds: Sequence[int] = (),
) -> dict[str, list[int]]:
    """The first so many of every kind, a few swapped for later ones until their tokens are right.

    A part of the examples, drawn at random, has more or fewer tokens than its share: 160 of 1,000
    answers by 3 %. A swap moves the sum by one standard deviation of the answers at most, so that
    many are a little longer rather than one very long.

    Args:
        members: indices by kind, in random order.
        counts: how many of each kind are taken.
        costs: of every example.
        wanted: supervised tokens in all.
        slack: so far from `wanted` is near enough.
        rounds: see `deal`; only those of the last round that is drawn from are swapped in.
    """
    taken = {kind: list(own[: counts.get(kind, 0)]) for kind, own in members.items()}
    rest = {
        kind: sorted(_spare(own, counts.get(kind, 0), rounds), key=lambda i: costs[i].supervised)
        for kind, own in members.items()
    }
    places = [(kind, at) for kind, own in taken.items() if rest[kind] for at in range(len(own))]
    gap = wanted - sum(costs[i].supervised for own in taken.values() for i in own)
    lengths = [costs[taken[kind][at]].supervised for kind, at in places]
    usual = max(1.0, pstdev(lengths)) if lengths else 1.0
    while places and abs(gap) > slack:
        step = math.copysign(min(abs(gap), usual), gap)
        found = []
        for kind, at in places:
            here = costs[taken[kind][at]].supervised
            near = bisect_left(rest[kind], here + step, key=lambda i: costs[i].supervised)
            for spot in range(max(0, near - 1), min(near + 1, len(rest[kind]))):
                moves = costs[rest[kind][spot]].supervised - here
                found.append((abs(step - moves), at * GOLDEN % 1, kind, at, spot, moves))
        *_, kind, at, spot, moves = min(found)
        if abs(gap - moves) >= abs(gap):
            break
        gap -= moves
        new, old = rest[kind].pop(spot), taken[kind][at]
        taken[kind][at] = new
        insort(rest[kind], old, key=lambda i: costs[i].supervised)
    return taken


def _spare(own: Sequence[int], taken: int, rounds: Sequence[int]) -> Sequence[int]:
    """Those of a kind that may be swapped in, in the order in which they are drawn."""
    left = own[taken:]
    if not rounds or not taken:
        return left
    return [index for index in left if rounds[index] == rounds[own[taken - 1]]]


def regroup(
    slots: Sequence[Sequence[int]], micro_batches: int, micro_batch: int, world_size: int
) -> list[list[int]]:
    """Cut the examples of each optimiser step anew, so that they fit the memory there is.

    The loss is a mean over the tokens of the whole step, so every cut learns the same, up to the
    order of summation. Micro-batches lie in the order in which ranks draw them: the first of
    every rank, then the second of every rank. Where a step has fewer, the last ones are empty.

    Args:
        slots: steps x micro_batches lists of indices, from `deal`.
        micro_batches: slots that make one optimiser step.
        micro_batch: examples per forward pass and process.
        world_size: processes that share a step.

    Returns:
        The same number of lists for every step, a multiple of `world_size`.
    """
    steps: list[list[list[int]]] = []
    for start in range(0, len(slots), micro_batches):
        step = [index for slot in slots[start : start + micro_batches] for index in slot]
        steps.append([step[i : i + micro_batch] for i in range(0, len(step), micro_batch)])
    passes = max(1, math.ceil(max(len(step) for step in steps) / world_size))
    width = passes * world_size
    return [part for step in steps for part in [*step, *([[]] * (width - len(step)))]]


def interleave(members: Mapping[str, Sequence[int]]) -> list[int]:
    """Merge lists so that each is spread evenly over the whole; order within a list is kept."""
    placed = [
        ((position + 0.5) / len(indices), order, index)
        for order, indices in enumerate(members.values())
        for position, index in enumerate(indices)
    ]
    return [index for _, _, index in sorted(placed)]


def _length_batches(
    indices: Sequence[int], costs: Sequence[Cost], batch: int, rng: random.Random
) -> list[int]:
    """Batches of similar length in random order; the one with the longest example comes first.

    transformers' own sampler leaves the batches of a block sorted from long to short, so that a
    stretch of training sees long examples only and the next one short ones. Where length goes with
    difficulty, the model then forgets within its own run (see docs/log.md).
    """
    if not indices:  # a rare kind, of which the last round takes none
        return []
    block = MEGABATCH * batch
    batches = []
    for start in range(0, len(indices), block):
        ranked = sorted(indices[start : start + block], key=lambda i: -costs[i].tokens)
        batches += [ranked[i : i + batch] for i in range(0, len(ranked), batch)]
    rng.shuffle(batches)
    longest = max(range(len(batches)), key=lambda i: costs[batches[i][0]].tokens)
    batches.insert(0, batches.pop(longest))  # a run that will not fit fails in its first step
    return [index for one in batches for index in one]
