"""Ten small questions, and a data method carried out on them without a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from holdfast import methods, store, tasks
from holdfast.engines.scripted import Script, ScriptedEngine
from holdfast.leak import LeakIndex
from holdfast.methods import DataMethod, Setting
from holdfast.progress import Progress, Silent
from holdfast.spec import Sampling, TaskSpec
from holdfast.types import Example, Message, Reply

PLAIN = [
    Example(f"train-{n}", (Message("user", f"What is {n} and {n}?"),), f"#### {2 * n}", "gold")
    for n in range(10)
]


class Cut(ScriptedEngine):
    """Scripted; what ends in an ellipsis was cut off."""

    def generate(
        self,
        examples: Sequence[Example],
        sampling: Sampling,
        adapter: str | None,
        progress: Progress,
        scale: float = 1.0,
    ) -> list[list[Reply]]:
        answers = super().generate(examples, sampling, adapter, progress, scale)
        return [
            [
                Reply(one.example_id, one.sample, one.text, "length", one.n_tokens)
                if one.text.endswith("…")
                else one
                for one in samples
            ]
            for samples in answers
        ]


def setting(
    script: Script, evaluated: Sequence[Example] = (), sampling: Sampling | None = None
) -> Setting:
    """What methods may use: `PLAIN`, the grader of GSM8K, a scripted engine."""
    spec = TaskSpec(kind="gsm8k", path="nowhere")  # type: ignore[call-arg]
    engine = Cut(script)
    return Setting(
        tasks.build("t", spec, "s"), PLAIN, sampling or Sampling(), lambda: engine,
        LeakIndex(evaluated), 1126,
    )  # fmt: skip


def build(name: str, entry: str = "data", **options: object) -> Any:
    """The method as an arm would name it."""
    return methods.build(name, options, "study.yaml", f"arms.a.{entry}")


def apply(
    method: DataMethod, given: Setting, folder: Path, examples: Sequence[Example] = PLAIN
) -> tuple[list[Example], list[str]]:
    """Do its shared work below `folder`, then change the examples."""
    made = {}
    for shared in method.shared(given):
        made[shared.name] = folder / shared.name
        made[shared.name].mkdir(parents=True, exist_ok=True)
        summary = shared.run(made[shared.name], Silent())
        store.write_json(made[shared.name] / store.RECORD, {"summary": summary})
    return method.apply(examples, given, made)
