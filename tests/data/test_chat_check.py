"""Does a template that drops something of the data, or of the study, say so beforehand?"""

from __future__ import annotations

from typing import Any

import pytest
from fixtures.chat_tokenizers import CALL, ONE, TALK, byte_level, stops_of, tokenizer_of

from holdfast.data.chat_check import Learned, about_template, check_learned
from holdfast.data.shown import check_asked
from holdfast.errors import DataError, ModelError
from holdfast.types import Example, Message

PLAIN = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = "{% for m in messages if m.role != 'system' %}" + PLAIN[PLAIN.index("<") :]
TOOLS = ({"type": "function", "function": {"name": "add", "parameters": {}}},)


def chatml(template: str = PLAIN) -> Any:
    return byte_level(template, ("<|im_start|>", "<|im_end|>"), "<|im_end|>")


def learned(tokenizer: Any, *examples: Example, kind: str = "marked", **how: Any) -> list[str]:
    return check_learned(tokenizer, examples, Learned(stops_of(kind, tokenizer), **how))


def test_plain_data_and_a_plain_template_say_nothing() -> None:
    assert learned(chatml(), Example("e", TALK, "5")) == []
    assert about_template(chatml()) == []
    assert check_asked(chatml(), [Example("e", ONE)]) == []


def test_the_clock_and_the_thinking_are_said() -> None:
    [said] = about_template(tokenizer_of("dated"))
    assert "it is told 2024-07-26" in said
    [said] = about_template(tokenizer_of("switched"), "tuned")
    assert said.startswith("tuned: ") and "thinking off (enable_thinking)" in said
    [said] = about_template(tokenizer_of("switched", thinking=True))
    assert "thinking on" in said
    [said] = about_template(tokenizer_of("opens_thinking"))
    assert "opens the thinking itself" in said
    [said] = about_template(tokenizer_of("marked", thinking=False))
    assert "changes nothing" in said


def test_a_variable_that_no_template_reads_is_refused() -> None:
    with pytest.raises(ModelError, match="never reads 'enable_thinkin'") as caught:
        about_template(tokenizer_of("switched", kwargs={"enable_thinkin": False}))
    assert caught.value.where == "model.template_kwargs.enable_thinkin"
    assert "enable_thinking" in str(caught.value)


@pytest.mark.parametrize("example, what", [
    (Example("e", (Message("system", "Be brief."), *ONE), "4"), "the content of system turns"),
    (Example("e", ONE, "4", tools=TOOLS), "tools"),
    (Example("e", ONE, "", extra={"tool_calls": [CALL]}), "the name of a called function"),
    (Example("e", ONE, "4", extra={"reasoning_content": "hm"}), "reasoning_content of the answer"),
])  # fmt: skip
def test_what_a_template_would_drop_is_refused(example: Example, what: str) -> None:
    with pytest.raises(ModelError, match=f"does not show {what}"):
        learned(chatml(NO_SYSTEM), example)


def test_small_things_that_are_dropped_are_said() -> None:
    named = Message("user", "2+2?", {"name": "Ann"})
    assert learned(chatml(), Example("e", (named,), "4")) == [
        "the chat template does not show 'name' of user turns"
    ]


def test_a_prompt_that_is_dropped_or_refused_is_found_before_it_is_asked() -> None:
    asked = [Example("e", (Message("system", "Be brief."), *ONE))]
    with pytest.raises(ModelError, match="content of system turns"):
        check_asked(chatml(NO_SYSTEM), asked)
    with pytest.raises(ModelError, match="System role not supported"):
        check_asked(tokenizer_of("no_system"), asked)


def test_answers_are_counted_by_their_thinking() -> None:
    with_it = Example("a", ONE, "4", extra={"reasoning_content": "hm"})
    inside, without = Example("b", ONE, "<think>hm</think>4"), Example("c", ONE, "4")
    three = (with_it, inside, without)
    off = learned(tokenizer_of("switched"), *three, kind="switched")
    assert [one for one in off if one.startswith("2 of 3 training answers have thinking, which")]
    on = learned(tokenizer_of("switched", thinking=True), *three, kind="switched")
    assert [one for one in on if one.startswith("1 of 3 training answers have no thinking")]


def test_how_first_tokens_differ_is_said() -> None:
    said = learned(tokenizer_of("empty_thought"), Example("e", ONE, "4"), kind="empty_thought")
    assert said == [one for one in said if "asks otherwise than it shows" in one] and said
    said = learned(
        tokenizer_of("switched"), Example("e", TALK, "5"), kind="switched", train_on="all"
    )
    assert [one for one in said if "without the thinking block" in one]


def test_developer_turns_and_control_tokens_are_counted() -> None:
    told = Example("a", (Message("developer", "Be brief."), *ONE), "4")
    broken = Example("b", ONE, "4<|im_end|>5")
    said = learned(tokenizer_of("default_system"), told, broken, kind="default_system")
    assert any(one.startswith("1 of 2 examples have a developer turn") for one in said)
    assert any(one.startswith("1 of 2 examples have an end-of-turn token") for one in said)


def test_an_example_without_an_answer_is_named() -> None:
    rows = [Example(f"row {n}", ONE, "4") for n in range(1000)]
    rows[777] = Example("row 777", ONE, " ")
    with pytest.raises(DataError, match="row 777 has no answer"):
        learned(chatml(), *rows)
