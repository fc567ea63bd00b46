"""The model card of an export: what was gained and lost, on which data, what is not known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from holdfast.analysis import selection
from holdfast.analysis.collect import arm_infos
from holdfast.analysis.results import ArmInfo, Decision, Share, TaskInfo
from holdfast.analysis.selection import rule
from holdfast.config import LAB, TrainSpec
from holdfast.config.section import made_usable
from holdfast.errors import printable_json
from holdfast.models import gguf_record
from holdfast.models.gguf_record import Conversion
from holdfast.progress.rendered import card_in_language
from holdfast.report.harmless import clean, code
from holdfast.report.words import amount, difference, interval, shown, unscored
from holdfast.runs import store
from holdfast.runs.plan import ArmPlan, Plan
from holdfast.shipping.export import Form
from holdfast.shipping.usage import loading, serving
from holdfast.types import ChatSettings, Point

CARD = "README.md"
PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./")
"""Letters of a hub id, which needs no quotes in YAML."""
SHIP = "ship"
FORMS = {
    "adapter": "The adapter alone; it goes on top of the base model.",
    "merged": "All weights: the base model with what was trained merged in.",
    "nf4": "All weights, the linear layers in four bits (NF4, bitsandbytes).",
    "gguf": "All weights in one GGUF file, in 16 bits.",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """One task's share of good answers.

    Attributes:
        task: how it was measured.
        before: of the untouched model.
        in_study: of the chosen model, as the study measured it.
        exported: of the chosen model as it was exported.
        diff: exported less before, paired.
    """

    task: TaskInfo
    before: Share
    in_study: Share
    exported: Share
    diff: Share


@dataclass(frozen=True)
class Card:
    """Everything that a card tells of."""

    plan: Plan
    point: Point
    form: Form
    in_study: Decision
    exported: Decision
    figures: Sequence[Figure]
    by_hand: bool = False
    asked_by: str = ""

    def write(self, folder: Path) -> None:
        """Write ``README.md``, in the language that is spoken."""
        parts = [self._head(), self._verdict(), self._table(), self._training(), self._limits()]
        parts += [
            self._loading(),
            serving(self.form, self._served, made_usable(self.plan.study.name), folder),
            self._licence(),
        ]
        store.write_text(folder / CARD, card_in_language("\n\n".join(parts) + "\n"))

    @property
    def _arm(self) -> ArmPlan:
        return self.plan.arms[self.point.arm]

    @property
    def _base(self) -> str:
        """The base model as the study names it."""
        return self.plan.study.model.id

    @property
    def _served(self) -> str:
        """The base as a server is given it."""
        own = self._base == LAB or self._expanded() is not None
        return "path/to/the/base" if own else self._base

    def _head(self) -> str:
        library = "peft" if self.form == "adapter" else "transformers"
        name = selection.name_of(self.point)
        base = printable_json(self._base) if set(self._base) - PLAIN else self._base
        listed = "" if Path(self.plan.model.base).is_dir() else f"base_model: {base}\n"
        scaled = ""
        if self.point.scale != 1:
            scaled = (
                f" {100 * self.point.scale:g} % of the change that training made is applied; that "
                "is part of the weights here."
            )
        return (
            f"---\n{listed}library_name: {library}\ntags: [holdfast]\n---\n\n"
            f"# {clean(self.plan.study.name)}: {clean(name)}\n\n"
            f"{clean(self._base)}, fine-tuned on {clean(self._learned())} in the study "
            f"{code(self.plan.study.name)} with Holdfast. {FORMS[self.form]}{scaled} The study is "
            "in `study.yaml`, the decision with all its figures in `decision.json`."
        )

    def _learned(self) -> str:
        """The tasks that it was trained on; of stages those that were learned by then."""
        begun = [one.task for one in self.plan.chapters if one.before < self.point.step]
        return ", then ".join(begun) or rule.listed(self.plan.study.targets)

    def _verdict(self) -> str:
        answer = self.exported.answer
        against = ""
        if answer != SHIP:
            against = "\n\n**Exported against this answer, because that was asked for.**"
        chosen = (
            "- It was chosen by the rule from all models of the study; the intervals of the "
            "decision allow for that choice."
        )
        if self.by_hand:
            chosen = (
                "- The checkpoint was named by hand. Whoever named it may have seen its figures; "
                "the intervals of the decision allow for a choice among all models of the study."
            )
        chosen += (
            " The table below shows ordinary 95 % intervals, and the gain of a model that was "
            "chosen for its gain flatters it a little."
        )
        return (
            f"## May it be shipped? {answer[:1].upper()}{answer[1:]}\n\n"
            f"{clean(self.exported.reason)}{against}\n\n"
            f"- The rule: {clean(self.exported.rule)}\n"
            f"- In the study, before it was exported: {self.in_study.answer}. "
            f"{clean(self.in_study.reason)}\n"
            f"{chosen}"
        )

    def _table(self) -> str:
        rows = [
            "| task | figure | untouched model | in the study | as exported | difference, points |",
            "|---|---|---|---|---|---|",
        ]
        for one in self.figures:
            shares = one.before, one.in_study, one.exported
            cells = [_cell(share, one.task) for share in shares]
            change = difference(one.diff, one.task)
            last = f"{change.points} {change.interval} {change.verdict}" if change else "—"
            last += f" ({one.task.unit})" if change and one.task.unit else ""
            rows.append(
                f"| {clean(one.task.name)} ({one.task.role}) | {clean(one.task.label)} "
                f"| {' | '.join(cells)} | {last} |"
            )
        how = [f"- {clean(one.task.name)}: {clean(one.task.how)}." for one in self.figures]
        return (
            "## Gained and forgotten\n\n" + "\n".join(rows) + "\n\nWith 95 % intervals. The "
            "difference is between the exported model and the untouched one, on the same "
            "items.\n\n" + "\n".join(how)
        )

    def _training(self) -> str:
        info: ArmInfo = next(a for a in arm_infos(self.plan) if a.name == self.point.arm)
        train = TrainSpec.model_validate(self._arm.training)
        method: str = train.method
        if method != "full":
            lora = train.lora
            method += f" ({lora.variant}, r {lora.r}, alpha {lora.alpha})"
        sources = ", ".join(f"{clean(source)} ({n:,})" for source, n in info.by_source.items())
        seed = "all seeds together" if self.point.seed is None else f"seed {self.point.seed}"
        lines = [
            f"- Arm: {clean(self.point.arm)}: {clean(info.recipe)}",
            f"- Method: {method}, learning rate {train.learning_rate:g}, {train.optim}, "
            f"{train.batch_size} examples per step",
            f"- {seed}, after {self._steps():,} of {self.plan.steps:,} steps",
            f"- Data: {sources or 'not recorded'}",
            *(f"- {clean(note)}" for note in info.notes),
        ]
        return "## Training\n\n" + "\n".join(lines)

    def _steps(self) -> int:
        """Steps behind the weights: fewer than planned where a meter ended the training."""
        return min(
            self.point.step,
            self.plan.ended(self._arm.source, self.point.seed) or self.point.step,
        )

    def _limits(self) -> str:
        lines = [
            "- The figures speak of these tasks, asked in this way. What was not measured may have "
            "been forgotten.",
            "- This is one model; training again with another seed gives another one.",
        ]
        for task in self.plan.tasks.values():
            if task.judge:
                lines.append(
                    f"- {clean(task.name)} is by the judge {clean(task.judge_title)}. Another "
                    "judge gives other figures, and none of them is a safety grade or a "
                    "certificate."
                )
        if self.form != "adapter" and self.plan.study.train.method == "qlora":
            rounded = ", and rounded to four bits anew" if self.form == "nf4" else ""
            lines.append(
                "- It was trained on the base in four bits (NF4). Here the adapter is merged into "
                f"the base's unrounded weights{rounded}, which is not the same model; the figures "
                "as exported are of what lies here."
            )
        if (made := self._expanded()) is not None:
            lines.append(
                f"- The base is the GGUF file {code(made.file)} ({made.kind}, sha256 "
                f"`{made.sha256}`). It was trained and measured on that file's weights written "
                f"out in {made.dtype}, not on the model that the file was made from, and not in "
                "the file's own few bits."
            )
        lines += self._asked_through()
        if self.asked_by:
            lines.append(f"- As exported it was measured by {clean(self.asked_by)}.")
        for words, settings in self._arm.asked:
            lines.append(
                f"- Measured as {clean(words)}; used otherwise, the figures do not hold: "
                f"{code(str(dict(settings)))}"
            )
        return "## Limits\n\n" + "\n".join(lines)

    def _expanded(self) -> Conversion | None:
        """How the base was made of a GGUF file."""
        return gguf_record.of(self.plan.model.base)

    def _asked_through(self) -> list[str]:
        """How its chat template was used, where that is not as the template comes."""
        chat, model = self.plan.model.chat, self.plan.study.model
        said = ["the study's own chat template, which lies here"] if chat.template else []
        said += [code(f"{name}: {value!r}") for name, value in chat.kwargs.items()]
        said += [f"thinking {'on' if chat.thinking else 'off'}"] if model.thinking != "auto" else []
        said += [f"the date {clean(str(chat.date))}"] if chat.date != ChatSettings().date else []
        if not said:
            return []
        return [f"- Measured through {', '.join(said)}; asked otherwise, the figures do not hold."]

    def _loading(self) -> str:
        base, how, more, note = printable_json(self._base), 'dtype="auto"', "", ""
        if self.plan.model.revision:
            base += f", revision={printable_json(self.plan.model.revision)}"
        if (made := self._expanded()) is not None:
            base = f'"path/to/its/folder", gguf_file={printable_json(made.file)}'
            how, more = (
                f"dtype={made.dtype}, quantization_config=GgufConfig(dequantize=True)",
                (f", GgufConfig\nfrom torch import {made.dtype}"),
            )
        code = loading(self.form, base, how, more)
        if self._base == LAB and self.form == "adapter":
            note = " The base comes with Holdfast: name the folder `holdfast.lab.model_folder()`."
        kind = "GGUF" if self.form == "gguf" else "safetensors"
        return f"## Loading\n\nThe format is {kind}.{note}\n\n```python\n{code}```"

    def _licence(self) -> str:
        return (
            "## Licence\n\nNot known to Holdfast. This is a derivative of the base model and may "
            "carry over from its training data: check the licence of both before passing it on."
        )


def _cell(share: Share, task: TaskInfo) -> str:
    one = shown(share, task)
    parts = (amount(one.mean, task), interval(one, task), f"n {one.n:,}", unscored(one))
    return " ".join(part for part in parts if part)
