"""Reads the chat template in a model's folder as text. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path

from holdfast.types import ModelRef


def template_text(ref: ModelRef) -> str:
    """The chat template of a model: the study's, or the one in its folder.

    Args:
        ref: the model.

    Returns:
        "" where there is none, and for a model on the hub, which has no folder yet.
    """
    if ref.chat.template is not None:
        return ref.chat.template
    file = Path(ref.base) / "chat_template.jinja"
    config = Path(ref.base) / "tokenizer_config.json"
    try:
        if file.is_file():
            return file.read_text(encoding="utf-8")
        found = json.loads(config.read_text(encoding="utf-8")).get("chat_template")
        return json.dumps(found, ensure_ascii=False)
    except (OSError, ValueError, AttributeError):
        return ""
