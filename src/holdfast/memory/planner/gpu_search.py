"""Answers which sets of equal cards hold a job, the least memory first.

By formula: more memory never fits less, so the smallest card of which so many suffice is found by
halving, and only smaller ones are tried of more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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
from holdfast.memory.planner.choice import choose
from holdfast.memory.planner.found import Finding, Found
from holdfast.memory.planner.planner import Prepared, prepare
from holdfast.memory.planner.request import PlanRequest, about_cards
from holdfast.memory.planner.searches import as_found, checked, most
from holdfast.memory.planner.ways import Candidate, Problem

COUNTS = (1, 2, 4, 8)
"""Of equal GPUs: what machines are rented and built with."""
MARKETS: tuple[Market, ...] = get_args(Market)
EACH = 3
"""How many sizes of memory are shown for a number of GPUs."""


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
    prepared = checked(replace(request, gpus=(able, replace(able, index=1))))
    job = _Job(request)
    rows: list[Finding] = []
    for alike in groups:
        left = alike
        for count in COUNTS:  # of more GPUs only smaller ones are of use
            fitting = _smallest(job, left, count)
            if fitting is None:
                continue
            rows += _sets(job, left, fitting, count)
            left = [one for one in left if one.total_bytes < fitting]
    rows.sort(key=lambda one: (one.value, one.count, -one.candidate.plan.tokens_per_s))
    kept = [one for count in COUNTS for one in [row for row in rows if row.count == count][:EACH]]
    said = about_cards(one.names[0] for one in kept)
    return as_found("gpus", request, prepared, sorted(kept, key=rows.index), said)


class _Job:
    """A request on one kind of GPU after another: what does not depend on its size is made once."""

    def __init__(self, request: PlanRequest) -> None:
        self.request = request
        self.known: dict[tuple[bool, bool, bool], Prepared | None] = {}

    def on(self, one: GPU, count: int) -> Problem | None:
        """The job on so many of a GPU; None: in a precision that it does not have."""
        gpus = joined(replace(one, index=index) for index in range(count))
        able = _able(one)
        if self.request.beside or able not in self.known:  # a share of every GPU's memory
            try:
                self.known[able] = prepare(replace(self.request, gpus=gpus, trace=False))
            except HoldfastError:
                self.known[able] = None
        found = self.known[able]
        if found is None:
            return None
        there = found.problem.gpus if self.request.beside else gpus
        return replace(found.problem, gpus=there, host_bytes=self.request.host_bytes)


def _sets(job: _Job, alike: Sequence[GPU], fitting: int, count: int) -> Iterator[Finding]:
    """For a number of GPUs the cards of each size and kind from the smallest fitting one on."""
    large = sorted((one for one in alike if one.total_bytes >= fitting), key=_group)
    sizes = sorted({_nominal(one) for one in large})[:EACH]
    for (size, _), same in groupby(large, key=_group):
        if size not in sizes:
            continue
        fastest = sorted(same, key=lambda one: -one.flops)
        if way := choose(list(_holding(job, fastest[0], count))):
            names = tuple(one.name for one in fastest)
            yield Finding(size * count, way, count, names)


def _smallest(job: _Job, alike: Sequence[GPU], count: int) -> int | None:
    """The least memory of a GPU of which so many hold the job; None: none of these."""
    by_size = {one.total_bytes: one for one in alike}

    def fits(size: int) -> bool:
        return next(_holding(job, by_size[size], count), None) is not None

    return most(sorted(by_size, reverse=True), fits)


def _holding(job: _Job, one: GPU, count: int) -> Iterator[Candidate]:
    """The ways to run the job on so many of a GPU, all of them in use."""
    problem, only = job.on(one, count), job.request.strategy
    for way in candidates(problem, only, most=True, hopeful=True) if problem else ():
        hosted = way.plan.placement == "offload" and not only
        if way.fits and len(way.plan.gpus) == count and not hosted:
            yield way


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
