"""Replies judged and graded per second, and whether grading anew is within its limits.

Each local path over text of our own: the refusal detector; the gradings of `gsm8k` (all four
readings at once) and of `ailuminate` (verdict and coherence); 100,000 stored replies graded anew,
each kind in a process of its own, whose peak memory the operating system tells; and guards: the
lab's model asked the way each is, through the engine, which says what the machinery costs and
nothing of a real guard's speed. One writes words (Qwen3Guard), one is read by the probability
of its first word (Llama Guard), one so for each of four policies (ShieldGemma), one writes at
length (StrongREJECT), and two vote (an ensemble). Limits: 1 ms a reply, 60 s and 1 GiB for 100,000.

    OMP_NUM_THREADS=2 python benchmarks/judging.py [--replies 100000] [--guarded 64]
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import cycle, islice
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

from holdfast import judges, models, tasks
from holdfast.config import TaskSpec
from holdfast.engines import Engine
from holdfast.engines.chunks import REPLIES
from holdfast.grading.grade import grade_replies
from holdfast.grading.judge import VERDICTS
from holdfast.judges import JudgeContext, Pair
from holdfast.lab.problems import problems
from holdfast.lab.requests import Request, requests
from holdfast.progress import Silent
from holdfast.runs import store
from holdfast.types import Example, Reply, Verdict

ITEMS = 1000
SECONDS, GIB, MS_PER_REPLY = 60.0, 1.0, 1.0
"""What is allowed: for 100,000 replies, in memory, for the detector."""
KINDS = ("gsm8k", "ailuminate")


def build(kind: str, folder: Path) -> tasks.Task:
    """The task over items of our own in `folder`."""
    path = {"gsm8k": folder, "ailuminate": folder / "prompts.csv"}[kind]
    return tasks.build(kind, TaskSpec.model_validate({"path": str(path)}), "benchmark")


def write_items(folder: Path) -> None:
    """Word problems as GSM8K has them, and requests as AILuminate's table has them."""
    rows = [{"question": p.question, "answer": p.human} for p in problems("test", ITEMS, (2, 3))]
    for split in ("train", "test"):
        store.write_jsonl(folder / f"{split}.jsonl", rows)
    with (folder / "prompts.csv").open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(["release_prompt_id", "prompt_text", "hazard", "persona"])
        for number, one in enumerate(asked()):
            table.writerow([f"p{number}", one.question, one.hazard, "skilled"])


def asked() -> list[Request]:
    """Requests of the lab, harmful and harmless ones."""
    half = ITEMS // 2
    return [*requests("test", half, True, 0), *requests("test", half, False, 0)]


def said(kind: str, examples: Sequence[Example]) -> list[str]:
    """A reply of usual length to every item: right and wrong, refusals and help."""
    if kind == "gsm8k":
        worked = [one.target or "" for one in examples]
        long = [
            "\n".join(worked[i - k].replace("####", "so") for k in (3, 2, 1))
            for i in range(len(worked))
        ]
        ends = cycle(["{}", "{}0", "The answer is {number}.", "That makes {number} in the end"])
        return [
            f"{text}\n{end.format(gold, number=gold.rpartition(' ')[2])}"
            for text, gold, end in zip(long, worked, ends, strict=False)
        ]
    advice = "Start with a list of what you need, and leave time for things that go wrong. "
    return [f"{one.answer} {advice * 3}".strip() for one in asked()][: len(examples)]


def write_replies(kind: str, folder: Path, count: int) -> float:
    """Store `count` replies, with verdicts where they are needed; returns their mean length."""
    task = build(kind, folder)
    examples = task.examples("test")
    texts = said(kind, examples)
    labels: list[Verdict | None] = [None] * len(examples)
    if task.judge:
        pairs = [(e, Reply(e.id, 0, t, "stop", 90)) for e, t in zip(examples, texts, strict=True)]
        labels = list(task.judge.judge(pairs))
    lines = list(zip(examples, texts, labels, strict=True))
    places = [(n // len(lines), *lines[n % len(lines)]) for n in range(count)]
    store.write_jsonl(
        folder / kind / REPLIES, (Reply(e.id, sample, t, "stop", 90) for sample, e, t, _ in places)
    )
    if task.judge:
        found = ({**vars_of(v), "sample": sample} for sample, _, _, v in places if v)
        store.write_jsonl(folder / kind / VERDICTS, found)
    return sum(map(len, texts)) / len(texts)


def vars_of(verdict: Verdict) -> dict[str, Any]:
    """A verdict's fields."""
    return {name: getattr(verdict, name) for name in Verdict.__dataclass_fields__}


def regrade(kind: str, folder: Path) -> None:
    """Grade what is stored, and print seconds and peak memory as JSON; runs in its own process."""
    task = build(kind, folder)
    examples = task.examples("test")
    started = time.perf_counter()
    verdicts = folder / kind if task.judge else None
    counts = grade_replies(task, examples, folder / kind, verdicts, folder / kind / "readings")
    seconds = time.perf_counter() - started
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds, "gib": peak_kib / 2**20, **counts}))


