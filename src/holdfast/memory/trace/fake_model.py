"""Builds the user's model without its weights, as training sets it up, and computes its losses.

It is built on the `meta` device by the code that training uses (transformers' class, bitsandbytes'
4-bit layers, PEFT's adapters, TRL's head), then every parameter is replaced by a fake tensor. This
module needs torch; it is imported only in the tracer's own process.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from holdfast.config.lora import TWO_HALVES
from holdfast.memory.trace.allocation_tracker import AllocationTracker
from holdfast.memory.trace.trace_job import TraceJob

BLOCK, BLOCKS = 64, 256
"""NF4: weights per scale, and scales per scale of scales (bitsandbytes' defaults)."""
HEAD_ON_CPU = "holdfast.models.cpu_head"
"""The head as training has it on a CPU; by name, for this package is below it."""
Batch = Mapping[str, torch.Tensor]


class Untraceable(Exception):
    """The estimator cannot trace this model; the message says why."""


def read_config(job: TraceJob) -> PretrainedConfig:
    """The job's config as transformers understands it.

    Raises:
        Untraceable: another kind of model than a dense causal language model.
    """
    values = dict(job.config)
    kind = values.pop("model_type", None)
    if "vision_config" in values or "audio_config" in values:
        raise Untraceable(f"{kind} has parts besides its language model")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise Untraceable(f"transformers has no causal language model of type {kind!r}")
    config = AutoConfig.for_model(kind, **values)
    if any(getattr(config, name, None) for name in ("num_local_experts", "num_experts")):
        raise Untraceable("a mixture of experts: how many tokens each gets depends on the data")
    if getattr(config, "quantization_config", None):
        raise Untraceable("its weights are already quantised")
    _steady_positions(config)
    return config


def _steady_positions(config: PretrainedConfig) -> None:
    """Positions whose tables depend on the tokens' values become plain ones of the same size."""
    rope = getattr(config, "rope_parameters", None) or {}
    for table in (rope, *(part for part in rope.values() if isinstance(part, dict))):
        if table.get("rope_type") in {"dynamic", "longrope"}:
            table["rope_type"] = "default"


def layer_kinds(config: PretrainedConfig) -> list[str]:
    """What kind each layer is; layers of one kind take the same bytes."""
    kinds = getattr(config, "layer_types", None) or ["layer"] * config.num_hidden_layers
    return list(kinds)[: config.num_hidden_layers]


def build(job: TraceJob, stack: Sequence[str]) -> torch.nn.Module:
    """The model on the `meta` device with adapters, casts and checkpointing as trained."""
    config = read_config(job)
    config.num_hidden_layers = len(stack)
    if getattr(config, "layer_types", None):
        config.layer_types = list(stack)
    config.use_cache = job.phase == "answer"
    options = {} if job.attention == "auto" else {"attn_implementation": job.attention}
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, job.dtype), **options)
        if job.method == "qlora":
            _quantise(model, getattr(torch, job.dtype))
        if job.kbit_upcast:
            for parameter in model.parameters():
                if not hasattr(parameter, "compress_statistics"):
                    parameter.data = parameter.data.float()
        if job.fused_loss and job.phase == "train":
            from trl.trainer.utils import add_fused_lm_head

            add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
        whole = model if job.method == "full" else _adapted(model, job)
    if job.phase == "answer":
        return whole.eval()
    whole.train()
    if job.checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        if job.method != "full":
            whole.enable_input_require_grads()
    return whole


def layers_of(model: torch.nn.Module, count: int) -> list[torch.nn.Module]:
    """The decoder layers of a model that was built with so many.

    Raises:
        Untraceable: they are not in one list.
    """
    for module in model.modules():
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return list(module)
    raise Untraceable("its layers are not in one list")


def name_of(stack: Sequence[str], place: int) -> str:
    """What a layer is called among its phases: its kind, and whether it is the first or last."""
    kind = stack[place]
    alike = [other for other, one in enumerate(stack) if one == kind]
    return f"{kind} {'first' if place == alike[0] else 'last' if place == alike[-1] else 'middle'}"


