"""Holds the planner's parameter counts against every family that transformers can build.

For each family of the registry of causal language models the default configuration is built on the
meta device, without weights, and counted; the planner is given the same config.json. Families that
cannot be built from their defaults are named with the reason. Each answer is a line of the file, so
that a run that was ended goes on.

    python benchmarks/parameter_counts.py counts.jsonl [--seconds 500] [--only qwen3]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import transformers
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from holdfast.errors import HoldfastError
from holdfast.memory.model.catalogue import locate
from holdfast.memory.model.shape import from_config
from holdfast.memory.planner.planner import shape_by_class
from holdfast.memory.trace import measuring
from holdfast.memory.trace.class_counter import answer, built, parameters

CLOSE = 0.001
Row = dict[str, object]


def counted(kind: str, folder: Path) -> Row:
    """One family: by its class, by the planner, and by the planner without torch."""
    try:
        config = AutoConfig.for_model(kind)
        true = parameters(built(config, trust=False))
    except Exception as error:  # whatever a class raises for its own defaults
        first = (str(error).strip().splitlines() or [""])[0]
        return {"family": kind, "unbuilt": f"{type(error).__name__}: {first[:120]}"}
    content = {**json.loads(config.to_json_string(use_diff=False)), "model_type": kind}
    at = folder / kind
    at.mkdir()
    (at / "config.json").write_text(json.dumps(content), encoding="utf-8")
    row: Row = {"family": kind, "class": true}
    try:
        with mock.patch.object(measuring, "_asked", _here):
            row["plan"] = shape_by_class(locate(str(at)), None, False, folder).parameters
    except HoldfastError as error:
        row["refused"] = error.message
    with contextlib.suppress(HoldfastError):
        row["fields"] = from_config(content, kind, "defaults").parameters
    return row


def _here(question: Mapping[str, object]) -> dict[str, object]:
    """What the planner asks in a process of its own, asked in this one, which has torch already."""
    try:
        return answer(question)
    except Exception as error:
        return {"reason": str(error)}


def _off(row: Mapping[str, object], key: str) -> float | None:
    found = row.get(key)
    return int(str(found)) / int(str(row["class"])) - 1 if found else None


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
    wanted = [kind for kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES if args.only in kind]
    with tempfile.TemporaryDirectory() as folder:
        for kind in wanted:
            if kind in rows or time.monotonic() > end:
                continue
            rows[kind] = counted(kind, Path(folder))
            with args.file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps(rows[kind]) + "\n")
    built_ones = [rows[kind] for kind in wanted if "class" in rows.get(kind, {})]
    for row in built_ones:
        off, alone = _off(row, "plan"), _off(row, "fields")
        if off is None or abs(off) > CLOSE:
            why = row.get("refused") or f"{100 * (off or 0):+.2f} %"
            print(f"{row['family']}: {why}")
        elif alone is None or abs(alone) > CLOSE:
            said = "none" if alone is None else f"{100 * alone:+.2f} %"
            print(f"{row['family']}: right by its class; by its fields alone {said}")
    close = sum(
        off is not None and abs(off) <= CLOSE for off in (_off(r, "plan") for r in built_ones)
    )
    alone = sum(
        off is not None and abs(off) <= CLOSE for off in (_off(r, "fields") for r in built_ones)
    )
    missing = [kind for kind in wanted if "unbuilt" in rows.get(kind, {})]
    print(f"{close} of {len(built_ones)} families within 0.1 %, {alone} by their fields alone")
    print(f"{len(missing)} cannot be built from their defaults: {', '.join(missing)}")
    if left := len(wanted) - len([kind for kind in wanted if kind in rows]):
        print(f"{left} were not counted yet")


if __name__ == "__main__":
    main()
