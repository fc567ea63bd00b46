"""Opens a run folder again: its items, to be answered elsewhere, and its models, to talk with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from holdfast import comparison
from holdfast.comparison.request import Request
from holdfast.config import consent
from holdfast.data import thinking
from holdfast.engines.kept import is_scored
from holdfast.engines.pool import EnginePool
from holdfast.errors import DataError, FolderError, UsageError
from holdfast.models import external
from holdfast.progress import Silent
from holdfast.registry import nearest
from holdfast.runs import run_folder, store
from holdfast.runs.plan import Plan, read_plan
from holdfast.study import prepare
from holdfast.study.session import Session
from holdfast.train import stage
from holdfast.types import BASE, Example, Message, ModelRef, Point


def session_of(folder: Path) -> Session:
    """What carries a run out, of a study or a comparison; loads no model.

    Args:
        folder: of the run.

    Raises:
        FolderError: no run folder, or one whose request cannot be read.
        UsageError: its data is not there any more; or it names code that was never run here.
    """
    run_folder.check_run(folder, must_exist=True)
    plan, study = read_plan(folder), folder / "study.yaml"
    consent.check(plan.study, study)
    if (request := request_of(folder)) is None:
        return prepare(plan.study, folder, str(study))
    return comparison.plan(request, folder.parent).session


def request_of(folder: Path) -> Request | None:
    """What a comparison was asked; None where the run is a study's.

    Raises:
        FolderError: it cannot be read.
    """
    asked = folder / comparison.REQUEST
    if not asked.is_file():
        return None
    value = store.read_json(asked)
    try:
        lists = {key: tuple(value[key]) for key in ("models", "tasks", "settings")}
        return Request(**{**value, **lists, "name": folder.name})
    except (KeyError, TypeError) as error:
        raise FolderError(
            f"does not say what was asked: {error}", where=str(asked), remedy="compare again"
        ) from error


def items_of(session: Session, task: str, arm: str = BASE) -> list[dict[str, object]]:
    """The items of a task as rows that `compare --replies` reads once each has a ``reply``.

    Args:
        session: of the run.
        task: whose items.
        arm: as it is asked them.

    Raises:
        UsageError: no such task.
        DataError: its items cannot be answered by text: choices are scored by likelihood.
    """
    known = list(session.plan.tasks)
    if task not in known:
        raise UsageError(
            f"no task is called {task!r}{nearest(task, known)}",
            where="--items",
            remedy=f"this run has: {', '.join(known)}",
        )
    examples = session.ask(arm, task)
    if any(is_scored(one) for one in examples):
        raise DataError(
            "is measured by how likely given texts are, which no answer can tell",
            where=f"task {task}",
            remedy="export a task whose answers are text",
        )
    samples = session.measuring.samplings[task].samples
    return [_row(one, task, sample) for one in examples for sample in range(samples)]


def _row(example: Example, task: str, sample: int) -> dict[str, object]:
    """One question: its whole prompt as turns of a chat, in the form of OpenAI's messages."""
    turns = [{"role": turn.role, "content": turn.content} for turn in example.messages]
    found: dict[str, object] = {
        "task": task, "id": example.id, "sample": sample, "messages": turns, "reply": None,
    }  # fmt: skip
    if until := example.meta.get("until"):
        found["stop"] = until
    if example.meta.get("continue") == "text":
        found["input"] = example.messages[0].content
        del found["messages"]
    return found


def write_items(rows: list[dict[str, object]], file: Path) -> None:
    """Write rows as JSON lines into a new file.

    Raises:
        UsageError: there is one already.
    """
    if file.exists():
        raise UsageError("exists already", where=str(file), remedy="name another file with --to")
    store.write_jsonl(file, rows)


@dataclass
class Side:
    """One model and what was said with it.

    Attributes:
        name: of its arm.
        ref: its weights.
        turns: of the conversation so far.
    """

    name: str
    ref: ModelRef
    turns: list[Message] = field(default_factory=list)


class Talk:
    """The models of a run, each with a conversation of its own.

    Attributes:
        sides: the untouched model first.
        notices: what differs from how they were measured.
    """

    def __init__(self, folder: Path, arms: Sequence[str], tokens: int | None = None) -> None:
        """Open a run folder; nothing is loaded yet.

        Args:
            folder: of a study or comparison.
            arms: whose last models are asked beside the untouched one.
            tokens: longest answer; None: as it was measured.

        Raises:
            FolderError: no run folder.
            UsageError: no such arm, weights that are not there, or answers from elsewhere.
        """
        plan = read_plan(folder)
        consent.check(plan.study, folder / "study.yaml")
        if (request := request_of(folder)) is not None and request.replies:
            raise UsageError(
                "holds answers from elsewhere, and no model",
                where=str(folder),
                remedy="compare the models themselves",
            )
        self.sides = [Side(BASE, plan.model)]
        self.sides += [Side(one, _weights(plan, one)) for one in arms if one != BASE]
        self.notices = [
            f"{one} was measured {words}; here it is asked without"
            for one in arms
            if one in plan.arms
            for words, _ in plan.arms[one].asked
        ]
        refs = [side.ref for side in self.sides]
        here = any(external.engine_of(ref, plan.study.answer.engine) != "remote" for ref in refs)
        self._pool = EnginePool(plan.study, stage.gpus_of(plan.study) if here else (), refs)
        own = plan.study.answer.sampling
        few = {"max_new_tokens": tokens or own.max_new_tokens, "samples": 1}
        self._sampling = own.model_copy(update=few)

    def say(self, text: str) -> list[tuple[str, str]]:
        """Put one question to every model; returns the names with what they answer."""
        return [(side.name, self._answer(side, text)) for side in self.sides]

    def _answer(self, side: Side, text: str) -> str:
        side.turns.append(Message("user", text))
        engine = self._pool.engine(replace(side.ref, adapter=None, scale=1.0))
        asked = Example("chat", tuple(side.turns))
        ((reply, *_),) = engine.generate(
            [asked], self._sampling, side.ref.adapter, Silent(), side.ref.scale
        )
        said = thinking.answered(reply).text.strip()
        side.turns.append(Message("assistant", said))
        return said

    def forget(self) -> None:
        """Begin the conversations anew."""
        for side in self.sides:
            side.turns.clear()

    def close(self) -> None:
        """Free the device."""
        self._pool.close()


def _weights(plan: Plan, arm: str) -> ModelRef:
    """An arm's last model, of its first seed."""
    known = [BASE, *plan.arms]
    if arm not in known:
        raise UsageError(
            f"no arm is called {arm!r}{nearest(arm, known)}",
            where="--arm",
            remedy=f"this run has: {', '.join(known)}",
        )
    step, scale = plan.places(arm)[-1]
    ref = plan.weights(Point(arm, plan.seeds(arm)[0], step, scale))
    place = ref.adapter or ref.base
    if not plan.untouched(arm) and not Path(place).is_dir():
        raise UsageError(
            "its weights are not there", where=place, remedy="run the study to its end, or name "
            "another arm",
        )  # fmt: skip
    return ref
