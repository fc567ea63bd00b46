"""Several targets in one training set, and plain text: what is learned, measured and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures.study import run_study, write_study

from holdfast.analysis.results import from_json
from holdfast.config import Sampling, load
from holdfast.data.encoding import IDS
from holdfast.errors import HoldfastError, LeakError, StudyError
from holdfast.lab import TARGET_STEPS, model_folder
from holdfast.lab.problems import problems
from holdfast.runs import store
from holdfast.study import plan, prepare, targets
from holdfast.study.session import Session
from holdfast.train.data import encode_all
from holdfast.types import LAB

TRAIN: dict[str, Any] = {
    "optim": "adamw_torch", "learning_rate": 0.01, "max_steps": 4, "checkpoints": 2,
    "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
}  # fmt: skip
QUICK: dict[str, Any] = {
    "seeds": [1], "train": TRAIN, "arms": {"sft": {}}, "meters": {"probes": 0},
    "answer": {"sampling": {"max_new_tokens": 4}, "repeats": 1},
}  # fmt: skip


def _texts(folder: Path, split: str, count: int, each: int = 4) -> Path:
    """Text files of the lab's words."""
    place = folder / split
    place.mkdir()
    made = problems("train" if split == "learn" else "heldout", count * each, TARGET_STEPS)
    told = [f"{one.question}\n{one.human}" for one in made]
    for number in range(count):
        text = "\n".join(told[number * each : (number + 1) * each])
        (place / f"{number:02d}.txt").write_text(text, encoding="utf-8")
    return place


def _rows(folder: Path) -> dict[str, Any]:
    """A target of a user's own: what comes after a number."""
    for name, some in (("more", range(2, 14)), ("ask", range(40, 44))):
        rows = [{"prompt": f"How many nuts are {n} and 1?", "completion": f"{n + 1}"} for n in some]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return {
        "kind": "jsonl", "role": "target", "train_path": str(folder / "more.jsonl"),
        "path": str(folder / "ask.jsonl"), "grader": "number",
    }  # fmt: skip


def _both(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "lab_math": {"role": "target", "items": 4, "train_items": 24},
        "mine": _rows(folder),
        "lab_refuse": {"items": 4},
    } | changes


def _session(folder: Path, model: str = LAB, **changes: Any) -> Session:
    path = write_study(folder, Path(model), **(QUICK | changes))
    return prepare(load.load(path), folder / "runs", "study.yaml")


def test_targets_are_mixed_whole_or_by_share(tmp_path: Path) -> None:
    session = _session(tmp_path, tasks=_both(tmp_path))
    heads = [one.id.partition(":")[0] for one in session.plain]
    assert (heads.count("lab_math"), heads.count("mine")) == (24, 12)
    told = " ".join(session.plan.notices)
    assert "mine: 12 of its 12 training examples are taken, 33.3 % of the training set" in told
    tasks = _both(tmp_path)
    tasks["mine"]["share"] = 0.2
    heads = [one.id.partition(":")[0] for one in _session(tmp_path, tasks=tasks).plain]
    assert (heads.count("lab_math"), heads.count("mine")) == (24, 6)
    tasks["lab_math"]["share"] = 0.8
    heads = [one.id.partition(":")[0] for one in _session(tmp_path, tasks=tasks).plain]
    assert (heads.count("lab_math"), heads.count("mine")) == (24, 6)


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ((0.5, 0.6), "add up to 1.1, not 1"),
        ((None, 0.9), "and none is taken twice"),
    ],
)
def test_shares_that_cannot_be_are_refused(
    tmp_path: Path, shares: tuple[float | None, ...], said: str
) -> None:
    tasks = _both(tmp_path)
    for name, share in zip(("lab_math", "mine"), shares, strict=True):
        tasks[name] |= {} if share is None else {"share": share}
    with pytest.raises(HoldfastError) as caught:
        _session(tmp_path, tasks=tasks)
    assert said in str(caught.value).replace("; none", ", and none") or said in str(caught.value)


def test_a_share_is_of_several_targets(tmp_path: Path) -> None:
    tasks = _both(tmp_path)
    tasks["lab_refuse"]["share"] = 0.5
    with pytest.raises(StudyError, match="one target among several"):
        _session(tmp_path, tasks=tasks)


