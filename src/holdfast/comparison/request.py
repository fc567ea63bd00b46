"""What is asked of a comparison of models that were trained elsewhere.

Models and tasks in, a `Study` out: the same sections, checked by the same code, so that a figure of
a comparison means what the figure of a study means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from holdfast import tasks
from holdfast.config import ShipSpec, Study, TaskSpec, load
from holdfast.config.mistakes import known_keys
from holdfast.config.section import made_usable
from holdfast.errors import StudyError, UsageError
from holdfast.registry import names_file, nearest

SOURCE = "compare"
SECTIONS = ("tasks", "answer", "ship", "hardware")
CHAT = ("chat_template", "template_kwargs", "thinking", "date")
"""Settings of `model` that hold for every model of a comparison."""
PERPLEXITY = "perplexity"


@dataclass(frozen=True)
class Request:
    """Everything that can be asked; what it is called on the command line stands in brackets.

    Attributes:
        models: the base first, then the tuned ones; with `replies`, files of answers.
        tasks: what is measured, by name, ``harness:NAME`` or ``file.py:Class`` [--tasks].
        settings: ``tasks.gsm8k.path=...`` and the like [--set].
        study: a study file whose tasks, answer, ship and hardware are taken over [--study].
        target: the task that the tuned models were trained for, if there is one [--target].
        retain: least change allowed, by task, as a share [--retain].
        limit: measure only so many items of each task [--limit].
        name: of the run folder [--name].
        replies: the models are files of answers that were made elsewhere [--replies].
        mixed_engines: base and tuned models may answer through different engines.
        any_base: apply an adapter although it names another base.
        allow_missing: share of a task's items that may lack a reply, and of replies that may
            match no item.
        trust_remote_code: run the Python code that models bring with them.
        data: folder in which the default suite looks for benchmarks' files [--data].
    """

    models: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    study: str | None = None
    target: str | None = None
    retain: Mapping[str, float] = field(default_factory=dict)
    limit: int | None = None
    name: str | None = None
    replies: bool = False
    mixed_engines: bool = False
    any_base: bool = False
    allow_missing: float = 0.05
    trust_remote_code: bool = False
    data: str | None = None

    @property
    def by_default(self) -> bool:
        """Whether nobody says what is asked, so that the default suite is."""
        return not (self.tasks or self.study or self.replies)


def study_of(request: Request, base: str, name: str) -> tuple[Study, tuple[str, ...]]:
    """The study that a request amounts to, and its target, if it has one.

    A `Study` always has a target; where a comparison has none, its first task stands in for it and
    every task is reported as retained.

    Args:
        request: what was asked.
        base: the model that comes first, in words.
        name: of the run folder.

    Raises:
        StudyError: an unknown task, key or section, or no task at all.
    """
    sections, targets = _sections(request)
    tasks: dict[str, TaskSpec] = sections["tasks"]
    if request.target is not None:
        targets = (_known(request.target, tasks, "--target"),)
    aims = targets or (next(iter(tasks)),)
    role = {one: "target" if one in aims else "retained" for one in tasks}
    changes = {} if request.limit is None else {"limit": request.limit}
    sections["tasks"] = {
        one: spec.model_copy(update={"role": role[one], **changes}) for one, spec in tasks.items()
    }
    sections["model"] = {"id": base, **sections["model"]}
    if request.retain:
        sections["ship"] = load.parse(
            ShipSpec, {"retain": dict(request.retain)}, "--retain", at=("ship",)
        )
    return load.parse(Study, {"name": name, **sections}, SOURCE), targets


def without_perplexity(study: Study, asked: bool) -> Study:
    """The study without the test by the untouched model's perplexity, which some tasks have.

    Args:
        study: of a comparison whose base cannot score text.
        asked: complain where the study asks for it by name.

    Raises:
        UsageError: it was asked for.
    """
    found = {}
    for name, spec in study.tasks.items():
        task = tasks.kind(name, spec, f"{SOURCE}: tasks.{name}").make
        found[name] = spec
        if PERPLEXITY in known_keys(task.Options):
            if asked and (spec.model_extra or {}).get(PERPLEXITY):
                raise UsageError(
                    f"tasks.{name}.{PERPLEXITY} needs a base that runs here and can score text",
                    where=SOURCE,
                    remedy="leave it out",
                )
            found[name] = spec.model_copy(update={PERPLEXITY: False})
    return study.model_copy(update={"tasks": found})


def _sections(request: Request) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The sections that a comparison takes over, and the targets that they name."""
    if request.study is not None:
        given = load.load(Path(request.study), request.settings)
        names = [_known(one, given.tasks, "--tasks") for one in request.tasks] or list(given.tasks)
        found = {one: getattr(given, one) for one in SECTIONS} | _chat(given)
        found["tasks"] = {one: given.tasks[one] for one in names}
        return found, tuple(one for one in given.targets if one in names)
    if not request.tasks:
        raise StudyError(
            "which tasks do these replies answer?",
            where="--tasks",
            remedy="name them (`holdfast tasks` lists them), or give a study with --study",
        )
    for one in request.settings:
        section = one.split(".")[0].split("=")[0].strip()
        if section == "model" and one.split("=")[0].strip() in {f"model.{key}" for key in CHAT}:
            continue
        if section == "model" and one.split("=")[0].strip().startswith("model.template_kwargs."):
            continue
        if section not in SECTIONS:
            known = (*SECTIONS, *(f"model.{key}" for key in CHAT))
            raise StudyError(
                f"a comparison has no section {section!r}{nearest(section, SECTIONS)}",
                where=f"--set {one}",
                remedy=f"it trains nothing and takes {', '.join(known)}",
            )
    data: dict[str, Any] = {"name": SOURCE, "model": {"id": SOURCE}}
    data["tasks"] = dict(_asked(one) for one in request.tasks)
    named = [one for one in request.settings if one.replace(" ", "").endswith(".role=target")]
    if not named:  # a stand-in, so that the rest is checked by the code that checks a study
        next(iter(data["tasks"].values()))["role"] = "target"
    given = load.build(data, request.settings, SOURCE)
    sections = {one: getattr(given, one) for one in SECTIONS} | _chat(given)
    return sections, given.targets if named else ()


def _chat(given: Study) -> dict[str, Any]:
    """How chat templates are used, as a section."""
    return {"model": given.model.model_dump(include=set(CHAT))}


def _asked(said: str) -> tuple[str, dict[str, Any]]:
    """A task of ``--tasks`` as a section.

    ``harness:arc_easy`` makes one called arc_easy, and ``brief.py:Brief`` one called Brief.
    """
    if names_file(said):
        return said.rpartition(":")[2], {"kind": said}
    kind, colon, name = said.partition(":")
    if not colon or kind != "harness":
        return said, {}
    return made_usable(name), {"kind": kind, "task": name}


def _known(name: str, tasks: Mapping[str, Any], where: str) -> str:
    if name not in tasks:
        raise StudyError(
            f"no task is called {name!r}{nearest(name, tasks)}",
            where=where,
            remedy=f"there are: {', '.join(tasks)}",
        )
    return name
