"""A tracker gets all of a study, once, whatever is interrupted and however often it is sent."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.analysis.so_far import cell_of
from holdfast.cli import call
from holdfast.config import consent, load
from holdfast.errors import FolderError, HoldfastError, MissingDependency, StudyError, UsageError
from holdfast.report import trackers
from holdfast.report.run import read_results
from holdfast.report.trackers import Tracker, build, of, ready
from holdfast.report.trackers.sending import Sending, alone, open_sending, said, send_run
from holdfast.runs import sealed, store
from holdfast.runs.live import Watched
from holdfast.runs.plan import write_plan
from holdfast.types import Point


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def sending(run: Path, file: Path, out: Path, kind: str = "Kept") -> Sending:
    return open_sending(build(f"{file}:{kind}", {"path": str(out)}, run, "track"), run)


def figures(rows: list[dict[str, Any]], run: str) -> dict[str, dict[int, float]]:
    """By name and step; nothing may come twice."""
    found: dict[str, dict[int, float]] = {}
    for row in rows:
        for step, _, values in row.get("figures", []) if row["run"] == run else []:
            for name, value in values.items():
                assert step not in found.setdefault(name, {}), (name, step)
                found[name][step] = value
    return found


def test_everything_of_a_study_is_sent(run: Path, file: Path, out: Path, told: Any) -> None:
    assert sending(run, file, out).once() > 10
    rows = told(out)
    plan, results = Watched(run).plan, read_results(run)
    started = {row["run"]: row for row in rows if row["what"] == "start"}
    assert set(started) == {"study", "base", "sft/seed1", "sft/seed2", "low/seed1", "low/seed2"}
    assert len({row["id"] for row in started.values()}) == len(started)
    log = [
        json.loads(line) for line in (run / "train/sft/seed1/log.jsonl").read_text().splitlines()
    ]
    found = figures(rows, "sft/seed1")
    assert found["train/loss"] == {row["step"]: row["loss"] for row in log if "loss" in row}
    for name in ("train/learning_rate", "train/tokens_per_s", "train/memory_gib", "meters/kl"):
        assert found[name] and all(math.isfinite(v) and v >= 0 for v in found[name].values())
    assert set(found["meters/kl"]) == {3, 6}
    for step in (3, 6):
        cell = cell_of(plan, Point("sft", 1, step), "lab_math")
        assert cell is not None and cell.diff is not None
        assert found["readings/lab_math/value"][step] == cell.score.mean
        assert found["readings/lab_math/low"][step] == cell.score.low
        assert found["readings/lab_math/high"][step] == cell.score.high
        assert found["readings/lab_math/diff_low"][step] == cell.diff.low
        assert found["readings/lab_math/n"][step] == 8
    assert set(figures(rows, "base")["readings/lab_refuse/value"]) == {0}
    assert set(figures(rows, "low/seed2")["readings/lab_math/x0.5/value"]) == {6}
    whole = [row for row in rows if row["run"] == "study" and row["what"] == "send"]
    assert [row["tables"] for row in whole] == [["results", "frontier"], []]
    assert whole[0]["words"]["verdict"] == results.verdict
    assert results.decision is not None
    assert whole[0]["words"]["decision"] == results.decision.answer
    assert whole[1]["files"] == ["index.html", "report.md", "results.json"]


def test_the_frontier_comes_before_the_end(run: Path, file: Path, out: Path, told: Any) -> None:
    """With the first model that is measured on every task, and then with a tenth more readings."""
    kept, found = run.with_name("kept"), sending(run, file, out)
    later = [run / "stats", run / "report", *(run / "readings").glob("*/*/*/lab_refuse")]
    later.sort()

    def move(places: list[Path], there: Path, back: Path) -> None:
        for one in places:
            target = back / one.relative_to(there)
            target.parent.mkdir(parents=True, exist_ok=True)
            one.rename(target)

    move(later, run, kept)
    found.once()
    sent = [row for row in told(out) if row["run"] == "study" and row["what"] == "send"]
    assert [row["tables"] for row in sent] == [["frontier_so_far"]]
    assert sent[0]["words"] == {"frontier_so_far_of": "6 of 6 models, on lab_math"}
    assert found.once() == 0, "nothing is new"
    move([kept / one.relative_to(run) for one in later[1:-1]], kept, run)
    found.once()
    sent = [row for row in told(out) if row["run"] == "study" and row["what"] == "send"]
    assert sent[-1]["words"] == {"frontier_so_far_of": "5 of 6 models, on lab_math, lab_refuse"}
    move([kept / one.relative_to(run) for one in (later[0], later[-1])], kept, run)
    found.once()
    sent = [row for row in told(out) if row["run"] == "study" and row["what"] == "send"]
    assert [row["tables"] for row in sent[2:]] == [["results", "frontier"], []]


def test_parameters_and_lineage(run: Path, file: Path, out: Path, told: Any) -> None:
    sending(run, file, out).once()
    started = {row["run"]: row for row in told(out) if row["what"] == "start"}
    one, two = started["sft/seed1"], started["sft/seed2"]
    assert one["params"]["train.learning_rate"] == 0.01 and one["params"]["seed"] == 1
    assert one["params"]["steps"] == 6 and one["params"]["arm"] == "sft"
    assert one["lineage"]["data"] == two["lineage"]["data"]
    assert one["lineage"]["train"] != two["lineage"]["train"], "another seed"
    assert one["lineage"]["model_identity"] == started["low/seed1"]["lineage"]["model_identity"]
    assert started["study"]["params"]["train.max_steps"] == 6
    assert not any(key.startswith("track") for key in started["study"]["params"])


def test_nothing_is_sent_twice(run: Path, file: Path, out: Path, told: Any) -> None:
    first = sending(run, file, out)
    assert first.once() and first.once() == 0
    assert sending(run, file, out).once() == 0, "and none in another process"
    assert send_run(run, f"{file}:Kept", [f"path={out}"]) == {f"{file}:Kept": 0}
    ids = {}
    for row in told(out):
        ids.setdefault(row["run"], set()).add(row["id"])
    assert all(len(some) == 1 for some in ids.values()), "the same runs go on"
    other = out.with_name("other.jsonl")
    assert sending(run, file, other).once() > 0, "another place gets everything"
    again = send_run(run, f"{file}:Kept", [f"path={other}"], again=True)
    assert next(iter(again.values())) > 0
    assert len({row["id"] for row in told(other) if row["run"] == "study"}) == 2


def test_what_arrived_before_a_failure_is_noted(
    run: Path, file: Path, out: Path, told: Any
) -> None:
    class Tired(Exception):
        pass

    found = sending(run, file, out)
    send, calls = found.tracker.send, []

    def tires(*given: Any) -> None:
        calls.append(given)
        if len(calls) == 5:
            raise Tired
        send(*given)

    found.tracker.send = tires  # type: ignore[method-assign]
    with pytest.raises(Tired):
        found.once()
    rest = sending(run, file, out).once()
    assert len([row for row in told(out) if row["what"] == "send"]) == 4 + rest
    for name in ("sft/seed1", "base"):
        assert figures(told(out), name), "checked: nothing came twice"


def test_a_training_under_way_is_followed(run: Path, file: Path, out: Path, told: Any) -> None:
    kept = run.with_name("kept")
    (run / "train/sft/seed1").rename(kept)
    work = run / "train/sft/seed1.tmp"
    work.mkdir()
    rows = (kept / "log.jsonl").read_text().splitlines(keepends=True)
    (work / "claim.json").write_text("{}")
    found = sending(run, file, out)
    for end in (1, 2, 2, 4):
        (work / "log.jsonl").write_text("".join(rows[:end]) + rows[end][:20])
        found.once()
        assert len(figures(told(out), "sft/seed1")["train/loss"]) == end
    (work / "log.jsonl").write_text("".join(rows[:2]))  # it goes on from a checkpoint
    found.once()
    shutil.rmtree(work)
    kept.rename(run / "train/sft/seed1")
    sending(run, file, out).once()
    losses = figures(told(out), "sft/seed1")["train/loss"]
    assert sorted(losses) == [json.loads(row)["step"] for row in rows if '"loss"' in row]
    assert {row["run"] for row in told(out)} >= {"sft/seed1"}
    assert not [row for row in told(out) if "(2)" in row["run"]]


def test_a_training_that_is_made_again_has_a_run_of_its_own(
    run: Path, file: Path, out: Path, told: Any
) -> None:
    found = sending(run, file, out)
    found.once()
    record = run / "train/sft/seed1/record.json"
    store.write_sealed(record, {**sealed.read(record, ""), "made": "another"})
    assert found.once() >= 1
    ends = [(row["run"], row["done"]) for row in told(out) if row["what"] == "finish"]
    assert ends == [("sft/seed1", False)], "the former run is closed"
    rows = [row for row in told(out) if row["run"] == "sft/seed1 (2)"]
    assert figures(rows, "sft/seed1 (2)")["train/loss"]
    first = next(row["id"] for row in told(out) if row["run"] == "sft/seed1")
    assert first not in {row["id"] for row in rows}
    assert sending(run, file, out).once() == 0


def test_the_old_log_of_a_training_that_is_made_again_is_not_sent(
    run: Path, file: Path, out: Path, told: Any
) -> None:
    """The old folder is there until the new one takes its place."""
    found = sending(run, file, out)
    found.once()
    old, work = run / "train/sft/seed1", run / "train/sft/seed1.tmp"
    (old / "record.json").rename(old / "record.forgotten.json")
    assert found.once() == 0, "it waits for its turn"
    work.mkdir()
    (work / "claim.json").write_text("{}")
    (work / "log.jsonl").write_text('{"step": 1, "loss": 9.5}\n')
    assert found.once() == 1
    assert figures(told(out), "sft/seed1 (2)") == {"train/loss": {1: 9.5}}


def test_code_that_a_run_folder_names_is_asked_about_first(
    run: Path, file: Path, out: Path, told: Any, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    plan = Watched(run).plan
    track = ({f"{file}:Kept": {"path": str(out)}},)
    named = replace(plan, study=plan.study.model_copy(update={"track": track}))
    write_plan(named)
    assert call(["track", str(run)]) == 3
    assert "names code that was never run here" in capsys.readouterr().err and not told(out)
    consent.give(named.study)
    assert call(["track", str(run)]) == 0 and told(out)


def received(run: Path, track: dict[str, object]) -> None:
    """Let the study of the run folder name these trackers, as a stranger would."""
    plan = Watched(run).plan
    write_plan(replace(plan, study=plan.study.model_copy(update={"track": (track,)})))


def test_a_received_folder_does_not_say_where_tokens_go(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server of the stranger's would get the token of whoever tracks the run."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret")
    monkeypatch.setattr("holdfast.report.trackers.sending._send", lambda *given: 1)
    received(run, {"mlflow": {"uri": "http://evil.example", "experiment": "e"}})
    for line in (["track", str(run)], ["track", str(run), "--to", "mlflow"],
                 ["track", str(run), "--to", "mlflow", "experiment=mine"]):  # fmt: skip
        assert call(line) == 3, line
        said = capsys.readouterr().err
        assert "http://evil.example" in said and "--trust-code" in said and "s3cret" not in said
    own = ["track", str(run), "--to", "mlflow", "uri=http://127.0.0.1:1", "experiment=mine"]
    assert call(own) == 0, "every setting is the command's own"
    assert call(["track", str(run), "--to", "tensorboard"]) == 0
    consent.give(Watched(run).plan.study)
    assert call(["track", str(run)]) == 0
    received(run, {"mlflow": {"uri": "http://worse.example", "experiment": "e"}})
    assert call(["track", str(run)]) == 3


def test_one_process_sends_at_a_time(run: Path, file: Path, out: Path) -> None:
    tracker = build(f"{file}:Kept", {"path": str(out)}, run, "track")
    with alone(tracker, run), pytest.raises(FolderError, match="another process"):
        send_run(run, f"{file}:Kept", [f"path={out}"])
    assert sum(send_run(run, f"{file}:Kept", [f"path={out}"]).values()) > 0


def test_the_command(run: Path, file: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(["track", str(run), "--to", f"{file}:Kept", f"path={out}", "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["sent"][f"{file}:Kept"] > 10, "what a library prints is apart"
    assert "noise of a library" in said.err
    assert call(["track", str(run), "--to", f"{file}:Kept", f"path={out}"]) == 0
    assert "has all of it already" in capsys.readouterr().out
    assert call(["track", str(run), "--to", f"{file}:Broken", f"path={out}"]) == 1
    error = capsys.readouterr().err
    assert "broken failed: RuntimeError: the server is on fire" in error
    assert "the same command sends the rest" in error and "and more" not in error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--to", "tensorbord"], "did you mean 'tensorboard'"),
        ([], "names no tracker, and neither does its study"),
        (["path=x"], "names settings, but no tracker"),
        (["--to", "tensorboard", "path"], "'path' is no setting"),
        (["--to", "tensorboard", "logdir=x"], "track.tensorboard.logdir: unknown key"),
    ],
)
def test_wrong_commands(
    run: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["track", str(run), *arguments]) == 3
    assert said in capsys.readouterr().err


class Needs(Tracker):
    """Needs a package that nobody has."""

    package = "no_such_package_anywhere"

    def start(self, run: trackers.TrackedRun) -> None: ...
    def send(self, run: trackers.TrackedRun, batch: object) -> None: ...


def test_a_missing_package_is_said_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(MissingDependency, match="needs the package") as caught:
        ready(Needs(None, tmp_path))
    assert "pip install no_such_package_anywhere" in caught.value.remedy


@pytest.mark.parametrize(
    "uri", ["http://me:s3cret@host:5000", "https://host/?write_token=abc", "http://me@host"]
)
def test_an_address_holds_no_secret(tmp_path: Path, uri: str) -> None:
    with pytest.raises(StudyError, match="would be written into the run folder") as caught:
        build("mlflow", {"uri": uri}, tmp_path, "study.yaml")
    assert "s3cret" not in str(caught.value) and "abc" not in str(caught.value)


def test_a_failure_is_told_without_a_secret() -> None:
    error = OSError("at http://me:s3cret@host/api?write_token=abc&x=1 nobody answers\nmore")
    assert said(error) == "OSError: at http://host/api nobody answers"


def study(track: object) -> dict[str, object]:
    tasks = {"lab_math": {"role": "target"}}
    return {"name": "s", "model": "lab", "tasks": tasks, "track": track}


@pytest.mark.parametrize(
    "track",
    ["tensorboard", ["tensorboard"], {"tensorboard": None}, [{"tensorboard": {}}]],
)
def test_ways_to_name_a_tracker(track: object, tmp_path: Path) -> None:
    found = load.load(study(track))
    assert [one for pair in found.track for one in pair] == ["tensorboard"]
    (made,) = of(found.track, tmp_path, "study")
    assert made.folder == tmp_path / "tracking" / "tensorboard"


@pytest.mark.parametrize(
    ("track", "said"),
    [
        (["wandb", "wandb"], "wandb is named twice"),
        ([{"wandb": {}, "mlflow": {}}], "each entry is one tracker"),
        (3, "track"),
    ],
)
def test_wrong_lists_of_trackers(track: object, said: str) -> None:
    with pytest.raises(StudyError, match=said):
        load.load(study(track))


@pytest.mark.parametrize(
    ("track", "said"),
    [
        ({"mlfow": {}}, "did you mean 'mlflow'"),
        ({"wandb": {"api_key": "x"}}, "api_key: unknown key"),
        ({"wandb": {"mode": "ofline"}}, "mode"),
    ],
)
def test_names_and_settings_are_checked_with_the_study(
    track: object, said: str, tmp_path: Path
) -> None:
    with pytest.raises(StudyError, match=said):
        of(load.load(study(track)).track, tmp_path, "study.yaml")


def test_without_a_key_nothing_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "TRACKIO_WRITE_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    for name, options in (("wandb", {}), ("trackio", {"url": "http://127.0.0.1:1"})):
        with pytest.raises(UsageError, match=r"no key|takes a token"):
            build(name, options, tmp_path, "study").check()
    build("wandb", {"mode": "offline"}, tmp_path, "study").check()
    with pytest.raises(UsageError, match="a server and a Space"):
        build("trackio", {"url": "http://a", "space": "b"}, tmp_path, "study").check()


def test_other_errors_are_those_of_the_tracker(run: Path, file: Path, out: Path) -> None:
    with pytest.raises(HoldfastError, match="the server is on fire"):
        send_run(run, f"{file}:Broken", [f"path={out}"])
