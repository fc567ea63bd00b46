"""Loads tasks of lm-evaluation-harness, and grades answers as they do.

Tasks that cannot be measured here are refused. Filters and metrics are the harness's own, applied
to one document at a time, so that every item has a reading and two models can be compared item by
item. A metric counts when the harness takes its mean over documents; one that is only defined over
all of them (F1, BLEU, perplexity) has no reading per item.

The only file that runs ``lm_eval`` (Gao et al., doi:10.5281/zenodo.10256836).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from holdfast.environment import install_command
from holdfast.errors import RELATIVE, DataError, MissingDependency, StudyError, first_line
from holdfast.registry import nearest
from holdfast.runs import store

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager

RUNS_CODE = "grading it runs code that the model wrote"


def version() -> str:
    """Of the harness.

    Raises:
        MissingDependency: it is not installed.
    """
    from importlib.metadata import version as installed

    _imported()
    return installed("lm_eval")


def load(
    task: str, include_path: str | None, overrides: Mapping[str, object]
) -> dict[str, ConfigurableTask]:
    """The harness's tasks behind a name, by name: one, or all of a group or tag.

    Args:
        task: a name, or the path of a YAML file.
        include_path: a folder of further YAML files.
        overrides: keys of the task's definition that differ.

    Raises:
        MissingDependency: the harness is not installed.
        StudyError: no such task, or it cannot be asked here.
        DataError: its data cannot be had.
    """
    _imported()
    manager, found = _manager(task, include_path)
    if (manager.task_index[found].cfg or {}).get("unsafe_code"):
        raise _refused(found, RUNS_CODE)  # before its metric is fetched, which is code itself
    wanted: object = found
    if overrides:
        if found not in manager.all_subtasks:
            raise StudyError(
                f"{task!r} is no single task, so its definition cannot be overridden",
                remedy="name one of its tasks, or leave `overrides` out",
            )
        wanted = {"group": "overridden", "task": [{"task": found, **overrides}]}
    try:
        loaded: dict[str, ConfigurableTask] = manager.load(wanted)["tasks"]
    except Exception as error:  # data sets and task code raise anything
        raise DataError(
            f"lm_eval cannot load it: {type(error).__name__}: {first_line(error)}",
            where=task,
            remedy="if its data cannot be fetched, give a local copy: `overrides: {dataset_path: "
            "json, dataset_kwargs: {data_files: {test: test.jsonl}}}`, or a YAML of your own with "
            "`include_path`",
        ) from error
    for name, one in loaded.items():
        _check(name, one)
    return loaded


@cache
def _built_in() -> TaskManager:
    """The index of the harness's own tasks; reading its 14,000 files takes seconds."""
    from lm_eval.tasks import TaskManager

    return TaskManager()


def _manager(task: str, include_path: str | None) -> tuple[TaskManager, str]:
    """The index that knows a task, and its name there."""
    from lm_eval.tasks import TaskManager

    if task.endswith((".yaml", ".yml")):
        file = Path(task).expanduser()
        if not file.is_file():
            raise StudyError("no such file", where=task, remedy=f"check the path; {RELATIVE}")
        own = TaskManager(include_path=str(file.parent), include_defaults=False)
        paths = {name: entry.yaml_path for name, entry in own.task_index.items()}
        name = next((one for one, path in paths.items() if path == file), None)
        if name is None:
            raise StudyError("holds no task", where=task, remedy="it needs `task: my_name`")
        return own, name
    known: list[str] = []
    if include_path is not None:
        folder = Path(include_path).expanduser()
        if not folder.is_dir():
            remedy = f"correct it; {RELATIVE}"
            raise StudyError("include_path is no folder", where=include_path, remedy=remedy)
        own = TaskManager(include_path=str(folder), include_defaults=False)
        if task in own.all_tasks and _whole(own, task):
            return own, task
        known = list(own.all_tasks)
    manager = TaskManager(include_path=include_path) if task in known else _built_in()
    if task in manager.all_tasks:
        return manager, task
    raise StudyError(
        f"lm_eval has no task {task!r}{nearest(task, [*known, *manager.all_tasks])}",
        remedy="`lm_eval ls tasks` lists them; a YAML of your own needs `include_path`",
    )


def _whole(manager: TaskManager, name: str) -> bool:
    """Whether an index knows all that a task or group is made of; the built-in one takes longer."""
    parts = (manager.task_index[name].cfg or {}).get("task")
    return not isinstance(parts, list) or all(
        isinstance(one, str) and one in manager.task_index for one in parts
    )


def _imported() -> None:
    try:
        import lm_eval.tasks  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f"tasks of lm-evaluation-harness need `lm_eval` ({first_line(error)})",
            remedy=install_command("lm-eval"),
        ) from error


def _check(name: str, task: ConfigurableTask) -> None:
    """Refuse what cannot be asked, or must not be graded, here."""
    if getattr(task, "UNSAFE_CODE", False):
        raise _refused(name, RUNS_CODE)
    if getattr(task, "MULTIMODAL", False):
        raise _refused(name, "it shows pictures or sound")
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        raise _refused(name, "it measures perplexity of whole texts, which is no share of items")


def _refused(name: str, why: str) -> StudyError:
    return StudyError(
        f"lm_eval's task {name!r} cannot be measured here: {why}", remedy="choose another task"
    )


