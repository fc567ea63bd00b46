"""What each remedy costs over plain fine-tuning: time, memory, work beforehand.

The lab's model, the same questions, the same steps. Every method takes turns with plain fine-
tuning, so that a slow moment of the machine hits both, and the median of the ratios is reported.
Memory is the highest point of the CPU allocator's own log over a few steps, weights left out.
Preparing is the shared work of the method (samples, a pass of the base), as a ratio to the plain
arm's training; it is done once for all arms and seeds. The lab's vocabulary has a thousand words:
where whole logits are kept, a vocabulary of 152k costs far more, and `holdfast plan` says how
much.

    OMP_NUM_THREADS=1 python benchmarks/methods.py [--rounds 3] [--steps 40] [--only kl,replay]
"""

from __future__ import annotations

import argparse
import functools
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

from holdfast import methods, models, tasks
from holdfast.config import Sampling, TaskSpec, TrainSpec
from holdfast.data.batching import plain_budget
from holdfast.data.leakage import LeakIndex
from holdfast.engines.hf import HFEngine
from holdfast.judges import JudgeContext
from holdfast.methods import MethodContext
from holdfast.progress import Silent
from holdfast.runs import store
from holdfast.train.data import beginnings, encode_all
from holdfast.train.job import Graded, TrainJob
from holdfast.train.launch import worker
from holdfast.types import Example

REF = models.ModelRef(str(models.LAB_FOLDER))
LAB = {"prompts": "lab", "pool": 200, "max_new_tokens": 64}
CASES: dict[str, dict[str, Any]] = {
    "replay": {"data": [("replay", {"share": 0.1, **LAB})]},
    "selfgen": {"data": [("selfgen", {"samples": 4, "temperature": 0.8, "unsolved": "drop"})]},
    "token_mask": {"loss": [("token_mask", {})]},
    "kl, on replay": {"loss": [("kl", LAB)]},
    "kl, on the task": {"loss": [("kl", {"at": "task", "weight": 0.1})]},
    "loss_weight, eaft": {"loss": [("loss_weight", {"by": "eaft"})]},
    "loss_weight, dft": {"loss": [("loss_weight", {"by": "dft"})]},
    "l2_init": {"loss": [("l2_init", {})]},
    "ewc": {"loss": [("ewc", LAB)]},
    "mask_target": {"loss": [("mask_target", {"weight": 0.1})]},
    "first_tokens": {"loss": [("first_tokens", {})]},
    "lisa": {"loss": [("lisa", LAB)]},
    "star": {"loss": [("star", {})]},
    "guardspace": {
        "loss": [("guardspace", {**LAB, "samples": 8, "tolerance": 1e-3})],
        "lora": {"variant": "guardspace"},
    },
    "ema": {"averages": (0.99,)},
    "sdft": {"loss": [("sdft", {"max_new_tokens": 64})]},
    "gkd": {"loss": [("gkd", {"max_new_tokens": 64, "lmbda": 1.0})]},
    "grpo": {"loss": [("grpo", {"max_new_tokens": 96})]},
    "raft": {"loss": [("raft", {"max_new_tokens": 96})]},
    "dpo": {"loss": [("dpo", {"samples": 4})]},
    "rslora": {"lora": {"variant": "rslora"}},
    "dora": {"lora": {"variant": "dora"}},
    "oft": {"lora": {"variant": "oft", "r": 16}},
    "osf": {"lora": {"variant": "osf"}},
    "corda": {"lora": {"variant": "corda"}},
    "lora, MLP only": {"lora": {"target_modules": "mlp"}},
}


