"""Reads a training file of Axolotl or LLaMA-Factory as parts of a study.

Every key ends in one of four lists: taken over, off there (and so here), without a counterpart, or
to be filled in. Settings of `train` are told by the names of `config.names`, and each is tried on
the section itself before it is taken. Nothing is read but the file, and LLaMA-Factory's
``dataset_info.json`` beside its data.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from holdfast.config.load import parse
from holdfast.config.mistakes import known_keys
from holdfast.config.model import ModelSpec
from holdfast.config.names import FOREIGN
from holdfast.config.places import text_of
from holdfast.config.programs import (
    ATTENTION,
    AXOLOTL,
    COLUMNS,
    FORMS,
    KINDS,
    LLAMA_FACTORY,
    MODEL,
    TRACKERS,
    TURNS,
    USUAL,
    WITHOUT,
    program_of,
)
from holdfast.config.training import TrainSpec, own_name
from holdfast.errors import StudyError

Section = dict[str, object]
UNSAID: tuple[object, ...] = (None, "", "none", "None", [], {}, "disabled", -1)
"""Values that say nothing (`max_steps: -1`)."""


@dataclass(slots=True)
class Imported:
    """What a file came to.

    Attributes:
        program: whose it is.
        model: the section.
        train: the section, under the names here.
        data: sources to train on.
        seeds: of the study; (): not said.
        track: settings of trackers, by name.
        taken: keys there, and what became of them.
        off: keys that say nothing, or switch off there what is off here.
        usual: settings that were left to the program's defaults, which are written out.
        lost: keys without a counterpart, each with its value and why.
        open: what the user has to fill in.
    """

    program: str
    model: Section = field(default_factory=dict)
    train: Section = field(default_factory=dict)
    data: list[Section] = field(default_factory=list)
    seeds: tuple[int, ...] = ()
    track: dict[str, Section] = field(default_factory=dict)
    taken: list[tuple[str, str]] = field(default_factory=list)
    off: list[str] = field(default_factory=list)
    usual: list[str] = field(default_factory=list)
    lost: list[tuple[str, str, str]] = field(default_factory=list)
    open: list[str] = field(default_factory=list)

    def lose(self, key: str, value: object, why: str) -> None:
        """Say that a key has no counterpart."""
        text = json.dumps(value, ensure_ascii=False, default=str)
        self.lost.append((key, text if len(text) <= 60 else f"{text[:57]}...", why))


def imported(values: Mapping[str, object], source: Path) -> Imported:
    """The parts of a study that a file of another program describes.

    Args:
        values: what its YAML holds.
        source: the file; relative paths in it are taken from the working folder, as both programs
            do.

    Raises:
        StudyError: it is of neither program.
    """
    program = program_of(values)
    if not program:
        raise StudyError(
            "is no file of Axolotl (`base_model`, `datasets`) or LLaMA-Factory "
            "(`model_name_or_path`, `dataset`)",
            where=str(source), remedy="name the YAML file that the training was started with",
        )  # fmt: skip
    found = Imported(program)
    rest = dict(values)
    _datasets(found, rest)
    _four_bits(found, rest)
    settings: Section = {}
    for key, value in rest.items():
        if key == "seed" and isinstance(value, int):
            found.seeds = (value,)
            found.taken.append((key, "seeds"))
        elif key in ("report_to", "use_wandb", "wandb_project", "use_tensorboard"):
            _tracker(found, key, value)
        elif _unsaid(value):
            found.off.append(key)
        elif key in known_keys(TrainSpec):
            settings[key] = value
        elif key in MODEL:
            _of_the_model(found, key, value)
        elif value is False:
            found.off.append(key)
        elif key in ATTENTION:
            _of_the_model(found, key, value)
        elif key in WITHOUT:
            found.lose(key, value, WITHOUT[key])
        else:
            found.lose(key, value, FOREIGN.get(key, "there is nothing like it here"))
    said = {own_name(key) for key in settings}
    usual = {key: one for key, one in USUAL[program].items() if own_name(key) not in said}
    if program == LLAMA_FACTORY and isinstance(rank := settings.get("lora_rank", 8), int):
        usual |= {} if "lora.alpha" in said else {"lora_alpha": 2 * rank}
    _settings(found, usual | settings)
    found.usual = [key for key in usual if key in dict(found.taken)]
    found.taken = [one for one in found.taken if one[0] not in usual]
    if "cutoff_len" in settings:
        found.lose("cutoff_len", settings["cutoff_len"], "what is longer is left out, not cut")
    return found


def _unsaid(value: object) -> bool:
    return not isinstance(value, bool) and value in UNSAID


def _settings(found: Imported, settings: Mapping[str, object]) -> None:
    """Take each setting that `train` takes beside those before it; the rest is lost, with why."""
    taken: Section = {}
    left = dict(settings)
    for last in (False, True):  # what needs another setting may stand before it
        for key, value in list(left.items()):
            try:
                parse(TrainSpec, {**taken, key: value}, "")
            except StudyError as error:
                if last:
                    why = " ".join(error.message.split()).removeprefix("study: ")
                    found.lose(key, value, why)
                continue
            taken[key] = value
            del left[key]
    made = parse(TrainSpec, taken, "")
    found.train = made.model_dump(mode="json", exclude_unset=True)
    found.taken += [(key, "train") for key in settings if key in taken]


def _four_bits(found: Imported, rest: Section) -> None:
    """`adapter: lora` on a base in 4 bits is `method: qlora` here."""
    bits = rest.get("load_in_4bit") is True or rest.get("quantization_bit") == 4
    name = "adapter" if "adapter" in rest else "finetuning_type"
    if bits and rest.get(name, "lora") in ("lora", "qlora", None):
        for key in ("load_in_4bit", "quantization_bit", name):
            if rest.pop(key, None) is not None:
                found.taken.append((key, "train.method: qlora"))
        rest["method"] = "qlora"


def _of_the_model(found: Imported, key: str, value: object) -> None:
    own = MODEL.get(key, "attn_implementation")
    if key in ATTENTION:
        value = KINDS.get(value, value) if isinstance(value, str) else ATTENTION[key]
    if value is None:
        return found.off.append(key)
    if found.model.get(own, value) != value:
        return found.lose(key, value, f"model.{own} is {found.model[own]} already")
    try:
        parse(ModelSpec, {"id": "lab", **found.model, own: value}, "")
    except StudyError as error:
        return found.lose(key, value, " ".join(error.message.split()))
    found.model[own] = value
    return found.taken.append((key, f"model.{own}"))


def _tracker(found: Imported, key: str, value: object) -> None:
    names = value if isinstance(value, list) else [value]
    if key != "report_to" and value and not _unsaid(value):
        names = ["tensorboard" if key == "use_tensorboard" else "wandb"]
    for name in names:
        if not name or _unsaid(name):
            found.off.append(key)
        elif name not in TRACKERS:
            found.lose(key, name, f"no such tracker; `track:` takes {', '.join(TRACKERS)}")
        else:
            settings = found.track.setdefault(str(name), {})
            settings |= {"project": value} if key == "wandb_project" else {}
            found.taken.append((key, f"track: {name}"))


def _datasets(found: Imported, rest: Section) -> None:
    """The sets to train on."""
    if found.program == AXOLOTL:
        given = rest.pop("datasets", None)
        for number, one in enumerate(given if isinstance(given, list) else [], 1):
            if isinstance(one, Mapping) and isinstance(one.get("path"), str):
                _of_axolotl(found, f"datasets[{number}]", one)
            else:
                found.lose(f"datasets[{number}]", one, "names no path")
    else:
        _of_llama_factory(found, rest)
    if not found.data:
        found.open.append("tasks.mine.train_path: what is trained on")


def _of_axolotl(found: Imported, name: str, one: Mapping[str, object]) -> None:
    path = str(one["path"])
    here = Path(path).expanduser()
    left = {key: value for key, value in one.items() if value and not _unsaid(value)}
    del left["path"]
    files = left.pop("data_files", None)
    paths = [path]
    if files is not None and (path in FORMS or here.is_dir()):
        folder = Path() if path in FORMS else Path(path)
        paths = [str(folder / str(one)) for one in (files if isinstance(files, list) else [files])]
    elif files is not None:
        found.lose(f"{name}.data_files", files, "of a hub set all files of a split are read")
    is_file = here.exists() or bool(here.suffix) or path.startswith((".", "/", "~"))
    is_file = is_file or paths != [path]
    source: Section = {}
    found.taken.append((name, "tasks.mine.train_path"))
    columns: dict[str, str] = {}
    for key, value in left.items():
        if key == "type" and isinstance(value, Mapping):
            for inner, column in value.items():
                _column(found, f"{name}.type.{inner}", inner, column, columns)
        elif key in ("type", "ds_type") or (is_file and (key, value) == ("split", "train")):
            found.taken.append((f"{name}.{key}", "told by the file and its columns"))
        elif key in ("name", "split", "revision") and (not is_file or here.is_dir()):
            if "[" in str(value) or (is_file and key == "revision"):
                found.lose(f"{name}.{key}", value, "a part is `share` or `count` of the source")
            else:
                source["config" if key == "name" else key] = value
        else:
            _column(found, f"{name}.{key}", key, value, columns)
    more: Section = source | ({"columns": columns} if columns else {})
    found.data += [{"path" if is_file else "hub": place, **more} for place in paths]


def _column(
    found: Imported, name: str, key: object, column: object, columns: dict[str, str]
) -> None:
    if key in COLUMNS and isinstance(column, str):
        if not (COLUMNS[str(key)] == "messages" and column in TURNS):
            columns[COLUMNS[str(key)]] = column
        found.taken.append((name, "columns"))
    else:
        found.lose(name, column, "the form of a row is told by its columns: docs/tasks/jsonl.md")


def _of_llama_factory(found: Imported, rest: Section) -> None:
    """Sets are named there, and described in a file beside the data."""
    place = rest.pop("dataset_dir", None)
    folder = Path(str(place or "data"))
    if place and not folder.is_dir():
        found.lose("dataset_dir", place, "no such folder is here, from which sets could be told")
    elif place:
        found.taken.append(("dataset_dir", "tasks.mine.train_path"))
    named = rest.pop("dataset", None)
    most = rest.pop("max_samples", None)
    file = folder / "dataset_info.json"
    try:
        info = json.loads(text_of(file))
    except (OSError, ValueError):
        info = {}
    names = named if isinstance(named, list) else str(named or "").split(",")
    for name in filter(None, (str(one).strip() for one in names)):
        about = info.get(name) if isinstance(info, dict) else None
        if not isinstance(about, Mapping):
            found.open.append(f"tasks.mine.train_path: where {name!r} is; {file} does not say")
            found.taken.append((f"dataset: {name}", "to be filled in"))
            found.data.append({"path": f"FILL-IN-{name}.jsonl"})  # which no run takes for data
            continue
        source: Section = {}
        columns: dict[str, str] = {}
        for key, value in about.items():
            if key == "file_name":
                source["path"] = str(folder / str(value))
            elif key in ("hf_hub_url", "ms_hub_url") and "path" not in source:
                source["hub"] = value
            elif key in ("subset", "split"):
                source["config" if key == "subset" else key] = value
            elif key == "num_samples":
                source["count"] = value
            elif key == "columns" and isinstance(value, Mapping):
                for inner, column in value.items():
                    _column(found, f"{name}.{inner}", inner, column, columns)
            elif key not in ("formatting", "tags") and value and not _unsaid(value):
                found.lose(f"{name}.{key}", value, "there is nothing like it here")
        if isinstance(most, int):
            source["count"] = most
        found.data.append(source | ({"columns": columns} if columns else {}))
        found.taken.append((f"dataset: {name}", "tasks.mine.train_path"))
    found.taken += [("max_samples", "count of each source")] * isinstance(most, int)
