"""Compares predicted peaks with the allocator's, for real training of small models on the CPU.

Each case trains a small model with random weights for two optimiser steps of two micro-batches, in
a process of its own, with TRL's `SFTTrainer` set up as `holdfast.train` does (or with transformers'
`Trainer` where the loss is on full logits). The truth is the CPU allocator's own log (torch's
profiler, `[memory]` events): the highest running total, plus the model that lay there before.

The prediction is extrapolated to the case's six or more layers from stacks of two and three layers
of each kind, at batch 1 and 2. It is of the CPU run: dropout's mask and the fused head's tiles as
the CPU has them.

Side by side: what `accelerate estimate-memory` computes (its own functions, offline), and
DeepSpeed's `estimate_zero2_model_states_mem_needs` and `estimate_zero3_model_states_mem_needs` on
one GPU without offload. DeepSpeed is not installed: their published formulas are used (2 + 18 bytes
per parameter in deepspeed/runtime/zero/stage_1_and_2.py; 18, and 4 for each of the largest
module's, in stage3.py; every parameter counts as trained). These answer for the model's states
alone, and know no adapters and no quantised base.

    OMP_NUM_THREADS=1 python benchmarks/memory_cpu.py [--only NAME] [--json]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from typing import Any

from holdfast.memory.trace.measuring import measure
from holdfast.memory.trace.trace_job import TraceFailed, TraceJob

MIB = 1 << 20
LAYERS = 6
TINY = {
    "hidden_size": 256, "intermediate_size": 704, "num_attention_heads": 8,
    "num_key_value_heads": 2, "vocab_size": 8192, "max_position_embeddings": 2048,
    "num_hidden_layers": LAYERS, "head_dim": 32, "pad_token_id": 0,
}  # fmt: skip


def _config(kind: str, **more: Any) -> dict[str, Any]:
    return {"model_type": kind, **TINY, **more}


@dataclass(frozen=True)
class Case:
    """A job, its batch, and the name of its row."""

    name: str
    batch: int
    job: TraceJob = field(repr=False)


def _case(name: str, config: dict[str, Any], batch: int = 2, seq: int = 256, **more: Any) -> Case:
    options = {"device": "cpu", "dtype": "float32", "autocast": False, "optimizer": "adamw_torch"}
    return Case(name, batch, TraceJob(config, seq, **(options | more)))


BF16 = {"dtype": "bfloat16", "autocast": True}
QWEN = _config("qwen2", tie_word_embeddings=False)
CASES = [
    _case("qwen2 lora", QWEN),
    _case("qwen2 lora no-ckpt", QWEN, checkpointing=False),
    _case("qwen2 lora no-ckpt bf16", QWEN, checkpointing=False, **BF16),
    _case("qwen2 lora bf16 hf-loss", QWEN, fused_loss=False, **BF16),
    _case("qwen2 lora small vocabulary hf-loss", QWEN | {"vocab_size": 512}, fused_loss=False),
    _case("qwen2 lora bf16 padded no-ckpt", QWEN, padded=True, checkpointing=False, **BF16),
    _case("llama lora eager no-ckpt", _config("llama"), attention="eager", checkpointing=False),
    _case("llama lora dropout-0 bf16-adapters no-ckpt", _config("llama"), dropout=0.0,
          adapter_dtype="bfloat16", checkpointing=False, **BF16),
    _case("llama full ckpt", _config("llama", tie_word_embeddings=True), method="full"),
    _case("llama full bf16-autocast no-ckpt", _config("llama"), method="full", autocast=True,
          checkpointing=False, optimizer="adamw_torch_fused"),
    _case("llama qlora bf16", _config("llama"), method="qlora", adapter_dtype="bfloat16", **BF16),
    _case("qwen2 qlora no-ckpt", QWEN, method="qlora", adapter_dtype="bfloat16",
          checkpointing=False, **BF16),
    _case("qwen2 qlora kbit-upcast hf-loss", QWEN, method="qlora", adapter_dtype="float32",
          kbit_upcast=True, fused_loss=False, **BF16),
    _case("mistral lora 8 layers 1x512", _config("mistral", num_hidden_layers=8,
          sliding_window=None), batch=1, seq=512, checkpointing=False),
    _case("phi3 lora q,k,v only", _config("phi3"), checkpointing=False,
          target_modules=("qkv_proj",)),
    _case("qwen3 lora bf16 hf-loss no-ckpt", _config("qwen3"), fused_loss=False,
          checkpointing=False, **BF16),
    _case("gemma2 lora no-ckpt", _config("gemma2", sliding_window=4096), checkpointing=False),
    _case("gemma3 lora 8 layers windows no-ckpt", _config("gemma3_text", num_hidden_layers=8,
          sliding_window=128), checkpointing=False),
    _case("gemma3 lora 8 layers windows ckpt bf16", _config("gemma3_text", num_hidden_layers=8,
          sliding_window=128), **BF16),
]  # fmt: skip


def train_really(case: Case) -> float:
    """Train the case and return the allocator's peak, bytes."""
    warnings.filterwarnings("ignore")
    import torch

    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    resident, trainer = _trainer(case)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profiler:
        trainer.train()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    total = highest = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        total += event.nbytes()
        highest = max(highest, total)
    return resident + highest


