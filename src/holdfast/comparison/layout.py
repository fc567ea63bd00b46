"""The stages of a comparison: those of a study without its training.

Replies are asked for, or taken from files; everything after them is the same code.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from holdfast import environment, models
from holdfast.analysis import collect
from holdfast.analysis.conditions import notices
from holdfast.analysis.results import Results, TaskInfo, from_json, to_json
from holdfast.analysis.summarize import RunData, assemble
from holdfast.comparison.answer_files import Given
from holdfast.comparison.request import SOURCE
from holdfast.comparison.suite import Suite
from holdfast.comparison.verdict import MIXED, about_looks, decide, verdict
from holdfast.data import chat, thinking
from holdfast.engines.chunks import REPLIES
from holdfast.errors import ModelError
from holdfast.grading import safety_outcomes
from holdfast.grading.answer import summary_of, write_questions
from holdfast.grading.grade import READINGS, read_readings
from holdfast.models import ModelRef, external
from holdfast.models.external import ExternalModel
from holdfast.models.peft_adapter import brings_modules
from holdfast.progress import Progress
from holdfast.report.write import write_report
from holdfast.runs import records, store
from holdfast.runs.plan import Plan, again_place, place
from holdfast.runs.stages import Stage
from holdfast.study.measuring import (
    again,
    grading,
    judged_first,
    judges_ready,
    needs_no_model,
    replies,
    scoring,
)
from holdfast.study.session import Session
from holdfast.tasks import any_chats
from holdfast.types import BASE, Message, Point, Reading

LOOKS = "looks"
PROBE = (Message("user", "What is 2 + 3?"),)
ELSEWHERE = "answers made elsewhere"


@dataclass(frozen=True)
class Comparison:
    """A checked comparison, before any model.

    Attributes:
        session: of its study; every tuned model is an arm without training.
        base: the first model.
        tuned: the others, by arm.
        marks: what makes each model that model, by name.
        engines: what answers for each, by name.
        targets: the tasks that the tuned models were trained for; empty: no one says.
        notes: what a reader must know.
        given: what the files of answers hold, by name; empty where models are asked.
        suite: the default one, where nobody said what is asked.
    """

    session: Session
    base: ExternalModel
    tuned: Mapping[str, ExternalModel]
    marks: Mapping[str, Mapping[str, object]]
    engines: Mapping[str, str]
    targets: tuple[str, ...]
    notes: tuple[str, ...]
    given: Mapping[str, Given]
    suite: Suite | None = None

    @property
    def plan(self) -> Plan:
        """What is done, as data."""
        return self.session.plan

    @property
    def mixed(self) -> bool:
        """Whether base and tuned models answer through different engines."""
        return len(set(self.engines.values())) > 1

    @property
    def local(self) -> dict[str, ExternalModel]:
        """The models that are loaded here, by name."""
        every = {BASE: self.base, **self.tuned}
        return {name: one for name, one in every.items() if one.form not in external.ELSEWHERE}


def lay_out(one: Comparison) -> list[Stage]:
    """All stages, needs first; stages of one model lie together so that it is loaded once.

    What no model has to be loaded for is graded at once, as in a study.
    """
    session, plan = one.session, one.plan

    def asked(stage: Stage, task: str) -> list[Stage]:
        at = stage.name.removeprefix("replies/")
        return [stage, *(_grading(one, at, task) if needs_no_model(session, task) else [])]

    base = [stage for task in plan.tasks for stage in asked(_replies(one, Point(BASE), task), task)]
    repeated = [
        stage
        for time in plan.repeats
        for task in plan.tasks
        for stage in asked(again(session, task, time), task)
    ]
    looks = [_looks(one)] if one.local else []
    tuned = [
        stage
        for point in plan.points()
        if point.arm != BASE
        for task in plan.tasks
        for stage in asked(_replies(one, point, task), task)
    ]
    where = [(place(point, name), name) for point in plan.points() for name in plan.tasks]
    where += [(again_place(time, name), name) for time in plan.repeats for name in plan.tasks]
    scored = [scoring(session, at, name) for at, name in where if plan.tasks[name].perplexity]
    graded = judged_first(
        [
            stage for at, name in where if not needs_no_model(session, name)
            for stage in _grading(one, at, name)
        ]
    )  # fmt: skip
    stats = _stats(one, [*(f"readings/{at}" for at, _ in where), *(one.name for one in looks)])
    report = Stage("report", {}, lambda f, p: _report(plan, f), ("stats",))
    return [
        *judges_ready(session),
        *looks,
        *base,
        *repeated,
        *tuned,
        *scored,
        *graded,
        stats,
        report,
    ]


def _replies(one: Comparison, point: Point, task: str) -> Stage:
    """What one model says to one task."""
    session, model = one.session, one.tuned.get(point.arm, one.base)
    if one.given:
        given, examples = one.given[point.arm], session.measuring.asked[task]

        def take(folder: Path, progress: Progress) -> Mapping[str, object]:
            write_questions(examples, folder)
            return _take(given, task, folder, progress)

        identity = {"given": given.mark, "items": len(examples)}
        return Stage(f"replies/{place(point, task)}", identity, take)
    asked = replies(session, point, task)
    identity = {
        **asked.identity,
        "model": one.marks[point.arm],
        "engine": one.engines[point.arm],
    }

    def make(folder: Path, progress: Progress) -> Mapping[str, object] | None:
        try:
            return asked.run(folder, progress)
        finally:
            if model.ref.adapter and brings_modules(Path(model.ref.adapter)):
                session.pool.close()

    return replace(asked, identity=identity, run=make)


def _take(given: Given, task: str, folder: Path, progress: Progress) -> Mapping[str, object]:
    """Put the replies of a file where those of a model would lie."""
    said = given.replies[task]
    progress.total(len(said), "answers")
    store.write_jsonl(folder / REPLIES, said)
    progress.advance(len(said))
    return {**summary_of(said), "missing": len(given.missing[task]), "device": ELSEWHERE}


def _grading(one: Comparison, at: str, task: str) -> list[Stage]:
    """Verdicts and readings; an item that a file does not answer gets a reading without a value."""
    stages = grading(one.session, at, task)
    given = one.given[at.split("/")[0]].replies.get(task, ()) if one.given else ()
    if any(thinking.split(reply.text).blocks for reply in given):
        mark = {"thinking": thinking.VERSION}
        stages = [replace(stage, identity={**stage.identity, **mark}) for stage in stages]
    missing = one.given[at.split("/")[0]].missing[task] if one.given else []
    if not missing:
        return stages
    last = stages[-1]
    group = {item.id: str(item.meta.get("group", "")) for item in one.session.measuring.asked[task]}

    def make(folder: Path, progress: Progress) -> Mapping[str, object]:
        summary = dict(last.run(folder, progress) or {})
        unscored = [
            Reading(name, 0, None, safety_outcomes.MISSING, "", group[name]) for name in missing
        ]
        readings = [*read_readings(folder), *unscored]
        store.write_jsonl(folder / READINGS, readings)
        return summary | {"missing": len(missing)}

    return [*stages[:-1], replace(last, run=make)]


def _looks(one: Comparison) -> Stage:
    """How each model sees a conversation: its template, where one is used, and its vocabulary."""
    chats = any_chats(one.plan.study.tasks, SOURCE)

    def make(folder: Path, progress: Progress) -> Mapping[str, object]:
        found = {name: _look(model, chats) for name, model in one.local.items()}
        store.write_json(folder / "looks.json", found)
        return {"chat_template": about_looks(found)[0]}

    identity = {"models": {name: one.marks[name] for name in one.local}}
    return Stage(LOOKS, identity if chats else {**identity, "chats": False}, make)


def _look(model: ExternalModel, chats: bool) -> dict[str, str]:
    tokenizer = models.load_tokenizer(model.ref, chats)
    found = {
        "template": store.fingerprint(chat.prompt_text(tokenizer, PROBE)) if chats else "",
        "vocabulary": store.fingerprint(sorted(tokenizer.get_vocab().items())),
    }
    if (
        chats
        and model.ref.adapter
        and (Path(model.ref.adapter) / "tokenizer_config.json").is_file()
    ):
        try:
            own = models.load_tokenizer(ModelRef(model.ref.adapter, chat=model.ref.chat))
            found["own_template"] = store.fingerprint(chat.prompt_text(own, PROBE))
        except ModelError:
            pass  # none that could be used instead
    return found


def _stats(one: Comparison, needs: Sequence[str]) -> Stage:
    ship = one.plan.study.ship.model_dump(mode="json")

    def make(folder: Path, progress: Progress) -> Mapping[str, object]:
        results = summarise(one)
        store.write_json(folder / "results.json", to_json(results))
        return {"verdict": results.verdict}

    aim = one.targets[0] if len(one.targets) == 1 else one.targets or None
    identity = {
        "name": one.plan.study.name, "statistics": 5, "ship": ship, "target": aim,
        "notes": one.notes,
    }  # fmt: skip
    return Stage("stats", identity, make, tuple(needs))


def summarise(one: Comparison) -> Results:
    """Everything that the report shows, from finished readings."""
    plan, notes = one.plan, list(one.notes)
    conditions = _conditions(one)
    path = plan.folder / LOOKS / "looks.json"
    if one.local:
        alike, more = about_looks(store.read_json(path))
        conditions["Chat template"] = alike
        notes = more + notes
    results = assemble(
        RunData(
            plan.study.name,
            one.base.source,
            (),
            [_info(one, info) for info in collect.task_infos(plan)],
            collect.arm_infos(plan),
            collect.measured_readings(plan),
            conditions,
            collect.repeated_readings(plan),
            agreements=collect.agreements(plan),
        )
    )
    results = replace(results, verdict=verdict(results))
    decision = decide(results, plan.study.ship.retain)
    notes = [*notices(plan), *notes]
    return replace(results, decision=decision, warnings=(*results.warnings, *notes))


def _info(one: Comparison, info: TaskInfo) -> TaskInfo:
    """A task as a comparison shows it: its role, and a note beside every figure that needs one."""
    role = "target" if info.name in one.targets else "retained"
    label, how = info.label, info.how
    if one.mixed:
        label += f"; {MIXED}"
    if one.given:
        spec = one.plan.study.tasks[info.name]
        judged = how.partition(";")[2]
        how = f"split {spec.split}, {ELSEWHERE}: how they were sampled is not known"
        how += f";{judged}" if judged else ""
    return replace(info, role=role, label=label, how=how)


def _conditions(one: Comparison) -> dict[str, str]:
    """The lines under "how it was measured"."""
    plan = one.plan
    points = [(point, task) for point in plan.points() for task in plan.tasks]
    asked = [records.finished(plan.folder / "replies" / place(*at)) for at in points]
    versions = environment.versions()
    names = {"hf": "transformers", "remote": "endpoint", "vllm": "vLLM"}
    engine = "; ".join(
        f"{names.get(kind, kind)} ({', '.join(n for n, own in one.engines.items() if own == kind)})"
        for kind in dict.fromkeys(one.engines.values())
    )
    if one.given:
        engine = ELSEWHERE + ": " + ", ".join(f"{n} {g.file}" for n, g in one.given.items())
    elif not one.mixed:
        engine = f"{names.get(kind := next(iter(one.engines.values())), kind)} (all models alike)"
    shown = ["holdfast"] if one.given else ["holdfast", "torch", "transformers", "peft"]
    found = {
        "Date": min(record["started"] for record in asked)[:10],
        "Engine": engine,
        "Device": "; ".join(sorted({r["summary"]["device"] or "not recorded" for r in asked})),
        "Versions": ", ".join(f"{name} {versions[name]}" for name in shown),
    }
    if one.given:
        found["Graded"] = time.strftime("%Y-%m-%d", time.gmtime())
        del found["Date"]
    return found


def _report(plan: Plan, folder: Path) -> Mapping[str, object]:
    results = from_json(store.read_json(plan.folder / "stats" / "results.json"))
    return {"page": write_report(results, folder).name}
