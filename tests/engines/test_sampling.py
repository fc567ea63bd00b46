"""Is every field of the sampling done as it says, alike in every batch, and told from thinking?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import Sampling
from holdfast.data import chat
from holdfast.engines.hf import Asked, HFEngine
from holdfast.engines.scripted import ScriptedEngine
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.types import Example, Message, Reply

ASKED = [
    Example(f"q{n}", (Message("user", "How many? " + "a b " * n),)) for n in (1, 9, 3, 17, 5, 2)
]


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[HFEngine]:
    with HFEngine(ModelRef(str(tiny_model)), "cpu", batch_size=6) as one:
        yield one


def _said(engine: HFEngine, size: int = 6, **sampling: Any) -> list[Reply]:
    engine.batch_size = size
    chosen = Sampling(**{"max_new_tokens": 12, **sampling})
    return [one for one, *_ in engine.generate(ASKED, chosen, None, Silent())]


def test_a_repetition_penalty_is_that_of_transformers(engine: HFEngine) -> None:
    import torch

    model, tokenizer = engine._base, engine.tokenizer
    for one, said in zip(ASKED, _said(engine, repetition_penalty=1.3), strict=True):
        ids = chat.asked_ids(tokenizer, one)
        out = model.generate(
            torch.tensor([ids]), max_new_tokens=12, do_sample=False, repetition_penalty=1.3
        )[0]
        assert tokenizer.decode(out[len(ids) :], skip_special_tokens=True) == said.text
    assert _said(engine, repetition_penalty=1.3) != _said(engine)


@pytest.mark.parametrize(
    "sampling",
    [
        {"repetition_penalty": 1.4},
        {"temperature": 1.5, "top_k": 20, "min_p": 0.01, "repetition_penalty": 1.2},
    ],
)
def test_a_reply_does_not_depend_on_its_batch(engine: HFEngine, sampling: Any) -> None:
    assert (
        _said(engine, 6, **sampling) == _said(engine, 4, **sampling) == _said(engine, 1, **sampling)
    )


@pytest.mark.parametrize("only", [{"top_k": 1}, {"min_p": 0.9999}])
def test_drawing_from_the_likeliest_alone_is_greedy(engine: HFEngine, only: Any) -> None:
    greedy = _said(engine)
    assert _said(engine, temperature=3.0, **only) == greedy
    assert _said(engine, temperature=3.0) != greedy


def test_an_answer_ends_before_a_stop_string(engine: HFEngine) -> None:
    whole = _said(engine)
    stops = tuple(one.text[len(one.text) // 2 :][:3] for one in whole[:2])
    for before, after in zip(whole, _said(engine, stop=stops), strict=True):
        ends = [before.text.find(one) for one in stops if one in before.text]
        assert after.text == (before.text[: min(ends)] if ends else before.text)
        assert after.finish == ("stop" if ends else before.finish)
        assert after.n_tokens <= before.n_tokens
    assert _said(engine, 1, stop=stops) == _said(engine, 6, stop=stops)


def test_a_script_ends_there_too() -> None:
    script = ScriptedEngine(lambda *_: "4. Question: and")
    ((reply,),) = script.generate(ASKED[:1], Sampling(stop="Question:"), None, Silent())
    assert reply.text == "4. "


# thinking

THOUGHT = "First 104, no."
TEMPLATE = (
    "{% for one in messages %}{{ one.role }}: {{ one.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: OPENING{% endif %}"
)


class Says(HFEngine):
    """Its model says what it is told to."""

    says = ""
    ends = True

    def _decoded(self, model: Any, rows: Sequence[Asked], *_: Any) -> Iterator[Any]:
        ids = self.tokenizer(self.says, add_special_tokens=False)["input_ids"]
        return enumerate([*ids, *([self._stops[0]] if self.ends else [])] for _ in rows)


def _thinker(tiny: Path, folder: Path, special: bool, marks: Sequence[str], opening: str) -> Path:
    import shutil

    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    shutil.copytree(tiny, folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    made = Tokenizer(models.BPE({one: n for n, one in enumerate(letters)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="<|eos|>")
    tokenizer.add_tokens([AddedToken(one, special=special) for one in marks], special)
    tokenizer.chat_template = TEMPLATE.replace("OPENING", opening)
    tokenizer.save_pretrained(folder)
    return folder


KINDS = {
    "special": (True, ("<think>", "</think>"), ""),
    "plain tokens": (False, ("<think>", "</think>"), ""),
    "magistral": (True, ("[THINK]", "[/THINK]"), ""),
    "opened by the prompt": (False, ("<think>", "</think>"), "<think>\n"),
    "opened, special": (True, ("[THINK]", "[/THINK]"), "[THINK]"),
}


@pytest.mark.parametrize(("special", "marks", "opening"), KINDS.values(), ids=KINDS)
def test_markers_survive_and_thoughts_are_counted(
    tiny_model: Path, tmp_path: Path, special: bool, marks: tuple[str, str], opening: str
) -> None:
    from holdfast.data.thinking import split

    folder = _thinker(tiny_model, tmp_path / "m", special, marks, opening)
    start, end = "" if opening else marks[0], marks[1]
    with Says(ModelRef(str(folder)), "cpu", batch_size=2) as engine:

        def count(text: str) -> int:
            return len(engine.tokenizer(text, add_special_tokens=False)["input_ids"])

        engine.says = f"{start}{THOUGHT}{end}It is 103."
        (reply,), *_ = engine.generate(ASKED[:2], Sampling(), None, Silent())
        found = split(reply.text)
        assert (found.thinking, found.answer, found.closed) == (THOUGHT, "It is 103.", True)
        assert reply.thinking_tokens == count(f"{start}{THOUGHT}{end}")
        assert (reply.n_tokens, reply.finish) == (count(engine.says) + 1, "stop")
        if special:
            assert reply.text == f"<think>\n{THOUGHT}\n</think>\n\nIt is 103."

        engine.says, engine.ends = f"{start}{THOUGHT}", False
        ((cut,),) = engine.generate(ASKED[:1], Sampling(), None, Silent())
        assert (split(cut.text).thinking, split(cut.text).answer) == (THOUGHT, "")
        assert not split(cut.text).closed
        assert cut.thinking_tokens == cut.n_tokens == count(engine.says)
        assert cut.finish == "length"

        engine.says, engine.ends = f"{start}{end}It is 103.", True
        ((empty,),) = engine.generate(ASKED[:1], Sampling(), None, Silent())
        assert split(empty.text).answer == "It is 103."
        assert empty.thinking_tokens == 0


def test_other_special_tokens_are_left_out_as_ever(tiny_model: Path, tmp_path: Path) -> None:
    folder = _thinker(tiny_model, tmp_path / "m", True, ("<think>", "</think>", "<|end|>"), "")
    with Says(ModelRef(str(folder)), "cpu") as engine:
        engine.says = "It is<|end|> 103."
        ((reply,),) = engine.generate(ASKED[:1], Sampling(), None, Silent())
        assert (reply.text, reply.thinking_tokens) == ("It is 103.", 0)
        engine.says = "A <think> is a marker."
        ((reply,),) = engine.generate(ASKED[:1], Sampling(), None, Silent())
        assert reply.thinking_tokens == 0
        assert "is a marker." in reply.text


def test_a_stop_string_does_not_cut_what_the_engine_adds(tiny_model: Path, tmp_path: Path) -> None:
    folder = _thinker(tiny_model, tmp_path / "m", True, ("<think>", "</think>"), "<think>\n")
    with Says(ModelRef(str(folder)), "cpu") as engine:
        engine.says = f"{THOUGHT}</think>It is 103.STOP and on"
        ((reply,),) = engine.generate(ASKED[:1], Sampling(stop=["\n", "STOP"]), None, Silent())
        assert reply.text == f"<think>\n{THOUGHT}\n</think>\n\nIt is 103."
