"""Do answers whose places are refilled equal a plain `generate`, and does all else fall back?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from holdfast.config import Sampling
from holdfast.engines.hf import HFEngine
from holdfast.engines.pace import STEPS, Pace
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.types import Example, Message

SMALL = {
    "vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8,
    "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip

STOPS = list(range(2, 12))
"""So many that answers end at many lengths."""


def _model(kind: str, **more: Any) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    config = AutoConfig.for_model(kind, **{**SMALL, **more})
    model = AutoModelForCausalLM.from_config(config).eval()
    for weight in model.parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.25)  # so that answers differ
    return model


def _prompts(shared: int) -> list[list[int]]:
    import torch

    chance = torch.Generator().manual_seed(shared)
    head = torch.randint(3, 96, (shared,), generator=chance).tolist()
    lengths = (19, 12, 12, 9, 9, 4, 3, 1, 1)
    found = [head + torch.randint(3, 96, (n,), generator=chance).tolist() for n in lengths]
    return [*found[:4], found[3], found[3], *found[4:]]  # samples of one prompt


def _plain(model: Any, ids: list[int], new: int) -> list[int]:
    import torch

    out = model.generate(
        torch.tensor([ids]), max_new_tokens=new, do_sample=False, eos_token_id=STOPS
    )
    return [int(one) for one in out[0, len(ids) :]]


@pytest.mark.parametrize(
    ("kind", "shared", "rows"),
    [("llama", 0, 3), ("llama", 40, 64), ("qwen3", 40, 3), ("qwen3", 0, 1)],
)
def test_answers_are_those_of_generate(kind: str, shared: int, rows: int) -> None:
    from holdfast.engines.refilled import Answering

    model, prompts = _model(kind), _prompts(shared)
    answering = Answering(model, Sampling(max_new_tokens=30), STOPS, 0, Pace(rows, True))
    found = dict(answering.answers(prompts, [0] * len(prompts)))
    assert len(answering.shared) == (shared if shared else 0)
    wanted = [_plain(model, ids, 30) for ids in prompts]
    assert [found[place] for place in range(len(prompts))] == wanted
    assert len({len(one) for one in wanted}) > 2, "answers of several lengths"


def test_a_prompt_is_read_once_for_all_its_samples() -> None:
    from holdfast.engines.refilled import Answering

    model, read = _model("llama"), []
    model.register_forward_pre_hook(
        lambda _, __, given: read.append(given["input_ids"].numel()), with_kwargs=True
    )
    head = list(range(3, 60))
    prompts = [[*head, 61, 62]] * 4 + [[*head, 63, 64, 65]] * 4
    answering = Answering(model, Sampling(max_new_tokens=1), [2], 0, Pace(8, True))
    assert len(dict(answering.answers(prompts, [0] * 8))) == 8
    assert read == [len(head), 2 * 3], "the beginning, then two different ends padded to three"


def test_many_cohorts_are_joined(monkeypatch: Any) -> None:
    from holdfast.engines import refilled

    monkeypatch.setattr(refilled, "COHORTS", 3)

    model, prompts = _model("llama"), [one for one in _prompts(0) for _ in range(3)]
    answering = refilled.Answering(model, Sampling(max_new_tokens=40), STOPS, 0, Pace(12, True))
    most = 0
    step = answering._step

    def watched(under: Any) -> None:
        nonlocal most
        most = max(most, len(under))
        step(under)

    answering._step = watched  # type: ignore[method-assign]
    found = dict(answering.answers(prompts, [0] * len(prompts)))
    assert [found[n] for n in range(len(prompts))] == [_plain(model, ids, 40) for ids in prompts]
    assert most == refilled.COHORTS


FITS = {
    "llama": {}, "qwen2": {}, "qwen3": {}, "mistral": {"sliding_window": None}, "olmo2": {},
    "granite": {}, "phi3": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
}  # fmt: skip
FALLS_BACK = {
    "gemma3_text": {"sliding_window": 8},
    "mistral": {"sliding_window": 8},
    "gemma2": {"sliding_window": 8},
    "mamba": {},
    "gpt_oss": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "llama": {
        "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4},
    },
}


@pytest.mark.parametrize("kind", FITS)
def test_these_suit(kind: str) -> None:
    from holdfast.engines.generate import suits

    assert suits(_model(kind, **FITS[kind]), 0) == ""


@pytest.mark.parametrize("kind", FALLS_BACK)
def test_what_looks_otherwise_is_left_to_transformers(kind: str) -> None:
    from holdfast.engines.generate import suits

    assert suits(_model(kind, **FALLS_BACK[kind]), 0)


def test_a_model_that_computes_otherwise_is_found_out(monkeypatch: Any) -> None:
    from holdfast.engines import cohorts
    from holdfast.engines.generate import suits

    model = _model("llama")
    assert suits(model, 0) == ""
    right = cohorts.Writing.attend
    monkeypatch.setattr(cohorts.Writing, "attend", lambda *given: right(*given) * 1.05)
    assert suits(model, 0) == "its logits would differ"
    monkeypatch.undo()
    model.generation_config.no_repeat_ngram_size = 2
    assert "no_repeat_ngram_size" in suits(model, 0)


def test_what_falls_back_is_said_and_right(tiny_model: Path) -> None:
    said: list[str] = []

    class Told(Silent):
        def say(self, line: str) -> None:
            said.append(line)

    asked = [Example(f"q{n}", (Message("user", "a b " * n),)) for n in (1, 7, 3)]
    chosen = Sampling(max_new_tokens=9)
    with HFEngine(ModelRef(str(tiny_model)), "cpu") as one:
        wanted = one.generate(asked, chosen, None, Told())
        assert not said
        one._unsuited = None
        one._base.generation_config.min_new_tokens = 1
        assert one.generate(asked, chosen, None, Told()) == wanted
    assert said == ["answers go in batches, more slowly: its generation config sets min_new_tokens"]


# how many at a time


def test_the_last_prompts_do_not_wait_for_all_others_to_end() -> None:
    """One is left over, and places are filled by twos: it takes the first that comes free."""
    from holdfast.engines import refilled

    begun: list[tuple[int, int]] = []

    class Watched(refilled.Answering):
        steps = 0

        def _begin(self, rows: Any) -> Any:
            begun.append((self.steps, len(rows)))
            return super()._begin(rows)

        def _step(self, under: Any) -> None:
            self.steps += 1
            super()._step(under)

    ids = [[20 + n, 30 + n] for n in range(17)]
    watched = Watched(_model("llama"), Sampling(max_new_tokens=30), STOPS, 0, Pace(16, True))
    ends = {place: len(tokens) for place, tokens in watched.answers(ids, [0] * 17)}
    assert sorted(ends) == list(range(17))
    first = min(ends[place] for place in range(16))
    assert begun == [(0, 16), (first - 1, 1)]


def test_rows_double_while_that_pays() -> None:
    def rate(rows: int) -> float:
        return min(rows, 100) * 1.0

    pace = Pace(16, most=1000)
    for _ in range(6 * STEPS):
        pace.took(pace.rows, pace.rows / rate(pace.rows), waiting=1000)
    assert (pace.rows, pace.settled) == (128, True), "256 were no faster than 128"
    assert sorted(pace.rates) == [16, 32, 64, 128, 256]


@pytest.mark.parametrize(
    ("most", "waiting", "rows"), [(63, 1000, 32), (64, 1000, 64), (1000, 10, 16)]
)
def test_rows_stay_within_memory_and_what_waits(most: int, waiting: int, rows: int) -> None:
    pace = Pace(16, most=most)
    for _ in range(2 * STEPS):
        pace.took(pace.rows, 1.0, waiting)
    assert pace.rows == rows


def test_what_memory_allows_of_short_answers_is_not_taken_for_long_ones(monkeypatch: Any) -> None:
    """A task of one-word answers comes first, and then one whose rows take a hundred times that."""
    model = SimpleNamespace(
        device=SimpleNamespace(type="cpu"),
        config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(vocab_size=0)),
    )
    monkeypatch.setattr("holdfast.engines.pace.host_ram_bytes", lambda: 2 * 10_000)
    pace, given = Pace(64), Pace(64, True)
    for one in (pace, given):
        one.begin(10)
        one.bound(10, model)
    assert (pace.rows, pace.most, given.rows) == (64, 1000, 64)
    pace.rows, pace.settled = 256, True  # as many were fastest
    for one in (pace, given):
        one.begin(1000)
    assert (pace.next, given.next) == (8, 64), "few, before it is known what they take"
    for one in (pace, given):
        one.bound(1000, model)
    assert (pace.rows, pace.most, pace.next) == (10, 10, 10)
    assert given.rows == 64, "as was asked for"
    pace.begin(1100)
    assert pace.most == 10, "nearly as long: nothing to learn"


def test_half_empty_passes_do_not_count() -> None:
    pace = Pace(16, most=1000)
    for _ in range(10 * STEPS):
        pace.took(8, 1.0, 1000)
    assert not pace.rates


# adapters in memory


@pytest.fixture
def tuned(tmp_path: Path) -> Iterator[tuple[Any, Path]]:
    import torch
    from peft import LoraConfig, get_peft_model

    model = _model("llama")
    wrapped = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules="all-linear"))
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    wrapped.save_pretrained(tmp_path / "a")
    yield wrapped.unload(), tmp_path / "a"


def test_merging_is_exact_enough_and_leaves_every_bit(tuned: tuple[Any, Path]) -> None:
    import torch

    from holdfast.models.peft_adapter import load_adapter, merge, restore, scale_adapter, take_off

    model, folder = tuned
    ids = torch.tensor(_prompts(5)[:1])
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    base = model(ids).logits
    for scale in (1.0, 0.3):
        wrapped = load_adapter(model, str(folder))
        if scale != 1:
            scale_adapter(wrapped, scale)
        apart = wrapped(ids).logits
        kept = merge(wrapped)
        assert kept is not None
        merged = wrapped(ids).logits
        assert (merged - apart).abs().max() < 1e-4 * (apart - base).abs().max()
        restore(kept)
        model = take_off(wrapped)
        after = model.state_dict()
        assert after.keys() == before.keys()
        assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("kind", ["float32", "half", "dora"])
def test_factors_that_answer_apart_have_the_precision_of_their_weights(
    tuned: tuple[Any, Path], kind: str
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora.layer import Linear

    from holdfast.models.peft_adapter import load_adapter, narrow

    model, folder = tuned
    if kind != "float32":
        model = model.to(torch.bfloat16)
    if kind == "dora":
        wrapped = get_peft_model(model, LoraConfig(r=2, use_dora=True))
    else:
        wrapped = load_adapter(model, str(folder))
    layers = [one for one in wrapped.modules() if type(one) is Linear]
    before = [one.get_delta_weight("default").float() for one in layers]
    narrow(wrapped)
    wanted = torch.bfloat16 if kind == "half" else torch.float32
    for layer, change in zip(layers, before, strict=True):
        for factor in (layer.lora_A, layer.lora_B):
            assert {one.dtype for one in factor.parameters()} == {wanted}
        after = layer.get_delta_weight("default").float()
        assert (after - change).norm() <= (1e-2 if kind == "half" else 0) * change.norm()
    assert layers and torch.isfinite(wrapped(torch.tensor(_prompts(5)[:1])).logits).all()


@pytest.mark.parametrize("kind", ["dora", "half", "tied", "no room"])
def test_what_cannot_be_merged_exactly_is_not(
    tuned: tuple[Any, Path], kind: str, monkeypatch: Any
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    from holdfast.models import peft_adapter

    model, _ = tuned
    where = "all-linear"
    if kind == "half":
        model = model.to(torch.bfloat16)
    if kind == "tied":
        model.lm_head.weight = model.model.embed_tokens.weight
        where = ["lm_head"]  # type: ignore[assignment]
    if kind == "no room":
        monkeypatch.setattr(peft_adapter, "host_ram_bytes", lambda: 1000)
    wrapped = get_peft_model(model, LoraConfig(r=2, target_modules=where, use_dora=kind == "dora"))
    assert peft_adapter.merge(wrapped) is None
    assert not any(getattr(one, "merged", False) for one in wrapped.modules())
