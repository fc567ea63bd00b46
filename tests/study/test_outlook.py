"""Is what a study is told to take what its stages take, and is it said on one page?"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fixtures.study import write_study
from hypothesis import given
from hypothesis import strategies as st

from holdfast import cli, study
from holdfast.cli import forecast
from holdfast.config import load
from holdfast.memory.hardware import cpu
from holdfast.memory.precision import Precision
from holdfast.progress import Silent
from holdfast.runs import records, stages, store
from holdfast.study import calibration, duration, outlook, readiness, shortening, speed, start
from holdfast.study.session import Session
from holdfast.study.speed import Speed
from holdfast.study.work import Counted, Work, truncated

ONE = {"arms": {"sft": {}}, "seeds": [1]}
MADE = Speed("measured", 5.0, 7.0, 0.01, 0.001, 0.2, 0.05, rows=8)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def prepared(file: Path, runs: Path) -> Session:
    loaded = load.load(file)
    return study.prepare(loaded, runs / loaded.name, str(file))


def test_seconds_are_those_of_the_work() -> None:
    """20 answers of 30 tokens, 8 at a time: 3 batches, each as long as its longest."""
    asked = Work("ask", read=1000, written=600, answers=20, most=40)
    assert duration.seconds_of(asked, MADE) == pytest.approx(1.0 + 3 * 40 * 0.2 + 600 * 0.05)
    assert duration.seconds_of(asked, MADE, loads=True) == pytest.approx(60.0)
    trained = Work("train", trained=1000, read=500)
    assert duration.seconds_of(trained, MADE, loads=True) == pytest.approx(7 + 10 + 0.5)
    far = replace(MADE, cached_s=0.001, context=35.0)  # 50 tokens of prompt, 15 of the answer
    more = duration.seconds_of(asked, far) - duration.seconds_of(asked, MADE)
    assert more == pytest.approx(600 * 0.001 * (65 - 35))
    judged = Work("judge", answers=100, parameters=0.0)
    assert duration.seconds_of(judged, MADE) == pytest.approx(0.1)
    assert duration.seconds_of(replace(trained, parameters=3.0), MADE) == pytest.approx(31.5 + 7)


@given(st.integers(1, 4096), st.floats(1, 1e4))
def test_answers_are_no_longer_than_they_may_be(most: int, usual: float) -> None:
    mean = truncated(most, usual)
    assert 0 < mean <= min(most, usual) + 1e-9
    assert truncated(most + 1, usual) >= mean
    asked = Work("ask", written=10 * mean, answers=10, most=most)
    if most > 1 and mean < 0.98 * most:
        assert shortening._shorter(asked) == pytest.approx(
            truncated(most // 2, usual) / mean, rel=0.02
        )


def test_finished_stages_correct_the_others(finished: Path, tmp_path: Path) -> None:
    runs = Path(shutil.copytree(finished / "runs", tmp_path / "runs"))
    session = prepared(finished / "study.yaml", runs)
    told = duration.stage_seconds(session, MADE)
    assert {one.how for one in told.values()} == {"took"}
    assert list(told) == [one.name for one in session.plan.stages]
    tuned = [one for one in told if one.startswith("replies/") and "checkpoint" in one]
    gone, twins = tuned[0], [one for one in tuned[1:] if one.endswith(tuned[0].split("/")[-1])]
    (runs / "s" / gone / store.RECORD).unlink()
    again = duration.stage_seconds(session, MADE)
    assert again[gone].how == "as before"
    counted = Counted(session, {})
    ask = counted.of(next(one for one in session.plan.stages if one.name == gone))
    like = [one for one in told if counted.of(_stage(session, one)).alike == ask.alike]
    assert set(twins) < set(like)
    low, high = (f(told[one].seconds for one in like if one != gone) for f in (min, max))
    assert low * 0.5 <= again[gone].seconds <= 2 * high
    assert all(again[one] == told[one] for one in told if one != gone)


def _stage(session: Session, name: str) -> stages.PlannedStage:
    return next(one for one in session.plan.stages if one.name == name)


def test_training_is_counted_as_it_was_done(finished: Path) -> None:
    """Tokens that are told of a training are those that its record has, within a tenth."""
    session = prepared(finished / "study.yaml", finished / "runs")
    for arm, seed in session.plan.trained:
        name = f"train/{arm}/seed{seed}"
        summary = records.summary(session.folder / name)
        told = Counted(session, {}).of(_stage(session, name)).trained
        assert told == pytest.approx(summary["tokens"], rel=0.1), name


def test_the_device_is_measured_once(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = prepared(write_study(tmp_path, tiny_model, **ONE), tmp_path / "runs")
    assert speed.known(session).how == "by formula"
    monkeypatch.setattr(cpu, "share_waited", lambda *_: 0.1)  # other tests run beside this one
    found = calibration.measure(session)
    session.pool.close()
    assert found.how == "measured" and speed.known(session) == found
    assert not (tmp_path / "runs").exists()
    for name in ("open_s", "start_s", "train_s", "read_s", "write_s"):
        assert getattr(found, name) > 0, name
    assert set(found.usual) == set(session.plan.tasks)
    file = speed.file(session)
    for torn in ("{", "[]", json.dumps({"how": "measured"}), file.read_text().replace(": ", ": -")):
        file.write_text(torn)
        assert speed.known(session).how == "by formula"
    file.unlink()
    monkeypatch.setattr(speed, "cpu_flops", lambda: 1.0)
    heard, silent = [], Silent()
    monkeypatch.setattr(silent, "say", heard.append)
    assert calibration.measure(session, silent).how == "by formula" and not file.exists()
    assert heard == ["not measured: by the formula the model takes too long here"]


def test_what_was_measured_beside_other_programs_is_not_kept(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = prepared(write_study(tmp_path, tiny_model, **ONE), tmp_path / "runs")
    monkeypatch.setattr(cpu, "share_waited", lambda *_: 0.52)
    heard, silent = [], Silent()
    monkeypatch.setattr(silent, "say", heard.append)
    assert calibration.measure(session, silent).how == "by formula"
    session.pool.close()
    assert heard[-1] == "not measured: other programs had the cores 52% of the time"
    assert not speed.file(session).exists()


def test_how_long_threads_waited_for_a_core(tmp_path: Path) -> None:
    for task, text in (("7", "900 100 3\n"), ("8", "100 500 9\n"), ("9", "torn")):
        (tmp_path / "proc/self/task" / task).mkdir(parents=True)
        (tmp_path / "proc/self/task" / task / "schedstat").write_text(text)
    assert cpu.turns(tmp_path) == (1000, 600)
    assert cpu.turns(tmp_path / "elsewhere") == (0, 0)
    assert cpu.share_waited((200, 400), (1000, 600)) == pytest.approx(0.2)
    assert cpu.share_waited((5, 5), (5, 5)) == 0.0
    ran = cpu.turns()[0]
    until = time.process_time() + 0.02
    while time.process_time() < until:
        pass
    assert cpu.turns()[0] >= ran  # where Linux says


def test_what_else_runs_here_does_not_make_the_processor_slow() -> None:
    """Time in which it waits for a core is none of its own."""
    rows = list(range(20_000))

    def work() -> None:
        sorted(rows)
        time.sleep(0.02)

    assert speed._least(work) < 0.01
    assert speed.cpu_flops() > 1e8


def test_bfloat16_counts_where_the_processor_has_it(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forecast in float32's rate was forty times too long on a busy machine."""
    monkeypatch.setattr(speed, "computes_bf16", lambda: True)
    session = prepared(write_study(tmp_path, tiny_model, **ONE), tmp_path / "runs")
    found = {}
    for dtype in ("float32", "bfloat16"):
        monkeypatch.setattr(session.pool, "precision", lambda dtype=dtype: Precision(dtype))
        found[dtype] = speed.by_formula(session)
    assert found["bfloat16"].read_s == pytest.approx(found["float32"].read_s / 4)
    assert found["bfloat16"].cached_s == pytest.approx(found["float32"].cached_s / 2)


