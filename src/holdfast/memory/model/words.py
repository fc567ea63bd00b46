"""The short words for `target_modules`, and what tells a pattern from a name."""

from __future__ import annotations

import re
from collections.abc import Mapping

from holdfast.config.patterns import pattern_fault
from holdfast.errors import StudyError

ALL_LINEAR = "all-linear"
PRESETS: Mapping[str, tuple[str, ...]] = {
    "attention": (
        "q_proj", "k_proj", "v_proj", "o_proj", "qkv_proj", "out_proj", "query_key_value", "Wqkv",
        "c_attn", "dense", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj",
        "in_proj_qkvz", "in_proj_ba", "in_proj_qkv", "in_proj_z", "in_proj_a", "in_proj_b",
    ),
    "mlp": (
        "gate_proj", "up_proj", "down_proj", "gate_up_proj", "w1", "w2", "w3", "fc1", "fc2",
        "c_fc", "dense_h_to_4h", "dense_4h_to_h", "input_linear", "output_linear",
    ),
}  # fmt: skip
"""Names of matrices behind the short words for `target_modules`; a model has some of them."""
PATTERN = frozenset("*+?[](){}|^$\\")
"""Characters that make a text a regular expression; a dot alone makes it a dotted name."""


def is_pattern(text: str) -> bool:
    """Whether a text of `target_modules` is a regular expression rather than a name."""
    return bool(PATTERN & set(text))


def compiled(pattern: str) -> re.Pattern[str]:
    """A regular expression of a study.

    Raises:
        StudyError: it is none.
    """
    if why := pattern_fault(pattern):
        raise StudyError(
            f"{pattern[:60]!r} {why}",
            where="target_modules",
            remedy="correct it; a dot that is meant as such is written \\.",
        )
    return re.compile(pattern)
