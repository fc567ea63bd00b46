"""Checks, identifies, loads and scales PEFT adapters.

Whether one fits a base is told from names and small files, before anything is loaded: an adapter on
the wrong base gives figures that look like forgetting and are none.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from holdfast.errors import HoldfastError, ModelError, first_line
from holdfast.memory.hardware.host import host_ram_bytes
from holdfast.memory.model import hub
from holdfast.memory.out_of_memory import is_out_of_memory
from holdfast.models import adapter_weights, files, skeleton
from holdfast.models.json_files import read_object
from holdfast.models.safetensors_files import read_header
from holdfast.runs import store
from holdfast.types import ModelRef

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

SETTINGS = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
FILES = ("adapter_*.json", WEIGHTS, "*.jinja", "tokenizer*")
PROMPTS = {"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "CPT"}
"""Kinds of PEFT that are no change of the weights; the engine cannot put them before a prompt."""
QUANTISED = re.compile(r"(-unsloth)?(-bnb)?-(4bit|8bit)$")
"""What is put behind a base's name when it is published again in fewer bits."""
SPARE = 0.5
"""Share of the host's free memory that a second copy of merged weights may take."""
MISSING = "missing adapter keys"
"""What PEFT warns of where an adapter's file does not hold what its settings say."""
KEPT = re.compile(r"models--(?:.+?)--(?P<name>[^/]+)/snapshots/")
"""A base that was loaded from the hub's cache, as an adapter then names it."""


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    return (folder / SETTINGS).is_file() and not any(folder.glob("model*.safetensors"))


def settings_of(folder: Path) -> Mapping[str, object]:
    """The settings of an adapter.

    Raises:
        ModelError: they cannot be read.
    """
    return read_object(folder / SETTINGS)


def check(folder: Path, source: str) -> Mapping[str, object]:
    """An adapter's settings, if it can be used.

    Args:
        folder: of the adapter.
        source: how its user names it.

    Raises:
        ModelError: it is no change of weights, its settings are damaged, or its weights are
            missing, pickled, torn, not whole, NaN or infinite.
    """
    settings = settings_of(folder)
    adapter_weights.check_settings(settings, str(folder / SETTINGS))
    kind = str(settings.get("peft_type") or "")
    if not kind or kind in PROMPTS:
        raise ModelError(
            f"is no change of weights (peft_type {kind or 'missing'})",
            where=source,
            remedy="LoRA and its relatives can be compared",
        )
    if not (folder / WEIGHTS).is_file():
        pickled = (folder / "adapter_model.bin").is_file()
        raise ModelError(
            "its weights are pickled (adapter_model.bin), which can run code when loaded"
            if pickled
            else f"has no {WEIGHTS}",
            where=source,
            remedy="load it with PEFT where you trust it and save it again: it writes safetensors"
            if pickled
            else "fetch it",
        )
    adapter_weights.check(folder / WEIGHTS)
    return settings


def identity(folder: Path) -> str:
    """What makes an adapter this adapter: weights and settings, not what it calls its base."""
    settings = settings_of(folder)
    about = {key: settings[key] for key in settings if "base_model" not in key}
    return store.fingerprint([about, files.sampled_hash(folder / WEIGHTS).hex()])


def brings_modules(folder: Path) -> bool:
    """Whether an adapter brings whole modules with it.

    PEFT 0.21 leaves them in the base when the adapter is taken off, so that the base must be loaded
    anew before it, or another adapter, is asked.
    """
    return bool(settings_of(folder).get("modules_to_save"))


