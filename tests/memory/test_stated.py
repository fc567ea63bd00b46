"""Whatever a run can do, and what other scripts do, can be said to a plan."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from holdfast.cli import call
from holdfast.cli.typed import overrides_of, request_of
from holdfast.config import TrainSpec
from holdfast.errors import StudyError, UsageError
from holdfast.memory.estimate.activations import activations
from holdfast.memory.estimate.adapters import adapted
from holdfast.memory.estimate.kept import kept_per_token
from holdfast.memory.estimate.states import nf4_bytes, states
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.memory_plan import GIB
from holdfast.memory.model.reading import read_shape
from holdfast.memory.planner.planner import plan
from holdfast.memory.planner.request import PlanRequest
from holdfast.memory.planner.stated import Stated

QWEN = read_shape("Qwen/Qwen2.5-7B-Instruct")
Said = Callable[..., dict[str, object]]


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    """The workload that flags of `holdfast plan` stand for."""

    def ask(*flags: str) -> dict[str, object]:
        call(["plan", "--model", "qwen2.5-7b", "--gpus", "h200", "--dry-run", "--json", *flags])
        found = json.loads(capsys.readouterr().out)
        work: dict[str, object] = found.get("workload") or found
        return work

    return ask


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        (["--lora-r", "64"], "rank", 64),
        (["train.lora.r=64"], "rank", 64),
        (["--lora-dropout", "0"], "dropout", 0.0),
        (["--target-modules", "q_proj,v_proj"], "target_modules", ["q_proj", "v_proj"]),
        (["--target-modules", "mlp"], "target_modules", "mlp"),
        (["--variant", "dora"], "variant", "dora"),
        (["train.lora.use_dora=true"], "variant", "dora"),
        (["--optim", "adamw_torch"], "optim", "adamw_torch"),
        (["--gradient-checkpointing"], "checkpointing", True),
        (["--no-gradient-checkpointing"], "checkpointing", False),
        (["--attn-implementation", "flash_attention_2"], "attention", "flash"),
        (["--attn-implementation", "eager"], "attention", "eager"),
        (["--packing"], "packed", True),
        (["--kernels", "liger"], "kernels", "liger"),
        (["--loss", "whole"], "loss", "whole"),
        (["--precision", "fp16"], "dtype", "float16"),
        (["--precision", "fp32"], "dtype", "float32"),
        (["--precision", "pure_bf16"], "autocasts", False),
        (["--precision", "pure_bf16"], "adapter_dtype", "bfloat16"),
        (["--precision", "pure_bf16", "--adapter-dtype", "float32"], "adapter_dtype", "float32"),
        (["--script", "trl"], "loss", "whole"),
        (["--script", "trl"], "base_float32", True),
        (["--script", "trl"], "expandable", False),
        (["--script", "trl", "--loss", "tiled"], "loss", "tiled"),
        (["--no-expandable-segments"], "expandable", False),
        (["--no-double-quant"], "nested", False),
        (["--prepare-kbit"], "kbit_upcast", True),
        (["train.max_length=512"], "seq_len", 512),
        (["train.global_batch_size=32"], "global_batch", 32),
        (["train.lora.layers=[0, 1]"], "layers", [0, 1]),
        (["train.torch_compile=true"], "compiled", True),
    ],
)
def test_flags_and_keys(said: Said, flags: list[str], key: str, value: object) -> None:
    assert said(*flags)[key] == value


def test_a_remedy_is_an_arms_method(said: Said) -> None:
    assert "extra" not in said()
    found = said("--remedy", "kl")["extra"]
    assert isinstance(found, dict)
    assert found["names"] == ["kl"] and found["logits"] == "policy+reference"
    both = said("--remedy", "kl", "--remedy", "ewc")["extra"]
    assert isinstance(both, dict) and both["copies"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--loss", "hole"], "did you mean 'whole'"),
        (["--precision", "bf61"], "did you mean 'bf16'"),
        (["--script", "tlr"], "did you mean 'trl'"),
        (["--adapter-dtype", "float8"], "--adapter-dtype"),
        (["--remedy", "kll"], "kll"),
        (["--host-ram", "lots"], "no size"),
        (["--lora-r", "0"], "train.lora.r"),
        (["--kernels", "tiger"], "train.kernels"),
        (["tasks.x.items=3"], "means nothing without a study"),
        (["train.lorra=3"], "lorra"),
    ],
)
def test_flags_that_mean_nothing(
    capsys: pytest.CaptureFixture[str], flags: list[str], words: str
) -> None:
    code = call(["plan", "--model", "qwen2.5-7b", "--gpus", "h200", "--dry-run", *flags])
    told = capsys.readouterr()
    assert code == 3 and words in told.err + told.out


def test_settings_win_over_a_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = tmp_path / "study.yaml"
    assert call(["init", str(study), "--recipe", "lab"]) == 0
    capsys.readouterr()
    code = call(["plan", str(study), "--gpus", "h200", "--dry-run", "--json", "--lora-r", "8",
                 "train.lora.dropout=0"])  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert code == 0 and found["workload"]["rank"] == 8 and found["workload"]["dropout"] == 0
    assert "train.lora.r=8" in found["chosen"]["launch"][0]
    assert call(["plan", str(study), "--remedy", "kl", "--gpus", "h200"]) == 3


def test_overrides_are_yaml() -> None:
    flags = {"train.lora.r": 8, "train.packing": False, "train.optim": None,
             "train.lora.target_modules": "q_proj, v_proj"}  # fmt: skip
    made = overrides_of(flags, ["train.lora.alpha=3"])
    assert made == ["train.lora.r=8", 'train.lora.target_modules=["q_proj", "v_proj"]',
                    "train.lora.alpha=3"]  # fmt: skip


def test_a_plain_script_takes_more_and_the_plan_says_why() -> None:
    asked = PlanRequest("qwen2.5-7b", "h200", 2048, method="lora", micro_batch=4, trace=False)
    own = plan(asked)
    plain = plan(PlanRequest("qwen2.5-7b", "h200", 2048, method="lora", micro_batch=4,
                             trace=False, stated=Stated(script="trl")))  # fmt: skip
    assert own.plan is not None and plain.plan is not None
    more = plain.plan.fullest.weights - own.plan.fullest.weights
    assert more == 2 * QWEN.parameters, "TRL loads float32 unless told"
    assert plain.plan.fullest.total > own.plan.fullest.total + more
    text = " ".join(plain.notes)
    assert "whole logits" in text and "float32" in text and "expandable_segments" in text
    assert not any("whole logits" in note for note in own.notes)


def test_whole_logits_are_twelve_bytes_and_eight_where_the_gradient_lies_over_them() -> None:
    tokens = 2 * 1024
    for loss, each in (("whole", 12), ("in_place", 8)):
        work = Workload(seq_len=1024, loss=loss)  # type: ignore[arg-type]
        assert activations(QWEN, work, "lora", 2, True).loss == each * tokens * QWEN.vocab
    assert activations(QWEN, Workload(seq_len=1024), "lora", 2, True).loss < 2 * GIB


def test_only_adapted_matrices_keep_their_inputs() -> None:
    def kept(targets: object, **more: object) -> float:
        work = Workload(target_modules=targets, **more)  # type: ignore[arg-type]
        return kept_per_token(QWEN, work, "lora", False)

    every, few, none = kept("all-linear"), kept(("q_proj", "v_proj")), kept(("k_proj",))
    inputs = {one.name: one.n_in for one in QWEN.linears}
    assert every - few == 3 * (sum(inputs.values()) - 2 * QWEN.hidden)
    assert few - none == 3 * QWEN.hidden
    shared = {"dropout": 0.0, "adapter_dtype": "bfloat16"}
    assert kept(("q_proj", "v_proj"), **shared) == kept(("k_proj",), **shared), "one input"
    assert {one.name for one in adapted(QWEN, Workload(target_modules=("q_proj",)))} == {"q_proj"}


def test_blocks_with_whole_scales_and_a_base_that_peft_prepared() -> None:
    plain, flat, wide = (
        states(QWEN, Workload(**more), "qlora").weights  # type: ignore[arg-type]
        for more in ({}, {"nested": False}, {"kbit_upcast": True})
    )
    assert nf4_bytes(64 * 256, nested=False) > nf4_bytes(64 * 256)
    assert (flat - plain) / QWEN.linear_parameters == pytest.approx(3 / 64, rel=0.03)
    assert wide - plain == 2 * (QWEN.parameters - QWEN.linear_parameters)


def test_stated_words_are_checked() -> None:
    with pytest.raises(UsageError, match="--loss"):
        Stated(loss="half")  # type: ignore[arg-type]
    with pytest.raises(StudyError):
        request_of(PlanRequest("qwen2.5-7b"), ["train.nothing=1"], ())
    asked = request_of(PlanRequest("qwen2.5-7b"), ["train.optim=sgd"], ())
    assert asked.method == "auto" and asked.train == TrainSpec(optim="sgd")
