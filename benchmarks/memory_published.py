"""Holds `holdfast plan` against memory that others measured and published.

A CSV names, for each published training, its settings, what was measured and by which measure.
Every row is written as a command line of `holdfast plan` and answered in this process; what cannot
be said by flags is counted as such, with the reason. A row that ran out of memory should not be
said to fit (a false fit), one that ran should not be refused (a false alarm). Rows that contradict
another of the same publication are counted, and named with the reason; where a publication writes
G or GB without saying which, the nearer of 1e9 and 2^30 bytes counts.

With `--results` every answer is kept in a file as it comes, and those of the same code are read
from it: a run that was ended goes on, and `--seconds` ends one in time.

    python benchmarks/memory_published.py published.csv [--formula] [--rows 10,63] [--cases]
        [--results answers.jsonl] [--seconds 500]
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import json
import re
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from holdfast import cli

GIB = 1 << 30
Row = Mapping[str, str]
PRECISIONS: Mapping[str, tuple[str, ...]] = {
    "bf16 weights, no autocast (pure bf16)": ("pure_bf16", "float32"),
    "bf16 weights, no autocast; adapters float32": ("pure_bf16", "float32"),
    "pure bf16, adapters bf16": ("pure_bf16",),
    "pure bf16": ("pure_bf16",),
    "bf16 weights, bf16 autocast": ("bf16",),
    "bf16 autocast": ("bf16",),
    "bf16": ("bf16",),
    "fp16": ("fp16",),
    "fp16 (T4)": ("fp16",),
}
"""What a row says of precision: `--precision`, and the adapters' dtype where that is said."""
UNSAID: Mapping[str, str] = {
    "activation offloading": "activations kept in host memory",
    "activations offloaded": "activations kept in host memory",
    "fused into the backward": "an optimiser that steps in the backward pass",
    "ZeRO-2": "ZeRO-2",
    "offload": "ZeRO with offloading",
    "whose making peaks": "the making of 4-bit weights by torchao",
    "40 or 80 GB is not said": "GPUs of unknown size",
}
"""Words of a row for which there is no flag, and what they mean."""
CONTRADICTED: Mapping[str, str] = {
    "121": "a quarter of the tokens of row 122 takes 96 % as much: the peak is not a step's",
    "123": "a quarter of the tokens of row 124 takes more: the peak is not a step's",
    "205": "row 204's same model, length and batch take 3 GB less, although its moments are wider: "
    "dropout and masks of one layer at a time are 0.3",
    "208": "two processes take 5.5 GiB more each than row 207's one, and 9.5 more than row 209's, "
    "whose sharding of an adapter's moments saves 0.3: their rows were of other lengths",
}
"""Rows that cannot be so if others of the same publication are, by id."""
OPEN_UNITS = ("G", "GB")
"""Units of which the publication does not say whether they are 1e9 or 2^30 bytes."""
FAMILY = re.compile(
    r"own config\.json: (?P<name>[\w.-]+) \((?P<kind>\w+), hidden (?P<hidden>\d+), "
    r"layers (?P<layers>\d+), heads (?P<heads>\d+)/(?P<kv>\d+), ffn (?P<ffn>\d+), "
    r"vocab (?P<vocab>\d+), (?P<tied>tied|untied)\)"
)


@dataclass(frozen=True, slots=True)
class Result:
    """One row and what the planner says of it.

    Attributes:
        row: of the CSV.
        unsaid: why it cannot be expressed; "": it can.
        fits: what the planner says.
        predicted: in GiB, by the measure that was published.
        refused: why the planner says that it cannot be run at all.
    """

    row: Row
    unsaid: str = ""
    fits: bool = False
    predicted: float = 0.0
    refused: str = ""

    @property
    def error(self) -> float | None:
        """Per cent over what was measured; None where nothing was."""
        measured = self.row["measured_gib"]
        if self.unsaid or not measured or not self.predicted:
            return None
        read = [float(measured)]
        if self.row.get("published_unit") in OPEN_UNITS:  # the table took it for 2^30
            read.append(float(measured) * 1e9 / GIB)
        return min((100 * (self.predicted / one - 1) for one in read), key=abs)

    @property
    def wrong(self) -> str:
        """`false fit`, `false alarm` or ""."""
        if self.unsaid:
            return ""
        if self.row["outcome"] == "OOM":
            return "false fit" if self.fits else ""
        return "" if self.fits else "false alarm"


def unsaid(row: Row) -> str:
    """Why a row cannot be written as flags; "" where it can."""
    about = f"{row['parallelism']}; {row['not_expressible']}"
    for words, meaning in UNSAID.items():
        if words in about:
            return meaning
    if "Mixtral" in row["holdfast_model"] and row["method"] == "qlora":
        return "4-bit experts, which transformers 5 keeps in 16 bits"
    if "Lightning" in row["source"] and "FSDP" in row["parallelism"]:
        return "Fabric's FSDP, which gathers the whole model on every GPU while it loads"
    if row["dtype"] not in PRECISIONS:
        return f"precision: {row['dtype']}"
    return ""


