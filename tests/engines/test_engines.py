"""Do batched answers equal single ones, and is *before* never measured through an adapter?"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from holdfast.config import Sampling
from holdfast.data import chat
from holdfast.engines import chunks, mean_nll, resumable
from holdfast.engines.hf import HFEngine
from holdfast.errors import OutOfMemory
from holdfast.lab.problems import problems
from holdfast.memory.fault_injection import VARIABLE
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.progress.stopping import Stop
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
    assert mean_nll(engine, ASKED) == pytest.approx(mean_nll(engine, ASKED))
    assert _texts(engine) == before


def test_surprise_is_what_it_says(engine: HFEngine) -> None:
    import torch

    found = mean_nll(engine, ASKED)
    for one, nll in zip(ASKED, found, strict=True):
        row = chat.encode(engine.tokenizer, one, frozenset(engine._stops))
        out = engine._base(torch.tensor([row.ids]), labels=torch.tensor([row.labels]))
        assert nll == pytest.approx(out.loss.item(), abs=1e-4)


class Scarce(HFEngine):
    """Runs out of memory in the forward passes with these numbers; keeps what it was asked."""

    def __init__(self, at: Sequence[int], batch_size: int) -> None:
        from holdfast.lab import model_folder

        super().__init__(ModelRef(str(model_folder())), "cpu", batch_size=batch_size)
        self._at, self._passes = set(at), 0
        self.asked: list[list[str]] = []
        self.ended: list[str] = []

    def __enter__(self) -> Scarce:
        super().__enter__()
        self._unsuited = ""  # not looked at here: its passes would count
        self._base.register_forward_pre_hook(self._pass)
        return self

    def _pass(self, *_: Any) -> None:
        import torch

        self._passes += 1
        if self._passes in self._at:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 8.00 MiB.")

    def _refilled(
        self, model: Any, rows: Sequence[Any], sampling: Sampling, ending: Callable[[], bool]
    ) -> Iterator[Any]:
        names = [f"{one.id}.{sample}" for one, _, sample in rows]
        self.asked.append(names)
        for place, tokens in super()._refilled(model, rows, sampling, ending):
            self.ended.append(names[place])
            yield place, tokens


class Counter(Silent):
    def __init__(self) -> None:
        self.done, self.lines = 0, []

    def advance(self, amount: int = 1) -> None:
        self.done += amount

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize("warm", [{}, {"temperature": 1.2, "samples": 2}])
def test_a_batch_that_does_not_fit_is_asked_in_halves(warm: dict[str, object]) -> None:
    asked = [
        Example(f"q{i}", (Message("user", one.question),), one.native)
        for i, one in enumerate(problems("test", 16, (1, 2, 3)))
    ]
    chosen = Sampling(max_new_tokens=12).model_copy(update=warm)
    with Scarce([], 8) as calm:
        wanted = calm.generate(asked, chosen, None, Silent())
        rows = calm.asked[0]
    with Scarce([15], 8) as one:  # in the middle of the second half, some of the first still out
        count = Counter()
        assert one.generate(asked, chosen, None, count) == wanted
        (found,) = one.events
        assert (found["phase"], found["step"]) == ("answer", None)
        assert (found["from_micro_batch"], found["to_micro_batch"]) == (8, 4)
        before, after = one.asked
        assert before == rows and 0 < len(after) < len(rows), "what had ended is not asked again"
        assert sorted(one.ended) == sorted(rows), "and each ends once"
        assert count.done == 16 and "going on with 4" in count.lines[0]
        assert one.generate(asked[:6], chosen, None, Silent()) == wanted[:6]
        assert one._pace.rows == 4, "the smaller number is kept"


def test_samples_of_one_prompt_are_halved_too() -> None:
    chosen = Sampling(max_new_tokens=6, temperature=1.2, samples=6)
    with Scarce([], 6) as calm:
        wanted = calm.generate(ASKED[:2], chosen, None, Silent())
    with Scarce([1, 2], 6) as one:
        count = Counter()
        assert one.generate(ASKED[:2], chosen, None, count) == wanted
        sizes = [(found["from_micro_batch"], found["to_micro_batch"]) for found in one.events]
        assert sizes == [(6, 3), (3, 1)]
        assert count.done == 2


def test_surprise_survives_too(engine: HFEngine) -> None:
    with Scarce([2], 8) as one:
        assert mean_nll(one, ASKED) == pytest.approx(mean_nll(engine, ASKED), abs=1e-5)
        assert [found["to_micro_batch"] for found in one.events] == [1]
        one.generate(ASKED, GREEDY, None, Silent())
        assert one._pace.rows == 8, "answering keeps a number of its own"


@pytest.mark.parametrize("what", ["generate", "mean_nll"])
def test_one_prompt_that_does_not_fit_is_said(what: str, monkeypatch: Any) -> None:
    monkeypatch.setenv(VARIABLE, "answer>1")
    with Scarce([], 8) as one, pytest.raises(OutOfMemory) as caught:
        if what == "generate":
            one.generate(ASKED[:2], GREEDY, None, Silent())
        else:
            mean_nll(one, ASKED[:2])
    assert caught.value.phase == "answer" and "nf4" in caught.value.remedy
    assert [found["to_micro_batch"] for found in one.events] == [1, None]


def test_other_errors_of_a_model_are_not_swallowed() -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    with Scarce([], 8) as one:
        one._base.register_forward_pre_hook(fail)
        with pytest.raises(RuntimeError, match="shapes"):
            one.generate(ASKED[:2], GREEDY, None, Silent())
        assert not one.events


def test_a_model_that_does_not_fit_is_said(monkeypatch: Any) -> None:
    monkeypatch.setenv(VARIABLE, "load:1")
    with pytest.raises(OutOfMemory) as caught, Scarce([], 8):
        pass
    assert caught.value.phase == "load"


def _kept(engine: HFEngine, folder: Path, progress: Silent) -> list[list[str]]:
    """The answers of both samples, asked in a folder that remembers."""
    sampling = Sampling(max_new_tokens=6, temperature=1.0, samples=2)
    replies = resumable.ask(lambda: engine, ASKED, sampling, folder, progress)
    return [[reply.text, str(reply.sample)] for reply in replies]


class Presses(Silent):
    """Somebody presses Ctrl-C at an answer; it comes when those under way are done."""

    def __init__(self, answer: int) -> None:
        self.stop, self.left, self.before = Stop(), answer, 0

    def worked(self, tokens: int = 0, loss: float | None = None) -> None:
        self.left -= 1
        if not self.left:
            assert self.stop.doing == "the 3 answers under way"
            self.stop.signals.append(signal.SIGINT)

    def kept(self, amount: int) -> None:
        self.before += amount


def test_answers_under_way_are_kept_and_cost_what_they_cost(
    engine: HFEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = _kept(engine, tmp_path / "once", Silent())
    for answer in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            _kept(engine, tmp_path / "often", Presses(answer))
    asked: list[int] = []
    plain = engine._decoded
    monkeypatch.setattr(engine, "_decoded", lambda *a: asked.append(len(a[1])) or plain(*a))
    last = Presses(99)
    assert _kept(engine, tmp_path / "often", last) == once
    assert asked == [2 * (7 - last.before)] and 0 < last.before < 7, "whole questions are kept"
    costs = [chunks.spent_in(tmp_path / name) for name in ("once", "often")]
    assert costs[0] == costs[1] and costs[0].written > 0
    assert not (tmp_path / "often" / "parts" / "some").exists()


def test_other_answers_are_not_taken_for_those(engine: HFEngine, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _kept(engine, tmp_path, Presses(2))
    other = Sampling(max_new_tokens=3)
    last = Presses(99)
    replies = resumable.ask(lambda: engine, ASKED, other, tmp_path, last)
    assert last.before == 0 and all(reply.n_tokens <= 3 for reply in replies)
