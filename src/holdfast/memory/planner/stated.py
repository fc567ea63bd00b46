"""The value `Stated`: what a plan is told that no study can say, because no training here does it.

A plan answers for scripts written elsewhere too: a plain TRL script of the same settings, weights
trained in 16 bits, a loss on whole logits, the allocator as torch has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, cast, get_args

from holdfast.errors import UsageError
from holdfast.memory.estimate.workload import Loss, Script, Workload
from holdfast.registry import nearest

Half = Literal["float32", "bfloat16"]
PRECISION_KEYS: Mapping[str, Mapping[str, bool | str]] = {
    "bf16": {"bf16": True},
    "fp16": {"fp16": True, "bf16": "auto"},
    "fp32": {"bf16": False, "fp16": "auto"},
    "pure_bf16": {"bf16": True},
    "autocast_bf16": {"bf16": True},
}
"""What `--precision` takes, and the settings of `train` that go with it."""
SCRIPTS: tuple[str, ...] = get_args(Script)
"""Whose training is planned for."""


@dataclass(frozen=True, slots=True)
class Stated:
    """What is said of a training beyond the keys of a study; all of it as usual by default.

    Attributes:
        loss: `tiled`, `whole` logits, or `in_place`: whole logits over which their gradient is
            written (the cross-entropy kernels of Liger and Unsloth). None: as the script has it.
        precision: see `PRECISION_KEYS`; "": by the study's `bf16` and `fp16`. `pure_bf16` trains
            16-bit weights and adapters without autocast, `autocast_bf16` under it; under `bf16`
            what is trained is float32.
        adapter_dtype: of the adapters; None: as the trainer makes them.
        script: `trl` is a plain script: whole logits, float32 weights unless 4-bit ones are asked
            for or `precision` says 16 bits, no `expandable_segments`. `litgpt` is LitGPT's trainer,
            16 bits throughout; see `holdfast.memory.estimate.litgpt`.
        checkpointing: recompute activations, or not; None: as in a study.
        expandable: the allocator's segments grow; None: as the script has it.
        nested: scales of 4-bit blocks are quantised themselves.
        kbit_upcast: what is not quantised is float32, as PEFT's `prepare_model_for_kbit_training`
            leaves it.
        fsdp: version that shards are made by.
        keeps_inputs: bitsandbytes is older than 0.43.2, whose 4-bit matrices keep their inputs.
    """

    loss: Loss | None = None
    precision: str = ""
    adapter_dtype: Half | None = None
    script: str = "holdfast"
    checkpointing: bool | None = None
    expandable: bool | None = None
    nested: bool = True
    kbit_upcast: bool = False
    fsdp: Literal[1, 2] = 2
    keeps_inputs: bool = False

    def __post_init__(self) -> None:
        """Refuse words that mean nothing.

        Raises:
            UsageError: naming the word and the nearest one that does.
        """
        known = {
            "--loss": (self.loss, get_args(Loss)),
            "--precision": (self.precision or None, tuple(PRECISION_KEYS)),
            "--adapter-dtype": (self.adapter_dtype, get_args(Half)),
            "--script": (self.script, SCRIPTS),
        }
        for flag, (word, words) in known.items():
            if word is not None and word not in words:
                raise UsageError(
                    f"{flag} {str(word)[:60]!r}{nearest(str(word), words)}",
                    remedy=f"{flag} {', '.join(words[:-1])} or {words[-1]}",
                )

    def applied(self, work: Workload) -> Workload:
        """The job as it would be run under all this."""
        plain = self.script != "holdfast"
        pure = self.precision == "pure_bf16" or (self.script == "litgpt" and not self.precision)
        narrow = pure or self.precision == "autocast_bf16"
        adapters = self.adapter_dtype
        if adapters is None and pure:
            adapters = "bfloat16"
        return replace(
            work,
            loss=self.loss or ("whole" if plain else work.loss),
            narrow=narrow,
            autocasts=not pure,
            base_float32=self.script == "trl" and not self.precision,
            adapter_dtype=adapters or work.adapter_dtype,
            checkpointing=work.checkpointing if self.checkpointing is None else self.checkpointing,
            expandable=not plain if self.expandable is None else self.expandable,
            nested=self.nested,
            kbit_upcast=self.kbit_upcast,
            fsdp=self.fsdp,
            script=cast(Script, self.script),
            keeps_inputs=self.keeps_inputs,
        )


AS_USUAL = Stated()
"""Nothing is said."""
