"""Runs one chat template: in transformers' sandbox, bounded, and told one fixed date.

The environment is transformers' own, so that the text is what transformers, and whoever serves the
model with it, would render. Two things differ: the clock stands still, and a template that does not
come to an end is stopped.
"""

from __future__ import annotations

import datetime
import functools
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
MAX_POWER, MAX_TEMPLATE = 64, 500_000
MAX_SECONDS = 1.0
"""Of work of one rendering; it takes a thousandth of that."""
WIDE = re.compile(r"\d{6}|%[^a-zA-Z%]*\*|\{[^{}]*\{")
"""What a pattern for numbers looks like that fills a memory with blanks."""
JOINED = "holdfast_joined"
MOST_ENTRIES = 100_000
"""That the sandbox lets `range` have."""
ENTRY = 10
"""Characters that an entry of a list counts for."""
GROWING = {
    "center", "format", "indent", "join", "batch", "slice", "replace", "wordwrap", "tojson",
    "string", "pprint",
}  # fmt: skip
"""Filters whose result may be far longer than what they are given."""
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
        given = {CLOCK: day.strftime, **variables, ROUNDS: _Rounds(), JOINED: _joined}
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
        for joint in list(tree.find_all(nodes.Concat)):
            parts = [nodes.Call(nodes.Name(JOINED, "load"), joint.nodes, [], None, None)]
            joint.nodes = [part.set_lineno(joint.lineno) for part in parts]
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

        if len(self.text) > MAX_TEMPLATE:
            raise ModelError(
                f"the chat template has {len(self.text):,} characters; no model needs more than "
                f"{MAX_TEMPLATE:,}",
                where="chat template",
                remedy=REMEDY,
            )
        try:
            yield
        except TemplateSyntaxError as error:
            line = self.text.splitlines()[error.lineno - 1 : error.lineno] or [""]
            raise ModelError(
                f"the chat template is broken: {error.message}, at: {line[0].strip()[:80]}",
                where=f"chat template, line {error.lineno}",
                remedy=REMEDY,
            ) from error
        except ModelError:
            raise
        except (RecursionError, MemoryError, ValueError, SyntaxError) as error:
            raise ModelError(
                "the chat template is nested too deep, or holds what no program can",
                where="chat template",
                remedy=REMEDY,
            ) from error


class _Rounds:
    """Counts the rounds of all loops and the calls of one rendering, and the time they take."""

    def __init__(self) -> None:
        self._left, self._until = MAX_ROUNDS, time.thread_time() + MAX_SECONDS

    def __call__(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.one_more()
            yield item

    def one_more(self) -> None:
        self._left -= 1
        if self._left < 0 or (self._left % 64 == 0 and time.thread_time() > self._until):
            raise EndlessTemplate


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
    """Transformers' own sandbox, in which time and the size of every text are bounded too."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    made = _compile_jinja_template("{# the environment of Holdfast #}").environment
    plain_operator, plain_call = made.call_binop, made.call

    def operator(context: Any, sign: str, left: Any, right: Any) -> Any:
        _check_operator(sign, left, right)
        return plain_operator(context, sign, left, right)

    def call(context: Any, function: Any, *args: Any, **named: Any) -> Any:
        rounds = context.get(ROUNDS)
        owner = getattr(getattr(function, "__wrapped__", function), "__self__", None)
        if rounds is not None:
            rounds.one_more()
        if isinstance(owner, str):
            _check_sizes(function.__name__, owner, [*args, *named.values()])
        return plain_call(context, function, *args, **named)

    made.intercepted_binops = frozenset({"**", "*", "+", "%"})
    made.call_binop, made.call = operator, call
    made.globals.pop("lipsum", None)  # text without end, which nobody needs
    made.finalize = _written
    for name in GROWING & set(made.filters):
        made.filters[name] = _bounded_filter(name, made.filters[name])
    return made


def _check_operator(sign: str, left: Any, right: Any) -> None:
    """Refuse an operation whose result would fill the memory.

    Raises:
        EndlessTemplate: it would.
    """
    size = 0
    if sign == "**":
        size = MAX_LENGTH * (abs(left) >= MAX_LENGTH or abs(right) > MAX_POWER)
    elif sign == "*" and isinstance(left, int) and isinstance(right, int):
        size = left.bit_length() + right.bit_length()
    elif sign == "*":
        size = _size(left) * right if isinstance(right, int) else 0
        size = _size(right) * left if isinstance(left, int) else size
    elif sign == "+":
        size = _size(left) + _size(right)
    elif sign == "%" and isinstance(left, str):
        _check_sizes("format", left, (right,))
        size = _size(right)
    if size >= MAX_LENGTH:
        raise EndlessTemplate


def _check_sizes(name: str, text: Any, given: Sequence[Any]) -> None:
    """Refuse a method or filter whose result would fill the memory.

    Args:
        name: of it.
        text: that it is applied to; of whatever kind.
        given: to it.

    Raises:
        EndlessTemplate: widths without end (`center`, `%9999999999d`), or texts times texts.
    """
    texts = [one for one in given if isinstance(one, str)]
    size = max((abs(one) for one in given if isinstance(one, int)), default=0)
    if name in ("format", "format_map") and isinstance(text, str) and WIDE.search(text):
        size = MAX_LENGTH
    elif name == "replace":
        size = max(size, _size(text) * max(map(len, texts[1:]), default=0) // len(texts[0] or "x"))
    elif name == "join":
        parts, mark = (
            (given[0] if given else "", [text]) if isinstance(text, str) else (text, texts)
        )
        count = len(parts) if hasattr(parts, "__len__") else MOST_ENTRIES
        size = _size(parts) + count * len((mark or [""])[0])
    elif name in ("tojson", "string", "pprint"):
        size = max(size, _size(text))
    if size >= MAX_LENGTH:
        raise EndlessTemplate


def _size(value: Any) -> int:
    """Characters that a value has when it is written out; past `MAX_LENGTH` it is not counted."""
    size, todo = 0, [value]
    while todo and size < MAX_LENGTH:
        one = todo.pop()
        if isinstance(one, Mapping):
            todo += [*one, *one.values()]
        elif isinstance(one, list | tuple):
            size += ENTRY * len(one)
            todo += one if size < MAX_LENGTH else ()
        else:
            size += len(one) if isinstance(one, str) else 1
    return size


def _bounded_filter(name: str, plain: Any) -> Any:
    """A filter that refuses what would fill the memory."""
    first = 1 if hasattr(plain, "jinja_pass_arg") else 0

    @functools.wraps(plain)
    def bounded(*args: Any, **named: Any) -> Any:
        _check_sizes(name, args[first], [*args[first + 1 :], *named.values()])
        return plain(*args, **named)

    return bounded


def _joined(*parts: Any) -> str:
    """What `~` makes of its sides."""
    return "".join(str(part) for part in _written(parts))


def _written(value: Any) -> Any:
    """The value itself, if writing it out comes to an end.

    Raises:
        EndlessTemplate: it does not.
    """
    if _size(value) >= MAX_LENGTH:
        raise EndlessTemplate
    return value
