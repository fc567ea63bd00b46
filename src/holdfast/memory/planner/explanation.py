"""Explains a comparison of candidates: as a table, and as sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import GIB, MemoryPlan
from holdfast.memory.planner import reasons
from holdfast.memory.planner.choice import Comparison
from holdfast.memory.planner.machine import step_seconds
from holdfast.memory.planner.reasons import best_of_each, gib
from holdfast.memory.planner.translations import Language, duration, say
from holdfast.memory.planner.ways import Candidate, Reason

if TYPE_CHECKING:
    from rich.table import Table

THOUSAND = 1000


def title(comparison: Comparison, language: Language) -> str:
    """What is planned for: model, method, lengths, GPUs."""
    work = comparison.work
    first = say(
        language, "title", model=comparison.shape.name, method=work.method,
        seq=f"{work.seq_len:,}", batch=work.global_batch,
    )  # fmt: skip
    return "\n".join([first, *gpu_lines(comparison.gpus, language)])


def gpu_lines(gpus: Sequence[GPU], language: Language) -> list[str]:
    """The GPUs with their memory, a line for those that are alike."""
    alike = Counter((one.name, gib(one.free_bytes), gib(one.total_bytes)) for one in gpus)
    return [
        say(language, "gpu", count=count, name=name, free=free, total=total)
        for (name, free, total), count in alike.items()
    ]


def table(comparison: Comparison, language: Language, every: bool = False) -> Table:
    """The candidates as a table: the best of each strategy, or every one.

    Why one cannot be run at all is said by `footnotes` below it.
    """
    from rich.table import Table

    found = Table(box=None, pad_edge=False, header_style="bold")
    found.add_column(say(language, "strategy"))
    if every:
        found.add_column(say(language, "recompute"), justify="center")
    per = "per_cpu" if comparison.gpus[0].cpu else "per_gpu"
    for name in ("micro", per, "speed"):
        found.add_column(say(language, name), justify="right")
    found.add_column(say(language, "verdict"))
    notes = _notes(comparison, every)
    for candidate in _shown(comparison, every):
        plan = candidate.plan
        again = [say(language, "yes") if plan.checkpointing else "–"] if every else []
        found.add_row(
            say(language, f"s_{plan.strategy}"),
            *again,
            f"{plan.micro_batch} x {plan.accumulation}",
            peaks(plan),
            f"{plan.tokens_per_s:,.0f}",
            _cell(candidate, notes, language),
            style=_style(candidate, comparison),
        )
    return found


def as_lines(comparison: Comparison, language: Language, every: bool = False) -> list[str]:
    """The same for a page that is too narrow for a table: a line for each candidate."""
    notes = _notes(comparison, every)
    return [
        say(
            language, "line", what=say(language, f"s_{one.plan.strategy}"), gib=peaks(one.plan),
            speed=f"{one.plan.tokens_per_s:,.0f}", fits=_cell(one, notes, language),
        )
        for one in _shown(comparison, every)
    ]  # fmt: skip


def footnotes(comparison: Comparison, language: Language, every: bool = False) -> list[str]:
    """Why what is marked with a number in the table cannot be run, whatever the memory."""
    notes = _notes(comparison, every)
    return [f"[{number}] {reason.words(language)}" for number, reason in enumerate(notes, 1)]


def peaks(plan: MemoryPlan) -> str:
    """Predicted GiB of a plan's GPUs: `17.9`, or `10.7–10.8` where they differ."""
    sizes = sorted({gib(part.total) for part in plan.predicted}, key=float)
    return sizes[0] if len(sizes) == 1 else f"{sizes[0]}–{sizes[-1]}"


def _shown(comparison: Comparison, every: bool) -> Sequence[Candidate]:
    return comparison.candidates if every else best_of_each(comparison)


def _notes(comparison: Comparison, every: bool) -> list[Reason]:
    """The refusals among what is shown, each once."""
    found: list[Reason] = []
    for one in _shown(comparison, every):
        if one.refused and one.refused not in found:
            found.append(one.refused)
    return found


def _cell(candidate: Candidate, notes: Sequence[Reason], language: Language) -> str:
    """Whether it fits, in a few cells."""
    if candidate.refused:
        return say(language, "no_note", number=notes.index(candidate.refused) + 1)
    if candidate.fits:
        return say(language, "yes")
    return say(language, "no_short", short=gib(candidate.short_bytes))


