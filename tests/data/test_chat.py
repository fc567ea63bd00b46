"""Is exactly the answer trained on, and is it what the model is asked for later?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from holdfast.data import chat
from holdfast.errors import ModelError, TrainingError
from holdfast.models import ModelRef, load_tokenizer
from holdfast.types import Example, Message

ONE = Example("e", (Message("user", "Tom has 3 apples."),), "Tom has 3.\n#### 3")


@pytest.fixture()
def tokenizer(tiny_model: Path) -> Any:
    return load_tokenizer(ModelRef(str(tiny_model)))


@pytest.fixture()
def qwen(shared_data: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(shared_data / "tokenizers" / "qwen2.5")


def test_only_the_answer_bears_loss(tokenizer: Any) -> None:
    row = chat.encode(tokenizer, ONE, chat.stop_ids(tokenizer))
    prompt = chat.prompt_ids(tokenizer, ONE.messages)
    assert list(row.ids[: len(prompt)]) == prompt, "trained as asked"
    assert set(row.labels[: len(prompt)]) == {chat.IGNORED}
    answer = [label for label in row.labels if label != chat.IGNORED]
    assert answer[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(answer[:-1]) == ONE.target
    assert row.cost.supervised == len(answer)


def test_the_whole_conversation_on_request(tokenizer: Any) -> None:
    row = chat.encode(tokenizer, ONE, chat.stop_ids(tokenizer), completion_only=False)
    assert row.labels == row.ids


def test_the_real_qwen_template(qwen: Any) -> None:
    stops = chat.stop_ids(qwen)
    row = chat.encode(qwen, ONE, stops)
    assert qwen.decode([i for i in row.labels if i >= 0]) == f"{ONE.target}<|im_end|>"
    preview = chat.mask_preview(qwen, row)
    assert re.search(r"assistant\n⟦Tom has 3\.\n#### 3<\|im_end\|>⟧$", preview)
    assert "⟦" in chat.mask_preview(qwen, row, width=60)


def test_nothing_to_learn_is_refused(tokenizer: Any) -> None:
    for target in (None, "", "  "):
        with pytest.raises(TrainingError, match="no answer to learn"):
            chat.encode(tokenizer, Example("e", ONE.messages, target), frozenset([0]))


def test_a_template_without_end_of_turn_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    with pytest.raises(TrainingError, match="would never learn to stop"):
        chat.encode(tokenizer, ONE, chat.stop_ids(tokenizer))


def test_a_template_that_rewrites_the_prompt_is_refused(tokenizer: Any) -> None:
    tokenizer.chat_template = (
        "{{ messages|length }}{% for m in messages %}{{ m['content'] }}<|im_end|>{% endfor %}"
    )
    with pytest.raises(ModelError, match="renders the prompt differently"):
        chat.encode(tokenizer, ONE, chat.stop_ids(tokenizer))


def test_a_template_that_raises_is_explained(tokenizer: Any) -> None:
    tokenizer.chat_template = "{{ raise_exception('no system turns') }}"
    with pytest.raises(ModelError, match="no system turns"):
        chat.prompt_text(tokenizer, ONE.messages)


def test_the_head_of_a_users_turn(tokenizer: Any) -> None:
    head = chat.user_header(tokenizer)
    assert head == "<|im_start|>user\n"
    assert chat.prompt_text(tokenizer, ONE.messages).startswith(head + ONE.question)
    blank = Example("d", (Message("user", ""),), meta={"continue": "user"})
    assert tokenizer.decode(chat.asked_ids(tokenizer, blank)) == head
    assert chat.asked_ids(tokenizer, ONE) == chat.prompt_ids(tokenizer, ONE.messages)


def test_the_head_of_a_users_turn_in_the_real_qwen_template(qwen: Any) -> None:
    head = chat.user_header(qwen)
    assert head.startswith("<|im_start|>system\n")
    assert head.endswith("<|im_end|>\n<|im_start|>user\n")


def test_a_template_that_alters_the_users_words_has_no_head(tokenizer: Any) -> None:
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}"
    with pytest.raises(ModelError, match="as they are"):
        chat.user_header(tokenizer)
