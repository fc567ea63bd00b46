"""The lab's study of remedies on a larger lab model, where a GPU is lent.

Builds a lab base of 10 to 50 million parameters with the lab's own script (its text, its tokenizer,
its recipe with more layers), on the GPU if there is one, runs `examples/lab_remedies.yaml` on it,
and prints the final table. Not validated: no GPU was at hand; only `--tiny` was tried, on a CPU.

    python benchmarks/remedies_gpu.py [--hidden 512] [--layers 8] [--out runs/lab-large]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from holdfast.config import LAB_FOLDER
from holdfast.lab.build import Recipe, train

STUDY = Path(__file__).parents[1] / "examples" / "lab_remedies.yaml"
TINY = (
    "tasks.lab_math.items=8", "tasks.lab_math.train_items=60", "tasks.lab_refuse.items=8",
    "tasks.lab_help.items=8", "train.max_steps=2", "train.checkpoints=1", "seeds=[1126,1127]",
)  # fmt: skip


def build(recipe: Recipe, folder: Path) -> None:
    """Train the base from scratch and save it, unless it is there already."""
    if (folder / "config.json").is_file():
        return
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model, tokenizer = train(recipe)
    model.to("cpu").save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> int:
    """Build, run, and leave the table as the last thing printed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--out", type=Path, default=Path("runs/lab-large"))
    parser.add_argument("--tiny", action="store_true", help="To try the script on a CPU.")
    args = parser.parse_args()
    recipe = replace(Recipe(), hidden=args.hidden, layers=args.layers, steps=args.steps)
    changes: tuple[str, ...] = ()
    if args.tiny:
        recipe, changes = replace(recipe, hidden=64, layers=2, steps=20), TINY
    build(recipe, args.out)
    # a model of a few steps neither refuses nor solves, so that there is nothing to replay
    model = LAB_FOLDER if args.tiny else args.out
    command = [sys.executable, "-m", "holdfast", "run", str(STUDY), f"model={model}",
               f"name={args.out.name}-remedies", "--runs-dir", str(args.out.parent),
               *changes]  # fmt: skip
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
