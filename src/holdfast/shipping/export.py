"""How does a measured model become a folder that other programs can load?

Four forms: the adapter alone, the base with the adapter merged in, that in four bits, and that as
one GGUF file. A share of the training's change (a scale) is written into the weights, so that
nobody has to know of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from holdfast import models
from holdfast.errors import FolderError, HoldfastError, UsageError
from holdfast.memory.loading import loading
from holdfast.methods.scale import scaled_adapter
from holdfast.models import ModelRef, adapter_weights, external, gguf_record
from holdfast.models.whole import write_merged
from holdfast.progress import Progress
from holdfast.runs import store, temporary
from holdfast.shipping import gguf

Form = Literal["adapter", "merged", "nf4", "gguf"]
FORMS: tuple[Form, ...] = ("adapter", "merged", "nf4", "gguf")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
MODEL_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")
NOT_MODEL = ("trainer_state.json", "record.json", "split.json", gguf_record.RECORD)


def export(ref: ModelRef, form: Form, folder: Path) -> ModelRef:
    """Write a model in one of the forms.

    Args:
        ref: the model; without an adapter it is a folder with all weights.
        form: see the module.
        folder: an existing, empty folder.

    Returns:
        What was written, as something that can be asked.

    Raises:
        HoldfastError: these adapters cannot be scaled, or merged.
        MissingDependency: four bits without bitsandbytes, or GGUF without llama.cpp's converter.
        OutOfMemory: the base does not fit into memory.
    """
    whole = replace(ref, base=str(folder), revision=None, adapter=None, scale=1.0)
    if form == "adapter":
        _adapter(ref, folder)
        return replace(ref, adapter=str(folder), scale=1.0)
    if form == "merged":
        _merged(ref, folder)
        return whole
    staged = folder / ".merged"
    staged.mkdir()
    _merged(ref, staged)
    if form == "gguf":
        gguf.convert(staged, folder / gguf.FILE)
    else:
        _four_bits(replace(whole, base=str(staged)), folder)
    shutil.rmtree(staged)
    return whole


def merge(base: str, adapter: str, to: Path, any_base: bool, progress: Progress) -> Path:
    """Write a base with an adapter merged in, as a folder that other programs load.

    Args:
        base: folder, hub id or GGUF file.
        adapter: folder or hub id.
        to: the folder to make; it may exist if it is empty.
        any_base: merge although the adapter names another base.
        progress: is told what is done.

    Raises:
        UsageError: the second one is no adapter.
        ModelError: one cannot be used, or the adapter is of another base.
        FolderError: `to` holds something already.
    """
    target = free(to)
    found = external.find(base)
    tuned = external.find(adapter, found, any_base)
    if tuned.form != "adapter":
        raise UsageError("is no adapter", where=adapter, remedy="holdfast merge BASE ADAPTER --to")
    with building(target) as folder:
        progress.say(f"merging {tuned.source} into {found.source}")
        export(tuned.ref, "merged", folder)
        folder.replace(target)
    return target


def free(named: str | Path | None) -> Path:
    """The place of a folder to make.

    Raises:
        UsageError: none is named.
        FolderError: it holds something already.
    """
    if named is None:
        raise UsageError("where to?", where="--to", remedy="name a folder, or use --dry-run")
    to = Path(named).expanduser().absolute()
    if to.is_symlink() or (to.exists() and (not to.is_dir() or any(to.iterdir()))):
        raise FolderError("holds something already", where=str(to), remedy="name another folder")
    return to


@contextmanager
def building(to: Path) -> Iterator[Path]:
    """A temporary folder beside the one to make; what is left of it in the end is removed."""
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        temporary.clear(to.parent, deep=False, name=to.name)
        folder = temporary.beside(to)
        folder.mkdir()
    except OSError as error:
        raise FolderError(
            f"cannot be written: {error.strerror}", where=str(to), remedy="choose another place"
        ) from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _adapter(ref: ModelRef, folder: Path) -> None:
    """Copy the adapter; a scale goes into B."""
    if ref.adapter is None:
        raise HoldfastError("is no adapter", where=ref.base, remedy="export it with --form merged")
    source = Path(ref.adapter)
    config: dict[str, Any] = store.read_json(source / CONFIG)
    if ref.scale != 1:
        if config.get("peft_type") != "LORA" or config.get("use_dora"):
            raise HoldfastError(
                "a share of an adapter can be written for LoRA and rank-stabilised LoRA only",
                where=ref.adapter,
                remedy="leave `scale` out of this arm",
            )
        scaled_adapter(source, ref.scale, folder)
        source = folder
        config = store.read_json(source / CONFIG)
    config |= {"base_model_name_or_path": ref.base, "revision": ref.revision}
    store.write_json(folder / CONFIG, config)
    if source != folder:
        adapter_weights.check(source / WEIGHTS)
        shutil.copyfile(source / WEIGHTS, folder / WEIGHTS)
    _own_template(ref, folder)


def _merged(ref: ModelRef, folder: Path) -> None:
    """Write all weights, in the base's own precision, with tokenizer and chat template.

    A base that lies in few bits is written out first: what is merged into four bits is rounded.
    """
    if ref.adapter is None:
        for pattern in MODEL_FILES:
            for path in Path(ref.base).glob(pattern):
                if path.name not in NOT_MODEL:
                    shutil.copyfile(path, folder / path.name)
        _own_template(ref, folder)
        return
    write_merged(ref, _own_dtype(replace(ref, adapter=None, scale=1.0)), folder)


def _own_template(ref: ModelRef, folder: Path) -> None:
    """Put the study's own chat template beside the weights, with the tokenizer that uses it."""
    if ref.chat.template is not None:
        models.load_tokenizer(ref, chats=False).save_pretrained(folder)


def _four_bits(ref: ModelRef, folder: Path) -> None:
    """Write a model's linear layers as NF4, as `models.load_model` would load them."""
    device = models.pick_device("auto")
    with loading():
        model = models.load_model(ref, _own_dtype(ref), device, nf4=True)
    model.save_pretrained(folder)
    models.load_tokenizer(ref, chats=False).save_pretrained(folder)


def _own_dtype(ref: ModelRef) -> Any:
    """The precision in which the base was published."""
    torch = models.require_torch()
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(ref.base, **ref.loading())
    return getattr(config, "dtype", None) or torch.float32