def flags(row: Row, folder: Path) -> list[str]:
    """A row as arguments of `holdfast plan`.

    Args:
        row: of the CSV.
        folder: where models that are described by their dimensions are written.
    """
    given = dict(re.findall(r"--([\w-]+) (.*?)(?= --|$)", row["cli_flags"]))
    found = {key: given[key] for key in ("gpus", "seq-len", "micro-batch", "global-batch-size")}
    method = row["method"]
    found |= {"model": _model(row, given["model"], folder), "method": method}
    found["strategy"] = _strategy(row, method)
    precision, *adapters = PRECISIONS[row["dtype"]]
    if method == "full" and row["dtype"] == "bf16 weights, bf16 autocast":
        precision = "autocast_bf16"
    found["precision"] = precision
    found["attn-implementation"] = "flash_attention_2" if "flash" in row["attention"] else "sdpa"
    by_litgpt = "litgpt" in row["source"] and method != "full"
    found |= {"script": "litgpt"} if by_litgpt else {"loss": _loss(row)}
    found["optim"] = row["optimizer"]
    if "torchtune" in row["source"] and row["optimizer"] == "adamw_torch":
        found["optim"] = "adamw_torch_fused"  # its recipes set `fused: True`
    if method != "full":
        found |= {
            "lora-r": row["lora_rank"],
            "lora-dropout": row["lora_dropout"],
            "target-modules": row["lora_targets"].replace(" ", ","),
            "variant": row["adapter"],
        }
        if adapters:
            found["adapter-dtype"] = adapters[0]
    switches = ["--no-expandable-segments"]
    if "FSDP1" in row["parallelism"] or "no-shard" in row["parallelism"]:
        found["fsdp-version"] = "1"
    again = row["gradient_checkpointing"] == "yes"
    switches.append("--gradient-checkpointing" if again else "--no-gradient-checkpointing")
    old = by_litgpt or "03_2024" in row.get("place", "")  # before 0.43.2, of July 2024
    if old and method == "qlora":
        switches.append("--old-bitsandbytes")
    if "torch.compile" in row["not_expressible"] and method == "lora" and row["gpus"] == "1":
        switches.append("train.torch_compile=true")
    if "without double quantisation" in row["not_expressible"]:
        switches.append("--no-double-quant")
    if "prepare_model_for_kbit" in row["not_expressible"]:
        switches.append("--prepare-kbit")
    if method == "lora":
        switches.append("--no-quantize")
    return [word for key, value in found.items() for word in (f"--{key}", value)] + switches


