"""The replies as the page's browser reads them: an index of all items, and their texts in parts.

The index is in the page. Parts are in it too as long as they are small; all of them lie in files
beside it where they are not, which the page reads one by one when it is served.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from holdfast.analysis.results import ReplyShown, Results
from holdfast.errors import printable

EMBEDDED = 2_000_000
"""Bytes of texts that are put into the page; in the page's words, 2 MB."""
PART = 40
"""Items of a part."""
LONGEST = 20_000
"""Characters of one text that are shown; the rest is counted."""
CHANGES = ("", "lost", "won")
SAME = 0


@dataclass(frozen=True, slots=True)
class Replies:
    """Everything that the browser needs.

    Attributes:
        index: JSON for the page: names, items without texts, and the parts that are embedded.
        parts: JSON of every part, by number.
        items: number of items in all.
        inside: number of items whose texts are in the page.
    """

    index: str
    parts: tuple[str, ...]
    items: int
    inside: int

    @property
    def whole(self) -> bool:
        """Whether the page holds every text, so that nothing has to be beside it."""
        return self.items == self.inside

    def file(self, path: str) -> str | None:
        """A part by its path, ``replies/3.json``; None where there is no such part."""
        return self.files.get(path)

    @property
    def files(self) -> Mapping[str, str]:
        """The parts by the paths at which the page looks for them."""
        return {f"replies/{number}.json": part for number, part in enumerate(self.parts)}


def replies_of(results: Results) -> Replies | None:
    """The results' replies, what changed sides first; None where there are none."""
    if not results.replies:
        return None
    items: dict[tuple[str, str], dict[str, ReplyShown]] = {}
    for one in results.replies:
        items.setdefault((one.task, one.item or one.prompt), {})[one.arm] = one
    arms = list(dict.fromkeys(one.arm for one in results.replies))
    order = sorted(items.values(), key=lambda mine: not any(one.change for one in mine.values()))
    tasks = list(dict.fromkeys(one.task for one in results.replies))
    outcomes = list(dict.fromkeys(one.outcome for one in results.replies))
    groups = list(dict.fromkeys(name for one in results.replies for name in one.groups))
    about = [_about(mine, arms, (tasks, groups, outcomes)) for mine in order]
    parts = tuple(
        as_json([_texts(mine, arms) for mine in order[start : start + PART]])
        for start in range(0, len(order), PART)
    )
    inside, room = 0, EMBEDDED
    while inside < len(parts) and (room := room - len(parts[inside].encode())) >= 0:
        inside += 1
    names = {"arms": arms, "tasks": tasks, "groups": groups, "outcomes": outcomes}
    shown = {key: [printable(str(name)) for name in some] for key, some in names.items()}
    index = as_json({**shown, "part": PART, "items": about})
    embedded = ",".join(parts[:inside])
    whole = f'{index[:-1]},"parts":[{embedded}]}}'
    return Replies(whole, parts, len(order), min(len(order), inside * PART))


def _about(
    mine: Mapping[str, ReplyShown], arms: list[str], names: tuple[list[str], list[str], list[str]]
) -> list[object]:
    """Task, groups, and for each arm its outcome (-1: none) and its change, all by number."""
    tasks, groups, outcomes = names
    one = next(iter(mine.values()))
    return [
        tasks.index(one.task),
        [groups.index(name) for name in one.groups],
        [outcomes.index(mine[arm].outcome) if arm in mine else -1 for arm in arms],
        [CHANGES.index(mine[arm].change) if arm in mine else SAME for arm in arms],
    ]


def _texts(mine: Mapping[str, ReplyShown], arms: list[str]) -> list[object]:
    """The prompt and each arm's reply, each with the number of characters that are left out."""
    one = next(iter(mine.values()))
    return [_cut(one.prompt), [_cut(mine[arm].reply) if arm in mine else None for arm in arms]]


def _cut(text: str) -> list[object]:
    """Harmless to read, and no longer than a person reads."""
    return [printable(text[:LONGEST], keep="\n\t"), max(0, len(text) - LONGEST)]


def as_json(value: object) -> str:
    """JSON that can stand in a page: no tag begins or ends in it."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
