"""Is what a study asks of optimiser and schedule really made before anything is spent?"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from holdfast.config import TrainSpec
from holdfast.errors import MissingDependency, StudyError
from holdfast.train import optimizers
from holdfast.train.arguments import check_settings
from holdfast.train.optimizers import settle

WORK_HERE = {
    "adamw_torch", "adamw_torch_fused", "adafactor", "sgd", "adagrad", "rmsprop", "ademamix",
    "adamw_bnb_8bit", "adamw_8bit", "ademamix_8bit", "lion_8bit", "lion_32bit", "rmsprop_bnb",
    "paged_adamw_32bit", "paged_adamw_8bit", "paged_ademamix_32bit", "paged_ademamix_8bit",
    "paged_lion_32bit", "paged_lion_8bit", "rmsprop_bnb_8bit", "rmsprop_bnb_32bit",
}  # fmt: skip


def _check(steps: int = 40, **settings: Any) -> None:
    check_settings(TrainSpec(**({"optim": "adamw_torch"} | settings)), "cpu", steps)


def test_every_optimiser_of_transformers_is_made_or_refused_with_its_reason() -> None:
    from transformers.training_args import OptimizerNames

    made = set()
    for name in (one.value for one in OptimizerNames):
        low_rank = name.startswith(("galore", "apollo"))
        more = {"method": "full", "optim_target_modules": "all-linear"} if low_rank else {}
        try:
            _check(optim=name, **more)
            made.add(name)
        except MissingDependency as error:
            package = error.message.partition(" needs ")[2].partition(":")[0]
            assert package and f"train.optim {name}" in error.message
            assert error.remedy.startswith(("pip install ", "uv pip install "))
        except StudyError as error:
            assert error.where == "train.optim" and "inside the backward pass" in error.message
            assert "lomo" in name or name.endswith("layerwise")
    assert made >= WORK_HERE


def test_the_random_state_stays_as_it_was() -> None:
    before = torch.get_rng_state()
    _check()
    assert torch.equal(before, torch.get_rng_state())


def test_every_schedule_of_transformers_is_made_or_refused_with_its_reason() -> None:
    from transformers.trainer_utils import SchedulerType

    needs = {
        "cosine_with_min_lr": {"min_lr_rate": 0.1}, "warmup_stable_decay": {"num_decay_steps": 8},
        "cosine_warmup_with_min_lr": {"min_lr": 1e-6},
    }  # fmt: skip
    for name in (one.value for one in SchedulerType):
        if name in optimizers.BY_METRIC:
            with pytest.raises(StudyError, match="val_size") as caught:
                _check(lr_scheduler_type=name)
            assert caught.value.where == "train.lr_scheduler_type"
            continue
        if name in needs:
            with pytest.raises(StudyError, match=r"train\.lr_scheduler_(kwargs|type)"):
                _check(lr_scheduler_type=name)
        _check(lr_scheduler_type=name, lr_scheduler_kwargs=needs.get(name, {}))


@pytest.mark.parametrize(
    ("settings", "where", "message"),
    [
        ({"optim": "adamw"}, "optim", r"no 'adamw' \(did you mean 'adamw_torch'\?\)"),
        ({"optim": "adamw_tork"}, "optim", "did you mean 'adamw_torch'"),
        ({"lr_scheduler_type": "cosin"}, "lr_scheduler_type", "did you mean 'cosine'"),
        ({"optim_args": {"momentum": 0.9}}, "optim_args", "adamw_torch does not read momentum"),
        ({"optim": "sgd", "optim_args": {"momentm": 1}}, "optim_args", "it reads .*momentum"),
        ({"optim": "sgd", "optim_args": {"momentum": "much"}}, "optim", "cannot be used here"),
        ({"optim": "galore_adamw"}, "optim", "set train.method: full"),
        (
            {"optim": "galore_adamw", "method": "full"},
            "optim_target_modules", "which matrices it projects",
        ),
        ({"optim_target_modules": "all-linear"}, "optim_target_modules", "galore"),
        ({"lr_scheduler_type": "constant", "warmup_steps": 0.1}, "warmup_steps", "_with_warmup"),
        (
            {"lr_scheduler_type": "constant", "lr_scheduler_kwargs": {"power": 2}},
            "lr_scheduler_kwargs", "does not read power",
        ),
        (
            {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lrr": 1}},
            "lr_scheduler_kwargs", "did you mean 'min_lr'",
        ),
        (
            {"lr_scheduler_type": "polynomial", "lr_scheduler_kwargs": {"lr_end": 1.0}},
            "lr_scheduler_kwargs", "must be smaller than initial lr",
        ),
        ({"lr_scheduler_type": "warmup_stable_decay"}, "lr_scheduler_kwargs", "num_decay_steps"),
        (
            {"lr_scheduler_type": "warmup_stable_decay", "warmup_steps": 10,
             "lr_scheduler_kwargs": {"num_decay_steps": 31}},
            "lr_scheduler_kwargs", "take 41 steps, and a training has 40",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_names_the_setting(
    settings: dict[str, Any], where: str, message: str
) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        _check(**settings)
    assert caught.value.where == f"train.{where}"
    assert caught.value.exit_code == 3 and caught.value.remedy


def test_a_package_that_cannot_be_imported_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.optim", ModuleType("empty"))
    with pytest.raises(MissingDependency, match="needs bitsandbytes"):
        _check(optim="adamw_8bit")


def test_settings_reach_the_optimiser(tmp_path: Path) -> None:
    from transformers import Trainer

    from holdfast.data.batching import Budget
    from holdfast.train.arguments import trainer_arguments

    spec = TrainSpec(
        optim="rmsprop", optim_args="momentum=0.5, eps=1e-5", adam_beta2=0.95, adam_epsilon=1e-6,
        neftune_noise_alpha=5, warmup_ratio=0.25, lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": "0.1"},
    )  # fmt: skip
    arguments = trainer_arguments(spec, Budget(40, 1, 1, 1), 1, tmp_path, "cpu", False)
    made, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    assert made is torch.optim.RMSprop
    assert (options["momentum"], options["eps"]) == (0.5, 1e-5)
    assert (arguments.adam_beta2, arguments.adam_epsilon) == (0.95, 1e-6)
    assert arguments.neftune_noise_alpha == 5
    assert arguments.lr_scheduler_kwargs == {"min_lr_rate": 0.1}
    assert arguments.get_warmup_steps(40) == 10


def test_weights_are_settled_before_they_are_kept() -> None:
    class ScheduleFree(torch.optim.SGD):
        settled = False

        def eval(self) -> None:
            self.settled = True

    weight = torch.nn.Parameter(torch.zeros(1))
    free = ScheduleFree([weight], lr=1)
    settle(free)
    settle(torch.optim.SGD([weight], lr=1))
    assert free.settled
