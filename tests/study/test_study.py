"""Does a whole study run, skip, resume after a kill, and end in the same readings?"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fixtures.study import readings_of, run_study, write_study
from fixtures.timing import worked

from holdfast import study
from holdfast.analysis import selection
from holdfast.analysis.selection import from_run
from holdfast.config import Study, load
from holdfast.errors import (
    DataError,
    DriftError,
    FolderError,
    HoldfastError,
    LeakError,
    StudyError,
)
from holdfast.progress import Silent
from holdfast.runs import run_folder, stages, store


def test_the_folder_holds_everything(finished: Path) -> None:
    run = finished / "runs" / "s"
    for name in ("study.yaml", "plan.json", "environment.json", "budget/budget.json",
                 "data/sft/examples.jsonl", "data/sft/mask_preview.txt",
                 "train/sft/seed1/checkpoint-3", "train/sft/seed1/log.jsonl",
                 "replies/base/lab_math/replies.jsonl",
                 "replies/gold/seed2/checkpoint-6/lab_refuse/replies.jsonl",
                 "verdicts/sft/seed1/checkpoint-3/lab_refuse/verdicts.jsonl",
                 "readings/sft/seed1/checkpoint-3/lab_math/readings.jsonl",
                 "stats/results.json", "report/index.html", "report/report.md"):  # fmt: skip
        assert (run / name).exists(), name
    assert len(readings_of(run)) == 2 * (2 + 2 * 2 * 2), "the base is asked twice"
    assert not list(run.rglob("*.tmp"))


def test_budgets_are_equal_and_reported(finished: Path) -> None:
    results = json.loads((finished / "runs" / "s" / "stats" / "results.json").read_text())
    base, sft, gold = results["arms"]
    assert base["steps"] == 0
    assert sft["steps"] == gold["steps"] == 6
    assert gold["supervised_tokens"] == pytest.approx(sft["supervised_tokens"], rel=0.05)
    assert gold["by_source"] == {"human-style worked answers": 24}
    assert "0 of 24 questions solved by the model itself" in gold["notes"][0]
    steps = {(cell["arm"], cell["step"]) for cell in results["cells"]}
    assert steps == {("base", 0), ("sft", 3), ("sft", 6), ("gold", 3), ("gold", 6)}


def test_a_finished_study_is_left_alone(finished: Path) -> None:
    run = finished / "runs" / "s"
    before = {path: path.stat().st_mtime_ns for path in run.rglob(store.RECORD)}
    assert worked(lambda: run_study(finished / "study.yaml", finished / "runs")) < 3
    assert {path: path.stat().st_mtime_ns for path in run.rglob(store.RECORD)} == before


def test_regrading_needs_no_generation(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a model was loaded")

    monkeypatch.setattr("holdfast.models.load_model", never)
    run_study(finished / "study.yaml", finished / "runs", rebuild=["readings/*", "verdicts/*"])


def test_a_changed_study_stops_with_the_fields(finished: Path) -> None:
    loaded = load.load(finished / "study.yaml", ["train.learning_rate=0.5"])
    with pytest.raises(DriftError, match=r"train\.learning_rate: 0\.01 → 0\.5") as caught:
        study.run(loaded, finished / "runs" / "s", Silent(), "study.yaml")
    assert "--rebuild 'train/sft/seed1'" in str(caught.value)
    kept = (finished / "runs" / "s" / "study.yaml").read_text()
    assert "0.5" not in kept, "the folder still tells what made it"


def test_where_it_runs_is_not_what_it_is(finished: Path) -> None:
    loaded = load.load(
        finished / "study.yaml",
        ["train.gradient_checkpointing=true", "train.checkpoints=null", "train.save_steps=0.5"],
    )
    planned = study.plan(loaded, finished / "runs" / "s")
    assert all(step.done for step in study.schedule(planned))


@pytest.mark.parametrize("moments", [(4.5, 1.5, 2.5)])
def test_killed_again_and_again_it_ends_the_same(
    finished: Path, tiny_model: Path, tmp_path: Path, moments: tuple[float, ...]
) -> None:
    path = write_study(tmp_path, tiny_model)
    command = [
        sys.executable,
        "-m",
        "holdfast",
        "run",
        str(path),
        "--runs-dir",
        str(tmp_path / "runs"),
    ]
    for seconds in moments:
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr
    assert readings_of(tmp_path / "runs" / "s") == readings_of(finished / "runs" / "s")


def test_two_runs_on_one_folder(finished: Path) -> None:
    run = finished / "runs" / "s"
    with run_folder.lock(run), pytest.raises(FolderError, match="another run is using this folder"):
        run_study(finished / "study.yaml", finished / "runs")


def _loaded(tmp_path: Path, model: Path, **changes: object) -> Study:
    return load.load(write_study(tmp_path, model, **changes))


def test_nothing_is_written_for_a_study_that_is_wrong(tiny_model: Path, tmp_path: Path) -> None:
    missing = {"kind": "jsonl", "path": str(tmp_path / "none.jsonl")}
    target = {"role": "target", "items": 8, "train_items": 24}
    for changes, error, words in (
        ({"tasks": {"lab_math": target, "x": missing}}, DataError, "No such file"),
        ({"arms": {"a": {"data": [{"replai": {}}]}}}, StudyError, "did you mean 'replay'"),
        ({"arms": {"a": {"data": [{"replay": {"shar": 1}}]}}}, StudyError, "did you mean 'share'"),
        ({"arms": {"a": {"data": [{"replay": {"source": "file"}}]}}}, StudyError, "`path` goes"),
        ({"tasks": {"lab_math": target, "lab_help": {"judge": "gpt"}}}, StudyError, "no judge"),
    ):
        loaded = _loaded(tmp_path, tiny_model, **changes)
        with pytest.raises(error, match=words):
            study.run(loaded, tmp_path / "runs" / "s", Silent(), "study.yaml")
        assert not (tmp_path / "runs").exists()


def test_training_on_the_test_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"question": f"What is {i} plus {i}, dear?", "answer": str(2 * i)} for i in range(9)]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    task = {"kind": "jsonl", "role": "target", "path": str(file), "train_path": str(file)}
    loaded = _loaded(tmp_path, tiny_model, tasks={"mine": task})
    with pytest.raises(LeakError, match="9 training items contain evaluation questions"):
        study.plan(loaded, tmp_path / "runs" / "s")


def test_replay_from_a_file_that_leaks_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    from holdfast.lab.requests import requests

    file = tmp_path / "old.jsonl"
    asked = requests("test", 6, True)
    rows = [{"prompt": one.question, "completion": "No."} for one in asked]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    arm = {"data": [{"replay": {"source": "file", "path": str(file), "share": 0.2}}]}
    loaded = _loaded(tmp_path, tiny_model, arms={"bad": arm})
    with pytest.raises(LeakError, match=r"old\.jsonl: 6 training items"):
        study.plan(loaded, tmp_path / "runs" / "s")


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.2)])
def test_shares_that_leave_nothing_of_the_task(
    tiny_model: Path, tmp_path: Path, shares: tuple[float, float]
) -> None:
    arm = {"data": [{"replay": {"share": shares[0]}}], "loss": [{"kl": {"share": shares[1]}}]}
    loaded = _loaded(tmp_path, tiny_model, arms={"a": arm})
    with pytest.raises(StudyError, match=r"replay, kl would mix in 1[01]0% of"):
        study.plan(loaded, tmp_path / "runs" / "s")


def test_order_of_methods(tiny_model: Path, tmp_path: Path) -> None:
    loaded = _loaded(tmp_path, tiny_model, arms={"a": {"data": ["replay", "selfgen"]}})
    with pytest.raises(StudyError, match="put selfgen and rewrite before replay"):
        study.plan(loaded, tmp_path / "runs" / "s")


def test_what_was_trained_on_cannot_be_measured_later(finished: Path) -> None:
    """New evaluation questions are compared with what the finished arms were trained on."""
    run = finished / "runs" / "s"
    data = run / "data" / "sft"
    kept, record = (data / "examples.jsonl").read_text("utf-8"), (data / "record.json").read_bytes()
    one = json.loads(kept.splitlines()[0])
    session = study.prepare(load.load(finished / "study.yaml"), run)
    asked = session.measuring.asked["lab_refuse"]
    one["messages"][-1]["content"] = asked[0].question
    try:
        with stages.renewed(data):
            store.write_jsonl(data / "examples.jsonl", [one])
        with pytest.raises(LeakError, match="already trained"):
            run_study(finished / "study.yaml", finished / "runs")
    finally:
        store.write_text(data / "examples.jsonl", kept)
        (data / "record.json").write_bytes(record)


def test_a_limit_on_checkpoints_spares_the_frontier(tiny_model: Path, tmp_path: Path) -> None:
    train = {
        "optim": "adamw_torch", "learning_rate": 0.01, "max_steps": 6, "checkpoints": 6,
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False, "save_total_limit": 1,
    }  # fmt: skip
    path = write_study(tmp_path, tiny_model, train=train, seeds=[1], arms={"sft": {}})
    run_study(path, tmp_path / "runs")
    run = tmp_path / "runs" / "s"
    planned = study.plan(load.load(path), run)
    evidence = from_run.gather(planned)
    on_frontier = {step for _, _, step in selection.keepers(evidence.trained)}
    left = {int(one.name.split("-")[1]) for one in (run / "train/sft/seed1").glob("checkpoint-*")}
    assert on_frontier <= left
    assert len(left) < 6 or on_frontier == set(range(1, 7))
    gone = sorted(set(range(1, 7)) - left)
    if gone:
        with pytest.raises(DataError, match="was deleted") as caught:
            run_study(
                path, tmp_path / "runs", rebuild=[f"replies/sft/seed1/checkpoint-{gone[0]}/*"]
            )
        assert "--rebuild 'train/sft/seed1'" in caught.value.remedy


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        ({"a": {"loss": ["replay"]}}, "write it under `data:`"),
        ({"a": {"loss": [{"sdft": {}}, "l2_init"]}}, "a loss of its own"),
        (
            {"a": {"loss": ["sdft"], "train": {"packing": True, "torch_compile": True}}},
            "knows nothing of train.packing, train.torch_compile",
        ),
        (
            {"a": {"from": "sft", "weights": [{"merge": {"with": ["b"]}}]}, "sft": {}},
            "'b' is no arm with a training",
        ),
        ({"a": {"weights": [{"merge": {"seeds": True}}]}}, "an arm of their own"),
        (
            {"a": {"from": "sft", "weights": [{"merge": {"with": ["sft"]}}]}, "sft": {}},
            "merged with itself",
        ),
        ({"a": {"from": "base", "weights": ["scale"]}, "sft": {}}, "has no change"),
        ({"a": {"loss": [{"kl": {"at": "task"}}, "kl"]}}, "two methods compare"),
        ({"a": {"ask": [{"system_prompt": {"tasks": ["lab_mth"]}}]}}, "did you mean 'lab_math'"),
        ({"a": {"weights": ["scale"], "train": {"lora": {"variant": "dora"}}}}, "no interpolation"),
        ({"a": {"train": {"lora": {"variant": "corda"}, "weight_decay": 0.1}}}, "weight decay"),
    ],
)
def test_what_does_not_go_together(
    tiny_model: Path, tmp_path: Path, arms: dict[str, object], message: str
) -> None:
    with pytest.raises(StudyError) as caught:
        study.plan(_loaded(tmp_path, tiny_model, arms=arms), tmp_path / "runs" / "s", "study.yaml")
    assert message in str(caught.value)
    assert "study.yaml: arms.a" in str(caught.value)


def test_full_fine_tuning_has_no_base_to_compare_with(tiny_model: Path, tmp_path: Path) -> None:
    train = {"method": "full", "optim": "adamw_torch", "max_steps": 2, "checkpoints": 1}
    loaded = _loaded(tmp_path, tiny_model, train=train, arms={"a": {"loss": ["kl"]}})
    with pytest.raises(StudyError, match="when all weights are trained there is none"):
        study.plan(loaded, tmp_path / "runs" / "s")


def test_a_study_of_remedies_end_to_end(tiny_model: Path, tmp_path: Path) -> None:
    """Sweeps, scaled and merged weights, an asked arm, a stopped one: all are measured once."""
    arms = {
        "sft": {"train": {"learning_rate": [0.001, 0.01]}},
        "masked": {"data": [{"selfgen": {"samples": 2, "unsolved": "gold"}}],
                   "loss": [{"token_mask": {"max_perplexity": 1e9}}, "l2_init"],
                   "weights": [{"scale": {"factors": [0.5]}}]},
        "scaled": {"from": "sft", "weights": [{"scale": {"factors": [0.25, 0.5]}}]},
        "soup": {"from": "masked", "weights": [{"merge": {"seeds": True}}]},
        "told": {"from": "base", "ask": ["system_prompt"]},
    }  # fmt: skip
    path = write_study(tmp_path, tiny_model, arms=arms, meters={"probes": 2, "stop": {"kl": 0.0}})
    run_study(path, tmp_path / "runs")
    run = tmp_path / "runs" / "s"
    results = json.loads((run / "stats" / "results.json").read_text())
    names = [arm["name"] for arm in results["arms"]]
    assert names == ["base", "sft-lr0.001", "sft-lr0.01", "masked", "scaled-lr0.001",
                     "scaled-lr0.01", "soup", "told"]  # fmt: skip
    points = {(c["arm"], c["step"], c["scale"]) for c in results["cells"]}
    assert {("scaled-lr0.01", 6, 0.25), ("scaled-lr0.01", 6, 0.5), ("masked", 6, 0.5)} <= points
    assert ("scaled-lr0.01", 6, 1.0) not in points, "that is sft itself"
    by_name = {arm["name"]: arm for arm in results["arms"]}
    assert by_name["sft-lr0.001"]["steps"] == 3, "stopped at the first checkpoint"
    assert "a meter passed its limit" in by_name["sft-lr0.001"]["notes"][-1]
    assert by_name["told"]["steps"] == 0
    assert by_name["masked"]["flops"] > by_name["sft-lr0.01"]["flops"], "its samples cost too"
    first = (run / "replies/sft-lr0.01/seed1/checkpoint-3/lab_math/replies.jsonl").read_text()
    last = (run / "replies/sft-lr0.01/seed1/checkpoint-6/lab_math/replies.jsonl").read_text()
    assert first == last, "training had ended"
    assert (run / "weights/soup/checkpoint-6/adapter_config.json").is_file()
    assert len({one["task"] for one in results["noise"]}) == 2
    assert {(one["arm"], one["seed"]) for one in results["meters"]} == {
        (arm, seed) for arm in ("sft-lr0.001", "sft-lr0.01", "masked") for seed in (1, 2)
    }
    assert results["decision"]["answer"] in {"do not ship", "not enough evidence"}
    assert len(store.read_json(run / "stats/results.json")["fronts"]) == 7
    page = (run / "report" / "index.html").read_text()
    assert "soup" in page


def test_an_arms_settings_are_checked_before_anything_is_asked(
    tiny_model: Path, tmp_path: Path
) -> None:
    for train, message in (({"optim": "adamw_nope"}, "adamw_nope"),
                           ({"lora": {"layers": [99]}}, "no layer 99")):  # fmt: skip
        path = write_study(tmp_path, tiny_model, arms={"sft": {}, "odd": {"train": train}})
        with pytest.raises(HoldfastError, match=message) as caught:
            run_study(path, tmp_path / "runs")
        assert "arms.odd" in str(caught.value)
    assert not (tmp_path / "runs/s/replies").exists()


def test_a_run_can_be_read_from_anywhere(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [{"prompt": f"What is {i}?", "completion": "A number."} for i in range(4)]
    (tmp_path / "old.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    monkeypatch.chdir(tmp_path)
    arms = {"a": {"data": [{"replay": {"source": "file", "path": "old.jsonl"}}]}}
    path = write_study(tmp_path, tiny_model, seeds=[1], arms=arms)
    run_study(path, tmp_path / "runs", only="data/*")
    monkeypatch.chdir("/")
    run = tmp_path / "runs" / "s"
    planned = study.plan(load.load(run / "study.yaml"), run)
    assert next(s for s in study.schedule(planned) if s.stage.name == "data/a").done
