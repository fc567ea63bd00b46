"""A text as token ids, and the windows in which it is learned or scored; no token is lost.

What is scored is read in strides: each window takes in so many new tokens, and as many old ones
before them as it has room for, so that no token but the first few is guessed without context. What
is learned is cut end to end, the last token of a window being the first of the next, where it bears
no loss: every token of a corpus but its very first is learned once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from holdfast.errors import ModelError, StudyError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEXT = "text_loss"
"""In an example's meta: `window` and `stride` (tokens, or None). Instead of an answer, the reply is
JSON: the loss of the example's only message as a text, in nats, its tokens and how many of them the
tokenizer does not know."""
USUAL = 1024
"""Tokens of a window where nobody says, or as many as the model has positions for."""


@dataclass(frozen=True, slots=True)
class TextIds:
    """A text as a model reads it.

    Attributes:
        ids: the token that opens a text, then those of the text, shape (1 + tokens,).
        unknown: how many of them stand for characters that the tokenizer does not know.
    """

    ids: tuple[int, ...]
    unknown: int


@dataclass(frozen=True, slots=True)
class Window:
    """Tokens `start` to `end` of a text, of which those from `first` on are scored."""

    start: int
    first: int
    end: int


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> TextIds:
    """The tokens of a text, after the one by which the first of them is guessed.

    That one is what the tokenizer puts before every text; where it puts nothing, its
    beginning-of-text token, and where it has none its end-of-text token, which stood before every
    text of the model's training (so does lm-evaluation-harness).

    Raises:
        ModelError: it has neither.
    """
    ids = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    unknown = tokenizer.unk_token_id
    count = 0 if unknown is None else ids.count(unknown)
    return TextIds((opening(tokenizer), *ids), count)


def opening(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token before the first one of a text; see `text_ids`."""
    put = list(tokenizer("")["input_ids"])
    found = put[0] if put else tokenizer.bos_token_id
    found = tokenizer.eos_token_id if found is None else found
    if found is None:
        raise ModelError(
            "the tokenizer has neither bos_token nor eos_token, so nothing stands before the first "
            "token of a text",
            remedy="set eos_token in the model's tokenizer_config.json",
        )
    return int(found)


def fitted(window: int | None, stride: int | None, positions: int | None) -> tuple[int, int]:
    """Window and stride for a model.

    Args:
        window: tokens, as the user wrote it; None: `USUAL`, or as many as the model reads.
        stride: new tokens of a window, likewise; None: half of the window.
        positions: the longest text that the model reads; None: any.

    Raises:
        StudyError: the window is longer than that.
    """
    if window is None:
        window = USUAL if positions is None else min(USUAL, positions)
    if positions is not None and window > positions:
        raise StudyError(
            f"a window of {window:,} tokens is more than the {positions:,} that the model reads",
            remedy=f"set window: {positions}, or leave it out",
        )
    return window, min(stride or window // 2, window - 1)


def strided(tokens: int, window: int, stride: int) -> list[Window]:
    """The windows in which all tokens of a text but the first are scored, each once.

    Args:
        tokens: of the text, the one that opens it included.
        window: tokens read at a time.
        stride: of them that are new, from the second window on; below `window`.

    >>> strided(10, 4, 2)[:2]
    [Window(start=0, first=1, end=4), Window(start=2, first=4, end=6)]
    """
    found: list[Window] = []
    done = 1
    while done < tokens:
        end = min(tokens, done + (stride if found else window - 1))
        found.append(Window(max(0, end - window), done, end))
        done = end
    return found


def end_to_end(texts: Iterable[Sequence[int]], window: int) -> list[list[int]]:
    """Texts one after another, cut into windows that share the token between them.

    Args:
        texts: token ids of each, with what opens and ends one.
        window: tokens of each piece; the last may be shorter, and has two at least.
    """
    found: list[list[int]] = []
    now: list[int] = []
    for text in texts:
        at = 0
        while at < len(text):
            taken = text[at : at + window - len(now)]
            now += taken
            at += len(taken)
            if len(now) == window:
                found.append(now)
                now = now[-1:]
    return [*found, now] if len(now) > 1 else found
