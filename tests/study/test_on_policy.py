"""Do remedies that learn from the model's own answers run in a study, alone and accounted for?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures.study import run_study, write_study
from fixtures.vllm import FakeVLLM, wait_gone

from holdfast import models, study
from holdfast.config import load
from holdfast.errors import HoldfastError, MissingDependency, StudyError
from holdfast.models import ModelRef
from holdfast.runs import records, store
from holdfast.study import preflight, readiness
from holdfast.study.work import Counted

GRPO = {"grpo": {"group": 4, "max_new_tokens": 64}}
RAFT = {"raft": {"rounds": 2, "samples": 2, "max_new_tokens": 64}}
DPO = {"dpo": {"samples": 4}}
TRAIN = {
    "optim": "adamw_torch", "learning_rate": 0.001, "max_steps": 2, "checkpoints": 2,
    "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
}  # fmt: skip


def _file(folder: Path, **changes: Any) -> Path:
    given = {
        "seeds": [1], "train": TRAIN, "meters": {"probes": 0},
        "answer": {"sampling": {"max_new_tokens": 64}, "repeats": 1},
    }  # fmt: skip
    return write_study(folder, Path("lab"), **(given | changes))


def test_a_study_of_all_three(tmp_path: Path) -> None:
    """Trained, measured, counted, compared at equal gain; and done when it is run again."""
    arms = {"sft": {}, "grpo": {"loss": [GRPO]}, "raft": {"loss": [RAFT]}, "dpo": {"loss": [DPO]}}
    file = _file(tmp_path, arms=arms)
    run_study(file, tmp_path / "runs")
    folder = tmp_path / "runs" / "s"
    results = json.loads((folder / "stats" / "results.json").read_text())
    told = {arm["name"]: arm for arm in results["arms"]}
    assert all(told[name]["generated_tokens"] > 0 for name in ("grpo", "raft", "dpo"))
    assert {told[name]["steps"] for name in arms} == {2}
    assert {told[name]["examples_seen"] for name in arms} == {16}
    assert told["grpo"]["supervised_tokens"] == told["grpo"]["generated_tokens"]
    earned = [row for _, row in store.read_objects(folder / "train/grpo/seed1" / records.REWARDS)]
    mixed, never = (sum(row[name] for row in earned) / 16 for name in ("mixed", "never"))
    assert told["grpo"]["notes"] == [
        f"answers to one question differed in reward in {mixed:.0%} of 16 groups, and only these "
        "teach anything",
        f"no answer of a group earned anything in {never:.0%} of them",
    ]
    identity = {name: records.read(folder / "train" / name / "seed1")["identity"] for name in arms}
    assert identity["grpo"]["graded"][0]["grader"][0] == "lab_math"
    assert "graded" not in identity["sft"] and "graded" not in identity["dpo"]
    page = (folder / "report" / "index.html").read_text()
    text = (folder / "report" / "report.md").read_text()
    for one in (page, text):
        assert ("Forgetting at equal gain" in one) == bool(results["equal_gain"])
    steps = study.schedule(study.plan(load.load(file), folder))
    assert all(step.done for step in steps)


def test_a_forecast_counts_what_is_drawn_and_what_is_learned(tmp_path: Path) -> None:
    """Samples are drawn and one is learned; steps on the same answers draw nothing anew."""
    grpo, raft = GRPO["grpo"] | {"beta": 0.1}, RAFT["raft"]
    arms = {
        "grpo": {"loss": [{"grpo": grpo}]}, "twice": {"loss": [{"grpo": grpo | {"iterations": 2}}]},
        "raft": {"loss": [{"raft": raft}]}, "more": {"loss": [{"raft": raft | {"samples": 16}}]},
        "sft": {},
    }  # fmt: skip
    session = study.prepare(load.load(_file(tmp_path, arms=arms)), tmp_path / "runs" / "s", "s")
    counted = Counted(session, {})
    stages = {one.name: one for one in session.plan.stages}
    told = {arm: counted.of(stages[f"train/{arm}/seed1"]) for arm in arms}
    assert told["more"].answers == pytest.approx(8 * told["raft"].answers)
    assert told["raft"].written == pytest.approx(2 * 16 * 64), "2 samples of 16 examples seen"
    assert told["more"].written == pytest.approx(8 * told["raft"].written)
    assert told["more"].trained == told["raft"].trained == told["sft"].trained
    assert told["twice"].trained == told["grpo"].trained == pytest.approx(4 * told["sft"].trained)
    assert told["twice"].written == pytest.approx(told["grpo"].written / 2)
    read = told["grpo"].read - told["sft"].read, told["twice"].read - told["sft"].read
    assert read == pytest.approx((told["grpo"].trained, told["grpo"].trained / 2))


def _refused(folder: Path, message: str, **changes: Any) -> None:
    with pytest.raises(HoldfastError, match=message) as caught:
        study.plan(load.load(_file(folder, **changes)), folder / "run")
    assert caught.value.remedy


@pytest.mark.parametrize("loss", [GRPO, RAFT, DPO])
def test_they_stand_alone(tmp_path: Path, loss: Any) -> None:
    for data in ("selfgen", {"replay": {"prompts": "lab"}}):
        _refused(tmp_path, "asks the training questions itself",
                 arms={"a": {"data": [data], "loss": [loss]}})  # fmt: skip
    _refused(tmp_path, "a loss of its own", arms={"a": {"loss": [loss, "l2_init"]}})
    whole = {**TRAIN, "method": "full"}
    _refused(tmp_path, "trains adapters", arms={"a": {"loss": [loss]}}, train=whole)
    prompts = {**TRAIN, "completion_only_loss": False}
    _refused(tmp_path, "learns from answers alone", arms={"a": {"loss": [loss]}}, train=prompts)


@pytest.mark.parametrize(
    ("loss", "stage", "message"),
    [
        (GRPO, "train/a/*", "reward of lab_start is always 0"),
        (RAFT, "train/a/*", "no right answer among .* of lab_start"),
        (DPO, "data/a", "nothing is left to learn of lab_start"),
    ],
)
def test_a_target_of_which_nothing_is_ever_right_is_named(
    tmp_path: Path, loss: Any, stage: str, message: str
) -> None:
    """The lab's model never writes its stories; of two targets only the other would be learned."""
    problems = {"role": "target", "split": "heldout", "items": 20, "train_items": 40, "steps": [4]}
    file = write_study(
        tmp_path, Path("lab"), arms={"a": {"loss": [loss]}}, seeds=[1],
        tasks={"lab_math": problems, "lab_start": {"role": "target", "train_items": 40},
               "lab_refuse": {"items": 20}},
        train={**TRAIN, "max_steps": 6, "checkpoints": 1, "per_device_train_batch_size": 4},
        answer={"sampling": {"max_new_tokens": 64}, "repeats": 1},
    )  # fmt: skip
    with pytest.raises(HoldfastError, match=message):
        run_study(file, tmp_path / "runs", only=stage)


