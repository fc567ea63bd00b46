"""Compares what a study is told to take with what it took, stage by stage and in total.

A small study is prepared, the device is measured on its model as the start of a run measures it,
and the study is run. Three estimates are held against the truth: by formula, measured, and what is
told of the second half of the work once the first is done. Seconds are wall clock, as in the
records of the stages; on a machine that does other work meanwhile they mean little, and there
`--cpu-time` takes the processor's seconds for both, with one thread.

    OMP_NUM_THREADS=2 python benchmarks/real/duration.py [--model FOLDER --data FOLDER] [--quick]

Without `--model` the study is the built-in one on the built-in model.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from holdfast import environment
from holdfast import study as studies
from holdfast.config import Study, load
from holdfast.config.recipes import DEMO, QUICK, recipe_file
from holdfast.progress import Silent
from holdfast.runs import records
from holdfast.study import calibration, speed
from holdfast.study.duration import stage_seconds

GOAL = 1.3


def _real(model: str, data: Path, quick: bool) -> Study:
    """GSM8K, safety and over-refusal with two arms, made short."""
    items, steps = (8, 4) if quick else (32, 12)
    safety = data / "ailuminate" / "airr_official_1.0_demo_en_us_prompt_set_release.csv"
    return load.load({
        "name": "duration", "model": model, "seeds": [1],
        "tasks": {
            "gsm8k": {"role": "target", "path": str(data / "gsm8k"), "limit": items},
            "ailuminate": {"role": "retained", "path": str(safety), "judge": "refusal",
                           "limit": items},
            "over_refusal": {"kind": "xstest", "role": "retained", "half": "safe",
                             "path": str(data / "xstest" / "xstest_prompts.csv"),
                             "judge": "refusal", "limit": items},
        },
        "answer": {"sampling": {"max_new_tokens": 64 if quick else 160}, "repeats": 1},
        "train": {"max_steps": steps, "per_device_train_batch_size": 4,
                  "gradient_accumulation_steps": 1, "optim": "adamw_torch", "checkpoints": 2,
                  "learning_rate": 1e-4},
        "meters": {"probes": 4},
        "arms": {"sft": {}, "masked": {"loss": [{"token_mask": {"max_perplexity": 2.5}}]}},
    })  # fmt: skip


def main() -> None:
    """Run the study and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="a folder of safetensors; left out: the built-in model")
    parser.add_argument("--data", type=Path, help="holds gsm8k, ailuminate and xstest")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("overrides", nargs="*", help="settings of the built-in study")
    given = parser.parse_args()
    if given.cpu_time:
        time.monotonic = time.perf_counter = time.process_time
    if given.model:
        study = _real(given.model, given.data, given.quick)
    else:
        study = load.load(recipe_file(DEMO), (*(QUICK if given.quick else ()), *given.overrides))
    with tempfile.TemporaryDirectory() as place:
        session = studies.prepare(study, Path(place) / study.name)
        formula = stage_seconds(session, speed.by_formula(session))
        began = time.perf_counter()
        found = calibration.measure(session)
        took = time.perf_counter() - began
        session.pool.close()
        told = stage_seconds(session, found)
        names = [stage.name for stage in session.plan.stages]
        later, half = {}, names.index(next(one for one in names if one.startswith("replies/sft")))
        last = names[half + len(session.plan.tasks) - 1]
        studies.run(study, session.folder, Silent(), only=last)
        later = stage_seconds(session, found)
        studies.run(study, session.folder, Silent())
        true = {name: records.read(session.folder / name)["seconds"] for name in names}
    print(f"{study.name} on {Path(study.model.id).name}: {speed.device(session)}, "
          f"{os.environ.get('OMP_NUM_THREADS', 'all')} threads, torch "
          f"{environment.version('torch')}, transformers {environment.version('transformers')}, "
          f"seeds {study.seeds}, {'processor seconds' if given.cpu_time else 'wall clock'}. "
          f"Measuring took {took:.0f} s.\n")  # fmt: skip
    print("| stages | took, s | measured before | by formula | measured / took |")
    print("|---|--:|--:|--:|--:|")
    groups: dict[str, list[str]] = defaultdict(list)
    for name in names:
        top, _, rest = name.partition("/")
        key = f"{top}/…/{rest.rpartition('/')[2]}" if top == "replies" else top
        groups[key].append(name)
    for key, some in groups.items():
        _row(key, *(sum(_s(one[n]) for n in some) for one in (true, told, formula)))
    _row("**total**", *(sum(map(_s, one.values())) for one in (true, told, formula)))
    rest = [name for name in names if later[name].how != "took"]
    after, really = sum(later[name].seconds for name in rest), sum(true[name] for name in rest)
    print(f"\nAfter the first arm's first checkpoint: {after:.0f} s told of what was left, "
          f"{really:.0f} s taken ({after / really:.2f}).")  # fmt: skip
    ratio = sum(one.seconds for one in told.values()) / sum(true.values())
    kept = 1 / GOAL <= ratio <= GOAL
    print(
        f"\nGoal, within a factor of {GOAL} in total: {'kept' if kept else 'MISSED'} ({ratio:.2f})."
    )


def _s(value: object) -> float:
    return value if isinstance(value, float | int) else value.seconds  # type: ignore[attr-defined]


def _row(name: str, took: float, told: float, formula: float) -> None:
    print(f"| {name} | {took:.1f} | {told:.1f} | {formula:.1f} | {told / max(took, 1e-9):.2f} |")


if __name__ == "__main__":
    main()
