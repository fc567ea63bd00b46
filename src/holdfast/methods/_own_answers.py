"""Makes pools of the untouched model's own answers to prompts that were made for the purpose.

A pool of its own answers stands in for data of the old kind: refusals of mild hazardous requests
and help with everyday ones, to prompts from a table; or whole dialogues, where the model is given
no more than the beginning of a user's turn and writes question and answer (Magpie,
arXiv:2406.08464; self-dialogues as rehearsal: SA-SFT, arXiv:2602.20162). Or a file of the user's.
Methods whose `Pool` settings are the same share one pool, whatever they do with it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import cycle, islice
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from holdfast.config import Sampling, Section
from holdfast.data import containers
from holdfast.data.cells import blank
from holdfast.data.formats import conversation
from holdfast.data.leakage import normalise
from holdfast.data.thinking import answered, learned
from holdfast.engines.resumable import ask
from holdfast.errors import DataError
from holdfast.judges import build as build_judge
from holdfast.methods import EXAMPLES, MethodContext, SharedWork
from holdfast.methods._replay_prompts import in_turn
from holdfast.progress import Progress
from holdfast.runs import records, store
from holdfast.types import Example, Message, Reply

PROMPTS = {
    "builtin": "holdfast.methods._replay_prompts:prompts",
    "lab": "holdfast.lab.tasks:prompts",
}
VERSION = "1"
"""Raised whenever the same settings would give another pool."""
SHORTEST, LONGEST = 3, 200
"""Words of a question that the model writes; others are no questions, or run away."""
WORD = re.compile(r"[\u3040-\u9fff]|[^\W\u3040-\u9fff]+")
"""Chinese and Japanese put no spaces between words: there each character counts."""
_DECLINED = {"both": (True, False), "refusals": (True,), "everyday": (False,)}


class Pool(Section):
    """Where examples of the old kind come from; methods that need them inherit these settings."""

    source: Literal["both", "refusals", "everyday", "dialogue", "file"] = "both"
    """The untouched model's own: `refusals`, `everyday` answers, `both`; `dialogue`: it writes the
    questions too. `file`: yours."""
    path: str | None = None
    """For `file`: a jsonl with prompts and answers, in any form the task `jsonl` reads."""
    prompts: Literal["builtin", "lab"] = "builtin"
    """Where the prompts for the model's own answers come from."""
    pool: int = Field(400, ge=2)
    """How many prompts the model answers, at most."""
    max_new_tokens: int = Field(256, ge=1)
    """Longest answer of the model; unfinished ones are left out."""
    temperature: float = Field(1.0, gt=0)
    """For `dialogue`: how freely questions are written; answers are greedy."""

    @model_validator(mode="after")
    def _belongs(self) -> Self:
        if (self.source == "file") != (self.path is not None):
            raise ValueError("`path` goes with `source: file`, and only with it")
        if "temperature" in self.model_fields_set and self.source != "dialogue":
            raise ValueError("`temperature` goes with `source: dialogue`, and only with it")
        return self


def words(pool: Pool) -> str:
    """The source in words, for the report."""
    return {
        "both": "the model's own refusals and everyday answers",
        "refusals": "the model's own refusals",
        "everyday": "the model's own everyday answers",
        "dialogue": "dialogues that the model writes itself",
        "file": f"examples from {pool.path}",
    }[pool.source]


def check(pool: Pool, context: MethodContext) -> None:
    """Look at the user's own file before anything runs.

    Raises:
        DataError: it is missing or malformed.
        LeakError: it contains evaluation questions.
    """
    if pool.source == "file":
        context.leaks.refuse(_file(pool), str(pool.path))


def identity(pool: Pool) -> dict[str, object]:
    """What bears on the pool: its settings, and the content of a file rather than its path."""
    if pool.source == "file":
        content = store.fingerprint(_file(pool))
        return {"source": "file", "file": content}
    own = "temperature" if pool.source == "dialogue" else "prompts"
    return pool.model_dump(include={"source", "pool", "max_new_tokens", own})


