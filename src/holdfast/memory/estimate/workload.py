"""The training job as the memory formulas see it: adapters, lengths, batch, loss.

It names no model and no machine; `holdfast.memory.planner.request` adds those.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from holdfast.config import TrainSpec
from holdfast.errors import UsageError
from holdfast.memory.estimate.method_overhead import NOTHING, MethodOverhead
from holdfast.memory.precision import BYTES, Dtype

Method = Literal["auto", "lora", "qlora", "full"]
Variant = Literal["lora", "rslora", "dora", "oft", "osf", "corda", "guardspace"]
Loss = Literal["tiled", "whole", "in_place"]
Script = Literal["holdfast", "trl", "litgpt"]


@dataclass(frozen=True, slots=True)
class Workload:
    """The training job without the model and the machine.

    Attributes:
        method: `auto` is LoRA, on an NF4 base where that is what fits or is faster.
        quantize: whether `auto` and `lora` may become `qlora`.
        rank: of the adapters.
        dropout: on the adapters' input.
        target_modules: `all-linear` or names.
        optim: name of the optimiser, as transformers knows it.
        seq_len: longest example, tokens.
        supervised_tokens: tokens of it that are trained on, at most; None: all.
        global_batch: examples per optimiser step; what is learned depends on it, so it is kept.
        micro_batch: examples per forward pass; None: chosen.
        checkpointing: recompute activations; None: chosen.
        adapter_dtype: None: as the trainer makes them (float32; bfloat16 on an NF4 base).
        attention: `sdpa`, `eager`, or `flash` for what builds no mask of its own.
        loss: `tiled` is TRL's; `whole` logits; `in_place`: whole ones over which a kernel writes
            their gradient.
        padded: examples of unequal length share a micro-batch, so there is an attention mask.
        packed: several examples share a row, which has a mask of blocks and a loss anywhere.
        kernels: `liger`, or "" for transformers' own layers.
        compiled: the decoder layers are compiled.
        saved_aside: checkpoints are written from a copy in the host's memory.
        dtype: of the computation, and of a frozen base (`holdfast.memory.precision`).
        variant: of the adapters; see `holdfast.config.LoraSpec`.
        layers: only these decoder layers have adapters; None: all.
        whole: names of modules that are trained whole beside the adapters.
        tokens: rows of the embedding that are trained.
        method_overhead: what the arm's methods take on top.
        on_cpu: it runs there, with the head that training has there.
        narrow: weights that are trained whole are as wide as the computation, not float32.
        autocasts: the forward pass runs under autocast where it is in 16 bits.
        base_float32: frozen weights are float32 whatever is computed in.
        kbit_upcast: what a 4-bit base does not quantise is float32.
        nested: the scales of 4-bit blocks are quantised themselves.
        expandable: the allocator's segments grow (`expandable_segments`).
        fsdp: version; the first gathers embedding and head with each other, for as long as the
            model runs.
        script: whose training it is; see `holdfast.memory.planner.stated.Stated`.
        keeps_inputs: 4-bit matrices keep their inputs, as in bitsandbytes before 0.43.2.
    """

    method: Method = "auto"
    quantize: bool = True
    rank: int = 16
    dropout: float = 0.05
    target_modules: str | tuple[str, ...] = "all-linear"
    optim: str = "paged_adamw_32bit"
    seq_len: int = 1024
    supervised_tokens: int | None = None
    global_batch: int = 4
    micro_batch: int | None = None
    checkpointing: bool | None = None
    adapter_dtype: Literal["float32", "bfloat16"] | None = None
    attention: Literal["sdpa", "eager", "flash"] = "sdpa"
    loss: Loss = "tiled"
    padded: bool = True
    packed: bool = False
    kernels: str = ""
    compiled: bool = False
    saved_aside: bool = False
    dtype: Dtype = "bfloat16"
    variant: Variant = "lora"
    layers: tuple[int, ...] | None = None
    whole: tuple[str, ...] = ()
    tokens: int = 0
    method_overhead: MethodOverhead = NOTHING
    on_cpu: bool = False
    narrow: bool = False
    autocasts: bool = True
    base_float32: bool = False
    kbit_upcast: bool = False
    nested: bool = True
    expandable: bool = True
    fsdp: Literal[1, 2] = 2
    script: Script = "holdfast"
    keeps_inputs: bool = False

    def __post_init__(self) -> None:
        """Refuse what can never be trained.

        Raises:
            UsageError: a size below 1, or a micro-batch that does not divide the global batch.
        """
        for name in ("seq_len", "global_batch", "rank"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}", remedy="give 1 or more")
        if self.micro_batch is not None and (
            self.micro_batch < 1 or self.global_batch % self.micro_batch
        ):
            raise UsageError(
                f"a global batch of {self.global_batch} is not divisible by the micro-batch "
                f"{self.micro_batch}",
                remedy="give a micro-batch that divides it",
            )

    @property
    def methods(self) -> tuple[Literal["lora", "qlora", "full"], ...]:
        """The methods that may be chosen from, the plain one first."""
        match self.method:
            case "auto":
                return ("lora", "qlora") if self.quantize else ("lora",)
            case "qlora" | "full" | "lora":
                return (self.method,)

    @property
    def positions(self) -> int:
        """Positions of one row at which whole logits are kept, where they are kept at all."""
        return (
            self.seq_len
            if self.method_overhead.everywhere or self.packed
            else self.supervised_tokens or self.seq_len
        )

    @property
    def autocast(self) -> bool:
        """Whether the forward pass runs in 16 bits, whatever the weights are."""
        return self.autocasts and self.dtype != "float32"

    @property
    def fused_loss(self) -> bool:
        """Whether the loss works in tiles, so that whole logits are never in memory."""
        return self.loss == "tiled"

    def weight_bytes(self, method: str) -> int:
        """Bytes of one number of the base's weights, where they are not in 4 bits."""
        if method == "full":
            return self.wide if self.narrow else 4
        return 4 if self.base_float32 or (method == "qlora" and self.kbit_upcast) else self.wide

    def stream_bytes(self, method: str) -> int:
        """Bytes of one number of the residual stream: as wide as the embedding it begins in."""
        return max(self.weight_bytes(method), self.wide)

    @property
    def wide(self) -> int:
        """Bytes of one number of the computation."""
        return BYTES[self.dtype]

    def adapters(self, quantized: bool) -> Literal["float32", "bfloat16"]:
        """The adapters' dtype: TRL casts them to bfloat16 on a 4-bit base, PEFT to float32 else.

        Under float16 they are float32 in any case: the loss scaler takes no gradients of 16 bits.
        """
        if self.dtype == "float16":
            return "float32"
        if self.adapter_dtype is not None:
            return self.adapter_dtype
        return "bfloat16" if quantized and self.dtype != "float32" else "float32"


