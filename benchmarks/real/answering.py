"""Answering real prompts with a real model, against bare `generate`: speed, replies, adapters.

Compares, in one run and with greedy decoding:

1. `HFEngine`, as a study asks;
2. a plain loop: batches in the order of arrival, padded, `model.generate` until the longest ends,
   at that of several batch sizes which is best for it;
3. `model.generate`, one prompt at a time, for the first few;
4. `HFEngine` through an adapter (random, of rank 16 on all linear layers), merged and not.

A reply that differs is looked at: by how much the logits of the two tokens lie apart where the two
first part, computed in one plain pass.

    python benchmarks/real/answering.py MODEL_FOLDER... [--data gsm8k/test.jsonl] [--shots 8
        --shots-data gsm8k/train.jsonl] [--items 128] [--new-tokens 512] [--batches 16 64]
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from holdfast import models
from holdfast.config import Sampling
from holdfast.data import chat
from holdfast.engines.hf import HFEngine
from holdfast.models import ModelRef, cpu_linear, peft_adapter
from holdfast.progress import Silent
from holdfast.types import Example, Message

ASK = "\nReason step by step and end with '#### ' and the number."


@dataclass(frozen=True)
class Took:
    """What answering took: seconds of the clock and of the processor, and the token ids."""

    wall_s: float
    cpu_s: float
    answers: Sequence[Sequence[int]]

    @property
    def tokens(self) -> int:
        """Generated."""
        return sum(map(len, self.answers))

    def beside(self, other: Took) -> str:
        """How many times as long the other took: by the clock, and by the processor."""
        return f"{other.wall_s / self.wall_s:.2f} ({other.cpu_s / self.cpu_s:.2f})"


def timed(work: Callable[[], Sequence[Sequence[int]]]) -> Took:
    """Do it and look at the clocks."""
    wall, cpu = time.perf_counter(), time.process_time()
    answers = work()
    return Took(time.perf_counter() - wall, time.process_time() - cpu, answers)


def examples(data: Path | None, items: int, shots: int, shots_data: Path | None) -> list[Example]:
    """Questions of a jsonl with `question` and `answer`, after some with their answers."""
    if data is None:
        from benchmarks.real.training import written

        return written(items, 5)
    before: list[Message] = []
    if shots:
        if shots_data is None:
            raise SystemExit("--shots needs --shots-data")
        for row in _rows(shots_data, shots):
            before += [Message("user", row["question"]), Message("assistant", row["answer"])]
    return [
        Example(str(n), (*before, Message("user", row["question"] + ASK)))
        for n, row in enumerate(_rows(data, items))
    ]


def _rows(path: Path, count: int) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as lines:
        return [json.loads(line) for line, _ in zip(lines, range(count), strict=False)]


class Watched(HFEngine):
    """Keeps the token ids."""

    def ask(
        self, asked: Sequence[Example], sampling: Sampling, adapter: str | None = None
    ) -> list[list[int]]:
        """Token ids of the answers, in the order of what is asked; a study's own path."""
        self.ids: dict[str, list[int]] = {}
        self.generate(asked, sampling, adapter, Silent())
        return [self.ids[one.id] for one in asked]

    def _reply(self, asked: Any, sampling: Sampling, tokens: list[int]) -> Any:
        self.ids[asked[0].id] = tokens
        return super()._reply(asked, sampling, tokens)


def plain(
    model: Any,
    prompts: Sequence[Sequence[int]],
    stops: Sequence[int],
    pad: int,
    size: int,
    new: int,
) -> list[list[int]]:
    """The bare loop."""
    found = []
    for start in range(0, len(prompts), size):
        some = prompts[start : start + size]
        width = max(map(len, some))
        ids = torch.tensor([[pad] * (width - len(one)) + list(one) for one in some])
        mask = torch.tensor([[0] * (width - len(one)) + [1] * len(one) for one in some])
        out = model.generate(
            input_ids=ids.to(model.device), attention_mask=mask.to(model.device),
            max_new_tokens=new, do_sample=False, temperature=None, top_p=None, top_k=None,
            repetition_penalty=1.0, eos_token_id=list(stops), pad_token_id=pad,
        )  # fmt: skip
        for tokens in out[:, width:].tolist():
            ends = [place for place, token in enumerate(tokens) if token in stops]
            found.append(tokens[: ends[0] + 1] if ends else tokens)
    return found


def apart(model: Any, prompt: Sequence[int], one: Sequence[int], other: Sequence[int]) -> float:
    """The gap of the logits of the two tokens where two answers first part."""
    same = next(n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    with torch.inference_mode():
        ids = torch.tensor([[*prompt, *one[:same]]], device=model.device)
        logits = model(ids, logits_to_keep=1).logits[0, -1].float()
    return abs(float(logits[one[same]] - logits[other[same]]))


def adapter_for(model: Any, folder: str) -> str:
    """A random adapter of rank 16 on all linear layers, small enough to leave answers sensible."""
    from peft import LoraConfig, get_peft_model

    tuned = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))
    torch.manual_seed(0)
    for name, weight in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=1e-3)
    tuned.save_pretrained(folder)
    tuned.unload()
    return folder


