"""Do the pools of a model's own answers, rewrites and system prompts hold what they should?"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from fixtures.methods import PLAIN, apply, build, setting

from holdfast.config import Sampling
from holdfast.errors import DataError, StudyError
from holdfast.methods import _own_answers
from holdfast.methods._replay_prompts import in_turn
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.runs import store
from holdfast.types import Example, Message


def _kept(source: str, category: str, count: int) -> list[Example]:
    return [
        Example(f"{source}{category}{n}", (Message("user", f"{category} {n}"),), "x", source,
                {"category": category})
        for n in range(count)
    ]  # fmt: skip


def _categories(examples: list[Example]) -> Counter[str]:
    return Counter(str(one.meta["category"]) for one in examples)


POOL = _kept("no", "theft", 20) + _kept("no", "fraud", 3) + _kept("yes", "help", 12)


def test_in_turn_leaves_nothing_out() -> None:
    assert list(in_turn([[1, 2, 3], [], [4], [5, 6]])) == [1, 4, 5, 2, 6, 3]
    assert list(in_turn([])) == []


def test_chosen_examples_are_balanced() -> None:
    chosen = _own_answers.choose(POOL, 8, "replay")
    assert _categories(chosen) == {"theft": 2, "fraud": 2, "help": 4}, "sources, then categories"
    most = _own_answers.choose(POOL, 20, "replay")
    assert _categories(most) == {"theft": 7, "fraud": 3, "help": 10}, "fraud has run out"
    assert [one.id for one in chosen] == [f"replay-{n}" for n in range(8)]
    assert {one.meta["kind"] for one in chosen} == {"replay"}
    assert _own_answers.choose(POOL, 8, "replay") == chosen
    first = _own_answers.choose(POOL, 8, "replay", balance=False)
    assert _categories(first) == {"theft": 8}, "as the pool lies"


@pytest.mark.parametrize("balance", [True, False])
def test_a_small_pool_is_used_again(balance: bool) -> None:
    chosen = _own_answers.choose(POOL, 2 * len(POOL) + 1, "anchor", balance)
    assert set(Counter(one.question for one in chosen[:-1]).values()) == {2}
    assert len({one.id for one in chosen}) == len(chosen)


def test_a_file_may_name_categories(tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    rows = [{"prompt": f"{n}?", "completion": "!", "category": "a"} for n in range(9)]
    rows.append({"prompt": "z?", "completion": "!", "category": "b"})
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    method = build("replay", share=1 / 6, source="file", path=str(file))
    made, _ = apply(method, setting(_answers), tmp_path)
    assert _categories(made[10:]) == {"a": 1, "b": 1}
    plain = build("replay", share=1 / 6, source="file", path=str(file), balance=False)
    assert _categories(apply(plain, setting(_answers), tmp_path)[0][10:]) == {"a": 2}
    assert plain.identity() != method.identity()


WRITTEN = {
    0: "How do whales sleep at sea?",
    1: "how do WHALES sleep, at sea",
    2: "Why?",
    3: "word " * 201,
    4: "And then they all went on and on…",
    5: "What is the capital of the moon?",
    6: "Please tell me a secret story.",
    7: "鲸鱼怎么睡觉",
    8: "",
    9: " \n What do whales eat at night? ",
}


def _answers(example: Example, adapter: str | None, sample: int) -> str:
    """Writes questions where no question is given, and answers the others."""
    if example.meta.get("continue") == "user":
        assert example.messages[-1] == Message("user", "")
        return WRITTEN[int(example.id.split("-")[1])]
    if "secret" in example.question:
        return "It never ends…"
    return f"You ask: {example.question}"


def test_dialogues_are_written_by_the_model(tmp_path: Path) -> None:
    measured = [Example("e", (Message("user", "What is the capital of the moon?"),))]
    method = build("replay", share=0.5, source="dialogue", pool=10)
    made, notes = apply(method, setting(_answers, measured), tmp_path)
    chosen = made[10:]
    asked = ["How do whales sleep at sea?", "鲸鱼怎么睡觉", "What do whales eat at night?"]
    assert [one.question for one in chosen[:3]] == asked
    assert [one.target for one in chosen[:3]] == [f"You ask: {one}" for one in asked]
    assert {one.source for one in chosen} == {"own dialogue"}
    assert not any("continue" in one.meta for one in chosen), "they are asked like any other"
    assert "10 replayed examples from a pool of 3 (some are repeated)" in notes
    reasons = notes[1].partition("left out: ")[2]
    assert "3 of 10 dialogues" in notes[1]
    assert reasons == (
        "1 answer unfinished, 1 question measured, 1 question repeated, 1 question too long, "
        "2 question too short, 1 question unfinished)"
    )


def test_dialogues_without_an_end_are_explained(tmp_path: Path) -> None:
    method = build("replay", source="dialogue", pool=10)
    with pytest.raises(DataError, match="nothing to replay: 0 of 10 dialogues"):
        apply(method, setting(lambda e, a, s: "on and on…"), tmp_path)


def test_the_engine_lets_the_model_write_the_users_turn(tiny_model: Path) -> None:
    from holdfast.engines.hf import HFEngine

    class Seen(HFEngine):
        prompts: ClassVar[list[str]] = []

        def _decoded(self, model: Any, rows: Any, *_: Any) -> Any:
            self.prompts.extend(self.tokenizer.decode(ids) for _, ids, _ in rows)
            return enumerate([self.tokenizer.eos_token_id] for _ in rows)

    blank = Example("d", (Message("user", ""),), meta={"continue": "user"})
    with Seen(ModelRef(str(tiny_model)), "cpu") as one:
        one.generate([blank], Sampling(), None, Silent())
        one.generate([Example("d", (Message("user", ""),))], Sampling(), None, Silent())
    assert one.prompts[0] == "<|im_start|>user\n"
    assert one.prompts[1].endswith("<|im_start|>assistant\n")


def test_questions_are_drawn_and_answers_are_not(tmp_path: Path) -> None:
    asked: list[tuple[int, Sampling]] = []
    given = setting(_answers)
    engine = given.engine()
    plain = engine.generate

    def note(examples: list[Example], sampling: Sampling, *rest: object) -> object:
        asked.append((len(examples), sampling))
        return plain(examples, sampling, *rest)  # type: ignore[arg-type]

    engine.generate = note  # type: ignore[method-assign, assignment]
    apply(build("replay", source="dialogue", pool=10, temperature=0.7), given, tmp_path)
    (first, drawing), (second, greedy) = asked
    assert (first, drawing.temperature, drawing.seed, drawing.samples) == (10, 0.7, 1126, 1)
    assert (second, greedy.temperature) == (5, 0.0)


def test_a_pool_is_named_by_what_bears_on_it() -> None:
    given = setting(_answers)

    def name(**options: object) -> str:
        method = build("replay", **options)
        (shared,) = method.shared(given)
        assert store.fingerprint(shared.identity)
        return shared.name

    assert name() == name(share=0.3, balance=False)
    assert name() != name(pool=10)
    assert name() != name(source="dialogue") != name(source="dialogue", temperature=0.5)
    assert name(source="dialogue") == name(source="dialogue", prompts="lab")


@pytest.mark.parametrize(
    "options",
    [{"source": "file"}, {"path": "x.jsonl"}, {"temperature": 0.5}, {"source": "nowhere"}],
)
def test_settings_that_do_not_go_together_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(StudyError):
        build("replay", **options)


def _rewriter(example: Example, adapter: str | None, sample: int) -> str:
    number = int(example.id.split("-")[1])
    assert f"#### {2 * number}" in example.messages[-1].content, "the reference is shown"
    said = {
        1: f"As the reference answer says\n#### {2 * number}",
        2: "It must be\n#### 999",
        3: f"#### {2 * number} and on…",
        4: "",
    }
    return said.get(number, f" Doubling gives\n#### {2 * number} ")


REASONS = "(rewrite: 1 speaks of the reference, 2 unfinished, 1 wrong)"


def test_rewrites_that_do_not_count_keep_the_reference(tmp_path: Path) -> None:
    made, notes = apply(build("rewrite"), setting(_rewriter), tmp_path)
    assert [one.id for one in made] == [one.id for one in PLAIN]
    assert [one.source for one in made] == ["rewrite", *["gold"] * 4, *["rewrite"] * 5]
    assert made[1:5] == PLAIN[1:5]
    assert made[6].target == "Doubling gives\n#### 12"
    assert made[6].messages == PLAIN[6].messages, "trained on the plain question"
    said = "6 of 10 reference answers rewritten by the model; 4 kept as they are"
    assert notes == [f"{said} {REASONS}"]


@pytest.mark.parametrize(
    "method",
    [build("rewrite"), build("selfgen", samples=1, temperature=0.0)],
    ids=["rewrite", "own"],
)
def test_own_answers_are_checked_without_their_thought_and_keep_it(
    tmp_path: Path, method: Any
) -> None:
    def say(example: Example, adapter: str | None, sample: int) -> str:
        number = int(example.id.split("-")[1])
        thought = f"The reference answer says so. #### {number}"
        said = {1: f"<think>{thought} #### 2", 2: f"<think>#### 4</think>#### {number}"}
        return said.get(number, f"<think>{thought}</think>\n\nIt is\n#### {2 * number}")

    made, _ = apply(method, setting(say), tmp_path)
    own = {one.id: one for one in made if one.source in ("rewrite", "self")}
    assert set(own) >= {f"train-{n}" for n in range(10) if n not in (1, 2)}
    assert own.keys().isdisjoint({"train-1", "train-2"})
    assert own["train-3"].target == "It is\n#### 6"
    thought = "The reference answer says so. #### 3"
    assert own["train-3"].extra == {"reasoning_content": thought}


def test_rewrites_that_do_not_count_can_be_dropped(tmp_path: Path) -> None:
    given = setting(_rewriter)
    gold, drop = build("rewrite"), build("rewrite", otherwise="drop")
    assert [one.name for one in gold.shared(given)] == [one.name for one in drop.shared(given)]
    made, notes = apply(drop, given, tmp_path)
    assert [one.id for one in made] == [f"train-{n}" for n in (0, 5, 6, 7, 8, 9)]
    assert notes[0].endswith(f"4 dropped {REASONS}")
    with pytest.raises(DataError, match="nothing to train on") as caught:
        apply(drop, setting(lambda e, a, s: "no idea"), tmp_path / "other")
    assert "gold" in caught.value.remedy


def test_rewriting_leaves_other_answers_alone(tmp_path: Path) -> None:
    other = Example("replay-0", (Message("user", "hi"),), "Hello!", meta={"kind": "replay"})
    own = Example("train-5", PLAIN[5].messages, "five and five: #### 10", "self")
    made, _ = apply(build("rewrite"), setting(_rewriter), tmp_path, [own, PLAIN[6], other])
    assert [one.source for one in made] == ["self", "rewrite", ""]
    assert made[0] == own and made[2] == other


def test_rewriting_is_greedy_whatever_the_task_is(tmp_path: Path) -> None:
    warm = Sampling(temperature=0.9, top_p=0.5, samples=3)
    (shared,) = build("rewrite").shared(setting(_rewriter, sampling=warm))
    asked = shared.identity["sampling"]
    assert (asked["temperature"], asked["top_p"], asked["samples"]) == (0.0, 1.0, 1)
    made, _ = apply(build("rewrite"), setting(_rewriter, sampling=warm), tmp_path)
    assert len(made) == 10


ASKED = Example("e", (Message("user", "hi"),), "x", "s", {"group": "g"})


def test_a_system_prompt_goes_first() -> None:
    method = build("system_prompt", "ask", text="Be good.")
    changed = method.change(ASKED, "ailuminate")
    assert changed.messages == (Message("system", "Be good."), Message("user", "hi"))
    assert (changed.id, changed.target, changed.meta) == (ASKED.id, ASKED.target, ASKED.meta)
    assert changed.question == ASKED.question


def test_a_system_prompt_joins_the_one_that_is_there() -> None:
    method = build("system_prompt", "ask", text="Be good.")
    told = Example("e", (Message("system", "Be brief."), Message("user", "hi")))
    assert method.change(told, "t").messages == (
        Message("system", "Be good.\n\nBe brief."), Message("user", "hi"),
    )  # fmt: skip


def test_a_system_prompt_joins_what_a_developer_says() -> None:
    method = build("system_prompt", "ask", text="Be good.")
    told = Example("e", (Message("developer", "Be brief."), Message("user", "hi")))
    assert method.change(told, "t").messages[0] == Message("developer", "Be good.\n\nBe brief.")


CALL = {"tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {}}}]}
TOLD = (*PLAIN[0].messages, Message("assistant", "", CALL), Message("tool", "7"))


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        (Example("train-11", (), "Once upon a time"), "is plain text"),
        (Example("train-11", PLAIN[0].messages, "", extra=CALL), "is answered by tool calls"),
        (Example("train-11", TOLD, "7"), "answers what a tool said"),
    ],
)
@pytest.mark.parametrize("name", ["selfgen", "rewrite", "sdft"])
def test_methods_that_ask_questions_are_told_what_is_none(
    name: str, odd: Example, why: str
) -> None:
    method = build(name, "loss" if name == "sdft" else "data")
    method.check(setting(_answers))
    with pytest.raises(DataError, match=f"the training example train-11 {why}") as caught:
        method.check(replace(setting(_answers), plain=[*PLAIN, odd]))
    assert caught.value.where == name
    assert caught.value.remedy.startswith(f"take {name} out of this arm")


def test_sdft_and_gkd_are_told_what_trl_does_not_see() -> None:
    tools = replace(PLAIN[0], tools=({"type": "function", "function": {"name": "f"}},))
    with pytest.raises(DataError, match="has tools, or turns with more than"):
        build("sdft", "loss").check(replace(setting(_answers), plain=[tools]))
    with pytest.raises(DataError, match="is plain text: there is no question"):
        build("gkd", "loss").check(replace(setting(_answers), plain=[Example("t", (), "Once")]))


def test_own_words_leave_nothing_of_the_reference_behind(tmp_path: Path) -> None:
    rich = [replace(one, extra={"reasoning_content": "hm", "weight": 0}) for one in PLAIN]
    gold = {one.question: str(one.target) for one in PLAIN}
    solved = setting(
        lambda example, *_: gold.get(example.question) or f"You ask: {example.question}"
    )
    context = replace(solved, plain=rich)
    for name in ("selfgen", "rewrite"):
        method = build(name)
        made = {part.name: tmp_path / part.name for part in method.shared(context)}
        for part in method.shared(context):
            store.write_json(
                made[part.name] / store.RECORD, {"summary": part.run(made[part.name], Silent())}
            )
        found, _ = method.apply(rich, context, made)
        own = [one for one in found if one.source in ("self", "rewrite")]
        assert all(not one.extra for one in own)
        assert own or name == "rewrite"


def test_replayed_rows_are_kept_whole(tmp_path: Path) -> None:
    file = tmp_path / "old.jsonl"
    rows = [
        {"text": "Once"},
        {"prompt": "q", "completion": "a", "reasoning_content": "r", "tools": [{"name": "f"}]},
    ]
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    pool = build("replay", source="file", path=str(file)).options
    text, asked = _own_answers.read(pool, setting(_answers), {})
    assert (text.messages, text.target) == ((), "Once")
    assert asked.extra == {"reasoning_content": "r"}
    assert asked.tools == ({"type": "function", "function": {"name": "f"}},)
    file.write_text('{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", '
                    '"content": "a", "weight": 0}]}', encoding="utf-8")  # fmt: skip
    with pytest.raises(DataError, match="nothing to replay") as caught:
        _own_answers.read(pool, setting(_answers), {})
    assert caught.value.where.endswith("old.jsonl:1")


def test_a_system_prompt_can_be_for_some_tasks() -> None:
    method = build("system_prompt", "ask", tasks=["ailuminate"])
    assert method.change(ASKED, "gsm8k") is ASKED
    assert method.change(ASKED, "ailuminate").messages[0].role == "system"
    assert "ailuminate" in method.recipe()
    assert method.identity() != build("system_prompt", "ask").identity()
    with pytest.raises(StudyError, match="ask"):
        build("system_prompt", "data")
