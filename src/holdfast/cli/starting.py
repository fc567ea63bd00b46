"""Commands that write what one begins with: a study, and plug-ins with their tests."""

from __future__ import annotations

import keyword
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Annotated, Literal

import typer
import yaml

from holdfast.cli.advising import with_advice
from holdfast.cli.front import Json, say
from holdfast.cli.grouping import grouped
from holdfast.cli.guide import Guide, Told
from holdfast.config import Study, recipes
from holdfast.errors import DoesNotFit, FolderError, HoldfastError, StudyError, UsageError
from holdfast.progress import translation
from holdfast.progress.rendered import study_in_language

DEFAULT = "hw6"
SCHEMA = "study.schema.json"
TEMPLATES = Path(__file__).parent / "new"
OWN_TASK = "mine"
Keep = Annotated[
    list[str] | None,
    typer.Option("--keep", help="What it must not lose: TASK, TASK=FILE, harness:NAME, a file."),
]
Entry = Literal["data", "loss", "weights", "ask"]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Of the file, NAME.py.")]


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a study begins with: hardware, arms and the time for them."""

    gpus: Annotated[str | None, typer.Option("--gpus", help="2x24GiB, rtx4090, cpu.")] = None
    recommend: Annotated[
        bool, typer.Option("--recommend", help="The arms that are worth trying first, and why.")
    ] = False
    hours: Annotated[float | None, typer.Option("--hours", min=0, help="At hand for training.")] = (
        None
    )


@grouped
def init(
    study: Annotated[Path, typer.Argument(help="The file to write.")] = Path("study.yaml"),
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", help=f"{', '.join(recipes.recipes())}: see `holdfast recipes`."),
    ] = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Hub id, folder, GGUF file or lab.")
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data", help="What it learns: gsm8k, lab_math, or a file; a second one measures."
        ),
    ] = None,
    keep: Keep = None,
    begin: Beginning = Beginning(),
    as_json: Json = False,
) -> None:
    """Write a commented study; a terminal is asked for what no flag says."""
    from holdfast.cli.sections import split

    _is_new(study)
    if begin.hours is not None and not begin.recommend:
        raise UsageError("goes with --recommend", where="--hours", remedy="add --recommend")
    told = Told(model or "", split(data or ()), split(keep or ()), begin.gpus or "")
    terminal = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    if recipe is None and (terminal or told != Told()):
        guide = Guide(study, told, terminal)
        text, notes = guide.text(), guide.notes
    else:
        text, notes = _of_recipe(recipe or DEFAULT, study, told)
    if begin.recommend:
        text, why = with_advice(text, _built(text, study), str(study), begin.hours)
        notes = [*notes, *why]
    _finish(study, text, notes, as_json)


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Of Axolotl or LLaMA-Factory.")],
    study: Annotated[Path, typer.Argument(help="The file to write.")] = Path("study.yaml"),
    test: Annotated[
        str | None, typer.Option("--test", help="A file with other questions, which measures.")
    ] = None,
    keep: Keep = None,
    as_json: Json = False,
) -> None:
    """Make a study of another program's file, and list what has no counterpart."""
    from holdfast.cli.sections import split
    from holdfast.config.imported import imported
    from holdfast.config.places import text_of
    from holdfast.config.yaml_text import read_yaml

    _is_new(study)
    try:
        values, _ = read_yaml(text_of(file), str(file), "name the YAML file of the training")
    except (OSError, UnicodeError) as error:
        raise StudyError(
            f"cannot be read: {error}", where=str(file), remedy="check the path"
        ) from error
    if not isinstance(values, dict):
        raise StudyError("is no mapping", where=str(file), remedy="name the YAML file")
    found = imported(values, file)
    guide = Guide(study, Told(keep=split(keep or ())), terminal=False)
    text = guide.of_another(found, file, test or "")
    lost = [line for key, value, why in found.lost for line in (f"  {key}: {value}", f"    {why}")]
    opened = [f"  {one}" for one in found.open]
    notes = [
        f"{file} is of {found.program}: {len(found.taken)} keys are taken over, "
        f"{len(found.off)} say nothing, or switch off what is off here; {len(found.usual)} that "
        f"it leaves to {found.program}'s defaults are written out.",
        *(["Without a counterpart:", *lost] if lost else ["Every key has a counterpart."]),
        *(["To be filled in before it runs:", *opened] if opened else []),
        *guide.notes,
    ]
    _finish(study, text, notes, as_json)


def new_task(name: Name, as_json: Json = False) -> None:
    """Write a task of your own, and a test that passes."""
    _new("task", name, as_json, "tasks: {NAME: {kind: FILE}}")


def new_judge(name: Name, as_json: Json = False) -> None:
    """Write a judge of your own, and a test that passes."""
    _new("judge", name, as_json, "tasks: {ailuminate: {path: ..., judge: FILE}}")


def new_method(
    name: Name,
    entry: Annotated[
        Entry, typer.Option("--list", help="The list of an arm that it belongs to.")
    ] = "data",
    as_json: Json = False,
) -> None:
    """Write a remedy of your own, and a test that passes."""
    _new(entry, name, as_json, f"arms: {{NAME: {{{entry}: [FILE]}}}}")


