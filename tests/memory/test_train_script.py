"""The plain script runs without Holdfast and says what the plan says."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from holdfast.errors import UsageError
from holdfast.lab import model_folder
from holdfast.lab.problems import problems
from holdfast.memory.planner.memory_report import MemoryReport
from holdfast.memory.planner.planner import plan_memory


def _export(
    folder: Path, model: str = "qwen2.5-7b-instruct", **asked: Any
) -> tuple[MemoryReport, str]:
    found = plan_memory(model, **({"gpus": "2x24GiB", "trace": False} | asked))
    report = found.write_script(folder / "train.py")
    assert report.script == folder / "train.py"
    return report, report.script.read_text("utf-8")


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ("single", 'device_map = {"": 0 if GPU else "cpu"}'),
        ("ddp", "torchrun --standalone --nproc_per_node 2 train.py"),
        ("split", '"lm_head": 1'),
        ("qlora", "bnb_4bit_use_double_quant=True"),
        ("qlora+ddp", 'device_map = {"": LOCAL_RANK if GPU else "cpu"}'),
        ("fsdp2", '"version": 2'),
    ],
)
def test_a_script_for_every_strategy(tmp_path: Path, strategy: str, said: str) -> None:
    report, text = _export(tmp_path, strategy=strategy)
    ast.parse(text)
    assert said in text
    assert "holdfast" not in text.lower()
    assert report.plan is not None
    assert f"per_device_train_batch_size={report.plan.micro_batch}," in text
    assert "dtype=torch.bfloat16" in text
    assert "train.py\n" in report.launch + "\n"


def test_a_split_covers_every_layer(tmp_path: Path) -> None:
    _, text = _export(tmp_path, strategy="split")
    start = text.index("device_map = {")
    where: dict[str, object] = {}
    exec(text[start : text.index("}\n", text.index("range", start)) + 2], where)  # our own text
    names = where["device_map"]
    assert isinstance(names, dict)
    assert {f"model.layers.{n}" for n in range(28)} < set(names)
    assert set(names.values()) == {0, 1}


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        _export(tmp_path)
    assert (tmp_path / "train.py").read_text() == "mine"


def test_no_script_where_nothing_fits(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing fits"):
        _export(tmp_path, gpus="1x4GiB", method="lora", strategy="single")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("strategy", ["single", "split", "qlora"])
def test_the_script_trains(tmp_path: Path, strategy: str) -> None:
    _export(tmp_path, model="lab", strategy=strategy, seq_len=256, gpus="2x2GiB", method="auto")
    rows = [
        {"messages": [{"role": "user", "content": one.question},
                      {"role": "assistant", "content": one.native}]}
        for one in problems("train", 8, (1, 2))
    ]  # fmt: skip
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "train.py"], cwd=tmp_path, capture_output=True, text=True,
        timeout=200, env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "out" / "final" / "adapter_model.safetensors").is_file()
    assert model_folder().is_dir()