def load_adapter(model: PreTrainedModel, adapter: str) -> PeftModel:
    """A model wrapped with an adapter, ready to answer.

    Raises:
        ModelError: the adapter does not fit the model, or its file is damaged.
    """
    from peft import PeftModel

    adapter_weights.check(Path(adapter) / WEIGHTS)
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            tuned = PeftModel.from_pretrained(model, adapter).eval()
        left = next((str(one.message) for one in said if MISSING in str(one.message)), None)
        if left is not None:  # PEFT goes on with the base's own weights there
            raise KeyError(left.partition(MISSING)[0] + MISSING)
        return tuned
    except Exception as error:  # of whatever kind its settings or its file make PEFT fail with
        if is_out_of_memory(error):
            raise
        lines = str(error).splitlines()
        why = next((line.strip() for line in lines if "mismatch" in line), first_line(error))
        raise ModelError(
            f"the adapter cannot be applied: {why[:200]}",
            where=adapter,
            remedy="name the base that it was trained on; if its files are damaged or incomplete, "
            "fetch them again",
        ) from error


HALF = 2
"""Bytes of a number in bfloat16 or float16."""
Weights = dict["torch.nn.Parameter", "torch.Tensor"]
"""Weights, and what they were."""


def merge(model: PeftModel) -> Weights | None:
    """Put an adapter's change into the weights it changes, so that answering costs the base's time.

    Only where that is as good: LoRA's product on weights held in float32, whose rounding lies far
    below what a token is chosen by. In bfloat16 most of a small change would be rounded away, and
    weights in 4 bits cannot take it.

    Args:
        model: a model with one adapter, on its device.

    Returns:
        What `restore` needs to give the weights back bit for bit; None: nothing was merged, as it
        is another kind of adapter, the weights are shared or not float32, or memory is short.
    """
    import torch
    from peft.tuners.lora.layer import Linear, LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [one for one in model.modules() if isinstance(one, BaseTunerLayer)]
    owners = [weight for one in model.modules() for weight in one._parameters.values()]
    touched: list[torch.nn.Parameter] = []
    for layer in layers:
        if type(layer) is not Linear or not isinstance(layer, LoraLayer):
            return None
        inner = layer.get_base_layer()
        if type(inner) is not torch.nn.Linear or inner.weight.dtype != torch.float32:
            return None
        if any(layer.use_dora.values()) or any(layer.lora_bias.values()) or layer.lora_variant:
            return None
        if sum(weight is inner.weight for weight in owners) > 1:
            return None  # tied: the change would reach the embeddings as well
        touched.append(inner.weight)
    need = sum(one.nbytes for one in touched)
    if not layers or list(model.peft_config) != ["default"] or need > host_ram_bytes() * SPARE:
        return None
    kept = {one: one.detach().to("cpu", copy=True) for one in touched}
    try:
        model.merge_adapter()
    except BaseException:
        restore(kept)
        raise
    return kept


def narrow(model: PeftModel) -> None:
    """Round LoRA's factors to the precision of the weights that they change, as vLLM does.

    PEFT keeps them in float32 and converts every input, which took a quarter of the time of an
    answer on a CPU. A factor's rounding is a part in 500 of the change; merged into weights in
    bfloat16, most of a small change would be rounded away. Weights in float32 or 4 bits: nothing.
    """
    from peft.tuners.lora.layer import Linear

    for layer in model.modules():
        if type(layer) is Linear and not layer.lora_variant:
            dtype = layer.get_base_layer().weight.dtype
            if dtype.is_floating_point and dtype.itemsize == HALF:
                layer.lora_A.to(dtype)
                layer.lora_B.to(dtype)


def restore(kept: Weights) -> None:
    """Give weights back what they were before `merge`, bit for bit."""
    for weight, before in kept.items():
        weight.data.copy_(before)


def take_off(model: PeftModel) -> PreTrainedModel:
    """The base again, without the adapter; with modules that the adapter brought, its own ones.

    PEFT 0.21 would leave those in the base (`modules_to_save`) while the adapter is active.
    """
    from peft.utils import ModulesToSaveWrapper

    if any(isinstance(one, ModulesToSaveWrapper) for one in model.modules()):
        for name in list(model.peft_config):
            model.delete_adapter(name)
    return model.unload()