def name(pool: Pool, context: MethodContext) -> str:
    """Of the stage that makes it."""
    return f"replay-{pool.source}-{store.fingerprint([identity(pool), context.seed])[:6]}"


def shared(pool: Pool, context: MethodContext) -> list[SharedWork]:
    """The stage that makes it; none where a file holds the examples."""
    if pool.source == "file":
        return []
    about = {
        "method": "replay",
        "version": VERSION,
        "options": identity(pool),
        "seed": context.seed,
    }
    make = _dialogues
    if pool.source != "dialogue":
        make, about["judge"] = _answers, build_judge("refusal").name
    return [
        SharedWork(name(pool, context), about, lambda into, bar: make(pool, context, into, bar))
    ]


def read(pool: Pool, context: MethodContext, made: Mapping[str, Path]) -> list[Example]:
    """The examples, in the order in which they were made.

    Args:
        pool: its settings.
        context: see `MethodContext`.
        made: folder of every piece of shared work by its name.

    Raises:
        DataError: there is not one.
    """
    if pool.source == "file":
        found = _file(pool)
    else:
        found = store.read_jsonl(made[name(pool, context)] / EXAMPLES, Example)
    if not found:
        raise DataError(
            f"there is nothing to replay: {note(pool, context, made) or 'the file is empty'}",
            remedy="use `source: file` with examples of the old kind",
        )
    return found


def note(pool: Pool, context: MethodContext, made: Mapping[str, Path]) -> str:
    """How the pool came about, for the report; "" for a file."""
    if pool.source == "file":
        return ""
    return str(records.summary(made[name(pool, context)])["note"])


def choose(pool: Sequence[Example], wanted: int, kind: str, balance: bool = True) -> list[Example]:
    """`wanted` examples of the pool, again from its beginning when it is too small.

    Args:
        pool: what `read` gave.
        wanted: how many.
        kind: ``meta["kind"]`` of the chosen, which are numbered anew: ``replay-0``, ...
        balance: choose as evenly as can be: sources (refusals, everyday answers) take turns, and
            within each the categories do (``meta["category"]``). What is replayed should be of many
            kinds (behaviour-aware sampling, arXiv:2510.21885).
    """
    if balance:
        groups: dict[str, dict[str, list[Example]]] = {}
        for example in pool:
            category = str(example.meta.get("category", ""))
            groups.setdefault(example.source, {}).setdefault(category, []).append(example)
        pool = list(in_turn([list(in_turn(of.values())) for of in groups.values()]))
    return [
        replace(example, id=f"{kind}-{place}", meta={**example.meta, "kind": kind})
        for place, example in enumerate(islice(cycle(pool), wanted))
    ]


