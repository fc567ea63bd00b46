"""Is the loss on exactly what a model has to write, whatever traits its chat template has?"""

from __future__ import annotations

import re
from typing import Any

import pytest
from fixtures.chat_tokenizers import (
    CALL,
    KINDS,
    ONE,
    TALK,
    byte_level,
    metaspace,
    stops_of,
    tokenizer_of,
)

from holdfast.data import chat
from holdfast.data.rendering import fixed_date, thinking
from holdfast.errors import ModelError, TrainingError
from holdfast.types import Example, Message


def trained(kind: str, tokenizer: Any, example: Example, **how: Any) -> list[str]:
    """The texts that bear loss, after checking that the prompt is what the model is asked with."""
    row = chat.encode(tokenizer, example, stops_of(kind, tokenizer), **how)
    assert list(row.ids[: row.start]) == chat.asked_ids(tokenizer, example)
    return re.findall("⟦(.*?)⟧", chat.mask_preview(tokenizer, row, 10**6), re.DOTALL)


ENDS = {"two_ends": "<|end|>"}


@pytest.mark.parametrize("kind", [*KINDS])
def test_the_last_answer_and_its_end_of_turn(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    end = ENDS.get(kind, KINDS[kind][1])
    space = " " if kind == "system_in_last" else ""
    thought = "\n</think>\n\n" if kind == "opens_thinking" else ""
    found = trained(kind, tokenizer, Example("e", TALK, "5"))
    assert found == [f"{thought}{space}5{end}"]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("opens_thinking",)])
def test_every_answer_and_nothing_of_the_headers(kind: str) -> None:
    tokenizer = tokenizer_of(kind)
    end = ENDS.get(kind, KINDS[kind][1])
    space = " " if kind == "system_in_last" else ""
    found = trained(kind, tokenizer, Example("e", TALK, "5"), train_on="all")
    assert found == [f"{space}4{end}", f"{space}5{end}"]


def test_a_turn_of_weight_zero_bears_no_loss() -> None:
    tokenizer = tokenizer_of("default_system")
    silent = Message("assistant", "4", {"weight": 0})
    talk = (TALK[0], silent, TALK[2])
    example = Example("e", talk, "5")
    assert trained("default_system", tokenizer, example, train_on="all") == ["5<|im_end|>"]
    whole = trained("default_system", tokenizer, example, completion_only=False)
    assert len(whole) == 2 and not any("4<|im_end|>" in one for one in whole)
    mute = Example("row 7", TALK, "5", extra={"weight": 0})
    assert trained("default_system", tokenizer, mute, train_on="all") == ["4<|im_end|>"]
    with pytest.raises(TrainingError, match="row 7 has weight 0"):
        chat.encode(tokenizer, mute, stops_of("default_system", tokenizer))


def test_calls_and_results_of_functions() -> None:
    tokenizer = tokenizer_of("default_system")
    tools = ({"type": "function", "function": {"name": "add", "parameters": {}}},)
    talk = (ONE[0], Message("assistant", "", {"tool_calls": [CALL]}), Message("tool", "4"))
    example = Example("e", talk, "It is 4.", tools=tools)
    called = '\n<tool_call>{"name": "add", "arguments": {"a": 2, "b": 2}}</tool_call><|im_end|>'
    found = trained_with_tools(tokenizer, example, "all")
    assert found == [called, "It is 4.<|im_end|>"]
    only = Example("e", ONE, "", tools=tools, extra={"tool_calls": [CALL]})
    assert trained_with_tools(tokenizer, only, "last") == [called]
    assert '"name": "add"' in chat.prompt_text(tokenizer, ONE, tools)


def trained_with_tools(tokenizer: Any, example: Example, on: str) -> list[str]:
    return trained("default_system", tokenizer, example, train_on=on)