def _new(kind: str, name: str, as_json: bool, usage: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise UsageError(
            "is no name of a Python file: small letters, digits and _, and no word of Python's",
            where=name, remedy="for example: my_task",
        )  # fmt: skip
    if name in sys.stdlib_module_names:
        raise UsageError(
            "is a module of Python's own, which the file would hide", where=name,
            remedy=f"for example: my_{name}",
        )  # fmt: skip
    words = {"name": name, "Class": "".join(part.capitalize() for part in name.split("_"))}
    made = {
        Path(f"{name}.py"): TEMPLATES / f"{kind}.py.txt",
        Path(f"test_{name}.py"): TEMPLATES / f"test_{kind}.py.txt",
    }
    for file in made:
        _is_new(file)
    for file, template in made.items():
        _write(file, Template(template.read_text("utf-8")).substitute(words))
    here = usage.replace("NAME", name).replace("FILE", f"{name}.py:{words['Class']}")
    following = f"{Path(sys.executable).name} -m pytest test_{name}.py"
    about = {"files": [str(file) for file in made], "study": here, "next": following}
    lines = [f"Wrote {', '.join(map(str, made))}.", f"In a study: {here}", f"Next: {following}"]
    say(as_json, about, "\n".join(lines))


def _is_new(file: Path) -> None:
    if file.exists():
        raise UsageError("exists already", where=str(file), remedy="name another file")


def _write(file: Path, text: str) -> None:
    from holdfast.runs import store

    try:
        store.write_text(file, text)
    except OSError as error:
        raise FolderError(
            f"cannot be written: {error.strerror}", where=str(file), remedy="choose another place"
        ) from error


def _finish(study: Path, text: str, notes: Sequence[str], as_json: bool) -> None:
    """Write a study once it is known to be one, with the schema beside it, and say what is next."""
    import json

    from holdfast.cli import study_schema

    made = _built(text, study)
    beside = study.parent / SCHEMA
    if beside.exists() and study_schema.ID not in beside.read_text("utf-8", "replace"):
        raise FolderError(
            "is no schema of Holdfast's", where=str(beside), remedy="rename it, or another folder"
        )
    _write(beside, json.dumps(study_schema.study_schema(), ensure_ascii=False) + "\n")
    _write(study, f"# yaml-language-server: $schema={SCHEMA}\n{study_in_language(text)}")
    following = f"holdfast run {study} --dry-run"
    fits = _fits(study, made.hardware.gpus)
    lines = [f"Wrote {study}, and {SCHEMA} for editors.", *notes, *fits, f"Next: {following}"]
    about = {
        "study": str(study),
        "schema": str(beside),
        "notes": [*notes, *fits],
        "next": following,
    }
    say(as_json, about, "\n".join(lines))


def _built(text: str, study: Path) -> Study:
    """The study that a text is; its paths are taken from the folder of its file."""
    from holdfast.config import load

    return load.build(yaml.safe_load(text), (), str(study), folder=study.absolute().parent)


def _fits(study: Path, gpus: str | None) -> list[str]:
    """How it would run on the GPUs that it names, by formula; nothing where nobody can tell yet."""
    from holdfast.cli.planning import answer
    from holdfast.memory.planner import explanation
    from holdfast.memory.planner.request import PlanRequest

    if not gpus:
        return []
    try:
        report = answer(PlanRequest("", trace=False), study)
    except DoesNotFit as error:
        return [f"On {gpus}: {error.message}"]
    except HoldfastError as error:
        return [f"Whether it fits {gpus} is not known yet: {error.message.splitlines()[0]}"]
    if report.plan is None:
        return [f"It does not fit {gpus}; what would: holdfast plan {study}"]
    return [f"On {gpus}: {explanation.describe(report.plan, 'en')}. More: holdfast plan {study}"]


def _of_recipe(name: str, study: Path, told: Told) -> tuple[str, list[str]]:
    """A recipe as it is, with the places that hold from where it is written."""
    from holdfast.cli.sections import from_study, origin

    if told.data or told.keep:
        raise UsageError("--data and --keep go without --recipe", remedy="leave one of them out")
    text = study_in_language(recipes.recipe_file(name).read_text(encoding="utf-8"))
    text = text.replace(f"examples/{name}.yaml", str(study))
    text = re.sub(r"examples/(\w+)\.yaml", rf"{translation.told('the recipe')} \1", text)
    if told.model:
        own = recipes.value(told.model)
        text = re.sub(r"(?m)^model: *[^\s#]+", lambda _: f"model: {own}", text)
    if told.gpus:
        text += "\n" + recipes.hardware(told.gpus)
    notes: list[str] = []
    for task, section in yaml.safe_load(text)["tasks"].items():
        for key in ("path", "train_path"):
            place = section.get(key)
            if place is None or (study.parent / place).exists():
                continue
            if Path(place).exists():
                text = text.replace(f"{key}: {place}", f"{key}: {from_study(study, place)}")
            else:
                note = f"Not there yet: {place} ({origin(section.get('kind') or task)})"
                notes += [note] * (note not in notes)
    return text, notes
