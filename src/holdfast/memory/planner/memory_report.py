"""The value `MemoryReport`: a plan, the candidates it was chosen from, and what it rests on."""

from __future__ import annotations

import html
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.config import LoraSpec, TrainSpec
from holdfast.errors import UsageError
from holdfast.memory.estimate.states import aside_bytes
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.memory_plan import GIB, MemoryPlan
from holdfast.memory.model.shape import Shape
from holdfast.memory.model.targets import script_targets
from holdfast.memory.planner import explanation
from holdfast.memory.planner.candidates import Candidate
from holdfast.memory.planner.choice import Comparison
from holdfast.memory.planner.translations import Language, say
from holdfast.memory.precision import BFLOAT16, Precision
from holdfast.progress import console
from holdfast.runs import store

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

DEFAULT_SEED = 1126
WIDTH = 140
"""Characters of a line in `repr` and in a notebook."""


@dataclass(frozen=True, slots=True, repr=False)
class MemoryReport:
    """A plan and the grounds it stands on; shows itself in a terminal and in a notebook.

    Attributes:
        comparison: every candidate, the choice and the runner-up.
        model: hub id or folder, for the launch line and the script.
        source: `traced` or `formula`.
        notes: what was assumed.
        launch: what to type to run it; empty when nobody said what is to be run.
        script: the training script that was written.
        precision: what is computed in, and why.
    """

    comparison: Comparison
    model: str
    source: str
    notes: tuple[str, ...] = ()
    launch: str = ""
    script: Path | None = None
    precision: Precision = BFLOAT16

    @property
    def chosen(self) -> Candidate | None:
        """The candidate to run; None when nothing fits."""
        return self.comparison.chosen

    @property
    def plan(self) -> MemoryPlan | None:
        """The plan of the chosen candidate; None when nothing fits."""
        return self.chosen.plan if self.chosen else None

    @property
    def fits(self) -> bool:
        """Whether the job can be run on these GPUs at all."""
        return self.chosen is not None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Every way of running the job, those that do not fit included."""
        return self.comparison.candidates

    def to_json(self) -> dict[str, object]:
        """All of it, for programs."""
        commands = [self.launch] if self.launch else []
        found = explanation.to_json(self.comparison, self.source, commands)
        return found | {
            "precision": {"dtype": self.precision.dtype, "why": self.precision.why()},
            "notes": list(self.notes),
            "script": self.script and str(self.script),
        }

    def show(self, every: bool = False, language: Language = "en") -> None:
        """Print it.

        Args:
            every: all candidates, not only the best of each strategy.
            language: `en` or `zh`.
        """
        self._print(console(), every, language)

    def text(self, every: bool = False, language: Language = "en") -> str:
        """What `show` prints, without colours."""
        output = io.StringIO()
        self._print(console(file=output, width=WIDTH, no_color=True), every, language)
        return output.getvalue()

    def write_script(
        self, path: str | Path, train: TrainSpec | None = None, seed: int = DEFAULT_SEED
    ) -> MemoryReport:
        """Write a plain training script that runs the chosen plan without Holdfast.

        Args:
            path: where to; nothing is overwritten.
            train: learning rate, schedule and so on; None: the defaults.
            seed: of adapters, dropout and order.

        Returns:
            The report with the script and its launch line.

        Raises:
            UsageError: the file exists, nothing fits, or weights would lie in host memory.
        """
        path = Path(path)
        check_new(path)
        text = script(
            self.comparison, self.source, self.model, train or TrainSpec(), seed, path.name
        )
        store.write_text(path, text)
        launch = launch_line(self.plan, path.name) if self.plan else ""
        return replace(self, launch=launch, script=path)

    def __repr__(self) -> str:
        """The report as text."""
        return self.text().rstrip()

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(repr(self))}</pre>"

    def _print(self, page: Console, every: bool, language: Language) -> None:
        for part in self._parts(every, language):
            if isinstance(part, str):
                page.print(part, highlight=False, markup=False, soft_wrap=True)
            else:
                page.print(part)

    def _parts(self, every: bool, language: Language) -> Iterator[RenderableType]:
        """What is printed, from top to bottom."""
        found = self.comparison
        yield explanation.title(found, language) + "\n"
        yield explanation.table(found, language, every)
        if found.chosen:
            plan = found.chosen.plan
            yield ""
            yield explanation.breakdown(plan, language)
            yield "\n" + say(language, "chosen", what=explanation.describe(plan, language))
            yield say(language, "because", why=explanation.reason(found, language))
            if found.runner_up:
                yield explanation.runner_up(plan, found.runner_up.plan, language)
        yield self.precision.line(language)
        if idle := explanation.idle(found, language):
            yield idle
        if methods := explanation.method_overhead(found, language):
            yield methods
        yield from explanation.changes(found, language)
        yield "\n" + explanation.grounds(found, self.source, language)
        yield from self.notes
        if self.launch:
            yield "\n" + say(language, "launch", command=self.launch)


def switched_on(shape: Shape, work: Workload) -> tuple[str, ...]:
    """What the ways of training fast were counted as, in sentences."""
    said = []
    if work.packed:
        mask = "" if work.attention == "flash" else ", and a mask of blocks in every layer"
        said.append(
            f"packing: rows filled up to {work.seq_len:,} tokens, counted as full, with a loss "
            f"everywhere{mask}"
        )
    if work.kernels:
        said.append("Liger's kernels: norms keep their inputs in the precision of the computation, "
                    "feed-forward parts no activation, where this is by formula")  # fmt: skip
    if work.compiled:
        said.append("torch.compile: counted as nothing; fused kernels keep no more")
    if work.saved_aside:
        method = work.methods[0]
        copy = aside_bytes(shape, work, method)
        said.append(
            f"async_save: {copy / GIB:.2f} GiB of host memory while a checkpoint is written"
        )
    return tuple(said)


def check_new(path: Path) -> None:
    """Refuse to overwrite a file with a script.

    Raises:
        UsageError: the file exists.
    """
    if path.exists():
        raise UsageError("exists already", where=str(path), remedy="name another file for --export")


TEMPLATE = Path(__file__).parent / "train_script.py.j2"
ALLOCATOR = "PYTORCH_ALLOC_CONF"


def launch_line(plan: MemoryPlan, script: str) -> str:
    """What to type to start a plain script under a plan."""
    visible = ",".join(map(str, plan.gpus))
    start = f"CUDA_DEVICE_ORDER=PCI_BUS_ID CUDA_VISIBLE_DEVICES={visible} "
    if plan.world_size > 1:
        return f"{start}torchrun --standalone --nproc_per_node {plan.world_size} {script}"
    return f"{start}python {script}"


def script(
    comparison: Comparison, source: str, model: str, train: TrainSpec, seed: int, name: str
) -> str:
    """The text of the script.

    Args:
        comparison: with a choice.
        source: `traced` or `formula`.
        model: hub id or folder.
        train: learning rate, schedule and so on.
        seed: of adapters, dropout and order.
        name: of the file that it will be.

    Raises:
        UsageError: nothing fits, or weights would lie in host memory.
    """
    import jinja2

    if comparison.chosen is None:
        raise UsageError(
            "nothing fits, so there is no script to write",
            remedy="apply one of the changes that `holdfast plan` names",
        )
    plan, work = comparison.chosen.plan, comparison.work
    if plan.placement == "offload":
        raise UsageError(
            "weights in host memory need more than a plain script",
            remedy="run the study with `holdfast run`, or allow 4-bit weights",
        )
    full = work.method == "full"
    if not full and work.variant not in ("lora", "rslora", "dora"):
        raise UsageError(
            f"{work.variant} needs more than a plain script",
            remedy="run the study with `holdfast run`",
        )
    targets, stacked = script_targets(comparison.shape, work.target_modules)
    settings = {
        "model": comparison.shape.name,
        "model_literal": json.dumps(model),
        "what": explanation.describe(plan, "en"),
        "why": explanation.reason(comparison, "en").capitalize(),
        "launch": launch_line(plan, name),
        "peak": " + ".join(f"{explanation.gib(one.total)} GiB" for one in plan.predicted),
        "grounds": explanation.grounds(comparison, source, "en").rstrip(".").lower(),
        "bitsandbytes": plan.quantized or "paged" in train.optim or "8bit" in train.optim,
        "sharded": plan.placement == "fsdp2",
        "placement": plan.placement,
        "world": plan.world_size,
        "adapters": not full,
        "quantized": plan.quantized,
        "load_dtype": "float32" if full else plan.dtype,
        "compute_dtype": plan.dtype,
        "adapter_dtype": plan.adapter_dtype,
        "stem": comparison.shape.stem,
        **_device_map(plan.device_map or {}, comparison.shape.stem),
        "rank": work.rank,
        "alpha": train.lora.alpha,
        "dropout": 0.0 if stacked else work.dropout,  # PEFT has none for stacked experts
        "target_modules": _literal(targets),
        "more": _more(train.lora),
        "stored": comparison.shape.stored is not None,
        "micro_batch": plan.micro_batch,
        "accumulation": plan.accumulation,
        "global_batch": plan.global_batch,
        "epochs": f"{train.num_train_epochs:g}",
        "seq_len": work.seq_len,
        "learning_rate": train.learning_rate,
        "schedule": train.lr_scheduler_type,
        "optim": train.optim,
        "sampling": "group_by_length" if train.group_by_length else "random",
        "checkpointing": plan.checkpointing,
        "bf16": plan.dtype == "bfloat16",
        "fp16": plan.dtype == "float16",
        "seed": seed,
        "fsdp_config": _literal(FSDP_CONFIG),
        "allocator": ALLOCATOR,
    }
    environment = jinja2.Environment(
        undefined=jinja2.StrictUndefined, keep_trailing_newline=True, autoescape=False
    )
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(settings)


FSDP_CONFIG: Mapping[str, object] = {
    "version": 2,
    "reshard_after_forward": True,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "state_dict_type": "SHARDED_STATE_DICT",
}


def _more(lora: LoraSpec) -> Mapping[str, str]:
    """Further arguments of PEFT's `LoraConfig`, those that are not as usual."""
    given = {
        "use_rslora": lora.variant == "rslora", "use_dora": lora.variant == "dora",
        "layers_to_transform": lora.layers, "layers_pattern": lora.layers_pattern,
        "exclude_modules": lora.exclude_modules, "modules_to_save": lora.modules_to_save,
        "rank_pattern": lora.rank_pattern, "alpha_pattern": lora.alpha_pattern,
        "target_parameters": lora.target_parameters,
        "trainable_token_indices": lora.trainable_token_indices,
    }  # fmt: skip
    return {name: repr(list(value) if isinstance(value, tuple) else value)
            for name, value in given.items() if value}  # fmt: skip


def _device_map(where: Mapping[str, int | str], stem: str) -> dict[str, object]:
    """A device map as single modules and runs of layers."""
    named = [(name, stage) for name, stage in where.items() if f"{stem}.layers." not in name]
    runs: list[list[int]] = []
    for name, stage in where.items():
        if f"{stem}.layers." in name:
            layer = int(name.rpartition(".")[2])
            if runs and runs[-1][2] == stage and runs[-1][1] == layer:
                runs[-1][1] = layer + 1
            else:
                runs.append([layer, layer + 1, int(stage)])
    return {"named": named, "runs": runs}


def _literal(value: str | Sequence[str] | Mapping[str, object]) -> str:
    """A value as Python source, in double quotes."""
    if isinstance(value, str):
        return json.dumps(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f'"{key}": {_plain(one)}' for key, one in value.items()) + "}"
    return "[" + ", ".join(json.dumps(one) for one in value) + "]"


def _plain(value: object) -> str:
    return json.dumps(value) if isinstance(value, str) else repr(value)
