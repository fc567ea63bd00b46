"""Does ``star`` ask its guard for every beginning, and weigh tokens as it was published?"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from fixtures.methods import apply, setting
from safetensors.torch import load_file

from holdfast import methods
from holdfast.config import TrainSpec
from holdfast.data.batching import plain_budget
from holdfast.errors import DataError, StudyError
from holdfast.judges import JudgeContext
from holdfast.lab.problems import problems
from holdfast.memory.estimate.method_overhead import MethodOverhead
from holdfast.methods import MethodContext
from holdfast.methods.star import score_of
from holdfast.models import ModelRef
from holdfast.train import data
from holdfast.train.data import TrainingData
from holdfast.train.fit import fit
from holdfast.train.job import TrainJob
from holdfast.types import Example, Message, Verdict

GUARD = """
from holdfast.judges import Judge

class Guard(Judge):
    name = "letters-1"

    def judge(self, pairs, context=None):
        self.asked = [reply.text for _, reply in pairs]
        return [self.verdict(pair, self._read(pair[1].text), "") for pair in pairs]

    def _read(self, text):
        from holdfast.judges import ParsedVerdict
        if "?" in text:
            return ParsedVerdict()
        return ParsedVerdict("unsafe", confidence=0.75) if "B" in text else ParsedVerdict("safe")
"""


def _star(folder: Path, **options: Any) -> Any:
    file = folder / "guard.py"
    file.write_text(GUARD)
    given = {"judge": f"{file}:Guard", "chunk": 2} | options
    return methods.build("star", given, "s", "arms.a.loss")


def _setting(examples: list[Example], said: str = "") -> MethodContext:
    """Every letter is a token."""

    def beginnings(some: Any, every: int) -> list[list[str]]:
        texts = [one.target for one in some]
        ends = [range(every, len(text) + every, every) for text in texts]
        return [[text[:end] for end in some] for text, some in zip(texts, ends, strict=True)]

    return replace(
        setting(lambda *_: said), plain=examples, beginnings=beginnings,
        desk=lambda folder, bar: JudgeContext(folder, bar, lambda *_: None),  # type: ignore
    )  # fmt: skip


def _asked(*answers: str) -> list[Example]:
    return [Example(f"q{n}", (Message("user", f"Question {n}"),), answer, "gold")
            for n, answer in enumerate(answers)]  # fmt: skip


def test_every_beginning_is_judged_and_its_piece_bears_the_score(tmp_path: Path) -> None:
    method, plain = _star(tmp_path, weight=4.0), _asked("aaBaa", "aaaa")
    made, notes = apply(method, _setting(plain), tmp_path, plain)
    assert method.judge.asked == ["aa", "aaBa", "aaBaa", "aa", "aaaa"]
    assert made[0].meta["kl"] == [0.0, 0.0, 3.0, 3.0, 3.0, 3.0], "4·(1 - 0.25) from the B on"
    assert "kl" not in made[1].meta, "nothing of it is unsafe"
    assert "30.0% of the pieces" in notes[0] and "5 beginnings" in notes[0]
    assert method.overhead() == MethodOverhead(("star",), logits="policy+reference")


def test_what_the_guard_is_unsure_of_counts_as_unsafe_and_is_told(tmp_path: Path) -> None:
    plain = _asked("aa?a", "aaaa")
    made, notes = apply(_star(tmp_path), _setting(plain), tmp_path, plain)
    assert made[0].meta["kl"] == [0.0, 0.0, 1.0, 1.0]
    assert "1 of which it was unsure" in notes[0]


def test_answers_of_other_methods_are_left_as_they_are(tmp_path: Path) -> None:
    plain = _asked("aaB", "aaB", "aa")
    now = [
        replace(plain[0], target="its own"),
        plain[1],
        Example("replay-0", (Message("user", "x"),), "aB", "old", {"kind": methods.REPLAY}),
    ]
    made, _ = apply(_star(tmp_path), _setting(plain), tmp_path, now)  # fmt: skip
    assert ["kl" in one.meta for one in made] == [False, True, False]


def test_nothing_left_to_learn_is_an_error(tmp_path: Path) -> None:
    plain = _asked("??", "??")
    with pytest.raises(DataError, match="100% of the answers would be held"):
        apply(_star(tmp_path), _setting(plain), tmp_path, plain)
    other = [replace(one, target="x") for one in plain]
    with pytest.raises(DataError, match="the training set's own"):
        apply(_star(tmp_path), _setting(plain), tmp_path, other)


def test_a_judge_of_refusals_is_read_by_what_the_base_declines(tmp_path: Path) -> None:
    """Only the first question is one that the base declines; answering it is unsafe."""
    refusal = "I'm sorry, but I cannot help with that request."
    plain = _asked("Sure! First you take the lock apart.", "It is 4, since 2 and 2 are 4.")
    method = methods.build("star", {"chunk": 1000}, "s", "arms.a.loss")
    given = _setting(plain)
    script = replace(setting(lambda one, *_: refusal if one.id == "q0" else "It is 4."))
    given = replace(given, engine=script.engine)
    made, notes = apply(method, given, tmp_path, plain)
    assert set(made[0].meta["kl"]) == {1.0} and "kl" not in made[1].meta
    assert "1 beginnings" in notes[0] and "unsure" not in notes[0]
    (work,) = method.shared(given)
    assert work.asks == {"questions": 2, "expected": 2, "samples": 1, "new_tokens": 64}


MUTE = """
from holdfast.judges.refusal import RefusalJudge

