"""Reads single tensors of a model's files, and writes a trained model with some of them changed.

No model is built: one tensor, or one file of weights, is in memory at a time.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.errors import ModelError
from holdfast.memory.model.stored import stored_in
from holdfast.models.files import sampled_hash
from holdfast.models.finite import not_finite
from holdfast.models.safetensors_files import broken_numbers
from holdfast.types import ModelRef

if TYPE_CHECKING:
    import torch

BESIDE = {".json", ".jinja", ".model", ".txt", ".py"}
"""Endings of what belongs to a model beside its weights."""


class StoredTensors:
    """The tensors of one model's safetensors files, by name.

    Args:
        base: folder of the model, or its id on the hub, once it was downloaded.
        revision: of it on the hub.
        what: which model it should be, for messages.

    Raises:
        ModelError: neither a folder nor downloaded, or without weights.
    """

    def __init__(
        self, base: Path | str, revision: str | None = None, what: str = "that was fine-tuned"
    ) -> None:
        """Find the files; reads their names of tensors only."""
        from safetensors import safe_open

        self.folder, self._what = _folder(base, revision), what
        self._places: dict[str, Path] = {}
        for path in self.folder.glob("*.safetensors"):
            with safe_open(path, framework="pt") as file:
                self._places.update(dict.fromkeys(file.keys(), path))
        if not self._places:
            raise ModelError("has no weights (*.safetensors)", where=str(self.folder))

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every tensor."""
        from safetensors import safe_open

        found = {}
        for path in sorted({*self._places.values()}):
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118  # it is no mapping
                    found[name] = tuple(file.get_slice(name).get_shape())
        return found

    def tensor(self, name: str, shape: tuple[int, ...]) -> torch.Tensor:
        """One tensor.

        Raises:
            ModelError: there is none of this name, or it has another shape.
        """
        from safetensors import safe_open

        if name not in self._places:
            raise ModelError(
                f"has no tensor {name}",
                where=str(self.folder), remedy=f"name the model {self._what}",
            )  # fmt: skip
        with safe_open(self._places[name], framework="pt") as file:
            found: torch.Tensor = file.get_tensor(name)
        if found.shape != shape:
            raise ModelError(
                f"{name} has the shape {tuple(found.shape)} instead of {tuple(shape)}",
                where=str(self.folder), remedy=f"name the model {self._what}",
            )  # fmt: skip
        return found

    def matrix(self, module: str, shape: tuple[int, int], turned: bool = False) -> torch.Tensor:
        """The weight of one linear layer in float32, shape (out, in).

        Args:
            module: its name in the model as it is loaded; files may call what stands before the
                layers otherwise.
            shape: (out, in).
            turned: the layer keeps it as (in, out), as GPT-2 does.

        Raises:
            ModelError: see `tensor`.
        """
        found = self.tensor(self.named(module), shape[::-1] if turned else shape).float()
        return found.T if turned else found

    def named(self, module: str) -> str:
        """What the weight of a layer is called in these files, or would be; see `matrix`."""
        name = f"{module}.weight"
        if name not in self._places:
            _, layers, rest = name.partition(".layers.")
            alike = [one for one in self._places if layers and one.endswith(layers + rest)]
            name = alike[0] if len(alike) == 1 else name
        return name

    def same_files(self, other: StoredTensors) -> bool:
        """Whether both are one folder, or files of weights with the same content."""
        if self.folder.resolve() == other.folder.resolve():
            return True
        ours, theirs = ({*one._places.values()} for one in (self, other))
        sizes = [sorted(path.stat().st_size for path in some) for some in (ours, theirs)]
        if sizes[0] != sizes[1]:
            return False
        return sorted(map(sampled_hash, ours)) == sorted(map(sampled_hash, theirs))


def rewritten(
    base: StoredTensors,
    tuned: Path,
    to: Path,
    change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> Mapping[str, object]:
    """Write a model whose every tensor is made of the base's and the tuned one's.

    Sums are formed in float32 and stored in the dtype of the tuned weights; what is not a floating
    point number is taken from the tuned model, and so are all other files.

    Args:
        base: the untouched model.
        tuned: folder of the same model with all weights trained.
        to: the new model's folder; made if need be.
        change: (the base's tensor, the tuned one's), in float32, to the new one.

    Returns:
        How many tensors and parameters were made anew.

    Raises:
        ModelError: no weights, or a tensor that the base does not have or has in another shape.
    """
    from safetensors import safe_open
    from safetensors.torch import save_file

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
                    before = base.tensor(name, after.shape)
                    after = change(before.float(), after.float()).to(after.dtype)
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


def check_readable(base: ModelRef, who: str) -> None:
    """Refuse a model whose files do not hold its weights as numbers.

    Args:
        base: a model.
        who: wants to read them, for messages.

    Raises:
        ModelError: it is stored in few bits, or in llama.cpp's format.
    """
    held = stored_in(base.base, base.revision)
    kind = "llama.cpp's format" if base.gguf else held.kind if held is not None else ""
    if kind:
        raise ModelError(
            f"{who} reads the base's own weights, and these are stored in {kind}",
            where=base.base,
            remedy=f"name the same model in 16 bits, or leave {who} out",
        )
