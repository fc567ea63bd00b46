"""Holds the planner's parameter counts against every family that transformers can build.

For each family of the registries of causal language models, and of models that read pictures too,
the default configuration is built on the meta device, without weights, by transformers' class, and
counted; the planner is given the same config.json. Adapters are put on it as training puts them,
and compared with the planner's count of them. Families that cannot be built from their defaults are
named with the reason. Each answer is a line of the file, so that a run that was ended goes on.

    python benchmarks/parameter_counts.py counts.jsonl [--seconds 500] [--only qwen3]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers.models.auto import modeling_auto

from holdfast.config import LoraSpec, TrainSpec
from holdfast.errors import HoldfastError, first_line
from holdfast.memory.model.catalogue import locate
from holdfast.memory.model.reading import BY_FIELDS
from holdfast.memory.model.shape import from_config
from holdfast.memory.model.targets import lora_parameters
from holdfast.memory.planner.counting import shape_by_class
from holdfast.memory.trace import counts
from holdfast.memory.trace.class_counter import answer
from holdfast.train.adapter_check import build

CLOSE = 0.001
RANK = 8
LANGUAGE = tuple(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
PICTURES = tuple(
    kind
    for kind in modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if kind not in LANGUAGE
)
Row = dict[str, object]


def counted(kind: str, folder: Path) -> Row:
    """One family: by its class, by the planner, and by the planner without torch."""
    made: Any = AutoModelForCausalLM if kind in LANGUAGE else AutoModelForImageTextToText
    try:
        config = AutoConfig.for_model(kind)
        with torch.device("meta"):
            model = made.from_config(config)
    except Exception as error:  # whatever a class raises for its own defaults
        return {"family": kind, "unbuilt": f"{type(error).__name__}: {first_line(error)[:120]}"}
    content = {**json.loads(config.to_json_string(use_diff=False)), "model_type": kind}
    at = folder / kind
    at.mkdir()
    (at / "config.json").write_text(json.dumps(content), encoding="utf-8")
    row: Row = {"family": kind, "class": model.num_parameters()}
    try:
        with mock.patch.object(counts, "_asked", _here):
            shape = shape_by_class(locate(str(at)), None, False, folder)
        row |= {"plan": shape.parameters, "plan_adapters": lora_parameters(shape, RANK)}
    except HoldfastError as error:
        row["refused"] = error.message
    if kind in BY_FIELDS:
        row["fields"] = from_config(content, kind, "defaults").parameters
    with contextlib.suppress(HoldfastError):
        adapted = build(model, TrainSpec(lora=LoraSpec(r=RANK)))[0]
        row["adapters"] = sum(one.numel() for one in adapted.parameters() if one.requires_grad)
    return row


def _here(question: Mapping[str, object]) -> dict[str, object]:
    """What the planner asks in a process of its own, asked in this one, which has torch already."""
    try:
        return answer(question)
    except Exception as error:
        return {"reason": f"{type(error).__name__}: {first_line(error)}"}


def _off(row: Mapping[str, object], key: str, true: str = "class") -> float | None:
    """How far a count is from the true one; None: one of the two is not known."""
    if key not in row or true not in row:
        return None
    return int(str(row[key])) / int(str(row[true])) - 1


def told(rows: Sequence[Row], name: str) -> None:
    """What differs in one registry, and how many do not."""
    there = [row for row in rows if "class" in row]
    for row in there:
        for what, off in (
            ("parameters", _off(row, "plan")),
            ("adapters", _off(row, "plan_adapters", "adapters")),
            ("by fields", _off(row, "fields")),
        ):
            if off is not None and abs(off) > CLOSE:
                print(f"{row['family']}: {what} {100 * off:+.2f} %")
        if "refused" in row:
            print(f"{row['family']}: {row['refused']}")
    exact = sum(row.get("plan") == row["class"] for row in there)
    close = sum(abs(_off(row, "plan") or 0) <= CLOSE for row in there if "plan" in row)
    print(f"{name}: {close} of {len(there)} families within 0.1 %, {exact} to the parameter")
    adapted = [row for row in there if "adapters" in row]
    same = sum(row.get("plan_adapters") == row["adapters"] for row in adapted)
    print(f"{name}: adapters of {same} of {len(adapted)} families to the parameter")
    alone = [row for row in there if "fields" in row]
    right = sum(row["fields"] == row["class"] for row in alone)
    print(f"{name}: {right} of {len(alone)} families that are counted by their fields alone")
    missing = [row for row in rows if "unbuilt" in row]
    print(f"{name}: {len(missing)} cannot be built from their defaults")
    for row in missing:
        print(f"  {row['family']}: {row['unbuilt']}")


def main() -> None:
    """Count, and print what differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    transformers.logging.set_verbosity_error()
    kept = args.file.read_text(encoding="utf-8").splitlines() if args.file.exists() else []
    rows = {str(row["family"]): row for row in map(json.loads, kept)}
    end = time.monotonic() + args.seconds
    wanted = [kind for kind in (*LANGUAGE, *PICTURES) if args.only in kind]
    with tempfile.TemporaryDirectory() as folder:
        for kind in wanted:
            if kind in rows or time.monotonic() > end:
                continue
            rows[kind] = counted(kind, Path(folder))
            with args.file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(rows[kind]) + "\n")
    for name, kinds in (("language models", LANGUAGE), ("models that read pictures", PICTURES)):
        told([rows[kind] for kind in kinds if kind in rows and kind in wanted], name)
    if left := sum(kind not in rows for kind in wanted):
        print(f"{left} were not counted yet")


if __name__ == "__main__":
    main()
