"""Judges the replies of a study a second time, through a real server, and compares the two judges.

    python benchmarks/real/models.py qwen1.5b; python benchmarks/real/serve.py vllm
    python benchmarks/real/second_judge.py RUN ARM[@STEP] ... [--task ailuminate] [--limit N]

The second judge is Qwen2.5-Coder-1.5B-Instruct behind vLLM, asked with the rubric ``yes_no``: it is
no guard, and the rubric is not validated. RUN is a run folder whose task was judged by ``refusal``.
What is printed, and written to ``benchmarks/real/results/NAME/second_judge.json``: of each model
the share that either judge calls refused and the second calls harmful, and Cohen's κ of both on
*refused* with a bootstrap interval over items. No reply is shown or kept.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy import stats

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import holdfast
from benchmarks.real.serve import NAME, PLACE, Served, lacking
from holdfast.analysis.agreement import cohens_kappa
from holdfast.report.run import At, Run
from holdfast.runs import store
from holdfast.types import BASE, Verdict

JUDGE = "qwen1.5b"
OPTIONS = ("--dtype", "bfloat16", "--max-model-len", "4096", "--max-num-seqs", "32")
RESAMPLES, SEED = 2000, 1126


def refusals(verdicts: Sequence[Verdict]) -> dict[tuple[str, int], bool]:
    """By item and sample whether the reply declines, where the judge says so."""
    return {
        (one.example_id, one.sample): one.refused for one in verdicts if one.refused is not None
    }


def agreement(first: Sequence[Verdict], second: Sequence[Verdict]) -> dict[str, object]:
    """How far two judges of the same replies agree on what is refused."""
    one, other = refusals(first), refusals(second)
    both = sorted(one.keys() & other.keys())
    pairs = np.array([(one[at], other[at]) for at in both], dtype=int)

    def kappa(places: np.ndarray) -> float:
        found = cohens_kappa(pairs[places, 0].tolist(), pairs[places, 1].tolist())
        return float("nan") if found is None else found

    places = np.arange(len(pairs))
    drawn = stats.bootstrap(
        (places,), kappa, vectorized=False, method="percentile",
        n_resamples=RESAMPLES, random_state=np.random.default_rng(SEED),
    )  # fmt: skip
    low, high = drawn.confidence_interval
    return {
        "replies": len(second),
        "judged_by_both": len(both),
        "refused_first": float(pairs[:, 0].mean()),
        "refused_second": float(pairs[:, 1].mean()),
        "agree": float((pairs[:, 0] == pairs[:, 1]).mean()),
        "kappa": kappa(places),
        "kappa_low": float(low),
        "kappa_high": float(high),
        "harmful_second": float(np.mean([one.label == "unsafe" for one in second])),
        "unsure_second": float(np.mean([one.label == "unsure" for one in second])),
    }


def place(model: str) -> tuple[str, At]:
    """The arm and the place in it that ARM@STEP names."""
    arm, _, step = model.partition("@")
    return arm, At(step=int(step)) if step else At()


def named(model: str) -> str:
    """What ARM@STEP is called in a comparison, where the base has its name already."""
    return model.replace("@", "-step-")


def judged(run: Run, models: Sequence[str], task: str, limit: int, url: str, into: Path) -> Run:
    """The same replies, judged by the model at `url`; the run folder that it took."""
    files = []
    for model in models:
        arm, at = place(model)
        file = into / "replies" / f"{model}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        store.write_jsonl(file, run.replies(arm, task, **at))
        files.append(str(file) if model == BASE else f"{named(model)}={file}")
    judge = f"{{remote: {{url: '{url}', model: {NAME}, format: yes_no, concurrency: 16}}}}"
    settings = [
        f"tasks.{task}.path={run.plan.study.tasks[task].model_dump()['path']}",
        f"tasks.{task}.limit={limit}", f"tasks.{task}.perplexity=false",
        f"tasks.{task}.judge={judge}",
    ]  # fmt: skip
    name = f"{run.plan.study.name}-second-judge"
    base, *tuned = files
    holdfast.compare(base, tuned, [task], settings=settings, replies=True, name=name, runs_dir=into)
    return holdfast.open_run(into / name)


def main() -> None:
    """Serve the judge, ask it, compare."""
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("models", nargs="+", help="ARM or ARM@STEP beside the base")
    parser.add_argument("--task", default="ailuminate")
    parser.add_argument("--limit", type=int, default=240)
    args = parser.parse_args()
    if why := lacking("vllm"):
        raise SystemExit(why)
    run = holdfast.open_run(args.run)
    into = args.run.parent / "second_judge"
    into.mkdir(exist_ok=True)
    with Served("vllm", PLACE / JUDGE, into / "vllm.log", OPTIONS) as server:
        models = [BASE, *args.models]
        second = judged(run, models, args.task, args.limit, server.url, into)
    found = {}
    for model in models:
        arm, at = place(model)
        theirs = second.verdicts(named(model), args.task)
        items = {one.example_id for one in theirs}
        ours = [one for one in run.verdicts(arm, args.task, **at) if one.example_id in items]
        found[model] = agreement(ours, theirs)
        print(model, found[model])
    name = run.plan.study.name.removeprefix("real-").replace("-", "_")
    store.write_json(ROOT / "benchmarks/real/results" / name / "second_judge.json", found)


if __name__ == "__main__":
    main()
