"""The value `MemoryReport`: a plan, the candidates it was chosen from, and what it rests on."""

from __future__ import annotations

import html
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.config import TrainSpec
from holdfast.memory.estimate.states import aside_bytes
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.memory_plan import GIB, MemoryPlan
from holdfast.memory.model.shape import Shape
from holdfast.memory.planner import explanation, machine
from holdfast.memory.planner.choice import Comparison
from holdfast.memory.planner.train_script import check_new, launch_line, script
from holdfast.memory.planner.translations import Language, say
from holdfast.memory.planner.ways import Candidate
from holdfast.memory.precision import BFLOAT16, Precision
from holdfast.progress import console
from holdfast.runs import store

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

DEFAULT_SEED = 1126
WIDTH = 140
"""Characters of a line in `repr` and in a notebook."""


@dataclass(frozen=True, slots=True, repr=False)
class MemoryReport:
    """A plan and the grounds it stands on; shows itself in a terminal and in a notebook.

    Attributes:
        comparison: every candidate, the choice and the runner-up.
        model: hub id or folder, for the launch line and the script.
        source: `traced` or `formula`.
        notes: what was assumed.
        launch: what to type to run it; empty when nobody said what is to be run.
        script: the training script that was written.
        precision: what is computed in, and why.
    """

    comparison: Comparison
    model: str
    source: str
    notes: tuple[str, ...] = ()
    launch: str = ""
    script: Path | None = None
    precision: Precision = BFLOAT16

    @property
    def chosen(self) -> Candidate | None:
        """The candidate to run; None when nothing fits."""
        return self.comparison.chosen

    @property
    def plan(self) -> MemoryPlan | None:
        """The plan of the chosen candidate; None when nothing fits."""
        return self.chosen.plan if self.chosen else None

    @property
    def fits(self) -> bool:
        """Whether the job can be run on these GPUs at all."""
        return self.chosen is not None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every way of running the job, those that do not fit included."""
        return self.comparison.candidates

    def to_json(self) -> dict[str, object]:
        """All of it, for programs."""
        commands = [self.launch] if self.launch else []
        found = explanation.to_json(self.comparison, self.source, commands)
        return found | {
            "precision": {"dtype": self.precision.dtype, "why": self.precision.why()},
            "notes": list(self.notes),
            "script": self.script and str(self.script),
        }

    def show(self, every: bool = False, language: Language = "en") -> None:
        """Print it.

        Args:
            every: all candidates, not only the best of each strategy.
            language: `en` or `zh`.
        """
        self._print(console(), every, language)

    def text(self, every: bool = False, language: Language = "en") -> str:
        """What `show` prints, without colours."""
        output = io.StringIO()
        self._print(console(file=output, width=WIDTH, no_color=True), every, language)
        return output.getvalue()

    def write_script(
        self, path: str | Path, train: TrainSpec | None = None, seed: int = DEFAULT_SEED
    ) -> MemoryReport:
        """Write a plain training script that runs the chosen plan without Holdfast.

        Args:
            path: where to; nothing is overwritten.
            train: learning rate, schedule and so on; None: the defaults.
            seed: of adapters, dropout and order.

        Returns:
            The report with the script and its launch line.

        Raises:
            UsageError: the file exists, nothing fits, or weights would lie in host memory.
        """
        path = Path(path)
        check_new(path)
        text = script(
            self.comparison, self.source, self.model, train or TrainSpec(), seed, path.name
        )
        store.write_text(path, text)
        launch = launch_line(self.plan, path.name) if self.plan else ""
        return replace(self, launch=launch, script=path)

    def __repr__(self) -> str:
        """The report as text."""
        return self.text().rstrip()

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"

    def _print(self, page: Console, every: bool, language: Language) -> None:
        for part in self._parts(every, language):
            if isinstance(part, str):
                page.print(part, highlight=False, markup=False, soft_wrap=True)
            else:
                page.print(part)

    def _parts(self, every: bool, language: Language) -> Iterator[RenderableType]:
        """What is printed, from top to bottom."""
        found = self.comparison
        yield explanation.title(found, language) + "\n"
        yield explanation.table(found, language, every)
        if found.chosen:
            plan = found.chosen.plan
            yield ""
            yield explanation.breakdown(plan, language)
            yield "\n" + say(language, "chosen", what=explanation.describe(plan, language))
            yield say(language, "because", why=explanation.reason(found, language))
            if found.runner_up:
                yield explanation.runner_up(plan, found.runner_up.plan, language)
        yield self.precision.line(language)
        yield from filter(None, (machine.idle(found, language), machine.host(found, language)))
        if methods := explanation.method_overhead(found, language):
            yield methods
        yield from explanation.changes(found, language)
        yield "\n" + explanation.grounds(found, self.source, language)
        yield from self.notes
        if self.launch:
            yield "\n" + say(language, "launch", command=self.launch)


def switched_on(shape: Shape, work: Workload) -> tuple[str, ...]:
    """What the ways of training fast were counted as, in sentences."""
    said = []
    if work.packed:
        mask = "" if work.attention == "flash" else ", and a mask of blocks in every layer"
        said.append(
            f"packing: rows filled up to {work.seq_len:,} tokens, counted as full, with a loss "
            f"everywhere{mask}"
        )
    if work.kernels:
        said.append("Liger's kernels: norms keep their inputs in the precision of the computation, "
                    "feed-forward parts no activation, where this is by formula")  # fmt: skip
    if work.compiled:
        said.append("torch.compile: counted as nothing; fused kernels keep no more")
    if work.saved_aside:
        method = work.methods[0]
        copy = aside_bytes(shape, work, method)
        said.append(
            f"async_save: {copy / GIB:.2f} GiB of host memory while a checkpoint is written"
        )
    return tuple(said)


def as_stated(work: Workload) -> tuple[str, ...]:
    """What is counted otherwise than Holdfast trains, in sentences."""
    said = []
    if work.script == "litgpt":
        said.append("LitGPT's trainer: its own layers, head and loss, by formula")
    elif work.loss != "tiled":
        written = ", over which their gradient is written" if work.loss == "in_place" else ""
        said.append(f"a loss on whole logits{written}, not Holdfast's tiled one")
    if work.narrow:
        under = "under autocast" if work.autocasts else "without autocast"
        said.append(
            f"16-bit weights are trained as they are, {under}; Holdfast trains float32 ones"
        )
    elif not work.autocasts:
        said.append("16 bits throughout, without autocast")
    if work.base_float32:
        said.append("weights that are not in 4 bits are loaded in float32, as TRL does unless told")
    if work.kbit_upcast:
        said.append("what is not quantised is float32 (prepare_model_for_kbit_training)")
    if work.keeps_inputs:
        said.append("bitsandbytes before 0.43.2, whose 4-bit matrices keep their inputs")
    if not work.expandable:
        said.append("torch's own allocator, without expandable_segments")
    return tuple(said)
