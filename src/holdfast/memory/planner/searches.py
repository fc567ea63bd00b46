"""Answers what would be needed, or what is the most that fits: cards, length, examples at once.

All by formula, by halving: more memory never fits less, and longer or more examples never take
less. What was found is said with the command that plans it with a trace.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from typing import get_args

from holdfast.errors import HoldfastError, UsageError
from holdfast.memory.hardware.card_names import card
from holdfast.memory.hardware.devices import parse
from holdfast.memory.hardware.gpu_catalogue import CARDS, Market
from holdfast.memory.hardware.gpu_value import GPU, gpu, joined
from holdfast.memory.memory_plan import GIB
from holdfast.memory.planner.candidates import candidates
from holdfast.memory.planner.choice import SIMPLEST, check, check_any, choose
from holdfast.memory.planner.found import Finding, Found, Searched
from holdfast.memory.planner.planner import Prepared, prepare
from holdfast.memory.planner.request import PlanRequest
from holdfast.memory.planner.ways import Candidate, Reason

STEP_TOKENS = 64
MOST_TOKENS = 1 << 20
"""Longer examples are not tried, whatever the model claims to read."""
MOST_EXAMPLES = 1024
COUNTS = (1, 2, 4, 8)
"""Of equal GPUs: what machines are rented and built with."""
MARKETS: tuple[Market, ...] = get_args(Market)
EACH = 3
"""How many sizes of memory are shown for a number of GPUs."""
Try = Callable[[int, str | None], Candidate | None]
"""A value and a strategy (None: any) to the best way that fits, if one does."""


def find_length(request: PlanRequest) -> Found:
    """The longest examples that fit on these GPUs, with each strategy.

    Raises:
        UsageError: see `holdfast.memory.planner.planner.plan_memory`.
    """
    first = _checked(replace(request, seq_len=STEP_TOKENS))
    request = _pinned(request, first)
    positions = first.problem.shape.max_positions
    longest = min(positions, MOST_TOKENS)
    values = sorted({*range(STEP_TOKENS, longest + 1, STEP_TOKENS), longest})

    def attempt(value: int, only: str | None) -> Candidate | None:
        return _best(_prepared(replace(request, seq_len=value)), only)

    rows = _by_strategy(values, attempt, request.strategy)
    key = "all_positions" if positions <= MOST_TOKENS else "all_tried"
    return _found("length", first, rows, [Reason(key, {})] * _reaches(rows, longest))


def find_batch(request: PlanRequest) -> Found:
    """The most examples per forward pass and GPU that fit, with each strategy.

    The global batch is a multiple of what all GPUs take at once; where it is given, only what
    divides it is tried.

    Raises:
        UsageError: see `holdfast.memory.planner.planner.plan_memory`.
    """
    first = _checked(replace(request, micro_batch=1))
    request = _pinned(request, first)
    count, asked = len(first.problem.gpus), request.global_batch
    sizes = range(1, min(MOST_EXAMPLES, asked or MOST_EXAMPLES) + 1)
    values = [one for one in sizes if asked is None or asked % one == 0]

    def attempt(value: int, only: str | None) -> Candidate | None:
        batch = value * count if asked is None else asked
        return _best(_prepared(replace(request, micro_batch=value, global_batch=batch)), only)

    rows = _by_strategy(values, attempt, request.strategy)
    return _found("batch", first, rows, [Reason("all_tried", {})] * _reaches(rows, values[-1]))


def find_gpus(request: PlanRequest) -> Found:
    """The sets of equal GPUs with the least memory that hold the job; see `COUNTS`.

    Prices are not known, so memory in all stands for them, and the answer says so. Weights in host
    memory are not counted on unless that is the strategy asked for.

    Args:
        request: its GPUs, where there are some, are the kinds to choose from; else all cards.

    Raises:
        UsageError: see `holdfast.memory.planner.planner.plan_memory`, or a slice among the kinds.
    """
    kinds = _kinds(request)
    groups = [list(alike) for _, alike in groupby(sorted(kinds, key=_able), key=_able)]
    able = max(kinds, key=_able)
    prepared = _checked(replace(request, gpus=(able, replace(able, index=1))))
    rows: list[Finding] = []
    for alike in groups:
        left = alike
        for count in COUNTS:  # of more GPUs only smaller ones are of use
            fitting = _smallest(request, left, count)
            if fitting is None:
                continue
            rows += _sets(request, left, fitting, count)
            left = [one for one in left if one.total_bytes < fitting]
    rows.sort(key=lambda one: (one.value, one.count, -one.candidate.plan.tokens_per_s))
    kept = [one for count in COUNTS for one in [row for row in rows if row.count == count][:EACH]]
    said = [Reason("amd", {})] * any((of := card(one.names[0])) and of.amd for one in kept)
    return _found("gpus", prepared, sorted(kept, key=rows.index), said)


def _sets(
    request: PlanRequest, alike: Sequence[GPU], fitting: int, count: int
) -> Iterator[Finding]:
    """For a number of GPUs the cards of each size and kind from the smallest fitting one on."""
    large = sorted((one for one in alike if one.total_bytes >= fitting), key=_group)
    sizes = sorted({_nominal(one) for one in large})[:EACH]
    for (size, _), same in groupby(large, key=_group):
        if size not in sizes:
            continue
        fastest = sorted(same, key=lambda one: -one.flops)
        if way := choose(list(_holding(request, fastest[0], count))):
            names = tuple(one.name for one in fastest)
            yield Finding(size * count, way, count, names)


def _smallest(request: PlanRequest, alike: Sequence[GPU], count: int) -> int | None:
    """The least memory of a GPU of which so many hold the job; None: none of these."""
    by_size = {one.total_bytes: one for one in alike}

    def fits(size: int) -> bool:
        return next(_holding(request, by_size[size], count), None) is not None

    return _most(sorted(by_size, reverse=True), fits)


def _holding(request: PlanRequest, one: GPU, count: int) -> Iterator[Candidate]:
    """The ways to run the job on so many of a GPU, all of them in use."""
    gpus = joined(replace(one, index=index) for index in range(count))
    try:
        found = prepare(replace(request, gpus=gpus, trace=False))
    except HoldfastError:  # a precision that this card does not have
        return
    problem = replace(found.problem, host_bytes=request.host_bytes)  # they are not those here
    for way in candidates(problem, request.strategy, most=True, hopeful=True):
        hosted = way.plan.placement == "offload" and not request.strategy
        if way.fits and len(way.plan.gpus) == count and not hosted:
            yield way


def _by_strategy(values: Sequence[int], attempt: Try, only: str | None) -> list[Finding]:
    """For each strategy the largest of the values that fits, the most first."""
    found = []
    for strategy in SIMPLEST if only is None else (only,):
        seen: dict[int, Candidate] = {}

        def fits(value: int, strategy: str = strategy, seen: dict[int, Candidate] = seen) -> bool:
            if way := attempt(value, strategy):
                seen[value] = way
            return way is not None

        value = _most(values, fits)
        if value is not None:
            found.append(Finding(value, seen[value]))
    return sorted(found, key=lambda one: (-one.value, -one.candidate.plan.tokens_per_s))


def _most(values: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The last of the values that fits, where all before it do; None: not even the first."""
    if not values or not fits(values[0]):
        return None
    low, high = 0, 1
    while high < len(values) and fits(values[high]):  # most answers are far from the end
        low, high = high, 2 * high
    high = min(high, len(values))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(values[middle]) else (low, middle)
    return values[low]


