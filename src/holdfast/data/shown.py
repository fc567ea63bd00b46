"""Finds what a chat template leaves out of a conversation, by trying it.

A template that leaves something out says nothing. A word of its own is put into every turn and
field, and looked for in what comes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from holdfast.data.chat import asked_ids
from holdfast.data.rendering import THOUGHTS, render, thinking
from holdfast.data.spans import lay_out
from holdfast.errors import ModelError
from holdfast.types import Example, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHAPES = 48
"""Kinds of conversations that are tried."""


def check_asked(tokenizer: PreTrainedTokenizerBase, examples: Iterable[Example]) -> list[str]:
    """Render every kind of prompt once, and see that all of it is shown.

    Raises:
        ModelError: the template refuses the turns, or leaves some out.
    """
    said: dict[str, None] = {}
    for example in kinds_of(one for one in examples if _in_turns(one)):
        asked_ids(tokenizer, example)
        said |= dict.fromkeys(left_out(tokenizer, example, False))
    return list(said)


def _in_turns(example: Example) -> bool:
    return bool(example.messages) and not example.meta.get("continue")


def kinds_of(examples: Iterable[Example]) -> list[Example]:
    """One example of each kind: the same roles in the same order, with the same fields."""
    found: dict[tuple[object, ...], Example] = {}
    for example in examples:
        kind = tuple((one.role, *one.extra, one.content.isspace() or not one.content)
                     for one in example.messages)  # fmt: skip
        said = example.target
        last = None if said is None else (*example.extra, said.isspace() or not said)
        found.setdefault((kind, last, bool(example.tools)), example)
        if len(found) == SHAPES:
            break
    return list(found.values())


class _Words:
    """Puts a word of its own into every place of an example, and knows what the place is."""

    def __init__(self) -> None:
        self.places: dict[str, tuple[str, bool]] = {}

    def word(self, place: str, must: bool) -> str:
        """A new word; nine letters and digits, as some templates want the ids of calls."""
        found = f"hf{len(self.places):07d}"
        self.places[found] = (place, must)
        return found

    def turn(self, message: Message, last: bool) -> Message:
        """The turn with words in its content and its fields."""
        calls = message.extra.get("tool_calls")
        content = message.content
        if content.strip():
            place = f"the content of {message.role} turns" + (" beside a call" if calls else "")
            content = self.word(place, not calls)
        extra: dict[str, Any] = {}
        for name, value in message.extra.items():
            if name in THOUGHTS:
                where = "of the answer" if last else "of earlier answers"
                extra[name] = self.word(f"{name} {where}", last) if value else value
            elif name == "tool_calls":
                extra[name] = [self._call(one) for one in value or ()]
            elif isinstance(value, str) and value:
                extra[name] = self.word(f"{name!r} of {message.role} turns", False)
            else:
                extra[name] = value
        return Message(message.role, content, extra)

    def _call(self, call: Any) -> Any:
        if not isinstance(call, Mapping):
            return call
        if isinstance(call.get("function"), Mapping):
            found = {**call, "function": self._call(call["function"])}
        else:
            name = self.word("the name of a called function", True)
            argument = self.word("the arguments of a called function", True)
            found = {**call, "name": name, "arguments": {"argument": argument}}
        return {**found, "id": self.word("'id' of calls", False)} if "id" in call else found

    def tool(self, tool: Mapping[str, Any]) -> Mapping[str, Any]:
        """The schema of a function with a word for its name."""
        if isinstance(tool.get("function"), Mapping):
            return {**tool, "function": self.tool(tool["function"])}
        return {**tool, "name": self.word("tools", True)} if "name" in tool else tool


def left_out(tokenizer: PreTrainedTokenizerBase, example: Example, answered: bool) -> list[str]:
    """What the template does not show of an example, in sentences.

    Raises:
        ModelError: it is something that must be shown.
    """
    words = _Words()
    turns = [words.turn(one, False) for one in example.messages]
    tools = tuple(words.tool(one) for one in example.tools)
    if answered:
        probe = Example(example.id, tuple(turns), "")
        answer = words.turn(example.answer, True)
        probe = replace(probe, target=answer.content, tools=tools, extra=answer.extra)
        text = lay_out(tokenizer, probe, False).text
    else:
        text = render(tokenizer, turns, tools, prompt=True).text
    off = thinking(tokenizer, bool(tools)).on is False
    missing = [place for word, place in words.places.items() if word not in text]
    said = []
    for place, must in dict.fromkeys(missing):
        thought = place.split()[0] in THOUGHTS
        if must and not (thought and off):
            raise ModelError(
                f"the chat template does not show {place}, so they would be dropped without a word "
                f"(example {example.id})",
                remedy="give a template that shows them in model.chat_template"
                + (", or put the thinking into the answer as <think>…</think>" if thought
                   else ", or leave them out of the data"),
            )  # fmt: skip
        if not thought or not off:
            said.append(f"the chat template does not show {place}")
    return said