def _adapted(model: PreTrainedModel, job: TraceJob) -> torch.nn.Module:
    from peft import LoraConfig, OFTConfig, OSFConfig, PeftConfig, get_peft_model

    targets = job.target_modules
    common: dict[str, object] = {
        "target_modules": targets if isinstance(targets, str) else list(targets),
        "task_type": "CAUSAL_LM",
    }
    match job.variant:
        case "oft":
            settings: PeftConfig = OFTConfig(oft_block_size=job.r, **common)
        case "osf":
            kept = {
                f"{re.escape(name)}$": min(module.weight.shape) - job.r
                for name, module in model.named_modules()
                if isinstance(module, torch.nn.Linear)
                and module is not model.get_output_embeddings()
            }
            settings = OSFConfig(rank_pattern=kept, **common)
        case _:
            rank = 2 * job.r if job.variant in TWO_HALVES else job.r
            dora = job.variant == "dora"
            settings = LoraConfig(r=rank, lora_dropout=job.dropout, use_dora=dora, **common)
    whole = get_peft_model(model, settings)
    for parameter in whole.parameters():  # on `meta` PEFT leaves them in the base's dtype
        if parameter.requires_grad:
            parameter.data = parameter.data.to(getattr(torch, job.adapter_dtype))
    return whole


