"""Tells what a model thinks from what it answers.

Models that think write the thought before the answer, between markers that differ by family; a
template may have opened the thought in the prompt already, so that only its end is in the reply,
and a reply that was cut off may hold no end. Only a thought at the beginning of a reply counts:
whoever *speaks* of ``<think>``, in backticks, quotes or code, has not thought. Everything here is
pure, and a reply without a thought comes back as it was.
"""

from __future__ import annotations

import re
from bisect import bisect, bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from holdfast.data.thinking_marks import (
    BARE_HARMONY,
    CLOSING,
    FINAL,
    GRANITE,
    LEAD,
    MARKER,
    MESSAGE,
    NEEDED,
    OPENING,
    SPOKEN_OF,
    WRAPS,
)
from holdfast.types import Example, Reply

VERSION: Final = "1"
"""Raised whenever a reply would be cut differently."""
OPEN: Final = "<think>\n"
CLOSE: Final = "\n</think>\n\n"
CUT_OFF: Final = "cut off while thinking"

_FENCE: Final = re.compile(r"^[ \t]*(?:```|~~~)", re.MULTILINE)
_QUOTES: Final = {'"': '"', "'": "'", "“": "”", "‘": "’", "«": "»", "„": "“", "「": "」"}
NEAR: Final = 400
"""Letters around a marker that are looked at for quotes."""
WORDS: Final = 3
"""A further thought in the middle of a line has so many words at least."""


@dataclass(frozen=True, slots=True)
class Thought:
    """A reply taken apart.

    Attributes:
        thinking: what was thought, without markers; "" for nothing.
        answer: what was said; the whole reply, unchanged, where there are no markers.
        closed: whether the thinking came to its end; true where there is none.
        blocks: the single thoughts, empty ones included; () where there are no markers.
    """

    thinking: str
    answer: str
    closed: bool = True
    blocks: tuple[str, ...] = ()


def split(text: str) -> Thought:
    """Take a reply apart into what was thought and what was answered."""
    if not NEEDED.search(text):
        return Thought("", text)
    found = _channels(text)
    if found is None and (start := _begins(text)) is not None:
        found = _blocks(text, start)
    return found or _closed_only(text) or _phrases(text) or Thought("", text)


def answered(reply: Reply, found: Thought | None = None) -> Reply:
    """The reply without what was thought: what is graded, judged and scored.

    Args:
        reply: as it is stored.
        found: what `split` makes of its text, where that is known already.
    """
    found = found or split(reply.text)
    return replace(reply, text=found.answer) if found.blocks else reply


def unfinished(reply: Reply, found: Thought) -> bool:
    """Whether a reply was cut off while the model was still thinking, before any answer.

    Args:
        reply: as it is stored.
        found: what `split` makes of its text.
    """
    if found.answer.strip():
        return False
    return not found.closed or (reply.finish == "length" and reply.thinking_tokens > 0)


def tokens_of(reply: Reply, found: Thought) -> int | None:
    """How many tokens were thought; by the share of the letters where nobody counted.

    Args:
        reply: as it is stored.
        found: what `split` makes of its text.

    Returns:
        None where the length of the reply is not known either.
    """
    if reply.thinking_tokens or not found.thinking:
        return reply.thinking_tokens
    letters = len(found.thinking) + len(found.answer)
    return round(reply.n_tokens * len(found.thinking) / letters) if reply.n_tokens else None


def learned(example: Example, reply: Reply, source: str) -> Example:
    """The example with a model's reply as its answer to learn; its thinking is kept beside it.

    Args:
        example: what was asked.
        reply: the answer, as it is stored.
        source: see `Example`.
    """
    found = split(reply.text)
    extra = {"reasoning_content": found.thinking} if found.thinking else {}
    return replace(example, target=found.answer.strip(), source=source, extra=extra)


def written(thinking: str, answer: str, closed: bool = True) -> str:
    """A reply of thinking and answer, in the one form in which engines keep it.

    Args:
        thinking: without markers; "" for none.
        answer: what was said.
        closed: whether the thinking came to its end.
    """
    if not closed:
        return OPEN + thinking
    return OPEN + thinking + CLOSE + answer if thinking else answer


def _begins(text: str) -> int | None:
    """Where the opening of a thought stands that a reply begins with."""
    at = 0
    while (opening := OPENING.match(text, at)) is None:
        lead = LEAD.match(text, at)
        if lead is None:
            return None
        at = lead.end()
    return None if SPOKEN_OF.match(text, opening.end()) else at


