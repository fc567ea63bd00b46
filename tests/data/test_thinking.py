"""Is what a model thought told from what it answered, whatever marks it, and from a mention?"""

from __future__ import annotations

import pytest
from fixtures.timing import worked

from holdfast.data.thinking import (
    Thought,
    answered,
    learned,
    split,
    tokens_of,
    unfinished,
    written,
)
from holdfast.data.thinking_marks import expected, marking_tokens, opened, speaks_of_thinking
from holdfast.types import Example, Message, Reply

MARKS = {
    "think": ("<think>\n", "\n</think>\n\n"),
    "capitals": ("<THINK>", "</THINK>"),
    "thinking": ("<thinking>", "</thinking>"),
    "thought": ("<thought>", "</thought>\n"),
    "reasoning": ("<reasoning>", "</reasoning>"),
    "seed": ("<seed:think>", "</seed:think>"),
    "sky": ("<|begin_of_thought|>\n\n", "\n\n<|end_of_thought|>\n\n"),
    "magistral": ("[THINK]", "[/THINK]"),
    "kimi": ("◁think▷", "◁/think▷"),
    "gemma": ("<|channel>thought\n", "\n<channel|>"),
    "medgemma": ("<unused94>thought\n", "<unused95>"),
    "command": ("<|START_THINKING|>", "<|END_THINKING|>"),
    "apertus": ("<|inner_prefix|>", "<|inner_suffix|>"),
    "gpt-oss": (
        "<|channel|>analysis<|message|>",
        "<|end|><|start|>assistant<|channel|>final<|message|>",
    ),
}
"""What stands before and after a thought."""
THOUGHT = "First try: #### 104.\nNo, 50 + 53 is 103."
ANSWER = "The sum is 103."


@pytest.mark.parametrize(("start", "end"), MARKS.values(), ids=MARKS)
def test_a_thought_is_told_from_the_answer(start: str, end: str) -> None:
    whole = Thought(THOUGHT, ANSWER, True, (THOUGHT,))
    assert split(start + THOUGHT + end + ANSWER) == whole
    assert split("<|im_start|>assistant\n" + start + THOUGHT + end + ANSWER) == whole
    assert split(THOUGHT + end + ANSWER) == whole, "the prompt opened it"
    assert split(start + THOUGHT) == Thought(THOUGHT, "", False, (THOUGHT,)), "cut off"
    assert split(start + end + ANSWER) == Thought("", ANSWER, True, ("",))
    assert split(start + THOUGHT + end).answer == ""
    assert opened(f"<|user|>What?<|assistant|>\n{start}") == start
    assert opened(f"<|user|>What?<|assistant|>\n{start}{end}") == ""
    spoken = f"Such a model writes `{start.strip()}` before, and `{end.strip()}` after."
    assert split(spoken) == Thought("", spoken)


@pytest.mark.parametrize(
    "said",
    [
        "103", "", "  \n", "a < b and b > c", "[[-1.5, true], [-2.0, false]]", "<b>103</b>",
        "`<think>` opens a thought, `</think>` ends it.",
        'Models write "</think>" at the end of it.',
        "The </think> tag ends it.", "<think> tags are put around thoughts.",
        "<think> and </think> are special tokens.",
        "```xml\n<think>first</think>\n```\nis what it looks like.",
        "It looks like this:\n```\nfoo\n</think>\nbar\n```\nDone.",
        "Sure: <think>not at the beginning</think> of it.",
        "analysis of the sum: 103", "Here is my thought process: I add, so it is 103.",
    ],
)  # fmt: skip
def test_what_holds_no_thought_comes_back_as_it_was(said: str) -> None:
    reply = Reply("a", 0, said, "stop", 3)
    assert split(said) == Thought("", said)
    assert answered(reply) is reply
    assert not unfinished(reply, split(said))


@pytest.mark.parametrize(
    ("said", "blocks", "answer"),
    [
        ("<think>a</think><think>b</think>c", ("a", "b"), "c"),
        ("<think>a</think>\nLet me see.\n<think>b</think>\n4", ("a", "b"), "Let me see.\n\n4"),
        ("<think>a</think>So. <think>but is it so</think>4", ("a", "but is it so"), "So. 4"),
        ("<think>a<think>b</think>c</think>d", ("a<think>b</think>c",), "d"),
        ("<think>I may use <think> again.</think>d", ("I may use <think> again.",), "d"),
        ("<think>I end with `</think>` now.\n</think>d", ("I end with `</think>` now.",), "d"),
        ("<think>```\nif x:\n</think>\n```\nd\n```", ("```\nif x:",), "```\nd\n```"),
        ("<think>\n```\n</think>\n```\nyes</think>d", ("```\n</think>\n```\nyes",), "d"),
        ("<think>a</think>Write `<think>x y z</think>`.", ("a",), "Write `<think>x y z</think>`."),
        ('<think>say "hi"</think>"hi"', ('say "hi"',), '"hi"'),
        ("<think>a</thinking>b", ("a",), "b"),
        ("<think>a</think><answer>4</answer>", ("a",), "4"),
        ("<think>a</think><answer>4</answer> or <answer>5</answer>", ("a",),
         "<answer>4</answer> or <answer>5</answer>"),
        ("<think>a</think><response>4", ("a",), "4"),
        ("<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>b<|end_of_solution|>",
         ("a",), "b"),
        ("Here is my thought process:\na\nHere is my response:\nb", ("a",), "b"),
        ("<|channel|>final<|message|>b", ("",), "b"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>commentary to=f "
         "<|constrain|>json<|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>b"
         "<|return|>", ("a", "{}"), "b"),
        ("analysisWe add.assistantfinalb", ("We add.",), "b"),
    ],
)  # fmt: skip
def test_odd_forms(said: str, blocks: tuple[str, ...], answer: str) -> None:
    assert split(said) == Thought("\n\n".join(filter(None, blocks)), answer, True, blocks)


