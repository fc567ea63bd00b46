"""Is the training set known by the same mark however it is computed?"""

from __future__ import annotations

from typing import Any

import pytest

from holdfast.runs import store
from holdfast.study.session import _row
from holdfast.types import Example, Message

TURNS = (Message("system", 'Be "brief".\n'), Message("user", "2 + 2 ≠ \u2028é\t?"))


@pytest.mark.parametrize(
    "more",
    [
        {"target": "4"},
        {"target": ""},
        {"target": None},
        {"target": "4", "extra": {"reasoning_content": "two"}},
        {"target": "4", "tools": ({"name": "add"},)},
        {"messages": (*TURNS, Message("assistant", "4", {"weight": 0})), "target": "5"},
        {"messages": (), "target": "plain text"},
    ],
)
def test_the_quick_mark_is_the_plain_one(more: dict[str, Any]) -> None:
    example = Example(**{"id": 'a"b', "messages": TURNS, **more})
    rows = [example, Example("c", TURNS, "7")]
    assert store.fingerprint_rows(map(_row, rows)) == store.fingerprint(
        [one.content for one in rows]
    )