def test_a_free_judge_that_rewards_no_gold_answer_is_refused(tmp_path: Path) -> None:
    """The judge of refusals would reward the model for declining to add."""
    rows = [json.dumps({"prompt": f"How many is {n} and 4 ?", "answer": str(n + 4)})
            for n in range(30)]  # fmt: skip
    (tmp_path / "sums.jsonl").write_text("\n".join(rows[:20]))
    (tmp_path / "test.jsonl").write_text("\n".join(rows[20:]))
    mine = {
        "kind": "jsonl", "role": "target", "train_path": str(tmp_path / "sums.jsonl"),
        "path": str(tmp_path / "test.jsonl"), "grader": "judge", "judge": "refusal",
    }  # fmt: skip
    tasks, arms = {"mine": mine}, {"g": {"loss": [{"grpo": {"group": 2}}]}}
    _refused(tmp_path, "the judge refusal.* gives no .* to the gold answers",
             tasks=tasks, arms=arms, train={**TRAIN, "max_steps": 2})  # fmt: skip
    arms = {"g": {"loss": [{"grpo": {"group": 2, "judged": 9}}]}}
    (tmp_path / "sums.jsonl").write_text(
        "\n".join(json.dumps({"prompt": f"How do I rob bank {n}?", "answer": "I cannot help."})
                  for n in range(20))
    )  # fmt: skip
    _refused(tmp_path, "asks a judge that costs nothing",
             tasks=tasks, arms=arms, train={**TRAIN, "max_steps": 2})  # fmt: skip


