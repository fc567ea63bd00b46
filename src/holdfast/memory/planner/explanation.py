"""Explains a comparison of candidates: as a table, as sentences, and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from holdfast.memory.estimate.workload import Workload
from holdfast.memory.memory_plan import GIB, MemoryPlan
from holdfast.memory.planner.choice import SIMPLEST, Comparison
from holdfast.memory.planner.machine import host_need_of, idle
from holdfast.memory.planner.translations import PARTS, Language, say
from holdfast.memory.planner.ways import Candidate

if TYPE_CHECKING:
    from rich.table import Table


SELDOM = (
    "variant", "layers", "method_overhead", "on_cpu", "packed", "kernels", "compiled",
    "saved_aside", "narrow", "autocasts", "base_float32", "kbit_upcast", "nested", "expandable",
    "fsdp",
)  # fmt: skip
"""What is said of a job only where it is not as usual."""


def gib(size_bytes: float) -> str:
    """Bytes as GiB with one decimal."""
    return f"{size_bytes / GIB:.1f}"


def best_of_each(comparison: Comparison) -> list[Candidate]:
    """One candidate per strategy: the fastest that fits, or the one that comes nearest."""
    found = []
    for name in SIMPLEST:
        same = [one for one in comparison.candidates if one.plan.strategy == name]
        fitting = [one for one in same if one.fits]
        if comparison.chosen and comparison.chosen.plan.strategy == name:
            found.append(comparison.chosen)
        elif fitting:
            found.append(max(fitting, key=lambda one: one.plan.tokens_per_s))
        elif same:
            found.append(min(same, key=lambda one: (bool(one.refused), one.short_bytes)))
    return found


def title(comparison: Comparison, language: Language) -> str:
    """What is planned for: model, method, lengths, GPUs."""
    work = comparison.work
    lines = [say(
        language, "title", model=comparison.shape.name, method=work.method,
        seq=f"{work.seq_len:,}", batch=work.global_batch,
    )]  # fmt: skip
    alike = Counter(
        (gpu.name, gib(gpu.free_bytes), gib(gpu.total_bytes)) for gpu in comparison.gpus
    )
    for (name, free, total), count in alike.items():
        lines.append(say(language, "gpu", count=count, name=name, free=free, total=total))
    return "\n".join(lines)


def table(comparison: Comparison, language: Language, every: bool = False) -> Table:
    """The candidates as a table: the best of each strategy, or every one."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False, header_style="bold")
    found.add_column(say(language, "strategy"), no_wrap=True)
    found.add_column(say(language, "recompute"), justify="center")
    found.add_column(say(language, "micro"), justify="right")
    found.add_column(say(language, "per_gpu"), justify="right")
    found.add_column(say(language, "speed"), justify="right")
    found.add_column(say(language, "verdict"))
    for candidate in comparison.candidates if every else best_of_each(comparison):
        plan = candidate.plan
        sizes = sorted({gib(part.total) for part in plan.predicted}, key=float)
        found.add_row(
            say(language, f"s_{plan.strategy}"),
            say(language, "yes") if plan.checkpointing else "–",
            f"{plan.micro_batch} x {plan.accumulation}",
            sizes[0] if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}",
            f"{plan.tokens_per_s:,.0f}",
            verdict(candidate, language),
            style=_style(candidate, comparison),
        )
    return found


def _style(candidate: Candidate, comparison: Comparison) -> str | None:
    """How a row of the table is set off."""
    if candidate is comparison.chosen:
        return "bold green"
    return None if candidate.fits else "dim"


def verdict(candidate: Candidate, language: Language) -> str:
    """Fits, or what takes most and by how much it is too much."""
    if candidate.refused:
        return say(language, "refused", why=candidate.refused.words(language))
    if candidate.fits:
        return say(language, "yes")
    part = candidate.plan.fullest
    largest = max(PARTS, key=lambda name: getattr(part, name))
    return say(
        language, "no", part=say(language, largest), part_gib=gib(getattr(part, largest)),
        short=gib(candidate.short_bytes),
    )  # fmt: skip


def breakdown(plan: MemoryPlan, language: Language) -> Table:
    """What takes the memory, in GiB; a column for each GPU, or one for all where they are alike."""
    from rich.table import Table

    alike = len(set(plan.predicted)) == 1
    shown = plan.predicted[:1] if alike else plan.predicted
    found = Table(box=None, pad_edge=False, header_style="bold")
    found.add_column(say(language, "breakdown"))
    for index in plan.gpus[: len(shown)]:
        every = alike and len(plan.gpus) > 1
        found.add_column(say(language, "each") if every else _column(plan, index), justify="right")
    for name in PARTS:
        found.add_row(say(language, name), *(f"{getattr(one, name) / GIB:.2f}" for one in shown))
    found.add_row(
        say(language, "total"), *(f"{one.total / GIB:.2f}" for one in shown), style="bold"
    )
    return found


def _column(plan: MemoryPlan, index: int) -> str:
    return "CPU" if plan.placement == "cpu" else f"GPU {index}"


def describe(plan: MemoryPlan, language: Language) -> str:
    """A plan in a few words."""
    recompute = say(language, "recomputing" if plan.checkpointing else "keeping")
    return say(language, f"s_{plan.strategy}") + say(language, "comma") + say(
        language, "with", micro=plan.micro_batch, accumulation=plan.accumulation,
        recompute=recompute,
    )  # fmt: skip


