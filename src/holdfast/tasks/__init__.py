"""What is learned and measured: data, prompt, answer parser and grader of one ability in one file.

A task derives from `Task` and is named in a study by its name in `TASKS`, by its entry point in the
group ``holdfast.tasks``, or by its file (``kind: my_task.py:MyTask``). Grading is pure: no model,
no network, no clock, so that stored replies can be graded again at any time. `docs/plugins.md` has
a worked example, and `docs/tasks/your-own.md` says how to measure your own data without code.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from holdfast import judges
from holdfast.config import Sampling, Section, ShotsSpec, TaskSpec
from holdfast.config.load import parse
from holdfast.config.mistakes import known_keys
from holdfast.errors import DataError, StudyError
from holdfast.judges import Judge
from holdfast.registry import PAGE, PlugIn, Registry, nearest
from holdfast.tasks._answers import tolerant as final_number
from holdfast.types import Example, FieldUse, Message, Reading, Reply, SourceUse, Verdict

__all__ = [
    "REGISTRY", "TASKS", "Task", "build", "final_number", "kind", "measuring_set", "sampling",
    "training_set",
]  # fmt: skip

TASKS = {
    "gsm8k": "holdfast.tasks.gsm8k:GSM8K",
    "ailuminate": "holdfast.tasks.ailuminate:AILuminate",
    "xstest": "holdfast.tasks.xstest:XSTest",
    "overrefusal": "holdfast.tasks.overrefusal:OverRefusal",
    "gsm_danger": "holdfast.tasks.gsm_danger:GSMDanger",
    "sample": "holdfast.tasks.sample:Sample",
    "jsonl": "holdfast.tasks.jsonl:Jsonl",
    "text": "holdfast.tasks.text:Text",
    "harness": "holdfast.tasks.harness:Harness",
    "lab_math": "holdfast.lab.tasks:LabMath",
    "lab_refuse": "holdfast.lab.tasks:LabRefuse",
    "lab_help": "holdfast.lab.tasks:LabHelp",
    "lab_start": "holdfast.lab.start:LabStart",
}


class Task(ABC):
    """One ability. `examples` and `grade` must be written; everything else has a default.

    Attributes:
        Options: the keys of a task's section that are the task's own.
        version: raised whenever the same reply would be graded differently.
        judged: grading needs a judge: the study's, or else the offline refusal detector.
        own_shots: the task puts worked examples of its own before its questions.
        endless: it makes up as many items as its options ask for.
        chats: it is asked, and learned, in turns of a conversation.
        plugin: the name that it is registered under.
        code: a hash of its file, where it is a class in a file of the user's; else "".
        label: what the figure is, word for word, wherever it is shown; left out: the name.
        inverted: shown as 1 - mean (an unsafe rate).
        unit: of a figure that is no share of items, e.g. ``bits/byte``. Less of it is better:
            `grade` turns its sign, so that more is good, and it is shown turned back. "": a share.
        perplexity: the untouched model scores every reply as well, and grading gets to know.
        sampling: fields of `answer.sampling` with which the published figures are sampled.
        options: the values of `Options`.
        judge: the judge that grading needs, or None.
        fields: what became of every column of the user's data, once `examples` has read it.
        sources: how much of each source was taken, likewise.
    """

    Options: ClassVar[type[Section]] = Section
    version: ClassVar[str] = "1"
    judged: ClassVar[bool] = False
    own_shots: ClassVar[bool] = False
    endless: ClassVar[bool] = False
    chats: ClassVar[bool] = True
    plugin: str = ""
    code: str = ""
    label: str = ""
    inverted: bool = False
    unit: str = ""
    perplexity: bool = False
    sampling: Mapping[str, object] = {}
    options: Any = None
    judge: Judge | None = None

    @property
    def how(self) -> str:
        """Further words on how it measures, for the report."""
        return ""

    @property
    def parts(self) -> Sequence[Task]:
        """The tasks that this one is made of, where it stands for several targets."""
        return (self,)

    def part_of(self, example: Example) -> Task:
        """Which of `parts` an example is of."""
        return self

    def target_of(self, example: Example) -> str:
        """The name of the target that an example is of, among several; "" of a single one."""
        return ""

    def bare(self, example: Example) -> Example:
        """An example as the part knows it that it is of."""
        return example

    @property
    def fields(self) -> Sequence[FieldUse]:
        """One entry for each column and use."""
        return ()

    @property
    def sources(self) -> Sequence[SourceUse]:
        """One entry for each source."""
        return ()

    def __init__(self, options: Any, judge: Judge | None = None) -> None:
        """Take the task's own options and the judge that the study names, if it names one."""
        self.options = options
        if self.judged:
            self.judge = judge or judges.build("refusal")

    @property
    def judge_title(self) -> str:
        """The judge's title, for the label; "" where there is none."""
        return "" if self.judge is None else self.judge.title

    @abstractmethod
    def examples(self, split: str) -> list[Example]:
        """All items of a split, without shots.

        Raises:
            DataError: the data is missing, malformed or empty.
        """

    @abstractmethod
    def grade(self, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
        """Grade one reply; pure.

        Args:
            example: what was asked.
            reply: what was said.
            verdict: what the judge said of it; None where no judge is needed.
        """

    def self_check(self) -> None:
        """Prove the grader: the first gold answer of `test` is graded 1.0, and no answer is not.

        Items without a gold answer, and those that a judge decides, prove nothing here.

        Raises:
            DataError: they are graded otherwise.
        """
        gold = None if self.judge else next(iter(self.examples("test")), None)
        if gold is None or gold.target is None:
            return
        for text, right in ((gold.target, True), ("", False)):
            value = self.grade(gold, Reply(gold.id, 0, text, "stop", 1), None).value
            if (value == 1.0) != right:
                raise DataError(
                    f"the grader gives {value} to {'the gold' if right else 'an empty'} answer "
                    f"{text!r} of {gold.id!r}",
                    where=f"task {self.plugin}",
                    remedy="correct grade, or the data",
                )


REGISTRY: Registry[Task] = Registry(
    "tasks",
    (Task,),
    TASKS,
    "; a task of lm-evaluation-harness is {kind: harness, task: NAME}, and --tasks harness:NAME in "
    "a comparison; your own: kind: jsonl with a path, or kind: FILE.py:Class",
)


def kind(name: str, spec: TaskSpec, where: str = "", folder: Path | None = None) -> PlugIn[Task]:
    """The class of the task that a section describes; see `Registry.find`.

    Args:
        name: of the section, which is the kind where the section names none.
        spec: the section.
        where: for messages.
        folder: from which the path of a file is taken; None: the working folder.

    Raises:
        StudyError: no such task.
    """
    return REGISTRY.find(spec.kind or name, where, folder)


def any_chats(specs: Mapping[str, TaskSpec], source: str) -> bool:
    """Whether a model is asked or trained through its chat template by any task.

    Args:
        specs: the sections by name.
        source: the study file's name, for messages.

    Raises:
        StudyError: no such task.
    """
    return any(
        kind(name, spec, f"{source}: tasks.{name}").make.chats for name, spec in specs.items()
    )


def build(name: str, spec: TaskSpec, source: str, folder: Path | None = None) -> Task:
    """Make the task that a section describes.

    Args:
        name: of the section; also the kind, unless the section says otherwise.
        spec: the section.
        source: the study file's name, for messages.
        folder: see `kind`.

    Raises:
        StudyError: no such task, a key that it does not take, or a class that is no whole task.
    """
    where = f"{source}: tasks.{name}"
    found = kind(name, spec, where, folder)
    options_type = found.make.Options
    own = set(known_keys(options_type))
    for key in spec.model_extra or {}:
        if key not in own:
            near = nearest(key, own | set(known_keys(TaskSpec)))
            raise StudyError(
                f"tasks.{name}.{key}: unknown key{near}",
                where=source,
                remedy=f"this task takes: {', '.join(sorted(own))}; and every task: "
                f"{', '.join(sorted(known_keys(TaskSpec)))}",
            )
    options = parse(options_type, dict(spec.model_extra or {}), source, at=("tasks", name))
    at_judge = f"{where}.judge"
    judge = None if spec.judge is None else judges.build(spec.judge, at_judge, folder)
    made = found.build(options, judge)
    if made.options is None:
        raise StudyError(
            f"{found.name} sets no options",
            where=where,
            remedy=f"call super().__init__(options, judge) in its __init__; {PAGE}",
        )
    made.label = made.label or found.name
    if judge is not None and made.judge is None:
        raise StudyError("this task needs no judge", where=at_judge, remedy="leave `judge` out")
    return made


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
    own = {} if task is None else task.sampling
    merged = {**defaults.model_dump(), **own, **Sampling.by_name(spec.sampling)}
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
    if any(example.target is None for example in examples):
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
    if task.own_shots:
        raise StudyError(
            "this task puts worked examples of its own before every question",
            remedy="write num_fewshot: N in its section instead of shots",
        )
    fixed, pool = _fixed_shots(task, shots), task.examples("train")
    shown = []
    for example in examples:
        if example.id in without:
            continue
        if not example.messages:
            raise StudyError(
                f"{example.id} is plain text, and worked examples go before questions only",
                remedy="leave shots out, or the plain text",
            )
        chosen = fixed
        if shots.mode == "random":
            drawn = random.Random(f"{shots.seed}:{example.id}").sample(pool, shots.n + 1)
            chosen = [one for one in drawn if one.question != example.question][: shots.n]
        turns = tuple(turn for shot in chosen for turn in _worked(shot))
        meta = {"question": example.question, **example.meta}
        shown.append(replace(example, messages=turns + example.messages, meta=meta))
    return shown


def _worked(shot: Example) -> tuple[Message, ...]:
    """An example as a shot; ``meta["as_shot"]`` is its question where that is put otherwise."""
    if not shot.messages:
        raise StudyError(
            f"{shot.id} is plain text, which is no worked example",
            remedy="leave shots out, or the plain text",
        )
    *before, asked = shot.messages
    if "as_shot" in shot.meta:
        asked = Message("user", str(shot.meta["as_shot"]))
    return (*before, asked, shot.answer)
