"""Fine-tune a language model and see what it gained and what it forgot.

The public names, each loaded when it is first used, so that ``import holdfast`` needs no torch::

    import holdfast as hf

    study = hf.load("study.yaml", overrides=["train.learning_rate=1e-4"])
    results = hf.run(study)
    results.to_frame()

`docs/python.md` has all of them at work; `docs/plugins.md` shows tasks, judges, engines and methods
of your own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from holdfast.analysis.results import Results as Results
    from holdfast.comparison import compare as compare
    from holdfast.config import Section as Section
    from holdfast.config import Study as Study
    from holdfast.config.load import load as load
    from holdfast.engines import Engine as Engine
    from holdfast.errors import HoldfastError as HoldfastError
    from holdfast.judges import Judge as Judge
    from holdfast.memory.planner.memory_report import MemoryReport as MemoryReport
    from holdfast.memory.planner.planner import plan_memory as plan_memory
    from holdfast.methods import AskMethod as AskMethod
    from holdfast.methods import DataMethod as DataMethod
    from holdfast.methods import LossMethod as LossMethod
    from holdfast.methods import WeightMethod as WeightMethod
    from holdfast.progress import Silent as Silent
    from holdfast.report.run import Run as Run
    from holdfast.report.run import open_run as open_run
    from holdfast.runs.plan import Plan as Plan
    from holdfast.shipping import ship as ship
    from holdfast.study import plan as plan
    from holdfast.study import run as run
    from holdfast.tasks import Task as Task
    from holdfast.types import Example as Example
    from holdfast.types import Message as Message
    from holdfast.types import Reading as Reading
    from holdfast.types import Reply as Reply
    from holdfast.types import Verdict as Verdict

_HOME = {
    "AskMethod": "holdfast.methods",
    "DataMethod": "holdfast.methods",
    "Engine": "holdfast.engines",
    "Example": "holdfast.types",
    "HoldfastError": "holdfast.errors",
    "Judge": "holdfast.judges",
    "LossMethod": "holdfast.methods",
    "MemoryReport": "holdfast.memory.planner.memory_report",
    "Message": "holdfast.types",
    "Plan": "holdfast.runs.plan",
    "Reading": "holdfast.types",
    "Reply": "holdfast.types",
    "Results": "holdfast.analysis.results",
    "Run": "holdfast.report.run",
    "Section": "holdfast.config",
    "Silent": "holdfast.progress",
    "Study": "holdfast.config",
    "Task": "holdfast.tasks",
    "Verdict": "holdfast.types",
    "WeightMethod": "holdfast.methods",
    "compare": "holdfast.comparison",
    "load": "holdfast.config.load",
    "open_run": "holdfast.report.run",
    "plan": "holdfast.study",
    "plan_memory": "holdfast.memory.planner.planner",
    "run": "holdfast.study",
    "ship": "holdfast.shipping",
}
__all__ = [
    "AskMethod",
    "DataMethod",
    "Engine",
    "Example",
    "HoldfastError",
    "Judge",
    "LossMethod",
    "MemoryReport",
    "Message",
    "Plan",
    "Reading",
    "Reply",
    "Results",
    "Run",
    "Section",
    "Silent",
    "Study",
    "Task",
    "Verdict",
    "WeightMethod",
    "compare",
    "load",
    "open_run",
    "plan",
    "plan_memory",
    "run",
    "ship",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'holdfast' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
