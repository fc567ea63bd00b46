"""What is typed behind `holdfast plan` is used, named as not used, or refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from holdfast.cli import call
from holdfast.config import LoraSpec, TrainSpec
from holdfast.memory.hardware.gpu_value import GIB
from holdfast.memory.planner import planner
from holdfast.memory.planner.request import PlanRequest
from holdfast.memory.planner.stated import Stated
from holdfast.memory.planner.translations import WORDS
from holdfast.progress.translation import HERE, HOLE

PLAN = ["plan", "--model", "qwen2.5-0.5b", "--dry-run", "--json"]


def planned(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """What `holdfast plan` answers as JSON; it fits."""
    assert call([*PLAN, *words]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_full_width_numbers_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--gpus", "２ｘ２４ＧｉＢ", "--seq-len", "５１２", "--micro-batch=２",
             "train.global_batch_size=８", "--host-ram", "６４ＧｉＢ",
             "--beside", "６ＧｉＢ"]  # fmt: skip
    found = planned(capsys, *words)
    assert [one["free_bytes"] for one in found["gpus"]] == [18 * GIB] * 2
    work = found["workload"]
    assert (work["seq_len"], work["micro_batch"], work["global_batch"]) == (512, 2, 8)
    assert found["host"]["free"] == 64 * GIB
    assert call([*PLAN, "--gpus", "24GiB", "--seq-len", "五百"]) == 3  # no digits at all


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (PlanRequest(method="full", train=TrainSpec(method="full", lora=LoraSpec(r=64))),
         "Not used: train.lora.r; full fine-tuning"),
        (PlanRequest(method="lora", stated=Stated(nested=False, kbit_upcast=True)),
         "Not used: --no-double-quant, --prepare-kbit; no weights are in 4 bits"),
        (PlanRequest(stated=Stated(fsdp=1)), "Not used: --fsdp-version 1; one GPU"),
    ],
)  # fmt: skip
def test_what_has_no_bearing_is_named(asked: PlanRequest, said: str) -> None:
    report = planner.plan(replace(asked, model="qwen2.5-0.5b", gpus="24GiB", trace=False))
    assert any(one.startswith(said) for one in report.notes), report.notes
    plain = planner.plan(PlanRequest("qwen2.5-0.5b", "24GiB", trace=False))
    assert not any("Not used" in one for one in plain.notes)


def test_a_cpu_with_the_memory_that_is_said() -> None:
    report = planner.plan(PlanRequest("qwen2.5-0.5b", "cpu", trace=False, host_bytes=3 * GIB))
    assert report.comparison.gpus[0].free_bytes == 3 * GIB
    assert "GiB per GPU" not in report.text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--beside", "0GiB"], "says no size"),
        (["--beside", "6"], "says no size"),
        (["--find-length", "--seq-len", "100"], "--find-length does not go with --seq-len"),
        (["--find-batch", "--micro-batch", "2"], "--find-batch does not go with --micro-batch"),
        (["--find-gpus", "--find-length"], "--find-gpus does not go with --find-length"),
    ],
)
def test_what_cannot_be_is_misuse(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(["plan", "--model", "qwen2.5-0.5b", "--gpus", "24GiB", *words]) == 3
    assert said in capsys.readouterr().err


def test_a_gigabyte_beside_is_decimal() -> None:
    rooms = [
        planner.plan(PlanRequest("qwen2.5-0.5b", "24GiB", trace=False, beside=(text,)))
        .comparison.gpus[0].free_bytes
        for text in ("6GB", "6GiB")
    ]  # fmt: skip
    assert rooms == [24 * GIB - 6 * 10**9, 18 * GIB]


MISUSED = [
    ["--seq-len", "0"], ["--seq-len", "1000000000"], ["--seq-len", "nan"], ["--micro-batch", "3"],
    ["--global-batch-size", "99999999"], ["--lora-r", "0"], ["--lora-r", "1000000"],
    ["--lora-dropout", "nan"], ["--lora-dropout", "2"], ["--method", "lor"], ["--strategy", "dpp"],
    ["--optim", "adamw8bit"], ["--target-modules", "q_prj"], ["--variant", "dorra"],
    ["--host-ram", "-4GiB"], ["--beside", "foo"], ["--beside", "vllm=nan"], ["--gpus", "0x24GiB"],
    ["--gpus", "mps"], ["--gpus", "910B"], ["--gpus", "4090 1g.10gb"], ["--gpus", "a100 3g.10gb"],
    ["--gpus", "4090,cpu"], ["--gpus", "rtx4909"], ["--gpus", "4x3090 NVLink"],
    ["--gpus", "mi300x", "--method", "qlora"], ["--strategy", "ddp"],
]  # fmt: skip


@pytest.mark.parametrize("words", MISUSED, ids=" ".join)
def test_misuse_is_said_in_chinese(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    first = ["plan", "--lang", "zh", "--model", "qwen2.5-0.5b", "--dry-run"]
    gpus = [] if "--gpus" in words else ["--gpus", "24GiB"]
    assert call([*first, *gpus, *words]) == 3
    said = capsys.readouterr().err
    assert not re.search(r"[a-z]{2,} [a-z]{2,} [a-z]{2,}", said.replace("holdfast plan", "")), said


def test_why_a_way_cannot_be_is_known_in_chinese() -> None:
    """A refusal of all ways is an error, whose words are looked up where it is printed."""
    table = json.loads((HERE / "zh-plan.json").read_text("utf-8"))
    for key, words in WORDS.items():
        english = re.sub(r"\{\w+\}", HOLE, words["en"])
        if key.startswith("r_") and " " in english:
            assert table[english].count(HOLE) == english.count(HOLE), key


def test_notes_are_said_in_chinese() -> None:
    asked = PlanRequest("unsloth/Qwen3-8B-GGUF", "24GiB", trace=False, beside=("vllm=0.2",))
    text = planner.plan(asked).text(language="zh")
    said = "".join(text.split())  # wherever a line ends
    assert "把unsloth/Qwen3-8B-GGUF当作Qwen/Qwen3-8B；按16位计" in said
    assert "它旁边的每块GPU上：vLLM占其内存的0.2" in said
