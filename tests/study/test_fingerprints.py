"""Does a fingerprint rest on registered names and versions alone?"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from holdfast import methods, study, tasks
from holdfast.config import load
from holdfast.runs import stages

ARMS = """
  sft: {}
  replay: {data: [{replay: {share: 0.2}}], loss: [{kl: {}}]}
  scaled: {from: sft, weights: [{scale: {factors: [0.5]}}]}
"""


def _marks(folder: Path, train: str = "") -> dict[str, str]:
    file = folder / "study.yaml"
    file.write_text(
        "name: s\nmodel: lab\ntasks:\n  lab_math: {role: target, items: 4, train_items: 8}\n"
        "  lab_refuse: {items: 4}\n"
        f"train: {{max_steps: 2, checkpoints: 1{train}}}\n"
        f"arms:{ARMS}"
    )
    return stages.fingerprints(study.prepare(load.load(file), folder / "run").plan.stages)


def test_renamed_classes_and_moved_modules_leave_every_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _marks(tmp_path)
    elsewhere = ModuleType("holdfast_moved")
    monkeypatch.setitem(sys.modules, "holdfast_moved", elsewhere)
    for table, names in (
        (tasks.TASKS, ("lab_math", "lab_refuse")),
        (methods.METHODS, ("replay", "kl", "scale")),
    ):
        for name in names:
            module, _, attribute = table[name].partition(":")
            __import__(module)
            moved = type(f"{name}_renamed", (getattr(sys.modules[module], attribute),), {})
            moved.__module__ = "holdfast_moved"
            monkeypatch.setattr(elsewhere, moved.__name__, moved, raising=False)
            monkeypatch.setitem(table, name, f"holdfast_moved:{name}_renamed")
    assert _marks(tmp_path) == before
    assert len(before) > 20


def test_another_version_is_another_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from holdfast.methods.kl import KL

    before = _marks(tmp_path)
    monkeypatch.setattr(KL, "version", "later")
    changed = {name for name, mark in _marks(tmp_path).items() if mark != before[name]}
    assert "data/replay" in changed and "train/replay/seed1126" in changed
    assert not changed & {"data/sft", "train/sft/seed1126", "replies/base/lab_math"}


def test_how_fast_a_training_runs_is_no_part_of_it(tmp_path: Path) -> None:
    before = _marks(tmp_path)
    fast = ", packing: true, torch_compile: true, kernels: liger, async_save: true"
    fast += ", dataloader_num_workers: 1, dataloader_prefetch_factor: 4"
    assert _marks(tmp_path, fast) == before
    fused = _marks(tmp_path, ", optim: adamw_torch_fused")
    assert fused["train/sft/seed1126"] != before["train/sft/seed1126"]