def _best(found: Prepared, only: str | None) -> Candidate | None:
    """The best way that fits."""
    ways = candidates(found.problem, only, most=True, hopeful=True)
    return choose([one for one in ways if one.fits])


def _prepared(request: PlanRequest) -> Prepared:
    return prepare(replace(request, trace=False))


def _checked(request: PlanRequest) -> Prepared:
    """The same, where memory alone decides.

    Raises:
        UsageError: no amount of memory would help.
    """
    found = _prepared(request)
    check(found.problem, request.strategy)
    check_any(list(candidates(found.problem, request.strategy, most=True)))
    return found


def _pinned(request: PlanRequest, first: Prepared) -> PlanRequest:
    """The same for the GPUs or the CPU that were found here: they are looked for once."""
    here = first.problem.gpus[0].cpu or not isinstance(request.gpus, str)
    return replace(request, gpus=first.problem.gpus) if here else request


def _reaches(rows: Sequence[Finding], value: int) -> bool:
    return bool(rows) and rows[0].value == value


def _found(
    what: Searched, prepared: Prepared, rows: Sequence[Finding], said: Sequence[Reason]
) -> Found:
    one = prepared.problem
    return Found(what, one.shape, one.work, one.gpus, tuple(rows), (*prepared.notes, *said))


def _kinds(request: PlanRequest) -> list[GPU]:
    """The kinds of GPU to choose from, each once."""
    if not request.gpus:
        return [gpu(one, 0) for one in CARDS if not one.laptop and not one.rebuilt]
    named = parse(request.gpus) if isinstance(request.gpus, str) else request.gpus
    kinds = list({one.name: replace(one, index=0) for one in named}.values())
    if any(one.mig or one.cpu for one in kinds):
        raise UsageError(
            "slices of a GPU and the CPU are not looked for",
            where="--find-gpus",
            remedy="leave --gpus out, or name the cards to choose from: rtx4090,a100-80gb",
        )
    return kinds


def _able(one: GPU) -> tuple[bool, bool, bool]:
    """What the memory that a job takes on a card depends on, beside the card's size."""
    return one.bf16, one.fp16, one.nf4


def _nominal(one: GPU) -> int:
    return math.ceil(one.total_bytes / GIB)


def _group(one: GPU) -> tuple[int, int]:
    """Its size and its market, in the order of the answer."""
    known = card(one.like)
    return _nominal(one), MARKETS.index(known.market) if known else len(MARKETS)
