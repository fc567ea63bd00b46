"""Gathers the shards of a model into a checkpoint of the one form, and deals them out from it.

Here, because the trainer's own way writes a copy of the base model, or gathers it in host memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from holdfast.train.checkpoints import FOR_SHARDS, OPTIMIZER, meet

if TYPE_CHECKING:
    import torch
    from trl import SFTTrainer


def save_shards(trainer: SFTTrainer, checkpoint: Path) -> None:
    """Write a checkpoint of a sharded model; every rank takes part, rank 0 writes.

    Only what is trained is gathered, one parameter at a time, into host memory.
    """
    import torch
    from torch.distributed.checkpoint.state_dict import (
        StateDictOptions,
        get_model_state_dict,
        get_optimizer_state_dict,
    )

    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    weights = get_model_state_dict(trainer.model, options=options)
    moments = get_optimizer_state_dict(trainer.model, trainer.optimizer, options=options)
    checkpoint.mkdir(parents=True, exist_ok=True)
    if trainer.args.process_index == 0:
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(
            checkpoint, state_dict=weights
        )
        trainer.processing_class.save_pretrained(checkpoint)
        torch.save(_renamed(moments, _numbers(moments)), checkpoint / OPTIMIZER)
        torch.save(trainer.lr_scheduler.state_dict(), checkpoint / "scheduler.pt")
        trainer.state.save_to_json(str(checkpoint / "trainer_state.json"))
    trainer._save_rng_state(str(checkpoint))


@contextmanager
def dealt_out(trainer: SFTTrainer, checkpoint: Path) -> Iterator[None]:
    """Let a trainer that will shard find its own files in a checkpoint, for as long as it loads.

    Args:
        trainer: its model is not sharded yet.
        checkpoint: of any plan.
    """
    import torch

    model = trainer.model
    _restore(model, checkpoint)
    if trainer.args.process_index == 0:
        decayed = set(trainer.get_decay_parameter_names(model))
        names = [name for name, one in model.named_parameters() if one.requires_grad]
        names.sort(key=lambda name: name not in decayed)  # the order of the trainer's two groups
        moments = torch.load(checkpoint / OPTIMIZER, map_location="cpu", weights_only=True)
        adapted = hasattr(model, "peft_config")
        held = (
            {name: model.get_parameter(name) for name in names} if adapted else model.state_dict()
        )
        torch.save({name: one.detach() for name, one in held.items()}, checkpoint / FOR_SHARDS[0])
        torch.save(_renamed(moments, dict(enumerate(names))), checkpoint / FOR_SHARDS[1])
    meet()
    try:
        yield
    finally:
        if trainer.args.process_index == 0:
            for name in FOR_SHARDS:
                (checkpoint / name).unlink(missing_ok=True)


def _numbers(moments: Mapping[str, Any]) -> dict[str, int]:
    names = [name for group in moments["param_groups"] for name in group["params"]]
    return {name: number for number, name in enumerate(names)}


def _renamed(moments: Mapping[str, Any], names: Mapping[Any, Any]) -> dict[str, Any]:
    """An optimiser's state with other names for its parameters."""
    return {
        "state": {names[old]: value for old, value in moments["state"].items()},
        "param_groups": [
            {**group, "params": [names[old] for old in group["params"]]}
            for group in moments["param_groups"]
        ],
    }


def _restore(model: torch.nn.Module, checkpoint: Path) -> None:
    """Load the trained weights into a model that is whole."""
    if hasattr(model, "peft_config"):
        from peft import load_peft_weights, set_peft_model_state_dict

        set_peft_model_state_dict(model, load_peft_weights(str(checkpoint), device="cpu"))
        return
    from safetensors.torch import load_file

    for path in checkpoint.glob("*.safetensors"):
        model.load_state_dict(load_file(path), strict=False)