def _model(row: Row, given: str, folder: Path) -> str:
    """The model's name; where it is described by its dimensions, a folder with its config.json."""
    described = FAMILY.search(row["holdfast_model"])
    if not described:
        return given
    at = folder / described["name"]
    at.mkdir(exist_ok=True)
    config = {
        "model_type": described["kind"], "hidden_size": int(described["hidden"]),
        "num_hidden_layers": int(described["layers"]), "intermediate_size": int(described["ffn"]),
        "num_attention_heads": int(described["heads"]), "vocab_size": int(described["vocab"]),
        "num_key_value_heads": int(described["kv"]), "max_position_embeddings": 32768,
        "tie_word_embeddings": described["tied"] == "tied",
    }  # fmt: skip
    (at / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(at)


def _strategy(row: Row, method: str) -> str:
    """The placement: FSDP1 and ZeRO-3 are planned for as FSDP2."""
    how = row["parallelism"]
    placement = "single"
    if "DDP" in how:
        placement = "ddp"
    elif "FSDP" in how or "ZeRO-3" in how:
        placement = "fsdp2"
    if method != "qlora":
        return placement
    return "qlora" if placement == "single" else f"qlora+{placement}"


def _loss(row: Row) -> str:
    """Whole logits, with or without their gradient in place, or tiles."""
    if not row["loss"].startswith("whole"):
        return "tiled"
    return "in_place" if "FOAK" in row["not_expressible"] else "whole"


def answer(row: Row, folder: Path, formula: bool) -> Result:
    """What the planner says of a row."""
    if reason := unsaid(row):
        return Result(row, reason)
    arguments = ["plan", *flags(row, folder), "--json", *["--dry-run"] * formula]
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = cli.call(arguments)
    if code >= 128:  # ended from outside: no answer, and none to be kept
        raise SystemExit(code)
    found = json.loads(output.getvalue())
    if "error" in found:
        return Result(row, refused=found["error"]["message"])
    way = found["candidates"][0]
    peak = max(way["predicted_bytes"], key=lambda one: one["total"])
    held = (2 * peak["weights"] + peak["optimiser"]) / GIB  # gradients are as wide as weights
    if row["measured_gib"] and method_is_full(row) and held > 1.1 * float(row["measured_gib"]):
        return Result(row, "more weights, gradients and moments than were measured")
    least = {"total": 0, "reserved": peak["context"]}
    outside = least.get(row["compared_with"], peak["context"] + peak["fragmentation"])
    return Result(row, "", way["fits"], (peak["total"] - outside) / GIB, way["refused"] or "")


def method_is_full(row: Row) -> bool:
    """Whether every weight was trained, on one GPU."""
    return row["method"] == "full" and row["gpus"] == "1"


def _line(name: str, results: Sequence[Result]) -> str:
    said = [one for one in results if not one.unsaid]
    errors = [one.error for one in said if one.error is not None]
    median = f"{statistics.median(errors):+.1f} %" if errors else "–"
    size = f"{statistics.median(map(abs, errors)):.1f} %" if errors else "–"
    worst = max((one for one in said if one.error is not None), default=None,
                key=lambda one: abs(one.error or 0.0))  # fmt: skip
    most = f"{worst.error:+.1f} % ({worst.row['id']})" if worst else "–"
    wrong = [one.wrong for one in said]
    ran_out = sum(one.row["outcome"] == "OOM" for one in said)
    return (
        f"| {name} | {len(said)} of {len(results)} | {len(errors)} | {median} | {size} | {most} | "
        f"{wrong.count('false fit')} of {ran_out} | "
        f"{wrong.count('false alarm')} of {len(said) - ran_out} |"
    )


def table(results: Sequence[Result]) -> str:
    """The results by group, then by number of GPUs, then all."""
    groups = dict.fromkeys(one.row["group"] for one in results)
    lines = [
        "| group | expressed | measured | median | median size | worst (row) | false fits | "
        "false alarms |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(name, [one for one in results if one.row["group"] == name]) for name in groups]
    single = [one for one in results if one.row["gpus"] == "1"]
    lines.append(_line("single GPU", single))
    lines.append(_line("several GPUs", [one for one in results if one not in single]))
    lines.append(_line("all", results))
    sound = [one for one in results if one.row["id"] not in CONTRADICTED]
    if len(sound) < len(results):
        lines.append(_line("all but contradicted rows", sound))
    return "\n".join(lines)


def code() -> str:
    """A digest of what the answers depend on: the planner's code, and this file."""
    folder = Path(cli.__file__).parents[1] / "memory"
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for file in sorted(folder.rglob("*")):
        if file.suffix in {".py", ".json"}:
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def answers(rows: Sequence[Row], formula: bool, kept: Path | None, seconds: float) -> list[Result]:
    """The answers that are in the file, and new ones while there is time; in the rows' order.

    Args:
        rows: of the CSV.
        formula: without traces.
        kept: file of earlier answers, one a line; None: none are kept.
        seconds: after which no new one is begun.
    """
    key = f"{code()} {'formula' if formula else 'trace'}"
    found: dict[str, Result] = {}
    by_id = {row["id"]: row for row in rows}
    for line in kept.read_text(encoding="utf-8").splitlines() if kept and kept.exists() else ():
        value = json.loads(line)
        if value.pop("key") == key and value["row"] in by_id:
            result = Result(**value)
            found[value["row"]] = replace(result, row=by_id[value["row"]])
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        for row in rows:
            if row["id"] in found or time.monotonic() > end:
                continue
            one = found[row["id"]] = answer(row, Path(folder), formula)
            if kept:
                value = {"key": key, **asdict(replace(one, row={})), "row": row["id"]}
                with kept.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(value) + "\n")
    return [found[row["id"]] for row in rows if row["id"] in found]


def _cases(results: Iterable[Result]) -> str:
    lines = []
    for one in results:
        row, error = one.row, one.error
        shown = (
            "" if error is None else f"{one.predicted:.2f} / {row['measured_gib']} {error:+.1f} %"
        )
        about = f"not expressed: {one.unsaid}" if one.unsaid else f"{one.wrong} {one.refused}"
        lines.append(
            f"{row['id']:>4} {row['group']:<34} {row['outcome']:<4} {one.predicted:6.1f} {shown} "
            f"{about}"
        )
    return "\n".join(lines)


def main() -> None:
    """Answer every row and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("csv", type=Path)
    parser.add_argument("--formula", action="store_true", help="no traces")
    parser.add_argument("--rows", default="", help="only these, by id")
    parser.add_argument("--cases", action="store_true", help="list every row")
    parser.add_argument("--results", type=Path, help="file that answers are kept in and read from")
    parser.add_argument("--seconds", type=float, default=1e9, help="then begin no further row")
    args = parser.parse_args()
    with args.csv.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file)]
    if args.rows:
        rows = [row for row in rows if row["id"] in args.rows.split(",")]
    results = answers(rows, args.formula, args.results, args.seconds)
    if args.cases:
        print(_cases(results))
    print(f"\n{table(results)}")
    left = [one.unsaid for one in results if one.unsaid]
    for reason in dict.fromkeys(left):
        print(f"not expressed: {reason}: {left.count(reason)}")
    for one in results:
        if not one.unsaid and (why := CONTRADICTED.get(one.row["id"])):
            print(f"row {one.row['id']} ({one.error:+.1f} %) contradicts its publication: {why}")
    unclear = sum(one.row.get("published_unit") in OPEN_UNITS for one in results if one.error)
    if unclear:
        print(f"{unclear} rows in G or GB without saying which: the nearer of both counts")
    if len(results) < len(rows):
        print(f"{len(rows) - len(results)} of {len(rows)} rows were not answered yet")


if __name__ == "__main__":
    main()
