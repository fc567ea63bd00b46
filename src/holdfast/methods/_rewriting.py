"""Asks training questions until the budget is filled; has the base rewrite reference answers.

Self-distillation from the reference (SDFT, Yang et al., arXiv:2402.13669): the model sees question
and reference answer and answers in its own style. A rewrite counts when it ended, does not speak of
the reference, and the task's own grader finds it right.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from holdfast.config import Sampling
from holdfast.data.thinking import answered, learned
from holdfast.errors import DataError
from holdfast.methods import MethodContext, _bound
from holdfast.progress import Progress
from holdfast.runs import store
from holdfast.tasks import Task
from holdfast.types import Example, Message, Reply

PROMPT = (
    "Below are a question and its reference answer. Write the answer again in your own words and "
    "in your usual style, as if you had solved it yourself; keep the final result and its format.\n"
    "\nQuestion:\n{question}\n\nReference answer:\n{answer}\n\nYour own answer:"
)
BANNED = ("reference answer", "your own words", "my own words", "own response", "original answer")
REPLIES = "rewrites.jsonl"


def rewrite(
    context: MethodContext,
    examples: Sequence[Example],
    sampling: Sampling,
    folder: Path,
    bar: Progress,
    number: int = 0,
) -> tuple[dict[str, Example], dict[str, str]]:
    """Ask the base to write the answers of `examples` again.

    Args:
        context: lends the engine and the grader.
        examples: with their reference answers as targets.
        sampling: how the model is asked.
        folder: of the stage; gets the replies.
        bar: is advanced per example.
        number: of the round.

    Returns:
        The examples whose rewrite counts, by id, with it as target; and of the others the reason
        against their first rewrite.
    """
    asked = [
        replace(example, messages=(*example.messages[:-1], Message("user", _prompt(example))))
        for example in examples
    ]
    found: dict[str, Example] = {}
    against: dict[str, str] = {}
    by_id = {one.id: one for one in examples}
    for reply in context.ask(asked, sampling, folder, bar, _bound.numbered(REPLIES, number)):
        example = by_id[reply.example_id]
        said = answered(reply).text.casefold()
        banned = any(phrase in said for phrase in BANNED)
        reason = "speaks of the reference" if banned else objection(context, example, reply)
        if reason:
            against.setdefault(example.id, reason)
        elif example.id not in found:
            found[example.id] = learned(example, reply, "rewrite")
    return found, {name: why for name, why in against.items() if name not in found}


def filling(context: MethodContext) -> dict[str, object]:
    """What bears on which questions are asked, besides the stage of the budget."""
    if context.bound is None or not context.fills:
        return {}
    return {"until": "filled", "order": store.fingerprint(list(context.bound.order))}


def expected(context: MethodContext) -> int:
    """How many questions are asked where all are answered, each as long as its reference."""
    return context.bound.seen if context.bound and context.fills else len(context.plain)


def used(context: MethodContext, made: Mapping[str, Sequence[Example]]) -> list[Example]:
    """The questions that are trained on, with those before them that came to nothing."""
    if context.bound is None:
        return list(context.plain)
    ordered = [context.plain[place] for place in context.bound.order]
    return ordered[: context.bound.used(ordered, made)]


def until_filled(
    context: MethodContext,
    work: Callable[[int, Sequence[Example]], Mapping[str, Sequence[Example]]],
) -> tuple[int, list[Example]]:
    """Ask the questions in the order in which they are seen until the budget is filled.

    Args:
        context: says whether there is a budget to fill; else all are asked as they lie.
        work: given the number of a round and its questions, answers them; returns all examples so
            far by the id of their question.

    Returns:
        How many were asked, and those of which the examples are trained on.
    """
    bound, plain = context.bound, context.plain
    if bound is None or bound.tokens is None:
        work(0, plain)
        return len(plain), list(plain)
    done, used = _bound.filled(bound, [plain[place] for place in bound.order], work)
    return done, list(used)


def told(
    context: MethodContext, asked: int, used: Sequence[Example], lost: int
) -> dict[str, object]:
    """For the record: how many questions were asked, trained on, and drawn for others."""
    if not context.fills:
        return {"asked": asked}
    every = len(context.plain)
    drawn = lost if len(used) < every else 0  # no more was there
    return {"asked": asked, "questions": every, "used": len(used), "reserve": drawn}


def bounded(context: MethodContext, asked: int, used: Sequence[Example]) -> list[str]:
    """For the report: that not all questions were asked; nothing where they were."""
    if len(used) == len(context.plain):
        return []
    return [
        f"{asked} of {len(context.plain)} asked, in the order in which they are seen, until their "
        f"answers filled the budget (the first {len(used)} do; for each that is dropped the next "
        "was drawn)"
    ]


def check_questions(method: str, examples: Sequence[Example]) -> None:
    """Refuse a training set that holds other things than questions with answers in words.

    Args:
        method: that asks the questions, for messages.
        examples: the plain arm's training set.

    Raises:
        DataError: plain text, an answer that is tool calls, or one to what a tool said.
    """
    for one in examples:
        if not one.messages:
            what = "is plain text: there is no question to answer"
        elif "tool_calls" in one.extra:
            what = "is answered by tool calls, which the model's own words cannot replace"
        elif one.messages[-1].role != "user":
            what = "answers what a tool said, not a question"
        else:
            continue
        raise DataError(
            f"the training example {one.id} {what}",
            where=method,
            remedy=f"take {method} out of this arm, or such rows out of the training data",
        )


def objection(context: MethodContext, example: Example, reply: Reply) -> str:
    """Why a reply cannot be trained on as an answer to `example`; "" when it can.

    What was thought before is not looked at.
    """
    said = answered(reply)
    if reply.finish != "stop" or not said.text.strip():
        return "unfinished"
    value = context.task.grade(example, said, None).value
    if value is None:
        return "not scored"
    return "" if value == 1.0 else "wrong"


def grader(task: Task) -> list[str]:
    """A task's grader, as it stands in the identity of what it has chosen."""
    code = [task.code] if task.code else []
    return [task.plugin, task.version, task.label, *code]


def _prompt(example: Example) -> str:
    return PROMPT.format(question=example.question, answer=example.target)
