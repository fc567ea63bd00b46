"""Has the base rewrite reference answers in its own words, and keeps the rewrites that count.

Self-distillation from the reference (SDFT, Yang et al., arXiv:2402.13669): the model sees question
and reference answer and answers in its own style. A rewrite counts when it ended, does not speak of
the reference, and the task's own grader finds it right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from holdfast.config import Sampling
from holdfast.data.thinking import answered, learned
from holdfast.errors import DataError
from holdfast.methods import MethodContext, _bound
from holdfast.progress import Progress
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


def same_question(one: Example, other: Example) -> bool:
    """Whether two examples ask the same, whatever the answer."""
    return one.messages == other.messages and one.tools == other.tools


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
    version = "+".join(one.version for one in task.parts)
    return [task.plugin, version, task.label, *code]


def _prompt(example: Example) -> str:
    return PROMPT.format(question=example.question, answer=example.target)
