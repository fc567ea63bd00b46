"""Do a tokenizer and a model's embedding go together? A token beyond its rows ends in a crash."""

from __future__ import annotations

from typing import TYPE_CHECKING

from holdfast.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAMED = 3
"""How many tokens a message names."""


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, rows: int, where: str) -> list[str]:
    """Refuse a tokenizer that has ordinary tokens, or those that end and pad, beyond the embedding.

    Some sound models have marks for pictures there, which no text ever becomes; that is noted.

    Args:
        tokenizer: of the model.
        rows: of the model's embedding.
        where: for messages.

    Returns:
        Notices.

    Raises:
        ModelError: naming the tokens.
    """
    beyond = {name: at for name, at in tokenizer.get_vocab().items() if at >= rows}
    if not beyond:
        return []
    used = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id}
    marks = {at for at, token in tokenizer.added_tokens_decoder.items() if token.special}
    wrong = [name for name, at in beyond.items() if at in used or at not in marks]
    shown = ", ".join(
        repr(name) for name in sorted(wrong or beyond, key=lambda name: beyond[name])[:NAMED]
    )
    if wrong:
        raise ModelError(
            f"its tokenizer has {len(wrong)} tokens that the model has no embedding for (it has "
            f"{rows:,}): {shown}",
            where=where,
            remedy="take the tokenizer that belongs to the model, or give the model its tokens "
            f"(`model.resize_token_embeddings({max(beyond.values()) + 1})`) and save both",
        )
    return [f"{where}: the model has no embedding for {shown}; no text here may contain them."]
