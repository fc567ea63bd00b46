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
from holdfast.memory.planner.layout import NARROW, command_lines, put
from holdfast.memory.planner.schema import to_json
from holdfast.memory.planner.train_script import check_new, launch_line, script
from holdfast.memory.planner.translations import Language, say
from holdfast.memory.planner.ways import Candidate, Reason
from holdfast.memory.precision import BFLOAT16, Precision
from holdfast.progress import console
from holdfast.progress.translation import told
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
        said: what was assumed.
        launch: what to type to run it; empty when nobody said what is to be run.
        script: the training script that was written.
        precision: what is computed in, and why.
        steps: of the whole training; None: not known.
        following: what to type next where nothing can be launched; empty: not known.
    """

    comparison: Comparison
    model: str
    source: str
    said: tuple[str | Reason, ...] = ()
    launch: str = ""
    script: Path | None = None
    precision: Precision = BFLOAT16
    steps: int | None = None
    following: str = ""

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
    def notes(self) -> tuple[str, ...]:
        """What was assumed, in sentences."""
        return tuple(in_words(one, "en") for one in self.said)

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every way of running the job, those that do not fit included."""
        return self.comparison.candidates

    def to_json(self) -> dict[str, object]:
        """All of it, for programs."""
        commands = [self.launch] if self.launch else []
        found = to_json(self.comparison, self.source, self.steps, commands)
        return found | {
            "precision": {"dtype": self.precision.dtype, "why": self.precision.why()},
            "notes": list(self.notes),
            "next": self.launch or self.following or None,
            "script": self.script and str(self.script),
        }

    def show(self, every: bool = False, language: Language = "en") -> None:
        """Print it.

        Args:
            every: all candidates, not only the best of each strategy; what takes the memory as
                a table; what was not taken, and why.
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
        for part in self._parts(every, language, page.width):
            put(page, part)
        key, command = ("launch", self.launch) if self.launch else ("next", self.following)
        if command:
            wrote = self.script and say(language, "wrote", script=self.script)
            put(page, f"\n{wrote or say(language, key)}")
            page.print(command_lines(command, page.width), highlight=False, markup=False,
                       soft_wrap=True)  # fmt: skip

    def _parts(self, every: bool, language: Language, width: int) -> Iterator[RenderableType]:
        """What is printed, from top to bottom."""
        found = self.comparison
        yield explanation.title(found, language) + ("\n" if self.script is None else "")
        if found.chosen is None or every or self.script is None:
            yield from self._ways(every, language, width)
        if found.chosen:
            yield explanation.choice(found, language)
        if found.chosen and (every or self.script is None):
            yield machine.filled(found.chosen.plan, language)
            yield say(language, "because", why=explanation.reason(found, language))
            yield explanation.cost(found, self.steps, language)
        if every:
            yield from explanation.alternatives(found, language)
        yield from filter(None, (machine.idle(found, language), machine.host(found, language)))
        if methods := explanation.method_overhead(found, language):
            yield methods
        yield from explanation.changes(found, language)
        sure = say(language, "sure", grounds=explanation.grounds(found, self.source, language))
        notes = (in_words(one, language) for one in self.said)
        said = (self.precision.line(language), sure, *notes)
        yield ("" if language == "zh" else " ").join(said)

    def _ways(self, every: bool, language: Language, width: int) -> Iterator[RenderableType]:
        """All that were compared; whoever has a script written has seen them."""
        found = self.comparison
        if width < NARROW:
            yield from explanation.as_lines(found, language, every)
        else:
            yield explanation.table(found, language, every)
        yield from explanation.footnotes(found, language, every)
        if found.chosen:
            yield ""
        if found.chosen and every:
            yield machine.breakdown(found.chosen.plan, language, width)
            yield ""


def in_words(note: str | Reason, language: Language) -> str:
    """A note as a sentence, in the language where it is known in it."""
    if isinstance(note, Reason):
        return note.words(language)
    if language == "zh":
        return "；".join(told(one, language) for one in note.split("; ")) + "。"
    begin = note[0].upper() if note.split(maxsplit=1)[0].isalpha() else note[0]  # no model's name
    return f"{begin}{note[1:]}" + "." * (not note.endswith("."))


def switched_on(shape: Shape, work: Workload) -> tuple[Reason, ...]:
    """What the ways of training fast were counted as."""
    said = []
    if work.packed:
        key = "packing" if work.attention == "flash" else "packing_mask"
        said.append(Reason(key, {"tokens": f"{work.seq_len:,}"}))
    if work.kernels:
        said.append(Reason("liger", {}))
    if work.compiled:
        said.append(Reason("compiled", {}))
    if work.saved_aside:
        copy = aside_bytes(shape, work, work.methods[0])
        said.append(Reason("async_save", {"gib": f"{copy / GIB:.2f}"}))
    return tuple(said)


def as_stated(work: Workload) -> tuple[Reason, ...]:
    """What is counted otherwise than Holdfast trains."""
    said = []
    if work.script == "litgpt":
        said.append("litgpt")
    elif work.loss != "tiled":
        said.append("in_place" if work.loss == "in_place" else "whole_logits")
    if work.narrow:
        said.append("narrow_autocast" if work.autocasts else "narrow")
    elif not work.autocasts:
        said.append("no_autocast")
    said += ["base_float32"] * work.base_float32 + ["kbit"] * work.kbit_upcast
    said += ["keeps_inputs"] * work.keeps_inputs + ["rigid"] * (
        not work.expandable and not work.on_cpu
    )
    return tuple(Reason(key, {}) for key in said)
