"""Fits the weights of the linear half of the refusal judge.

Fits a logistic regression on invented replies (`refusal_replies.py`) and on the dev half of the
hand-written cases, and writes `src/holdfast/judges/refusal/weights.json`. No reply of a real model
and no test case is read. The temperature comes from two fits on half of the wording each, measured
on the other half, so that the confidence is one for wording that was not seen.

    python benchmarks/refusal_fit.py [--cases 60000] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from refusal_replies import Case, cases
from scipy.optimize import minimize, minimize_scalar
from scipy.sparse import csr_matrix

from holdfast.judges.refusal import prepare, weights
from holdfast.judges.refusal.evidence import weigh

ROOT = Path(__file__).parents[1]
OUT = ROOT / "src/holdfast/judges/refusal/weights.json"
DEV = ROOT / "tests/data/refusal_cases.jsonl"
PENALTY = 20.0
SIGN_SCALE = 3.0
"""Signs of the rules are few and general: they are penalised less than single words."""
HAND_WEIGHT = 12.0
MIN_PROMPTS = 5
"""A word is kept when it was seen under so many different prompts; topics drop out."""
TERMS = 9000
"""So many features with the greatest effect are kept and fitted again; the file stays small."""


def seen(some: Sequence[Case]) -> list[set[str]]:
    """Return the features of each reply."""
    found = []
    for case in some:
        one = prepare(case.reply, case.prompt)
        evidence = weigh(one.said, one.ask, one.code_lines, one.code or "en")
        found.append(weights.features(evidence.said, one.ask, evidence, one.code_lines))
    return found


def vocabulary(some: Sequence[Case], found: Sequence[set[str]]) -> list[str]:
    """Return the features that were seen under enough different prompts."""
    prompts: dict[str, set[str]] = defaultdict(set)
    for case, features in zip(some, found, strict=True):
        for one in features:
            if len(prompts[one]) < MIN_PROMPTS:
                prompts[one].add(case.prompt)
    return sorted(one for one, under in prompts.items() if len(under) >= MIN_PROMPTS)


def matrix(found: Sequence[set[str]], names: Sequence[str]) -> Any:
    """Return replies x (bias, features), float64, sparse."""
    place = {name: at + 1 for at, name in enumerate(names)}
    rows, columns, values = [], [], []
    for row, features in enumerate(found):
        rows.append(row)
        columns.append(0)
        values.append(1.0)
        for one in features:
            if one in place:
                rows.append(row)
                columns.append(place[one])
                values.append(SIGN_SCALE if one[0] == "@" else 1.0)
    return csr_matrix((values, (rows, columns)), shape=(len(found), len(names) + 1))


def fit(x: Any, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Fit a logistic regression with an L2 penalty on all but the bias."""
    sign = 2 * y - 1

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (x @ theta)
        held = theta.copy()
        held[0] = 0
        value = float(weight @ np.logaddexp(0, -margin)) + PENALTY / 2 * float(held @ held)
        slope = -weight * sign / (1 + np.exp(np.clip(margin, -50, 50)))
        return value, x.T @ slope + PENALTY * held

    start = np.zeros(x.shape[1])
    return minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 400}).x


def strongest(names: list[str], theta: np.ndarray, found: Sequence[set[str]]) -> list[str]:
    """Return the features that move the replies most, by weight and by how often they are seen."""
    often = Counter(one for features in found for one in features)
    effect = {
        name: abs(value) * often[name] ** 0.5
        for name, value in zip(names, theta[1:].tolist(), strict=True)
    }
    return sorted(sorted(names, key=lambda name: -effect[name])[:TERMS])


def temperature(logits: np.ndarray, y: np.ndarray) -> float:
    """Return what to divide the logits by, for the least log loss."""
    sign = 2 * y - 1
    found = minimize_scalar(
        lambda t: float(np.logaddexp(0, -sign * logits / np.exp(t)).mean()), bounds=(-1, 4)
    )
    return float(np.exp(found.x))


def labels(some: Sequence[Case]) -> np.ndarray:
    """Return 1.0 for refused, 0.0 for answered."""
    return np.array([float(case.label == "refused") for case in some])


def hand_written() -> list[Case]:
    """Return the dev half of the cases that were written by hand, but for the unreadable ones."""
    rows = [json.loads(line) for line in DEV.read_text(encoding="utf-8").splitlines()]
    return [
        Case(row["prompt"], row["reply"], row["label"])
        for row in rows
        if row["set"] == "dev" and row["label"] != "unsure"
    ]


def f1(guess: np.ndarray, y: np.ndarray) -> float:
    """Return F1 of refused."""
    return 2 * float((guess * y).sum()) / max(1.0, float(guess.sum() + y.sum()))


def main() -> None:
    """Calibrate on halves, fit on all, write the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=60000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT)
    args = parser.parse_args()
    halves = [cases(args.cases // 2, args.seed, half) for half in (0, 1)]
    found = [seen(half) for half in halves]
    logits, truth = [], []
    for mine, other in ((0, 1), (1, 0)):
        names = vocabulary(halves[mine], found[mine])
        theta = fit(matrix(found[mine], names), labels(halves[mine]), np.ones(len(found[mine])))
        logits.append(matrix(found[other], names) @ theta)
        truth.append(labels(halves[other]))
        guess = (logits[-1] > 0).astype(float)
        print(f"fitted on half {mine}: F1 on the other half {f1(guess, truth[-1]):.3f}")
    warm = temperature(np.concatenate(logits), np.concatenate(truth))
    written = hand_written()
    train = [*cases(args.cases, args.seed), *written]
    features = seen(train)
    names = vocabulary(train, features)
    weight = np.ones(len(train))
    weight[-len(written) :] = HAND_WEIGHT
    theta = fit(matrix(features, names), labels(train), weight)
    names = strongest(names, theta, features)
    theta = fit(matrix(features, names), labels(train), weight)
    scale = [1.0, *(SIGN_SCALE if name[0] == "@" else 1.0 for name in names)]
    terms = {
        name: round(value * factor / warm, 2)
        for name, value, factor in zip(["", *names], theta.tolist(), scale, strict=True)
    }
    about = f"fitted by benchmarks/refusal_fit.py --cases {args.cases} --seed {args.seed}"
    text = json.dumps({"about": about, "terms": terms}, ensure_ascii=False, separators=(",", ":"))
    args.out.write_text(text.replace(',"', ',\n"') + "\n", encoding="utf-8")
    weights.load.cache_clear()
    print(f"temperature {warm:.2f}, {len(terms)} weights, {args.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