def from_training(
    train: TrainSpec,
    seq_len: int,
    supervised_tokens: int | None = None,
    overhead: MethodOverhead = NOTHING,
) -> Workload:
    """The workload of a study's `train` section.

    Args:
        train: the section, as the arm has it; where it leaves the precision open, bfloat16 is
            taken, and the planner puts in what the GPUs have.
        seq_len: tokens of the longest row, see `TrainSpec.row_tokens`.
        supervised_tokens: tokens of it that are trained on, at most; of a packed row all may be.
        overhead: what the arm's methods take on top. Where they generate in the loop, a row is as
            long as the longest example, which the teacher reads too, and the answer together.
    """
    if overhead.generated_tokens:
        supervised_tokens = overhead.generated_tokens
        seq_len += overhead.generated_tokens
    return Workload(
        method=train.method,
        quantize=train.method in ("auto", "qlora"),
        rank=train.lora.r,
        dropout=train.lora.dropout,
        target_modules=train.lora.target_modules,
        optim=train.optim,
        seq_len=seq_len,
        supervised_tokens=None if train.packing else supervised_tokens,
        packed=train.packing,
        kernels=train.kernels or "",
        compiled=bool(train.torch_compile),
        saved_aside=train.async_save,
        global_batch=train.batch_size,
        micro_batch=None,
        checkpointing=train.gradient_checkpointing,
        dtype="bfloat16" if "bfloat16" in train.precisions else train.precisions[0],
        variant=train.lora.variant,
        layers=train.lora.layers,
        whole=train.lora.modules_to_save,
        tokens=len(train.lora.trainable_token_indices),
        method_overhead=overhead,
    )


def longer(work: Workload, seq_len: int) -> Workload:
    """The same work with examples of another length."""
    supervised = work.supervised_tokens
    return replace(work, seq_len=seq_len, supervised_tokens=supervised and min(supervised, seq_len))


def plain_training(work: Workload) -> Workload:
    """The same work without any method overhead."""
    seq_len = max(1, work.seq_len - work.method_overhead.generated_tokens)
    return replace(longer(work, seq_len), method_overhead=NOTHING)


def as_sharded(work: Workload, method: str) -> tuple[Workload, Workload]:
    """The job as FSDP2 runs it: for the states, and for the activations.

    accelerate makes what is trained float32 unless the job is in 16 bits throughout; units are
    gathered as wide as the computation, so that autocast has nothing to copy and the residual
    stream is no wider.
    """
    if method != "full" or not work.autocast:
        return work, work
    return replace(work, narrow=False), replace(work, narrow=True, autocasts=False)
