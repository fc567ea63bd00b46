"""Does the recommendation follow the recorded figures, the time at hand and what was tried?"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from holdfast import methods
from holdfast.analysis.recommend import EVIDENCE, Evidence, Question, of_results, recommend
from holdfast.analysis.results import ArmInfo, Cell, Results, Share, TaskInfo
from holdfast.cli import call
from holdfast.methods import METHODS

DOCS = Path(__file__).parents[2] / "docs"


def _names(asked: Question, **more: int) -> list[str]:
    return [one.method for one in recommend(asked, METHODS, **more).advice]


def test_the_best_by_record_come_first() -> None:
    assert _names(Question()) == ["kl", "replay", "ewc"]
    assert _names(Question(tried={"replay"}), count=2) == ["kl", "ewc"]
    assert len(_names(Question(plain="sft"), count=99)) == sum(one.worth > 0 for one in EVIDENCE)
    useless = {"sdft", "lisa", "dpo", "token_mask", "star", "first_tokens"}
    assert not useless & set(_names(Question(plain="sft"), count=99))


def test_time_memory_and_a_plain_arm_are_heeded() -> None:
    found = recommend(Question(plain="sft", plain_minutes=10, minutes=11), METHODS)
    assert [one.method for one in found.advice] == ["kl", "ema", "scale"]
    for free in found.advice[1:]:
        assert free.arm["from"] == "sft" and free.cost == "no training"
    assert any(one.startswith("replay: takes 11 min") for one in found.left_out)
    short = recommend(Question(misfits={"kl": "does not fit 8GiB"}, unknown="no shape"), METHODS)
    assert "kl: does not fit 8GiB" in short.left_out
    assert "whether these fit the memory is not known: no shape" in short.left_out
    other = recommend(Question(plans={"kl": "one GPU, micro-batch 1 x 8"}), METHODS)
    assert [one.cost.endswith("fits as: one GPU, micro-batch 1 x 8") for one in other.advice] == [
        True, False, False,
    ]  # fmt: skip
    tried = Question(tried={"replay", "kl", "l2_init", "ewc"})
    left_out = recommend(tried, METHODS, count=99).left_out
    assert any(one.startswith("scale: needs an arm") for one in left_out)


def test_an_average_kept_along_the_way_takes_that_training_again() -> None:
    done = Question(plain="sft", plain_minutes=10, lost=("refuse",), minutes=11)
    left = recommend(done, METHODS, count=99)
    assert [one.method for one in left.advice] == ["kl", "scale", "fapm"]
    assert any(one.startswith("ema: takes 10 min") for one in left.left_out)
    roomy = recommend(replace(done, minutes=None), METHODS, count=99)
    (ema,) = [one for one in roomy.advice if one.method == "ema"]
    assert ema.cost == "plain training once more, which keeps the average, about 10 min"


def test_what_was_measured_comes_before_any_remedy() -> None:
    assert "gained nothing" in recommend(Question(gained=False), METHODS).first
    none = recommend(Question(gained=True, lost=()), METHODS)
    assert "no remedy is needed" in none.first and not none.advice
    assert _names(Question(gained=True, lost=("refuse",)))


def test_remedies_without_a_record_are_named_and_not_ranked() -> None:
    (told,) = [one for one in recommend(Question(), METHODS).left_out if "not ranked" in one]
    names = told.partition(": ")[2].split(", ")
    assert "merge" in names and "grpo" not in names and "replay" not in names


@pytest.mark.parametrize("one", EVIDENCE, ids=lambda one: one.method)
def test_every_arm_can_be_built_and_every_figure_is_recorded(one: Evidence) -> None:
    for entry in ("data", "loss", "weights"):
        for step in one.arm.get(entry, ()):
            name, options = (step, None) if isinstance(step, str) else next(iter(step.items()))
            assert methods.build(name, options, "test", f"arms.a.{entry}").plugin == one.method
    table = (DOCS / "remedies.md").read_text(encoding="utf-8").replace("−", "-")
    assert f"{one.gain:+.1f} [" in table
    assert f"-{one.lost:.1f} [" in table
    real = (DOCS / "real.md").read_text(encoding="utf-8").replace("−", "-")
    if one.real_lost is not None:
        assert f"-{one.real_lost:.1f} [" in real
    if one.counted is not None:
        row = next(line for line in real.splitlines() if line.startswith(f"| {one.method} | seeds"))
        assert f"{one.counted[0]:+.1f} [" in row and f"{-one.counted[1]:+.1f} [" in row
    if one.solved is not None:
        row = table[table.index("## Learning from its own answers") :]
        row = next(line for line in row.splitlines() if line.startswith(f"| {one.method} |"))
        assert f"{one.solved[0]:+.1f} [" in row and f"{-one.solved[1]:+.1f} [" in row
    if one.time:
        assert f"{one.time:.2f} (" in (DOCS / "benchmarks.md").read_text(encoding="utf-8")


def _results(
    gain: tuple[float, float], kept: tuple[float, float], **arms: tuple[str, ...] | None
) -> Results:
    def change(low: float, high: float) -> Share:
        return Share((low + high) / 2, low, high, 100)

    tasks = (
        TaskInfo("maths", "target", "right", 100, ""),
        TaskInfo("safe", "retained", "x", 100, ""),
    )
    infos = [ArmInfo("base", "untouched")]
    infos += [
        ArmInfo(name, "", examples=9, seconds=60.0, methods=made) for name, made in arms.items()
    ]
    cells = [
        Cell(name, 4, task, Share(0.5, 0.4, 0.6, 100), change(*ends))
        for name in arms for task, ends in (("maths", gain), ("safe", kept))
    ]  # fmt: skip
    return Results("s", "m", (1, 2), "", tasks, tuple(infos), tuple(cells), {})


def test_what_a_run_says() -> None:
    results = _results((0.1, 0.3), (-0.4, -0.2), sft=(), kl=("kl",))
    asked = of_results(results)
    assert asked == Question({"kl"}, "sft", 2.0, True, ["safe"])
    (first, *_) = recommend(asked, METHODS).advice
    assert first.method == "replay" and "about 2 min" in first.cost
    assert of_results(_results((0, 1), (0, 1), kl=("kl",))) is None, "nothing was trained plainly"
    assert of_results(_results((0, 1), (0, 1), sft=None)) is None, "nobody noted the remedies"
    nothing = of_results(_results((-0.1, 0.1), (-0.1, 0.1), sft=()))
    assert nothing is not None and (nothing.gained, nothing.lost) == (False, [])


def test_what_seeds_disagree_on_is_open() -> None:
    """-44.5 points with an interval up to +7 is no reason to say that no remedy is needed."""
    asked = of_results(_results((-0.1, 0.5), (-0.96, 0.07), sft=()))
    assert asked is not None and (asked.gained, asked.lost) == (None, ["safe"])
    assert recommend(asked, METHODS).advice


def test_of_several_targets_one_that_gains_is_a_gain() -> None:
    one = _results((0.1, 0.3), (-0.4, -0.2), sft=())
    other = TaskInfo("code", "target", "right", 100, "")
    unclear = replace(one.cells[0], task="code", diff=Share(0.0, -0.1, 0.1, 100))
    for cells in ((*one.cells, unclear), (unclear, *one.cells)):
        for tasks in ((*one.tasks, other), (other, *one.tasks)):
            asked = of_results(replace(one, tasks=tasks, cells=cells))
            assert asked is not None and (asked.gained, asked.lost) == (True, ["safe"])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: s\nmodel: lab\ntasks:\n  lab_math: {role: target}\narms:\n  sft: {}\n"
        "  old: {data: [{replay: {prompts: lab}}]}\n"
    )
    assert call(["recommend", str(study)]) == 0
    told = capsys.readouterr().out
    assert told.startswith("1. {loss: [{kl:") and "not ranked, " in told
    assert call(["recommend", str(study), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["method"] for one in found["advice"]] == ["kl", "ewc", "raft"]
    assert call(["recommend", str(study), "--hours", "100"]) == 0
    assert "plain training, less than a minute" in capsys.readouterr().out
    for typo in ("rtx9999", "0x24GiB"):
        assert call(["recommend", str(study), "--gpus", typo]) == 3
        assert "--gpus" in capsys.readouterr().err
    study.write_text(study.read_text().replace("  sft: {}\n", ""))
    assert call(["recommend", str(study), "--hours", "1"]) == 3
    assert "nobody knows how long a training takes" in capsys.readouterr().err


def test_nothing_is_recommended_of_tasks_learned_in_turn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recorded is of one task; a recipe's own remedies are not thrown away for it."""
    monkeypatch.chdir(tmp_path)
    assert call(["init", "s.yaml", "--recipe", "continual", "--recommend"]) == 3
    assert "try replay_earlier, orthogonal and merge" in capsys.readouterr().err
    assert not (tmp_path / "s.yaml").exists()
    assert call(["init", "s.yaml", "--recipe", "continual"]) == 0
    assert call(["recommend", "s.yaml"]) == 3
    assert "of which nothing is recorded" in capsys.readouterr().err


def test_remedies_that_give_way_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["init", "s.yaml", "--recipe", "lab", "--recommend"]) == 0
    assert "own remedies gave way to these: replay" in capsys.readouterr().out.replace("\n", " ")
