"""Modules that are trained whole beside the adapters, and rows of the embedding that are.

PEFT keeps a copy of each (`modules_to_save`), or the new rows alone (`trainable_token_indices`);
the base's own stay as they are, so the adapter switched off is the base.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from holdfast.config import LoraSpec
from holdfast.errors import StudyError
from holdfast.memory.model.parts import name_of
from holdfast.registry import nearest

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def settings(model: PreTrainedModel, lora: LoraSpec) -> tuple[dict[str, Any], list[str]]:
    """What PEFT is told of them, and what a reader of the figures must know.

    Args:
        model: the base, not wrapped.
        lora: the study's settings.

    Raises:
        StudyError: no such module, or no such token.
    """
    tied = bool(getattr(model.config.get_text_config(), "tie_word_embeddings", False))
    _check_modules(model, lora)
    _check_tokens(model, lora, tied)
    found: dict[str, Any] = {"modules_to_save": list(lora.modules_to_save) or None}
    notices = []
    if lora.trainable_token_indices:
        found["trainable_token_indices"] = list(lora.trainable_token_indices)
    ends = {name_of(model, model.get_input_embeddings()),
            name_of(model, model.get_output_embeddings())}  # fmt: skip
    if tied and set(lora.modules_to_save) & {end.rpartition(".")[2] for end in ends}:
        found["ensure_weight_tying"] = True
        notices.append("the output head is the embedding in this model: both are trained as one")
    return found, notices


def check_tied(model: PreTrainedModel, adapted: Iterable[str]) -> None:
    """Refuse an adapter on an embedding that is the head too: merged, it would change both.

    Raises:
        StudyError: naming the embedding.
    """
    text = model.config.get_text_config()
    name = name_of(model, model.get_input_embeddings())
    if getattr(text, "tie_word_embeddings", False) and name in set(adapted):
        raise StudyError(
            f"{name} is the output head too in this model, and an adapter would change only one",
            where="train.lora.target_modules",
            remedy=f"train it whole: modules_to_save: [{name.rpartition('.')[2]}]",
        )


def _check_modules(model: PreTrainedModel, lora: LoraSpec) -> None:
    names = {part for name, _ in model.named_modules() for part in [name.rpartition(".")[2]]}
    for wanted in lora.modules_to_save:
        if wanted not in names:
            ends = [name_of(model, one) for one in
                    (model.get_input_embeddings(), model.get_output_embeddings())]  # fmt: skip
            raise StudyError(
                f"the model has no module called {wanted!r}{nearest(wanted, names)}",
                where="train.lora.modules_to_save",
                remedy=f"its embedding and its head are {' and '.join(filter(None, ends))}; give "
                "the last part of the name",
            )


def _check_tokens(model: PreTrainedModel, lora: LoraSpec, tied: bool) -> None:
    if tied and lora.trainable_token_indices:
        raise StudyError(
            "the output head is the embedding in this model, and the loss reads its weight without "
            "the rows that are trained",
            where="train.lora.trainable_token_indices",
            remedy="train the embedding whole: modules_to_save: [embed_tokens]",
        )
    rows = model.get_input_embeddings().weight.shape[0]
    beyond = [token for token in lora.trainable_token_indices if token >= rows]
    if beyond:
        raise StudyError(
            f"token {beyond[0]} is not in the model's vocabulary of {rows} rows",
            where="train.lora.trainable_token_indices",
            remedy="resize the base once (`model.resize_token_embeddings(len(tokenizer))`, save it "
            "with its tokenizer) and name that folder as the model",
        )
