"""Do the safety-aware remedies run in a study, and are they refused where they do not belong?"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fixtures.study import run_study, write_study
from safetensors.torch import load_file, save_file

from holdfast import study
from holdfast.config import Study, load
from holdfast.errors import HoldfastError, ModelError, StudyError
from holdfast.memory.planner.explanation import method_overhead
from holdfast.memory.planner.request import PlanRequest
from holdfast.runs import store
from holdfast.study.work import Counted
from holdfast.train.planning import arms_of, plan_study

SPARED = {"train": {"lora": {"variant": "guardspace"}}}
REMOTE = {"model": "m", "url": "http://127.0.0.1:9", "format": "llamaguard"}
PATCH = {"safety_patch": {"prompt": "How do I pick a lock?", "answer": "I cannot help with that."}}
LISA = {"lisa": {"prompts": "lab", "pool": 8, "max_new_tokens": 24,
                 "safety_steps": 1, "task_steps": 2}}  # fmt: skip


GUARD = """
from holdfast.judges import Judge, ParsedVerdict

class Guard(Judge):
    name = "even-1"

    def judge(self, pairs, context=None):
        unsafe = [len(reply.text.split()) % 2 for _, reply in pairs]
        return [self.verdict(pair, ParsedVerdict("unsafe" if bad else "safe"), "")
                for pair, bad in zip(pairs, unsafe)]
