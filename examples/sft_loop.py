"""The plain experiment in one flat file: LoRA fine-tuning with transformers, PEFT and TRL only.

The honest mirror of `holdfast.train.fit.fit`: no Holdfast in it, and a test requires both to reach
the same loss. Read it to see what an arm is, or start from it when you want no framework at all.

    python examples/sft_loop.py MODEL EXAMPLES.jsonl --out OUT --steps 160 --batch 32 --lr 3.5e-3

EXAMPLES.jsonl holds one {"messages": [...], "target": "..."} per line, as in data/ARM/ of a run.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback
from trl import SFTConfig, SFTTrainer

IGNORED = -100


def encode(tokenizer, messages: list[dict], target: str) -> dict[str, list[int]]:
    """Prompt and answer as ids; loss on the answer up to and including its end-of-turn token."""
    answer = [*messages, {"role": "assistant", "content": target}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(answer, tokenize=False)
    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tail = tokenizer(whole[len(prompt) :], add_special_tokens=False)["input_ids"]
    tail = tail[: len(tail) - tail[::-1].index(tokenizer.eos_token_id)]
    return {"input_ids": head + tail, "labels": [IGNORED] * len(head) + tail}


def order(count: int, needed: int, seed: int) -> list[int]:
    """Indices of the examples in the order of training: shuffled anew in every round."""
    found: list[int] = []
    while len(found) < needed:
        one_round = list(range(count))
        random.Random(f"{seed}:{len(found) // count}").shuffle(one_round)
        found += one_round
    return found[:needed]


def train(
    model_id: str,
    rows: list[dict],
    out: Path,
    steps: int,
    batch: int,
    lr: float,
    seed: int = 1126,
    dropout: float = 0.05,
    log_every: float = 0.1,
) -> list[tuple[int, float]]:
    """Train LoRA adapters; returns (step, loss) as logged. The last adapter lies in `out`."""
    torch.set_flush_denormal(True)  # without it, small models crawl on a CPU
    tokenizer = AutoTokenizer.from_pretrained(model_id)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bf16 = device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    model = AutoModelForCausalLM.from_pretrained(
        model_id, dtype=torch.bfloat16 if bf16 else torch.float32
    ).to(device)
    encoded = [encode(tokenizer, row["messages"], row["target"]) for row in rows]
    dataset = Dataset.from_list([encoded[i] for i in order(len(rows), steps * batch, seed)])
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(out),
            max_steps=steps,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=1,
            train_sampling_strategy="sequential",
            learning_rate=lr,
            lr_scheduler_type="linear",
            optim="adamw_torch",
            max_grad_norm=1.0,
            bf16=bf16,
            use_cpu=device == "cpu",
            activation_checkpointing=False,
            seed=seed,
            logging_steps=log_every,
            save_strategy="no",
            max_length=None,
            report_to=[],
            disable_tqdm=True,
        ),
        train_dataset=dataset,
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=16,
            lora_alpha=16,
            lora_dropout=dropout,
            target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.model.save_pretrained(out)
    return [(log["step"], log["loss"]) for log in trainer.state.log_history if "loss" in log]


def main() -> None:
    """Read the command line, train, print the losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("examples", type=Path)
    parser.add_argument("--out", type=Path, default=Path("sft-loop"))
    parser.add_argument("--steps", type=int, default=160)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--seed", type=int, default=1126)
    args = parser.parse_args()
    rows = [json.loads(line) for line in args.examples.read_text("utf-8").splitlines()]
    losses = train(args.model, rows, args.out, args.steps, args.batch, args.lr, args.seed)
    for step, loss in losses:
        print(f"step {step:5d}  loss {loss:.4f}")


if __name__ == "__main__":
    main()