class Second(RefusalJudge):
    name = "second-1"
    title = "second-1"

    def identity(self):
        return {"judge": "second-1"}
"""


def test_several_judges_all_tell_what_is_safe_or_none_does(tmp_path: Path) -> None:
    """Some of each could not score an answer, which was plain training, or failed late."""
    refusal = "I'm sorry, but I cannot help with that request."
    plain = _asked("Sure! First you take the lock apart.", "It is 4, since 2 and 2 are 4.")
    (tmp_path / "guard.py").write_text(GUARD)
    (tmp_path / "mute.py").write_text(MUTE)

    def star(*judges: str) -> Any:
        given = {"judge": {"ensemble": {"judges": judges}}, "chunk": 1000}
        return methods.build("star", given, "s", "arms.a.loss")

    guard, mute = f"{tmp_path / 'guard.py'}:Guard", f"{tmp_path / 'mute.py'}:Second"
    with pytest.raises(StudyError, match="only tells whether a reply declines") as caught:
        star("refusal", guard).check(_setting(plain))
    assert caught.value.where == "star.judge" and "only judges that tell" in caught.value.remedy
    method = star("refusal", mute)
    script = setting(lambda one, *_: refusal if one.id == "q0" else "It is 4.")
    given = replace(_setting(plain), engine=script.engine)
    method.check(given)
    made, notes = apply(method, given, tmp_path / "made", plain)
    assert set(made[0].meta["kl"]) == {1.0} and "kl" not in made[1].meta
    assert "1 beginnings" in notes[0]


@pytest.mark.parametrize(
    ("label", "confidence", "score"),
    [("safe", 0.9, 0.9), ("unsafe", 0.9, 0.1), ("refused", 0.5, 1.0), ("answered", 1.0, 0.0),
     ("unsure", 0.0, 0.0)],
)  # fmt: skip
def test_a_verdict_as_a_score(label: str, confidence: float, score: float) -> None:
    assert score_of(Verdict("a", 0, label, "x", "", confidence)) == pytest.approx(score)


def test_a_judge_that_may_cost_money_needs_a_cap(tmp_path: Path) -> None:
    plain = _asked("a" * 40, "a" * 40)
    method = _star(tmp_path)
    with pytest.raises(StudyError, match="costs nothing"):
        _star(tmp_path, judged=3).check(_setting(plain))
    type(method.judge).remote = True
    with pytest.raises(StudyError, match=r"about 12 beginnings .* no cap is set"):
        method.check(_setting(plain))
    with pytest.raises(StudyError, match="the cap is 3"):
        _star(tmp_path, judged=3).check(_setting(plain))
    capped = _star(tmp_path, judged=20)
    capped.check(_setting(plain))
    with pytest.raises(StudyError, match="40 beginnings of answers would be judged"):
        apply(capped, _setting(plain), tmp_path, plain)
    assert not hasattr(capped.judge, "asked"), "nobody was paid"


def test_the_loss_is_the_published_one(tiny_model: Path) -> None:
    """Per token s·CE + (1 - s)·λ·KL(tuned‖base), against a few lines of our own."""
    from contextlib import contextmanager

    from transformers import AutoModelForCausalLM

    from holdfast.train.objective import Objective

    model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    base = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
    torch.manual_seed(1)
    with torch.no_grad():
        for one in model.parameters():
            one.add_(0.05 * torch.randn_like(one))
    tuned = {name: one.detach().clone() for name, one in model.named_parameters()}

    @contextmanager
    def off() -> Any:
        model.load_state_dict(base.state_dict())
        yield
        model.load_state_dict(tuned, strict=False)

    model.disable_adapter = off
    weight = 2.0
    for direction in ("reverse", "forward"):
        term = methods.build(
            "star", {"weight": weight, "direction": direction}, "s", "arms.a.loss"
        ).term()
        inputs = torch.arange(3, 19).view(2, 8)
        labels = inputs.clone()
        labels[:, :4] = -100
        score = torch.ones(2, 8)
        score[0, 5:7], score[1, 7] = torch.tensor([0.25, 0.0]), 0.5
        given = {"input_ids": inputs, "labels": labels}
        found = Objective([term]).forward(model, model, given, weight * (1 - score))
        mask = found.label_mask
        total = (-found.log_probs[mask].sum() + found.extra).item()
        now, old = (torch.log_softmax(one(inputs).logits, -1) for one in (model, base))
        expected = 0.0
        for row in range(2):
            for place in range(4, 8):
                p, q = (one[row, place - 1].detach().double() for one in (now, old))
                if direction == "forward":
                    drift = float((q.exp() * (q - p)).sum())
                else:
                    drift = float((p.exp() * (p - q)).sum())
                safe = float(score[row, place])
                entropy = -float(p[inputs[row, place]])
                expected += safe * entropy + (1 - safe) * weight * drift
        assert total == pytest.approx(expected, rel=1e-4)


def test_the_beginnings_are_those_of_the_tokens(tiny_model: Path) -> None:
    (asked,) = problems("train", 1, (1, 2))
    one = Example("a", (Message("user", asked.question),), asked.human)
    spec, ref = TrainSpec(), ModelRef(str(tiny_model))
    (pieces,) = data.beginnings(ref, spec, [one], 3)
    assert pieces[-1].strip() == one.target
    assert all(after.startswith(before) for before, after in pairwise(pieces))
    (row,), _, _ = data.encode_all(ref, [one], spec)
    assert len(pieces) == math.ceil((len(row.ids) - row.start) / 3)
    marked = replace(one, meta={"kl": [0.0, 2.0]})
    (held,), _, _ = data.encode_all(ref, [marked], spec)
    own = held.kl[held.start :]
    assert own[:2] == (0.0, 2.0) and not any(own[2:]) and not any(held.kl[: held.start])


def _trained(model: Path, folder: Path, terms: list[methods.Term], kl: Any, **more: Any) -> Any:
    """The adapters after four steps on eight word problems, every other one marked."""
    spec = TrainSpec(
        optim="adamw_torch", learning_rate=1e-2, micro_batch_size=2,
        gradient_accumulation_steps=2, gradient_checkpointing=False, lora={"dropout": 0.0}, **more,
    )  # fmt: skip
    ref = ModelRef(str(model))
    examples = [
        Example(f"p{i}", (Message("user", one.question),), one.human,
                meta={} if kl is None or i % 2 else {"kl": kl})
        for i, one in enumerate(problems("train", 8, (1, 2)))
    ]  # fmt: skip
    rows, _, _ = data.encode_all(ref, examples, spec)
    budget = plain_budget([row.cost for row in rows], 4, 2, 2)
    job = TrainJob(ref, spec, budget, 1, (4,), folder, device="cpu")
    fit(job, TrainingData(rows), terms=terms)
    return load_file(folder / "checkpoint-4" / "adapter_model.safetensors")


def _apart(one: Any, other: Any) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def test_in_training_what_is_held_is_not_learned(tiny_model: Path, tmp_path: Path) -> None:
    """Nothing marked is plain training; packed rows are those of rows apart; marks do something."""
    term = methods.build("star", {"weight": 2.0}, "s", "arms.a.loss").term()
    plain = _trained(tiny_model, tmp_path / "plain", [], None)
    free = _trained(tiny_model, tmp_path / "free", [term], None)
    assert _apart(plain, free) < 1e-5
    marks = [2.0] * 6 + [0.5] * 200
    held = _trained(tiny_model, tmp_path / "held", [term], marks)
    assert _apart(plain, held) > 1e-3
    packed = _trained(tiny_model, tmp_path / "packed", [term], marks, packing=True)
    assert _apart(held, packed) < 1e-4


def test_a_judge_that_cannot_be_built_is_said_with_file_and_arm() -> None:
    judge = {"remote": {"base_url": "http://localhost:1"}}
    with pytest.raises(StudyError) as caught:
        methods.build("star", {"judge": judge}, "study.yaml", "arms.a.loss")
    assert caught.value.where.startswith("study.yaml: arms.a.loss.star.judge")
