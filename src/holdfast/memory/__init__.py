"""Plans the memory of a training before a byte of it is loaded: what fits, where, and how fast.

`plan_memory` is the entry point. `hardware` describes GPUs, `model` counts a model's dimensions,
`estimate` holds the formulas, `trace` runs the model's own code under fake tensors, and `planner`
compares the possible placements and chooses one. `out_of_memory` and `fault_injection` are for the
moment when memory runs out all the same.

The public names are loaded when first used, so that importing the package stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.memory.estimate.method_overhead import MethodOverhead
    from holdfast.memory.memory_plan import MemoryPlan
    from holdfast.memory.planner.gpu_search import find_gpus
    from holdfast.memory.planner.memory_report import MemoryReport
    from holdfast.memory.planner.planner import plan_memory
    from holdfast.memory.planner.request import PlanRequest
    from holdfast.memory.planner.searches import find_batch, find_length

__all__ = [
    "MemoryPlan", "MemoryReport", "MethodOverhead", "PlanRequest", "find_batch", "find_gpus",
    "find_length", "plan_memory",
]  # fmt: skip
_PLACES = {
    "MemoryPlan": "holdfast.memory.memory_plan",
    "MemoryReport": "holdfast.memory.planner.memory_report",
    "MethodOverhead": "holdfast.memory.estimate.method_overhead",
    "PlanRequest": "holdfast.memory.planner.request",
    "find_batch": "holdfast.memory.planner.searches",
    "find_gpus": "holdfast.memory.planner.gpu_search",
    "find_length": "holdfast.memory.planner.searches",
    "plan_memory": "holdfast.memory.planner.planner",
}


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module 'holdfast.memory' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
