"""The `hardware:` section: where a study runs."""

from __future__ import annotations

from typing import Literal

from holdfast.config.section import Section


class HardwareSpec(Section):
    """Where it runs; never part of what is measured."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the GPUs when there are any."""
    gpus: str | None = None
    """Plan for these GPUs instead of those found: `2x24GiB`, `rtx4090`, ..."""
    strategy: str | None = None
    """Insist on one way of placing the work: `single`, `ddp`, `split`, `fsdp2`, `qlora`, ..."""
    vllm: str | None = None
    """For `answer.engine: vllm`: a Python that has it, or the program. Left out: Holdfast's own."""
    allow: tuple[Literal["bf16_adapters", "nf4"], ...] = ()
    """What may be tried after `OutOfMemoryError` although it changes what is learned."""
