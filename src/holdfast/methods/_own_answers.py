"""Makes pools of the untouched model's own answers to prompts that were made for the purpose.

A pool of its own answers stands in for data of the old kind: refusals of mild hazardous requests
and help with everyday ones, to prompts from a table; or whole dialogues, where the model is given
no more than the beginning of a user's turn and writes question and answer (Magpie,
arXiv:2406.08464; self-dialogues as rehearsal: SA-SFT, arXiv:2602.20162). Or a file of the user's.
Methods whose `Pool` settings are the same share one pool, whatever they do with it. It is asked for
in the order in which it is chosen from, until the largest of what they need is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from itertools import count, cycle, islice
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from holdfast.config import Sampling, Section
from holdfast.data import containers
from holdfast.data.cells import blank
from holdfast.data.formats import conversation
from holdfast.data.thinking import answered, learned
from holdfast.errors import DataError
from holdfast.judges import build as build_judge
from holdfast.methods import EXAMPLES, PROBE, MethodContext, SharedWork
from holdfast.methods._bound import ROUND, SMALLEST, in_rounds, numbered
from holdfast.methods._context import asks
from holdfast.methods._replay_prompts import in_order, in_turn, questions
from holdfast.progress import Progress
from holdfast.runs import records, store
from holdfast.types import Example, Message, Reply

PROMPTS = {
    "builtin": "holdfast.methods._replay_prompts:prompts",
    "lab": "holdfast.lab.tasks:prompts",
}
VERSION = "1"
"""Raised whenever the same settings would give another pool."""
KEPT = 0.75
"""Of what a model is asked for the pool, those answers that are finished and of the kind wanted."""
REFUSED, HELPED = "own refusal", "own everyday answer"
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


def name(pool: Pool, context: MethodContext, balance: bool = True) -> str:
    """Of the stage that makes it; of its own where it is asked for in another order."""
    mark: list[object] = [identity(pool), context.seed]
    if not balance and context.bound is not None:
        mark.append("as it lies")
    return f"replay-{pool.source}-{store.fingerprint(mark)[:6]}"


def shared(
    pool: Pool, context: MethodContext, wanted: int | None = None, balance: bool = True
) -> list[SharedWork]:
    """The stage that makes it; none where a file holds the examples.

    Args:
        pool: its settings.
        context: see `MethodContext`.
        wanted: examples that the arm can use; left out: all that the prompts give.
        balance: how they are chosen, see `choose`.
    """
    if pool.source == "file":
        return []
    own = pool.source != "dialogue"
    need = pool.pool if wanted is None else min(wanted, pool.pool)
    about = {
        "method": "replay",
        "version": VERSION,
        "options": identity(pool),
        "seed": context.seed,
        **({"judge": build_judge("refusal").name} if own else {}),
        **({} if wanted is None else {"until": need}),
    }

    def make(into: Path, bar: Progress) -> Mapping[str, object]:
        if own:
            return _answers(pool, context, need, balance, into, bar)
        return _dialogues(pool, context, need, into, bar)

    asked = asks(pool.pool, math.ceil(need / KEPT), _greedy(pool))
    asked |= {} if own else {"turns": 2}  # the question as well
    return [SharedWork(name(pool, context, balance), about, make, need=need, asks=asked)]


def read(
    pool: Pool, context: MethodContext, made: Mapping[str, Path], balance: bool = True
) -> list[Example]:
    """The examples, in the order in which they were made.

    Args:
        pool: its settings.
        context: see `MethodContext`.
        made: folder of every piece of shared work by its name.
        balance: how they are chosen, see `choose`.

    Raises:
        DataError: there is not one.
    """
    if pool.source == "file":
        found = _file(pool)
    else:
        found = store.read_jsonl(made[name(pool, context, balance)] / EXAMPLES, Example)
    if not found:
        raise DataError(
            f"there is nothing to replay: "
            f"{note(pool, context, made, balance) or 'the file is empty'}",
            remedy="use `source: file` with examples of the old kind",
        )
    return found


def note(pool: Pool, context: MethodContext, made: Mapping[str, Path], balance: bool = True) -> str:
    """How the pool came about, for the report; "" for a file."""
    if pool.source == "file":
        return ""
    return str(records.summary(made[name(pool, context, balance)])["note"])


def seen_of(pool: Pool, context: MethodContext, share: float) -> int | None:
    """How many examples are seen where they are a share of all; None: as many as there are."""
    if pool.source == "file" or context.bound is None:
        return None
    return context.bound.old(share)


def choose(
    pool: Sequence[Example],
    wanted: int,
    kind: str,
    balance: bool = True,
    seen: int | None = None,
) -> list[Example]:
    """`wanted` examples of the pool, again from its beginning when it is too small.

    Args:
        pool: what `read` gave.
        wanted: how many.
        kind: ``meta["kind"]`` of the chosen, which are numbered anew: ``replay-0``, ...
        balance: choose as evenly as can be: sources (refusals, everyday answers) take turns, and
            within each the categories do (``meta["category"]``). What is replayed should be of many
            kinds (behaviour-aware sampling, arXiv:2510.21885).
        seen: of so many rows training sees no more than this many; they stand for the others, and
            none is seen again before all have been (``meta["round"]``). None: each can be seen.
    """
    ordered = in_order(pool, balance)
    few = seen is not None and seen < wanted
    ordered = ordered[:seen] if few else ordered
    return [
        replace(
            example,
            id=f"{kind}-{place}",
            meta={**example.meta, "kind": kind, **({ROUND: place // len(ordered)} if few else {})},
        )
        for place, example in enumerate(islice(cycle(ordered), wanted))
    ]


def probes(
    pool: Pool, context: MethodContext, made: Mapping[str, Path], most: int
) -> list[Example]:
    """Some of what `read` gives, to be looked at before training and never trained on."""
    found = read(pool, context, made)
    return choose(found, min(most, len(found)), PROBE)


def _answers(
    pool: Pool, context: MethodContext, need: int, balance: bool, folder: Path, bar: Progress
) -> Mapping[str, object]:
    """Ask the base, keep finished answers of the expected kind, refusals and help in turn."""
    prompts = {declined: _prompts(pool, context, declined) for declined in _DECLINED[pool.source]}
    said: dict[str, Example | None] = {}

    def left(known: bool) -> dict[bool, list[Example]]:  # what is of no use left out
        return {
            declined: [o for one in some if (o := said.get(one.id, None if known else one))]
            for declined, some in prompts.items()
        }

    before, stuck = need + 1, 0
    for number in count():
        ordered = in_order(list(in_turn(left(known=False).values())), balance)
        missing = sum(one.id not in said for one in ordered[:need])
        if not missing:
            break
        kept = sum(one is not None for one in said.values())
        ahead = math.ceil(missing * (len(said) - kept) / kept) if kept else 0
        stuck = stuck + 1 if missing >= before else 0  # one kind may never come
        new = [one.id for one in ordered if one.id not in said]
        size = sum(one.id not in said for one in ordered[: need + ahead])
        asked = set(new[: max(size, SMALLEST << (stuck - 1)) if stuck else size])
        before = missing
        for declined, some in prompts.items():
            these = [one for one in some if one.id in asked]
            file = numbered(f"replies-{'declined' if declined else 'helped'}.jsonl", number)
            said |= dict.fromkeys(one.id for one in these)
            said |= _expected(pool, context, these, declined, folder, bar, file)
    there = left(known=True)
    found = list(in_turn(there.values()))
    store.write_jsonl(folder / EXAMPLES, found)
    return {
        "asked": len(said),
        "kept": {str(key): len(some) for key, some in there.items()},
        "note": f"{len(found)} of {len(said)} answers of the model are of the expected kind",
    }


def _prompts(pool: Pool, context: MethodContext, declined: bool) -> list[Example]:
    """What the base can be asked of one kind, categories in turn."""
    module, _, function = PROMPTS[pool.prompts].partition(":")
    each = pool.pool // len(_DECLINED[pool.source])
    made = getattr(import_module(module), function)(each, declined, context.seed)
    kind, source = ("declined", REFUSED) if declined else ("helped", HELPED)
    asked = [
        Example(f"{kind}-{n}", (Message("user", text),), None, source, {"category": category})
        for n, (category, text) in enumerate(made)
    ]
    return [one for one in asked if context.leaks.find(one) is None]


def _expected(
    pool: Pool,
    context: MethodContext,
    asked: Sequence[Example],
    declined: bool,
    folder: Path,
    bar: Progress,
    file: str,
) -> dict[str, Example]:
    """Answers of the kind that was expected, by the id of what was asked."""
    pairs = _finished(pool, context, asked, folder, bar, file)
    verdicts = build_judge("refusal").judge([(one, answered(said)) for one, said in pairs])
    wanted = "refused" if declined else "answered"
    return {
        example.id: learned(example, reply, example.source)
        for (example, reply), verdict in zip(pairs, verdicts, strict=True)
        if verdict.label == wanted
    }


def _dialogues(
    pool: Pool, context: MethodContext, need: int, folder: Path, bar: Progress
) -> Mapping[str, object]:
    """Let the base write questions and answer them; keep what is finished."""
    blank = [
        Example(f"dialogue-{number}", (Message("user", ""),), meta={"continue": "user"})
        for number in range(pool.pool)
    ]
    sampling = Sampling(
        max_new_tokens=pool.max_new_tokens, temperature=pool.temperature, seed=context.seed
    )
    written: list[Reply] = []
    answers: dict[str, Example | None] = {}

    def work(number: int, start: int, end: int) -> float:
        file = numbered("questions.jsonl", number)
        written.extend(context.ask(blank[start:end], sampling, folder, bar, file))
        new = [one for one in questions(context.leaks, written)[0] if one.id not in answers]
        file = numbered("replies-dialogue.jsonl", number)
        pairs = _finished(pool, context, new, folder, bar, file)
        answers.update(dict.fromkeys(one.id for one in new))
        answers.update({one.id: learned(one, said, "own dialogue") for one, said in pairs})
        return len(pairs)

    asked = in_rounds(pool.pool, need, need, work)
    found = [one for one in answers.values() if one is not None]
    unused = questions(context.leaks, written)[1]
    if lost := len(answers) - len(found):
        unused["answer unfinished"] = lost
    store.write_jsonl(folder / EXAMPLES, found)
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(unused.items()))
    kept = f"{len(found)} of {asked} dialogues of the model with itself kept"
    return {
        "asked": asked,
        "kept": {"dialogue": len(found)},
        "left_out": unused,
        "note": kept + (f" (left out: {reasons})" if reasons else ""),
    }


def _finished(
    pool: Pool,
    context: MethodContext,
    asked: Sequence[Example],
    folder: Path,
    bar: Progress,
    file: str,
) -> list[tuple[Example, Reply]]:
    """Questions with the base's greedy answers, as far as those came to an end."""
    replies = context.ask(asked, _greedy(pool), folder, bar, file) if asked else []
    return [
        (question, reply)
        for question, reply in zip(asked, replies, strict=True)
        if reply.finish == "stop" and answered(reply).text.strip()
    ]


def _greedy(pool: Pool) -> Sampling:
    return Sampling(max_new_tokens=pool.max_new_tokens)


def _file(pool: Pool) -> list[Example]:
    return from_file(pool.path or "")


def from_file(path: str) -> list[Example]:
    """The prompts and answers of a file of the user's.

    Raises:
        DataError: it is missing or malformed, or a row has no answer to learn.
    """
    file = Path(path).expanduser()
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
