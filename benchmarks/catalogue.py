"""Counts every model of the catalogue again, with transformers' own classes on the meta device.

Prints what differs, and with `--write` puts the counts into `catalogue.json`, with the matrices of
every family whose layers are not counted from its fields. New entries are written there by hand,
with `parameters` 0 and where their figures were seen.

    python benchmarks/catalogue.py [--write] [--only NAME]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import warnings
from typing import Any

import torch
from transformers import CONFIG_MAPPING

from holdfast.config import LoraSpec, TrainSpec
from holdfast.errors import HoldfastError
from holdfast.memory.model import catalogue
from holdfast.memory.model.names import OWN_CODE
from holdfast.memory.model.parts import class_of
from holdfast.memory.model.shape import Shape, from_config
from holdfast.memory.model.targets import lora_parameters
from holdfast.memory.trace.class_counter import fields, matrices
from holdfast.train.adapter_check import build

RANK = 8


def built(config: dict[str, Any]) -> Any:
    """A model as it is loaded for training, without weights."""
    left = ("quantization_config", "architectures", "model_type")
    values = {name: value for name, value in config.items() if name not in left}
    kind = config["model_type"]
    with torch.device("meta"):
        return class_of(kind).from_config(CONFIG_MAPPING[kind](**values))


def numbers(model: Any) -> int:
    """Parameters, each once."""
    return sum(one.numel() for one in model.parameters())


def listed(model: Any) -> dict[str, Any]:
    """The matrices as the class tells them, without what is empty."""
    found = {**matrices(model), "trunk": fields(model)["trunk"]}
    return {name: value for name, value in found.items() if value and name != "total"}


def adapted(model: Any) -> int:
    """Parameters of adapters on everything, as training makes them."""
    made = build(model, TrainSpec(lora=LoraSpec(r=RANK)))[0]
    return sum(one.numel() for name, one in made.named_parameters() if "lora_" in name)


def agrees(shape: Shape, total: int, lora: int) -> bool:
    """Whether a shape is that of the class, to the parameter."""
    return shape.parameters == total and (lora < 0 or lora_parameters(shape, RANK) == lora)


def counted(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry with its count, and with its parts where its fields do not tell them."""
    config, name = entry["config"], entry["id"]
    plain = {one: value for one, value in entry.items() if one not in ("parts", "parameters")}
    if config["model_type"] in OWN_CODE:
        return {**plain, "parameters": from_config(config, name, "").parameters}
    total, parts = numbers(model := built(config)), listed(model)  # PEFT changes the model
    try:
        lora = adapted(model)
    except HoldfastError as error:
        print(f"{name}: no adapters: {error}")
        lora = -1
    with contextlib.suppress(HoldfastError):
        if agrees(from_config(config, name, ""), total, lora):
            return {**plain, "parameters": total}
    shape = from_config(config, name, "", {**parts, "total": total})
    if not agrees(shape, total, lora):
        print(f"{name}: adapters {lora_parameters(shape, RANK):,} by the list, {lora:,} by PEFT")
    return {**plain, "parameters": total, "parts": parts}


def text_of(entries: list[dict[str, Any]]) -> str:
    """The file: an entry's id and count in one line, each of its parts in another."""
    first = ("id", "parameters", "seen", "names")
    blocks = []
    for entry in entries:
        head = json.dumps({one: entry[one] for one in first if one in entry})[:-1]
        rest = [f'"{one}": {json.dumps(entry[one])}'
                for one in ("config", "same", "parts") if entry.get(one)]  # fmt: skip
        blocks.append(" " + ",\n  ".join([head, *rest]) + "}")
    return "[\n" + ",\n".join(blocks) + "\n]\n"


def main() -> None:
    """Count, print what differs, and write where that is asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    found, differ = [], 0
    for entry in catalogue.entries():
        if args.only not in entry["id"]:
            found.append(entry)
            continue
        try:
            new = counted(entry)
        except Exception as error:  # whatever a class raises for figures that do not go together
            print(f"{entry['id']}: {type(error).__name__} {str(error)[:200]}", flush=True)
            found.append(entry)
            differ += 1
            continue
        if new != entry:
            differ += 1
            was, now = entry.get("parameters", 0), new["parameters"]
            print(f"{entry['id']}: {was:,} -> {now:,}{' by parts' if 'parts' in new else ''}",
                  flush=True)  # fmt: skip
        found.append(new)
    print(f"{len(found)} entries, {differ} of them differ")
    if args.write:
        catalogue.CATALOGUE.write_text(text_of(found), encoding="utf-8")


if __name__ == "__main__":
    main()