def measure(folder: str, args: argparse.Namespace, table: list[str]) -> None:
    """One model's rows of the table."""
    asked = examples(args.data, args.items, args.shots, args.shots_data)
    sampling = Sampling(max_new_tokens=args.new_tokens)
    with Watched(ModelRef(folder), args.device, args.dtype) as engine, torch.inference_mode(False):
        prompts = [chat.asked_ids(engine.tokenizer, one) for one in asked]
        model, pad = engine._base, engine.tokenizer.pad_token_id
        engine.ask(asked[:2], Sampling(max_new_tokens=2))  # warm, and the check of both ways
        ours = timed(lambda: engine.ask(asked, sampling))
        rows, lengths = engine._pace.rows, sorted(map(len, ours.answers))
        print(f"{folder}: engine {ours.wall_s:.0f} s", flush=True)
        cpu_linear.undo(model)  # the loop is bare
        engine._laid, loops = None, {}
        for size in args.batches:
            loops[size] = timed(
                lambda size=size: plain(model, prompts, engine._stops, pad, size, args.new_tokens)
            )
            print(f"{folder}: loop of {size} {loops[size].wall_s:.0f} s", flush=True)
        best = min(loops, key=lambda size: loops[size].wall_s)
        loop = loops[best]
        few = min(args.alone, len(asked))
        alone = timed(lambda: plain(model, prompts[:few], engine._stops, pad, 1, args.new_tokens))
        per_token = (alone.wall_s / alone.tokens) / (ours.wall_s / ours.tokens)
        differ = [n for n, pair in enumerate(zip(ours.answers, loop.answers, strict=True))
                  if pair[0] != pair[1]]  # fmt: skip
        gaps = [apart(model, prompts[n], ours.answers[n], loop.answers[n]) for n in differ]
        with tempfile.TemporaryDirectory() as place:
            adapter = adapter_for(model, place)
            some = asked[: args.adapted]
            base = timed(lambda: engine.ask(some, sampling))
            engine.ask(some[:1], Sampling(max_new_tokens=1), adapter)
            tuned = timed(lambda: engine.ask(some, sampling, adapter))
            merged = engine._merged is not None
            engine.ask(some[:1], Sampling(max_new_tokens=1))
            kept, peft_adapter.SPARE = peft_adapter.SPARE, 0.0
            engine.ask(some[:1], Sampling(max_new_tokens=1), adapter)
            peft_adapter.SPARE = kept
            split = timed(lambda: engine.ask(some, sampling, adapter))
        by = "" if merged else " (apart)"
        costs = [one.cpu_s / one.tokens for one in (base, tuned, split)]
        again = sum(a == b for a, b in zip(tuned.answers, split.answers, strict=True))
        table.append(
            f"| {Path(folder).name} | {min(map(len, prompts))}-{max(map(len, prompts))} "
            f"| {lengths[len(lengths) // 2]} / {sum(lengths) / len(lengths):.0f} / {lengths[-1]} "
            f"| {rows} | {best} | **{ours.beside(loop)}** | {per_token:.1f} "
            f"| {len(asked) - len(differ)} of {len(asked)} "
            f"| {max(gaps, default=0):.1e} | {costs[1] / costs[0]:.2f}{by} "
            f"| {costs[2] / costs[0]:.2f} | {again} of {len(some)} |"
        )


def main() -> None:
    """Measure each model and print the table with its conditions."""
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--data", type=Path, help="left out: word problems of our own")
    parser.add_argument("--shots", type=int, default=0)
    parser.add_argument("--shots-data", type=Path)
    parser.add_argument("--items", type=int, default=128)
    parser.add_argument("--new-tokens", type=int, default=512)
    parser.add_argument("--batches", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--alone", type=int, default=4)
    parser.add_argument("--adapted", type=int, default=64)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    models.require_torch()
    transformers.logging.set_verbosity_error()
    table: list[str] = []
    for folder in args.models:
        measure(folder, args, table)
    about = "GPU" if torch.cuda.is_available() and args.device != "cpu" else platform.machine()
    print(
        f"\n{about}, {torch.get_num_threads()} threads, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {args.dtype}, greedy, {args.items} prompts after "
        f"{args.shots} shots, at most {args.new_tokens} new tokens; clock (processor).\n"
    )
    print(
        "| model | prompt tokens | answer tokens: median / mean / longest | rows at a time "
        "| the loop's best batch | loop / engine | one at a time / engine, per token "
        "| same replies | largest logit gap where they part | adapter / base, merged "
        "| adapter / base, apart | merged and apart say the same |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    print("\n".join(table))


if __name__ == "__main__":
    main()
