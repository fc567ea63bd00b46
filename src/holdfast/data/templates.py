"""Runs one chat template: in transformers' sandbox, bounded, and told one fixed date.

The environment is transformers' own, so that the text is what transformers, and whoever serves the
model with it, would render. Two things differ: the clock stands still, and a template that does not
come to an end is stopped.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from holdfast.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CLOCK = "strftime_now"
"""What templates call for today's date."""
ROUNDS = "holdfast_rounds"
MAX_ROUNDS = 1_000_000
"""Of all loops of one rendering together; a long conversation has some hundreds."""
MAX_LENGTH = 10_000_000
"""Of a text or list that a template multiplies."""
MAX_POWER = 64
MARKS = re.compile(r"\{%-?\s*generation\s*-?%\}")
REMEDY = "mend the template, or give another one in model.chat_template"


class EndlessTemplate(Exception):
    """The template goes on and on."""


@dataclass(frozen=True)
class ChatTemplate:
    """A template, compiled.

    Attributes:
        text: its Jinja.
        date: what it is told when it asks for today, ISO 8601.
    """

    text: str
    date: str

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names that it reads from outside, without the sandbox's own functions."""
        from jinja2 import meta

        with self._explained():
            return frozenset(meta.find_undeclared_variables(self._parsed()))

    @property
    def reads_clock(self) -> bool:
        """Whether it asks for today's date."""
        return re.search(rf"\b{CLOCK}\b", self.text) is not None

    def dated(self) -> str:
        """Its text with every call of the clock replaced by what it is told."""
        day = datetime.datetime.fromisoformat(self.date)
        call = rf"{CLOCK}\(\s*(['\"])(.*?)\1\s*\)"
        return re.sub(call, lambda found: repr(day.strftime(found[2])), self.text)

    @property
    def has_marks(self) -> bool:
        """Whether it says itself what a model generates."""
        return MARKS.search(self.text) is not None

    def render(self, variables: Mapping[str, Any]) -> tuple[str, list[tuple[int, int]]]:
        """The text, and the places in it that the template marks as generated.

        Raises:
            EndlessTemplate: it does not come to an end.
            Exception: whatever the template raises, e.g. on a system turn.
        """
        day = datetime.datetime.fromisoformat(self.date)
        given = {CLOCK: day.strftime, ROUNDS: _Rounds(), **variables}
        blocks: list[str] = []
        marks: list[tuple[int, int]] = []
        length = 0
        with self._compiled.environment.activate_tracker(blocks, marks):
            for block in self._compiled.generate(given):
                blocks.append(block)
                length += len(block)
                if length > MAX_LENGTH:
                    raise EndlessTemplate
        return "".join(blocks), marks

    @cached_property
    def _compiled(self) -> Any:
        from jinja2 import nodes

        tree = self._parsed()
        for loop in list(tree.find_all(nodes.For)):
            bounded = nodes.Call(nodes.Name(ROUNDS, "load"), [loop.iter], [], None, None)
            loop.iter = bounded.set_lineno(loop.lineno)
        tree.set_environment(_environment())
        with self._explained():
            return _environment().from_string(tree)

    def _parsed(self) -> Any:
        with self._explained():
            return _environment().parse(self.text)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Say on which line Jinja stumbles, over its form or a filter that is not there."""
        from jinja2 import TemplateSyntaxError

        try:
            yield
        except TemplateSyntaxError as error:
            line = self.text.splitlines()[error.lineno - 1 : error.lineno] or [""]
            raise ModelError(
                f"the chat template is broken: {error.message}, at: {line[0].strip()[:80]}",
                where=f"chat template, line {error.lineno}",
                remedy=REMEDY,
            ) from error


class _Rounds:
    """Counts the rounds of all loops of one rendering."""

    def __init__(self) -> None:
        self._left = MAX_ROUNDS

    def __call__(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._left -= 1
            if self._left < 0:
                raise EndlessTemplate
            yield item


@lru_cache(maxsize=64)
def compiled(text: str, date: str) -> ChatTemplate:
    """The template of that text.

    Raises:
        ModelError: its Jinja is broken; with the line.
    """
    found = ChatTemplate(text, date)
    _ = found.variables, found._compiled  # complain now
    return found


def template_of(tokenizer: PreTrainedTokenizerBase, tools: bool, date: str) -> ChatTemplate | None:
    """The template that a tokenizer uses; None where it renders by code of its own.

    Args:
        tokenizer: whose templates may have names (``default``, ``tool_use``).
        tools: functions are offered, for which there may be a template of its own.
        date: see `ChatTemplate`.

    Raises:
        ModelError: it has none, or several without a default.
    """
    from transformers import PreTrainedTokenizerBase

    if type(tokenizer).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template:
        return None
    try:
        text = tokenizer.get_chat_template(None, [{}] if tools else None)
    except ValueError as error:
        names = sorted(tokenizer.chat_template) if isinstance(tokenizer.chat_template, dict) else []
        raise ModelError(
            f"has chat templates by the names {', '.join(names)}, and none is the default"
            if names
            else "its tokenizer has no chat template",
            where=str(tokenizer.name_or_path),
            remedy="give one in model.chat_template",
        ) from error
    return compiled(text, date)


@lru_cache(maxsize=1)
def _environment() -> Any:
    """Transformers' own sandbox, in which multiplying and powers are bounded too."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    made = _compile_jinja_template("{# the environment of Holdfast #}").environment
    plain = made.call_binop

    def bounded(context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and not (abs(left) < MAX_LENGTH and abs(right) <= MAX_POWER):
            raise EndlessTemplate
        if operator == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(one, str | list | tuple) and len(one) * times > MAX_LENGTH:
                    raise EndlessTemplate
        return plain(context, operator, left, right)

    made.intercepted_binops = frozenset({"**", "*"})
    made.call_binop = bounded
    return made
