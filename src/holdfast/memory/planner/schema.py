"""A comparison as JSON, for programs; docs/memory.md describes every key.

`SCHEMA` is raised when a key goes away or changes its meaning, not when one is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from holdfast.memory.estimate.workload import Workload
from holdfast.memory.planner import reasons
from holdfast.memory.planner.choice import Comparison
from holdfast.memory.planner.explanation import grounds, joined
from holdfast.memory.planner.machine import host_need_of, idle, step_seconds
from holdfast.memory.planner.ways import Candidate, Reason

SCHEMA = 1
SELDOM = (
    "variant", "layers", "method_overhead", "on_cpu", "packed", "kernels", "compiled",
    "saved_aside", "narrow", "autocasts", "base_float32", "kbit_upcast", "nested", "expandable",
    "fsdp", "script", "keeps_inputs",
)  # fmt: skip
"""What is said of a job only where it is not as usual."""


def to_json(
    comparison: Comparison, source: str, steps: int | None = None, commands: Sequence[str] = ()
) -> dict[str, object]:
    """Everything, for programs: the choice, the table, the rejected and why.

    Args:
        comparison: what was compared.
        source: `traced` or `formula`.
        steps: of the whole training; None: not known.
        commands: what to type to run it.
    """
    rows = [_row(candidate) for candidate in comparison.candidates]
    chosen, why = comparison.chosen, reasons.of_choice(comparison)
    best = chosen and _peaks(chosen) | {
        "reason": joined([one.words("en") for one in why], "en"),
        "reasons": [coded(one) for one in why],
        "cost": _cost(comparison, steps),
        "per_gpu": _per_gpu(comparison),
        "launch": list(commands),
    }
    others = [
        _peaks(one) | {"why_not": coded(why)} for one, why in reasons.alternatives(comparison)
    ]
    server = comparison.server
    used = {*chosen.plan.gpus, server and server.gpu} if chosen else set()
    more: dict[str, object] = {"server": asdict(server)} if server else {}
    if comparison.work.method_overhead.asks:
        more["extra_bytes"] = comparison.method_bytes
    return {
        "schema": SCHEMA,
        "kind": "plan",
        "fits": chosen is not None,
        "model": comparison.shape.name,
        "model_source": comparison.shape.source,
        "parameters": comparison.shape.parameters,
        "workload": _workload(comparison),
        "gpus": [asdict(gpu) for gpu in comparison.gpus],
        "source": source,
        "validated": _validated(comparison),
        "grounds": grounds(comparison, source, "en"),
        "speed": [asdict(one) for one in comparison.paces],
        "candidates": rows,
        "rejected": [row for row in rows if not row["fits"]],
        "chosen": best,
        "runner_up": comparison.runner_up and _peaks(comparison.runner_up),
        "alternatives": others,
        "changes": [asdict(change) for change in comparison.changes],
        "idle": idle(comparison, "en"),
        "idle_gpus": [one.index for one in comparison.gpus if chosen and one.index not in used],
        "host": _host(comparison),
        **more,
    }


def coded(reason: Reason) -> dict[str, object]:
    """A reason for programs: its code, what it names, and its sentence."""
    return {"code": reason.code, "values": dict(reason.values), "text": reason.words("en")}


def _cost(comparison: Comparison, steps: int | None) -> dict[str, float | int | None]:
    """Seconds of a step and of the run by the model of speed, every example as long as may be."""
    step_s = step_seconds(comparison)
    run_s = None if steps is None else steps * step_s
    used = len(comparison.chosen.plan.gpus) if comparison.chosen else 0
    hours = None if run_s is None or comparison.gpus[0].cpu else used * run_s / 3600
    return {"step_s": step_s, "steps": steps, "run_s": run_s, "gpu_hours": hours}


def _per_gpu(comparison: Comparison) -> list[dict[str, object]]:
    """The prediction for each GPU of the choice."""
    if comparison.chosen is None:
        return []
    plan = comparison.chosen.plan
    named = {one.index: one for one in comparison.gpus}
    return [
        {"index": index, "name": named[index].name, "free_bytes": named[index].free_bytes,
         "total_bytes": named[index].total_bytes, "predicted_bytes": part.total,
         "parts": asdict(part)}
        for index, part in zip(plan.gpus, plan.predicted, strict=True)
    ]  # fmt: skip


def _validated(comparison: Comparison) -> str:
    """What the figures were held against: `this_machine`, `real_models` (CPU) or `nothing`."""
    if comparison.overheads.measured:
        return "this_machine"
    return "real_models" if comparison.gpus[0].cpu else "nothing"


def _host(comparison: Comparison) -> dict[str, int | None] | None:
    """What the choice needs of each machine's memory, and what is free there, bytes."""
    need = host_need_of(comparison)
    if need is None:
        return None
    return asdict(need) | {"peak": need.peak, "free": comparison.host_bytes}


def _peaks(candidate: Candidate) -> dict[str, object]:
    """A candidate with its plan, its peaks and the verdict."""
    plan, why = candidate.plan, reasons.verdict(candidate)
    peaks = [asdict(part) | {"total": part.total} for part in plan.predicted]
    words = why.words("en")
    return asdict(plan) | {
        "strategy": plan.strategy, "predicted_bytes": peaks, "fits": candidate.fits,
        "short_bytes": max(0, candidate.short_bytes),
        "code": why.code,
        "refused": words if candidate.refused else None,
        "verdict": words if candidate.fits else f"no: {words}",
    }  # fmt: skip


def _row(candidate: Candidate) -> dict[str, object]:
    """The same for the table, where the peaks stand once."""
    return {key: value for key, value in _peaks(candidate).items() if key != "predicted"}


def _workload(comparison: Comparison) -> dict[str, object]:
    """The job; adapters and overheads that differ from the plain ones only where they do."""
    found, plain = asdict(comparison.work), asdict(Workload())
    unsaid = [key for key in SELDOM if found[key] == plain[key]]
    names = {"method_overhead": "extra"}
    return {names.get(key, key): found[key] for key in found if key not in unsaid}