def test_arguments_are_text_where_the_template_joins_them() -> None:
    template = (
        "{% for m in messages %}<|im_start|>{{ m.content }}{% for c in m.tool_calls or [] %}"
        "{{ c.name + c.arguments }}{% endfor %}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    tokenizer = byte_level(template, ("<|im_start|>", "<|im_end|>"), "<|im_end|>")
    call = {"name": "add", "arguments": {"a": 2}}
    example = Example("e", ONE, "", extra={"tool_calls": [call]})
    assert trained("marked", tokenizer, example) == ['add{"a": 2}<|im_end|>']


@pytest.mark.parametrize("thinks, prompt, learned", [
    (None, "assistant\n<think>\n\n</think>\n\n", "5<|im_end|>"),
    (False, "assistant\n<think>\n\n</think>\n\n", "5<|im_end|>"),
    (True, "assistant\n", "<think>\nhm\n</think>\n\n5<|im_end|>"),
])  # fmt: skip
@pytest.mark.parametrize("inside", [True, False])
def test_thinking_is_asked_for_and_learned_alike(
    thinks: bool | None, prompt: str, learned: str, inside: bool
) -> None:
    tokenizer = tokenizer_of("switched", thinking=thinks)
    example = Example("e", ONE, "5", extra={"reasoning_content": "hm"})
    if inside:
        example = Example("e", ONE, "<think>\nhm\n</think>\n\n5")
    assert chat.prompt_text(tokenizer, ONE).endswith(prompt)
    assert trained("switched", tokenizer, example) == [learned]
    assert thinking(tokenizer).on is bool(thinks)


def test_a_variable_of_the_template_wins_over_auto() -> None:
    tokenizer = tokenizer_of("switched", kwargs={"enable_thinking": True})
    assert thinking(tokenizer).on is True
    assert chat.prompt_text(tokenizer, ONE).endswith("assistant\n")


def test_earlier_answers_without_their_thinking_are_not_learned() -> None:
    tokenizer = tokenizer_of("switched", thinking=True)
    with pytest.raises(ModelError, match="teach the model not to think"):
        trained("switched", tokenizer, Example("e", TALK, "5"), train_on="all")


def test_a_template_that_opens_the_thinking_itself() -> None:
    tokenizer = tokenizer_of("opens_thinking")
    assert thinking(tokenizer).on is True
    example = Example("e", ONE, "5", extra={"reasoning_content": "hm"})
    assert trained("opens_thinking", tokenizer, example) == ["hm\n</think>\n\n5<eos>"]
    with pytest.raises(ModelError, match="has no switch"):
        chat.prompt_text(tokenizer_of("opens_thinking", thinking=False), ONE)
    with pytest.raises(ModelError, match="no switch for thinking"):
        chat.prompt_text(tokenizer_of("default_system", thinking=True), ONE)


def test_a_system_text_that_wanders_is_refused_for_every_answer() -> None:
    tokenizer = tokenizer_of("system_in_last")
    example = Example("e", (Message("system", "Be brief."), *TALK), "5")
    assert trained("system_in_last", tokenizer, example) == [" 5</s>"]
    with pytest.raises(ModelError, match="train_on: last") as caught:
        trained("system_in_last", tokenizer, example, train_on="all")
    assert "never asked" in caught.value.message


def test_the_date_is_the_studys() -> None:
    tokenizer = tokenizer_of("dated", date="2026-12-01")
    assert "Today: 01 Dec 2026\n" in chat.prompt_text(tokenizer, ONE)
    elsewhere = fixed_date(tokenizer)
    text = elsewhere.apply_chat_template([{"role": "user", "content": "2+2?"}], tokenize=False)
    assert "Today: 01 Dec 2026\n" in text, "whoever renders without us is told the same"


def test_a_developer_turn_is_a_system_turn_where_the_template_knows_none() -> None:
    tokenizer = tokenizer_of("default_system")
    text = chat.prompt_text(tokenizer, (Message("developer", "Be brief."), *ONE))
    assert text.startswith("<|im_start|>system\nBe brief.<|im_end|>")


def test_a_control_token_in_the_answer_does_not_end_it() -> None:
    tokenizer = tokenizer_of("two_ends")
    example = Example("e", ONE, "4<|end|> or 5")
    assert trained("two_ends", tokenizer, example) == ["4<|end|> or 5<|end|>"]


LLAMA_2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.mark.parametrize("scheme", ["always", "first", "never"])
@pytest.mark.parametrize("template", [LLAMA_2, ZEPHYR])
def test_no_blank_is_put_before_an_answer(scheme: str, template: str) -> None:
    tokenizer = metaspace(template, scheme)
    example = Example("e", (Message("user", "What is 2 + 2 ?"),), "The answer is 4 .")
    row = chat.encode(tokenizer, example, chat.stop_ids(tokenizer))
    turns = [{"role": "user", "content": "What is 2 + 2 ?"},
             {"role": "assistant", "content": "The answer is 4 ."}]  # fmt: skip
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert list(row.ids) == whole[: len(row.ids)]
    assert row.ids[-1] == tokenizer.eos_token_id
    assert row.ids.count(tokenizer.bos_token_id) == (1 if template is LLAMA_2 else 0)


def test_plain_text_is_learned_from_its_second_token_on() -> None:
    tokenizer = metaspace(ZEPHYR, "first")
    row = chat.encode(tokenizer, Example("e", (), "The answer is 4 ."), frozenset())
    assert row.ids[0] == tokenizer.bos_token_id
    assert row.ids[-1] == tokenizer.eos_token_id
    assert row.labels == (chat.IGNORED, *row.ids[1:])


@pytest.mark.parametrize("template, said", [
    ("a\n{% for m in messages %}{{ m.content }", "chat template, line 2"),
    ("a\n{{ messages | nonsense }}", "chat template, line 2"),
    ("{% for i in range(99999) %}{% for j in range(99999) %}{% set x = j %}{% endfor %}"
     "{% endfor %}", "does not come to an end"),
    ("{% for i in range(10**9) %}x{% endfor %}", "refused the conversation"),
    ("{{ 9 ** 9 ** 9 }}", "does not come to an end"),
    ("{{ 'a' * 999999999 }}", "does not come to an end"),
    ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "refused the conversation"),
])  # fmt: skip
def test_templates_that_are_broken_or_endless(template: str, said: str) -> None:
    tokenizer = byte_level(template, ("<s>", "</s>"), "</s>")
    with pytest.raises(ModelError, match=said):
        chat.prompt_text(tokenizer, ONE)


def test_named_templates() -> None:
    tokenizer = tokenizer_of("default_system")
    tokenizer.chat_template = {"default": "D{{ messages[0].content }}", "tool_use": "T"}
    assert chat.prompt_text(tokenizer, ONE) == "D2+2?"
    assert chat.prompt_text(tokenizer, ONE, ({"name": "add"},)) == "T"
    tokenizer.chat_template = {"rag": "R"}
    with pytest.raises(ModelError, match="names rag") as caught:
        chat.prompt_text(tokenizer, ONE)
    assert "model.chat_template" in caught.value.remedy