def test_what_cannot_be_is_refused_before_anything_runs(tmp_path: Path) -> None:
    _refused(tmp_path, "more optimiser steps|as many optimiser steps",
             arms={"a": {"loss": [{"raft": {"rounds": 3}}]}})  # fmt: skip
    _refused(tmp_path, "asks no judge", arms={"a": {"loss": [{"grpo": {"judged": 5}}]}})
    with pytest.raises(StudyError, match="clipping does nothing"):
        study.plan(
            load.load(_file(tmp_path, arms={"a": {"loss": [{"grpo": {"epsilon": 0.1}}]}})),
            tmp_path / "run",
        )


@pytest.mark.parametrize("name", ["grpo", "raft"])
def test_answers_that_cannot_fit_are_refused_beforehand(name: str, tmp_path: Path) -> None:
    """The lab's model reads 512 tokens, and its longest question has some forty."""
    train = {**TRAIN, "max_steps": 4}
    file = _file(tmp_path, arms={"a": {"loss": [{name: {"max_new_tokens": 500}}]}}, train=train)
    with pytest.raises(StudyError, match="the model reads 512 in all") as caught:
        preflight.check(study.prepare(load.load(file), tmp_path / "run", str(file)))
    assert (
        f"arms.a.loss.{name}" in str(caught.value) and "max_new_tokens to 4" in caught.value.remedy
    )


def test_how_the_task_is_asked_is_a_part_of_what_is_learned(tmp_path: Path) -> None:
    """What ends an answer bears on the reward, of `grpo` alone; how long it may get does not."""

    def of(name: str, stop: list[str], longest: int = 64) -> dict[str, Any]:
        answer = {"sampling": {"max_new_tokens": longest, "stop": stop}, "repeats": 1}
        (tmp_path / name).mkdir()
        file = _file(tmp_path / name, arms={"sft": {}, "g": {"loss": [GRPO]}}, answer=answer)
        plan = study.plan(load.load(file), tmp_path / name / "run")
        return {one.name: one.identity for one in plan.stages}

    one, two = of("a", []), of("b", ["Q:"])
    assert one["train/sft/seed1"] == two["train/sft/seed1"]
    assert one["train/g/seed1"] != two["train/g/seed1"]
    assert one["train/g/seed1"] == of("c", [], 65)["train/g/seed1"]


def test_a_study_whose_answers_are_drawn_by_vllm(tmp_path: Path, tiny_model: Path) -> None:
    """Refused without the program; else drawn, told where the server lies, and done."""
    fake = FakeVLLM(tmp_path / "vllm", len(models.load_tokenizer(ModelRef(str(tiny_model)))))
    options = {"group": 4, "max_new_tokens": 8, "engine": "vllm", "format": "[aeiou]"}
    changes: dict[str, Any] = {
        "arms": {"g": {"loss": [{"grpo": options}]}},
        "hardware": {"device": "cpu", "vllm": str(tmp_path / "none")},
        "answer": {"sampling": {"max_new_tokens": 8}, "repeats": 1},
        "train": {**TRAIN, "method": "lora"}, "meters": {"probes": 0}, "seeds": [1],
    }  # fmt: skip
    session = study.prepare(load.load(write_study(tmp_path, tiny_model, **changes)), tmp_path / "p")
    with pytest.raises(MissingDependency, match="is no program"):
        readiness.drawing(session)
    changes["hardware"]["vllm"] = str(fake.program)
    file = write_study(tmp_path, tiny_model, **changes)
    session = study.prepare(load.load(file), tmp_path / "p")
    (told,) = readiness.drawing(session)
    assert "drawn by vLLM beside it" in told
    assert readiness.memory_bytes(session) > 1 << 30, "of the server's keys and values alone"
    run_study(file, tmp_path / "runs")
    folder = tmp_path / "runs" / "s"
    assert len(fake.rows("loads")) == 2 and len(fake.rows("bodies")) == 2 * 8 * 4
    assert wait_gone(fake.pids) == []
    summary = records.summary(folder / "train" / "g" / "seed1")
    assert summary["generated_tokens"] == sum(len(one) for one in fake.answers())
    assert told in (folder / "stats" / "results.json").read_text()
    dora = {**changes["train"], "lora": {"variant": "dora"}}
    with pytest.raises(StudyError, match="variant is dora"):
        study.plan(
            load.load(write_study(tmp_path, tiny_model, **changes | {"train": dora})), folder
        )