def bare(model: PreTrainedModel) -> PreTrainedModel:
    """The untouched model, looked at once more.

    Raises:
        HoldfastError: it still carries an adapter.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if any(isinstance(module, BaseTunerLayer) for module in model.modules()):
        raise HoldfastError(
            "the untouched model still carries an adapter; 'before' would be wrong",
            remedy="please report this",
        )
    return model


def check_fits(ref: ModelRef) -> None:
    """Put an adapter on the skeleton of its base; the base's weights are not loaded.

    Raises:
        ModelError: it belongs to another model, or not all of it would be used.
    """
    assert ref.adapter is not None
    folder = Path(ref.adapter)
    base = skeleton.build(replace(ref, adapter=None, scale=1.0))
    rows = base.get_input_embeddings().weight.shape[0]
    held = adapter_weights.check(folder / WEIGHTS)
    adapter_weights.check_vocabulary(held, rows, str(folder))
    tuned = load_adapter(base, ref.adapter)
    places = {name.replace(".default.", ".") for name in tuned.state_dict()}
    adapter_weights.check_places(held, places, str(folder))


def scale_adapter(model: PeftModel, factor: float) -> None:
    """Apply a share of an adapter's change: W + factor · ΔW (WiSE-FT, arXiv:2109.01903).

    Args:
        model: a PEFT model whose adapters add to the weights (LoRA, rank-stabilised LoRA).
        factor: 0 is the base, 1 the model as it was trained.

    Raises:
        HoldfastError: the adapters do not add, so that a share of them is no interpolation.
    """
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        if not isinstance(module, LoraLayer) or any(module.use_dora.values()):
            raise HoldfastError(
                "only a share of LoRA's change can be applied",
                remedy="use train.lora.variant lora or rslora, or leave `scale` out",
            )
        module.scale_layer(factor)


def from_hub(name: str, revision: str | None, cache: Path | None = None) -> Path | None:
    """The folder of an adapter from the hub, or None: it is none, or that cannot be found out.

    Args:
        name: hub id.
        revision: branch, tag or commit.
        cache: of the hub; None: the usual one.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return None
    try:
        from huggingface_hub import hf_hub_download, snapshot_download
    except ImportError:
        return None
    only_kept = hub.asked_offline() or bool(hub.down())
    if only_kept and not hub.is_cached(name, revision, SETTINGS, cache):
        return None
    try:
        hf_hub_download(name, SETTINGS, revision=revision, cache_dir=cache)
        patterns = list(FILES)
        return Path(snapshot_download(
            name, revision=revision, cache_dir=cache, allow_patterns=patterns
        ))  # fmt: skip
    except (OSError, ValueError):  # no such file, no such model, no connection
        return None


def same_base(name: str, other: str) -> bool:
    """Whether two names may mean the same weights: paths by where they lie, else the last part."""
    paths = [Path(text).expanduser() for text in (name, other)]
    if all(map(os.path.exists, paths)) and paths[0].resolve() == paths[1].resolve():
        return True
    return _bare(name) == _bare(other)


def _bare(name: str) -> str:
    kept = KEPT.search(name)
    last = kept["name"] if kept else name.rstrip("/").rpartition("/")[2]
    return QUANTISED.sub("", last.casefold())


def check_vocabulary(adapter: Path, base: Path, source: str) -> None:
    """Check that the embeddings that an adapter brings have as many rows as the base.

    Args:
        adapter: its folder.
        base: the base's folder; one that is not here is not looked at.
        source: how the adapter's user names it.

    Raises:
        ModelError: they have not; with the lines that resize the base.
    """
    config = base / "config.json"
    if not config.is_file():
        return
    fields = read_object(config)
    inner = fields.get("text_config")
    rows = (inner if isinstance(inner, dict) else fields).get("vocab_size")
    if isinstance(rows, int):
        own = any((adapter / one).is_file() for one in ("tokenizer.json", "tokenizer.model"))
        held = read_header(adapter / WEIGHTS)
        adapter_weights.check_vocabulary(held, rows, source, str(adapter) if own else "")
