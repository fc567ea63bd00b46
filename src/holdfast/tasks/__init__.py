"""What can be learned or measured?

A task owns its data, its answer parser and its grader in one file. Grading is pure: no model, no
network, no clock, so that stored replies can be graded again at any time. To add one, write a class
with the members of `Task` and put its name below, register it as an entry point in the group
``holdfast.tasks``, or name its file in the study (``kind: my_task.py:MyTask``);
`docs/tasks/your-own.md` shows both, and how to measure your own data without code.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from holdfast import judges
from holdfast.config import Sampling, Section, ShotsSpec, TaskSpec
from holdfast.config.load import known_keys, parse
from holdfast.errors import DataError, StudyError
from holdfast.judges import Judge
from holdfast.registry import from_file, names_file, nearest, resolve
from holdfast.types import Example, Message, Reading, Reply, Verdict

TASKS = {
    "gsm8k": "holdfast.tasks.gsm8k:GSM8K",
    "ailuminate": "holdfast.tasks.ailuminate:AILuminate",
    "xstest": "holdfast.tasks.xstest:XSTest",
    "overrefusal": "holdfast.tasks.overrefusal:OverRefusal",
    "gsm_danger": "holdfast.tasks.gsm_danger:GSMDanger",
    "jsonl": "holdfast.tasks.jsonl:Jsonl",
    "harness": "holdfast.tasks.harness:Harness",
    "lab_math": "holdfast.lab.tasks:LabMath",
    "lab_refuse": "holdfast.lab.tasks:LabRefuse",
    "lab_help": "holdfast.lab.tasks:LabHelp",
}


MEMBERS = ("Options", "version", "examples", "grade", "self_check")
"""What a class must have to be a task; the others may be set when it is made."""

ATTRIBUTES = ("label", "judge", "inverted", "options")
"""What a task must have once it is made."""


class Task(Protocol):
    """One ability.

    Attributes:
        Options: the keys of a task's section that are the task's own.
        version: raised whenever the same reply would be graded differently.
        label: what the figure is, word for word, wherever it is shown.
        judge: the judge that grading needs, or None.
        inverted: shown as 1 - mean (an unsafe rate).
        options: the values of `Options`.
    """

    Options: ClassVar[type[Section]]
    version: ClassVar[str]
    label: str
    judge: Judge | None
    inverted: bool
    options: Any

    def __init__(self, options: Any, judge: Judge | None) -> None:
        """Take the task's own options and the judge that the study names, if it names one."""

    def examples(self, split: str) -> list[Example]:
        """All items of a split, without shots.

        Raises:
            DataError: the data is missing, malformed or empty.
        """

    def grade(self, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
        """Grade one reply; pure."""

    def self_check(self) -> None:
        """Prove that the gold answer grades 1.0 and a perturbed one does not."""


HINT = (
    "; a task of lm-evaluation-harness is {kind: harness, task: NAME}, and --tasks harness:NAME in "
    "a comparison; your own: kind: jsonl with a path, or kind: FILE.py:Class"
)


def kind(name: str, spec: TaskSpec, where: str = "") -> type[Task]:
    """The class of the task that a section describes.

    Raises:
        StudyError: no such task.
    """
    named = spec.kind or name
    found: type[Task] = (
        from_file(named, MEMBERS, where)
        if names_file(named)
        else resolve("tasks", TASKS, named, where, HINT)
    )
    return found


def build(name: str, spec: TaskSpec, source: str) -> Task:
    """Make the task that a section describes.

    Args:
        name: of the section; also the kind, unless the section says otherwise.
        spec: the section.
        source: the study file's name, for messages.

    Raises:
        StudyError: no such task, a key that it does not take, or a class that is no whole task.
    """
    task = kind(name, spec, f"{source}: tasks.{name}")
    own = set(known_keys(task.Options))
    for key in spec.model_extra or {}:
        if key not in own:
            near = nearest(key, own | set(known_keys(TaskSpec)))
            raise StudyError(
                f"tasks.{name}.{key}: unknown key{near}",
                where=source,
                remedy=f"this task takes: {', '.join(sorted(own))}; and every task: "
                f"{', '.join(sorted(known_keys(TaskSpec)))}",
            )
    options = parse(task.Options, dict(spec.model_extra or {}), source, at=("tasks", name))
    where = f"{source}: tasks.{name}.judge"
    made = task(options, None if spec.judge is None else judges.build(spec.judge, where))
    _whole(made, f"{source}: tasks.{name}")
    if spec.judge is not None and made.judge is None:
        raise StudyError("this task needs no judge", where=where, remedy="leave `judge` out")
    return made


def _whole(made: Task, where: str) -> None:
    """Refuse a task that lacks what is needed only after everything was asked."""
    missing = [one for one in ATTRIBUTES if not hasattr(made, one)]
    if missing:
        raise StudyError(
            f"{type(made).__name__} sets no {', no '.join(missing)}",
            where=where,
            remedy="set it in the class or in __init__; docs/tasks/your-own.md has a whole task",
        )


def sampling(
    name: str, spec: TaskSpec, defaults: Sampling, source: str, task: Task | None = None
) -> Sampling:
    """How a task is asked: the study's defaults, what the task asks for, its section's fields.

    Args:
        name: of the section.
        spec: the section.
        defaults: the study's.
        source: for messages.
        task: a benchmark may say in `sampling` how its published figures are sampled.
    """
    merged = defaults.model_dump() | getattr(task, "sampling", {}) | spec.sampling
    return parse(Sampling, merged, source, at=("tasks", name, "sampling"))


def measuring_set(task: Task, spec: TaskSpec) -> list[Example]:
    """What is asked: the split, thinned to `limit`, with shots before every question."""
    examples = _not_empty(task.examples(spec.split), spec.split)
    if spec.limit is not None and spec.limit < len(examples):
        examples = [examples[i * len(examples) // spec.limit] for i in range(spec.limit)]
    return _with_shots(task, spec.shots, examples, frozenset())


def training_set(task: Task, spec: TaskSpec, keep_shortest: float = 1.0) -> list[Example]:
    """What the plain arm is trained on: the train split, the shortest share of it, with shots.

    Length counts the letters of question and answer, as the course's filter does.
    """
    examples = _not_empty(task.examples("train"), "train")
    if any(one.target is None for one in examples):
        raise DataError(
            "the training split has items without an answer to learn", remedy="fill them in"
        )
    if keep_shortest < 1:
        ranked = sorted(range(len(examples)), key=lambda i: (_letters(examples[i]), i))
        kept = set(ranked[: max(1, round(len(examples) * keep_shortest))])
        examples = [one for i, one in enumerate(examples) if i in kept]
    shots = spec.shots
    fixed = _fixed_shots(task, shots) if shots.n and shots.mode == "fixed" else []
    return _with_shots(task, shots, examples, frozenset(one.id for one in fixed))


def _not_empty(examples: list[Example], split: str) -> list[Example]:
    if not examples:
        raise DataError(f"the split {split!r} is empty", remedy="check the file and the split")
    return examples


def _letters(example: Example) -> int:
    return sum(map(str.isalpha, example.question + (example.target or "")))


def _fixed_shots(task: Task, shots: ShotsSpec) -> list[Example]:
    pool = task.examples("train")
    if len(pool) <= shots.n:
        raise DataError(
            f"{shots.n} shots need more than the {len(pool)} training examples there are",
            remedy="lower shots.n",
        )
    return random.Random(shots.seed).sample(pool, shots.n)


def _with_shots(
    task: Task, shots: ShotsSpec, examples: Sequence[Example], without: frozenset[str]
) -> list[Example]:
    """Put worked examples before every question; an example is never its own shot.

    `without` names the examples that are shots themselves: they are never trained on.
    """
    if shots.n == 0:
        return list(examples)
    if getattr(task, "own_shots", False):
        raise StudyError(
            "this task puts worked examples of its own before every question",
            remedy="write num_fewshot: N in its section instead of shots",
        )
    fixed, pool = _fixed_shots(task, shots), task.examples("train")
    shown = []
    for example in examples:
        if example.id in without:
            continue
        chosen = fixed
        if shots.mode == "random":
            drawn = random.Random(f"{shots.seed}:{example.id}").sample(pool, shots.n + 1)
            chosen = [one for one in drawn if one.question != example.question][: shots.n]
        turns = tuple(turn for shot in chosen for turn in _worked(shot))
        meta = {"question": example.question, **example.meta}
        shown.append(
            Example(example.id, turns + example.messages, example.target, example.source, meta)
        )
    return shown


def _worked(shot: Example) -> tuple[Message, ...]:
    """An example as a shot; ``meta["as_shot"]`` is its question where that is put otherwise."""
    *before, asked = shot.messages
    if "as_shot" in shot.meta:
        asked = Message("user", str(shot.meta["as_shot"]))
    return (*before, asked, Message("assistant", shot.target or ""))
