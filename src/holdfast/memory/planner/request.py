"""The value `PlanRequest`: what is to be trained, on what, and in which of the possible ways."""

from __future__ import annotations

import importlib.util
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, cast, get_args
from unicodedata import normalize

from holdfast.config import TrainSpec
from holdfast.errors import UsageError
from holdfast.memory.estimate.method_overhead import NOTHING, MethodOverhead
from holdfast.memory.estimate.workload import Method, Workload, from_training
from holdfast.memory.hardware.card_names import card
from holdfast.memory.hardware.cpu import cpu
from holdfast.memory.hardware.detect import detect
from holdfast.memory.hardware.devices import GPU, parse
from holdfast.memory.hardware.host import host_ram_bytes
from holdfast.memory.model.hub import repository
from holdfast.memory.planner.stated import AS_USUAL, PRECISION_KEYS, Stated
from holdfast.memory.planner.ways import Reason
from holdfast.registry import nearest

USUAL_SEQ_LEN = 1024
"""Tokens of the longest example where nobody says."""
MOST_EXAMPLES = 1_000_000
"""In one step: nobody trains with more."""
TURING = 7.5
"""Compute capability from which on torch's wheels for CUDA 12.8 and later have kernels (PyTorch
2.11 release notes; those for CUDA 12.6 have older ones)."""
CPU = "cpu"
"""In place of GPUs: plan for the CPU."""
METHODS: tuple[str, ...] = get_args(Method)


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What a plan is asked for; None: not said, so that it is chosen, found or assumed.

    Attributes:
        model: hub id, folder, name of the catalogue, or `lab`.
        gpus: as a user writes them (`2x24GiB`), or GPUs; None: those of this machine.
        seq_len: tokens of the longest example; None: `USUAL_SEQ_LEN`.
        method: `auto`, `lora`, `qlora` or `full`; None: that of `train`, or `auto` without it.
        micro_batch: examples per forward pass; None: chosen.
        global_batch: examples per optimiser step; None: that of `train`.
        strategy: the only one that is allowed, such as `ddp` or `qlora+split`.
        quantize: whether 4-bit weights may be chosen.
        trace: trace the model's own code, which takes seconds and torch; else by formula.
        cache: folder of earlier traces; None: the usual one.
        revision: of the hub model.
        train: training settings; None: the defaults.
        overhead: what the training's methods take beyond plain training.
        supervised_tokens: tokens of the longest example that are trained on; None: all.
        attention: how it is computed, as transformers names it; None: its own choice.
        stated: what no study can say.
        trust: the model's own Python code may be run, to count it.
        beside: what else lies on the GPUs meanwhile; see `inference.left_beside`.
        host_bytes: memory of the machine with the GPUs; None: this machine's where the GPUs are
            those here, else not known.
        examples: that are trained on, for what the run will cost; None: not known.
    """

    model: str = ""
    gpus: str | tuple[GPU, ...] | None = None
    seq_len: int | None = None
    method: str | None = None
    micro_batch: int | None = None
    global_batch: int | None = None
    strategy: str | None = None
    quantize: bool = True
    trace: bool = True
    cache: Path | None = None
    revision: str | None = None
    train: TrainSpec | None = None
    overhead: MethodOverhead = NOTHING
    supervised_tokens: int | None = None
    attention: str | None = None
    stated: Stated = AS_USUAL
    trust: bool = False
    beside: tuple[str, ...] = ()
    host_bytes: int | None = None
    examples: int | None = None

    @property
    def named(self) -> str:
        """The model's hub id, folder or name: of an address that was copied what it leads to."""
        return repository(self.model)

    @property
    def settings(self) -> TrainSpec:
        """The training settings, with the precision that was stated."""
        train = self.train or TrainSpec()
        return train.model_copy(update=PRECISION_KEYS.get(self.stated.precision, {}))

    @property
    def host_free(self) -> int | None:
        """Free memory of the machine that is meant; None: not known."""
        if self.host_bytes is not None:
            return self.host_bytes
        named = isinstance(self.gpus, str) and self.gpus.strip().lower() != CPU
        return None if named else host_ram_bytes()

    def workload(self) -> Workload:
        """The job that is asked for, as the memory formulas see it.

        Raises:
            UsageError: an unknown method, QLoRA without quantisation, or an impossible size.
        """
        train = self.settings
        method = self.method or (self.train.method if self.train else "auto")
        if method not in METHODS:
            raise UsageError(
                f"unknown method {method!r}{nearest(method, METHODS)}",
                remedy=f"--method {', '.join(METHODS[:-1])} or {METHODS[-1]}",
            )
        if method == "qlora" and not self.quantize:
            raise UsageError(
                "QLoRA without quantisation",
                remedy="leave out --no-quantize, or give --method lora",
            )
        _check_sizes(self, train)
        plain = from_training(
            train, self.seq_len or USUAL_SEQ_LEN, self.supervised_tokens, self.overhead
        )
        return replace(
            plain,
            method=cast(Method, method),
            quantize=self.quantize,
            micro_batch=self.micro_batch or plain.micro_batch,
            global_batch=self.global_batch or plain.global_batch,
            attention=_kind(self.attention or ""),
        )

    def steps(self, global_batch: int) -> int | None:
        """Optimiser steps of the whole training; None: not known."""
        train = self.settings
        if train.max_steps is not None:
            return train.max_steps
        if self.examples is None:
            return None
        seen = self.examples * train.num_train_epochs
        return max(1, math.ceil(seen / global_batch))

    def devices(self) -> tuple[tuple[GPU, ...], list[Reason]]:
        """The GPUs to plan for, and what is assumed of those that are only named."""
        asked = self.gpus
        if isinstance(asked, tuple) and asked:
            return asked, []
        if isinstance(asked, str) and normalize("NFKC", asked).strip().lower() == CPU:
            room = cpu()
            if size := self.host_bytes:  # of another machine
                room = replace(room, total_bytes=size, free_bytes=size)
            return (room,), []
        if not isinstance(asked, str):
            there = () if asked == () else detect()
            return (there, []) if there else ((cpu(),), [Reason("no_gpu", {})])
        named = parse(asked)
        like = sorted({gpu.like for gpu in named if gpu.like and not gpu.known})
        said = [Reason("assumed", {"names": ", ".join(like)})] if like else []
        return named, said + about_cards(gpu.like for gpu in named if gpu.known)


