"""What a plan prints stays within the page, in both languages; its JSON is what is documented."""

from __future__ import annotations

import io
import json
import re
import shlex
from functools import cache
from typing import Any

import pytest
from fixtures.paths import ROOT
from rich.cells import cell_len

from holdfast.cli import call
from holdfast.memory.planner import reasons
from holdfast.memory.planner.layout import command_lines
from holdfast.memory.planner.memory_report import MemoryReport
from holdfast.memory.planner.planner import plan
from holdfast.memory.planner.request import PlanRequest
from holdfast.memory.planner.translations import duration
from holdfast.progress import console

CASES = {
    "two fit": ("qwen2.5-7b", "2x24GiB", {}),
    "one fits": ("qwen2.5-7b", "1x8GiB", {}),
    "nothing": ("llama-3.1-70b", "8x24GiB", {"method": "full"}),
    "refused": ("gpt-oss-20b", "4x24GiB", {"global_batch": 6}),
    "unequal": ("llama-3.1-70b", "7x24GiB,80GiB", {"strategy": "split"}),
    "old card": ("gemma-2-9b", "2xt4", {}),
    "cpu": ("lab", "cpu", {}),
    "amd": ("qwen3-8b", "2xmi300x", {}),
}


@cache
def _report(name: str) -> MemoryReport:
    model, gpus, more = CASES[name]
    return plan(PlanRequest(model, gpus, trace=False, **more))  # type: ignore[arg-type]


def _page(name: str, width: int, language: Any) -> list[str]:
    output = io.StringIO()
    _report(name)._print(console(file=output, width=width, no_color=True), False, language)
    return output.getvalue().splitlines()


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("width", [40, 80, 120])
def test_no_line_is_wider_than_the_page(name: str, language: str, width: int) -> None:
    for line in _page(name, width, language):
        assert cell_len(line) <= width, line
        assert "…" not in line, "nothing is cut"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_columns_are_aligned_by_cells(language: str) -> None:
    lines = _page("two fit", 80, language)
    start = next(n for n, line in enumerate(lines) if line.startswith(("strategy", "方案")))
    rows = [line for line in lines[start + 1 : start + 10] if line.strip()]
    ends = {cell_len(re.match(r".*\d x \d+", row).group()) for row in rows}  # type: ignore[union-attr]
    assert len(rows) == 9 and len(ends) == 1, "numbers end in one column"


def test_chinese_is_chinese() -> None:
    known = {"logits", "QLoRA", "FSDP2", "CPU", "GPU", "GiB", "RTX", "LoRA", "auto", "ROCm",
             "float16", "bfloat16", "lora", "full", "CUDA", "cores", "PCIe"}  # fmt: skip
    for name in CASES:
        title, *lines = _page(name, 80, "zh")
        words = set(re.findall(r"(?<![\w./-])[A-Za-z]{4,}(?![\w/-])", "\n".join(lines)))
        assert words - known - set(re.findall(r"\w+", title)) <= {
            "holdfast", "method", "train", "global", "batch", "size", "qlora"}, name  # fmt: skip


def test_the_choice_its_cost_its_grounds_and_two_others_are_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["plan", "--model", "qwen2.5-7b", "--gpus", "2x24GiB", "--dry-run"]
    assert call([*line, "--examples", "8000"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Choice: data parallel, micro-batch 2 x 1, activations recomputed, on 2 GPUs:" in text
    assert re.search(r"Cost, modelled: [\d.]+ s a step of 4 x 1,024 tokens", text)
    assert "steps of that length (" in text and "GPU hours)" in text
    assert "How sure: By formula; not validated on a GPU." in text
    assert "That is, in GiB: weights" in text and "Not taken:" not in text
    assert text.endswith("Next: holdfast plan --model qwen2.5-7b --gpus 2x24GiB --examples 8000")
    assert call([*line, "--all"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert text.count("Not taken:") == 2 and "4-bit weights change the base" in text
    assert "Predicted peak, GiB each GPU weights" in text
    assert call(["plan", "--model", "qwen2.5-7b", "--gpus", "1x2GiB", "--dry-run"]) == 2
    assert "--find-gpus" in capsys.readouterr().out


def test_the_page_has_the_keys_of_the_schema() -> None:
    described = (ROOT / "docs" / "memory.md").read_text(encoding="utf-8")
    report = plan(PlanRequest("qwen2.5-7b", "2x24GiB,1x12GiB", trace=False, examples=1000))
    value = json.loads(json.dumps(report.to_json()))
    assert value["schema"] == 1 and value["kind"] == "plan" and value["fits"] is True
    for key in value:
        assert f"`{key}`" in described, key
    chosen = value["chosen"]
    assert [one["index"] for one in chosen["per_gpu"]] == chosen["gpus"]
    for one in chosen["per_gpu"]:
        assert one["predicted_bytes"] == sum(one["parts"].values()) <= one["free_bytes"]
    assert chosen["cost"]["run_s"] == pytest.approx(
        chosen["cost"]["steps"] * chosen["cost"]["step_s"]
    )
    assert {one["code"] for one in chosen["reasons"]} <= {
        "ddp", "single", "split", "fsdp2", "offload", "cpu", "kept", "qlora", "only", "fast",
        "proven", "simple"}  # fmt: skip
    assert len(value["alternatives"]) == 2
    for one in value["alternatives"]:
        assert one["why_not"]["code"] in ("quantized", "slower", "unproven", "simple", "memory")
        assert one["why_not"]["text"]
    used = {*chosen["gpus"], *value["idle_gpus"]}
    assert used == {one["index"] for one in value["gpus"]}
    codes = {one["code"] for one in value["candidates"]}
    assert "yes" in codes and "batch" in codes, codes


def test_what_does_not_fit_has_codes_too() -> None:
    found = plan(PlanRequest("qwen2.5-7b", "1x4GiB", trace=False, method="full")).to_json()
    assert found["fits"] is False and found["chosen"] is None and found["alternatives"] == []
    assert {one["code"] for one in found["rejected"]} == {"memory"}  # type: ignore[attr-defined]


def test_near_misses_stand_in_where_little_fits() -> None:
    found = plan(PlanRequest("qwen2.5-7b", "1x10GiB", trace=False)).comparison
    assert found.chosen is not None
    told = reasons.alternatives(found)
    assert len(told) == 2
    assert any(not one.fits and why.code == "memory" for one, why in told)


def test_a_long_command_is_broken_where_it_can_be_copied() -> None:
    command = shlex.join(["holdfast", "plan", "--model", "a b", *(["--flag", "value"] * 12)])
    lines = command_lines(command, 40).splitlines()
    assert max(map(len, lines)) <= 40 and len(lines) > 3
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert shlex.split("\n".join(lines).replace("\\\n", " ")) == shlex.split(command)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0881, "0.088 s"), (2.82, "2.8 s"), (66.0, "66 s"), (720, "12 min"), (10800, "3.0 h")],
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds, "en") == words