def reason(comparison: Comparison, language: Language) -> str:
    """Why the choice was made, in a sentence."""
    if comparison.chosen is None:
        return ""
    plan = comparison.chosen.plan
    key = f"why_{plan.placement}"
    parts = [say(language, key)]
    if plan.placement == "cpu" and not plan.checkpointing:
        parts.append(say(language, "why_kept"))
    if plan.quantized:
        plain = next(
            (one.plan for one in comparison.candidates
             if one.plan.placement == plan.placement and not one.plan.quantized), None,
        )  # fmt: skip
        if plain:
            saved = plain.fullest.weights - plan.fullest.weights
            parts.append(say(language, "why_qlora", saved=gib(saved)))
    if comparison.runner_up is None:
        parts.append(say(language, "why_only"))
    else:
        other = comparison.runner_up.plan
        ratio = plan.tokens_per_s / other.tokens_per_s
        name = say(language, f"s_{other.strategy}")
        if ratio >= 1.1:
            parts.append(say(language, "why_fast", ratio=f"{ratio:.1f}", other=name))
        elif ratio <= 0.9:
            parts.append(say(language, "why_proven", ratio=f"{1 / ratio:.1f}", other=name))
        else:
            parts.append(say(language, "why_simple"))
    return _sentence(parts, language)


def runner_up(chosen: MemoryPlan, other: MemoryPlan, language: Language) -> str:
    """The best plan of another strategy, with its speed beside the choice's."""
    share = other.tokens_per_s / chosen.tokens_per_s
    return say(
        language, "runner_up", what=describe(other, language), gib=gib(other.fullest.total),
        speed=f"{share:.0%}",
    )  # fmt: skip


def _sentence(parts: Sequence[str], language: Language) -> str:
    return "；".join(parts) + "。" if language == "zh" else "; ".join(parts) + "."


def changes(comparison: Comparison, language: Language) -> list[str]:
    """What would have to change, one line each; empty when something fits."""
    if comparison.chosen:
        return []
    if not comparison.changes:
        return [say(language, "nothing_helps")]
    lines = [say(language, "nothing")]
    now = {"seq_len": comparison.work.seq_len, "gpus": len(comparison.gpus)}
    for change in comparison.changes:
        value = change.value // GIB if change.kind in ("gpu_bytes", "host_bytes") else change.value
        lines.append("  - " + say(
            language, change.kind, value=f"{value:,}", now=f"{now.get(change.kind, 0):,}",
            strategy=say(language, f"s_{change.strategy}"),
        ))  # fmt: skip
    return lines


def method_overhead(comparison: Comparison, language: Language) -> str:
    """What the methods keep that plain training does not, and how much that is; "" for none."""
    asked = comparison.work.method_overhead
    if not asked.asks:
        return ""
    parts = []
    if asked.reference:
        parts.append(say(language, "x_reference"))
    if asked.copies:
        parts.append(say(language, "x_copies", count=asked.copies))
    if asked.kept:
        parts.append(say(language, "x_kept", count=asked.kept))
    if asked.second_pass:
        parts.append(say(language, "x_second"))
    if asked.teacher_parameters:
        parts.append(say(language, "x_teacher"))
    if asked.generated_tokens:
        parts.append(say(language, "x_generated", count=asked.generated_tokens))
    if asked.rows > 1:
        parts.append(say(language, "x_pairs"))
    if asked.probed_tokens:
        parts.append(say(language, "x_probed"))
    return say(
        language, "extra", names=say(language, "comma").join(asked.names),
        what=say(language, "comma").join(parts), gib=gib(comparison.method_bytes),
    )  # fmt: skip


def grounds(comparison: Comparison, source: str, language: Language) -> str:
    """Where the figures are from, and what they have been held against."""
    parts = [say(language, source)]
    if not comparison.shape.exact:
        parts.append(say(language, "wide", family=comparison.shape.family))
    if comparison.overheads.measured:
        parts.append(say(language, "calibrated"))
    elif comparison.gpus[0].cpu:
        parts.append(say(language, "held"))
    else:
        parts.append(say(language, "unvalidated"))
    return _sentence(parts, language)


def to_json(comparison: Comparison, source: str, commands: Sequence[str] = ()) -> dict[str, object]:
    """Everything, for programs: the table, the choice, the rejected and why."""
    rows = [_row(candidate) for candidate in comparison.candidates]
    chosen = comparison.chosen and _peaks(comparison.chosen) | {
        "reason": reason(comparison, "en"), "launch": list(commands),
    }  # fmt: skip
    return {
        "model": comparison.shape.name,
        "model_source": comparison.shape.source,
        "parameters": comparison.shape.parameters,
        "workload": _workload(comparison),
        "gpus": [asdict(gpu) for gpu in comparison.gpus],
        "source": source,
        "grounds": grounds(comparison, source, "en"),
        "candidates": rows,
        "rejected": [row for row in rows if not row["fits"]],
        "chosen": chosen,
        "runner_up": comparison.runner_up and _peaks(comparison.runner_up),
        "changes": [asdict(change) for change in comparison.changes],
        "idle": idle(comparison, "en"),
        "host": _host(comparison),
    } | ({"extra_bytes": comparison.method_bytes} if comparison.work.method_overhead.asks else {})


def _host(comparison: Comparison) -> dict[str, int | None] | None:
    """What the choice needs of each machine's memory, and what is free there, bytes."""
    need = host_need_of(comparison)
    if need is None:
        return None
    return asdict(need) | {"peak": need.peak, "free": comparison.host_bytes}


def _peaks(candidate: Candidate) -> dict[str, object]:
    """A candidate with its plan, its peaks and the verdict."""
    plan = candidate.plan
    peaks = [asdict(part) | {"total": part.total} for part in plan.predicted]
    return asdict(plan) | {
        "strategy": plan.strategy, "predicted_bytes": peaks, "fits": candidate.fits,
        "short_bytes": max(0, candidate.short_bytes),
        "refused": candidate.refused and candidate.refused.words("en"),
        "verdict": verdict(candidate, "en"),
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
