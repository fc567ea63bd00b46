"""How does a plan read: as a table, a sentence for the choice, and JSON?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from holdfast.memory.estimate.workload import Workload
from holdfast.memory.memory_plan import GIB, MemoryPlan
from holdfast.memory.planner.choice import SIMPLEST, Planned
from holdfast.memory.planner.options import Candidate
from holdfast.memory.planner.wording import PARTS, Language, say

if TYPE_CHECKING:
    from rich.table import Table


def gib(size_bytes: float) -> str:
    """Bytes as GiB with one decimal."""
    return f"{size_bytes / GIB:.1f}"


def best_of_each(planned: Planned) -> list[Candidate]:
    """One candidate per strategy: the fastest that fits, or the one that comes nearest."""
    found = []
    for name in SIMPLEST:
        same = [one for one in planned.candidates if one.plan.strategy == name]
        fitting = [one for one in same if one.fits]
        if planned.chosen and planned.chosen.plan.strategy == name:
            found.append(planned.chosen)
        elif fitting:
            found.append(max(fitting, key=lambda one: one.plan.tokens_per_s))
        elif same:
            found.append(min(same, key=lambda one: (bool(one.refused), one.short_bytes)))
    return found


def title(planned: Planned, language: Language) -> str:
    """What is planned for: model, method, lengths, GPUs."""
    work = planned.work
    lines = [say(
        language, "title", model=planned.shape.name, method=work.method,
        seq=f"{work.seq_len:,}", batch=work.global_batch,
    )]  # fmt: skip
    alike = Counter((gpu.name, gib(gpu.free_bytes), gib(gpu.total_bytes)) for gpu in planned.gpus)
    for (name, free, total), count in alike.items():
        lines.append(say(language, "gpu", count=count, name=name, free=free, total=total))
    return "\n".join(lines)


def table(planned: Planned, language: Language, every: bool = False) -> Table:
    """The candidates as a table: the best of each strategy, or every one."""
    from rich.table import Table

    found = Table(box=None, pad_edge=False, header_style="bold")
    found.add_column(say(language, "strategy"), no_wrap=True)
    found.add_column(say(language, "recompute"), justify="center")
    found.add_column(say(language, "micro"), justify="right")
    found.add_column(say(language, "per_gpu"), justify="right")
    found.add_column(say(language, "speed"), justify="right")
    found.add_column(say(language, "verdict"))
    for one in planned.candidates if every else best_of_each(planned):
        plan = one.plan
        sizes = sorted({gib(part.total) for part in plan.predicted}, key=float)
        found.add_row(
            say(language, f"s_{plan.strategy}"),
            say(language, "yes") if plan.checkpointing else "–",
            f"{plan.micro_batch} x {plan.accumulation}",
            sizes[0] if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}",
            f"{plan.tokens_per_s:,.0f}",
            verdict(one, language),
            style="bold green" if one is planned.chosen else None if one.fits else "dim",
        )
    return found


def verdict(one: Candidate, language: Language) -> str:
    """Fits, or what takes most and by how much it is too much."""
    if one.refused:
        return say(language, "refused", why=one.refused.words(language))
    if one.fits:
        return say(language, "yes")
    part = one.plan.fullest
    largest = max(PARTS, key=lambda name: getattr(part, name))
    return say(
        language, "no", part=say(language, largest), part_gib=gib(getattr(part, largest)),
        short=gib(one.short_bytes),
    )  # fmt: skip


def breakdown(plan: MemoryPlan, language: Language) -> Table:
    """What takes the memory, in GiB; a column for each GPU, or one for all where they are alike."""
    from rich.table import Table

    alike = len(set(plan.predicted)) == 1
    shown = plan.predicted[:1] if alike else plan.predicted
    found = Table(box=None, pad_edge=False, header_style="bold")
    found.add_column(say(language, "breakdown"))
    for index in plan.gpus[: len(shown)]:
        one = alike and len(plan.gpus) > 1
        found.add_column(say(language, "each") if one else f"GPU {index}", justify="right")
    for name in PARTS:
        found.add_row(say(language, name), *(f"{getattr(one, name) / GIB:.2f}" for one in shown))
    found.add_row(
        say(language, "total"), *(f"{one.total / GIB:.2f}" for one in shown), style="bold"
    )
    return found


def describe(plan: MemoryPlan, language: Language) -> str:
    """A plan in a few words."""
    recompute = say(language, "recomputing" if plan.checkpointing else "keeping")
    return say(language, f"s_{plan.strategy}") + say(language, "comma") + say(
        language, "with", micro=plan.micro_batch, accumulation=plan.accumulation,
        recompute=recompute,
    )  # fmt: skip


def reason(planned: Planned, language: Language) -> str:
    """Why the choice was made, in a sentence."""
    if planned.chosen is None:
        return ""
    plan = planned.chosen.plan
    key = "why_" + ("single" if plan.strategy == "qlora" else plan.placement)
    parts = [say(language, key)]
    if plan.quantized:
        plain = next(
            (one.plan for one in planned.candidates
             if one.plan.placement == plan.placement and not one.plan.quantized), None,
        )  # fmt: skip
        if plain:
            saved = plain.fullest.weights - plan.fullest.weights
            parts.append(say(language, "why_qlora", saved=gib(saved)))
    if planned.runner_up is None:
        parts.append(say(language, "why_only"))
    else:
        other = planned.runner_up.plan
        ratio = plan.tokens_per_s / other.tokens_per_s
        name = say(language, f"s_{other.strategy}")
        if ratio >= 1.1:
            parts.append(say(language, "why_fast", ratio=f"{ratio:.1f}", other=name))
        elif ratio <= 0.9:
            parts.append(say(language, "why_proven", ratio=f"{1 / ratio:.1f}", other=name))
        else:
            parts.append(say(language, "why_simple"))
    return _sentence(parts, language)


def _sentence(parts: Sequence[str], language: Language) -> str:
    return "；".join(parts) + "。" if language == "zh" else "; ".join(parts) + "."


def remedies(planned: Planned, language: Language) -> list[str]:
    """What would have to change, one line each; empty when something fits."""
    if planned.chosen:
        return []
    if not planned.changes:
        return [say(language, "nothing_helps")]
    lines = [say(language, "nothing")]
    now = {"seq_len": planned.work.seq_len, "gpus": len(planned.gpus)}
    for one in planned.changes:
        value = one.value // GIB if one.kind == "gpu_bytes" else one.value
        lines.append("  - " + say(
            language, one.kind, value=f"{value:,}", now=f"{now.get(one.kind, 0):,}",
            strategy=say(language, f"s_{one.strategy}"),
        ))  # fmt: skip
    return lines


def extra(planned: Planned, language: Language) -> str:
    """What the remedies keep that plain training does not, and how much that is; "" for none."""
    asked = planned.work.extra
    if not asked.asks:
        return ""
    parts = []
    if asked.reference:
        parts.append(say(language, "x_reference"))
    if asked.copies:
        parts.append(say(language, "x_copies", count=asked.copies))
    if asked.teacher_parameters:
        parts.append(say(language, "x_teacher"))
    if asked.generated_tokens:
        parts.append(say(language, "x_generated", count=asked.generated_tokens))
    if asked.probed_tokens:
        parts.append(say(language, "x_probed"))
    return say(
        language, "extra", names=say(language, "comma").join(asked.names),
        what=say(language, "comma").join(parts), gib=gib(planned.extra_bytes),
    )  # fmt: skip


def grounds(planned: Planned, source: str, language: Language) -> str:
    """Where the figures are from, and what they have been held against."""
    parts = [say(language, source)]
    if not planned.shape.exact:
        parts.append(say(language, "wide", family=planned.shape.family))
    if planned.overheads.measured:
        parts.append(say(language, "calibrated"))
    else:
        parts.append(say(language, "unvalidated"))
    return _sentence(parts, language)


def to_json(planned: Planned, source: str, commands: Sequence[str] = ()) -> dict[str, Any]:
    """Everything, for programs: the table, the choice, the rejected and why."""

    def one(candidate: Candidate | None) -> dict[str, Any] | None:
        if candidate is None:
            return None
        plan = candidate.plan
        peaks = [asdict(part) | {"total": part.total} for part in plan.predicted]
        return asdict(plan) | {
            "strategy": plan.strategy, "predicted_bytes": peaks, "fits": candidate.fits,
            "short_bytes": max(0, candidate.short_bytes),
            "refused": candidate.refused and candidate.refused.words("en"),
            "verdict": verdict(candidate, "en"),
        }  # fmt: skip

    rows = [one(candidate) for candidate in planned.candidates]
    for row in rows:
        assert row is not None
        del row["predicted"]
    chosen = one(planned.chosen)
    return {
        "model": planned.shape.name,
        "model_source": planned.shape.source,
        "parameters": planned.shape.parameters,
        "workload": _workload(planned),
        "gpus": [asdict(gpu) for gpu in planned.gpus],
        "source": source,
        "grounds": grounds(planned, source, "en"),
        "candidates": rows,
        "rejected": [row for row in rows if row and not row["fits"]],
        "chosen": chosen and chosen | {"reason": reason(planned, "en"), "launch": list(commands)},
        "runner_up": one(planned.runner_up),
        "changes": [asdict(change) for change in planned.changes],
    } | ({"extra_bytes": planned.extra_bytes} if planned.work.extra.asks else {})


def _workload(planned: Planned) -> dict[str, Any]:
    """The job; what only studies with remedies or other adapters say is left out of the others."""
    found, plain = asdict(planned.work), asdict(Workload())
    unsaid = [key for key in ("variant", "layers", "extra") if found[key] == plain[key]]
    return {key: value for key, value in found.items() if key not in unsaid}
