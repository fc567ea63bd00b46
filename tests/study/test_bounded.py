"""Is what an arm's methods make bounded where that is known, and are seeds told that share it?"""

from __future__ import annotations

from pathlib import Path

import pytest
from fixtures.study import run_study, write_study

from holdfast import open_run, study
from holdfast.config import load
from holdfast.methods._bound import Bound
from holdfast.runs import records

PLUGIN = """
from holdfast.methods import DataMethod, LossMethod


class Fewer(DataMethod):
    def apply(self, examples, context, made):
        return list(examples)[::2], []


class Heavier(LossMethod):
    def term(self):
        return None


class Shorter(LossMethod):
    def apply(self, examples, context, made):
        return list(examples)[::2], []
"""
SELF, MASK = {"selfgen": {"samples": 2, "unsolved": "gold"}}, {"token_mask": {}}


@pytest.mark.parametrize(
    ("data", "loss", "fills"),
    [
        ([SELF], [], True),
        ([SELF], [MASK], True),
        ([SELF, {"replay": {}}], [MASK], True),
        ([], [MASK], True),
        ([SELF], ["plug.py:Heavier"], True),
        ([SELF], ["plug.py:Shorter"], False),
        ([], [MASK, "plug.py:Shorter"], False),
        (["plug.py:Fewer"], [MASK], True),
        (["plug.py:Fewer", SELF], [], False),
        ([SELF], ["sdft"], False),
    ],
)
def test_all_are_asked_where_another_method_may_leave_some_out(
    data: list[object], loss: list[object], fills: bool, tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "plug.py").write_text(PLUGIN, encoding="utf-8")
    file = write_study(tmp_path, tiny_model, arms={"a": {"data": data, "loss": loss}}, seeds=[1])
    session = study.prepare(load.load(file, trust_code=True), tmp_path / "runs", str(file))
    bound = session.setting(session.arms["a"]).bound
    assert isinstance(bound, Bound)
    assert (bound.tokens is not None) is fills


def test_seeds_that_see_the_same_part_are_told(tiny_model: Path, tmp_path: Path) -> None:
    """12 of 24 questions are seen: of plain training others with each seed, of the other not."""
    train = {
        "optim": "adamw_torch", "learning_rate": 0.01, "max_steps": 3, "checkpoints": 1,
        "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1,
        "gradient_checkpointing": False,
    }  # fmt: skip
    file = write_study(tmp_path, tiny_model, train=train, meters={"probes": 0})
    run_study(file, tmp_path / "runs")
    folder = tmp_path / "runs" / "s"
    alike = {arm: records.summary(folder / "data" / arm)["alike"] for arm in ("sft", "gold")}
    assert alike == {"sft": False, "gold": True}
    warned = [one for one in open_run(folder).results.warnings if "all seeds are" in one]
    assert [one.partition(":")[0] for one in warned] == ["gold"]