def test_a_question_of_one_target_s_evaluation_in_the_other_s_training_is_a_leak(
    tmp_path: Path,
) -> None:
    tasks = _both(tmp_path)
    asked = problems("test", 1, TARGET_STEPS)[0].question
    with (tmp_path / "more.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"prompt": asked, "completion": "1"}) + "\n")
    with pytest.raises(LeakError):
        _session(tmp_path, tasks=tasks)


def test_targets_may_differ_in_the_length_of_their_answers_alone() -> None:
    one, other = Sampling(max_new_tokens=8), Sampling(max_new_tokens=99)
    assert targets.sampling({"a": one, "b": other}, ["a", "b"]) == other
    hot = Sampling(max_new_tokens=8, temperature=1.0)
    with pytest.raises(StudyError, match="sampled differently"):
        targets.sampling({"a": one, "b": hot}, ["a", "b"])


def test_each_answer_is_graded_by_its_own_task(tmp_path: Path) -> None:
    session = _session(tmp_path, tasks=_both(tmp_path))
    task = session.target
    for example in (session.plain[0], session.plain[-1]):
        from holdfast.types import Reply

        for text, value in ((example.target or "", 1.0), ("7777", 0.0)):
            reply = Reply(example.id, 0, text, "stop", 1)
            assert task.grade(example, reply, None).value == value
    assert [one.plugin for one in task.parts] == ["lab_math", "jsonl"]


@pytest.mark.parametrize("name", ["selfgen", "rewrite", "replay"])
def test_data_methods_take_several_targets(tmp_path: Path, name: str) -> None:
    _session(tmp_path, tasks=_both(tmp_path), arms={"sft": {}, "own": {"data": [name]}})


@pytest.mark.parametrize("name", ["grpo", "raft", "dpo"])
def test_rewards_are_of_several_targets(tmp_path: Path, name: str) -> None:
    _session(tmp_path, tasks=_both(tmp_path), arms={"sft": {}, "own": {"loss": [name]}})


def test_a_study_of_two_targets_from_data_to_report(tiny_model: Path, tmp_path: Path) -> None:
    arms = {"sft": {}, "low": {"from": "sft", "weights": [{"scale": {"factors": [0.5]}}]},
            "own": {"data": [{"selfgen": {"samples": 1, "unsolved": "gold"}}]}}  # fmt: skip
    changes = QUICK | {"seeds": [1, 2], "arms": arms, "tasks": _both(tmp_path)}
    run_study(write_study(tmp_path, tiny_model, **changes), tmp_path / "runs")
    folder = tmp_path / "runs" / "s"
    results = from_json(store.read_json(folder / "stats" / "results.json"))
    assert [task.role for task in results.tasks] == ["target", "target", "retained"]
    assert {one.arm for one in results.mean_gain} == {"sft", "low", "own"}
    for one in results.mean_gain:
        cells = [results.cell(one.arm, one.step, name, one.scale) for name in ("lab_math", "mine")]
        mean = sum(cell.diff.mean for cell in cells if cell.diff and cell.diff.mean) / 2
        assert one.change.mean == pytest.approx(mean, abs=1e-5)
    budget = store.read_json(folder / "budget" / "budget.json")["supervised_tokens"]
    spent = [arm.supervised_tokens for arm in results.arms if arm.examples]
    assert len(spent) == 3 and all(abs(one / budget - 1) < 0.1 for one in spent)
    page = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert "gains on lab_math and mine" in page
    assert "the mean of lab_math and mine" in page
    assert "Mean gain" in page
    html = (folder / "report" / "index.html").read_text(encoding="utf-8")
    assert "mean over 2 target tasks" in html


def _text_study(folder: Path, **changes: Any) -> dict[str, Any]:
    prose = {"kind": "text", "role": "target", "train_path": str(_texts(folder, "learn", 12)),
             "path": str(_texts(folder, "held", 6, 1))}  # fmt: skip
    tasks = {"prose": prose, "lab_refuse": {"items": 4}}
    return QUICK | {"tasks": tasks, "train": TRAIN | {"max_length": 48}} | changes


def test_text_is_learned_in_windows_that_lose_no_token(tmp_path: Path) -> None:
    session = _session(tmp_path, **_text_study(tmp_path))
    tokenizer = session.plan.model
    rows, _, _ = encode_all(tokenizer, session.plain, session.study.train)
    assert all(len(row.ids) == 48 for row in rows[:-1])
    assert sum(row.cost.supervised for row in rows) == sum(len(row.ids) - 1 for row in rows)
    from holdfast import models

    spell = models.load_tokenizer(session.plan.model, chats=False)
    whole: list[int] = []
    for file in sorted((tmp_path / "learn").iterdir()):
        ids = spell(file.read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"]
        whole += [*ids, spell.eos_token_id]
    learned = [label for row in rows for label in row.labels if label != -100]
    assert learned == whole[1:]
    assert all(IDS in one.meta for one in session.plain)
    said = " ".join(session.plan.notices)
    assert f"12 documents of {len(whole):,} tokens in all are learned in {len(rows):,}" in said


def test_the_width_of_windows_is_known_to_the_plan(tmp_path: Path) -> None:
    given = _text_study(tmp_path, train=TRAIN)
    assert _session(tmp_path, **given).study.train.max_length == 512


@pytest.mark.parametrize(
    ("train", "said"),
    [
        ({"keep_shortest": 0.5}, "keep_shortest: is of conversations"),
        ({"train_on": "all"}, "train_on: is of conversations"),
        ({"cut_template_header": True}, "cut_template_header: is of conversations"),
    ],
)
def test_settings_of_conversations_do_not_go_with_text(
    tmp_path: Path, train: dict[str, Any], said: str
) -> None:
    with pytest.raises(StudyError, match=said):
        _session(tmp_path, **_text_study(tmp_path, train=TRAIN | train))


@pytest.mark.parametrize("method", [
    {"data": ["selfgen"]}, {"data": ["rewrite"]}, {"loss": ["grpo"]}, {"loss": ["raft"]},
    {"loss": ["dpo"]}, {"loss": ["sdft"]}, {"loss": ["gkd"]}, {"loss": ["first_tokens"]},
])  # fmt: skip
def test_methods_of_questions_do_not_go_with_text(tmp_path: Path, method: dict[str, Any]) -> None:
    arms = {"sft": {}, "own": method}
    with pytest.raises(HoldfastError, match=r"plain text"):
        _session(tmp_path, **_text_study(tmp_path, arms=arms))


def test_text_that_measures_must_not_be_learned(tmp_path: Path) -> None:
    given = _text_study(tmp_path)
    held = (tmp_path / "held" / "00.txt").read_text(encoding="utf-8")
    with (tmp_path / "learn" / "03.txt").open("a", encoding="utf-8") as file:
        file.write(held)
    with pytest.raises(LeakError, match=r"00\.txt"):
        _session(tmp_path, **given)


def test_text_is_not_sampled(tmp_path: Path) -> None:
    given = _text_study(tmp_path)
    given["tasks"]["prose"]["sampling"] = {"temperature": 1.0}
    with pytest.raises(StudyError, match="no answers are drawn"):
        _session(tmp_path, **given)


def test_text_and_questions_are_mixed_and_only_questions_are_asked(tmp_path: Path) -> None:
    prose = _text_study(tmp_path)["tasks"]["prose"]
    math = {"role": "target", "items": 4, "train_items": 24, "share": 0.5,
            "sampling": {"temperature": 0.7}}  # fmt: skip
    tasks = {"prose": prose | {"share": 0.5}, "lab_math": math}
    session = _session(tmp_path, tasks=tasks, meters={"probes": 4},
                       arms={"sft": {}, "kl": {"loss": ["kl"]}})  # fmt: skip
    heads = [one.id.partition(":")[0] for one in session.plain]
    assert heads.count("prose") == heads.count("lab_math") > 0
    assert session.target_sampling.temperature == 0.7
    with pytest.raises(HoldfastError, match="plain text"):
        _session(tmp_path, tasks=tasks, arms={"sft": {}, "own": {"data": ["selfgen"]}})


def test_held_out_texts_are_whole_documents(tmp_path: Path) -> None:
    given = _text_study(tmp_path, train=TRAIN | {"max_length": 48, "val_size": 0.25})
    session = _session(tmp_path, **given)
    shown = [one.target or "" for one in session.plain]
    assert session.held and not {one.target for one in session.held} & set(shown)


def test_a_base_model_without_a_chat_template_learns_text(tiny_model: Path, tmp_path: Path) -> None:
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare)
    (bare / "chat_template.jinja").unlink(missing_ok=True)
    config = store.read_json(bare / "tokenizer_config.json")
    config.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    given = _text_study(tmp_path)
    given["tasks"].pop("lab_refuse")
    path = write_study(tmp_path, bare, **given)
    run_study(path, tmp_path / "runs")
    folder = tmp_path / "runs" / "s"
    results = from_json(store.read_json(folder / "stats" / "results.json"))
    assert [task.unit for task in results.tasks] == ["bits/byte"]


def test_a_study_of_text_from_data_to_report(tmp_path: Path) -> None:
    """On the lab's own model, which learns: fewer bits a byte, and the report says which way."""
    given = _text_study(tmp_path, train=TRAIN | {"max_length": 128, "max_steps": 10,
                                                 "learning_rate": 3e-3})  # fmt: skip
    given["tasks"]["beside"] = {"kind": "text", "path": str(_texts(tmp_path, "other", 5, 1)),
                                "window": 64, "stride": 32}  # fmt: skip
    given["arms"] = {"sft": {}, "kl": {"loss": [{"kl": {"at": "task"}}]}}
    path = write_study(tmp_path, model_folder(), **given)
    run_study(path, tmp_path / "runs")
    folder = tmp_path / "runs" / "s"
    results = from_json(store.read_json(folder / "stats" / "results.json"))
    base, tuned = results.cell("base", 0, "prose"), results.cell("sft", 10, "prose")
    assert base.score.mean is not None and tuned.score.mean is not None
    assert base.score.mean < 0 and tuned.diff is not None and tuned.diff.mean is not None
    assert tuned.diff.mean > 0 and tuned.diff.direction == "better", "fewer bits a byte"
    assert tuned.flips is None and tuned.p_holm is not None
    page = (folder / "report" / "report.md").read_text(encoding="utf-8")
    assert "bits per byte; lower is better" in page
    assert f"{-base.score.mean:.4f}" in page
    assert "▼ −" in page and "bits/byte" in page
    told = plan(load.load(path), folder)
    assert told.tasks["prose"].unit == "bits/byte"
    arms = {arm.name: arm.supervised_tokens for arm in results.arms if arm.examples}
    assert abs(arms["kl"] / arms["sft"] - 1) < 0.01, "an equal budget, in tokens"
