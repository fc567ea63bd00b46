"""Makes a study of a few answers: asked in a terminal, given as flags, or another program's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from holdfast.cli.front import tell
from holdfast.config import recipes
from holdfast.config.section import made_usable
from holdfast.errors import HoldfastError, UsageError, printable
from holdfast.types import LAB

if TYPE_CHECKING:
    from holdfast.config.imported import Imported

Answer = TypeVar("Answer")
Section = dict[str, object]
SMALL = "Qwen/Qwen2.5-1.5B-Instruct"
MODEL = "Model? A hub id, a folder, or lab, which is built in"
LEARNS = "What does it learn? gsm8k, lab_math, or TRAIN.jsonl,TEST.jsonl"
KEEPS = "What must it keep? lab_refuse, lab_help, gsm_danger, gsm8k, ailuminate=FILE, xstest=FILE, "
KEEPS += "harness:arc_easy, a file of yours; with commas"
GPUS = "GPUs? 2x24GiB, rtx4090, cpu; Enter: those that are here"
USUALLY_KEPT, OWN = "lab_refuse,lab_help", "mine"
MEASURES = ("ailuminate", "xstest", "overrefusal", "gsm_danger")
"""Tasks that are never trained on."""


@dataclass(frozen=True, slots=True)
class Told:
    """What the command line says, each "" or () where it does not."""

    model: str = ""
    data: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()
    gpus: str = ""


class Guide:
    """Asks for what was not said, and puts a study together.

    Attributes:
        notes: what to say of it.
    """

    def __init__(self, study: Path, told: Told, terminal: bool) -> None:
        """Ask nothing yet.

        Args:
            study: the file to be written; places are taken from its folder.
            told: what need not be asked.
            terminal: somebody is there to be asked.
        """
        self._study, self._told, self._terminal = study, told, terminal
        self.notes: list[str] = []

    def text(self) -> str:
        """The study."""
        told = self._told
        model = told.model or self._ask(MODEL, SMALL, str)
        usual = "lab_math" if model == LAB else "gsm8k"
        target = self._answer(told.data, LEARNS, usual, self._target)
        if self._terminal and not told.keep:
            self._show_tasks()
        kept = self._answer(told.keep, KEEPS, USUALLY_KEPT, self._kept)
        if target[0] in kept:
            raise UsageError(
                f"{target[0]} is what it learns", where="--keep", remedy="name another ability"
            )
        gpus = self._answer((told.gpus,) if told.gpus else (), GPUS, "", gpus_of)
        margins = self._margins(kept)
        name = self._name(target[0])
        return recipes.written(recipes.Chosen(name, model, target, kept, margins, gpus))

    def of_another(self, found: Imported, file: Path, test: str) -> str:
        """A study of what another program's file says, with what it could not say in comments.

        Args:
            found: what the file came to.
            file: its name.
            test: the file that measures; "": it is yet to be named.
        """
        from holdfast.cli.sections import from_study, grader, place_in, split

        sources = [
            {**one, "path": from_study(self._study, str(one["path"]))} if "path" in one else one
            for one in found.data
        ]
        if not test:
            found.open.append(f"tasks.{OWN}.path: a file with other questions, which measures")
        section: Section = {
            "kind": "jsonl",
            "train_path": sources or "TRAIN.jsonl",
            "path": place_in(self._study, test) if test else "TEST.jsonl",
        }
        section["grader"] = grader(section, self._study) if test else "exact"
        kept = self._kept(self._told.keep or split([USUALLY_KEPT]))
        chosen = recipes.Chosen(
            self._name(file.stem), found.model or "MODEL", (OWN, section), kept,
            self._margins(kept), train=found.train or {"method": "lora"},
            more={"seeds": list(found.seeds)} | ({"track": found.track} if found.track else {}),
        )  # fmt: skip
        lines = [f"# Made of {file.name} ({found.program})."]
        lines += [f"#   to be filled in: {one}" for one in found.open]
        lines += [f"#   no counterpart: {key}: {value}" for key, value, _ in found.lost]
        return "\n".join(map(printable, lines)) + f"\n{recipes.written(chosen)}"

    def _show_tasks(self) -> None:
        from holdfast.cli import catalogue
        from holdfast.tasks import REGISTRY

        after = "xstest is two tasks, harmless and harmful; lab_refuse and lab_help need no file."
        tell(catalogue.listed(catalogue.entries(REGISTRY), {}, after), always=True)

    def _name(self, otherwise: str) -> str:
        """Of the run folder: the study's file, unless it is called as all are."""
        return made_usable(self._study.stem if self._study.stem != "study" else otherwise)

    def _margins(self, kept: Mapping[str, Section]) -> dict[str, tuple[float, str]]:
        """For each task a margin that its items can show, and why that one."""
        from holdfast.analysis.selection.rule import MARGIN
        from holdfast.cli.sections import items, margin_for

        found = {}
        for name, section in kept.items():
            if section.get("kind", name) == "text":
                found[name] = (MARGIN, "bits per byte, of about 1")
                continue
            count = items(name, section, self._study)
            margin = margin_for(name, count)
            if margin is None:
                self.notes.append(f"{name} has {count} items: too few for any rule about it.")
            else:
                found[name] = margin
        return found

    def _answer(
        self,
        given: tuple[str, ...],
        question: str,
        usual: str,
        read: Callable[[tuple[str, ...]], Answer],
    ) -> Answer:
        """What a flag says, or the user, or else what is usual."""
        from holdfast.cli.sections import split

        return read(given) if given else self._ask(question, usual, lambda one: read(split([one])))

    def _ask(self, question: str, default: str, read: Callable[[str], Answer]) -> Answer:
        """What the user types, until it can be used; the default where nobody can be asked."""
        while self._terminal:
            try:
                return read(str(typer.prompt(question, default=default)).strip())
            except HoldfastError as error:
                tell(str(error), always=True)
        return read(default)

    def _target(self, words: tuple[str, ...]) -> tuple[str, Section]:
        from holdfast.cli.sections import grader, place_in, sections

        if not words or len(words) > 2:
            raise UsageError(
                "name one or two files, or a task", where="--data",
                remedy="--data train.jsonl --data test.jsonl, or --data gsm8k",
            )  # fmt: skip
        name, section = next(sections(words[0], self._study))
        if section.get("kind", name) in MEASURES:
            raise UsageError(
                f"{name} measures and is never trained on", where="--data", remedy="see --keep"
            )
        if section.get("kind") == "jsonl":
            if len(words) < 2:
                raise UsageError(
                    "a file to learn from needs another that measures it, with other questions",
                    where=f"--data {words[0]}", remedy=f"--data {words[0]} --data TEST.jsonl",
                )  # fmt: skip
            place = place_in(self._study, words[1])
            section = {"kind": "jsonl", "train_path": section["path"], "path": place}
            section["grader"] = grader(section, self._study)
        elif len(words) > 1:
            raise UsageError(
                f"{words[0]} is a task that has its own test", where="--data",
                remedy="leave the second out",
            )  # fmt: skip
        return name, section

    def _kept(self, words: tuple[str, ...]) -> dict[str, Section]:
        from holdfast.cli.sections import sections

        found: dict[str, Section] = {}
        for word in words:
            for name, section in sections(word, self._study):
                if name in found:
                    raise UsageError(
                        f"{name} is named twice", where="--keep", remedy="name it once"
                    )
                found[name] = section
        return found


def gpus_of(words: tuple[str, ...]) -> str:
    """GPUs as they were typed, once they are understood."""
    from holdfast.memory.hardware import devices

    text = ",".join(words)
    if text and text != "cpu":
        devices.parse(text)
    return text
