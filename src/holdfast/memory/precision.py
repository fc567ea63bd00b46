"""Decides what is computed in: bfloat16, float16 with loss scaling, or float32.

There is one rule, which plans, exported scripts, training and answering share. On GPUs bfloat16
where all of them have it in hardware, for it overflows no sooner than float32; else float16 with
loss scaling, which takes as little memory, unless a GPU is slow at it or the model overflows in it;
else float32. On a CPU float32; bfloat16 where the CPU has it in hardware and the model is stored in
16 bits anyway. What the user says wins. Of several GPUs the least able decides for all, and of
several models the one that needs most, so that everything in one study is computed alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from holdfast.config.training import ANY_PRECISION
from holdfast.errors import UsageError
from holdfast.memory.hardware.cpu import computes_bf16
from holdfast.memory.hardware.detect import detect
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.planner.translations import Language, say

Dtype = Literal["bfloat16", "float16", "float32"]
BYTES: Mapping[Dtype, int] = {"bfloat16": 2, "float16": 2, "float32": 4}
OVERFLOWS = (
    "gemma2", "gemma3", "gemma4", "gpt_oss", "qwen3_5", "qwen3_next", "qwen3_moe", "glm4_moe",
    "t5", "mt5", "umt5",
)  # fmt: skip
"""Beginnings of the `model_type` of families whose activations or gradients pass float16's 65,504:
those that practitioners' tools force into float32 on such GPUs."""
HALVES = ("bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Stored:
    """What a model's config.json says that bears on the choice.

    Attributes:
        family: its `model_type`.
        dtype: what its weights are stored in; "" where it does not say.
    """

    family: str = ""
    dtype: str = ""

    @property
    def in_16_bits(self) -> bool:
        """Whether float32 would keep nothing that 16 bits lose."""
        return self.dtype in HALVES

    @property
    def overflows(self) -> bool:
        """Whether float16 is too narrow for it."""
        return self.family.startswith(OVERFLOWS)


@dataclass(frozen=True, slots=True)
class Precision:
    """What is computed in, and why where that is not what everybody would expect.

    Attributes:
        dtype: of the computation and of frozen weights; what is trained is float32.
        key: of the sentence in `holdfast.memory.planner.translations`; "": nothing to say.
        values: for it.
        mixed: other GPUs could do better.
    """

    dtype: Dtype
    key: str = ""
    values: Mapping[str, object] = field(default_factory=dict)
    mixed: bool = False

    @property
    def notice(self) -> str:
        """`line` where there is something to say; "" else."""
        return self.line() if self.key else ""

    def why(self, language: Language = "en") -> str:
        """Why, in words without a full stop; "" where there is nothing to say."""
        if not self.key:
            return ""
        mixed = say(language, "p_mixed") if self.mixed else ""
        return say(language, self.key, **self.values) + mixed

    def said(self, language: Language = "en") -> str:
        """What is computed in, and why where there is something to say."""
        dtype, why = say(language, self.dtype), self.why(language)
        return say(language, "because_of", what=dtype, why=why) if why else dtype

    def line(self, language: Language = "en") -> str:
        """`said` as a sentence."""
        return say(language, "precision", said=self.said(language))


BFLOAT16 = Precision("bfloat16")


def stored(config: Mapping[str, object]) -> Stored:
    """What a model's config.json says; a multimodal one's text part counts too."""
    parts = [config, *(config.get(name) for name in ("text_config", "llm_config"))]
    found = [part for part in parts if isinstance(part, Mapping)]
    names = (str(part.get(key) or "") for part in found for key in ("dtype", "torch_dtype"))
    dtype = next((name.removeprefix("torch.") for name in names if name), "")
    return Stored(str(config.get("model_type") or ""), dtype)


def on_gpus(
    gpus: Sequence[GPU],
    models: Iterable[Stored] = (),
    allowed: Sequence[Dtype] = ANY_PRECISION,
) -> Precision:
    """What to compute in on these GPUs.

    Args:
        gpus: at least one.
        models: all that are computed with.
        allowed: what may be chosen, the best first; see `TrainSpec.precisions`.
    """
    lacking = next((gpu for gpu in gpus if not gpu.bf16), None)
    slow = next((gpu for gpu in gpus if not gpu.fp16), None)
    mixed = any(gpu.bf16 for gpu in gpus)
    if "bfloat16" in allowed and lacking is None:
        return Precision("bfloat16")
    overflowing = next((one.family for one in models if one.overflows), "")
    if len(allowed) == 1:
        return _as_asked(allowed[0], lacking, slow, overflowing)
    assert lacking is not None, "auto allows bfloat16"
    said = {"gpu": lacking.name, "family": overflowing}
    if "float16" not in allowed:
        return Precision("float32", "p_not_float16", said, mixed)
    if slow is not None:
        return Precision("float32", "p_slow", {"gpu": slow.name}, mixed)
    if overflowing:
        return Precision("float32", "p_overflows", said, mixed)
    return Precision("float16", "p_scaled", said, mixed)


def _as_asked(dtype: Dtype, lacking: GPU | None, slow: GPU | None, family: str) -> Precision:
    """What the user insists on, with what there is to say about it."""
    if dtype == "bfloat16" and lacking is not None:
        return Precision(dtype, "p_emulated", {"gpu": lacking.name})
    if dtype == "float16" and family:
        return Precision(dtype, "p_asked_overflows", {"family": family})
    if dtype == "float16" and slow is not None:
        return Precision(dtype, "p_asked_slow", {"gpu": slow.name})
    if dtype == "float32" and lacking is None:
        return Precision(dtype, "p_asked_float32", {})
    return Precision(dtype)


def on_cpu(
    models: Iterable[Stored],
    allowed: Sequence[Dtype] = ANY_PRECISION,
    *,
    has_bf16: bool,
) -> Precision:
    """What to compute in on a CPU.

    Args:
        models: all that are computed with.
        allowed: what may be chosen; see `TrainSpec.precisions`.
        has_bf16: the CPU has bfloat16 in hardware (`holdfast.memory.hardware.cpu`).

    Raises:
        UsageError: float16 is asked for.
    """
    if tuple(allowed) == ("float16",):
        raise UsageError(
            "float16 needs a GPU: on a CPU there is no loss scaling, and it is slower than float32",
            where="train.fp16",
            remedy="leave train.fp16 out, or set hardware.device: cuda",
        )
    if len(allowed) == 1:
        emulated = allowed[0] == "bfloat16" and not has_bf16
        return Precision(allowed[0], "p_cpu_emulated" if emulated else "")
    every = tuple(models) if has_bf16 else ()
    if every and all(one.in_16_bits for one in every):
        return Precision("bfloat16", "p_cpu")
    return Precision("float32")


def here() -> str:
    """What is computed in on this machine, where a study leaves it open; in words."""
    try:
        gpus = detect()
    except UsageError as error:
        return f"not known: {error.message}"
    if gpus:
        return on_gpus(gpus).said()
    if computes_bf16():
        return "float32; bfloat16, which this CPU has in hardware, for models stored in 16 bits"
    return "float32: this CPU has no bfloat16 in hardware"