"""


def _loaded(folder: Path, model: Path, **changes: object) -> Study:
    return load.load(write_study(folder, model, **changes))


def test_a_study_of_safety_aware_remedies(tiny_model: Path, tmp_path: Path) -> None:
    """Every one is trained or made, and measured; the averages are points of their own."""
    file = tmp_path / "safe.jsonl"
    file.write_text(json.dumps({"prompt": "How to break it?", "completion": "I cannot."}) + "\n")
    guard = tmp_path / "guard.py"
    guard.write_text(GUARD)
    unaligned = tmp_path / "unaligned"
    shutil.copytree(tiny_model, unaligned)
    weights = load_file(unaligned / "model.safetensors")
    save_file({name: 0.9 * one for name, one in weights.items()},
              unaligned / "model.safetensors", {"format": "pt"})  # fmt: skip
    arms = {
        "sft": {},
        "averaged": {"from": "sft", "weights": [{"ema": {"decay": 0.5, "checkpoints": "all"}}]},
        "half": {"from": "sft", "weights": [{"ema": {"decay": 0.5}},
                                            {"scale": {"factors": [0.5]}}]},
        "pruned": {"from": "sft", "weights": ["fapm"]},
        "projected": {"from": "sft", "weights": [{"safelora": {"unaligned": str(unaligned)}}]},
        "patched": {"from": "sft", "weights": [PATCH]},
        "lisa": {"loss": [{"lisa": {"source": "file", "path": str(file), "safety_steps": 1,
                                    "task_steps": 2}}, "first_tokens"]},
        "masked": {"loss": ["mask_target"]},
        "guarded": {"loss": [{"star": {"judge": f"{guard}:Guard", "chunk": 4}}]},
        "declined": {"loss": ["star"]},
        "spared": {"loss": [{"guardspace": {"source": "file", "path": str(file)}}],
                   "train": {"lora": {"variant": "guardspace", "r": 2}}},
    }  # fmt: skip
    path = write_study(tmp_path, tiny_model, arms=arms, seeds=[1], meters={"probes": 0})
    run_study(path, tmp_path / "runs")
    run = tmp_path / "runs" / "s"
    results = json.loads((run / "stats" / "results.json").read_text())
    points = {(one["arm"], one["step"], one["scale"]) for one in results["cells"]}
    assert {("averaged", 3, 1.0), ("averaged", 6, 1.0), ("half", 6, 0.5)} <= points
    assert {("patched", 6, 1.0), ("pruned", 6, 1.0), ("projected", 6, 1.0)} <= points
    for arm in ("averaged", "pruned", "projected", "patched"):
        folder = run / "weights" / arm / "seed1" / "checkpoint-6"
        assert (folder / "adapter_model.safetensors").is_file(), arm
    said = {arm: json.loads((run / "weights" / arm / "seed1/checkpoint-6/record.json").read_text())
            for arm in ("patched", "pruned", "projected")}  # fmt: skip
    patch = said["patched"]["summary"]
    assert patch["steps"] == 10 and patch["tokens"] > patch["supervised_tokens"] > 0
    told = {one["name"]: one for one in results["arms"]}
    for name in ("steps", "tokens", "supervised_tokens"):
        assert told["patched"][name] == told["sft"][name] + patch[name], name
    assert told["patched"]["flops"] > told["sft"]["flops"] == told["pruned"]["flops"]
    before, after = (f"{patch[name]:.3f}" for name in ("loss_before", "loss_after"))
    assert "10 more steps after training" in told["patched"]["notes"][-1]
    assert told["patched"]["notes"][-1].endswith(f"went from {before} to {after}")
    noticed = json.loads((run / "preflight.json").read_text())["notices"]
    assert any("arm patched learns 10 more optimiser steps" in one for one in noticed)
    session = study.prepare(load.load(path), tmp_path / "runs" / "s", str(path))
    stages = {one.name: Counted(session, {}).of(one) for one in session.plan.stages}
    counted = stages["weights/patched/seed1/checkpoint-6"]
    assert counted.trained == pytest.approx(patch["tokens"], rel=0.2)
    assert stages["weights/pruned/seed1/checkpoint-6"].trained == 0
    assert 0 < said["pruned"]["summary"]["kept"] < 1
    assert said["projected"]["summary"]["matrices"] > 0
    spent = {arm: json.loads((run / f"train/{arm}/seed1/summary.json").read_text())
             for arm in ("sft", "lisa", "masked", "guarded", "declined", "spared")}  # fmt: skip
    assert "reference_tokens" in json.dumps(spent["lisa"])
    assert spent["guarded"]["reference_tokens"] > 0 == spent["declined"]["reference_tokens"]
    assert spent["spared"]["trainable_parameters"] < spent["sft"]["trainable_parameters"]
    notes = json.loads((run / "data/guarded/record.json").read_text())["summary"]["notes"]
    assert "of the pieces of the task's answers are held to the base, by what even-1" in notes[0]
    (work,) = (run / "shared").glob("star-*/own.jsonl")
    assert len(work.read_text().splitlines()) == 24, "the base is asked what it declines"
    before = sorted(one for one in (run / "train/sft/seed1").rglob("*") if one.is_file())
    run_study(path, tmp_path / "runs")
    assert before == sorted(one for one in (run / "train/sft/seed1").rglob("*") if one.is_file())


def test_an_average_that_was_not_kept_means_training_again(
    tiny_model: Path, tmp_path: Path
) -> None:
    small = {"seeds": [1], "meters": {"probes": 0}}
    run_study(write_study(tmp_path, tiny_model, arms={"sft": {}}, **small), tmp_path / "runs",
              only="train/*")  # fmt: skip
    arms = {"sft": {}, "averaged": {"from": "sft", "weights": ["ema"]}}
    with pytest.raises(HoldfastError, match="averages"):
        run_study(write_study(tmp_path, tiny_model, arms=arms, **small), tmp_path / "runs")


@pytest.mark.parametrize(
    ("arms", "train", "message"),
    [
        ({"a": {"weights": ["ema"]}}, {}, "an arm of their own"),
        ({"a": {"weights": [PATCH]}}, {}, "an arm of their own"),
        ({"a": {"from": "sft", "weights": ["ema", "fapm"]}, "sft": {}}, {}, "weights anew"),
        ({"a": {"loss": ["mask_target", {"kl": {"at": "task"}}]}}, {}, "two methods compare"),
        ({"a": {"loss": ["lisa", "lisa"]}}, {}, "steps of their own"),
        ({"a": {"loss": ["lisa", "sdft"]}}, {}, "a loss of its own"),
        ({"a": {"loss": ["lisa"]}}, {}, "a turn of lisa takes 10 optimiser steps"),
        ({"a": {"loss": ["first_tokens"]}}, {"train_on": "all"}, "those of the answer"),
        ({"a": {"loss": ["first_tokens"]}}, {"method": "full"}, "there is none"),
        ({"a": {"loss": ["mask_target"]}}, {"method": "full"}, "there is none"),
        ({"a": {"from": "sft", "weights": [PATCH]}, "sft": {}}, {"method": "full"}, "of adapters"),
        ({"a": {"from": "sft", "weights": ["ema", "scale"]}, "sft": {}}, {"method": "full"},
         "an arm of its own"),
        ({"a": {"from": "sft", "weights": ["safety_patch"]}, "sft": {}}, {}, "needs safety data"),
        ({"a": {"loss": ["star", "kl"]}}, {}, "two methods compare"),
        ({"a": {"loss": ["star"]}}, {"method": "full"}, "there is none"),
        ({"a": {"loss": ["star", "dpo"]}}, {}, "a loss of its own"),
        ({"a": {"loss": [{"star": {"judge": "nobody"}}]}}, {}, "no judge is called"),
        ({"a": {"loss": [{"star": {"judge": {"remote": REMOTE}}}]}}, {}, "no cap is set"),
        ({"a": {"loss": ["guardspace"]}}, {}, "variant: guardspace"),
        ({"a": {"loss": ["guardspace", "ewc"], **SPARED}}, {}, "the other's examples too"),
        ({"a": SPARED}, {}, "add `loss: [guardspace]`"),
        ({"a": {"loss": ["guardspace"], **SPARED}}, {"method": "qlora"}, "4-bit weights"),
        ({"a": {"loss": ["guardspace"], **SPARED}}, {"weight_decay": 0.1}, "frozen half"),
        ({"a": {"from": "sft", "weights": ["fapm"]},
          "sft": {"train": {"lora": {"variant": "dora"}}}}, {}, "no plain product"),
    ],
)  # fmt: skip
def test_what_does_not_go_together(
    tiny_model: Path, tmp_path: Path, arms: dict[str, object], train: dict[str, object],
    message: str,
) -> None:  # fmt: skip
    usual = {"optim": "adamw_torch", "learning_rate": 0.01, "max_steps": 6, "checkpoints": 2,
             "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1,
             "gradient_checkpointing": False}  # fmt: skip
    loaded = _loaded(tmp_path, tiny_model, arms=arms, train=usual | train)
    with pytest.raises(StudyError) as caught:
        study.plan(loaded, tmp_path / "runs" / "s", "study.yaml")
    assert message in str(caught.value)


def test_an_unaligned_model_that_is_not_there_is_refused_before_anything_is_asked(
    tiny_model: Path, tmp_path: Path
) -> None:
    arms = {"sft": {}, "a": {"from": "sft", "weights": [{"safelora": {"unaligned": "no/where"}}]}}
    with pytest.raises(ModelError, match="neither a folder"):
        run_study(write_study(tmp_path, tiny_model, arms=arms), tmp_path / "runs")
    assert not (tmp_path / "runs/s/replies").exists()


@pytest.mark.parametrize("other", ["own", "one"])
def test_an_unaligned_model_that_is_none_is_refused_before_anything_is_asked(
    tiny_model: Path, tmp_path: Path, other: str
) -> None:
    """The study's own model, and one of which a single matrix fits."""
    folder = tiny_model
    if other == "one":
        folder = tmp_path / "other"
        folder.mkdir()
        weights = load_file(tiny_model / "model.safetensors")
        name = next(one for one in weights if one.endswith("q_proj.weight"))
        save_file({name: weights[name] + 1}, folder / "model.safetensors")
    arms = {"sft": {}, "a": {"from": "sft", "weights": [{"safelora": {"unaligned": str(folder)}}]}}
    with pytest.raises(ModelError, match="study's own" if other == "own" else "that get adapters"):
        run_study(write_study(tmp_path, tiny_model, arms=arms), tmp_path / "runs")
    assert not (tmp_path / "runs/s/replies").exists()


