"""How a vLLM server is started: what it serves, and how much memory it may take.

On a GPU the server gets the memory that is free, less what its driver and this process need; on a
CPU the keys and values of all rows at their full length, within half of the memory that the weights
leave. Where even that is too much, `Settings.smaller` says what is tried next.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from holdfast.engines.vllm.program import Program
from holdfast.errors import HoldfastError
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.hardware.host import host_ram_bytes
from holdfast.memory.memory_plan import GIB
from holdfast.memory.model.reading import read_shape
from holdfast.memory.model.shape import Shape
from holdfast.memory.planner.drawing_server import Place
from holdfast.memory.precision import BYTES, Dtype
from holdfast.models import ModelRef

ROWS = {"cpu": 64, "cuda": 128}
"""Prompts under way where no `batch_size` is given; vLLM itself runs as many as its cache holds."""
FEWEST = 4
"""Rows below which fewer would free no memory worth having."""
SPARE_BYTES = GIB
"""Of every GPU: the driver, this process, and what vLLM does not count."""
MOST_SHARE = 0.92
WEIGHTS_SHARE = 0.75
"""Of a GPU's free memory that weights may take; more, and the model is spread over several."""
CACHE_SHARE = 0.5
"""Of the host's memory that weights leave, for keys and values on a CPU."""
UNKNOWN_GIB = 2
"""Of keys and values on a CPU, for a model whose sizes are not known."""
RESERVED = "VLLM_CPU_NUM_OF_RESERVED_CPU"
"""Cores that vLLM leaves alone, one by its default: who asks it waits meanwhile."""
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM takes for ``--max-lora-rank``."""
STEP = 256
"""Lengths are rounded up to these, so that a longer prompt seldom needs another server."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One server's.

    Attributes:
        ref: the model that is loaded; its adapter plays no part.
        dtype: of the computation.
        tokens: of the longest prompt and answer together.
        rows: prompts under way at a time.
        rank: the highest of an adapter; 0: it takes none.
        slots: adapters at a time.
        gpus: that share the model; 0: the CPU.
        share: of each GPU's whole memory.
        cache_gib: of keys and values, on a CPU.
        eager: no graphs are compiled, which takes less memory and starts sooner.
        visible: the GPUs that it sees, as `CUDA_VISIBLE_DEVICES` names them; "": as this process.
    """

    ref: ModelRef
    dtype: Dtype
    tokens: int
    rows: int
    rank: int = 0
    slots: int = 1
    gpus: int = 0
    share: float = MOST_SHARE
    cache_gib: int = 1
    eager: bool = True
    visible: str = ""

    def command(self, program: Program, name: str, port: int) -> list[str]:
        """The command line; it holds no secret.

        Args:
            program: that is started.
            name: under which the model is served.
            port: of the loopback.
        """
        words = [
            *program.words, "serve", self.ref.base, "--served-model-name", name,
            "--host", "127.0.0.1", "--port", str(port), "--dtype", self.dtype,
            "--max-model-len", str(self.tokens), "--max-num-seqs", str(self.rows),
            "--load-format", "safetensors", "--generation-config", "vllm", "--seed", "0",
            "--disable-uvicorn-access-log", "--disable-log-stats",
        ]  # fmt: skip
        if self.ref.revision:
            words += ["--revision", self.ref.revision, "--tokenizer-revision", self.ref.revision]
        words += ["--trust-remote-code"] if self.ref.trust_remote_code else []
        words += ["--enforce-eager"] if self.eager else []
        if self.rank:
            words += ["--enable-lora", "--max-lora-rank", str(self.rank)]
            words += ["--max-loras", str(self.slots)]
        if self.gpus:
            words += ["--gpu-memory-utilization", f"{self.share:.3f}"]
            words += ["--tensor-parallel-size", str(self.gpus)]
        return words

    def variables(self) -> dict[str, str]:
        """What its environment has beside this process's; the key comes on top."""
        found = {
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        }
        if not self.gpus:
            found |= {"VLLM_CPU_KVCACHE_SPACE": str(self.cache_gib), "CUDA_VISIBLE_DEVICES": ""}
            found[RESERVED] = os.environ.get(RESERVED, "0")
        return found | ({"CUDA_VISIBLE_DEVICES": self.visible} if self.visible else {})

    def serves(self, ref: ModelRef, tokens: int, rank: int) -> bool:
        """Whether a server that was started so can be asked this.

        Args:
            ref: the model.
            tokens: of the longest prompt and answer together.
            rank: of the adapter; 0: none.
        """
        return self.ref == ref and self.tokens >= tokens and self.rank >= rank

    def smaller(self, needed: int) -> Settings | None:
        """What takes less memory: fewer rows, then no longer than is needed; None: nothing does.

        Args:
            needed: tokens of the longest prompt and answer that is asked now.
        """
        cache = max(1, self.cache_gib // 4)
        if self.rows > FEWEST:
            rows = max(FEWEST, self.rows // 4)
            return replace(self, rows=rows, cache_gib=cache, eager=True, slots=1)
        if self.tokens > needed:
            return replace(self, tokens=needed, rows=1, cache_gib=cache, eager=True, slots=1)
        return None

    @property
    def words(self) -> str:
        """For whoever watches."""
        where = f"{self.gpus} GPU{'s' * (self.gpus > 1)}" if self.gpus else "CPU"
        said = f"{where}, {self.dtype}, {self.rows} prompts at a time of up to {self.tokens} tokens"
        return said + (f", adapters up to rank {self.rank}" if self.rank else "")


def lora_rank(rank: int) -> int:
    """The least rank that vLLM can be started with for adapters of this rank; 0: none is."""
    return next((one for one in RANKS if one >= rank), 0)


def rounded(tokens: int, most: int) -> int:
    """A length for a server that is asked for so many tokens, as far as the model reads."""
    return min(-(-tokens // STEP) * STEP, most)


def sizes(ref: ModelRef) -> Shape | None:
    """The model's; None where they cannot be read."""
    try:
        return read_shape(ref.base, ref.revision)
    except HoldfastError:
        return None


def fitted(asked: Settings, shape: Shape | None, gpus: Sequence[GPU]) -> Settings:
    """The same with the memory that there is.

    Args:
        asked: without a share of memory.
        shape: the model's; None: not known.
        gpus: with what is free on each now; none: the CPU.
    """
    whole = [one for one in gpus if not one.mig] or list(gpus[:1])
    weights = shape.parameters * BYTES[asked.dtype] if shape else 0
    if whole:
        heads = shape.heads if shape else 1
        counts = [n for n in range(1, len(whole) + 1) if heads % n == 0]
        least = min(one.free_bytes for one in whole)
        enough = [n for n in counts if weights / n <= WEIGHTS_SHARE * least]
        count = enough[0] if enough else counts[-1]
        share = min((one.free_bytes - SPARE_BYTES) / one.total_bytes for one in whole[:count])
        share = max(0.05, min(MOST_SHARE, share))
        return replace(asked, gpus=count, share=share, eager=False, cache_gib=0)
    if shape is None:
        return replace(asked, cache_gib=UNKNOWN_GIB)
    each = 2 * shape.layers * shape.kv_heads * shape.head_dim * BYTES[asked.dtype]
    room = CACHE_SHARE * (host_ram_bytes() - weights)
    wanted = -(-asked.rows * asked.tokens * each // GIB)
    return replace(asked, cache_gib=max(1, min(wanted, int(room // GIB))))


def beside(asked: Settings, place: Place, visible: str) -> Settings:
    """The same with the memory that a plan gives it, beside a training or on another GPU.

    Args:
        asked: without a share of memory.
        place: as planned.
        visible: see `Settings`.
    """
    one = replace(asked, slots=1, rows=min(asked.rows, place.rows), visible=visible)
    if place.gpu is None:
        return replace(one, cache_gib=place.cache_gib)
    return replace(one, gpus=1, share=place.share, eager=False, cache_gib=0)
