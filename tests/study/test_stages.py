"""Are tasks learned one after the other, measured after each, and gone on with when interrupted?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fixtures.continual import ARMS, write_stages, write_words
from fixtures.study import readings_of, run_study
from safetensors.torch import load_file

from holdfast import study
from holdfast.config import load
from holdfast.errors import HoldfastError
from holdfast.memory.planner.request import PlanRequest
from holdfast.progress import Silent
from holdfast.report.console import dry_run_text
from holdfast.runs.plan import read_plan
from holdfast.train.planning import arms_of, plan_study


@pytest.fixture(scope="session")
def learned(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a finished study with two stages."""
    folder = tmp_path_factory.mktemp("stages")
    run_study(write_stages(folder, tiny_model), folder / "runs")
    return folder / "runs" / "s"


def _weights(folder: Path) -> dict[str, object]:
    found: dict[str, object] = load_file(folder / "adapter_model.safetensors")
    return found


def test_every_task_is_measured_after_every_stage(learned: Path) -> None:
    results = json.loads((learned / "stats" / "results.json").read_text())
    cells = {(one["arm"], one["step"], one["task"]) for one in results["cells"]}
    tasks = {"lab_math", "words", "lab_refuse"}
    assert {(arm, step, task) for arm in ARMS for step in (4, 8) for task in tasks} <= cells
    assert [one["step"] for one in results["learned"]] == [4, 8]
    found = {one["arm"]: one for one in results["transfer"]}
    assert found.keys() == ARMS.keys()
    by = {(one["arm"], one["step"], one["task"]): one["score"]["mean"] for one in results["cells"]}
    for arm, one in found.items():
        last = [by[arm, 8, task] for task in ("lab_math", "words")]
        assert one["average"]["mean"] == pytest.approx(sum(last) / 2, abs=1e-5)
        kept = by[arm, 8, "lab_math"] - by[arm, 4, "lab_math"]
        assert one["backward"]["mean"] == pytest.approx(kept, abs=1e-5)
        ahead = by[arm, 4, "words"] - by["base", 0, "words"]
        assert one["forward"]["mean"] == pytest.approx(ahead, abs=1e-5)
    gains = {(one["arm"], one["step"]): one["change"]["mean"] for one in results["mean_gain"]}
    assert gains.keys() == {(arm, step) for arm in ARMS for step in (4, 8)}
    change = sum(by["sft", 8, task] - by["base", 0, task] for task in ("lab_math", "words")) / 2
    assert gains["sft", 8] == pytest.approx(change, abs=1e-5)
    assert "gains on lab_math and words" in results["decision"]["rule"]
    assert not results["equal_gain"] and not results["equal_loss"] and not results["dose"]
    arms = {one["name"]: one for one in results["arms"]}
    assert arms["sft"]["steps"] == 8
    assert [step for step, _ in arms["sft"]["loss"]] == list(range(1, 9))
    assert {one["step"] for one in results["meters"] if one["arm"] == "sft"} >= {4, 8}
    assert arms["replayed"]["supervised_tokens"] == pytest.approx(
        arms["sft"]["supervised_tokens"], rel=0.1
    )
    assert any("earlier stages replayed" in note for note in arms["replayed"]["notes"])


def test_the_matrix_is_in_every_form_of_the_report(learned: Path) -> None:
    page = (learned / "report" / "index.html").read_text(encoding="utf-8")
    text = (learned / "report" / "report.md").read_text(encoding="utf-8")
    rows = (learned / "report" / "stages.csv").read_text(encoding="utf-8").splitlines()
    for one in (page, text):
        for word in ("One task after the other", "after 2: words", "Backward transfer"):
            assert word in one
    assert "后向迁移" in page and "第 2 阶段 words 之后" in page
    assert rows[0].startswith("arm,stage,learned,step,task,value")
    assert len(rows) == 1 + len(ARMS) * 3 * 3  # before and after two stages, three tasks
    assert "stage 2: words, 4 steps (12 examples), step 5 to 8" in dry_run_text(read_plan(learned))