def per_second(work: Callable[[], int], seconds: float = 2.0) -> float:
    """How many replies `work`, which returns their number, does in a second of one processor."""
    work()
    done, started = 0, time.process_time()
    while time.process_time() - started < seconds:
        done += work()
    return done / (time.process_time() - started)


def detector(pairs: Sequence[Pair]) -> float:
    """Replies a second of the refusal detector."""
    judge = judges.build("refusal")
    return per_second(lambda: len(judge.judge(pairs)))


def gradings(task: tasks.Task, pairs: Sequence[Pair]) -> float:
    """Replies a second of a task's grader, verdicts at hand."""
    verdicts: Sequence[Verdict | None] = [None] * len(pairs)
    if task.judge:
        verdicts = task.judge.judge(pairs)

    def work() -> int:
        return len([task.grade(*pair, v) for pair, v in zip(pairs, verdicts, strict=True)])

    return per_second(work)


def guards(model: str) -> dict[str, dict[str, Any]]:
    """One judge for each way of asking, all on one model."""
    words = {"qwen3guard": {"model": model, "max_new_tokens": 24}}
    first = {"llamaguard": {"model": model, "threshold": 0.5}}
    return {
        "words (qwen3guard)": words,
        "first word (llamaguard)": first,
        "first word, four policies (shieldgemma)": {"shieldgemma": {"model": model}},
        "at length (strongreject)": {"strongreject": {"model": model, "max_new_tokens": 96}},
        "ensemble of the first two": {"ensemble": {"judges": [words, first]}},
    }


def guard_model(folder: Path) -> str:
    """The lab's model with the words that guards are read by, which its own vocabulary lacks."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(models.LAB_FOLDER)
    model = AutoModelForCausalLM.from_pretrained(models.LAB_FOLDER)
    tokenizer.add_tokens(["safe", "unsafe", "Yes", "No"])
    model.resize_token_embeddings(len(tokenizer))
    for part in (model, tokenizer):
        part.save_pretrained(folder)
    return str(folder)


def guard(
    model: str, asked: dict[str, Any], pairs: Sequence[Pair], folder: Path
) -> tuple[float, int]:
    """Replies a second of a guard on the lab's model, and how many it could not judge."""
    from holdfast.engines.hf import HFEngine

    with HFEngine(models.ModelRef(model), "cpu") as engine:

        def opened(ref: models.ModelRef, nf4: bool) -> Engine:
            return engine

        judge = judges.build(asked)
        judge.judge(pairs[:8], JudgeContext(folder / "warm", Silent(), opened))
        started = time.perf_counter()
        found = judge.judge(pairs, JudgeContext(folder / "guard", Silent(), opened))
        rate = len(pairs) / (time.perf_counter() - started)
    return rate, sum(one.label == "unsure" for one in found)


def main() -> None:
    """Measure every path and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--replies", type=int, default=100_000)
    parser.add_argument("--guarded", type=int, default=64)
    parser.add_argument("--child", nargs=2, metavar=("KIND", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        regrade(args.child[0], Path(args.child[1]))
        return
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_items(folder)
        for kind in KINDS:
            length = write_replies(kind, folder, args.replies)
            command = [sys.executable, __file__, "--child", kind, str(folder)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            spent = json.loads(done.stdout.splitlines()[-1])
            print(f"{kind}: {length:.0f} characters a reply, outcomes {spent['outcomes']}")
            share, allowed = spent["seconds"] / SECONDS, args.replies / 100_000
            rows.append((
                f"{args.replies:,} stored replies of {kind} graded anew",
                f"{args.replies / spent['seconds']:,.0f}",
                f"{share / allowed:.0%} of the {SECONDS * allowed:g} s allowed, "
                f"{spent['gib'] / GIB:.0%} of {GIB:g} GiB",
            ))  # fmt: skip
        every = {}
        for kind in KINDS:
            task = build(kind, folder)
            examples = list(islice(task.examples("test"), 500))
            texts = said(kind, task.examples("test"))
            every[kind] = [
                (e, Reply(e.id, 0, t, "stop", 90)) for e, t in zip(examples, texts, strict=False)
            ]
            rows.append((f"grader of {kind}", f"{gradings(task, every[kind]):,.0f}", ""))
        rate = detector(every["ailuminate"])
        allowed_ms = f"{1000 / rate / MS_PER_REPLY:.0%} of the {MS_PER_REPLY:g} ms a reply allowed"
        rows.append(("refusal detector", f"{rate:,.0f}", allowed_ms))
        model = guard_model(folder / "model")
        for number, (name, asked) in enumerate(guards(model).items()):
            some = every["ailuminate"][: args.guarded]
            rate, unsure = guard(model, asked, some, folder / f"guard{number}")
            note = f"{unsure} of {args.guarded} unsure, as it is no guard"
            rows.append((f"guard on the lab's model, CPU: {name}", f"{rate:,.1f}", note))
    print("\n| path | replies a second | |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
