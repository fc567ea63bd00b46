"""The studies that come with the package, and the one that is written from a few answers.

Commented YAML files: `hw6` (GSM8K against AILuminate on a real model), `hw6_faithful` (the same as
the course's starter does it), `jsonl` (your own data) and `lab` (the built-in model; what `holdfast
demo` runs). `written` makes a study like them of what `holdfast init` was told.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from holdfast.errors import UsageError
from holdfast.registry import nearest
from holdfast.types import LAB

DEMO = "lab"
QUICK = (
    "name=demo-quick",
    "tasks.lab_math.items=60",
    "tasks.lab_math.train_items=200",
    "tasks.lab_refuse.items=60",
    "tasks.lab_help.items=60",
    "train.max_steps=60",
    "train.checkpoints=2",
)
PLAIN = """\
train:                          # every arm inherits this: equal steps, equal tokens
  method: {method}
  lora: {{r: 16, alpha: 16, dropout: 0.05}}
  learning_rate: 2.0e-4
  num_train_epochs: 2
  global_batch_size: 8
  checkpoints: 5                # each is measured: the last one is rarely the best trade
"""
OF_THE_LAB = """\
train:                          # every arm inherits this: equal steps, equal tokens
  method: lora
  lora: {r: 16, alpha: 32, dropout: 0.05}
  learning_rate: 0.004          # the built-in model is small
  warmup_steps: 0.05
  max_steps: 160
  per_device_train_batch_size: 16
  gradient_accumulation_steps: 1
  optim: adamw_torch
  gradient_checkpointing: false
  checkpoints: 5                # each is measured: the last one is rarely the best trade
"""
ARMS = """\
arms:                           # `base`, the untouched model, is always there
  sft: {{}}                       # plain fine-tuning
  replay:                       # the same, with some of the model's own old answers mixed in
    data: [{{replay: {{{replay}}}}}]
"""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a study is made of.

    Attributes:
        name: of the run folder.
        model: hub id, folder or `lab`; or the section.
        target: name and section of the task that is learned.
        retained: sections of those that must be kept, by name.
        margins: of the rule, by name: a share below 0, and why that one.
        gpus: as `hardware.gpus` has them, or `cpu`; "": those that are found.
        train: the section; {}: the starting recipe.
        more: further sections.
    """

    name: str
    model: str | Mapping[str, object]
    target: tuple[str, Mapping[str, object]]
    retained: Mapping[str, Mapping[str, object]]
    margins: Mapping[str, tuple[float, str]]
    gpus: str = ""
    train: Mapping[str, object] = field(default_factory=dict)
    more: Mapping[str, object] = field(default_factory=dict)


def recipes() -> dict[str, Path]:
    """The files by name."""
    return {path.stem: path for path in sorted(Path(__file__).parent.glob("*.yaml"))}


def purpose(file: Path) -> str:
    """What a recipe is for: the first line of its comment."""
    with file.open(encoding="utf-8") as lines:
        return next(lines).strip("# \n")


def recipe_file(name: str) -> Path:
    """The file of a recipe.

    Raises:
        UsageError: no such recipe; the message tells them all.
    """
    files = recipes()
    if name not in files:
        wide = max(map(len, files))
        raise UsageError(
            f"no recipe is called {name!r}{nearest(name, files)}",
            remedy="\n    ".join(
                ["one of these:", *(f"{one:<{wide}}  {purpose(files[one])}" for one in files)]
            ),
        )
    return files[name]


def written(chosen: Chosen) -> str:
    """The text of a study, with comments."""
    target, section = chosen.target
    lab = chosen.model == LAB
    lines = [
        f"# Fine-tune on {target} and see what becomes of {_listed(chosen.retained)}.",
        "# Every key: `holdfast schema`. Tasks, remedies, judges: `holdfast tasks`, `methods`, "
        "`judges`.",
        f"name: {value(chosen.name)}",
        f"model: {value(chosen.model)}",
        f"seeds: {value(chosen.more.get('seeds') or [1126])}".ljust(31)
        + " # more seeds, narrower intervals: [1126, 1127, 1128]",
        "",
        "tasks:",
        *_section(target, {"role": "target", **section}),
    ]
    for name, kept in chosen.retained.items():
        lines += _section(name, {"role": "retained", **kept})
    gpus = chosen.gpus if chosen.gpus != "cpu" else ""
    method = "auto                  # lora, or qlora where memory is short" if gpus else "lora"
    train = OF_THE_LAB if lab else PLAIN.format(method=method)
    if chosen.train:
        train = "\n".join(
            ["train:", *(f"  {key}: {value(one)}" for key, one in chosen.train.items())]
        )
    replay = "share: 0.1, prompts: lab, max_new_tokens: 64" if lab else "share: 0.05"
    lines += ["", *train.splitlines(), "", *ARMS.format(replay=replay).splitlines()]
    if lab:
        lines += ["", "answer:", "  sampling: {max_new_tokens: 96}"]
    if chosen.margins:
        lines += ["", "ship:                           # what may be lost, as a share, by the"]
        lines += ["  retain:                       # interval's worse end"]
        lines += [
            f"    {value(name)}: {margin:g}".ljust(31) + f" # {why}"
            for name, (margin, why) in chosen.margins.items()
        ]
    lines += [f"{key}: {value(one)}" for key, one in chosen.more.items() if key != "seeds"]
    text = "\n".join(lines) + "\n"
    return f"{text}\n{hardware(chosen.gpus)}" if chosen.gpus else text


def _section(name: str, section: Mapping[str, object]) -> list[str]:
    return [f"  {value(name)}:", *(f"    {key}: {value(one)}" for key, one in section.items())]


def value(given: object) -> str:
    """As YAML, which JSON is too: without quotes where a text is read as itself."""
    if isinstance(given, str) and re.fullmatch(r"[A-Za-z./~][\w./-]*", given):
        return given if yaml.safe_load(given) == given else json.dumps(given)
    return json.dumps(given, ensure_ascii=False)


def hardware(gpus: str) -> str:
    """The section that says where a study runs.

    Args:
        gpus: as ``--gpus`` has them, or ``cpu``.
    """
    return "hardware:\n" + ("  device: cpu\n" if gpus == "cpu" else f"  gpus: {value(gpus)}\n")


def _listed(names: Mapping[str, object]) -> str:
    *first, last = names or ["what it could do before"]
    return f"{', '.join(first)} and {last}" if first else last
