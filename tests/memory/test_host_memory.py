"""A CPU recomputes activations where memory would not suffice without, and only there."""

from __future__ import annotations

import pytest

from holdfast.config import TrainSpec
from holdfast.memory.planner.host_memory import settled_on_cpu
from holdfast.types import ModelRef


@pytest.mark.parametrize(
    ("gib", "rows", "longest", "recomputes"),
    # Qwen2.5-7B in float32: 28 GiB of weights, and about 12 MB of activations a token.
    [(120, 4, 512, False), (100, 4, 512, True), (600, 16, 1024, False), (50, 1, 64, True)],
)
def test_a_cpu_recomputes_where_half_of_its_memory_would_not_do(
    monkeypatch: pytest.MonkeyPatch, gib: int, rows: int, longest: int, recomputes: bool
) -> None:
    monkeypatch.setattr("holdfast.memory.planner.host_memory.host_ram_bytes", lambda: gib << 30)
    ref, spec = ModelRef("Qwen/Qwen2.5-7B-Instruct"), TrainSpec()
    found = settled_on_cpu(spec, ref, "float32", rows, longest)
    assert found.gradient_checkpointing is recomputes
    assert found == spec.model_copy(update={"gradient_checkpointing": recomputes})
    unknown = settled_on_cpu(spec, ModelRef("nobody/knows"), "float32", rows, longest)
    assert unknown.gradient_checkpointing, "as asked"
    never = TrainSpec(gradient_checkpointing=False)
    assert settled_on_cpu(never, ref, "float32", rows, longest) == never