def about_cards(names: Iterable[str]) -> list[Reason]:
    """What must be known of cards: AMD's were never tried, old ones need an older torch."""
    known = {name: one for name in names if (one := card(name))}
    old = [name for name, one in known.items() if 0 < one.capability < TURING]
    said = [Reason("amd", {})] * any(one.amd for one in known.values())
    return said + [Reason("old_cuda", {"names": ", ".join(sorted(old))})] * bool(old)


def _check_sizes(asked: PlanRequest, train: TrainSpec) -> None:
    """Refuse what no training has.

    Raises:
        UsageError: a batch beyond `MOST_EXAMPLES`, or an optimiser that transformers does not have.
    """
    for name, value in (("global batch", asked.global_batch), ("micro-batch", asked.micro_batch)):
        if value is not None and value > MOST_EXAMPLES:
            raise UsageError(
                f"a {name} of {value:,} examples", remedy=f"give at most {MOST_EXAMPLES:,}"
            )
    known = optimizers()
    if known and train.optim not in known:
        raise UsageError(
            f"transformers has no optimiser {train.optim!r}{nearest(train.optim, known)}",
            where="train.optim",
            remedy="one of its own, such as adamw_torch, paged_adamw_32bit or adamw_8bit",
        )


@cache
def optimizers() -> tuple[str, ...]:
    """The optimisers of the installed transformers, read as text; none where it is not there."""
    found = importlib.util.find_spec("transformers")
    if found is None or not found.origin:
        return ()
    try:
        text = (Path(found.origin).parent / "training_args.py").read_text(encoding="utf-8")
    except OSError:
        return ()
    listed = text.partition("class OptimizerNames")[2].partition("\n\n\n")[0]
    return tuple(re.findall(r"^    [A-Z0-9_]+ = \"(\w+)\"", listed, re.MULTILINE))


def _kind(attention: str) -> Literal["sdpa", "eager", "flash"]:
    """What the memory of an attention depends on: transformers' own choice is sdpa."""
    if attention == "eager":
        return "eager"
    return "flash" if attention.startswith(("flash", "flex")) else "sdpa"
