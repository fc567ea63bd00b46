"""How models are asked: in words, and whether they can be asked so."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from holdfast import models
from holdfast.config import Sampling
from holdfast.data import chat, thinking, thinking_marks
from holdfast.data.windows import TEXT, fitted
from holdfast.endpoint import is_endpoint, parse_url
from holdfast.engines.kept import is_scored
from holdfast.engines.server_fields import told_beyond
from holdfast.errors import located
from holdfast.memory.model.reading import read_shape
from holdfast.methods._rewards import refuse_long
from holdfast.types import Example, ModelRef

FEW_TOKENS = 1024
"""Fewer new tokens are seldom enough to think and to answer."""


def decoding(sampling: Sampling) -> str:
    """How tokens are chosen, in the report's words."""
    said = "greedy"
    if sampling.temperature:
        said = f"temperature {sampling.temperature:g}, top-p {sampling.top_p:g}"
        said += f", top-k {sampling.top_k}" if sampling.top_k else ""
        said += f", min-p {sampling.min_p:g}" if sampling.min_p else ""
    if sampling.repetition_penalty != 1:
        said += f", repetition penalty {sampling.repetition_penalty:g}"
    return said + (f", ended by {', '.join(map(repr, sampling.stop))}" if sampling.stop else "")


def thinking_mark(ref: ModelRef) -> dict[str, object]:
    """How replies are cut, for the identity of what reads them; empty where no model thinks.

    What a model without thinking says is read alike in every version. One on the hub does not tell
    beforehand.
    """
    known = thinking_marks.speaks_of_thinking(_template_text(ref))
    return {"thinking": thinking.VERSION} if known else {}


def check_room(
    ref: ModelRef, samplings: Mapping[str, Sampling], asked: Mapping[str, Sequence[Example]]
) -> list[str]:
    """A notice for every task whose answers may be cut off while the model still thinks.

    Args:
        ref: the model; a server's is not looked at.
        samplings: by task.
        asked: the items of each.

    Raises:
        ModelError: the tokenizer cannot be loaded, or refuses the question.
    """
    short = {
        name: sampling.max_new_tokens
        for name, sampling in samplings.items()
        if sampling.max_new_tokens < FEW_TOKENS and not any(is_scored(one) for one in asked[name])
    }
    if is_endpoint(ref.base) or not short or not _thinks(ref, asked[next(iter(short))]):
        return []
    return [
        f"{name}: the model thinks before it answers, and {most} new tokens may end before the "
        f"answer begins, which is then graded as empty; raise tasks.{name}.sampling.max_new_tokens"
        " or set model.thinking: false."
        for name, most in short.items()
    ]


def check_windows(ref: ModelRef, asked: Mapping[str, Sequence[Example]]) -> list[str]:
    """Text is read in windows that the model can read.

    Args:
        ref: the base.
        asked: the items of each task.

    Raises:
        StudyError: a window is longer; before anything runs.
    """
    read = {name: some[0].meta[TEXT] for name, some in asked.items() if TEXT in some[0].meta}
    shape = read_shape(ref.base, ref.revision) if read else None
    if shape is not None:
        for name, how in read.items():
            with located(f"tasks.{name}"):
                fitted(how["window"], how["stride"], shape.max_positions)
    return []


def check_drawn(
    ref: ModelRef, drawn: Mapping[str, tuple[str, int]], questions: Sequence[Example]
) -> list[str]:
    """Answers that are drawn in training fit behind the longest question.

    Args:
        ref: the model that draws them.
        drawn: by arm, the method and the new tokens of its longest answer.
        questions: of the training set.

    Raises:
        StudyError: they do not; before anything runs.
    """
    shape = read_shape(ref.base, ref.revision) if drawn else None
    if shape is None:
        return []
    tokenizer = models.load_tokenizer(ref)
    longest = max((len(chat.asked_ids(tokenizer, one)) for one in questions), default=0)
    for arm, (name, most) in drawn.items():
        refuse_long(f"arms.{arm}.loss.{name}", most, longest, shape.max_positions)
    return []


def check_heeded(refs: Iterable[ModelRef], samplings: Mapping[str, Sampling]) -> list[str]:
    """A notice of settings that do nothing here, and of those that a server may not heed.

    Args:
        refs: all models that are asked.
        samplings: by task.

    Raises:
        ModelError: what a server cannot be told.
    """
    found = [
        f"{name}: {', '.join(idle)} only {'bears' if len(idle) == 1 else 'bear'} on drawing; "
        "decoding is greedy, as the temperature is 0."
        for name, sampling in samplings.items()
        if (idle := [one for one in ("top_k", "min_p") if getattr(sampling, one)])
        and not sampling.temperature
    ]
    servers = {ref.base: ref for ref in refs if is_endpoint(ref.base)}
    told = {
        name
        for ref in servers.values()
        for sampling in samplings.values()
        for name in told_beyond(sampling, ref)
    }
    if told:
        names = ", ".join(parse_url(base).where for base in servers)
        found.append(
            f"sent to {names}: {', '.join(sorted(told))}; servers such as vLLM and SGLang heed "
            "that, others pass over it without a word."
        )
    return found


def _thinks(ref: ModelRef, asked: Sequence[Example]) -> bool:
    """Whether a model is asked in such a way that it thinks."""
    text = _template_text(ref)
    if Path(ref.base).is_dir() and not thinking_marks.speaks_of_thinking(text):
        return False
    tokenizer = models.load_tokenizer(ref, chats=False)
    template = text or json.dumps(tokenizer.chat_template, ensure_ascii=False)
    if not thinking_marks.speaks_of_thinking(template):
        return False
    prompt = tokenizer.decode(chat.asked_ids(tokenizer, asked[0]), skip_special_tokens=False)
    return thinking_marks.expected(template, prompt, ref.chat.thinking)


def _template_text(ref: ModelRef) -> str:
    """The chat template of a model: the study's, or the one in its folder.

    Args:
        ref: the model.

    Returns:
        "" where there is none, and for a model on the hub, which has no folder yet.
    """
    if ref.chat.template is not None:
        return ref.chat.template
    file = Path(ref.base) / "chat_template.jinja"
    config = Path(ref.base) / "tokenizer_config.json"
    try:
        if file.is_file():
            return file.read_text(encoding="utf-8")
        found = json.loads(config.read_text(encoding="utf-8")).get("chat_template")
        return json.dumps(found, ensure_ascii=False)
    except (OSError, ValueError, AttributeError, RecursionError):
        return ""
