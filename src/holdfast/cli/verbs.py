"""Commands on a run folder or a model: power, clean, export, ship, merge, chat."""

from __future__ import annotations

import shlex
import sys
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from holdfast.cli.front import Json, say, shown, tell, with_run
from holdfast.cli.grouping import grouped
from holdfast.errors import UsageError
from holdfast.progress.translation import told

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")]


def power(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="A run, whose flips are taken. Left out: assumed."),
    ] = None,
    items: Annotated[
        int | None, typer.Option("--items", min=1, help="So many items. Left out: the run's.")
    ] = None,
    flips: Annotated[
        float | None,
        typer.Option("--flips", min=0, max=0.5, help="Share of answers that flip each way: 0.05."),
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", min=1, help="Trainings. Left out: the run's, or 1.")
    ] = None,
    margin: Annotated[
        float | None, typer.Option("--margin", help="Loss to be allowed: 0.02 is two points.")
    ] = None,
    chance: Annotated[
        float,
        typer.Option("--power", min=0.5, max=0.999, help="How often a loss is to be seen."),
    ] = 0.8,
    as_json: Json = False,
) -> None:
    """Say which loss so many items can show, and how many items a margin takes."""
    from holdfast.analysis.selection import visible
    from holdfast.analysis.stats.detectable import Design
    from holdfast.runs.plan import read_plan

    allowed, measures = None if margin is None else abs(margin), list[str]()
    if allowed is not None and not 0 < allowed < 1:
        raise UsageError(
            f"{margin:g} is no share", where="--margin", remedy="write 0.02 for two points"
        )
    if folder is not None:
        run = read_plan(folder)
        found = visible.of_run(run, allowed, chance, items=items, churn=flips, seeds=seeds)
        measures = [name for name, task in run.tasks.items() if task.unit]
    else:
        churn = visible.ASSUMED if flips is None else flips
        own = visible.ALLOWED if allowed is None else allowed
        found = [
            visible.visible("", Design(n, churn, seeds or 1), power=chance, margin=own)
            for n in ([items] if items else visible.SIZES)
        ]
    lines = visible.table(found, chance) if found else []
    if measures:
        lines.append(
            f"{', '.join(measures)}: no answers flip in a measure; its interval in the report says "
            "what so many texts can show"
        )
    say(as_json, [asdict(one) for one in found], "\n".join(lines))


def clean(
    folder: RunFolder,
    yes: Annotated[bool, typer.Option("--yes", help="Delete it. Left out: only say what.")] = False,
    as_json: Json = False,
) -> None:
    """Free what a run does not need: old checkpoints, what was begun in vain. Says it first."""
    from holdfast.study import cleaning

    found = cleaning.clean(folder) if yes else cleaning.spare(folder)
    total = sum(one.bytes for one in found)
    lines = [f"{one.bytes:>16,} bytes  {one.path} ({told(one.why)})" for one in found]
    if not found:
        lines.append("Nothing can be freed.")
    elif yes:
        lines.append(f"Freed {total:,} bytes in {len(found)} folders.")
    else:
        lines.append(f"{total:,} bytes in {len(found)} folders can be freed.")
        lines.append(f"Next: holdfast clean {shlex.quote(str(folder))} --yes")
    spare = [{"path": str(one.path), "bytes": one.bytes, "why": one.why} for one in found]
    say(as_json, {"spare": spare, "bytes": total, "deleted": yes}, "\n".join(lines))


def export(
    folder: RunFolder,
    items: Annotated[str, typer.Option("--items", help="The task whose items are written.")],
    to: Annotated[
        Path | None, typer.Option("--to", help="The file to write. Left out: TASK.jsonl.")
    ] = None,
    arm: Annotated[
        str, typer.Option("--arm", help="As this arm is asked them, prompt and all.")
    ] = "base",
    as_json: Json = False,
) -> None:
    """Write a task's items, to be answered elsewhere and read by `compare --replies`."""
    from holdfast.comparison import opened

    session = opened.session_of(folder)
    rows, file = opened.items_of(session, items, arm), to or Path(f"{items}.jsonl")
    opened.write_items(rows, file)
    study, task = folder / "study.yaml", session.plan.study.tasks[items]
    how = f"--study {shlex.quote(str(study))}" if study.is_file() else "--set ... as before"
    few = f" --limit {task.limit}" if task.limit and not study.is_file() else ""
    following = f"holdfast compare --replies BASE.jsonl TUNED.jsonl --tasks {items} {how}{few}"
    said = (
        f"Wrote {len(rows):,} items to {file}; fill in `reply` for each model.\nNext: {following}"
    )
    say(as_json, {"file": str(file), "items": len(rows), "next": following}, said)


