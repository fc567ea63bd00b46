"""Finds the moving averages of a training's weights, which lie in its checkpoints."""

from __future__ import annotations

from pathlib import Path

from holdfast.errors import ModelError

AVERAGED = "averages"
"""The folder of all averages in a checkpoint. They lie one level deeper, since whatever resumes a
training takes a folder with an adapter in it for another adapter of the model."""


def averaged_name(decay: float) -> str:
    """The folder of one average in a checkpoint: ``averages/0.99``."""
    return f"{AVERAGED}/{decay:g}"


def averaged_in(checkpoint: Path, decay: float) -> Path:
    """The folder of one average.

    Raises:
        ModelError: the training did not keep it.
    """
    folder = checkpoint / averaged_name(decay)
    if not folder.is_dir():
        arm = next(
            (one for one in checkpoint.parents if one.parent.name == "train"), checkpoint.parents[1]
        )
        raise ModelError(
            f"holds no moving average of decay {decay:g}",
            where=str(checkpoint),
            remedy=f"train it again with --rebuild 'train/{arm.name}/*'",
        )
    return folder
