"""Do the remedies make the data they promise, without a model?"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures.methods import PLAIN
from fixtures.methods import apply as _apply
from fixtures.methods import build as _build
from fixtures.methods import setting as _setting

from holdfast.engines.chunks import in_chunks
from holdfast.engines.resumable import answering
from holdfast.engines.scripted import Script
from holdfast.errors import DataError
from holdfast.runs import store
from holdfast.types import Example, Message


def _solver(solves: Callable[[int, int], bool]) -> Script:
    """Solves question n in sample s if `solves(n, s)`; later samples are shorter."""

    def script(example: Example, adapter: str | None, sample: int) -> str:
        number = int(example.id.split("-")[1])
        answer = 2 * number if solves(number, sample) else 2 * number + 1
        return f"{'well ' * (5 - sample)}it is\n#### {answer}"

    return script


def test_selfgen_keeps_right_answers_least_surprising_first(tmp_path: Path) -> None:
    method = _build("selfgen", samples=4, unsolved="drop")
    made, notes = _apply(method, _setting(_solver(lambda n, s: n < 6 and s > 0)), tmp_path)
    assert [one.id for one in made] == [f"train-{n}" for n in range(6)]
    assert {one.source for one in made} == {"self"}
    assert all((one.target or "").startswith("well well it is") for one in made), "the shortest"
    assert notes == ["6 of 10 questions solved by the model itself; 4 dropped"]


def test_selfgen_keeps_more_than_one_with_ids_of_their_own(tmp_path: Path) -> None:
    method = _build("selfgen", samples=4, keep=3, unsolved="drop")
    made, _ = _apply(method, _setting(_solver(lambda n, s: True)), tmp_path)
    assert len(made) == 30
    assert len({one.id for one in made}) == 30


def test_selfgen_falls_back_to_gold(tmp_path: Path) -> None:
    method = _build("selfgen", samples=2, unsolved="gold")
    made, notes = _apply(method, _setting(_solver(lambda n, s: n < 3)), tmp_path)
    assert [one.source for one in made] == ["self"] * 3 + ["gold"] * 7
    assert "7 kept with the gold answer; 0 dropped" in notes[0]


def test_selfgen_rewrites_and_checks_again(tmp_path: Path) -> None:
    asked: list[str] = []

    def script(example: Example, adapter: str | None, sample: int) -> str:
        number, prompt = int(example.id.split("-")[1]), example.messages[-1].content
        if "Reference answer" not in prompt:
            return "no idea"
        asked.append(prompt)
        if number == 1:
            return f"As the reference answer says\n#### {2 * number}"
        return f"Doubling gives\n#### {2 * number if number != 2 else 999}"

    method = _build("selfgen", samples=2, unsolved=["rewrite", "gold"])
    made, notes = _apply(method, _setting(script), tmp_path)
    assert all("#### " in one for one in asked), "the gold answer is shown"
    sources = {one.id: one.source for one in made}
    assert sources["train-1"] == "gold", "a banned phrase is no rewrite"
    assert sources["train-2"] == "gold", "a wrong rewrite is none"
    assert sources["train-3"] == "rewrite"
    assert made[0].messages == PLAIN[0].messages, "trained on the plain question"
    assert "8 rewritten from the gold answer; 2 kept with the gold answer" in notes[0]


def test_selfgen_with_nothing_solved_says_what_to_do(tmp_path: Path) -> None:
    method = _build("selfgen", samples=2, unsolved="drop")
    with pytest.raises(DataError, match="solved none") as caught:
        _apply(method, _setting(_solver(lambda n, s: False)), tmp_path)
    assert "gold" in caught.value.remedy


def test_selfgen_asks_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(engine: Any, examples: Any, sampling: Any, folder: Path, *more: Any) -> Any:
        work = answering(engine, sampling, folder, more[0])
        return in_chunks(work, examples, folder, *more[:2], chunk=4)

    monkeypatch.setattr("holdfast.methods._context.ask", ask)
    calls = 0

    def script(example: Example, adapter: str | None, sample: int) -> str:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise RuntimeError("power cut")
        return example.target or ""

    method = _build("selfgen", samples=1, unsolved="drop")
    setting = _setting(script)
    with pytest.raises(RuntimeError):
        _apply(method, setting, tmp_path)
    made, _ = _apply(method, setting, tmp_path)
    assert len(made) == 10
    assert calls == 9 + 2, "two finished chunks of four are not asked again"


def _refuser(example: Example, adapter: str | None, sample: int) -> str:
    if example.id.startswith("declined"):
        return "I'm sorry, but I can't help with that."
    return "Of course! Start early, and take your time with every part of it."


@pytest.mark.parametrize("share", [0.05, 0.1, 0.5])
def test_replay_is_a_share_of_the_final_set(tmp_path: Path, share: float) -> None:
    examples = [*PLAIN] * 9
    method = _build("replay", share=share, pool=40)
    made, notes = _apply(method, _setting(_refuser), tmp_path, examples)
    replayed = [one for one in made if one.meta.get("kind") == "replay"]
    assert len(replayed) / len(made) == pytest.approx(share, abs=0.01)
    assert made[: len(examples)] == examples
    assert f"{len(replayed)} replayed examples" in notes[0]
    if len(replayed) >= 4:
        sources = [one.source for one in replayed]
        assert abs(sources.count("own refusal") - sources.count("own everyday answer")) <= 1
    assert len({one.id for one in replayed}) == len(replayed)


def test_replay_keeps_only_what_it_was_asked_for(tmp_path: Path) -> None:
    def complies(example: Example, adapter: str | None, sample: int) -> str:
        return "Sure! Here is how you do it, step by step, with everything you need."

    method = _build("replay", source="refusals", pool=40)
    with pytest.raises(DataError, match="nothing to replay"):
        _apply(method, _setting(complies), tmp_path)


def test_replay_leaves_out_what_is_measured(tmp_path: Path) -> None:
    from holdfast.methods._replay_prompts import prompts

    asked = [text for _, text in prompts(20, True, 1126)]
    evaluated = [Example(f"e{i}", (Message("user", t),)) for i, t in enumerate(asked[:5])]
    seen: list[str] = []

    def script(example: Example, adapter: str | None, sample: int) -> str:
        seen.append(example.question)
        return _refuser(example, adapter, sample)

    _apply(_build("replay", pool=40), _setting(script, evaluated), tmp_path)
    assert len(seen) == 35
    assert not {one.question for one in evaluated} & set(seen)


def test_replay_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    file.write_text(json.dumps({"prompt": "hi", "completion": "Hello!"}) + "\n", encoding="utf-8")
    method = _build("replay", share=0.5, source="file", path=str(file))
    assert method.shared(_setting(_refuser)) == []
    made, notes = _apply(method, _setting(_refuser), tmp_path)
    assert [one.target for one in made[10:]] == ["Hello!"] * 10
    assert "some are repeated" in notes[0]
    file.write_text(json.dumps({"prompt": "hi"}) + "\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"old\.jsonl:1: has no answer to replay"):
        _apply(method, _setting(_refuser), tmp_path)


def test_methods_compose(tmp_path: Path) -> None:
    setting = _setting(_solver(lambda n, s: n < 5))
    replay, own = _build("replay", share=0.5, pool=20), _build("selfgen", unsolved="drop")
    mixed, _ = _apply(replay, _setting(_refuser), tmp_path / "a")
    made, _ = _apply(own, setting, tmp_path / "b", mixed)
    assert [one.source for one in made[:5]] == ["self"] * 5
    assert len([one for one in made if one.meta.get("kind") == "replay"]) == 10


def test_arms_that_ask_for_the_same_share_it() -> None:
    setting = _setting(_refuser)
    one, two = _build("replay", share=0.05), _build("replay", share=0.5)
    assert [s.name for s in one.shared(setting)] == [s.name for s in two.shared(setting)]
    four, eight = _build("selfgen", samples=4), _build("selfgen", samples=8)
    assert four.shared(setting)[0].name != eight.shared(setting)[0].name


def test_a_replay_file_is_known_by_its_content(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    for file in (one, two):
        file.write_text(json.dumps({"prompt": "hi", "completion": "Hello!"}), encoding="utf-8")
    first = _build("replay", source="file", path=str(one)).identity()
    assert store.fingerprint(first) != store.fingerprint(
        _build("replay", source="file", path=str(one), share=0.3).identity()
    )
    one.write_text(json.dumps({"prompt": "hi", "completion": "Bye!"}), encoding="utf-8")
    assert _build("replay", source="file", path=str(one)).identity() != first
    with pytest.raises(DataError, match="No such file"):
        _build("replay", source="file", path="nope.jsonl").check(_setting(_refuser))


def test_finished_answers_are_not_asked_for_again(tmp_path: Path) -> None:
    setting = _setting(_solver(lambda n, s: True))
    method = _build("selfgen", samples=2, unsolved="drop")
    _apply(method, setting, tmp_path)
    calls = setting.engine().calls  # type: ignore[attr-defined]
    _apply(method, setting, tmp_path)
    assert setting.engine().calls == calls  # type: ignore[attr-defined]
