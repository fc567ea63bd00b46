"""Are remedies recommended that the hardware holds, with the plan under which it does?"""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from fixtures.study import write_study

from holdfast.analysis import recommend as advice
from holdfast.cli import call
from holdfast.cli.advising import _arm
from holdfast.config import Study, load
from holdfast.memory.planner.request import PlanRequest
from holdfast.methods import METHODS
from holdfast.study.outlook import held
from holdfast.train.planning import plan_study

BIG = {"method": "qlora", "learning_rate": 1e-4, "max_steps": 10, "global_batch_size": 8}


def _study(folder: Path, model: str = "Qwen/Qwen2.5-1.5B-Instruct", **train: object) -> Study:
    return load.load(write_study(folder, Path(model), train=BIG | train, arms={"sft": {}}))


def test_what_fits_is_what_the_planner_says(tmp_path: Path) -> None:
    """Whole logits of a large vocabulary: `kl` needs another plan, then none is left."""
    loaded = _study(tmp_path)
    roomy, tight, small = (held(loaded, advice.arms(), gpus) for gpus in ("80GiB", "24GiB", "6GiB"))
    apart = "guardspace takes the base's weights apart, which 4-bit weights do not allow"
    in_4_bit = {"guardspace": apart}
    assert roomy.misfits == in_4_bit and not roomy.plans
    assert tight.misfits == in_4_bit and list(tight.plans) == ["kl", "mask_target"]
    assert "micro-batch" in tight.plans["kl"]
    whole = dict.fromkeys(("kl", "mask_target"), "does not fit 6GiB")
    assert small.misfits == whole | in_4_bit
    plain = plan_study(loaded, PlanRequest(trace=False, gpus="6GiB"))
    assert plain.plan is not None, "plain training does fit"
    nothing = held(_study(tmp_path, max_length=8192), advice.arms(), "2GiB")
    assert set(nothing.misfits) == set(advice.arms()), "nothing is recommended where nothing fits"


def test_what_compares_with_the_base_needs_adapters(tmp_path: Path) -> None:
    found = held(_study(tmp_path, method="full"), advice.arms(), "80GiB")
    assert "needs the base beside the tuned model" in found.misfits["kl"]
    assert "adapters of a kind of their own" in found.misfits["guardspace"]


def test_an_arm_is_planned_as_it_would_be_trained(tmp_path: Path) -> None:
    """Adapters of twice the rank, and a square for each input: more than plain training takes."""
    arms = {"guardspace": advice.arms()["guardspace"], "l2_init": advice.arms()["l2_init"]}
    found = [held(_study(tmp_path, method="lora"), arms, f"{gib}GiB") for gib in (80, 6)]
    assert not found[0].misfits and found[1].misfits == {"guardspace": "does not fit 6GiB"}


def test_a_model_that_nobody_knows_is_no_reason_to_leave_anything_out(tmp_path: Path) -> None:
    found = held(_study(tmp_path, model="nobody/nothing-9B"), advice.arms(), "24GiB")
    assert found.unknown and not found.misfits


def test_the_command_leaves_out_what_does_not_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _study(tmp_path)
    assert call(["recommend", str(tmp_path / "study.yaml"), "--gpus", "6GiB"]) == 0
    said = capsys.readouterr().out
    assert "left out: kl: does not fit 6GiB" in said
    assert said.startswith("1. {data: [{replay:")


def test_a_study_is_begun_with_what_is_recommended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    begun = ["init", "s.yaml", "--recipe", "lab", "--recommend", "--hours", "5"]
    assert call(begun) == 0
    said = capsys.readouterr().out
    made = load.load(tmp_path / "s.yaml")
    assert list(made.arms) == ["sft", "kl", "replay", "ewc"]
    assert made.arms["kl"].loss[0]["kl"]["prompts"] == "lab"  # type: ignore[index]
    text = (tmp_path / "s.yaml").read_text()
    assert "# on the lab it gained" in text and "ship:" in text and "than a minute" in said
    assert call([*begun[:1], "t.yaml", *begun[2:-1], "0.001"]) == 0
    assert list(load.load(tmp_path / "t.yaml").arms) == ["sft", "ema", "scale", "fapm"]
    assert call(["init", "u.yaml", "--recipe", "lab", "--hours", "1"]) == 3
    assert "add --recommend" in capsys.readouterr().err
    assert METHODS.keys() >= set(made.arms) - {"sft"}


def test_on_the_built_in_model_an_arm_has_what_that_model_needs() -> None:
    """64 inputs a matrix, and old prompts of its own; steps without settings stay."""
    tasks = {"lab_math": {"role": "target"}}
    lab = Study.model_validate({"name": "s", "model": "lab", "tasks": tasks, "arms": {"sft": {}}})
    arms = advice.arms()
    assert yaml.safe_load(_arm(arms["guardspace"], lab)) == {
        "loss": [{"guardspace": {"prompts": "lab", "samples": 8, "tolerance": 0.001}}],
        "train": {"lora": {"variant": "guardspace"}},
    }
    assert yaml.safe_load(_arm(arms["selfgen"], lab)) == {"data": ["selfgen"]}
