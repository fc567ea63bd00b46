"""Compares predicted peaks with a real GPU's: twelve configurations, a fresh process each.

The models have random weights and the true dimensions of Qwen2.5. Three warm steps, then the peak
of five: what torch handed out, what it reserved, what else the GPU lost. The overheads
(fragmentation, context) are fitted on configurations 1, 2, 4 and 8 and the errors reported on the
other eight. "False fit": the process needed more than the prediction with its margin.

    python benchmarks/memory_gpu.py [--only 1,2,4] [--tiny]

`--tiny` runs the same code with small models on the CPU, to try the script; it measures nothing.
"""

from __future__ import annotations

import argparse
import functools
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from holdfast.memory.estimate.states import states
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.memory_plan import GIB, Breakdown
from holdfast.memory.model.catalogue import read_config
from holdfast.memory.model.shape import from_config
from holdfast.memory.planner.calibration import Observation, fitted
from holdfast.memory.planner.strategies import peak, whole, with_overheads
from holdfast.memory.trace.estimates import estimates

FITTED = (1, 2, 4, 8)
SMALL = {
    "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "vocab_size": 2048,
    "num_attention_heads": 4, "num_key_value_heads": 2, "layer_types": None, "head_dim": None,
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One configuration of the protocol."""

    number: int
    model: str
    work: Workload
    batch: int
    recompute: bool = True


def cases(tiny: bool) -> list[Case]:
    """What is run; of few tokens when `tiny`."""
    return [replace(one, work=replace(one.work, seq_len=64)) if tiny else one for one in CASES]


def _case(number: int, model: str, seq: int, batch: int, recompute: bool = True,
          **work: Any) -> Case:  # fmt: skip
    asked = {"method": "lora", "optim": "adamw_torch_fused", "padded": False} | work
    return Case(number, model, Workload(seq_len=seq, global_batch=batch, **asked), batch, recompute)


CASES = [
    _case(1, "Qwen/Qwen2.5-7B", 512, 1, loss="whole"),
    _case(2, "Qwen/Qwen2.5-7B", 2048, 1, loss="whole"),
    _case(3, "Qwen/Qwen2.5-7B", 2048, 4, loss="whole"),
    _case(4, "Qwen/Qwen2.5-7B", 2048, 1, False, loss="whole"),
    _case(5, "Qwen/Qwen2.5-7B", 2048, 1, False, dropout=0.0, adapter_dtype="bfloat16",
          loss="whole"),
    _case(6, "Qwen/Qwen2.5-7B", 2048, 1, False, attention="eager", loss="whole"),
    _case(7, "Qwen/Qwen2.5-7B", 2048, 4),
    _case(8, "Qwen/Qwen2.5-7B", 512, 1, method="qlora", loss="whole"),
    _case(9, "Qwen/Qwen2.5-7B", 2048, 1, method="qlora"),
    _case(10, "Qwen/Qwen2.5-7B", 2048, 4, method="qlora", padded=True),
    _case(11, "Qwen/Qwen2.5-1.5B", 1024, 4, method="full"),
    _case(12, "Qwen/Qwen2.5-32B", 1024, 1, method="qlora"),
]  # fmt: skip


def config_of(case: Case, tiny: bool) -> dict[str, Any]:
    """The model's config; a small one of the same family when `tiny`."""
    config = dict(read_config(case.model))
    wanted = config | SMALL if tiny else config
    return {key: value for key, value in wanted.items() if value is not None}


def build(case: Case, tiny: bool) -> Any:
    """The model with random weights, on its device, quantised when the case says so."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    values = config_of(case, tiny)
    config = AutoConfig.for_model(values.pop("model_type"), **values)
    config.use_cache = False
    device = "cpu" if tiny else "cuda"
    full, quantized = case.work.method == "full", case.work.method == "qlora"
    options = {
        "dtype": torch.float32 if full else torch.bfloat16,
        "attn_implementation": case.work.attention,
    }
    with torch.device("meta" if quantized else device):
        model = AutoModelForCausalLM.from_config(config, **options)
    if quantized:
        import bitsandbytes
        from transformers import BitsAndBytesConfig
        from transformers.integrations.bitsandbytes import replace_with_bnb_linear

        settings = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        )  # fmt: skip
        model = replace_with_bnb_linear(model, ["lm_head"], settings)
        for part in model.modules():
            for name, one in list(part.named_parameters(recurse=False)):
                value = torch.randn(one.shape, dtype=torch.bfloat16, device=device) * 0.02
                if isinstance(part, bitsandbytes.nn.Linear4bit) and name == "weight":
                    kept: Any = bitsandbytes.nn.Params4bit(
                        value.cpu(), requires_grad=False, quant_type="nf4",
                        compress_statistics=True, module=part,
                    ).to(device)  # fmt: skip
                else:
                    kept = torch.nn.Parameter(value, requires_grad=False)
                setattr(part, name, kept)
        model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(device)
        model.is_loaded_in_4bit = model.is_quantized = True
        model.hf_quantizer = SimpleNamespace(
            is_trainable=True, quantization_config=settings, is_qat_trainable=False
        )
    return model


def run(case: Case, tiny: bool) -> dict[str, int]:
    """Train for eight steps; bytes handed out, reserved and lost besides."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import Trainer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from holdfast.models import LAB_FOLDER, ModelRef, load_tokenizer

    if tiny:
        torch.set_flush_denormal(True)
    model, work = build(case, tiny), case.work

    class Warm(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 3 and not tiny:
                torch.cuda.reset_peak_memory_stats()

    def collate(rows: Any) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(rows[0]["seed"])
        ids = torch.randint(3, 1000, (case.batch, work.seq_len), generator=generator)
        mask = torch.ones_like(ids)
        if work.padded:
            for row in range(1, case.batch):
                mask[row, work.seq_len - row * work.seq_len // 8 :] = 0
        labels = ids.masked_fill(mask == 0, -100)
        return {"input_ids": ids, "labels": labels, "attention_mask": mask}

    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(), max_steps=1 if tiny else 8,
            per_device_train_batch_size=1, gradient_accumulation_steps=2,
            bf16=True, use_cpu=tiny, optim=work.optim,
            activation_checkpointing=case.recompute, max_length=None, save_strategy="no",
            report_to=[], disable_tqdm=True, remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True}, logging_strategy="no",
        ),
        train_dataset=Dataset.from_dict({"seed": list(range(16)), "labels": [0] * 16}),
        data_collator=collate,
        processing_class=load_tokenizer(ModelRef(str(LAB_FOLDER))),
        callbacks=[Warm()],
        peft_config=None if work.method == "full" else LoraConfig(
            r=work.rank, lora_dropout=work.dropout, target_modules="all-linear",
            task_type="CAUSAL_LM",
        ),
    )  # fmt: skip
    if not work.fused_loss:  # the model's own loss on whole logits
        trainer.compute_loss = functools.partial(Trainer.compute_loss, trainer)
    wanted = getattr(torch, work.adapters(work.method == "qlora"))
    for weight in trainer.model.parameters():
        if weight.requires_grad and work.method != "full":
            weight.data = weight.data.to(wanted)
    trainer.train()
    if tiny:
        return {"allocated": 0, "reserved": 0, "context": 0}
    free, total = torch.cuda.mem_get_info()
    return {
        "allocated": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved(),
        "context": total - free - torch.cuda.memory_reserved(),
    }


