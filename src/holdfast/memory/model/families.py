"""Says whether transformers knows a family of models, without importing it.

A family that it does not know has matrices that nobody here has seen, so its size is not guessed.
`families.json` is the list of transformers 5.23; where a newer one is installed its own list counts
too.
"""

from __future__ import annotations

import difflib
import importlib.util
import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from holdfast.environment import install_command
from holdfast.errors import ModelError

DATA = Path(__file__).with_name("families.json")
LISTED = "models/auto/auto_mappings.py", "models/auto/configuration_auto.py"
"""Where transformers lists its families, 5 and 4."""
OWN_CODE = frozenset({"minicpm"})
"""Families that come with Python code of their own whose layers are Llama's, as was read there."""


def require(kind: str, config: Mapping[str, object], name: str) -> None:
    """Refuse a family that nobody has counted.

    Args:
        kind: `model_type` of its config.json.
        config: the whole of it.
        name: the model, for messages.

    Raises:
        ModelError: transformers does not know the family, or none is named.
    """
    if kind in OWN_CODE or is_known(kind):
        return
    if not kind:
        raise ModelError(
            "its config.json has no model_type, so its size is not known",
            where=name,
            remedy="save it again with `model.save_pretrained(folder)`, or check the file",
        )
    close = difflib.get_close_matches(kind, _listed(), n=1, cutoff=0.6)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    own = " (it comes with Python code of its own, which a plan does not run)"
    raise ModelError(
        f"transformers does not know its kind, {kind[:60]!r}{meant}, so its "
        f"size is not known{own if config.get('auto_map') else ''}",
        where=name,
        remedy=f"{install_command('train', 'transformers')} in a version that knows it, or check "
        "model_type in its config.json; for a first idea plan a model of the catalogue that is as "
        "large",
    )


def is_known(kind: str) -> bool:
    """Whether transformers has classes for a `model_type`."""
    return kind in _listed() or kind in _installed()


@cache
def _listed() -> frozenset[str]:
    return frozenset(json.loads(DATA.read_text(encoding="utf-8"))["families"])


@cache
def _installed() -> frozenset[str]:
    """The families that the installed transformers lists, read as text."""
    found = importlib.util.find_spec("transformers")
    if found is None or not found.origin:
        return frozenset()
    kinds: set[str] = set()
    for part in LISTED:
        try:
            text = (Path(found.origin).parent / part).read_text(encoding="utf-8")
        except OSError:
            continue
        kinds |= set(re.findall(r"\(\s*\"([\w.-]+)\",\s*\"\w+Config\"", text))
    return frozenset(kinds)