def test_a_stage_begins_where_the_one_before_ended(learned: Path) -> None:
    """`orthogonal` keeps the first stage's adapter as it was, beside a new one."""
    for arm in ("sft", "apart"):
        stages = learned / "train" / arm / "seed1"
        first = _weights(stages / "1-lab_math" / "checkpoint-4")
        second = _weights(stages / "2-words" / "checkpoint-4")
        assert first.keys() == second.keys()
        for name, one in first.items():
            other = second[name]
            if arm == "sft":
                assert other.shape == one.shape and not other.equal(one)
            else:
                part = other[:4] if "lora_A" in name else other[:, :4]
                assert part.equal(one) and other.numel() == 2 * one.numel(), name
    log = (learned / "train/sft/seed1/2-words/log.jsonl").read_text().splitlines()
    rates = [json.loads(line).get("learning_rate") for line in log]
    assert rates[0] == pytest.approx(0.01)  # the schedule begins anew


def test_weights_after_all_stages_are_merged(learned: Path) -> None:
    folder = learned / "weights" / "averaged" / "seed1"
    said = {step: json.loads((folder / f"checkpoint-{step}/record.json").read_text())["summary"]
            for step in (4, 8)}  # fmt: skip
    assert [said[step]["adapters"] for step in (4, 8)] == [1, 2]


