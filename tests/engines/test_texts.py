"""The loss of whole texts, against the plainest computation: one pass, one token after another."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from holdfast.config import Sampling
from holdfast.data.windows import TEXT, end_to_end, fitted, opening, strided, text_ids
from holdfast.engines.hf import HFEngine
from holdfast.engines.remote import RemoteEngine
from holdfast.engines.resumable import ask
from holdfast.errors import ModelError, StudyError
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.types import Example, Message

TEXTS = [
    "Tom has 5 nuts. He buys 6 more. How many nuts does Tom have?\n#### 11",
    "Tom",
    "\n".join(["Leo has 11 pears and a lantern. He loses 5. He loses 2."] * 6),
]


@pytest.fixture(scope="module")
def engine(tiny_model: Path) -> Iterator[HFEngine]:
    with HFEngine(ModelRef(str(tiny_model)), "cpu", batch_size=16) as open_:
        yield open_


def _by_hand(engine: HFEngine, text: str, window: int, stride: int) -> float:
    """The sum of cross-entropies, each token behind just what its window holds before it."""
    tokenizer, model = engine.tokenizer, engine._model(None)
    ids = [tokenizer.eos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    total = 0.0
    for place in range(1, len(ids)):
        if place < window:
            start = 0
        else:
            end = window + stride * ((place - window) // stride + 1)
            start = max(0, min(end, len(ids)) - window)
        with torch.inference_mode():
            logits = model(torch.tensor([ids[start:place]])).logits[0, -1]
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[place]))
        total += float(loss)
    return total


@pytest.mark.parametrize(("window", "stride"), [(512, 256), (8, 4), (8, 7), (5, 1), (2, 1)])
def test_losses_are_those_of_a_plain_loop(engine: HFEngine, window: int, stride: int) -> None:
    found = engine.text_nll(TEXTS, window, stride, None)
    for text, one in zip(TEXTS, found, strict=True):
        assert one.nats == pytest.approx(_by_hand(engine, text, window, stride), rel=1e-4)
        assert one.unknown == 0
        assert one.tokens == len(engine.tokenizer(text, add_special_tokens=False)["input_ids"])
    assert found[1].tokens == 1


def test_a_text_of_one_window_is_one_pass(engine: HFEngine) -> None:
    ids = [engine.tokenizer.eos_token_id, *engine.tokenizer(TEXTS[0])["input_ids"]]
    with torch.inference_mode():
        logits = engine._model(None)(torch.tensor([ids])).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="sum")
    (found,) = engine.text_nll(TEXTS[:1], None, None, None)
    assert found.nats == pytest.approx(float(loss), rel=1e-5)


def test_the_reply_is_kept_as_json(engine: HFEngine, tmp_path: Path) -> None:
    meta = {"continue": "text", TEXT: {"window": 16, "stride": 8}}
    asked = [Example(f"d{n}", (Message("user", t),), None, "", meta) for n, t in enumerate(TEXTS)]
    replies = ask(lambda: engine, asked, Sampling(), tmp_path, Silent())
    losses = engine.text_nll(TEXTS, 16, 8, None)
    for reply, loss in zip(replies, losses, strict=True):
        nats, tokens, unknown = json.loads(reply.text)
        assert (tokens, unknown) == (loss.tokens, 0)
        assert nats == pytest.approx(loss.nats, abs=1e-4)
        assert (reply.finish, reply.n_tokens) == ("stop", 0)


def test_what_the_tokenizer_does_not_know_is_counted(engine: HFEngine) -> None:
    (found,) = engine.text_nll(["Tom has 5 zyzzyva and Ünïcödé."], None, None, None)
    assert found.unknown > 0


def test_a_window_beyond_the_positions_is_refused(engine: HFEngine) -> None:
    with pytest.raises(StudyError, match="more than the 512 that the model reads") as caught:
        engine.text_nll(TEXTS, 513, None, None)
    assert "window: 512" in str(caught.value.remedy)


def test_a_server_known_by_its_address_is_refused() -> None:
    with (
        RemoteEngine(ModelRef("http://127.0.0.1:9/v1#m")) as server,
        pytest.raises(ModelError, match="whole text"),
    ):
        server.text_nll(TEXTS, None, None, None)


@given(st.integers(1, 200), st.integers(2, 40), st.data())
def test_every_token_but_the_first_is_scored_once(
    tokens: int, window: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window - 1))
    found = strided(tokens, window, stride)
    assert [at for one in found for at in range(one.first, one.end)] == list(range(1, tokens))
    for one in found:
        assert 0 <= one.start < one.first < one.end <= tokens
        assert one.end - one.start <= window
    for one in found[1:]:
        assert one.first - one.start >= min(window - stride, one.first), "context before it"


@given(st.lists(st.lists(st.integers(0, 9), max_size=30), max_size=8), st.integers(2, 20))
def test_every_token_but_the_very_first_is_learned_once(
    texts: list[list[int]], window: int
) -> None:
    whole = [one for text in texts for one in text]
    found = end_to_end(texts, window)
    learned = [one for piece in found for one in piece[1:]]
    assert learned == whole[1:]
    assert all(len(one) == window for one in found[:-1])
    assert all(1 < len(one) <= window for one in found)
    assert all(one[-1] == other[0] for one, other in pairwise(found))


def test_windows_are_fitted_to_the_model() -> None:
    assert fitted(None, None, 512) == (512, 256)
    assert fitted(None, None, 100_000) == (1024, 512)
    assert fitted(None, None, None) == (1024, 512)
    assert fitted(64, None, 512) == (64, 32)
    assert fitted(None, 2000, 512) == (512, 511), "a stride leaves one token of context"
    assert fitted(2, None, None) == (2, 1)


class _Spelling:
    """A tokenizer of bytes, with or without a token that opens a text."""

    unk_token_id = None

    def __init__(self, bos: int | None, eos: int | None, puts: bool = False) -> None:
        self.bos_token_id, self.eos_token_id, self._puts = bos, eos, puts

    def __call__(
        self, text: str, add_special_tokens: bool = True, **_: object
    ) -> dict[str, list[int]]:
        put = [self.bos_token_id] if self._puts and add_special_tokens else []
        return {"input_ids": [*put, *text.encode()]}  # type: ignore[list-item]


def test_what_stands_before_the_first_token() -> None:
    assert opening(_Spelling(300, 301, puts=True)) == 300  # type: ignore[arg-type]
    assert opening(_Spelling(300, 301)) == 300  # type: ignore[arg-type]
    assert opening(_Spelling(None, 301)) == 301  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="neither bos_token nor eos_token"):
        opening(_Spelling(None, None))  # type: ignore[arg-type]
    found = text_ids(_Spelling(300, 301, puts=True), "aé")  # type: ignore[arg-type]
    assert found.ids == (300, 97, 0xC3, 0xA9)
