"""How far stages are that are made side by side is written down as they go."""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.progress import Silent
from holdfast.runs import live, noted


def test_a_stage_beside_others_is_seen_to_move(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noted, "EVERY_S", 0.0)
    with noted.noted(Silent(), tmp_path) as told:
        told.begin(2, 0)
        beside = told.beside("train/sft/seed1")
        beside.total(10, "steps")
        before = live.parsed(tmp_path / noted.FILE)["at"]
        (tmp_path / noted.FILE).unlink()
        beside.advance()
        assert live.parsed(tmp_path / noted.FILE)["at"] >= before
        monkeypatch.setattr(noted, "EVERY_S", 60.0)
        (tmp_path / noted.FILE).unlink()
        beside.advance()
        assert not (tmp_path / noted.FILE).exists(), "not for every step"
        beside.leave("train/sft/seed1")
        assert live.parsed(tmp_path / noted.FILE)["done"] == 1
