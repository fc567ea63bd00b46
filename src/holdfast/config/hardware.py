"""The `hardware:` section: where a study runs."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from holdfast.config.section import Section


class SlurmSpec(Section):
    """What `holdfast run --on slurm` asks `sbatch` for; each worker is one task of a job array."""

    partition: str | None = None
    """Of the cluster; left out: its default."""
    gpus: Annotated[int, Field(ge=0)] = 1
    """Of each worker; 0: workers on the CPU."""
    cpus: Annotated[int, Field(ge=1)] | None = None
    """Cores of each worker; left out: the partition's default."""
    memory: str | None = None
    """Of each worker, as `--mem` takes it: `64G`."""
    time: str | None = None
    """The longest that a worker may live, as `--time` takes it: `12:00:00`. What it was doing then
    is gone on with by the next."""
    options: tuple[str, ...] = ()
    """Further ones of `sbatch`, as they stand: `--account=lab`, `--constraint=a100`."""
    host: str = ""
    """The name under which the nodes reach the machine that runs `holdfast`; left out: its own."""


class RaySpec(Section):
    """Where `holdfast run --on ray` finds its cluster."""

    address: str = "auto"
    """`auto`: the cluster that this machine belongs to, or one of this machine alone; `local`: that
    one; or `host:port`."""
    gpus: Annotated[int, Field(ge=0)] = 1
    """Of each worker, where the cluster has any."""
    cpus: Annotated[int, Field(ge=1)] = 1
    """Cores of each worker."""
    host: str = ""
    """The name under which the nodes reach the machine that runs `holdfast`; left out: its own."""


class HardwareSpec(Section):
    """Where it runs; never part of what is measured."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes the GPUs when there are any."""
    gpus: str | None = None
    """Plan for these GPUs instead of those found: `2x24GiB`, `rtx4090`, ..."""
    strategy: str | None = None
    """Insist on one way of placing the work: `single`, `ddp`, `split`, `fsdp2`, `qlora`, ..."""
    beside: tuple[str, ...] = ()
    """What else lies on the GPUs while training runs, so that the plan leaves room for it:
    `vllm=0.3` (a server's share), `judge=MODEL` or `judge=MODEL:nf4`, `6GiB`."""
    vllm: str | None = None
    """For `engine: vllm`, of `answer` or of a method that draws answers: a Python that has it, or
    the program. Left out: Holdfast's own."""
    allow: tuple[Literal["bf16_adapters", "nf4"], ...] = ()
    """What may be tried after `OutOfMemoryError` although it changes what is learned."""
    workers: Annotated[int, Field(ge=1, le=1024)] | None = None
    """How many stages run side by side with `--on workers`, `slurm` or `ray`. Left out: one for
    every two cores here; 4 jobs of Slurm's; all that a Ray cluster has room for."""
    retries: Annotated[int, Field(ge=0, le=100)] = 2
    """How often a stage is begun again whose process, node or job has died."""
    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Machines that each training runs on together, all with the same GPUs and the run folder on
    shared storage; the others are given `python -m holdfast.train.launch.follow RUN`."""
    meeting: str = ""
    """`host:port` of the first of these machines; needed where there are several."""
    slurm: SlurmSpec = SlurmSpec()
    """What `--on slurm` asks for."""
    ray: RaySpec = RaySpec()
    """Where `--on ray` goes."""

    @model_validator(mode="after")
    def _meets(self) -> Self:
        if self.nodes > 1 and not re.fullmatch(r"[^\s:/]+:\d{1,5}", self.meeting):
            raise ValueError(
                "nodes above 1 need `meeting: host:port`, the first machine as the others reach it"
            )
        return self
