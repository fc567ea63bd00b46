"""EMA: measures a moving average of the weights instead of where training ended.

After every optimiser step the average takes in a little of the weights: decay times itself plus
(1 - decay) times what is trained (in the parameter space, for safety in fine-tuning:
arXiv:2508.12531). It begins with the untouched model and lags behind training, which goes on as if
nothing were kept. Under LoRA the average is of the factors A and B, as the optimiser sees them.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from holdfast.config import Section
from holdfast.errors import ModelError
from holdfast.methods import Making, WeightMethod
from holdfast.models.averages import averaged_in
from holdfast.models.stored_tensors import BESIDE


class EMA(WeightMethod):
    """Measure a moving average of the weights of another arm's training."""

    options: Options

    class Options(Section):
        """Settings of ``ema``."""

        decay: float = Field(0.99, gt=0, lt=1)
        """Share of the average that stays in every step; after n steps the untouched model's own
        share is decay to the power of n."""
        checkpoints: Literal["last", "all"] = "last"
        """Measure it at the last checkpoint, or at every one."""

    products = False
    whole = True

    def __init__(self, options: Options) -> None:
        """Take the settings."""
        super().__init__(options)
        self.checkpoints = options.checkpoints
        self.averages = (options.decay,)

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        return f"moving average of the weights (decay {self.options.decay:g})"

    def make_from(
        self, making: Making, trained: Sequence[Path], folder: Path
    ) -> Mapping[str, object]:
        """See `WeightMethod.make_from`; the average is copied out of the checkpoint.

        Raises:
            ModelError: the training did not keep this average.
        """
        (checkpoint,) = trained
        source = averaged_in(checkpoint, self.options.decay)
        files = sorted(path for path in source.iterdir() if path.is_file())
        if not any(path.suffix == ".safetensors" for path in files):
            raise ModelError("has no weights (*.safetensors)", where=str(source))
        folder.mkdir(parents=True, exist_ok=True)
        if making.whole:  # tokenizer and the like are the checkpoint's
            files = [
                path for path in sorted(checkpoint.iterdir())
                if path.suffix in BESIDE
                and not path.name.startswith(("trainer_state", "split", "model.safetensors"))
            ] + files  # fmt: skip
        for path in files:
            shutil.copyfile(path, folder / path.name)
        return {"decay": self.options.decay}