class Bench:
    """Plain examples, an open engine, and a folder for everything."""

    def __init__(self, folder: Path, engine: HFEngine, steps: int) -> None:
        """Read the lab's training questions."""
        task = tasks.build("lab_math", TaskSpec(role="target"), "benchmark")
        self.plain = task.examples("train")
        self.folder, self.steps = folder, steps
        self.setting = MethodContext(
            task, self.plain, Sampling(max_new_tokens=96), lambda: engine, LeakIndex([]), 1126,
            folder / "scores.jsonl",
            beginnings=lambda some, every: beginnings(REF, TrainSpec(), some, every),
            desk=lambda at, bar: JudgeContext(at, bar, lambda ref: engine, at / "endpoints.jsonl"),
        )  # fmt: skip

    def prepared(self, case: dict[str, Any], name: str) -> tuple[list[Example], float]:
        """The arm's examples, and the seconds that they took."""
        started = time.perf_counter()
        examples = list(self.plain)
        for entry in ("data", "loss"):
            for method, options in case.get(entry, []):
                one = methods.build(method, options, "benchmark", f"arms.a.{entry}")
                made = {}
                for shared in methods.shared_of(one, self.setting):
                    made[shared.name] = self.folder / name / shared.name
                    made[shared.name].mkdir(parents=True)
                    summary = shared.run(made[shared.name], Silent())
                    store.write_json(made[shared.name] / store.RECORD, {"summary": summary})
                examples, _ = one.apply(examples, self.setting, made)
        return examples, time.perf_counter() - started

    def job(self, case: dict[str, Any], examples: list[Example], name: str, steps: int) -> TrainJob:
        """One training of so many steps, in a folder of its own."""
        spec = TrainSpec(
            learning_rate=1e-3, micro_batch_size=16, gradient_accumulation_steps=1,
            optim="adamw_torch", gradient_checkpointing=False, group_by_length=False,
            lora={"r": 16, "alpha": 32, **case.get("lora", {})},
        )  # fmt: skip
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix=name.replace(" ", "_")))
        store.write_jsonl(folder / "examples.jsonl", examples)
        rows, _, _ = encode_all(REF, self.plain, spec)
        budget = plain_budget([row.cost for row in rows], steps, 1, 16)
        return TrainJob(
            REF, spec, budget, 1126, (steps,), folder, folder / "examples.jsonl",
            losses=tuple(case.get("loss", [])), averages=case.get("averages", ()), device="cpu",
            graded=Graded({"lab_math": TaskSpec(role="target")}, Sampling(max_new_tokens=96)),
        )  # fmt: skip


def seconds(work: Callable[[], Any]) -> float:
    """How long something takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def highest_bytes(work: Callable[[], Any]) -> int:
    """The highest point of the CPU allocator's log."""
    import torch

    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        work()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = highest = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        total += event.nbytes()
        highest = max(highest, total)
    return highest


def main() -> None:
    """Run everything in turns and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--only", help="names of methods, comma-separated")
    args = parser.parse_args()
    wanted = [one.strip() for one in (args.only or "").split(",") if one.strip()]
    chosen = {
        name: case for name, case in CASES.items()
        if not wanted or any(name.startswith(one) for one in wanted)
    }  # fmt: skip
    lines = []
    with tempfile.TemporaryDirectory() as folder, HFEngine(REF, "cpu") as engine:
        bench = Bench(Path(folder), engine, args.steps)
        plain = replace(bench.job({}, bench.plain, "plain", args.steps))
        worker.train(plain, Silent())  # pays for imports
        least = highest_bytes(
            lambda: worker.train(bench.job({}, bench.plain, "plain", 3), Silent())
        )
        for name, case in chosen.items():
            examples, before = bench.prepared(case, name)
            ratios, plain_seconds = [], []
            for _ in range(args.rounds):
                jobs = [bench.job({}, bench.plain, "plain", args.steps),
                        bench.job(case, examples, "own", args.steps)]  # fmt: skip
                one, other = (seconds(lambda job=job: worker.train(job, Silent())) for job in jobs)
                plain_seconds.append(one)
                ratios.append(other / one)
            peak = highest_bytes(
                functools.partial(worker.train, bench.job(case, examples, "own", 3), Silent())
            )
            ready = before / statistics.median(plain_seconds) if before > 0.05 else 0.0
            lines.append(
                f"| {name} | {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
                f" | {peak / least:.2f} | {ready:.1f} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    print(f"\n{args.steps} steps of 16 examples, {args.rounds} rounds, lab model, CPU\n")
    print("| method | training time / plain (median, range) | peak memory / plain | preparing / "
          "plain training |")  # fmt: skip
    print("|---|---|---|---|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
