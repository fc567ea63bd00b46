"""Can the tokenizer spell what is learned, and the text that is scored?

Part of `holdfast.study.preflight`. A tokenizer without an unknown token spells everything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast import models
from holdfast.analysis.selection.rule import UNSCORED_LIMIT
from holdfast.data.encoding import IDS
from holdfast.data.windows import TEXT, text_ids
from holdfast.errors import DataError
from holdfast.study.session import Session
from holdfast.types import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOOKED = 64
"""Documents of a task, and examples of the training set, that are looked at, evenly spread."""
READ = 4000
"""Characters of each turn of an example."""


def texts(session: Session) -> list[str]:
    """Refuse text of which too much would go unscored, or be learned as the unknown token.

    Raises:
        DataError: naming the task, and how many documents the tokenizer cannot spell.
    """
    asked = [one for one in session.measuring.asked.items() if any(TEXT in e.meta for e in one[1])]
    if not (asked or session.plain):
        return []
    tokenizer = models.load_tokenizer(session.plan.model, chats=False)
    if tokenizer.unk_token_id is None:
        return []
    for name, documents in asked:
        some = _spread(documents)
        unknown = sum(_unknown(tokenizer, one.messages[-1].content) for one in some)
        if unknown > UNSCORED_LIMIT * len(some):
            raise DataError(
                f"{unknown} of {len(some)} documents hold characters that the tokenizer does not "
                "know, so they could not be scored",
                where=f"tasks.{name}",
                remedy="name texts in the model's own language and script, or take the task out",
            )
    return _learned(session, tokenizer)


def _learned(session: Session, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """A notice of examples with characters that are learned as the unknown token, where few are.

    Raises:
        DataError: many are.
    """
    some = _spread(session.plain)
    lacking = [one for one in some if _lacks(tokenizer, one)]
    if not lacking:
        return []
    where = f"tasks.{', '.join(session.study.targets)}"
    what = (
        f"{len(lacking)} of {len(some)} training examples hold characters that the tokenizer does "
        f"not know, and which are learned as {tokenizer.unk_token} (the first is {lacking[0].id})"
    )
    if len(lacking) > UNSCORED_LIMIT * len(some):
        raise DataError(
            what,
            where=where,
            remedy="train on texts in the model's own language and script, or name a model whose "
            "tokenizer knows these",
        )
    return [f"{where}: {what}."]


def _lacks(tokenizer: PreTrainedTokenizerBase, example: Example) -> bool:
    """Whether what a model reads and learns of an example, turn by turn, cannot be spelled."""
    if IDS in example.meta:  # a window of a text
        return tokenizer.unk_token_id in example.meta[IDS]
    turns = [turn.content for turn in example.messages]
    return any(_unknown(tokenizer, text[:READ]) for text in (*turns, example.target or ""))


def _unknown(tokenizer: PreTrainedTokenizerBase, text: str) -> bool:
    return bool(text) and text_ids(tokenizer, text).unknown > 0


def _spread(items: Sequence[Example]) -> Sequence[Example]:
    return items[:: max(1, len(items) // LOOKED)]
