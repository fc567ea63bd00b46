"""The value `Found`: what a search for cards, length or examples at once arrived at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

from holdfast.memory.estimate.workload import Workload
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.model.shape import Shape
from holdfast.memory.planner.explanation import gpu_lines, peaks
from holdfast.memory.planner.layout import NARROW, command_lines, put
from holdfast.memory.planner.memory_report import in_words
from holdfast.memory.planner.schema import SCHEMA
from holdfast.memory.planner.translations import Language, say
from holdfast.memory.planner.ways import Candidate, Reason
from holdfast.progress import console

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Searched = Literal["gpus", "length", "batch"]
OTHERS = 3
"""How many more cards of the same size are named."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer.

    Attributes:
        value: tokens, examples per forward pass and GPU, or GiB of all GPUs as they are sold.
        candidate: the way to run it.
        count: of the GPUs, where these were looked for.
        names: of the cards of this size, the fastest first.
    """

    value: int
    candidate: Candidate
    count: int = 0
    names: tuple[str, ...] = ()

    @property
    def gpus(self) -> str:
        """The set as `--gpus` takes it; "" where GPUs were not looked for."""
        return f"{self.count}x{self.names[0]}" if self.names else ""


@dataclass(frozen=True, slots=True)
class Found:
    """All answers of a search, the best first; shows itself in a terminal.

    Attributes:
        what: was looked for.
        shape: the model.
        work: the job.
        gpus: it was looked for on, unless they were looked for.
        rows: the answers; by strategy, or by set of GPUs.
        notes: what was assumed.
        following: what to type next; empty: not known.
    """

    what: Searched
    shape: Shape
    work: Workload
    gpus: tuple[GPU, ...]
    rows: tuple[Finding, ...]
    notes: tuple[str | Reason, ...]
    following: str = ""

    @property
    def fits(self) -> bool:
        """Whether anything fits."""
        return bool(self.rows)

    @property
    def best(self) -> Finding | None:
        """The answer: the first that does not rely on host memory, if there is one."""
        plain = (one for one in self.rows if one.candidate.plan.placement != "offload")
        return next(plain, self.rows[0] if self.rows else None)

    def flags(self) -> dict[str, str]:
        """What to say on the command line to plan the answer."""
        if self.best is None:
            return {}
        if self.what == "gpus":
            return {"--gpus": self.best.gpus}
        if self.what == "length":
            return {"--seq-len": str(self.best.value)}
        plan = self.best.candidate.plan
        return {
            "--micro-batch": str(self.best.value),
            "--global-batch-size": str(plan.global_batch),
        }

    def to_json(self) -> dict[str, object]:
        """All of it, for programs."""
        return {
            "schema": SCHEMA,
            "kind": f"find_{self.what}",
            "fits": self.fits,
            "model": self.shape.name,
            "parameters": self.shape.parameters,
            "method": self.work.method,
            "seq_len": None if self.what == "length" else self.work.seq_len,
            "gpus": [] if self.what == "gpus" else [asdict(one) for one in self.gpus],
            "source": "formula",
            "order": "memory in all, number of GPUs; no prices" if self.what == "gpus" else "most",
            "best": self.best and self._row(self.best),
            "rows": [self._row(one) for one in self.rows],
            "notes": [in_words(one, "en") for one in self.notes],
            "next": self.following or None,
        }

    def _row(self, one: Finding) -> dict[str, object]:
        plan = one.candidate.plan
        named = {"gpus": one.gpus, "count": one.count, "cards": list(one.names)}
        return {"value": one.value, **(named if self.what == "gpus" else {})} | {
            "strategy": plan.strategy,
            "predicted_bytes": [part.total for part in plan.predicted],
            "micro_batch": plan.micro_batch,
            "global_batch": plan.global_batch,
            "checkpointing": plan.checkpointing,
            "tokens_per_s": plan.tokens_per_s,
        }

    def show(self, every: bool = False, language: Language = "en") -> None:
        """Print it.

        Args:
            every: changes nothing; as of a plan.
            language: `en` or `zh`.
        """
        self._print(console(), language)

    def _print(self, page: Console, language: Language) -> None:
        """Print it on a page."""
        for part in self._parts(language, page.width):
            put(page, part)
        if self.following:
            put(page, "\n" + say(language, "next"))
            page.print(command_lines(self.following, page.width), highlight=False, markup=False,
                       soft_wrap=True)  # fmt: skip

    def _parts(self, language: Language, width: int) -> Iterator[RenderableType]:
        """What is printed, from top to bottom."""
        seq = f"{self.work.seq_len:,}"
        if self.what == "gpus":
            yield say(language, "title", model=self.shape.name, method=self.work.method, seq=seq,
                      batch=self.work.global_batch)  # fmt: skip
        else:
            yield say(language, "found", model=self.shape.name, method=self.work.method)
            yield from gpu_lines(self.gpus, language)
        if self.best is None:
            yield "\n" + say(language, f"found_none_{self.what}", least=64, seq=seq)
        else:
            yield "\n" + say(language, f"find_{self.what}", seq=seq)
            yield from self._table(language, width)
            yield "\n" + self._sentence(self.best, language)
            yield from self._without_4_bits(language)
        if self.what == "gpus":
            yield say(language, "no_prices")
        yield say(language, "by_formula_only")
        yield from (in_words(one, language) for one in self.notes)

    def _sentence(self, one: Finding, language: Language) -> str:
        plan = one.candidate.plan
        value = one.gpus if self.what == "gpus" else f"{one.value:,}"
        peak = say(language, "peak_cpu" if plan.placement == "cpu" else "peak_gpu",
                   peak=peaks(plan))  # fmt: skip
        said = say(
            language, f"best_{self.what}", value=value, gib=one.value, peak=peak,
            strategy=say(language, f"s_{plan.strategy}"), batch=plan.global_batch,
        )  # fmt: skip
        if others := one.names[1 : OTHERS + 1]:
            return said + " " * (language == "en") + say(language, "more_cards",
                                                        names=", ".join(others))  # fmt: skip
        return said

    def _without_4_bits(self, language: Language) -> Iterator[str]:
        """The answer on a base that is left as it is, where the best one changes it."""
        if self.what == "gpus" or self.best is None or not self.best.candidate.plan.quantized:
            return
        whole = (
            one
            for one in self.rows
            if not one.candidate.plan.quantized and one.candidate.plan.placement != "offload"
        )
        if one := next(whole, None):
            name = say(language, f"s_{one.candidate.plan.strategy}")
            yield say(language, f"whole_{self.what}", strategy=name, value=f"{one.value:,}")

    def _table(self, language: Language, width: int) -> Iterator[RenderableType]:
        from rich.table import Table

        keys = {"gpus": ("f_gpus", "f_all"), "length": ("f_strategy", "f_tokens"),
                "batch": ("f_strategy", "f_examples")}[self.what]  # fmt: skip
        heads = [say(language, key) for key in (*keys, "f_peak", "f_speed")]
        heads += [say(language, "f_strategy")] * (self.what == "gpus")
        rows = []
        for one in self.rows:
            plan = one.candidate.plan
            strategy = say(language, f"s_{plan.strategy}")
            cells = [one.gpus or strategy, f"{one.value:,}", peaks(plan),
                     f"{plan.tokens_per_s:,.0f}"]  # fmt: skip
            rows.append(cells + [strategy] * (self.what == "gpus"))
        if width < NARROW:
            yield from (", ".join(f"{head}: {cell}" for head, cell in zip(heads, row, strict=True))
                        for row in rows)  # fmt: skip
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for index, head in enumerate(heads):
            table.add_column(head, justify="right" if 0 < index < 4 else "left")
        for row, one in zip(rows, self.rows, strict=True):
            table.add_row(*row, style="bold green" if one is self.best else None)
        yield table
