"""Replay: mixes in data of the original kind.

A share of the final training set is data of the old kind, interleaved evenly: a file of the user's,
or what the untouched model itself says to prompts made for the purpose (Bianchi et al.,
arXiv:2309.07875: about 3 % safety examples help; too many make the model refuse harmless requests,
hence the everyday half), or dialogues that it writes itself (arXiv:2406.08464, arXiv:2602.20162).
The number of training steps does not grow: what is replayed takes the place of the task's own
examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import Field

from holdfast.methods import REPLAY, DataMethod, MethodContext, SharedWork, _own_answers
from holdfast.methods._bound import beside
from holdfast.methods._own_answers import Pool
from holdfast.types import Example


class Replay(DataMethod):
    """Mix in data of the original kind."""

    options: Options

    class Options(Pool):
        """Settings of ``replay``."""

        share: float = Field(0.05, gt=0, lt=1)
        """Of the final training set."""
        balance: bool = True
        """When the pool has more than is needed, take every category alike."""

    version = "3"
    mixes = True

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        return f"replay ({self.options.share:.0%} {_own_answers.words(self.options)})"

    def mixed(self, context: MethodContext | None = None) -> float:
        """See `Configured.mixed`."""
        return float(self.options.share)

    def check(self, context: MethodContext) -> None:
        """See `DataMethod.check`."""
        _own_answers.check(self.options, context)

    def identity(self) -> Mapping[str, object]:
        """See `DataMethod.identity`."""
        return {
            **_own_answers.identity(self.options),
            "share": self.options.share,
            "balance": self.options.balance,
        }

    def shared(self, context: MethodContext) -> list[SharedWork]:
        """The model's own answers, unless a file holds them."""
        given = self.options
        seen = _own_answers.seen_of(given, context, self.share_so_far(context))
        return _own_answers.shared(given, context, seen, given.balance)

    def apply(
        self, examples: Sequence[Example], context: MethodContext, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """Append as many replayed examples as the share asks for; the pool is reused if small."""
        given = self.options
        pool = _own_answers.read(given, context, made, given.balance)
        share = self.share_so_far(context)
        wanted = beside(len(examples), share)
        seen = _own_answers.seen_of(given, context, share)
        chosen = _own_answers.choose(pool, wanted, REPLAY, given.balance, seen)
        note = f"{wanted} replayed examples from a pool of {len(pool)}"
        if seen is not None and seen < wanted:
            note = f"{given.share:.0%} of what is seen is replayed: {seen} examples"
            note += f" from a pool of {len(pool)}"
            wanted = seen
        if wanted > len(pool):
            note += " (some are repeated)"
        notes = [note, _own_answers.note(given, context, made, given.balance)]
        return [*examples, *chosen], [one for one in notes if one]