def _quantise(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Linear layers become bitsandbytes' 4-bit ones, as transformers' loader leaves them."""
    from bitsandbytes.nn import Linear4bit

    head = model.get_output_embeddings()
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and child is not head:
                bias = child.bias is not None
                new = Linear4bit(
                    child.in_features, child.out_features, bias, dtype, quant_type="nf4"
                )
                if bias:
                    new.bias = child.bias
                setattr(module, name, new)
    model.is_loaded_in_4bit = True
    model.is_quantized = True


def materialise(model: torch.nn.Module, tracker: AllocationTracker) -> None:
    """Replace what is on `meta` by fake CPU tensors; call it inside the fake mode.

    `Module.to` refuses to swap fake parameters, so every one is replaced in place; one parameter
    that two modules share stays one.
    """
    tracker.enter("states", "weights")
    adapted = hasattr(model, "peft_config")
    seen: dict[int, tuple[torch.nn.Parameter, torch.nn.Parameter]] = {}

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")

    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) not in seen:
                if hasattr(parameter, "compress_statistics"):
                    new = _nf4(parameter, module.compute_dtype)
                else:
                    new = torch.nn.Parameter(fake(parameter), parameter.requires_grad)
                seen[id(parameter)] = (new, parameter)  # keeps the old one, and so its id
                if adapted and parameter.requires_grad:
                    tracker.label(new, "adapters")
            module._parameters[name] = seen[id(parameter)][0]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake(buffer)


def _nf4(parameter: torch.nn.Parameter, dtype: torch.dtype) -> torch.nn.Parameter:
    """A packed weight with the quantisation constants that bitsandbytes would have made."""
    from bitsandbytes.functional import QuantState

    scales = math.ceil(parameter.numel() / BLOCK)
    state = QuantState(
        absmax=torch.empty(scales, dtype=torch.uint8),
        shape=parameter.shape,
        code=torch.empty(16),
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=dtype,
        offset=torch.empty(()),
        state2=QuantState(
            absmax=torch.empty(math.ceil(scales / BLOCKS)),
            code=torch.empty(256),
            blocksize=BLOCKS,
            dtype=torch.float32,
        ),
    )
    packed = torch.empty((math.ceil(parameter.numel() / 2), 1), dtype=torch.uint8)
    new = torch.nn.Parameter(packed, requires_grad=False)
    new.quant_state = state
    return new


def plain_loss(model: torch.nn.Module, job: TraceJob, inputs: Batch) -> torch.Tensor:
    """As the trainer computes it; what the model returned is dropped before the backward pass."""
    more = {"fused_lm_head": True} if job.fused_loss else {}
    count = torch.ones((), dtype=torch.int64)
    on_cpu = job.device == "cpu" and job.fused_loss
    head = _head_on_cpu(model) if on_cpu else contextlib.nullcontext()
    with _autocast(job), head:
        outputs = model(**inputs, use_cache=False, num_items_in_batch=count, **more)
    if job.autocast:  # accelerate wraps the forward pass like this
        from accelerate.utils import convert_to_fp32  # type: ignore[import-untyped]

        outputs = convert_to_fp32(outputs)
    return (-outputs.log_probs).sum() / count if job.fused_loss else outputs.loss


def whole_logits(model: torch.nn.Module, job: TraceJob, inputs: Batch) -> torch.Tensor:
    """Whole logits of a row's last positions, as accelerate hands them out."""
    given = {key: value for key, value in inputs.items() if key != "labels"}
    with _autocast(job):
        wanted = torch.zeros(job.positions or job.seq, dtype=torch.int64)
        logits = model(**given, use_cache=False, logits_to_keep=wanted).logits
    return logits.float() if job.autocast else logits


def compared(
    job: TraceJob,
    run: Callable[[], torch.Tensor],
    model: torch.nn.Module,
    tracker: AllocationTracker,
) -> torch.Tensor:
    """The loss that compares the model with the base, of one micro-batch; a scalar.

    The tensors are those of `holdfast.train.objective` and of TRL's `GKDTrainer`. The trace has no
    data, so every position that was asked for is gathered.

    Args:
        job: says which loss.
        run: the model's whole logits, shape (rows, positions, words), float32.
        model: its adapters are switched off for the base's pass.
        tracker: told when the model's own pass begins.
    """
    if job.logits == "divergence":
        return _divergence(run, model)
    before = _gathered(_of_base(run, model))
    tracker.enter("embedding", "activations")
    logits = run()
    log_probs = torch.log_softmax(_gathered(logits), -1)
    own = log_probs[:, 0]
    with torch.no_grad():
        entropy = -(log_probs.exp() * log_probs).sum(-1)
    now = _gathered(logits)
    base, after = torch.log_softmax(before, -1), torch.log_softmax(now, -1)
    return -own.sum() + (base.exp() * (base - after)).sum() + 0 * entropy.sum()


def _divergence(run: Callable[[], torch.Tensor], model: torch.nn.Module) -> torch.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it is experimental
        from trl.experimental.gkd import GKDTrainer

    student = run()
    teacher = _of_base(run, model)
    return GKDTrainer.generalized_jsd_loss(student[:, :-1], teacher[:, :-1], beta=0.5)


def _of_base(run: Callable[[], torch.Tensor], model: torch.nn.Module) -> torch.Tensor:
    switch = (
        model.disable_adapter() if hasattr(model, "disable_adapter") else contextlib.nullcontext()
    )
    with torch.no_grad(), switch:
        return run()


def _gathered(logits: torch.Tensor) -> torch.Tensor:
    """All positions as `logits[mask]` picks them: a copy, shape (rows x positions, words)."""
    rows, positions = logits.shape[:2]
    places = torch.zeros(rows * positions, dtype=torch.int64)
    return logits[places, places]


def gathering(function: Any) -> type:
    """The same function of hidden states that were gathered; here: of all of them."""

    class Gathered:
        @staticmethod
        def apply(hidden: torch.Tensor, *rest: object) -> object:
            return function.apply(hidden.clone(), *rest)

    return Gathered


@contextlib.contextmanager
def _head_on_cpu(model: torch.nn.Module) -> Iterator[None]:
    """The head as training has it on a CPU, of all positions: which have a loss is not known."""
    from trl.trainer import utils

    with importlib.import_module(HEAD_ON_CPU).on_cpu(model):
        place, gathered = "trl.trainer.utils.", gathering(utils._ChunkedLogProbFunction)
        with (
            mock.patch(place + "_use_triton", lambda _: False),
            mock.patch(place + "_ChunkedLogProbFunction", gathered),
        ):
            yield


def _autocast(job: TraceJob) -> AbstractContextManager[None]:
    return torch.autocast("cpu", torch.bfloat16) if job.autocast else contextlib.nullcontext()