def test_lengths_of_answers_belong_to_what_is_asked(tiny_model: Path, tmp_path: Path) -> None:
    """Another study may call another task by the same name; the device is as fast for it."""
    session = prepared(write_study(tmp_path, tiny_model, **ONE), tmp_path / "runs")
    speed.keep(session, replace(MADE, usual=dict.fromkeys(session.plan.tasks, 33.0)))
    found = speed.known(session)
    assert found == replace(MADE, usual={"lab_math": 33.0, "lab_refuse": 33.0})
    tasks = {"lab_math": {"role": "target", "items": 8, "train_items": 24},
             "lab_refuse": {"kind": "lab_math", "items": 6}}  # fmt: skip
    other = prepared(write_study(tmp_path, tiny_model, **ONE, tasks=tasks), tmp_path / "runs")
    assert speed.known(other) == replace(MADE, usual={"lab_math": 33.0})
    more = {"answer": {"sampling": {"max_new_tokens": 99}}}
    longer = prepared(write_study(tmp_path, tiny_model, **ONE, **more), tmp_path / "runs")
    assert speed.known(longer) == found, "of answers that nothing cuts off"


def test_memory_is_told_where_nothing_would_fit(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = prepared(write_study(tmp_path, tiny_model, **ONE), tmp_path / "runs")
    fits = readiness.memory_bytes(session)
    many = session.study.model_copy(
        update={"answer": session.study.answer.model_copy(update={"batch_size": 4096})}
    )
    asked = replace(session, plan=replace(session.plan, study=many))
    more = readiness.memory_bytes(asked) - fits
    assert more > 100 << 20, "as many rows as are asked for"
    monkeypatch.setattr("holdfast.models.cpu_linear.copies_bytes", lambda *_: 1 << 28)
    assert readiness.memory_bytes(session) == fits + (1 << 28), "weights that are laid out twice"
    monkeypatch.setattr(readiness, "host_ram_bytes", lambda: 1 << 20)
    assert readiness.memory_bytes(session) == fits, "for which there is no room"
    monkeypatch.setattr("holdfast.memory.hardware.cpu.host_ram_bytes", lambda: 1 << 20)
    monkeypatch.setattr(readiness, "answering_bytes", lambda *_: 0)
    monkeypatch.setattr(readiness, "ROWS", {"cpu": 0, "gpu": 0})
    assert readiness.memory_bytes(session) > 1 << 20


def test_a_long_run_is_measured_and_told_before_it_begins(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = prepared(write_study(tmp_path, tiny_model, **ONE), tmp_path / "runs")
    steps = study.schedule(session.plan)
    said: list[str] = []
    bars = Silent()
    monkeypatch.setattr(bars, "say", said.append)
    monkeypatch.setattr(calibration, "measure", lambda *_: MADE)
    start.at_start(session, steps, bars)
    assert len(said) == 1 and "(by formula)" in said[0], "too short to be measured"
    monkeypatch.setattr(start, "WORTH_MEASURING_S", 0.0)
    start.at_start(session, steps, bars)
    assert "(measured)" in said[1]
    monkeypatch.setattr(calibration, "measure", lambda *_: _fail())
    start.at_start(session, steps, bars)
    assert said[2] == "the speed could not be measured: no" and "(by formula)" in said[3]
    slow = replace(MADE, train_s=1e5, write_s=1e3)
    told = outlook.outlook(session, steps, slow)
    lines = start.start_lines(told)
    assert "days" in lines[0] and lines[1].startswith("That is days")


def _fail() -> Speed:
    raise RuntimeError("no\nmore")


def test_changes_save_what_they_say(tiny_model: Path, tmp_path: Path) -> None:
    """A study that is changed so is told to take so much less."""
    more: dict[str, Any] = {"answer": {"repeats": 3, "sampling": {"max_new_tokens": 400}}}
    more |= {"seeds": [1, 2], "arms": {"sft": {}, "other": {"train": {"learning_rate": 1e-5}}}}
    more["tasks"] = {"lab_math": {"role": "target", "items": 300, "train_items": 24}}
    file = write_study(tmp_path, tiny_model, **more)
    slow = replace(MADE, train_s=1.0, write_s=10.0)
    session = prepared(file, tmp_path / "runs")
    told = outlook.outlook(session, study.schedule(session.plan), slow)
    assert told.left > start.DAY_S and told.shortened < told.left / 4
    settings = {one.setting: one.saved for one in told.changes}
    assert list(settings.values()) == sorted(settings.values(), reverse=True)
    for setting in ("seeds=[1]", "answer.repeats=1", "answer.sampling.max_new_tokens=200"):
        changed = load.load(file, [setting])
        other = study.prepare(changed, tmp_path / "runs" / changed.name, str(file))
        then = outlook.outlook(other, study.schedule(other.plan), slow)
        assert told.left - then.left == pytest.approx(settings[setting], rel=0.05), setting


def test_a_dry_run_is_a_page(
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu, "share_waited", lambda *_: 0.1)  # other tests run beside this one
    file = write_study(tmp_path, tiny_model, **ONE)
    line = ["run", str(file), "--runs-dir", str(tmp_path / "runs"), "--dry-run"]
    assert cli.call(line) == 0
    said = capsys.readouterr().out
    assert "(by formula; --calibrate measures it)" in " ".join(said.split())
    assert "--all lists them" in said and "Longest stages" not in said
    assert "readings/" not in said
    assert all(len(one) <= 80 for one in said.splitlines() if "/" not in one)
    assert cli.call([*line, "--all", "--calibrate", "--json"]) == 0
    about = json.loads(capsys.readouterr().out)
    assert about["outlook"]["how"] == "measured"
    assert about["outlook"]["left"] == pytest.approx(sum(s["seconds"] for s in about["stages"]))
    parts = about["outlook"]["parts"]
    assert sum(one["seconds"] for one in parts) == pytest.approx(about["outlook"]["left"])
    assert {one["name"]: one["trainings"] for one in parts}["sft"] == 1
    assert cli.call([*line, "--all"]) == 0
    assert "readings/base/" in (said := capsys.readouterr().out) and "(measured)" in said
    assert "Longest stages" in said
    for option in ("--all", "--calibrate"):
        assert cli.call(["run", str(file), option]) == 3
        assert "--dry-run" in capsys.readouterr().err


def test_many_arms_are_still_a_page(tiny_model: Path, tmp_path: Path) -> None:
    arms = {f"arm{n}": {"train": {"learning_rate": 1e-4 * (n + 1)}} for n in range(30)}
    session = prepared(write_study(tmp_path, tiny_model, arms=arms, seeds=[1]), tmp_path / "runs")
    steps = study.schedule(session.plan)
    told = outlook.outlook(session, steps, replace(MADE, train_s=1e5))
    lines = forecast.page(told, steps, 100)
    assert len(lines) <= 40 and max(map(len, lines)) <= 100
    assert any(one.startswith("and 19 more") for one in lines)
