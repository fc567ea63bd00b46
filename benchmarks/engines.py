"""The same real prompts through transformers and through vLLM: tokens a second, equal replies.

    python benchmarks/real/serve.py vllm       # installs a vLLM for CPUs, once
    python benchmarks/engines.py MODEL_FOLDER... --data gsm8k/test.jsonl
        [--items 200] [--new-tokens 256] [--rounds 3] [--vllm PROGRAM] [--adapter FOLDER]

Both are `Engine`s as a study uses them, in one precision, greedy. They take turns, each loaded for
its turn alone, so that neither has the memory or the cores of the other; loading is told apart from
answering. A first question of each turn is not timed. Of replies that differ, the share of letters
before the first difference is told: after it an answer goes its own way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

warnings.simplefilter("ignore")
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from benchmarks.real.answering import examples
from benchmarks.real.serve import program
from benchmarks.real.servers import alike
from holdfast import environment, models
from holdfast.config import Sampling
from holdfast.engines import Engine
from holdfast.engines.hf import HFEngine
from holdfast.engines.vllm import VLLMEngine
from holdfast.engines.vllm.wanted import Wanted
from holdfast.models import ModelRef, precision
from holdfast.progress import Silent
from holdfast.types import Example, Reply


@dataclass(frozen=True, slots=True)
class Turn:
    """One engine's turn.

    Attributes:
        open_s: until the first question was answered.
        took_s: for all the others.
        replies: in the order of the questions.
        about: version, device and precision.
    """

    open_s: float
    took_s: float
    replies: Sequence[Sequence[Reply]]
    about: str

    @property
    def written(self) -> int:
        """Tokens of all replies."""
        return sum(one.n_tokens for some in self.replies for one in some)

    @property
    def rate(self) -> float:
        """Tokens written a second, prompts read in the same time."""
        return self.written / self.took_s


def turn(
    make: Callable[[], Engine], asked: Sequence[Example], sampling: Sampling, adapter: str | None
) -> Turn:
    """Open an engine, ask it, and close it."""
    began = time.perf_counter()
    with make() as engine:
        engine.generate(asked[:1], sampling, adapter, Silent())
        opened = time.perf_counter()
        replies = engine.generate(asked, sampling, adapter, Silent())
        ended = time.perf_counter()
        return Turn(opened - began, ended - opened, replies, engine.about)


def compared(folder: Path, args: argparse.Namespace) -> dict[str, object]:
    """Both engines on one model, in turns; prints a line for each and one for the two."""
    ref = ModelRef(str(folder))
    device = models.pick_device("auto")
    dtype = args.dtype or precision.decide(device, [ref]).dtype
    sampling = Sampling(max_new_tokens=args.new_tokens)
    asked = examples(args.data, args.items, 0, None)
    wanted = Wanted(str(args.vllm), args.new_tokens, rank=16 if args.adapter else 0)
    make: dict[str, Callable[[], Engine]] = {
        "hf": lambda: HFEngine(ref, device, dtype),
        "vllm": lambda: VLLMEngine(ref, device, dtype, wanted=wanted),
    }
    turns: dict[str, list[Turn]] = {name: [] for name in make}
    for number in range(args.rounds):
        for name in list(make) if number % 2 == 0 else list(make)[::-1]:
            found = turn(make[name], asked, sampling, args.adapter)
            turns[name].append(found)
            print(
                f"{folder.name}, round {number + 1}, {name} ({found.about}): {found.rate:.1f} "
                f"tokens/s, {found.written} tokens in {found.took_s:.1f} s, open after "
                f"{found.open_s:.1f} s",
                flush=True,
            )
    same, share = alike(turns["vllm"][0].replies, turns["hf"][0].replies)
    ratios = [b.rate / a.rate for a, b in zip(turns["hf"], turns["vllm"], strict=True)]
    row: dict[str, object] = {
        "model": folder.name, "items": len(asked), "new_tokens": args.new_tokens, "dtype": dtype,
        "ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios),
        "alike": same, "before_first_difference": share, "adapter": args.adapter is not None,
    }  # fmt: skip
    for name, some in turns.items():
        row[name] = {
            "about": some[0].about,
            "tokens_s": statistics.median(one.rate for one in some),
            "open_s": statistics.median(one.open_s for one in some),
            "alike_between_rounds": alike(some[0].replies, some[-1].replies)[0],
        }
    return row


def main() -> None:
    """Compare on every model and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, help="jsonl with `question`; left out: made up")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--new-tokens", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", help="left out: as a study would")
    parser.add_argument("--adapter", help="folder of a LoRA adapter")
    parser.add_argument("--vllm", type=Path, default=program("vllm"))
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    found = [compared(folder.resolve(), args) for folder in args.models]
    versions = environment.versions()
    print(f"\ntransformers {versions['transformers']}, torch {versions['torch']}\n")
    print(
        "| model | items | hf, tokens/s | vllm, tokens/s | vllm/hf (range) | alike | before 1st |"
    )
    print("|---|---|---|---|---|---|---|")
    for row in found:
        hf, vllm = row["hf"], row["vllm"]
        assert isinstance(hf, dict) and isinstance(vllm, dict)
        print(
            f"| {row['model']}, {row['dtype']} | {row['items']} | {hf['tokens_s']:.1f} | "
            f"{vllm['tokens_s']:.1f} | {row['ratio']:.2f} ({row['lowest']:.2f}-"
            f"{row['highest']:.2f}) | {row['alike']} of {row['items']} | "
            f"{row['before_first_difference']:.0%} |"
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
