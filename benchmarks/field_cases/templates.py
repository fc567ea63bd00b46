"""Chat templates: the loss on what the model has to write, the prompt as it is asked, one date."""

from __future__ import annotations

import ast
import datetime
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from fixtures.chat_tokenizers import KINDS, TALK, byte_level, metaspace, stops_of, tokenizer_of

from benchmarks.field_cases import Case
from benchmarks.field_cases.models import STUDY, unloaded
from holdfast import study
from holdfast.data import chat
from holdfast.data.encoding import encode
from holdfast.errors import ModelError, TrainingError, located
from holdfast.progress import Silent
from holdfast.types import Example, Message

TURNS = (Message("user", "2+2?"),)
ENDS = {"two_ends": "<|end|>"}
CHATML = ("<|im_start|>", "<|im_end|>")
ENDLESS = "{% for i in range(10**9) %}{{ i }}{% endfor %}"
BROKEN = {
    "raises on a question": "{{ messages[9].content }}",
    "an open block": "{% for m in messages %}",
    "a filter that is not there": "{{ messages | nonsense }}",
    "nothing of what is said": "hello",
    "no end": ENDLESS,
    "raises": "{{ raise_exception('no') }}",
}


def own() -> Iterator[Case]:
    """Templates with the traits of the families that people train, and broken ones."""
    for kind in KINDS:
        for train_on in ("last", "all"):
            must = not (kind == "opens_thinking" and train_on == "all")
            yield Case("templates", f"{kind}, {train_on}", _mask(kind, train_on), must_work=must)
    for name, text in BROKEN.items():
        yield Case("templates", name, _broken(text), must_be_refused=True)


def given(folder: Path) -> Iterator[Case]:
    """Those of a folder of cases."""
    probe = folder / "templates" / "probe.py"
    if probe.is_file():
        for name, text in _texts(probe).items():
            yield Case("templates", f"{probe.name}: {name}", _alike(text))
    metaspaces = folder / "templates" / "metaspace.py"
    if metaspaces.is_file():
        found = _texts(metaspaces)
        for scheme in ("always", "first", "never"):
            for name, text in found.items():
                yield Case("templates", f"{metaspaces.name}: {scheme} {name}", _whole(text, scheme))


def _texts(script: Path) -> Mapping[str, str]:
    """The templates that a script writes down, by name, without running it."""
    found: dict[str, str] = {}
    for node in ast.parse(script.read_text("utf-8")).body:
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        try:
            code = compile(ast.Expression(node.value), str(script), "eval")
            value = eval(code, {"__builtins__": {}}, dict(found))
        except Exception:  # no text: it is not meant
            continue
        if isinstance(value, str) and "{%" in value:
            found[node.targets[0].id] = value
    return found


def _trained(tokenizer: Any, row: Any) -> list[str]:
    return re.findall("⟦(.*?)⟧", chat.mask_preview(tokenizer, row, 10**6), re.DOTALL)


def _encoded(
    tokenizer: Any, example: Example, stops: frozenset[int] = frozenset(), train_on: str = "last"
) -> Any:
    """The row as it is trained on; a refusal has the place and exit code of the preflight."""
    try:
        with located("model.chat_template"):
            ends = stops or frozenset({tokenizer.eos_token_id})
            return encode(tokenizer, example, ends, train_on=train_on)
    except TrainingError as error:
        raise ModelError(error.message, where=error.where, remedy=error.remedy) from error


def _mask(kind: str, train_on: str) -> Callable[[Path], str | None]:
    def run(scratch: Path) -> str | None:
        tokenizer = tokenizer_of(kind)
        example = Example("e", TALK, "5")
        row = _encoded(tokenizer, example, stops_of(kind, tokenizer), train_on)
        if list(row.ids[: row.start]) != chat.asked_ids(tokenizer, example):
            return "the prompt in training is not the one that is asked"
        end = ENDS.get(kind, KINDS[kind][1])
        space = " " if kind == "system_in_last" else ""
        thought = "\n</think>\n\n" if kind == "opens_thinking" else ""
        answers = ["4", "5"] if train_on == "all" else ["5"]
        wanted = [f"{thought}{space}{one}{end}" for one in answers]
        found = _trained(tokenizer, row)
        return None if found == wanted else f"trains {found}, not {wanted}"

    return run


def _broken(text: str) -> Callable[[Path], str | None]:
    """A study with such a template is refused before anything is written."""

    def run(scratch: Path) -> str | None:
        asked = {**STUDY, "model": {"id": "lab", "chat_template": text}}
        return unloaded(lambda: study.run(asked, scratch / "run", Silent()), scratch / "run")

    return run


def _alike(text: str) -> Callable[[Path], str | None]:
    """Asked and trained alike, on every day, and the last words are the answer's."""

    def run(scratch: Path) -> str | None:
        tokenizer = byte_level(text, CHATML, CHATML[1])
        example = Example("e", TURNS, "4")
        prompts = []
        for day in (1, 2):
            with mock.patch("transformers.utils.chat_template_utils.datetime") as clock:
                clock.now.return_value = datetime.datetime(2026, 12, day)
                prompts.append(chat.prompt_text(tokenizer, TURNS))
        if prompts[0] != prompts[1]:
            return "asked otherwise on another day"
        row = _encoded(tokenizer, example)
        if list(row.ids[: row.start]) != chat.asked_ids(tokenizer, example):
            return "the prompt in training is not the one that is asked"
        found = _trained(tokenizer, row)
        return None if len(found) == 1 and found[0].endswith("4<|im_end|>") else f"trains {found}"

    return run


def _whole(text: str, scheme: str) -> Callable[[Path], str | None]:
    """The ids are those of the whole conversation, tokenised once."""

    def run(scratch: Path) -> str | None:
        tokenizer = metaspace(text, scheme)
        turns = [
            {"role": "user", "content": "What is 2 + 2 ?"},
            {"role": "assistant", "content": "The answer is 4 ."},
        ]
        example = Example("e", (Message("user", turns[0]["content"]),), turns[1]["content"])
        row = _encoded(tokenizer, example)
        shown = tokenizer.apply_chat_template(turns, tokenize=False)
        whole = tokenizer(shown, add_special_tokens=False)["input_ids"]
        same = list(row.ids) == whole[: len(row.ids)]
        return None if same else "prompt and answer were tokenised apart"

    return run
