"""Do batched answers equal single ones, and is *before* never measured through an adapter?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from holdfast import chat
from holdfast.engines.hf import HFEngine
from holdfast.lab.problems import problems
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.spec import Sampling
from holdfast.types import Example, Message

GREEDY = Sampling(max_new_tokens=24)
ASKED = [
    Example(f"p{i}", (Message("user", one.question),), one.native)
    for i, one in enumerate(problems("test", 7, (1, 3, 5)))
]


@pytest.fixture(scope="module")
def engine() -> Iterator[HFEngine]:
    from holdfast.lab import model_folder

    with HFEngine(ModelRef(str(model_folder())), "cpu", batch_size=3) as one:
        yield one


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> str:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from holdfast.lab import model_folder

    base = AutoModelForCausalLM.from_pretrained(model_folder())
    tuned = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear"))
    torch.manual_seed(1)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    folder = tmp_path_factory.mktemp("adapter")
    tuned.save_pretrained(folder)
    return str(folder)


def _texts(engine: HFEngine, adapter: str | None = None, **sampling: object) -> list[list[str]]:
    chosen = GREEDY.model_copy(update=sampling)
    replies = engine.generate(ASKED, chosen, adapter, Silent())
    return [[reply.text for reply in one] for one in replies]


def test_batches_say_what_single_prompts_say(engine: HFEngine) -> None:
    import torch

    model, tokenizer = engine._base, engine.tokenizer
    for one, (said,) in zip(ASKED, _texts(engine), strict=True):
        ids = chat.prompt_ids(tokenizer, one.messages)
        out = model.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)[0]
        assert tokenizer.decode(out[len(ids) :], skip_special_tokens=True) == said


def test_replies_carry_their_ends(engine: HFEngine) -> None:
    full = engine.generate(ASKED[:2], Sampling(max_new_tokens=200), None, Silent())
    cut = engine.generate(ASKED[:2], Sampling(max_new_tokens=3), None, Silent())
    assert {one[0].finish for one in full} == {"stop"}
    assert {(one[0].finish, one[0].n_tokens) for one in cut} == {("length", 3)}
    assert [one[0].example_id for one in full] == ["p0", "p1"]


@pytest.mark.parametrize("warm", [{}, {"temperature": 1.0, "top_p": 0.9, "samples": 2}])
def test_a_reply_does_not_depend_on_its_batch(warm: dict[str, object]) -> None:
    from holdfast.lab import model_folder

    asked = [
        Example(f"q{i}", (Message("user", one.question),), one.native)
        for i, one in enumerate(problems("test", 24, (1, 2, 3, 4, 5)))
    ]
    chosen = Sampling(max_new_tokens=80).model_copy(update=warm)
    said = []
    for size in (24, 5, 2):  # 24 rows are thinned out twice on the way, two never
        with HFEngine(ModelRef(str(model_folder())), "cpu", batch_size=size) as one:
            said.append(one.generate(asked, chosen, None, Silent()))
    assert said[0] == said[1] == said[2]
    assert len({reply.n_tokens for one in said[0] for reply in one}) > 3


def test_sampling_follows_the_probabilities(engine: HFEngine) -> None:
    import torch

    one = ASKED[0]
    ids = chat.prompt_ids(engine.tokenizer, one.messages)
    logits = engine._base(torch.tensor([ids])).logits[0, -1]
    wanted = torch.softmax(logits.float() / 3.0, -1).detach()
    drawn = Sampling(max_new_tokens=1, temperature=3.0, samples=2000)
    (replies,) = engine.generate([one], drawn, None, Silent())
    words, counts = torch.tensor(
        [engine.tokenizer.encode(reply.text, add_special_tokens=False)[0]
         for reply in replies if reply.text]
    ).unique(return_counts=True)  # fmt: skip
    likely = counts > 50
    assert likely.sum() >= 2
    share = counts[likely] / len(replies)
    assert torch.allclose(share, wanted[words[likely]], atol=4 * 0.5 / 2000**0.5)


def test_sampling_is_seeded(engine: HFEngine) -> None:
    warm = {"temperature": 1.5, "samples": 3}
    assert _texts(engine, **warm) == _texts(engine, **warm)
    assert _texts(engine, **warm) != _texts(engine, **warm, seed=1)
    assert all(len(one) == 3 for one in _texts(engine, **warm))


def test_before_is_never_measured_through_an_adapter(engine: HFEngine, adapter: str) -> None:
    before = _texts(engine)
    tuned = _texts(engine, adapter)
    assert tuned != before, "the adapter does something"
    assert _texts(engine) == before, "and leaves nothing behind"
    assert _texts(engine, adapter) == tuned
    assert engine.mean_nll(ASKED) == pytest.approx(engine.mean_nll(ASKED))
    assert _texts(engine) == before


def test_surprise_is_what_it_says(engine: HFEngine) -> None:
    import torch

    found = engine.mean_nll(ASKED)
    for one, nll in zip(ASKED, found, strict=True):
        row = chat.encode(engine.tokenizer, one, frozenset(engine._stops))
        out = engine._base(torch.tensor([row.ids]), labels=torch.tensor([row.labels]))
        assert nll == pytest.approx(out.loss.item(), abs=1e-4)
