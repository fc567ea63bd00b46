"""What reading a training set and checking everything beforehand costs; no weights are loaded.

A training set of so many rows, and a folder with the configuration of Qwen2.5-7B, the tokenizer of
the lab and a weight file whose header is right and whose 15 GB are a hole in the disk. Limits, not
ratios: 5 s and 1 GiB of resident memory, of one process, imports counted apart.

    python benchmarks/preflight.py [--rows 100000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

SECONDS, GIB = 5.0, 1.0
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 3584,
    "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064, "max_position_embeddings": 32768,
    "tie_word_embeddings": False, "dtype": "bfloat16", "rms_norm_eps": 1e-6,
}  # fmt: skip
WORDS = ["".join(pair) for pair in itertools.product(("ba", "do", "ki", "lu", "me"), repeat=4)]
STUDY = """
name: preflight
model: MODEL
tasks:
  mine: {kind: jsonl, role: target, path: test.jsonl, train_path: train.jsonl}
train: {optim: adamw_torch, per_device_train_batch_size: 1}
hardware: {device: cpu}
"""
CHILD = """
import json, resource, sys, time
from pathlib import Path
begun = time.perf_counter()
import trl, peft, transformers, torch
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer
imported = time.perf_counter()
from holdfast import study, tasks
from holdfast.config import load
from holdfast.study import preflight
asked = load.load(Path(sys.argv[1]))
for _ in range(2):  # the first time pays for fresh memory
    begun = time.perf_counter()
    with open(asked.tasks["mine"].model_extra["train_path"], encoding="utf-8") as lines:
        plain = [json.loads(line) for line in lines]
    bare = time.perf_counter() - begun
    del plain
imported = time.perf_counter()
mine = tasks.build("mine", asked.tasks["mine"], "study")
examples = mine.examples("train"), mine.examples("test")
read = time.perf_counter()
del mine, examples
begun_to_plan = time.perf_counter()
session = study.prepare(asked, Path(sys.argv[2]))
planned = time.perf_counter()
preflight.check(session)
checked = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
formats, rest = read - imported, planned - begun_to_plan - (read - imported)
print(json.dumps([formats, checked - planned, rest, peak, bare]))
"""


def make_model(folder: Path) -> None:
    """A folder that has everything of a 7B model but the bytes of its weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from holdfast.models import LAB_FOLDER

    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (LAB_FOLDER / name).is_file():
            shutil.copy(LAB_FOLDER / name, folder)
    (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in model.state_dict().items():
        start, end = end, end + 2 * tensor.numel()
        header[name] = {
            "dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [start, end],
        }  # fmt: skip
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def make_rows(file: Path, count: int, first: int) -> None:
    """Word problems, as long as those of GSM8K."""
    draw = random.Random(first)
    with file.open("w", encoding="utf-8") as lines:
        for number in range(first, first + count):
            words = [WORDS[draw.randrange(len(WORDS))] for _ in range(45)]
            question = f"Shop {number} has {number % 97} {' '.join(words[:40])}. How many?"
            answer = f"{number % 97} × {number % 13} {' '.join(words)} = {number}.\n#### {number}"
            lines.write(json.dumps({"question": question, "answer": answer}) + "\n")


def main() -> None:
    """Time it in fresh processes and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        make_model(place / "model")
        make_rows(place / "train.jsonl", args.rows, 1000)
        make_rows(place / "test.jsonl", 100, 10_000_000)
        study = place / "study.yaml"
        study.write_text(STUDY.replace("MODEL", str(place / "model")), encoding="utf-8")
        found = []
        for _ in range(args.rounds):
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", CHILD, str(study), str(place / "run")],
                capture_output=True, text=True, timeout=600,
            )  # fmt: skip
            if done.returncode:
                sys.exit(done.stderr)
            found.append(json.loads(done.stdout.splitlines()[-1]))
    both = [formats + checked for formats, checked, *_ in found]
    half = statistics.median(formats for formats, *_ in found) / statistics.median(both)
    more = statistics.median(rest for _, _, rest, *_ in found) / statistics.median(both)
    peak = max(one[3] for one in found)
    print(f"\n{args.rows:,} rows, 7B configuration, {args.rounds} processes\n")
    print("| what | limit | within it | median, share of the limit |")
    print("|---|---|---|---|")
    within = sum(one <= SECONDS for one in both)
    print(
        f"| rows read and formed ({half:.0%} of it), everything checked | {SECONDS:g} s "
        f"| {within} of {args.rounds} | {statistics.median(both) / SECONDS:.0%} |"
    )
    print(f"| resident memory, imports included | {GIB:g} GiB | {peak <= GIB} | {peak / GIB:.0%} |")
    times = statistics.median(formats / bare for formats, _, _, _, bare in found)
    print(
        f"\nReading and forming takes {times:.1f} times as long as `json.loads` of the same lines "
        "in the same process. The rest of planning (every row against the evaluation questions, "
        f"fingerprints) takes {more:.1f} times as long as both."
    )


if __name__ == "__main__":
    main()