def test_an_interrupted_run_ends_the_same(
    learned: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off after the first stage's training and in the middle of the second's."""
    path = write_stages(tmp_path, tiny_model, arms={"sft": {}, "apart": ARMS["apart"]})
    run_study(path, tmp_path / "runs", only="train/*/1-lab_math")
    run = tmp_path / "runs" / "s"
    assert not list(run.glob("train/*/seed1/2-words"))
    stopping = Silent()
    done = []
    whole = Silent.advance

    def advance(self: Silent, *given: object, **more: object) -> None:
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt
        whole(self, *given, **more)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Silent, "advance", advance)
        with pytest.raises(KeyboardInterrupt):
            study.run(load.load(path), run, stopping, str(path))
    run_study(path, tmp_path / "runs")
    there = readings_of(learned)
    for name, text in readings_of(run).items():
        assert text == there[name], name
    before = {one: one.stat().st_mtime_ns for one in run.rglob("record.json")}
    run_study(path, tmp_path / "runs")
    assert before == {one: one.stat().st_mtime_ns for one in run.rglob("record.json")}


def test_a_further_stage_leaves_those_before_as_they_are(tiny_model: Path, tmp_path: Path) -> None:
    """Stages of training that are the same have the same fingerprints."""
    from holdfast.runs import stages

    small = {"arms": {"sft": {}, "apart": ARMS["apart"]}}
    path = write_stages(tmp_path, tiny_model, **small)
    two = study.plan(load.load(path), tmp_path / "a")
    tasks = load.load(path).model_dump(mode="json", exclude_unset=True)["tasks"]
    tasks["others"] = write_words(tmp_path, "others", 300)
    path = write_stages(tmp_path, tiny_model, **small, tasks=tasks,
                        stages=["lab_math", "words", "others"])  # fmt: skip
    three = study.plan(load.load(path), tmp_path / "a")
    assert (two.steps, three.steps, three.save_at) == (8, 12, (4, 8, 12))
    old, new = stages.fingerprints(two.stages), stages.fingerprints(three.stages)
    trained = [name for name in old if name.startswith(("train/", "data/", "budget/"))]
    assert len(trained) == 2 + 2 * (2 + 2)  # budgets; data and training of two arms
    assert all(new[name] == old[name] for name in trained)
    assert "train/apart/seed1/3-others" in new


def test_what_replays_an_earlier_stage_is_made_again_with_its_data(
    tiny_model: Path, tmp_path: Path
) -> None:
    from holdfast.runs import stages

    tasks = {"first": write_words(tmp_path, "first", 500), "words": write_words(tmp_path)}
    how = {"tasks": {**tasks, "lab_refuse": {"items": 6}}, "stages": ["first", "words"]}
    path = write_stages(tmp_path, tiny_model, **how)
    old = stages.fingerprints(study.plan(load.load(path), tmp_path / "a").stages)
    write_words(tmp_path, "first", 700)
    new = stages.fingerprints(study.plan(load.load(path), tmp_path / "a").stages)
    for name in ("data/replayed/1-first", "data/replayed/2-words", "train/replayed/seed1/2-words"):
        assert new[name] != old[name], name
    assert new["data/sft/2-words"] == old["data/sft/2-words"]


def test_memory_is_planned_for_the_widest_adapter(tiny_model: Path, tmp_path: Path) -> None:
    loaded = load.load(write_stages(tmp_path, tiny_model))
    asked = arms_of(loaded)
    ranks = {name: one.train.lora.r for name, one in asked.items() if one.train}
    assert ranks == {"sft": 4, "replayed": 4, "apart": 8}
    request = PlanRequest(gpus="1x24GiB", trace=False)
    needs = {name: plan_study(loaded, request, arms={name: asked[name]}, longest=64)
             .comparison.candidates[0].plan.fullest.total for name in ("sft", "apart")}  # fmt: skip
    assert needs["apart"] > needs["sft"]


def _second(**changes: object) -> dict[str, object]:
    return {"role": "target", "items": 8, "train_items": 24} | changes


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stages": ["lab_math"]}, "two at least"),
        ({"stages": []}, "two at least"),
        ({"stages": ["lab_math", "lab_math"]}, "named twice"),
        ({"stages": ["lab_math", "wrds"]}, "no task is called 'wrds'"),
        ({"stages": ["lab_math", "lab_refuse"]}, "needs `role: target`"),
        ({"stages": ["lab_math", "lab_help"], "tasks": {
            "lab_math": _second(), "lab_help": _second(items=4), "words": _second()}},
         "is no stage"),
        ({"stages": ["lab_math", "words"], "tasks": {
            "lab_math": _second(share=0.5), "words": _second(kind="lab_start")}},
         "share: is of targets that are mixed"),
        ({"meters": {"stop": {"kl": 1.0}}}, "meters.stop does not go"),
        ({"arms": {"a": {"train": {"lora": {"variant": "oft", "r": 4}}}}},
         "lora.variant does not go"),
        ({"arms": {"a": {"loss": ["orthogonal"], "train": {"weight_decay": 0.1}}}}, "weight decay"),
    ],
)  # fmt: skip
def test_what_stages_cannot_be(
    tiny_model: Path, tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    with pytest.raises(HoldfastError) as caught:
        study.plan(load.load(write_stages(tmp_path, tiny_model, **changes)), tmp_path / "r")
    assert said in str(caught.value) and caught.value.exit_code == 3


def test_a_stage_has_no_unit_of_its_own_and_a_retained_task_may(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Texts are measured in bits per byte: not to be averaged with shares, but shown beside."""
    for part in ("train", "test"):
        rows = [f"Mia has {n} apples in the {part} . \n" * 4 for n in range(6)]
        (tmp_path / f"prose-{part}.txt").write_text("\n\n\n".join(rows), encoding="utf-8")
    prose = {"kind": "text", "path": "prose-test.txt", "separator": "\n\n\n"}
    learned = {"role": "target", "train_path": "prose-train.txt"}
    tasks = {"lab_math": _second(), "words": write_words(tmp_path)}
    for more, said in ((learned, "measured in bits/byte"), ({}, "")):
        stages = ["lab_math", "words", *(["prose"] if more else [])]
        path = write_stages(tmp_path, tiny_model, stages=stages, arms={"sft": {}},
                            tasks={**tasks, "prose": prose | more})  # fmt: skip
        if said:
            with pytest.raises(HoldfastError, match=said) as caught:
                study.plan(load.load(path), tmp_path / "r")
            assert caught.value.exit_code == 3
        else:
            assert study.plan(load.load(path), tmp_path / "r").tasks["prose"].unit == "bits/byte"


def test_stages_are_the_targets_each_learned_alone(tiny_model: Path, tmp_path: Path) -> None:
    """In their own order, asked in ways of their own; mixed where there are no stages."""
    tasks = {"words": write_words(tmp_path), "lab_math": _second()}
    tasks["lab_math"]["sampling"] = {"max_new_tokens": 4, "temperature": 0.5}
    path = write_stages(tmp_path, tiny_model, tasks=tasks, arms={"sft": {}})
    loaded = load.load(path)
    assert loaded.targets == ("lab_math", "words")
    session = study.prepare(loaded, tmp_path / "r", str(path))
    assert [one.study.targets for one in session.parts] == [("lab_math",), ("words",)]
    assert [len(one.plain) for one in session.parts] == [24, 12]
    assert session.plan.training_items == 36
    assert [one.target for one in session.parts] == [
        session.measuring.tasks[name] for name in loaded.targets
    ]
    assert [one.setting().sampling.temperature for one in session.parts] == [0.5, 0.0]
    given = loaded.model_dump(mode="json", exclude_unset=True)
    given.pop("stages")
    given["tasks"]["lab_math"].pop("sampling")
    mixed = study.plan(type(loaded).model_validate(given), tmp_path / "m")
    assert (mixed.training_items, mixed.chapters) == (36, ())


def test_stages_with_nothing_to_train_on_or_the_same_items_are_refused(
    tiny_model: Path, tmp_path: Path
) -> None:
    plain = {"lab_math": _second(), "lab_refuse": {"items": 6}}
    measured = plain | {"lab_help": {"role": "target", "items": 4}}
    twice = plain | {"again": _second(kind="lab_math", train_items=12)}
    for tasks, second, said in ((measured, "lab_help", "only measure"),
                                (twice, "again", "measured by the same items")):  # fmt: skip
        path = write_stages(tmp_path, tiny_model, tasks=tasks, stages=["lab_math", second])
        with pytest.raises(HoldfastError, match=said):
            study.plan(load.load(path), tmp_path / "r")


@pytest.mark.parametrize(
    "arm",
    [{"loss": ["orthogonal"]}, {"data": ["replay_earlier"]},
     {"from": "sft", "weights": [{"merge": {"stages": True}}]}],
)  # fmt: skip
def test_what_works_across_stages_needs_them(
    tiny_model: Path, tmp_path: Path, arm: dict[str, object]
) -> None:
    from fixtures.study import write_study

    path = write_study(tmp_path, tiny_model, arms={"sft": {}, "a": arm})
    with pytest.raises(HoldfastError, match="this study has no stages"):
        study.plan(load.load(path), tmp_path / "r")


def test_all_weights_and_dora_go_on_too(tiny_model: Path, tmp_path: Path) -> None:
    """Full fine-tuning begins with the whole model of the stage before, DoRA with all of it."""
    for number, train in enumerate(({"method": "full"}, {"lora": {"variant": "dora", "r": 4}})):
        folder = tmp_path / str(number)
        folder.mkdir()
        path = write_stages(folder, tiny_model, arms={"sft": {}}, meters={"probes": 0})
        usual = load.load(path).model_dump(mode="json", exclude_unset=True)["train"]
        path = write_stages(folder, tiny_model, arms={"sft": {}}, meters={"probes": 0},
                            train=usual | train)  # fmt: skip
        run_study(path, folder / "runs", only="train/*")
        stages = folder / "runs/s/train/sft/seed1"
        file = "model.safetensors" if number == 0 else "adapter_model.safetensors"
        first, second, base = (
            load_file(one / file) if (one / file).is_file() else {}
            for one in (stages / "1-lab_math/checkpoint-4", stages / "2-words/checkpoint-4",
                        tiny_model)
        )  # fmt: skip
        name = next(one for one in first if "q_proj" in one)
        moved = float((second[name] - first[name]).norm())
        assert moved > 0
        if base:  # after two stages it is further from the base than the second stage alone goes
            assert float((second[name] - base[name]).norm()) > moved
