"""Any benchmark of lm-evaluation-harness, with each item's reading.

The harness (Gao et al., doi:10.5281/zenodo.10256836) owns definition, prompts, few-shot examples,
filters and metrics; the model is asked by Holdfast's engine, so that base and fine-tuned model are
asked alike, and every item has a reading of its own. Multiple choice is measured by log-likelihood:
the stored reply is a JSON list of [log-probability, likeliest] for each choice, which can be graded
again without the model. See `docs/tasks/harness.md`.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from holdfast.config import Section
from holdfast.engines.kept import LIKELIHOODS
from holdfast.errors import DataError, StudyError
from holdfast.judges import Judge
from holdfast.runs import store
from holdfast.tasks import Task
from holdfast.tasks import _harness_prompts as prompts
from holdfast.tasks import _harness_tasks as harness
from holdfast.types import Example, Message, Reading, Reply, Verdict

if TYPE_CHECKING:
    from lm_eval.api.task import ConfigurableTask


class Harness(Task):
    """A task, group or tag of lm-evaluation-harness."""

    options: Options

    class Options(Section):
        """Keys of this task; most have the harness's own names."""

        task: str
        """Name of a task, group or tag (`lm_eval ls tasks`), or a YAML file of your own."""
        metric: str | None = None
        """Which of the task's metrics counts. Left out: its first that has a value per item."""
        filter: str | None = None
        """Which of the task's filters reads the answer. Left out: the first; others are shown."""
        num_fewshot: int | None = Field(None, ge=0)
        """Worked examples before every question. Left out: as the task says."""
        fewshot_seed: int = 1234
        """Seed by which they are drawn; 1234 is the harness's."""
        apply_chat_template: bool = True
        """Ask in chat turns. `false` gives bare text, as the harness does by default."""
        fewshot_as_multiturn: bool = True
        """In chat: each worked example is a turn of its own, not all in one."""
        system_instruction: str | None = None
        """Put before everything."""
        include_path: str | None = None
        """Folder of task YAMLs of your own. What they name with `!function` is run: only yours."""
        overrides: dict[str, Any] = Field(default_factory=dict)
        """Keys of the task's definition that differ, e.g. `dataset_path` and `dataset_kwargs`."""

    version: ClassVar[str] = "1"
    own_shots = True

    def __init__(self, options: Options, judge: Judge | None = None) -> None:
        """Load the task and its data; no judge is needed.

        Raises:
            MissingDependency: the harness is not installed.
            StudyError: no such task, metric or filter, or it cannot be measured here.
            DataError: its data cannot be had.
        """
        super().__init__(options)
        self._tasks = harness.load(options.task, options.include_path, options.overrides)
        self._docs: dict[tuple[str, str], list[object]] = {}
        self._examples: dict[str, list[Example]] = {}
        name, first = next(iter(self._tasks.items()))
        self._metric = harness.metric(name, first, options.metric)
        self._filter, self._filters = harness.pipelines(name, first, options.filter)
        for other, task in self._tasks.items():
            harness.metric(other, task, self._metric)
            harness.pipelines(other, task, self._filter)
            if prompts.generation(task).items() != prompts.generation(first).items():
                raise StudyError(
                    f"{other!r} and {name!r} generate differently, so they cannot be one task",
                    remedy="write a section for each",
                )
        self.inverted = not harness.higher_is_better(first, self._metric)
        self.sampling = prompts.generation(first)
        self.label = self._label(first)

    def _label(self, first: ConfigurableTask) -> str:
        config, many, options = first.config, len(self._tasks), self.options
        shots = {prompts.shots(task, options.num_fewshot) for task in self._tasks.values()}
        parts = [f"{self._metric} of {Path(options.task).stem if many > 1 else config.task}"]
        if many > 1:
            parts[0] += f" ({many} tasks, mean over items)"
        if len(self._filters) > 1:
            parts.append(f"filter {self._filter}")
        if first.OUTPUT_TYPE != "generate_until":
            parts.append("by log-likelihood")
        parts.append("/".join(map(str, sorted(shots))) + "-shot")
        parts.append("chat template" if options.apply_chat_template else "bare text")
        if options.system_instruction:
            parts.append("with a system instruction")
        if unfollowed := prompts.ignored(first):
            parts.append(f"without {', '.join(unfollowed)}")
        if (config.repeats or 1) > 1:
            parts.append(f"once instead of {config.repeats} times")
        parts.append(f"task version {first.VERSION}, lm_eval {harness.version()}")
        return ", ".join(parts)

    def examples(self, split: str) -> list[Example]:
        """See `Task.examples`; `test` is whatever split the harness measures on."""
        if split in self._examples:
            return list(self._examples[split])
        options = self.options
        if split == "train" and not options.apply_chat_template:
            raise StudyError(
                "training goes through the chat template, so bare prompts would be another task",
                remedy="set apply_chat_template: true for the target",
            )
        how = prompts.Prompting(
            options.num_fewshot,
            options.apply_chat_template,
            options.fewshot_as_multiturn,
            options.system_instruction,
            options.fewshot_seed,
        )
        found = []
        for name, task in self._tasks.items():
            documents, trained = self._documents(name, split), split == "train"
            every = prompts.asked(task, documents, how, own_shots=trained)
            mark = harness.definition(task)
            for number, (doc, asked) in enumerate(zip(documents, every, strict=True)):
                found.append(self._example(name, split, number, doc, asked, mark))
        self._examples[split] = found
        return list(found)

    def _documents(self, name: str, split: str) -> list[object]:
        if (name, split) not in self._docs:
            self._docs[name, split] = list(prompts.docs(self._tasks[name], split))
        return self._docs[name, split]

    def _example(
        self, name: str, split: str, number: int, doc: object, asked: prompts.Asked, mark: str
    ) -> Example:
        task = self._tasks[name]
        answer = harness.gold(task, doc)
        if answer is not None and asked.prefix and split == "train":
            answer = f"{asked.prefix.rstrip()} {answer}"
        meta: dict[str, object] = {
            "question": prompts.question(task, doc),
            "group": name if len(self._tasks) > 1 else "",
            "of": store.fingerprint([mark, json.dumps(doc, sort_keys=True, default=str)]),
        }
        turns = asked.prompt
        if isinstance(turns, str):
            meta["continue"], turns = "text", [["user", turns]]
        messages = tuple(Message(role, text) for role, text in turns)  # type: ignore[arg-type]
        if asked.until:
            meta["until"] = list(asked.until)
        if asked.prefix:
            meta["prefix"] = asked.prefix
        if asked.pairs and split != "train":
            same = asked.prompt
            meta[LIKELIHOODS] = [[None if c == same else c, text] for c, text in asked.pairs]
        where = f"{name}:{split}"
        return Example(f"{where}-{number}", messages, answer, f"lm_eval {where}", meta)

    def grade(self, example: Example, reply: Reply, verdict: Verdict | None) -> Reading:
        """By the harness's filters and metric; 1.0 is good, also where less of the metric is.

        Raises:
            DataError: the metric is not between 0 and 1.
        """
        group = str(example.meta.get("group", ""))
        name, split, number = _place(example.id)
        task, doc = self._tasks[name], self._documents(name, split)[number]
        responses: list[object] = [reply.text]
        if task.OUTPUT_TYPE != "generate_until":
            if LIKELIHOODS not in example.meta:  # an answer to learn from, given as text
                right = reply.text.strip() == (example.target or "").strip()
                word = "correct" if right else "wrong"
                return Reading(example.id, reply.sample, float(right), word, reply.text[:80], group)
            responses = [
                (float(value), bool(likeliest)) for value, likeliest in json.loads(reply.text)
            ]
        try:
            every = harness.measured(task, doc, responses, self._filters)
        except Exception as error:  # a task's own metrics raise anything
            raise DataError(
                f"lm_eval cannot grade {example.id}: {type(error).__name__}: {error}",
                where=self.options.task,
                remedy="check the task's definition; replies are kept",
            ) from error
        read_as = {one: self._share(found[self._metric]) for one, found in every.items()}
        value = read_as[self._filter]
        word = {None: "unscored", 1.0: "correct", 0.0: "wrong"}.get(value, "partly")
        ways = {one: share for one, share in read_as.items() if share is not None}
        return Reading(
            example.id, reply.sample, value, word, _said(responses), group,
            ways if len(self._filters) > 1 else {},
        )  # fmt: skip

    def _share(self, value: Any) -> float | None:
        """A metric's value as a share of good; None where there is none."""
        try:
            found = float(value)
        except (TypeError, ValueError):
            found = math.inf
        if math.isnan(found):
            return None
        if not 0 <= found <= 1:
            raise DataError(
                f"metric {self._metric!r} gave {value!r} for one item, which is no share",
                where=self.options.task,
                remedy="choose a `metric` between 0 and 1; replies are kept and only graded again",
            )
        return 1 - found if self.inverted else found

    def self_check(self) -> None:
        """Grade the right answer to the first item of each task, and a wrong one.

        A right answer need not count as such where the filter expects a phrase around it; it must
        not count less than a wrong one.
        """
        for name, task in self._tasks.items():
            doc, id_ = self._documents(name, "test")[0], f"{name}:test-0"
            if task.OUTPUT_TYPE == "generate_until":
                texts = [harness.gold(task, doc) or "", "-"]
                example = Example(id_, (Message("user", "?"),), texts[0])
            else:
                # as many as the harness asks for: the choices, twice where they are also put alone
                count = len(harness.choices(task, doc)) or 1
                count *= 2 if "acc_mutual_info" in task.aggregation() else 1
                texts = [json.dumps(one) for one in harness.made_up(task, doc, count)]
                example = Example(id_, (Message("user", "?"),), None, "", {LIKELIHOODS: []})
            found = [self.grade(example, Reply(id_, 0, text, "stop", 0), None) for text in texts]
            if (
                len(found) == 2
                and not self.inverted
                and (found[0].value or 0) < (found[1].value or 0)
            ):
                raise DataError(
                    f"lm_eval's task {name!r} grades its own answer below a wrong one",
                    where=self.options.task,
                    remedy="check its definition and its data",
                )


def _place(example_id: str) -> tuple[str, str, int]:
    """Task, split and number of a document."""
    name, _, rest = example_id.rpartition(":")
    split, _, number = rest.rpartition("-")
    return name, split, int(number)


def _said(responses: list[Any]) -> str:
    """What the grader saw: the answer, or the number of the likeliest choice."""
    if isinstance(responses[0], str):
        return responses[0].strip()[:80]
    best = max(range(len(responses)), key=lambda place: responses[place][0])
    return f"choice {best + 1} of {len(responses)}" if len(responses) > 1 else ""
