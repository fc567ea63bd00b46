"""How likely is a text after a prompt, and where does an answer end that stops at words?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from holdfast.config import Sampling
from holdfast.data import chat
from holdfast.engines import log_likelihood
from holdfast.engines.hf import HFEngine
from holdfast.engines.remote import RemoteEngine
from holdfast.engines.reply_text import Until, cut
from holdfast.errors import ModelError
from holdfast.lab import TARGET_STEPS, model_folder
from holdfast.lab.problems import problems
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.types import Example, Message, Reply

ASKED = [
    Example(f"q{i}", (Message("user", one.question),))
    for i, one in enumerate(problems("test", 12, TARGET_STEPS))
]
PAIRS = [(ASKED[0], "23"), (ASKED[0], "22"), (ASKED[1], "So Tom has 19 nuts."), (ASKED[2], "a")]


@pytest.fixture(scope="module")
def engine() -> Iterator[HFEngine]:
    with HFEngine(ModelRef(str(model_folder())), "cpu", batch_size=12) as open_:
        yield open_


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(model_folder())
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    for name, weights in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weights, std=0.05)
    folder = tmp_path_factory.mktemp("adapter")
    model.save_pretrained(folder)
    return str(folder)


def _one_by_one(engine: HFEngine, example: Example, text: str) -> tuple[float, bool]:
    """The same by the plainest means: one pass over one text, token by token."""
    head, tail = chat.followed_ids(engine.tokenizer, example, text)
    model = engine._model(None)
    total, greedy = 0.0, True
    for place, token in enumerate(tail):
        with torch.inference_mode():
            logs = model(torch.tensor([head + tail[:place]])).logits[0, -1].log_softmax(-1)
        total += float(logs[token])
        greedy &= int(logs.argmax()) == token
    return total, greedy


def test_batched_scores_equal_a_plain_loop(engine: HFEngine) -> None:
    found = engine.loglikelihood(PAIRS, None)
    for (example, text), (value, greedy) in zip(PAIRS, found, strict=True):
        wanted, likeliest = _one_by_one(engine, example, text)
        assert value == pytest.approx(wanted, abs=1e-4) and greedy == likeliest
        assert value < 0


def test_the_model_s_own_answer_is_the_likeliest(engine: HFEngine) -> None:
    text = chat.prompt_text(engine.tokenizer, ASKED[0].messages) + "Sure,"
    begun = Example("a", (Message("user", text),), None, "", {"continue": "text"})
    (reply,) = engine.generate([begun], Sampling(max_new_tokens=6), None, Silent())[0]
    pairs = [(begun, reply.text), (begun, " 23 pears")]
    (best, greedy), (other, likeliest) = engine.loglikelihood(pairs, None)
    assert greedy and not likeliest and best > other


def test_adapters_change_scores_and_leave_the_base_alone(engine: HFEngine, adapter: str) -> None:
    base = engine.loglikelihood(PAIRS, None)
    tuned, half = (engine.loglikelihood(PAIRS, adapter, scale) for scale in (1.0, 0.5))
    nothing = engine.loglikelihood(PAIRS, adapter, 0.0)
    assert tuned != base and half not in (base, tuned)
    assert [one for one, _ in nothing] == pytest.approx([one for one, _ in base], abs=1e-4)
    assert engine.loglikelihood(PAIRS, None) == base


def test_choices_share_their_prompt() -> None:
    rows, places = log_likelihood.shared(
        [([1, 2], [3]), ([1, 2], [4]), ([1, 2], [3, 5]), ([1], [2, 9])]
    )
    assert rows == [((1, 2), [(3,), (4,), (3, 5)]), ((1,), [(2, 9)])]
    assert places == [(0, 0), (0, 1), (0, 2), (1, 0)]


def test_what_rows_begin_with_is_read_once(engine: HFEngine) -> None:
    shots = Message("user", "Leo has 4 pears. " * 12)
    asked = [Example(str(n), (shots, Message("assistant", "4"), *one.messages), "Leo has 4 pears.")
             for n, one in enumerate(ASKED)]  # fmt: skip
    pairs = [(one, text) for one in asked for text in (" Leo has 4", " Leo has 12 pears", " No")]
    read: list[int] = []
    hook = engine._base.register_forward_pre_hook(
        lambda _, given, more: read.append((given[0] if given else more["input_ids"]).numel()),
        with_kwargs=True,
    )
    try:
        scores = engine.loglikelihood(pairs, None)
        apart = sum(sum(map(len, chat.followed_ids(engine.tokenizer, *one))) for one in pairs)
        assert sum(read) < apart / 2
        read.clear()
        losses = engine.token_nll(asked)
        heads = sum(len(chat.asked_ids(engine.tokenizer, one)) for one in asked)
        assert sum(read) < heads, "each alone takes its whole prompt, and its answer beside"
    finally:
        hook.remove()
    for (example, text), (value, greedy) in zip(pairs, scores, strict=True):
        wanted, likeliest = _one_by_one(engine, example, text)
        assert value == pytest.approx(wanted, abs=1e-4) and greedy == likeliest
    for one, found in zip(asked, losses, strict=True):
        row = chat.encode(engine.tokenizer, one, frozenset(engine._stops))
        out = engine._base(torch.tensor([row.ids]), labels=torch.tensor([row.labels]))
        assert sum(found) / len(found) == pytest.approx(out.loss.item(), abs=1e-4)


def test_a_prompt_s_last_spaces_count_to_what_follows(engine: HFEngine) -> None:
    def ids(text: str, more: str) -> tuple[list[int], list[int]]:
        example = Example("a", (Message("user", text),), None, "", {"continue": "text"})
        return chat.followed_ids(engine.tokenizer, example, more)

    plain = engine.tokenizer("Leo has 4 pears", add_special_tokens=False)["input_ids"]
    for text, more in (("Leo has 4", " pears"), ("Leo has 4 ", "pears")):
        head, tail = ids(text, more)
        assert head + tail == plain and len(tail) == len(plain) - len(ids("Leo has", " 4")[0]) - 1
    head, tail = ids("", "Leo has")
    assert head == [engine.tokenizer.eos_token_id], "no token opens a text here, so one ends one"
    assert tail == engine.tokenizer("Leo has", add_special_tokens=False)["input_ids"]
    with pytest.raises(ModelError, match="no token of its own"):
        ids("Leo has", "")


def test_the_assistant_s_turn_may_have_begun(engine: HFEngine) -> None:
    begun = Example("a", ASKED[0].messages, None, "", {"prefix": "Sure"})
    whole = chat.prompt_text(engine.tokenizer, ASKED[0].messages) + "Sure"
    wanted = engine.tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert chat.asked_ids(engine.tokenizer, begun) == wanted


def _ask(engine: HFEngine, words: list[list[str]], **sampling: float) -> list[Reply]:
    chosen = Sampling.model_validate({"max_new_tokens": 60} | sampling)
    asked = [
        Example(one.id, one.messages, None, "", {"until": w} if w else {})
        for one, w in zip(ASKED, words, strict=True)
    ]
    return [reply for (reply,) in engine.generate(asked, chosen, None, Silent())]


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_answers_end_at_words_and_are_the_same_up_to_there(
    engine: HFEngine, temperature: float
) -> None:
    free = _ask(engine, [[]] * 12, temperature=temperature)
    kinds = [["so"], [], ["."], ["#", "so"]] * 3
    ended = _ask(engine, kinds, temperature=temperature)
    shorter = 0
    for one, other, words in zip(free, ended, kinds, strict=True):
        assert other.text == cut(one.text, words)
        assert other.n_tokens <= one.n_tokens
        shorter += other.n_tokens < one.n_tokens
        if other.text != one.text:
            assert other.finish == "stop"
        if not words:
            assert other == one
    assert shorter >= 6, "what is thrown away is not written"


def test_a_text_is_found_wherever_tokens_cut_it(engine: HFEngine) -> None:
    ids = engine.tokenizer("Leo has 4 pears. So", add_special_tokens=False)["input_ids"]
    until = Until(engine.tokenizer, ["4 pears", ""])
    assert not until.reached(ids[:3]) and until.reached(ids[:-1])
    end = engine.tokenizer.eos_token_id
    assert Until(engine.tokenizer, ["<|im_end|>"]).reached([*ids, end]), "special tokens count"
    assert cut("a\n\nb", ["\n\n", ""]) == "a" and cut("a", ["x"]) == "a"


def test_a_server_can_do_neither_likelihoods_nor_begun_turns() -> None:
    server = RemoteEngine(ModelRef("http://localhost:1/v1#model"))
    with pytest.raises(ModelError, match=r"how likely a given text is"):
        server.loglikelihood(PAIRS, None)
    begun = Example("a", ASKED[0].messages, None, "", {"prefix": "Sure,"})
    with pytest.raises(ModelError, match="go on with a bare text"):
        server.generate([begun], Sampling(), None, Silent())
