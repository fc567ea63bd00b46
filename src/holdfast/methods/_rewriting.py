"""Has the base rewrite reference answers in its own words, and keeps the rewrites that count.

Self-distillation from the reference (SDFT, Yang et al., arXiv:2402.13669): the model sees question
and reference answer and answers in its own style. A rewrite counts when it ended, does not speak of
the reference, and the task's own grader finds it right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from holdfast.config import Sampling
from holdfast.engines.resumable import ask
from holdfast.methods import MethodContext
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
) -> tuple[dict[str, Example], dict[str, int]]:
    """Ask the base to write the answers of `examples` again.

    Args:
        context: lends the engine and the grader.
        examples: with their reference answers as targets.
        sampling: how the model is asked.
        folder: of the stage; gets the replies.
        bar: is advanced per example.

    Returns:
        The examples whose rewrite counts, by id, with it as target; and how many others there are
        by the reason against their first rewrite.
    """
    asked = [
        replace(example, messages=(*example.messages[:-1], Message("user", _prompt(example))))
        for example in examples
    ]
    found: dict[str, Example] = {}
    against: dict[str, str] = {}
    by_id = {one.id: one for one in examples}
    for reply in ask(context.engine, asked, sampling, None, folder, bar, REPLIES):
        example = by_id[reply.example_id]
        banned = any(phrase in reply.text.casefold() for phrase in BANNED)
        reason = "speaks of the reference" if banned else objection(context, example, reply)
        if reason:
            against.setdefault(example.id, reason)
        elif example.id not in found:
            found[example.id] = replace(
                example, target=reply.text.strip(), source="rewrite", extra={}
            )
    return found, dict(Counter(why for name, why in against.items() if name not in found))


def objection(context: MethodContext, example: Example, reply: Reply) -> str:
    """Why a reply cannot be trained on as an answer to `example`; "" when it can."""
    if reply.finish != "stop" or not reply.text.strip():
        return "unfinished"
    value = context.task.grade(example, reply, None).value
    if value is None:
        return "not scored"
    return "" if value == 1.0 else "wrong"


def grader(task: Task) -> list[str]:
    """A task's grader, as it stands in the identity of what it has chosen."""
    code = [task.code] if task.code else []
    return [task.plugin, task.version, task.label, *code]


def _prompt(example: Example) -> str:
    return PROMPT.format(question=example.question, answer=example.target)
