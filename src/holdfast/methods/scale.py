"""Scale: applies only a share of what training changed.

W + λ·ΔW for several λ (WiSE-FT: Wortsman et al., arXiv:2109.01903; for safety after fine-tuning,
where it is called pre- and post-merging: Farn et al., arXiv:2412.19512). Nothing is trained again.
A LoRA adapter is scaled where it is loaded; of a model whose weights were all trained a copy is
written for each λ.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from holdfast.config import Section
from holdfast.errors import ModelError
from holdfast.methods import WeightMethod
from holdfast.models import lora_files
from holdfast.models.finite import not_finite
from holdfast.models.safetensors_files import broken_numbers

if TYPE_CHECKING:
    import torch

BESIDE = {".json", ".jinja", ".model", ".txt", ".py"}
"""Endings of what belongs to a model beside its weights."""


class Scale(WeightMethod):
    """Measure shares of the change too."""

    options: Options

    class Options(Section):
        """Settings of ``scale``."""

        factors: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(
            (0.2, 0.4, 0.6, 0.8), min_length=1
        )
        """Shares of the change, besides the whole of it."""
        checkpoints: Literal["last", "all"] = "last"
        """Scale the last checkpoint, or every one."""

        @field_validator("factors")
        @classmethod
        def _ordered(cls, given: tuple[float, ...]) -> tuple[float, ...]:
            if len(set(given)) != len(given):
                raise ValueError("a factor is given twice")
            return tuple(sorted(given))

    def __init__(self, options: Options) -> None:
        """Take the settings."""
        super().__init__(options)
        self.factors = options.factors
        self.checkpoints = options.checkpoints

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        return f"scaled by {', '.join(f'{one:g}' for one in self.factors)}"


def scaled_adapter(folder: Path, factor: float, to: Path) -> None:
    """Write a LoRA adapter whose change is a share of another one's.

    B is multiplied rather than ``lora_alpha``, which is a whole number to many a loader.

    Args:
        folder: of the adapter.
        factor: λ.
        to: gets ``adapter_config.json`` and ``adapter_model.safetensors``; made if need be.

    Raises:
        ModelError: no such adapter, or one that is no plain product.
    """
    if lora_files.adds_elsewhere(folder):
        lora_files.write_scaled(folder, factor, to)
        return
    config, products = lora_files.read(folder)
    lora_files.write(to, config, {name: (a, b * factor) for name, (a, b) in products.items()})


def interpolated_model(
    base: Path | str, tuned: Path, factor: float, to: Path, revision: str | None = None
) -> Mapping[str, object]:
    """Write (1-λ)·base + λ·tuned, one file of weights at a time.

    Sums are formed in float32 and stored in the dtype of the tuned weights; what is not a floating
    point number is taken from the tuned model, and so are all other files.

    Args:
        base: folder of the untouched model, or its id on the hub, once it was downloaded.
        tuned: folder of the same model with all weights trained.
        factor: λ.
        to: the new model's folder; made if need be.
        revision: of the base on the hub.

    Returns:
        How many tensors and parameters were mixed.

    Raises:
        ModelError: no weights, or a tensor that the base does not have or has in another shape.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

    base = _folder(base, revision)
    places = _tensors(base)
    shards = sorted(tuned.glob("*.safetensors"))
    if not shards:
        raise ModelError("has no weights (*.safetensors)", where=str(tuned))
    to.mkdir(parents=True, exist_ok=True)
    tensors = parameters = 0
    for shard in shards:
        mixed = {}
        with safe_open(shard, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  # it is no mapping
                after = file.get_tensor(name)
                if after.is_floating_point():
                    before = _tensor(places, name, after.shape, base)
                    after = before.float().lerp(after.float(), factor).to(after.dtype)
                    tensors, parameters = tensors + 1, parameters + after.numel()
                mixed[name] = after.contiguous()
        if (broken := not_finite(mixed.items())) is not None:
            raise broken_numbers(broken, str(tuned), "the weights of base and fine-tuned model")
        save_file(mixed, to / shard.name, {"format": "pt"})
    for path in tuned.iterdir():
        if path.suffix in BESIDE and not path.name.startswith(("trainer_state", "split")):
            shutil.copyfile(path, to / path.name)
    return {"tensors": tensors, "parameters": parameters}


def _folder(base: Path | str, revision: str | None) -> Path:
    if Path(base).is_dir():
        return Path(base)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        found = snapshot_download(str(base), revision=revision, local_files_only=True)
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
        raise ModelError(
            "is neither a folder nor a model that was downloaded",
            where=str(base),
            remedy="check the path, or download it with `hf download`",
        ) from error
    return Path(found)


def _tensors(folder: Path) -> dict[str, Path]:
    """In which file each tensor of a model is."""
    from safetensors import safe_open

    found = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found.update(dict.fromkeys(file.keys(), path))
    if not found:
        raise ModelError("has no weights (*.safetensors)", where=str(folder))
    return found


def _tensor(places: Mapping[str, Path], name: str, shape: torch.Size, base: Path) -> torch.Tensor:
    from safetensors import safe_open

    if name not in places:
        raise ModelError(
            f"has no tensor {name}", where=str(base), remedy="name the model that was fine-tuned"
        )
    with safe_open(places[name], framework="pt") as file:
        found = file.get_tensor(name)
    if found.shape != shape:
        raise ModelError(
            f"{name} has the shape {tuple(found.shape)} instead of {tuple(shape)}",
            where=str(base), remedy="name the model that was fine-tuned",
        )  # fmt: skip
    return found
