"""Times `holdfast plan`: by formula, with a trace of the model's own code, searching; tries names.

How many of 46 names of models that people type are known without a network, at least one of every
family that is fine-tuned; and how many names of cards. Whole processes of Qwen2.5-7B's plan for two
24 GiB GPUs are timed. A trace is read from a cache for `cached` alone.

    python benchmarks/plan.py [--rounds 5] [--names]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

COMMAND = [
    sys.executable, "-m", "holdfast", "plan", "--model", "Qwen/Qwen2.5-7B-Instruct",
    "--gpus", "2x24GiB", "--seq-len", "2048", "--json",
]  # fmt: skip
LIMITS_S = {"formula": 0.5, "find length": 1.0, "find batch": 1.0, "find gpus": 2.5, "trace": 15.0,
            "cached": 1.0}  # fmt: skip
MORE = {"formula": ["--dry-run"], "find length": ["--find-length"], "find batch": ["--find-batch"],
        "find gpus": ["--find-gpus"], "trace": [], "cached": []}  # fmt: skip
"""What each of them adds to the command; lengths and GPUs that are looked for are left out."""
MODELS = (
    "Qwen/Qwen3.5-4B",
    "Qwen/Qwen3.5-9B",
    "Qwen/Qwen3-Next-80B-A3B-Instruct",
    "Qwen/Qwen2.5-VL-7B-Instruct",
    "Qwen/QwQ-32B",
    "Qwen/Qwen3-8B",
    "Qwen/Qwen2.5-7B-Instruct",
    "Qwen/Qwen3-30B-A3B",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.2-3B-Instruct",
    "meta-llama/Llama-3.3-70B-Instruct",
    "google/gemma-3n-E4B-it",
    "google/gemma-4-E4B-it",
    "google/gemma-4-31B-it",
    "google/gemma-3-4b-it",
    "google/gemma-2-9b-it",
    "mistralai/Ministral-3-8B-Instruct-2512",
    "mistralai/Mistral-Small-3.2-24B-Instruct-2506",
    "mistralai/Mistral-7B-Instruct-v0.3",
    "mistralai/Mistral-Nemo-Instruct-2407",
    "openai/gpt-oss-20b",
    "openai/gpt-oss-120b",
    "deepseek-ai/DeepSeek-V2-Lite",
    "deepseek-ai/DeepSeek-R1-0528-Qwen3-8B",
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B",
    "zai-org/GLM-4-9B-0414",
    "zai-org/GLM-4.7-Flash",
    "openbmb/MiniCPM3-4B",
    "openbmb/MiniCPM4-8B",
    "ibm-granite/granite-3.3-8b-instruct",
    "allenai/OLMo-2-1124-7B",
    "allenai/Olmo-3-1025-7B",
    "tiiuae/Falcon3-7B-Instruct",
    "internlm/internlm3-8b-instruct",
    "LiquidAI/LFM2-1.2B",
    "lmsys/vicuna-7b-v1.5",
    "EleutherAI/pythia-1.4b",
    "gpt2",
    "microsoft/phi-4",
    "microsoft/Phi-4-mini-instruct",
    "HuggingFaceTB/SmolLM3-3B",
    "HuggingFaceTB/SmolLM2-1.7B-Instruct",
    "unsloth/Qwen3-14B-unsloth-bnb-4bit",
    "unsloth/Meta-Llama-3.1-8B-Instruct-bnb-4bit",
    "NousResearch/Llama-2-7b-hf",
)
CARDS = (
    "3070",
    "4060",
    "4070 Ti",
    "5070 Ti",
    "L20",
    "RTX PRO 6000",
    "B300",
    "GB10",
    "RX 7900 XTX",
    "1080 Ti",
    "A100 80G",
    "A100-80G",
    "24GiBx2",
    "1x8GiB T4",
    "2 x 4090",
    "8xH100",
)
OFFLINE = """
import json, sys, time
from holdfast.errors import HoldfastError
from holdfast.memory.hardware.devices import parse
from holdfast.memory.model.reading import read_shape
found = {}
for kind, read in (("models", read_shape), ("cards", parse)):
    for name in json.loads(sys.argv[1])[kind]:
        started = time.perf_counter()
        try:
            read(name)
            found[name] = [True, time.perf_counter() - started]
        except HoldfastError:
            found[name] = [False, time.perf_counter() - started]
print(json.dumps(found))
"""


def names() -> None:
    """Print how many names are known without a network, and how long the slowest took."""
    asked = {"models": MODELS, "cards": CARDS}
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-c", OFFLINE, json.dumps(asked)],
            env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": cache},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    found = json.loads(done.stdout)
    print("\n| names | known offline | slowest | unknown |\n|---|---|---|---|")
    for kind, every in asked.items():
        known = [name for name in every if found[name][0]]
        slowest = max(found[name][1] for name in every)
        unknown = ", ".join(name for name in every if name not in known) or "none"
        print(f"| {kind} | {len(known)} of {len(every)} | {slowest:.2f} s | {unknown} |")


def took(command: list[str], cache: str) -> tuple[float, str]:
    """Seconds of a whole process with this cache, and what its plan rests on."""
    started = time.perf_counter()
    done = subprocess.run(
        command, env=os.environ | {"XDG_CACHE_HOME": cache}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    return time.perf_counter() - started, done.stdout.partition('"source": "')[2].partition('"')[0]


def main() -> None:
    """Time them and print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--names", action="store_true", help="only the names")
    args = parser.parse_args()
    names()
    if args.names:
        return
    print("\n| plan | limit | within | median, share of the limit | grounds |")
    print("|---|---|---|---|---|")
    for kind, limit_s in LIMITS_S.items():
        times: list[float] = []
        command = COMMAND[:-3] + COMMAND[-1:] if kind == "find length" else COMMAND
        if kind == "find gpus":
            command = [word for word in command if word not in ("--gpus", "2x24GiB")]
        with tempfile.TemporaryDirectory() as kept:
            if kind == "cached":
                took(command, kept)
            for _ in range(max(1, args.rounds // 2) if kind == "trace" else args.rounds):
                with tempfile.TemporaryDirectory() as fresh:
                    cache = kept if kind == "cached" else fresh
                    one, grounds = took(command + MORE[kind], cache)
                times.append(one)
        within = sum(one <= limit_s for one in times)
        print(
            f"| {kind} | {limit_s:g} s | {within} of {len(times)} | "
            f"{statistics.median(times) / limit_s:.0%} | {grounds} |"
        )


if __name__ == "__main__":
    main()
