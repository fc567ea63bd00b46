"""Counts every model of the catalogue again, with transformers' own classes on the meta device.

Prints what differs, and with `--write` puts the counts into `catalogue.json`, with the matrices of
every family whose layers are not counted from its fields. New entries are written there by hand,
with `parameters` 0 and where their figures were seen.

    python benchmarks/catalogue.py [--write] [--only NAME]
"""

from __future__ import annotations

import argparse
import json
import warnings
from collections import Counter
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto import modeling_auto

from holdfast.config import LoraSpec, TrainSpec
from holdfast.errors import HoldfastError
from holdfast.memory.model import catalogue
from holdfast.memory.model.names import OWN_CODE
from holdfast.memory.model.shape import Shape, from_config
from holdfast.memory.model.targets import lora_parameters
from holdfast.train.adapter_check import build
from holdfast.train.model_parts import NOT_LANGUAGE, Parts, last

RANK = 8
GATED = {"gate_up_proj": ["gate_proj", "up_proj"]}
"""Fused experts under the names of the two matrices they are made of; PEFT doubles their rank."""


def built(config: dict[str, Any]) -> Any:
    """A model as it is loaded for training, without weights."""
    fields = {name: value for name, value in config.items() if name != "quantization_config"}
    kind = fields.pop("model_type")
    fields.pop("architectures", None)
    reads_pictures = kind in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    writes = kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    made = AutoModelForImageTextToText if reads_pictures and not writes else AutoModelForCausalLM
    with torch.device("meta"):
        return made.from_config(CONFIG_MAPPING[kind](**fields))


def numbers(model: Any) -> int:
    """Parameters, each once."""
    return sum(one.numel() for one in model.parameters())


def listed(model: Any, experts: str) -> dict[str, Any]:
    """The matrices of the language model, and what is in towers.

    Args:
        model: on the meta device.
        experts: whether fused ones are adapted: `doubled` where PEFT translates names, `once`,
            or `never`.
    """
    parts = Parts(model)
    rows: Counter[tuple[str, int, int, int]] = Counter()
    for name, one in parts.linear.items():
        left = parts.is_tower(name) or parts.is_router(name) or parts.is_unseen(name)
        if not left and not NOT_LANGUAGE.search(name):
            n_out, n_in = one.weight.shape
            rows[last(name), n_in, n_out, int(one.bias is not None)] += 1
    stacked: Counter[tuple[str, int, int]] = Counter()
    for name in parts.stacked:
        count, n_out, n_in = model.get_parameter(name).shape
        stacked[last(name), n_in, n_out] += count
    tower = sum(one.numel() for name, one in model.named_parameters() if parts.is_tower(name))
    layers = next((name for name, one in model.named_modules()
                   if isinstance(one, torch.nn.ModuleList) and not parts.is_tower(name)),
                  "model.")  # fmt: skip
    trunk = layers.rpartition(".")[0]
    return {
        **({"trunk": trunk} if trunk != "model" else {}),
        "linears": [[*row, count] for row, count in rows.items()],
        **({"stacked": [[*row, count, targets(row[0], experts)]
                        for row, count in stacked.items() if not row[0].endswith("bias")]}
           if stacked else {}),
        **({"tower": tower} if tower else {}),
    }  # fmt: skip


def targets(name: str, experts: str) -> list[str]:
    """The names under which an adapter reaches fused experts."""
    if experts == "never":
        return []
    return GATED.get(name, [name]) if experts == "doubled" else [name]


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
    total = numbers(model := built(config))
    ways = [listed(model, experts) for experts in ("doubled", "once", "never")]
    try:
        lora = adapted(model)
    except HoldfastError as error:
        print(f"{name}: no adapters: {error}")
        lora = -1
    try:
        if agrees(from_config(config, name, ""), total, lora):
            return {**plain, "parameters": total}
    except HoldfastError:
        pass
    for parts in ways:
        if agrees(from_config(config, name, "", {**parts, "total": total}), total, lora):
            return {**plain, "parameters": total, "parts": parts}
    counts = [lora_parameters(from_config(config, name, "", {**one, "total": total}), RANK)
              for one in ways]  # fmt: skip
    best = min(range(len(ways)), key=lambda way: abs(counts[way] - lora))
    print(f"{name}: adapters {counts[best]:,} by the list, {lora:,} by PEFT")
    return {**plain, "parameters": total, "parts": ways[best]}


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
