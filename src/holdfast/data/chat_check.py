"""Checks, with the tokenizer alone, that a template shows a model all that the data holds.

Run before any weights are loaded, on a sample of the training set and on every kind of prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from holdfast.data import chat
from holdfast.data.chat_settings import settings_of
from holdfast.data.encoding import TrainOn, encode
from holdfast.data.rendering import reasoning_of, thinking
from holdfast.data.shown import kinds_of, left_out
from holdfast.data.spans import lay_out
from holdfast.data.templates import ChatTemplate, template_of
from holdfast.errors import DataError, ModelError, TrainingError
from holdfast.registry import nearest
from holdfast.types import Example

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SAMPLE = 128
"""Examples that are encoded, evenly spread; what can be seen in the text is seen in all."""
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
        for example in kinds_of(one for one in examples if one.messages):
            found |= dict.fromkeys(left_out(tokenizer, example, True))
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
    talks = [one for one in examples if one.messages]
    if not talks:  # a tokenizer of plain text may have no template
        return []
    said, total, state = [], len(examples), thinking(tokenizer)
    about = talks if state.on is not None else []
    thoughtful = sum(bool(reasoning_of(one.answer)[0]) for one in about)
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
    ends = [str(one) for one in tokenizer.convert_ids_to_tokens(sorted(how.stops)) if one]
    broken = sum(_holds(one, ends) for one in talks)
    if broken:
        said.append(
            f"{broken:,} of {total:,} examples have an end-of-turn token ({', '.join(ends)}) in "
            "their text: the model reads it as the end of a turn"
        )
    return said


def _holds(example: Example, ends: Sequence[str]) -> bool:
    said = example.target or ""
    return any(end in said or any(end in one.content for one in example.messages) for end in ends)