def _trainer(case: Case) -> tuple[int, Any]:
    """The bytes that lie there before training, and the trainer."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig, prepare_model_for_kbit_training
    from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments
    from trl import SFTConfig, SFTTrainer

    from holdfast.models import LAB_FOLDER, ModelRef, load_model, load_tokenizer

    job = case.job
    values = dict(job.config)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    config.use_cache = False
    options = {} if job.attention == "auto" else {"attn_implementation": job.attention}
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, job.dtype), **options)
    if job.method == "qlora":
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            model = load_model(ModelRef(folder), getattr(torch, job.dtype), "cpu", nf4=True)
        model.config.use_cache = False
    if job.kbit_upcast:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    masks = [[1] * job.seq for _ in range(case.batch)]
    if job.padded:
        masks[0][:7] = [0] * 7

    def collate(rows: Any) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(rows[0]["seed"])
        ids = torch.randint(3, 200, (case.batch, job.seq), generator=generator)
        return {"input_ids": ids, "labels": ids.clone(), "attention_mask": torch.tensor(masks)}

    common: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(), "max_steps": 2, "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": 2, "optim": job.optimizer, "use_cpu": True,
        "bf16": job.autocast, "activation_checkpointing": job.checkpointing, "report_to": [],
        "save_strategy": "no", "disable_tqdm": True, "dataloader_pin_memory": False,
        "remove_unused_columns": False, "logging_strategy": "no",
    }  # fmt: skip
    rows = Dataset.from_dict({"seed": list(range(4)), "labels": [0] * 4})
    lora = LoraConfig(
        r=job.r, lora_dropout=job.dropout, task_type="CAUSAL_LM",
        target_modules=job.target_modules if isinstance(job.target_modules, str)
        else list(job.target_modules),
    )  # fmt: skip
    if job.fused_loss:
        trainer: Any = SFTTrainer(
            model=model,
            args=SFTConfig(
                **common, max_length=None, dataset_kwargs={"skip_prepare_dataset": True}
            ),
            train_dataset=rows,
            data_collator=collate,
            processing_class=load_tokenizer(ModelRef(str(LAB_FOLDER))),
            peft_config=None if job.method == "full" else lora,
        )
    else:
        from peft import get_peft_model

        whole = model if job.method == "full" else get_peft_model(model, lora)
        if job.method != "full" and job.checkpointing:
            whole.enable_input_require_grads()
        trainer = Trainer(
            model=whole,
            args=TrainingArguments(
                **common, gradient_checkpointing_kwargs={"use_reentrant": False}
            ),
            train_dataset=rows,
            data_collator=collate,
        )
    for parameter in trainer.model.parameters():  # TRL and PEFT have their defaults; the case its
        if parameter.requires_grad and job.method != "full":
            parameter.data = parameter.data.to(getattr(torch, job.adapter_dtype))
    return _resident(trainer.model), trainer


def _resident(model: Any) -> int:
    tensors = [*model.parameters(), *model.buffers()]
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            tensors += [state.absmax, state.code, state.offset, state.state2.absmax,
                        state.state2.code]  # fmt: skip
    storages = {one.untyped_storage().data_ptr(): one.untyped_storage().nbytes() for one in tensors}
    return sum(storages.values())


def others(case: Case) -> dict[str, float]:
    """What the known calculators say for the same model, MiB."""
    import torch
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes
    from transformers import AutoConfig, AutoModelForCausalLM

    values = dict(case.job.config)
    with torch.device("meta"):  # full precision, as its `create_empty_model`
        model = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(values.pop("model_type"), **values)
        )
    size, _ = calculate_maximum_sizes(model)
    usage = estimate_training_usage(size, case.job.dtype)
    parameters = sum(one.numel() for one in model.parameters())
    largest = max(
        sum(one.numel() for one in module.parameters(recurse=False)) for module in model.modules()
    )
    return {
        "accelerate": max(usage.values()) / MIB,
        "zero2": (2 + 18) * parameters / MIB,
        "zero3": (4 * largest + 18 * parameters) / MIB,
    }


def _in_own_process(name: str) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", __file__, "--child", name]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", help="part of a case's name")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        (case,) = [one for one in CASES if one.name == options.child]
        with contextlib.redirect_stdout(sys.stderr):
            row = {"allocator": train_really(case) / MIB, **others(case)}
        print(json.dumps(row))
        return
    cases = [case for case in CASES if not options.only or options.only in case.name]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        from pathlib import Path

        results = measure([case.job for case in cases], Path(folder), limit_s=300)
    for case, result in zip(cases, results, strict=True):
        if isinstance(result, TraceFailed):
            raise SystemExit(f"{case.name}: {result.reason}")
        predicted = result.predict(batch=case.batch).allocated / MIB
        row = {"config": case.name, "predicted": predicted, **_in_own_process(case.name)}
        row["error"] = predicted / row["allocator"] - 1
        rows.append(row)
        print(".", end="", file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps(rows, indent=1))
        return
    print("\nMiB; the three columns on the right are states only, by others' formulas")
    print(f"{'config':44}{'predicted':>10}{'allocator':>10}{'error':>8}"
          f"{'accelerate':>12}{'ZeRO-2':>8}{'ZeRO-3':>8}")  # fmt: skip
    for row in rows:
        print(f"{row['config']:44}{row['predicted']:10.2f}{row['allocator']:10.2f}"
              f"{row['error']:8.2%}{row['accelerate']:12.1f}{row['zero2']:8.1f}"
              f"{row['zero3']:8.1f}")  # fmt: skip
    worst = max(abs(row["error"]) for row in rows)
    print(f"largest error {worst:.2%} of {len(rows)} configurations")


if __name__ == "__main__":
    main()
