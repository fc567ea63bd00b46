"""What may a human write in a study file?

One frozen model per section, one docstring under each field (they are also the JSON schema's
descriptions). Unknown keys are refused with the nearest known one. The names are those of
transformers and TRL; the short names in brackets are accepted too.
"""

from holdfast.spec.arms import ArmSpec, MeterSpec, ShipSpec
from holdfast.spec.asking import AnswerSpec, ModelSpec, Sampling, ShotsSpec, TaskSpec
from holdfast.spec.section import NAME, STRICT, Section
from holdfast.spec.study import HardwareSpec, Study
from holdfast.spec.training import LoraSpec, TrainSpec

__all__ = [
    "NAME", "STRICT", "AnswerSpec", "ArmSpec", "HardwareSpec", "LoraSpec", "MeterSpec", "ModelSpec",
    "Sampling", "Section", "ShipSpec", "ShotsSpec", "Study", "TaskSpec", "TrainSpec",
]  # fmt: skip
