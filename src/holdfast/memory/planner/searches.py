"""Answers what is the most that fits: the longest examples, the most examples at once.

All by formula, by halving: longer or more examples never take less. What was found is said with
the command that plans it with a trace. Which cards would do is `gpu_search`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from holdfast.memory.planner.candidates import candidates
from holdfast.memory.planner.choice import SIMPLEST, check, check_any, choose
from holdfast.memory.planner.found import Finding, Found, Searched
from holdfast.memory.planner.ignored import ignored
from holdfast.memory.planner.planner import Prepared, prepare
from holdfast.memory.planner.request import PlanRequest
from holdfast.memory.planner.ways import Candidate, Reason

STEP_TOKENS = 64
MOST_TOKENS = 1 << 20
"""Longer examples are not tried, whatever the model claims to read."""
MOST_EXAMPLES = 1024
Try = Callable[[int, str | None], Candidate | None]
"""A value and a strategy (None: any) to the best way that fits, if one does."""


def find_length(request: PlanRequest) -> Found:
    """The longest examples that fit on these GPUs, with each strategy.

    Raises:
        UsageError: see `holdfast.memory.planner.planner.plan_memory`.
    """
    first = checked(replace(request, seq_len=STEP_TOKENS))
    request = _pinned(request, first)
    positions = first.problem.shape.max_positions
    longest = min(positions, MOST_TOKENS)
    values = sorted({*range(STEP_TOKENS, longest + 1, STEP_TOKENS), longest})

    def attempt(value: int, only: str | None) -> Candidate | None:
        return _best(_prepared(replace(request, seq_len=value)), only)

    rows = _by_strategy(values, attempt, request.strategy)
    key = "all_positions" if positions <= MOST_TOKENS else "all_tried"
    return as_found("length", request, first, rows, [Reason(key, {})] * _reaches(rows, longest))


def find_batch(request: PlanRequest) -> Found:
    """The most examples per forward pass and GPU that fit, with each strategy.

    The global batch is a multiple of what all GPUs take at once; where it is given, only what
    divides it is tried.

    Raises:
        UsageError: see `holdfast.memory.planner.planner.plan_memory`.
    """
    first = checked(replace(request, micro_batch=1))
    request = _pinned(request, first)
    count, asked = len(first.problem.gpus), request.global_batch
    sizes = range(1, min(MOST_EXAMPLES, asked or MOST_EXAMPLES) + 1)
    values = [one for one in sizes if asked is None or asked % one == 0]

    def attempt(value: int, only: str | None) -> Candidate | None:
        batch = value * count if asked is None else asked
        return _best(_prepared(replace(request, micro_batch=value, global_batch=batch)), only)

    rows = _by_strategy(values, attempt, request.strategy)
    return as_found(
        "batch", request, first, rows, [Reason("all_tried", {})] * _reaches(rows, values[-1])
    )


def _by_strategy(values: Sequence[int], attempt: Try, only: str | None) -> list[Finding]:
    """For each strategy the largest of the values that fits, the most first."""
    found = []
    for strategy in SIMPLEST if only is None else (only,):
        seen: dict[int, Candidate] = {}

        def fits(value: int, strategy: str = strategy, seen: dict[int, Candidate] = seen) -> bool:
            if way := attempt(value, strategy):
                seen[value] = way
            return way is not None

        value = most(values, fits)
        if value is not None:
            found.append(Finding(value, seen[value]))
    return sorted(found, key=lambda one: (-one.value, -one.candidate.plan.tokens_per_s))


def most(values: Sequence[int], fits: Callable[[int], bool]) -> int | None:
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


def checked(request: PlanRequest) -> Prepared:
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


def as_found(
    what: Searched,
    request: PlanRequest,
    prepared: Prepared,
    rows: Sequence[Finding],
    said: Sequence[Reason],
) -> Found:
    """What a search arrived at, with what was assumed."""
    one = prepared.problem
    notes = (*prepared.notes, *ignored(request, one.work, one.gpus), *said)
    return Found(what, one.shape, one.work, one.gpus, tuple(rows), notes)
