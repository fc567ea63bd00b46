"""What a human may write in a study file.

One frozen model per section, one docstring under each field (they are also the JSON schema's
descriptions). Unknown keys are refused with the nearest known one. The names are those of
transformers and TRL; the short names in brackets are accepted too.
"""

from holdfast.config.answering import AnswerSpec, Sampling, ShotsSpec, TaskSpec
from holdfast.config.arms import ArmSpec, MeterSpec
from holdfast.config.data import Sources, SourceSpec
from holdfast.config.hardware import HardwareSpec
from holdfast.config.lora import LoraSpec
from holdfast.config.model import LAB, LAB_FOLDER, ModelSpec
from holdfast.config.section import NAME, STRICT, Section
from holdfast.config.shipping import ShipSpec
from holdfast.config.study import Study
from holdfast.config.training import TrainSpec

__all__ = [
    "LAB", "LAB_FOLDER", "NAME", "STRICT", "AnswerSpec", "ArmSpec", "HardwareSpec", "LoraSpec",
    "MeterSpec", "ModelSpec", "Sampling", "Section", "ShipSpec", "ShotsSpec", "SourceSpec",
    "Sources", "Study", "TaskSpec", "TrainSpec",
]  # fmt: skip