def _style(candidate: Candidate, comparison: Comparison) -> str | None:
    """How a row of the table is set off."""
    if candidate is comparison.chosen:
        return "bold green"
    return None if candidate.fits else "dim"


def verdict(candidate: Candidate, language: Language) -> str:
    """Fits, or what takes most and by how much it is too much."""
    why = reasons.verdict(candidate).words(language)
    return why if candidate.fits else say(language, "refused", why=why)


def describe(plan: MemoryPlan, language: Language) -> str:
    """A plan in a few words."""
    recompute = say(language, "recomputing" if plan.checkpointing else "keeping")
    return say(language, f"s_{plan.strategy}") + say(language, "comma") + say(
        language, "with", micro=plan.micro_batch, accumulation=plan.accumulation,
        recompute=recompute,
    )  # fmt: skip


def choice(comparison: Comparison, language: Language) -> str:
    """The choice in a sentence: how, on what, and how full that is; "" where nothing fits."""
    if comparison.chosen is None:
        return ""
    plan = comparison.chosen.plan
    free = {one.index: one.free_bytes for one in comparison.gpus}
    rooms = sorted({gib(free[index]) for index in plan.gpus}, key=float)
    key = "chosen_alone" if len(plan.gpus) == 1 else "chosen_gpus"
    return say(
        language, key, what=describe(plan, language), gib=peaks(plan), count=len(plan.gpus),
        free=rooms[0] if len(rooms) == 1 else f"{rooms[0]}–{rooms[-1]}",
    )  # fmt: skip


def reason(comparison: Comparison, language: Language) -> str:
    """Why the choice was made, in a sentence."""
    return joined([one.words(language) for one in reasons.of_choice(comparison)], language)


def cost(comparison: Comparison, steps: int | None, language: Language) -> str:
    """What a step and the run cost in time by the model of speed; "" where nothing fits.

    Args:
        comparison: with the choice.
        steps: of the whole training; None: not known, so it is said for a thousand examples.
        language: to say it in.
    """
    if comparison.chosen is None:
        return ""
    step_s, work = step_seconds(comparison), comparison.work
    used = 0 if comparison.gpus[0].cpu else len(comparison.chosen.plan.gpus)
    run_s = step_s * (THOUSAND / work.global_batch if steps is None else steps)
    run = say(language, "run_thousand" if steps is None else "run_steps",
              time=duration(run_s, language), steps=f"{steps or 0:,}")  # fmt: skip
    if used > 1:
        run += say(language, "gpu_hours", hours=f"{used * run_s / 3600:.1f}")
    key = "cost_paced" if comparison.paces else "cost"
    return say(
        language, key, step=duration(step_s, language), batch=work.global_batch,
        seq=f"{work.seq_len:,}", run=run,
    )  # fmt: skip


def alternatives(comparison: Comparison, language: Language) -> list[str]:
    """The two that come nearest to the choice, and why each was not it."""
    return [
        say(
            language, "alternative", what=describe(one.plan, language), gib=peaks(one.plan),
            why=why.words(language),
        )
        for one, why in reasons.alternatives(comparison)
    ]  # fmt: skip


def joined(parts: Sequence[str], language: Language) -> str:
    """Parts of a sentence as one; "" for none."""
    if not parts:
        return ""
    return "；".join(parts) + "。" if language == "zh" else "; ".join(parts) + "."


def changes(comparison: Comparison, language: Language) -> list[str]:
    """What would have to change, one line each; empty when something fits."""
    if comparison.chosen:
        return []
    if not comparison.changes:
        return [say(language, "nothing_helps")]
    lines = []
    now = {"seq_len": comparison.work.seq_len, "gpus": len(comparison.gpus)}
    for change in comparison.changes:
        value = change.value // GIB if change.kind in ("gpu_bytes", "host_bytes") else change.value
        lines.append(say(
            language, change.kind, value=f"{value:,}", now=f"{now.get(change.kind, 0):,}",
            strategy=say(language, f"s_{change.strategy}"),
        ))  # fmt: skip
    if len(lines) == 1:
        return [say(language, "nothing_but", change=lines[0])]
    return [say(language, "nothing"), *(f"  - {line}" for line in lines)]


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
    return joined(parts, language)