MEANS = {"mean", "nanmean"}
VOTES = {"majority_vote", "take_first_k"}
"""Filters that need several answers to one item."""
PLACES = {"dataset_path", "dataset_name", "dataset_kwargs", "metadata", "tag", "task_alias"}
"""Parts of a definition that do not bear on a grade; where data lies is not what it says."""
FAR = 50.0
"""How much less likely, in nats, the wrong choices of a made-up answer are."""


def metric(name: str, task: ConfigurableTask, wanted: str | None) -> str:
    """The metric that counts: the one that is asked for, or the task's first that can be used.

    Raises:
        StudyError: there is none, or it has no value per item.
    """
    means = {key: getattr(fn, "__name__", "") in MEANS for key, fn in task.aggregation().items()}
    usable = [key for key, mean in means.items() if mean and key != "bypass"]
    if wanted in usable or (wanted is None and usable):
        return wanted or usable[0]
    if wanted is None:
        raise StudyError(
            f"lm_eval's task {name!r} has no metric per item, only {', '.join(means) or 'none'}",
            remedy="choose another task",
        )
    what = "has no value per item" if wanted in means else f"is unknown{nearest(wanted, usable)}"
    raise StudyError(
        f"metric {wanted!r} of lm_eval's task {name!r} {what}",
        remedy=f"use one of: {', '.join(usable)}" if usable else "choose another task",
    )


def pipelines(name: str, task: ConfigurableTask, wanted: str | None) -> tuple[str, list[str]]:
    """The filter that counts, and all that can be applied to a single answer.

    Raises:
        StudyError: there is none, or it needs several answers.
    """
    listed = task.config.filter_list or []
    votes = {one["name"] for one in listed if VOTES & {step["function"] for step in one["filter"]}}
    known = [ensemble.name for ensemble in task._filters]
    usable = [one for one in known if one not in votes]
    if wanted in usable or (wanted is None and usable):
        return wanted or usable[0], usable
    what = "takes a vote among several answers" if wanted in votes or not wanted else "is unknown"
    raise StudyError(
        f"filter {wanted or votes.pop()!r} of lm_eval's task {name!r} {what}",
        remedy=f"use one of: {', '.join(usable)}" if usable else "choose another task",
    )


def higher_is_better(task: ConfigurableTask, name: str) -> bool:
    """Whether more of the metric is good."""
    return bool(task.higher_is_better().get(name, True))


def measured(
    task: ConfigurableTask, doc: object, responses: Sequence[object], used: Sequence[str]
) -> dict[str, Mapping[str, Any]]:
    """All metrics of one document under each filter.

    Args:
        task: the harness's.
        doc: the document.
        responses: the answer, or a (log-probability, likeliest) pair for each choice.
        used: names of filters.
    """
    instances = [SimpleNamespace(resps=[one], doc=doc, filtered_resps={}) for one in responses]
    found = {}
    for ensemble in task._filters:
        if ensemble.name in used:
            ensemble.apply(instances)
            results = [one.filtered_resps[ensemble.name] for one in instances]
            found[ensemble.name] = task.process_results(doc, results)
    return found


def gold(task: ConfigurableTask, doc: object) -> str | None:
    """The right answer as text; None where there is none, or no single prompt before it."""
    if getattr(task, "multiple_input", 0):
        return None
    target, known = task.doc_to_target(doc), choices(task, doc)
    if isinstance(target, list):
        target = target[0] if target else None
    if isinstance(target, int) and not isinstance(target, bool) and known:
        target = known[target] if 0 <= target < len(known) else None
    text = "" if target is None else str(target).strip()
    return text or None


def made_up(task: ConfigurableTask, doc: object, count: int) -> list[list[tuple[float, bool]]]:
    """What a model that is sure of the right choice gives, and one that is sure of a wrong one.

    Empty where the document does not say which one is right.
    """
    place = task.doc_to_text(doc) if getattr(task, "multiple_input", 0) else task.doc_to_target(doc)
    known = choices(task, doc)
    if count == 1:
        return [[(-1.0, True)], [(-FAR, False)]]
    if isinstance(place, list):
        place = place[0] if len(place) == 1 else -1
    if isinstance(place, str):
        place = known.index(place) if place in known else -1
    if not isinstance(place, int) or not 0 <= place < len(known):
        return []
    wrong = (place + 1) % len(known)
    return [[(-1.0, True) if i == sure else (-FAR, False) for i in range(count)]
            for sure in (place, wrong)]  # fmt: skip


def definition(task: ConfigurableTask) -> str:
    """A hash of everything in a task's definition that bears on prompts and grades."""
    kept = {key: value for key, value in task.dump_config().items() if key not in PLACES}
    return store.fingerprint(json.dumps(_words(kept), sort_keys=True))


def choices(task: ConfigurableTask, doc: object) -> list[str]:
    """The choices of a document; none where it has none."""
    return list(task.doc_to_choice(doc)) if task.config.doc_to_choice is not None else []


def _words(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _words(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_words(one) for one in value]
    if isinstance(value, str | int | float | None):
        return value
    return _source(value) if callable(value) else type(value).__name__


def _source(function: Callable[..., object]) -> str:
    try:
        return inspect.getsource(function)
    except (TypeError, OSError):
        return getattr(function, "__qualname__", type(function).__name__)
