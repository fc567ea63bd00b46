"""SmolLM2 by a real vLLM that Holdfast starts, against SmolLM2 by transformers.

vLLM is used where `python benchmarks/real/serve.py vllm` installed it, or HOLDFAST_VLLM names the
program; where it is not, the tests are skipped and say so.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.vllm import wait_gone

from benchmarks.real.serve import lacking
from benchmarks.real.serve import program as program_of
from benchmarks.real.servers import alike, make_adapter, questions
from holdfast import models
from holdfast.config import Sampling
from holdfast.data import chat
from holdfast.engines import Engine
from holdfast.engines.hf import HFEngine
from holdfast.engines.live import Live
from holdfast.engines.vllm import VLLMEngine
from holdfast.engines.vllm.beside import Beside
from holdfast.engines.vllm.program import find
from holdfast.engines.vllm.wanted import Wanted
from holdfast.memory.planner.drawing_server import Place
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.types import Example, Message

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(3600)]
ASKED, FEW = questions(8), Sampling(max_new_tokens=24)
ANSWERED = [
    Example(f"a{n}", (Message("user", f"What is {n} plus 4?"),), f"The answer is {n + 4}.")
    for n in range(6)
]
CLOSE = 2e-3
"""Nats between the two in float32."""


@pytest.fixture(scope="module")
def adapter(smollm2: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("adapter")
    make_adapter(smollm2, folder)
    return str(folder)


@pytest.fixture(scope="module")
def there(smollm2: Path) -> Iterator[VLLMEngine]:
    if why := lacking("vllm"):
        pytest.skip(why)
    wanted = Wanted(program=str(program_of("vllm")), new_tokens=64, rank=8)
    with VLLMEngine(ModelRef(str(smollm2)), "cpu", "float32", False, 8, wanted=wanted) as engine:
        yield engine


@pytest.fixture(scope="module")
def here(smollm2: Path) -> Iterator[HFEngine]:
    with HFEngine(ModelRef(str(smollm2)), "cpu", "float32") as engine:
        yield engine


def _pid(engine: VLLMEngine) -> int:
    assert engine._serving is not None and engine._serving._server is not None
    return engine._serving._server._pid


def test_its_version_is_taken() -> None:
    if why := lacking("vllm"):
        pytest.skip(why)
    assert find(str(program_of("vllm"))).version.startswith("0.32.")


def test_greedy_answers_of_base_and_adapter(
    there: VLLMEngine, here: HFEngine, adapter: str
) -> None:
    for which in (None, adapter):
        far = there.generate(ASKED, FEW, which, Silent())
        near = here.generate(ASKED, FEW, which, Silent())
        same, share = alike(far, near)
        print(f"adapter {which is not None}: {same} of {len(ASKED)} alike, {share:.0%} before")
        assert same >= len(ASKED) - 1
        assert [one.n_tokens for (one,) in far if one.finish == "length"] == [24] * sum(
            one.finish == "length" for (one,) in far
        )
    assert there.usage.read == here.usage.read, "the same prompts, counted by the server"


def test_an_answer_ends_where_it_does_here(there: VLLMEngine, here: HFEngine) -> None:
    more = [
        Example("until", ASKED[0].messages, meta={"until": ["\n", "."]}),
        Example("text", (Message("user", "Once upon a time"),), meta={"continue": "text"}),
        Example("begun", ASKED[1].messages, meta={"prefix": "Well,"}),
    ]
    stopped = Sampling(max_new_tokens=24, stop=(" the", "!"), repetition_penalty=1.1)
    for sampling in (FEW, stopped):
        far = there.generate(more, sampling, None, Silent())
        assert far == here.generate(more, sampling, None, Silent())


def test_drawn_answers_follow_their_seeds(there: VLLMEngine) -> None:
    drawing = Sampling(max_new_tokens=12, temperature=0.9, top_p=0.95, top_k=40, samples=3)
    first = there.generate(ASKED[:4], drawing, None, Silent())
    assert there.generate(ASKED[:4], drawing, None, Silent()) == first
    assert len({one.text for one in first[0]}) > 1


def test_log_probabilities_are_close(there: VLLMEngine, here: HFEngine, adapter: str) -> None:
    engines: list[Engine] = [there, here]
    far, near = (one.token_nll(ANSWERED) for one in engines)
    for a, b in zip(far, near, strict=True):
        assert a == pytest.approx(b, abs=CLOSE)
    pairs = [(one, f" {n}") for one in ANSWERED[:3] for n in (4, 5, 6)]
    far2, near2 = (one.loglikelihood(pairs, adapter) for one in engines)
    assert [value for value, _ in far2] == pytest.approx([v for v, _ in near2], abs=CLOSE)
    assert [greedy for _, greedy in far2] == [greedy for _, greedy in near2]
    words = ("Yes", "No", "The")
    far3, near3 = (one.first_token(ANSWERED, words, Silent()) for one in engines)
    for c, d in zip(far3, near3, strict=True):
        assert c == pytest.approx(d, abs=CLOSE)


def test_killed_in_the_middle_it_is_started_again(there: VLLMEngine) -> None:
    whole = there.generate(ASKED, FEW, None, Silent())
    before = _pid(there)

    class Killing(Silent):
        def __init__(self) -> None:
            self.once = threading.Event()

        def advance(self, amount: int = 1) -> None:
            if not self.once.is_set():
                self.once.set()
                os.kill(before, signal.SIGKILL)

    again = there.generate(ASKED * 1, FEW, None, Killing())
    assert _pid(there) != before and wait_gone([before]) == []
    assert alike(again, whole)[0] >= len(ASKED) - 1


def test_a_dora_adapter_is_merged_and_answers_as_here(
    there: VLLMEngine, here: HFEngine, smollm2: Path, tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1126)
    base = AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    config = LoraConfig(r=8, lora_alpha=8, target_modules=["q_proj", "v_proj"], use_dora=True)
    tuned = get_peft_model(base, config)
    for name, one in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(one, std=0.1)
    tuned.save_pretrained(tmp_path / "dora")
    far = there.generate(ASKED, FEW, str(tmp_path / "dora"), Silent())
    assert "merged" in there.about
    near = here.generate(ASKED, FEW, str(tmp_path / "dora"), Silent())
    assert alike(far, near)[0] >= len(ASKED) - 1


def test_answers_of_a_model_in_training_follow_its_adapter(smollm2: Path, tmp_path: Path) -> None:
    """Drawn with the adapter of now, of the very tokens that came; greedy as the model itself."""
    import torch
    from peft import LoraConfig, get_peft_model

    if why := lacking("vllm"):
        pytest.skip(why)
    ref = ModelRef(str(smollm2))
    tokenizer = models.load_tokenizer(ref)
    base = models.load_model(ref, torch.float32, "cpu")
    settings = LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"])
    torch.manual_seed(1126)
    model = get_peft_model(base, settings)
    place = Place(None, False, 4 << 30, 0.0, 1, 256, rows=4)
    wanted = Wanted(program=str(program_of("vllm")), new_tokens=16, rank=4, place=place)
    asked = [(one, chat.asked_ids(tokenizer, one), 0) for one in ASKED[:4]]
    far = Beside(model, tokenizer, ref, "float32", wanted, print)
    try:
        here, greedy = Live(model, tokenizer, 4), Sampling(max_new_tokens=16)
        seen = []
        for _ in range(2):
            there, near = far.answers(asked, greedy), here.answers(asked, greedy)
            same = [a.tokens == b.tokens for a, b in zip(there, near, strict=True)]
            assert sum(same) >= len(asked) - 1
            seen.append([one.reply.text for one in there])
            with torch.no_grad():
                for name, values in model.named_parameters():
                    if "lora_B" in name:
                        values.normal_(std=0.1)
        assert seen[0] != seen[1], "the adapter changed, and the same server answers with it"
        drawing = Sampling(max_new_tokens=8, temperature=1.0, seed=3)
        assert far.answers(asked, drawing) == far.answers(asked, drawing)
    finally:
        far.close()
