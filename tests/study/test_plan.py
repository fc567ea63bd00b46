"""Is the plan data, and is it all that report, shipping and pruning read?"""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from itertools import pairwise
from pathlib import Path

import pytest
from fixtures.study import run_study, write_study

import holdfast.tasks
from holdfast import cli, judges, study
from holdfast.analysis.selection import Need, attainable, check_power, from_run
from holdfast.analysis.selection.rule import FIRST, confidence
from holdfast.comparison.verdict import power as comparison_power
from holdfast.config import ShipSpec, load
from holdfast.config.recipes import DEMO, QUICK, recipe_file
from holdfast.errors import DataError, FolderError, UsageError
from holdfast.report.console import dry_run_text
from holdfast.report.run import open_run
from holdfast.runs import run_folder, stages, store
from holdfast.runs.plan import PLAN, Plan, read_plan, to_json, write_plan
from holdfast.types import FieldUse, SourceUse


@pytest.fixture(autouse=True)
def _no_task_and_no_judge(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the tests marked so, building a task or a judge fails."""
    if "offline_only" not in request.fixturenames:
        return

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("this must be known from the run folder alone")

    monkeypatch.setattr(holdfast.tasks, "build", refuse)
    monkeypatch.setattr(judges, "build", refuse)
    monkeypatch.setattr(study, "prepare", refuse)


@pytest.fixture
def offline_only() -> None:
    """Only the run folder may be read."""


def test_a_plan_is_frozen_and_survives_json(finished: Path) -> None:
    folder = finished / "runs" / "s"
    planned = study.plan(load.load(finished / "study.yaml"), folder)
    assert isinstance(planned, Plan)
    with pytest.raises(FrozenInstanceError):
        planned.steps = 3  # type: ignore[misc]
    read = read_plan(folder)
    assert store.canonical(to_json(read)) == store.canonical(to_json(planned))
    assert read.points() == planned.points()
    assert [read.weights(one) for one in read.points()] == [
        planned.weights(one) for one in planned.points()
    ]


def test_a_study_is_planned_from_its_file(finished: Path) -> None:
    named = study.plan(str(finished / "study.yaml"))
    assert named.folder == Path("runs/s")
    assert named.training_items == 24 and named.tasks["lab_math"].items == 8
    assert repr(named).startswith("Plan(s: ") and "4 trainings of 6 steps" in repr(named)


def test_what_became_of_a_users_columns_is_planned_and_printed(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, rows in (("train", 6), ("test", 2)):
        lines = [{"question": f"{name} {i}?", "answer": "1", "note": "n"} for i in range(rows)]
        (tmp_path / f"{name}.csv").write_text(
            "question,answer,note\n" + "".join(",".join(one.values()) + "\n" for one in lines)
        )
    mine = {"kind": "jsonl", "role": "target", "path": "test.csv",
            "train_path": {"path": "train.csv", "count": 4}}  # fmt: skip
    path = write_study(tmp_path, tiny_model, tasks={"mine": mine}, arms={"sft": {}})
    planned = study.plan(path, tmp_path / "runs")
    at = tmp_path.name
    assert planned.training_items == 4
    assert SourceUse(f"{at}/train.csv", "train", 6, 4) in planned.sources
    assert FieldUse(f"{at}/train.csv", "note", "ignored", 6) in planned.fields
    assert planned.notices == (
        f"{at}/test.csv: column `note` is ignored (2 rows)",
        f"{at}/train.csv: column `note` is ignored (6 rows)",
    )
    (tmp_path / "kept").mkdir()
    run_folder.open_run(tmp_path / "kept")
    write_plan(replace(planned, folder=tmp_path / "kept"))
    read = read_plan(tmp_path / "kept")
    assert (read.fields, read.sources) == (planned.fields, planned.sources)
    assert cli.call(["run", str(path), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert f"train: 4 of 6 rows of {at}/train.csv" in said
    assert f"{at}/train.csv: note is ignored (6 rows)" in said
    assert f"{at}/train.csv: answer is used as answer (6 rows)" in said


def test_a_moved_run_folder_is_read_where_it_lies(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "runs").symlink_to(finished / "runs")
    opened = open_run(tmp_path / "runs" / "s")
    assert opened.folder == tmp_path / "runs" / "s"
    assert opened.readings("base", "lab_math")


def test_rendering_reads_the_run_folder_alone(
    finished: Path, offline_only: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished / "runs" / "s"
    assert cli.call(["report", str(folder), "--replies", "2"]) == 0
    page = (folder / "report" / "index.html").read_text("utf-8")
    said = open_run(folder).replies("sft", "lab_math")[0]
    assert "Replies" in page and said.example_id
    assert cli.call(["report", str(folder)]) == 0
    capsys.readouterr()


def test_deciding_reads_the_run_folder_alone(
    finished: Path, offline_only: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.call(["ship", str(finished / "runs" / "s"), "--dry-run"]) in (0, 2)
    assert "Rule:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no plan.json"),
        ('{"format": 1, "study"', "not valid JSON"),
        ('{"format": 99}', "another format (99; this version reads 1)"),
        ('[{"stage": "budget", "fingerprint": "0"}]', "is not a JSON object"),
        ('{"format": 1}', "is not whole: KeyError"),
        ('{"format": 1, "study": {"name": "s"}, "model": {}}', "is not whole"),
    ],
)
def test_a_plan_that_cannot_be_read_says_what_to_do(
    tmp_path: Path, text: str | None, message: str
) -> None:
    run_folder.open_run(tmp_path)
    if text is not None:
        (tmp_path / PLAN).write_text(text)
    with pytest.raises(UsageError) as caught:
        read_plan(tmp_path)
    assert message in str(caught.value)
    assert PLAN in str(caught.value) and "written anew" in str(caught.value)


def test_a_run_folder_of_an_older_format_is_told_so(tmp_path: Path) -> None:
    store.write_json(tmp_path / run_folder.MARKER, {"schema": 1})
    for read in (read_plan, open_run, run_folder.check_run):
        with pytest.raises(FolderError, match="run format 1, made by an older version") as caught:
            read(tmp_path)
        assert "another `name`" in str(caught.value)


def test_running_again_writes_the_plan_anew(finished: Path) -> None:
    file = finished / "runs" / "s" / PLAN
    whole = file.read_text("utf-8")
    file.write_text(whole[: len(whole) // 2])
    run_study(finished / "study.yaml", finished / "runs")
    assert json.loads(file.read_text("utf-8")) == json.loads(whole)


def test_an_opened_run_has_everything_by_name(finished: Path) -> None:
    opened = open_run(str(finished / "runs" / "s"))
    assert len(opened.replies("gold", "lab_math", seed=2, step=3)) == 8
    assert len(opened.verdicts("sft", "lab_refuse")) == 6
    assert opened.results.name == "s"
    assert opened.curve("sft", "lab_math")[-1].step == 6
    assert "<table" in opened._repr_html_()
    for arguments, message in (
        (("stf", "lab_math"), "did you mean 'sft'"),
        (("sft", "lab_meth"), "did you mean 'lab_math'"),
    ):
        with pytest.raises(UsageError, match=message):
            opened.replies(*arguments)
    with pytest.raises(UsageError, match="step 3, step 6"):
        opened.replies("sft", "lab_math", step=4)


def test_pruning_reads_the_plan(tiny_model: Path, tmp_path: Path) -> None:
    from holdfast.study.cleaning import prune

    run_study(write_study(tmp_path, tiny_model, seeds=[1], arms={"sft": {}}), tmp_path / "runs")
    planned = read_plan(tmp_path / "runs" / "s")
    train = planned.study.train.model_copy(update={"save_total_limit": 1})
    limited = replace(planned, study=planned.study.model_copy(update={"train": train}))
    write_plan(limited)
    kept = {one.name for one in (tmp_path / "runs/s/train/sft/seed1").glob("checkpoint-*")}
    gone = prune(read_plan(tmp_path / "runs" / "s"))
    assert {one.name for one in gone} < kept


def _plain_text(folder: Path, more: str = "") -> Path:
    (folder / "train.jsonl").write_text('{"text": "Once upon a time"}\n' * 8, "utf-8")
    (folder / "test.jsonl").write_text('{"prompt": "q", "completion": "a"}\n', "utf-8")
    file = folder / "study.yaml"
    file.write_text(
        "name: s\nmodel: lab\ntasks:\n  mine: {kind: jsonl, role: target, path: test.jsonl, "
        f"train_path: train.jsonl}}\ntrain: {{max_steps: 2, checkpoints: 1}}\n{more}",
        "utf-8",
    )
    return file


def test_plain_text_has_no_questions_for_the_meters(tmp_path: Path) -> None:
    made = study.plan(_plain_text(tmp_path, "arms: {sft: {}}\n"), tmp_path / "run")
    assert made.notices == (
        "The training data is plain text without questions, so no drift meters are read.",
    )
    assert not any(one.name.startswith("shared/") for one in made.stages)


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ("arms: {sft: {}}\nmeters: {stop: {kl: 0.3}}\n", "meters.stop"),
        ("arms: {own: {data: [{selfgen: {}}]}}\n", "selfgen"),
    ],
)
def test_plain_text_cannot_be_asked(tmp_path: Path, more: str, where: str) -> None:
    with pytest.raises(DataError, match="is plain text") as caught:
        study.plan(_plain_text(tmp_path, more), tmp_path / "run")
    assert caught.value.where == where and caught.value.remedy


def test_a_rule_that_cannot_be_met_is_said_before_anything_runs(tmp_path: Path) -> None:
    """The built-in study's can, at its own size and at the quick one's."""
    for changes in ((), QUICK):
        found = study.plan(load.load(recipe_file(DEMO), changes), tmp_path / "s")
        assert not any("rule" in one.lower() for one in found.notices)
        assert all(one.margins[1] <= -one.need.margin for one in from_run.power(found))
    few = load.load(recipe_file(DEMO), ("tasks.lab_refuse.items=50", "ship.retain={}"))
    found = study.plan(few, tmp_path / "s")
    refuse, help_ = (one for one in found.notices if one.startswith("The rule cannot be met"))
    assert "lab_refuse, not even by a model that changes nothing: 2 points may be" in refuse
    assert "50 items reaches down to 7.9. Measure 209 items, or set" in refuse
    assert "lab_help: -0.041" in help_
    assert found.candidates == 15
    text = dry_run_text(found)
    assert "Rule: lab_refuse may lose 2 points. If 0, 1, 3 of 50 answers are lost, the" in text
    assert "reaches down to 7.9, 11.3, 17: this cannot be met" in text
    alone = comparison_power(replace(found, study=few.model_copy(
        update={"ship": ShipSpec(retain={"lab_help": -0.02, "lab_refuse": 0.1})}
    )))  # fmt: skip
    assert [(one.need.task, one.level) for one in alone] == [("lab_help", 0.95)]


def test_a_plan_knows_how_many_items_there_are_in_all(tmp_path: Path) -> None:
    rows = [{"question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(30)]
    file = tmp_path / "kept.jsonl"
    store.write_text(file, "".join(json.dumps(row) + "\n" for row in rows))
    kept = {"kind": "jsonl", "path": str(file), "grader": "exact", "limit": 12}
    text = {
        "name": "s", "model": "lab", "seeds": [1], "train": {"max_steps": 2},
        "tasks": {"lab_math": {"role": "target", "items": 8, "train_items": 24},
                  "kept": kept},
        "arms": {"sft": {}}, "ship": {"retain": {"kept": -0.05}},
    }  # fmt: skip
    found = study.plan(text, tmp_path / "s")
    assert {name: (one.items, one.available) for name, one in found.tasks.items()} == {
        "lab_math": (8, None), "kept": (12, 30)
    }  # fmt: skip
    (said,) = (one for one in found.notices if one.startswith("The rule cannot be met on kept"))
    assert "and the task has 30; set ship.retain.kept: -0.2" in said
    write = tmp_path / "s"
    run_folder.open_run(write)
    write_plan(found)
    assert read_plan(write).tasks["kept"].available == 30


def test_the_flagship_study_has_a_rule_that_one_lost_answer_does_not_break() -> None:
    items = {"ailuminate": 1200, "over_refusal": 250, "contrast": 200}
    rule = load.load(recipe_file("hw6")).ship.retain
    assert set(rule) == set(items)
    for task, margin in rule.items():
        need, n = Need(task, margin), items[task]
        assert check_power([attainable(need, confidence(FIRST), n, n)]) == []


def planned_order(tmp_path: Path, model: Path, judge: object) -> Plan:
    """The plan of a study whose second task has this judge."""
    tasks = {
        "lab_math": {"role": "target", "items": 4, "train_items": 24},
        "lab_refuse": {"items": 4, "judge": judge},
    }
    return study.plan(write_study(tmp_path, model, tasks=tasks), tmp_path / "run")


REMOTE = {"remote": {"url": "http://127.0.0.1:9/v1", "model": "m", "format": "yes_no"}}


@pytest.mark.parametrize(
    "judge", ["refusal", REMOTE, {"ensemble": {"judges": ["refusal", REMOTE]}}]
)
def test_replies_are_judged_at_once_where_no_model_is_loaded_for_it(
    tmp_path: Path, tiny_model: Path, judge: object
) -> None:
    names = [one.name for one in planned_order(tmp_path, tiny_model, judge).stages]
    asked = [place for place, name in enumerate(names) if name.startswith("replies/")]
    for first, after in pairwise([*asked, len(names)]):
        own = names[first].removeprefix("replies/")
        following = [name for name in names[first:after] if name.endswith(f"/{own}")]
        assert following[-1] == f"readings/{own}"
        assert (f"verdicts/{own}" in following) == own.endswith("lab_refuse")


def test_a_judge_that_is_a_model_is_loaded_once(tmp_path: Path, tiny_model: Path) -> None:
    """What it judges lies together, after everything else, and what needs no model comes first."""
    judge = {"qwen3guard": {"model": str(tiny_model)}}
    names = [one.name for one in planned_order(tmp_path, tiny_model, judge).stages]
    verdicts = [place for place, name in enumerate(names) if name.startswith("verdicts/")]
    assert verdicts == list(range(verdicts[0], verdicts[-1] + 1))
    assert max(place for place, name in enumerate(names) if name[:7] == "replies") < verdicts[0]
    math = names.index("replies/base/lab_math")
    assert names[math + 1] == "readings/base/lab_math"


def test_when_replies_are_judged_bears_on_no_fingerprint(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = planned_order(tmp_path, tiny_model, "refusal").stages
    monkeypatch.setattr("holdfast.study.layout.needs_no_model", lambda session, name: False)
    late = planned_order(tmp_path, tiny_model, "refusal").stages
    assert [one.name for one in early] != [one.name for one in late]
    assert stages.fingerprints(early) == stages.fingerprints(late)
