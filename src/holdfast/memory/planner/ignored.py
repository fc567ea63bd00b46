"""Says which of the settings that were given have no bearing on the job that is planned."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.config import TrainSpec
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.planner.request import PlanRequest
from holdfast.memory.planner.ways import Reason


def ignored(request: PlanRequest, work: Workload, gpus: Sequence[GPU]) -> tuple[Reason, ...]:
    """What was said and is not used, with the reason, so that nobody takes it for counted.

    Args:
        request: what was said.
        work: the job that came of it.
        gpus: to plan for.
    """
    stated, found = request.stated, []
    if work.method == "full":
        of_adapters = _adapters(request.train) + ["--adapter-dtype"] * bool(stated.adapter_dtype)
        found.append(("ignored_adapters", of_adapters))
    if "qlora" not in work.methods:
        found.append(("ignored_4_bits", [
            *["--no-double-quant"] * (not stated.nested),
            *["--prepare-kbit"] * stated.kbit_upcast,
            *["--old-bitsandbytes"] * stated.keeps_inputs,
        ]))  # fmt: skip
    if len(gpus) == 1:
        found.append(("ignored_alone", ["--fsdp-version 1"] * (stated.fsdp == 1)))
    if gpus[0].cpu:
        found.append(("ignored_on_cpu", ["--[no-]expandable-segments"]
                      * (stated.expandable is not None)))  # fmt: skip
    return tuple(Reason(key, {"names": ", ".join(names)}) for key, names in found if names)


def _adapters(train: TrainSpec | None) -> list[str]:
    """The settings of adapters that were given."""
    if train is None or "lora" not in train.model_fields_set:
        return []
    return [f"train.lora.{name}" for name in sorted(train.lora.model_fields_set)]
