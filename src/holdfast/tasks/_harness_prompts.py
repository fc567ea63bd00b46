"""Makes the prompts of a task of lm-evaluation-harness.

The harness owns prompts, few-shot examples and choices. Chat templates are not the harness's here:
where it would render one, its turns are taken as they are, so that `holdfast.data.chat` renders
them like everybody's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from holdfast.errors import DataError, HoldfastError, StudyError

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.api.samplers import ContextSampler
    from lm_eval.api.task import ConfigurableTask

LONGEST = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
"""What the longest answer is called; the first one counts."""
DEFAULT_LONGEST = 256
FOLLOWED = {*LONGEST, "until", "do_sample", "temperature", "top_p"}
"""Generation arguments that are followed."""

Context = str | list[list[str]]
"""A prompt: bare text, or turns of [role, content]."""


@dataclass(frozen=True, slots=True)
class Prompting:
    """How prompts are put; the names are the harness's."""

    num_fewshot: int | None
    apply_chat_template: bool
    fewshot_as_multiturn: bool
    system_instruction: str | None
    seed: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked of one document: an answer to `prompt`, or how likely texts are.

    Attributes:
        prompt: the first context.
        prefix: what the assistant's turn begins with.
        pairs: contexts and continuations to score; empty where an answer is wanted.
        until: texts that end an answer.
    """

    prompt: Context
    prefix: str
    pairs: tuple[tuple[Context, str], ...] = ()
    until: tuple[str, ...] = ()


def docs(task: ConfigurableTask, split: str) -> Sequence[Any]:
    """The documents of a split; `test` is what the harness itself measures on.

    Raises:
        DataError: the task has no such split.
    """
    match split:
        case "test":
            return list(task.eval_docs)
        case "train" if task.has_training_docs():
            return list(task.training_docs())
        case "validation" if task.has_validation_docs():
            return list(task.validation_docs())
    raise DataError(
        f"lm_eval's task {task.task_name!r} has no split {split!r}",
        remedy="measure on `test`, and make a task with a training split the target",
    )


def shots(task: ConfigurableTask, wanted: int | None) -> int:
    """How many examples are shown before each document.

    Raises:
        StudyError: the task's prompt allows for none.
    """
    own: int | None = task.config.num_fewshot
    if own == 0 and wanted:
        raise StudyError(
            f"lm_eval's task {task.task_name!r} fixes num_fewshot at 0",
            remedy="leave num_fewshot out",
        )
    return (own or 0) if wanted is None else wanted


def asked(
    task: ConfigurableTask, documents: Sequence[object], how: Prompting, own_shots: bool
) -> list[Asked]:
    """What the harness would ask of documents, in their order, which also orders its drawing.

    Args:
        task: the harness's.
        documents: its documents.
        how: see `Prompting`.
        own_shots: the documents are what shots are drawn from; none is shown its own answer.

    Raises:
        StudyError: it asks in a way that cannot be followed here.
    """
    task.set_fewshot_seed(how.seed)
    count, chat = shots(task, how.num_fewshot), how.apply_chat_template
    sampler, template = getattr(task, "sampler", None), _captured if chat else None
    found = []
    try:
        for number, doc in enumerate(documents):
            if own_shots and count:
                task.sampler = _Except(sampler, doc)
            prefix = task.doc_to_prefix(doc)
            context = task.fewshot_context(
                doc,
                num_fewshot=count,
                system_instruction=how.system_instruction,
                apply_chat_template=chat,
                fewshot_as_multiturn=how.fewshot_as_multiturn,
                chat_template=template,
                gen_prefix=prefix,
            )
            instances = task.construct_requests(
                doc=doc,
                ctx=context,
                metadata=(task.task_name, number, 1),
                apply_chat_template=chat,
                chat_template=template,
            )
            found.append(_plain(task, instances, chat))
    except HoldfastError:
        raise
    except Exception as error:  # templates and task code raise anything
        raise DataError(
            f"lm_eval's task {task.task_name!r} cannot ask about document {len(found)}: "
            f"{type(error).__name__}: {error}",
            remedy="check its definition and its data; more shots need more documents",
        ) from error
    finally:
        if sampler is not None:
            task.sampler = sampler
    return found


class _Except:
    """The harness's sampler of shots, which never shows one document."""

    def __init__(self, sampler: ContextSampler, doc: object) -> None:
        self._sampler, self._doc = sampler, doc

    def sample(self, n: int, eval_doc: object = None, **_: object) -> Sequence[object]:
        found: Sequence[object] = self._sampler.sample(n, eval_doc=self._doc)
        return found


def _captured(turns: Sequence[Mapping[str, str]], **_: object) -> str:
    """In place of a chat template: the turns themselves, as JSON."""
    return json.dumps([[one["role"], one["content"]] for one in turns], ensure_ascii=False)


def _plain(task: ConfigurableTask, instances: Instance | list[Instance], chat: bool) -> Asked:
    every = instances if isinstance(instances, list) else [instances]
    every = sorted(every, key=lambda one: one.idx)
    kinds = {one.request_type for one in every}
    if kinds == {"loglikelihood"}:
        found = [(*_context(task, one.args[0], chat), one.args[1]) for one in every]
        pairs = tuple((context, text) for context, _, text in found)
        return Asked(pairs[0][0], found[0][1], pairs)
    if kinds == {"generate_until"} and len(every) == 1:
        prompt, generation = every[0].args[:2]
        words = generation.get("until") or []
        until = (words,) if isinstance(words, str) else tuple(words)
        return Asked(*_context(task, prompt, chat), (), until)
    raise StudyError(
        f"lm_eval's task {task.task_name!r} asks {len(every)} things of one item "
        f"({', '.join(sorted(kinds))}), which cannot be followed here",
        remedy="choose another task",
    )


def _context(task: ConfigurableTask, text: str, chat: bool) -> tuple[Context, str]:
    """A context, and what the assistant's turn after it begins with."""
    if not chat or not text:
        return text, ""
    try:
        turns: list[list[str]] = json.loads(text)
    except json.JSONDecodeError as error:
        raise StudyError(
            f"lm_eval's task {task.task_name!r} writes its prompts itself, without chat turns",
            remedy="set apply_chat_template: false",
        ) from error
    if turns[-1][0] == "assistant":
        return turns[:-1], turns[-1][1]
    return turns, ""


def question(task: ConfigurableTask, doc: object) -> str:
    """The bare question, without shots; where the choices are in it, all of them."""
    text = task.doc_to_text(doc)
    return text if isinstance(text, str) else "\n".join(task.doc_to_choice(doc))


def generation(task: ConfigurableTask) -> dict[str, Any]:
    """How the harness would sample, in Holdfast's words."""
    given: Mapping[str, Any] = task.config.generation_kwargs or {}
    longest = next((given[one] for one in LONGEST if given.get(one)), DEFAULT_LONGEST)
    drawn = given.get("do_sample", float(given.get("temperature") or 0) > 0)
    return {
        "max_new_tokens": int(longest),
        "temperature": float(given.get("temperature") or 0) if drawn else 0.0,
        "top_p": float(given.get("top_p") or 1) if drawn else 1.0,
        "samples": 1,
    }


def ignored(task: ConfigurableTask) -> list[str]:
    """Generation arguments of the task that are not followed."""
    return sorted(set(task.config.generation_kwargs or {}) - FOLLOWED)
