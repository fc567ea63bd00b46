"""Tells the parts of a model apart: matrices, stacked experts, towers, routers, mixers.

By what modules are and where they stand: it holds for models nobody listed, on the meta device too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from holdfast.memory.model.words import PRESETS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

NUMBERED = re.compile(r".*?\.[^.]*\.(\d+)\.")  # as PEFT finds the number of a layer
TOWER = re.compile(
    r"(^|\.)(vision\w*|visual\w*|audio\w*|image\w*|img_\w+|speech\w*|embed_tokens_extend|"
    r"(\w*_)?projector|multimodal\w*|multi_modal\w*|mm_\w+|vit\w*|qformer|perceiver\w*|aligner|"
    r"embed_vision|embed_audio|merger)(\.|$)"
)
"""In the names of what reads pictures and sounds, and hands them to the language model."""
ROUTER = re.compile(r"(^|\.)(router|gate)(\.|$)")
"""What chooses experts; trained by few examples it sends everything to the same ones."""
NOT_LANGUAGE = re.compile(r"(^|\.)mtp\w*(\.|$)")
"""Heads that predict several tokens at once; no answer is read from them."""
KINDS = (("attention", re.compile(r"attn|attention")),
         ("mlp", re.compile(r"mlp|feed_forward|ffn|moe|expert")))  # fmt: skip
READ_NOT_CALLED = ("out_proj", "dt_proj")
"""Layers of state-space mixers whose weight goes into a kernel; an adapter would not be seen."""
FUSED = (("gate_proj", "up_proj"), ("w1", "w3"), ("down_proj",), ("w2",))
"""Experts' matrices by their names in transformers 4; those of a pair are one parameter since."""


class Parts:
    """The modules of one model, and what each is.

    Attributes:
        model: the base, not wrapped.
        head: its output head.
        all: every module that PEFT has an adapter for, by full name.
        linear: those that are matrices, without the head.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Look at a model."""
        self.model, self.head = model, model.get_output_embeddings()
        self.all = {name: one for name, one in model.named_modules() if name and _fits(one)}
        self.linear = {name: one for name, one in self.all.items()
                       if _is_linear(one) and one is not self.head}  # fmt: skip

    @cached_property
    def stacked(self) -> list[str]:
        """Experts that are one three-dimensional parameter."""
        named = self.model.named_parameters()
        found = (name for name, one in named if one.dim() == 3 and "expert" in name)
        return [name for name in found if not self.is_tower(name)]

    @cached_property
    def translated(self) -> Mapping[str, tuple[str, ...]]:
        """The names under which PEFT 0.21 adapts stacked experts, by their parameters' last names.

        Without a model that it knows such names of there are none.
        """
        if not self.stacked:
            return {}
        from peft import LoraConfig
        from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

        found: dict[str, tuple[str, ...]] = {}
        for names in FUSED:
            config = LoraConfig(target_modules=set(names), task_type="CAUSAL_LM")
            convert_peft_config_for_transformers(config, self.model, None)
            found |= dict.fromkeys(config.target_parameters or (), names)
        return found

    @cached_property
    def _language(self) -> str | None:
        """The name of the language model inside of one that reads more; None: it is all of it."""
        text = self.model.config.get_text_config()
        if text is self.model.config:
            return None
        inner = [
            name
            for name, one in self.model.named_modules()
            if name and getattr(one, "config", None) is text and one is not self.model
        ]
        return min(inner, key=len, default=None)

    def is_tower(self, name: str) -> bool:
        """Whether it reads pictures or sounds, or hands them to the language model."""
        if self._language is not None:
            return not name.startswith(f"{self._language}.")
        return bool(TOWER.search(name))

    def is_router(self, name: str) -> bool:
        """Whether it chooses experts."""
        return bool(self.stacked) and bool(ROUTER.search(name))

    def is_mixer(self, name: str) -> bool:
        """Whether a layer belongs to a state-space mixer (Mamba and its kin)."""
        parent = self.model.get_submodule(name.rpartition(".")[0])
        mixes = hasattr(parent, "A_log") and hasattr(parent, "conv1d")
        return mixes and "DeltaNet" not in type(parent).__name__

    def is_unseen(self, name: str) -> bool:
        """Whether the model's code reads its weight without calling it."""
        return last(name) in READ_NOT_CALLED and self.is_mixer(name)

    def kind(self, name: str) -> str:
        """`attention` or `mlp`, by where a layer is, else by its name; "" for neither."""
        if self.is_mixer(name):
            return ""
        for part in reversed(name.split(".")[:-1]):
            for kind, words in KINDS:
                if words.search(part):
                    return kind
        return next((kind for kind, names in PRESETS.items() if last(name) in names), "")

    def short(self, names: Sequence[str]) -> list[str]:
        """Ends of parameters' names that mean these and no others, else the whole names."""
        found: list[str] = []
        every = [name for name, _ in self.model.named_parameters()]
        for name in names:
            short = ".".join(name.split(".")[-2:])
            meant = {one for one in every if one.endswith(f".{short}")}
            found.append(short if meant <= set(names) else name)
        return list(dict.fromkeys(found))


def class_of(kind: str) -> Any:
    """Transformers' class of a `model_type`: a language model, or one that reads pictures too."""
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    from transformers.models.auto import modeling_auto

    language = modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    pictures = modeling_auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    if kind in pictures and kind not in language:
        return AutoModelForImageTextToText
    return AutoModelForCausalLM


def kind_of(name: str) -> str:
    """A module's name with its numbers left out."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def last(name: str) -> str:
    """The last part of a dotted name."""
    return name.rpartition(".")[2]


def is_transposed(module: torch.nn.Module) -> bool:
    """Whether it is GPT-2's `Conv1D`, a matrix that lies the other way round."""
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, Conv1D)


def _is_linear(module: torch.nn.Module) -> bool:
    """A matrix; quantised ones of other libraries are no `nn.Linear`, but hold `qweight`."""
    import torch

    plain = isinstance(module, torch.nn.Linear) or is_transposed(module)
    return plain or hasattr(module, "qweight")


def _fits(module: torch.nn.Module) -> bool:
    """Whether PEFT has an adapter for this kind of layer."""
    import torch

    kinds = (torch.nn.Embedding, torch.nn.Conv1d, torch.nn.Conv2d)
    return _is_linear(module) or isinstance(module, kinds)


def name_of(model: PreTrainedModel, module: object) -> str:
    """The full name of a module; "" where it is none of the model's."""
    return next((name for name, one in model.named_modules() if one is module), "")