@dataclass(frozen=True, slots=True)
class Exporting:
    """What is exported, how, and where it goes."""

    form: Annotated[
        Literal["adapter", "merged", "nf4", "safetensors", "gguf"] | None,
        typer.Option(
            "--form",
            "--format",
            help="adapter, merged, nf4 or gguf (by llama.cpp's converter). Left out, or "
            "safetensors: adapter; merged after full training.",
        ),
    ] = None
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", help="Judge this one alone: sft/seed1/checkpoint-60@0.8."),
    ] = None
    push: Annotated[
        str | None,
        typer.Option("--push", help="Say what would go to the hub as owner/name; --yes sends it."),
    ] = None
    yes: Annotated[bool, typer.Option("--yes", help="With --push: send it.")] = False


@grouped
def ship(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished run.")],
    to: Annotated[Path | None, typer.Option("--to", help="The folder to make.")] = None,
    how: Exporting = Exporting(),
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Decide only; export nothing.")
    ] = False,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Export whatever the answer; the card says it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Say which checkpoint may be shipped, export it, and measure the export again."""
    from holdfast import shipping
    from holdfast.shipping.push import check_name

    form = None if how.form == "safetensors" else how.form
    if how.push is None and how.yes:
        raise UsageError("--yes goes with --push", remedy="add --push owner/name")
    if how.push is not None and (dry_run or to is None):
        raise UsageError(
            "--push sends what --to makes", where="--push", remedy="add --to, without --dry-run"
        )
    if how.push is not None:
        check_name(how.push)  # before anything is measured
    with shown(quiet=as_json or dry_run) as bars:
        found = shipping.ship(
            folder, to, bars, form, checkpoint=how.checkpoint, dry_run=dry_run, anyway=anyway
        )
    about, text = found.to_json(), with_run(found.text(), folder)
    if how.push is not None and found.folder is None:
        text += f"\nNothing goes to {how.push}: nothing was exported."
    elif how.push is not None:
        sent = found.push(how.push, how.yes)
        about, text = about | {"push": asdict(sent)}, f"{text}\n\n{sent.text()}"
    say(as_json, about, text)
    raise typer.Exit(found.exit_code)


def merge(
    base: Annotated[str, typer.Argument(help="Folder, hub id or GGUF file.")],
    adapter: Annotated[str, typer.Argument(help="Folder or hub id of a PEFT adapter.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to make.")],
    any_base: Annotated[
        bool, typer.Option("--any-base", help="Merge an adapter that names another base.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Merge an adapter into its base: a folder that other programs load. Measures nothing."""
    from holdfast.shipping.export import merge as merged

    with shown(quiet=as_json) as bars:
        made = merged(base, adapter, to, any_base, bars)
    following = f"holdfast compare {shlex.quote(base)} {shlex.quote(str(made))}"
    say(
        as_json,
        {"folder": str(made), "next": following},
        f"Merged into {made}; it was not measured.\nNext: {following}",
    )


def chat(
    folder: RunFolder,
    arm: Annotated[
        list[str] | None, typer.Option("--arm", help="Beside the base; give it again for more.")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option("--max-tokens", min=1, help="Left out: as it was measured.")
    ] = None,
) -> None:
    """Ask the base and arms of a run side by side, a line each.

    Lines come from the terminal or a pipe; `/new` begins anew, and Ctrl-D ends it.
    """
    from holdfast.comparison.opened import Talk

    with closing(Talk(folder, arm or [], tokens)) as talk:
        for notice in talk.notices:
            tell(f"Note: {notice}")
        wide = max(len(side.name) for side in talk.sides)
        while (text := _line()) is not None:
            if text == "/new":
                talk.forget()
            elif text:
                for name, said in talk.say(text):
                    say(False, None, f"{name:>{wide}}  {' '.join(said.split())}")
                    sys.stdout.flush()


def _line() -> str | None:
    """The next question; None at the end."""
    if sys.stdin.isatty():
        sys.stderr.write("> ")
        sys.stderr.flush()
    text = sys.stdin.readline()
    return text.strip() if text else None