def _blocks(text: str, start: int) -> Thought:
    """A reply that begins with a thought; others may follow in it."""
    fences = _fences(text)
    blocks: list[str] = []
    said: list[str] = []
    after, at = start, OPENING.match(text, start)
    while at is not None:
        said.append(text[after : at.start()])
        end = _end(text, at.end(), fences)
        if end is None:
            blocks.append(text[at.end() :].strip())
            return _thought(blocks, "".join(said), False)
        blocks.append(text[at.end() : end[0]].strip())
        after = end[1]
        at = _further(text, after, fences)
    return _thought(blocks, "".join(said) + text[after:], True)


def _thought(blocks: list[str], said: str, closed: bool) -> Thought:
    thinking = "\n\n".join(filter(None, blocks))
    return Thought(thinking, _unwrapped(said.lstrip()), closed, tuple(blocks))


def _end(text: str, start: int, fences: Sequence[int]) -> tuple[int, int] | None:
    """Where the thought that was opened before `start` ends, and where what follows begins."""
    depth, last, in_code = 1, None, None
    for one in MARKER.finditer(text, start):
        if _quoted(text, one):
            continue
        if OPENING.fullmatch(one[0]):
            depth += 1
        elif _fenced(one, start, fences):
            in_code = one
        else:
            depth, last = depth - 1, one
        if depth == 0:
            break
    last = last or in_code  # where depth is left, an opening inside was only spoken of
    return None if last is None else last.span()


def _further(text: str, start: int, fences: Sequence[int]) -> re.Match[str] | None:
    """Where another thought begins in what follows a thought."""
    closes = True
    for one in OPENING.finditer(text, start):
        if _quoted(text, one) or _fenced(one, start, fences):
            continue
        line = max(start, text.rfind("\n", start, one.start()))
        if not text[line : one.start()].strip():
            return one
        end = _end(text, one.end(), fences) if closes else None
        closes = end is not None
        if end and len(text[one.end() : end[0]].split()) >= WORDS:
            return one
    return None


def _closed_only(text: str) -> Thought | None:
    """A reply whose thought was opened in the prompt: no opening, and one end."""
    final = [one for one in FINAL.finditer(text) if not _quoted(text, one)]
    ends = final if len(final) == 1 else list(_told(text, CLOSING))
    if not ends or any(one.start() < ends[0].start() for one in _told(text, OPENING)):
        return None
    first, last = ends[0], ends[0]
    for one in ends[1:]:
        if text[last.end() : one.start()].strip():
            return None
        last = one
    if _fenced(first, 0, _fences(text)) or SPOKEN_OF.match(text, last.end()):
        return None
    return _thought([text[: first.start()].strip()], text[last.end() :], True)


def _told(text: str, marker: re.Pattern[str]) -> Iterator[re.Match[str]]:
    return (one for one in marker.finditer(text) if not _quoted(text, one))


def _channels(text: str) -> Thought | None:
    """A reply in messages, each of which says its channel."""
    at = 0
    while not text.startswith("<|channel|>", at):
        lead = LEAD.match(text, at)
        if lead is None:
            return None
        at = lead.end()
    said: list[str] = []
    blocks: list[str] = []
    last = ""
    for one in MESSAGE.finditer(text, at):
        last = one[1]
        (said if last == "final" else blocks).append((one[2] or "").strip("\n"))
    over = last == "final" or text.rstrip().endswith(("<|end|>", "<|return|>", "<|call|>"))
    return _thought(blocks or [""], "".join(said), over)


def _phrases(text: str) -> Thought | None:
    """A reply that says in words where the thought ends."""
    found = BARE_HARMONY.fullmatch(text) or GRANITE.fullmatch(text)
    return _thought([found[1].strip()], found[2], True) if found else None


def _unwrapped(answer: str) -> str:
    """An answer without the marks that some models put around the whole of it."""
    for start, end in WRAPS:
        if answer.startswith(start):
            inside, closed, after = answer[len(start) :].partition(end)
            return answer if closed and after.strip() else inside.strip()
    return answer


def _quoted(text: str, one: re.Match[str]) -> bool:
    """Whether a marker stands in quotes or in code within a line: it is spoken of."""
    before = text[max(0, one.start() - NEAR) : one.start()].rpartition("\n")[2]
    after = text[one.end() : one.end() + NEAR].partition("\n")[0]
    if before.count("`") % 2 and "`" in after:
        return True
    opens = len(before) < 2 or not before[-2].isalnum()
    return bool(before) and opens and after[:1] == _QUOTES.get(before[-1], "\0")


def _fences(text: str) -> list[int]:
    """Where blocks of code begin and end."""
    return [one.start() for one in _FENCE.finditer(text)]


def _fenced(one: re.Match[str], start: int, fences: Sequence[int]) -> bool:
    """Whether a marker stands in a block of code, in the text from `start` on."""
    before = bisect(fences, one.start())
    return (before - bisect_left(fences, start)) % 2 == 1 and before < len(fences)
