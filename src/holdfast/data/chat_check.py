"""Checks, with the tokenizer alone, that a template shows a model all that the data holds.

Run before any weights are loaded. A template that leaves something out says nothing: it is found
by putting a word of its own into every turn and field, and looking for it in what comes out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holdfast.data import chat
from holdfast.data.chat_settings import settings_of
from holdfast.data.encoding import TrainOn, encode
from holdfast.data.rendering import THOUGHTS, reasoning_of, render, thinking
from holdfast.data.templates import ChatTemplate, template_of
from holdfast.data.turns import lay_out
from holdfast.errors import DataError, ModelError, TrainingError
from holdfast.registry import nearest
from holdfast.types import Example, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLE = 128
"""Examples that are encoded, evenly spread; what can be seen in the text is seen in all."""
SHAPES = 48
"""Kinds of conversations that are tried with words in every place."""
STITCHED = (
    "the chat template asks otherwise than it shows answers (a thinking block stands in the prompt "
    "only): answers are learned as they follow the prompt"
)
MELTED = (
    "the first characters of some answers would melt into one token with the end of the prompt: "
    "they are tokenised for themselves, as the model writes them"
)
RESTYLED = (
    "the chat template shows earlier answers without the thinking block that it asks with: "
    "train_on: all learns them as they stand in the conversation"
)
GIVEN = {"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token"}


@dataclass(frozen=True, slots=True)
class Learned:
    """How examples are learned; see `encode`."""

    stops: frozenset[int]
    completion_only: bool = True
    cut_header: bool = False
    train_on: TrainOn = "last"


def about_template(tokenizer: PreTrainedTokenizerBase, name: str = "") -> list[str]:
    """What a reader must know of how this model is asked.

    Args:
        tokenizer: with its template and the study's settings.
        name: of the model, where there are several.

    Raises:
        ModelError: the template is broken, or cannot do what the study asks for.
    """
    settings, who = settings_of(tokenizer), f"{name}: " if name else ""
    template = template_of(tokenizer, False, settings.date)
    if template is None:
        return [f"{who}its tokenizer renders conversations by code of its own, without a template"]
    _unread(template, tokenizer, settings.kwargs)
    said, state = [], thinking(tokenizer)
    if template.reads_clock and not _told_a_date(settings.kwargs):
        said.append(
            f"{who}the chat template reads the clock; it is told {settings.date}, in training and "
            "asking alike (model.date)"
        )
    if state.switch is not None:
        how = "on" if state.on else "off"
        said.append(
            f"{who}the model can think before it answers; it is asked with thinking {how} "
            f"({state.switch}), in training and asking alike (model.thinking)"
        )
    elif state.on:
        said.append(
            f"{who}the chat template opens the thinking itself ({state.opened}) and has no switch "
            "for it: the model is asked to think, before and after training alike"
        )
    elif settings.thinking is False:
        said.append(f"{who}the chat template has no switch for thinking; model.thinking: false "
                    "changes nothing")  # fmt: skip
    return said


def _unread(
    template: ChatTemplate, tokenizer: PreTrainedTokenizerBase, kwargs: Mapping[str, Any]
) -> None:
    known = template.variables
    if isinstance(tokenizer.chat_template, dict):
        tools = template_of(tokenizer, True, template.date)
        known |= tools.variables if tools else frozenset()
    for name in kwargs:
        if name not in known:
            own = sorted(known - GIVEN)
            raise ModelError(
                f"the chat template never reads {name!r}{nearest(name, own)}",
                where=f"model.template_kwargs.{name}",
                remedy=f"it reads: {', '.join(own) or 'nothing but the conversation'}",
            )


def _told_a_date(kwargs: Mapping[str, Any]) -> bool:
    return any("date" in name for name in kwargs)


def check_asked(tokenizer: PreTrainedTokenizerBase, examples: Iterable[Example]) -> list[str]:
    """Render every kind of prompt once, and see that all of it is shown.

    Raises:
        ModelError: the template refuses the turns, or leaves some out.
    """
    said: dict[str, None] = {}
    for example in _kinds(one for one in examples if _in_turns(one)):
        chat.asked_ids(tokenizer, example)
        said |= dict.fromkeys(_left_out(tokenizer, example, False))
    return list(said)


def _in_turns(example: Example) -> bool:
    return bool(example.messages) and not example.meta.get("continue")


def check_learned(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], how: Learned
) -> list[str]:
    """Look at a training set as it will be learned.

    Args:
        tokenizer: with its template and the study's settings.
        examples: the plain training set.
        how: the study learns them.

    Returns:
        Notices, in sentences.

    Raises:
        DataError: an example that cannot be learned, or not whole.
        ModelError: the template cannot show the examples.
    """
    found: dict[str, None] = {}
    try:
        for example in examples:
            if not (example.target or "").strip() and not example.extra.get("tool_calls"):
                encode(tokenizer, example, how.stops)  # says what is wrong with it
        for example in _kinds(one for one in examples if one.messages):
            found |= dict.fromkeys(_left_out(tokenizer, example, True))
        for example in examples[:: max(1, len(examples) // SAMPLE)]:
            found |= dict.fromkeys(_encoded(tokenizer, example, how))
    except TrainingError as error:
        raise DataError(error.message, where=error.where, remedy=error.remedy) from error
    return [*found, *_counted(tokenizer, examples, how)]


def _encoded(tokenizer: PreTrainedTokenizerBase, example: Example, how: Learned) -> list[str]:
    """What the first tokens of an example say, against what the template renders."""
    row = encode(tokenizer, example, how.stops, how.completion_only, how.cut_header, how.train_on)
    if not example.messages or how.cut_header:
        return []
    asked = chat.asked_ids(tokenizer, replace(example, meta={}))
    if list(row.ids[: row.start]) != asked:
        raise ModelError(
            f"example {example.id} would be learned after another prompt than the model is asked "
            "with",
            remedy="give another template in model.chat_template",
        )
    said: list[str] = []
    talk = lay_out(tokenizer, example, how.train_on == "all")
    if not talk.own:
        said.append(STITCHED)
    else:
        whole = tokenizer(talk.text, add_special_tokens=False)["input_ids"]
        if list(whole[: len(row.ids)]) != list(row.ids):
            said.append(MELTED)
    if talk.restyled:
        said.append(RESTYLED)
    return said


def _counted(
    tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], how: Learned
) -> list[str]:
    """What can be seen in all examples without encoding them."""
    said, total, state = [], len(examples), thinking(tokenizer)
    talks = [one for one in examples if one.messages]
    thoughtful = sum(bool(reasoning_of(one.answer)[0]) for one in talks)
    if state.on is False and thoughtful:
        said.append(
            f"{thoughtful:,} of {total:,} training answers have thinking, which is left out, "
            "because the model is asked without (model.thinking: true keeps it)"
        )
    if state.on and thoughtful < len(talks):
        said.append(
            f"{len(talks) - thoughtful:,} of {total:,} training answers have no thinking, though "
            "the model is asked to think: they teach it not to"
        )
    template = template_of(tokenizer, False, settings_of(tokenizer).date)
    developers = sum(any(turn.role == "developer" for turn in one.messages) for one in talks)
    if developers and (template is None or "developer" not in template.text):
        said.append(
            f"{developers:,} of {total:,} examples have a developer turn, which the chat template "
            "does not know: it is shown as a system turn"
        )
    ends = [str(one) for one in tokenizer.convert_ids_to_tokens(sorted(how.stops))]
    broken = sum(any(_holds(turn, ends) for turn in (*one.messages, one.answer)) for one in talks)
    if broken:
        said.append(
            f"{broken:,} of {total:,} examples have an end-of-turn token ({', '.join(ends)}) in "
            "their text: the model reads it as the end of a turn"
        )
    return said


def _holds(turn: Message, ends: Sequence[str]) -> bool:
    return any(end and end in turn.content for end in ends)


def _kinds(examples: Iterable[Example]) -> list[Example]:
    """One example of each kind: the same roles in the same order, with the same fields."""
    found: dict[tuple[object, ...], Example] = {}
    for example in examples:
        turns = example.messages if example.target is None else (*example.messages, example.answer)
        kind = tuple((one.role, *sorted(one.extra), bool(one.content.strip())) for one in turns)
        found.setdefault((kind, bool(example.tools)), example)
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


def _left_out(tokenizer: PreTrainedTokenizerBase, example: Example, answered: bool) -> list[str]:
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