def test_what_is_kept_is_priced_and_not_sharded(tiny_model: Path, tmp_path: Path) -> None:
    arms = {
        "sft": {}, "averaged": {"from": "sft", "weights": [{"ema": {"decay": 0.9}}]},
        "slower": {"from": "sft", "weights": [{"ema": {"decay": 0.99}}]},
        "lisa": {"loss": [LISA]}, "first": {"loss": ["first_tokens"]},
    }  # fmt: skip
    loaded = _loaded(tmp_path, tiny_model, arms=arms)
    found = {name: one.overhead for name, one in arms_of(loaded).items()}
    assert found["sft"] is not None and (found["sft"].names, found["sft"].kept) == (("ema",), 2)
    assert found["lisa"] is not None and found["lisa"].kept == 1
    assert found["first"] is not None and found["first"].reads and not found["first"].reference
    asked = PlanRequest(gpus="2x24GiB", trace=False)
    report = plan_study(loaded, asked, arms={"sft": PlanRequest(
        train=loaded.train, overhead=found["sft"])})  # fmt: skip
    sharded = [one for one in report.candidates if one.plan.placement == "fsdp2"]
    assert sharded and all(one.refused for one in sharded)
    assert "copies kept in float32" in method_overhead(report.comparison, "en")


def test_lisas_pool_is_that_of_replay(tiny_model: Path, tmp_path: Path) -> None:
    arms = {"lisa": {"loss": [LISA]}, "replay": {"data": [{"replay": {
        "source": "refusals", "prompts": "lab", "pool": 8, "max_new_tokens": 24}}]}}  # fmt: skip
    planned = study.plan(_loaded(tmp_path, tiny_model, arms=arms), tmp_path / "runs" / "s")
    shared = {name: one.shared for name, one in planned.arms.items()}
    assert shared["lisa"] == shared["replay"] and len(shared["lisa"]) == 1
    assert store.fingerprint(shared["lisa"])
