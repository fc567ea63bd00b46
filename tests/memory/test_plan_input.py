"""What is typed behind `holdfast plan` is used, named as not used, or refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from holdfast.cli import call
from holdfast.config import LoraSpec, TrainSpec
from holdfast.memory.hardware.gpu_value import GIB
from holdfast.memory.planner import planner
from holdfast.memory.planner.request import PlanRequest
from holdfast.memory.planner.stated import Stated

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