def predicted(case: Case, tiny: bool) -> int:
    """Bytes that torch is expected to hand out."""
    config = config_of(case, tiny)
    shape = from_config(config, case.model, "benchmark")
    estimated = estimates(shape, config, replace(case.work, checkpointing=case.recompute), True)
    if estimated.note:
        print(estimated.note, file=sys.stderr)
    acts = estimated.estimate(shape, case.work, case.work.method, case.batch, case.recompute)
    return peak(whole(states(shape, case.work, case.work.method), shape), acts).allocated


def main() -> int:
    """Run the cases and print the table; 1 where one of them did not run."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--child", type=int, default=0)
    args = parser.parse_args()
    if args.child:
        print(
            json.dumps(
                run(next(one for one in cases(args.tiny) if one.number == args.child), args.tiny)
            )
        )
        return 0
    wanted = {int(one) for one in args.only.split(",") if one}
    found: dict[int, tuple[int, dict[str, int]]] = {}
    failed = 0
    for case in cases(args.tiny):
        if wanted and case.number not in wanted:
            continue
        more = ["--tiny"] if args.tiny else []
        done = subprocess.run(
            [sys.executable, "-W", "ignore", str(Path(__file__)), "--child", str(case.number),
             *more], capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            print(f"{case.number}: did not run: {last}", file=sys.stderr, flush=True)
            failed += 1
            continue
        print(f"{case.number}: run", file=sys.stderr, flush=True)
        found[case.number] = predicted(case, args.tiny), json.loads(done.stdout.splitlines()[-1])
    if args.tiny:
        print(f"{len(found)} of {len(wanted) or len(CASES)} configurations run")
    elif found:
        table(found)
    return int(failed > 0)


def table(found: dict[int, tuple[int, dict[str, int]]]) -> None:
    """Print predicted against measured, the fit on four cases and the errors on the others."""
    import torch

    gpu = torch.cuda.get_device_name()
    overheads = fitted([
        Observation(torch.__version__, gpu, False, guess, one["allocated"], one["reserved"],
                    one["context"])
        for number, (guess, one) in found.items() if number in FITTED
    ])  # fmt: skip
    print(f"{gpu}, torch {torch.__version__}; overheads fitted: {asdict(overheads)}")
    print("\n| # | predicted GiB | allocated | error | with margin | reserved + context | fits |")
    print("|---|---|---|---|---|---|---|")
    errors: list[float] = []
    false_fits = 0
    for number, (guess, one) in sorted(found.items()):
        bound = with_overheads(Breakdown(weights=guess), overheads, False).total
        used = one["reserved"] + one["context"]
        error = guess / one["allocated"] - 1
        if number not in FITTED:
            errors.append(abs(error))
            false_fits += used > bound
        print(
            f"| {number}{' (fitted)' if number in FITTED else ''} | {guess / GIB:.2f} | "
            f"{one['allocated'] / GIB:.2f} | {error:+.1%} | {bound / GIB:.2f} | "
            f"{used / GIB:.2f} | {'yes' if used <= bound else 'NO'} |"
        )
    if errors:
        print(f"\nmedian error {statistics.median(errors):.1%}, false fits {false_fits}")


if __name__ == "__main__":
    sys.exit(main())