def _answers(
    pool: Pool, context: MethodContext, folder: Path, bar: Progress
) -> Mapping[str, object]:
    """Ask the base, keep finished answers of the expected kind, refusals and help in turn."""
    module, _, function = PROMPTS[pool.prompts].partition(":")
    prompts = getattr(import_module(module), function)
    kinds = _DECLINED[pool.source]
    kept: dict[bool, list[Example]] = {}
    asked_in_all = 0
    for declined in kinds:
        kind = "declined" if declined else "helped"
        made = prompts(pool.pool // len(kinds), declined, context.seed)
        asked = [
            Example(f"{kind}-{number}", (Message("user", text),), meta={"category": category})
            for number, (category, text) in enumerate(made)
        ]
        asked = [one for one in asked if context.leaks.find(one) is None]
        asked_in_all += len(asked)
        pairs = _finished(pool, context, asked, folder, bar, f"replies-{kind}.jsonl")
        verdicts = build_judge("refusal").judge([(one, answered(said)) for one, said in pairs])
        wanted = "refused" if declined else "answered"
        source = "own refusal" if declined else "own everyday answer"
        kept[declined] = [
            learned(example, reply, source)
            for (example, reply), verdict in zip(pairs, verdicts, strict=True)
            if verdict.label == wanted
        ]
    found = list(in_turn(kept.values()))
    store.write_jsonl(folder / EXAMPLES, found)
    return {
        "asked": asked_in_all,
        "kept": {str(key): len(some) for key, some in kept.items()},
        "note": f"{len(found)} of {asked_in_all} answers of the model are of the expected kind",
    }


def _dialogues(
    pool: Pool, context: MethodContext, folder: Path, bar: Progress
) -> Mapping[str, object]:
    """Let the base write questions and answer them; keep what is finished."""
    blank = [
        Example(f"dialogue-{number}", (Message("user", ""),), meta={"continue": "user"})
        for number in range(pool.pool)
    ]
    sampling = Sampling(
        max_new_tokens=pool.max_new_tokens, temperature=pool.temperature, seed=context.seed
    )
    written = ask(context.engine, blank, sampling, None, folder, bar, "questions.jsonl")
    questions, unused = _questions(context, written)
    pairs = _finished(pool, context, questions, folder, bar, "replies-dialogue.jsonl")
    found = [learned(one, said, "own dialogue") for one, said in pairs]
    if lost := len(questions) - len(found):
        unused["answer unfinished"] = lost
    store.write_jsonl(folder / EXAMPLES, found)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(unused.items()))
    kept = f"{len(found)} of {pool.pool} dialogues of the model with itself kept"
    return {
        "asked": pool.pool,
        "kept": {"dialogue": len(found)},
        "left_out": unused,
        "note": kept + (f" (left out: {reasons})" if reasons else ""),
    }


def _questions(
    context: MethodContext, written: Sequence[Reply]
) -> tuple[list[Example], dict[str, int]]:
    """Written questions that can be asked, and how many others there are by reason."""
    unused: Counter[str] = Counter()
    known: set[tuple[str, ...]] = set()
    kept = []
    for reply in written:
        text = reply.text.strip()
        question = Example(reply.example_id, (Message("user", text),))
        length = len(WORD.findall(text))
        if reply.finish != "stop":
            reason = "question unfinished"
        elif length < SHORTEST:
            reason = "question too short"
        elif length > LONGEST:
            reason = "question too long"
        elif normalise(text) in known:
            reason = "question repeated"
        elif context.leaks.find(question):
            reason = "question measured"
        else:
            known.add(normalise(text))
            kept.append(question)
            continue
        unused[reason] += 1
    return kept, dict(unused)


def _finished(
    pool: Pool,
    context: MethodContext,
    asked: Sequence[Example],
    folder: Path,
    bar: Progress,
    file: str,
) -> list[tuple[Example, Reply]]:
    """Questions with the base's greedy answers, as far as those came to an end."""
    sampling = Sampling(max_new_tokens=pool.max_new_tokens)
    replies = ask(context.engine, asked, sampling, None, folder, bar, file)
    return [
        (question, reply)
        for question, reply in zip(asked, replies, strict=True)
        if reply.finish == "stop" and answered(reply).text.strip()
    ]


def _file(pool: Pool) -> list[Example]:
    file = Path(pool.path or "").expanduser()
    found = []
    for number, where, row in list(containers.rows(file)):
        said = conversation(row, where)
        if said.target is None:
            raise DataError("has no answer to replay", where=where, remedy="add one")
        if not said.learned:
            raise DataError(
                "has the weight 0 on all its answers, so there is nothing to replay",
                where=where,
                remedy="leave the row out, or the weight",
            )
        meta = {} if blank(row.get("category")) else {"category": str(row["category"])}
        found.append(
            Example(
                f"file-{number}",
                said.messages,
                said.target,
                file.name,
                meta,
                said.tools,
                said.extra,
            )
        )
    return found