@pytest.mark.parametrize(
    "said",
    [one * (100_000 // len(one)) for one in (
        "<think></think>", "<think>", "</think>", "x <think>", "<think>a</think> b ", "`<think>` ",
        "```\n<think></think>\n", "<|channel|>analysis<|message|>", "<|end|>", "[THINK]",
    )] + ["<think>a</think>" + " x <think> y" * 8000, "<think>" + "```\n<think></think>\n" * 5000],
)  # fmt: skip
def test_a_model_that_goes_round_in_circles_takes_no_time(said: str) -> None:
    assert worked(lambda: split(said)) < 2


def test_a_reply_that_never_came_to_its_answer() -> None:
    cut = Reply("a", 0, "<think>\nhm", "length", 9)
    hidden = Reply("a", 0, "", "length", 9, thinking_tokens=9)
    for reply in (cut, hidden):
        assert unfinished(reply, split(reply.text))
        assert answered(reply).text == ""
    for text, finish in (
        ("", "length"),
        ("<think>a</think>", "stop"),
        ("<think>a</think>b", "length"),
    ):
        reply = Reply("a", 0, text, finish, 9)
        assert not unfinished(reply, split(text)), text


def test_tokens_are_counted_or_taken_by_share() -> None:
    text = "<think>" + "a" * 30 + "</think>" + "b" * 10
    assert tokens_of(Reply("a", 0, text, "stop", 80), split(text)) == 60
    assert tokens_of(Reply("a", 0, text, "stop", 80, 71), split(text)) == 71
    assert tokens_of(Reply("a", 0, text, "stop", 0), split(text)) is None
    assert tokens_of(Reply("a", 0, "b", "stop", 8), split("b")) == 0


def test_an_own_answer_keeps_its_thought_beside_the_target() -> None:
    asked = Example("a", (Message("user", "?"),), "gold", extra={"reasoning_content": "old"})
    found = learned(asked, Reply("a", 0, "<think>\nhm\n</think>\n\n 4 ", "stop", 9), "self")
    assert (found.target, found.extra, found.source) == ("4", {"reasoning_content": "hm"}, "self")
    assert found.answer == Message("assistant", "4", {"reasoning_content": "hm"})
    plain = learned(asked, Reply("a", 0, " 4", "stop", 9), "self")
    assert (plain.target, plain.extra) == ("4", {})


def test_one_form_is_written() -> None:
    assert written("hm", "4") == "<think>\nhm\n</think>\n\n4"
    assert written("", "4") == "4"
    assert split(written("hm", "4")) == Thought("hm", "4", True, ("hm",))
    assert split(written("hm", "", False)) == Thought("hm", "", False, ("hm",))


def test_special_tokens_that_mark_a_thought() -> None:
    assert marking_tokens({"<s>", "<think>", "</think>", "<|end|>"}) == {"<think>", "</think>"}
    harmony = {"<|channel|>", "<|end|>", "<|message|>"}
    assert marking_tokens({"<|endoftext|>", *harmony}) == harmony
    assert marking_tokens({"[THINK]", "[/THINK]", "[INST]"}) == {"[THINK]", "[/THINK]"}


@pytest.mark.parametrize(
    ("template", "prompt", "wanted", "thinks"),
    [
        ("{{ '<think>' }}", "a\n<think>\n", None, True),
        ("{% if enable_thinking %}<think>", "a\n", None, False),
        ("{% if enable_thinking %}<think>", "a\n", True, True),
        ("{% if enable_thinking %}<think>", "a\n<think>\n\n</think>\n\n", True, False),
        ("{{ content.split('</think>')[-1] }}", "a\n", None, True),
    ],
)
def test_whether_a_model_will_think(
    template: str, prompt: str, wanted: bool | None, thinks: bool
) -> None:
    assert speaks_of_thinking(template)
    assert expected(template, prompt, wanted) == thinks


def test_most_templates_know_nothing_of_it() -> None:
    assert not speaks_of_thinking("{% for one in messages %}<|im_start|>{{ one.content }}")
