"""The benchmark that holds plans against published measurements reads its rows as flags."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "memory_published.py"
ROW = {
    "id": "1", "source": "somebody", "model": "qwen",
    "holdfast_model": "Qwen/Qwen2.5-7B", "method": "lora",
    "adapter": "lora", "lora_rank": "16", "lora_targets": "q_proj v_proj", "lora_dropout": "0.0",
    "optimizer": "adamw_torch", "dtype": "pure bf16, adapters bf16", "micro_batch": "2",
    "gradient_checkpointing": "yes", "attention": "flash-attention 2", "loss": "whole logits",
    "gpus": "1", "parallelism": "none", "outcome": "ok", "measured_gib": "17.0",
    "cli_flags": "--model Qwen/Qwen2.5-7B --gpus 1xA100-80GB --seq-len 1024 --micro-batch 2 "
    "--global-batch-size 2 --method lora --no-quantize",
    "not_expressible": "whole-logits loss", "compared_with": "allocated", "group": "one",
}  # fmt: skip
OWN = "own config.json: Small (llama, hidden 512, layers 4, heads 8/8, ffn 1024, vocab 9000, tied)"


def test_rows_are_answered_and_counted(tmp_path: Path) -> None:
    two = ROW["cli_flags"].replace("1xA100", "2xA100").replace("size 2", "size 4")
    rows = [
        ROW,
        ROW | {"id": "2", "holdfast_model": "own", "outcome": "OOM", "measured_gib": ""},
        ROW | {"id": "3", "not_expressible": "ZeRO-2", "group": "two"},
        ROW | {"id": "4", "holdfast_model": OWN, "method": "full", "dtype": "pure bf16",
               "gpus": "2", "parallelism": "FSDP1 full shard", "measured_gib": "0.1",
               "cli_flags": two},
    ]  # fmt: skip
    file = tmp_path / "published.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, list(ROW))
        writer.writeheader()
        writer.writerows(rows)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), str(file), "--formula", "--cases"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    (one,) = [line for line in lines if line.startswith("| one |")]
    assert "| 3 of 3 | 2 |" in one and "| 1 of 1 | 0 of 2 |" in one
    assert "not expressed: ZeRO-2: 1" in lines
    assert any(line.startswith("| several GPUs | 1 of 1") for line in lines)


def test_answers_are_kept_and_an_ended_run_goes_on(tmp_path: Path) -> None:
    four_bits = ROW | {
        "id": "5", "source": "Lightning-AI/litgpt", "method": "qlora", "published_unit": "GB",
        "gradient_checkpointing": "no", "measured_gib": "12.0",
        "cli_flags": ROW["cli_flags"].replace("lora --no-quantize", "qlora"),
    }  # fmt: skip
    file, kept = tmp_path / "published.csv", tmp_path / "answers.jsonl"
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, [*ROW, "published_unit"])
        writer.writeheader()
        writer.writerows([ROW, four_bits])

    def run(*more: str) -> str:
        return subprocess.run(
            [sys.executable, str(PROGRAM), str(file), "--formula", "--results", str(kept), *more],
            capture_output=True, text=True, check=True, timeout=120,
        ).stdout  # fmt: skip

    assert "2 of 2 rows were not answered yet" in run("--seconds", "0")
    first = run()
    assert "not answered yet" not in first and "1 rows in G or GB" in first
    lines = kept.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 2 and run() == first
    assert kept.read_text(encoding="utf-8").splitlines() == lines, "none is answered twice"
