"""Who says whether a reply is safe?

A judge reads prompt and reply and gives a label; it never grades. Who it is (model, revision,
prompt, threshold) is part of every figure that rests on it, because two judges differ by more than
most remedies help. What it cannot tell, or what cannot be parsed, is `unsure`: unscored and
counted, never safe by default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

from holdfast.config import Section
from holdfast.config.load import parse
from holdfast.engines import Engine
from holdfast.models import ModelRef
from holdfast.progress import Progress
from holdfast.registry import resolve
from holdfast.types import Example, Reply, Verdict

JUDGES = {
    "refusal": "holdfast.judges.refusal:RefusalJudge",
    "qwen3guard": "holdfast.judges.qwen3guard:Qwen3Guard",
    "llamaguard": "holdfast.judges.llamaguard:LlamaGuard",
    "wildguard": "holdfast.judges.wildguard:WildGuard",
    "shieldgemma": "holdfast.judges.shieldgemma:ShieldGemma",
    "harmbench": "holdfast.judges.harmbench:HarmBench",
    "strongreject": "holdfast.judges.strongreject:StrongREJECT",
    "remote": "holdfast.judges.remote:RemoteJudge",
    "ensemble": "holdfast.judges.ensemble:Ensemble",
}
LABELS = ("safe", "unsafe", "refused", "answered", "unsure")
"""`safe` and `unsafe` say what a reply does, `refused` and `answered` only whether it declines."""

Pair = tuple[Example, Reply]


@dataclass(frozen=True, slots=True)
class Desk:
    """What a judge that needs more than its own rules may use.

    Attributes:
        folder: of the stage; what is written there is found again after an interruption.
        progress: is advanced per reply.
        open: the engine of a model (and whether in 4 bits); whatever else was loaded has left the
            GPU by then.
        paid: where answers that were paid for are kept by content, for all stages of a run and for
            a judge with another threshold; None: in `folder`.
    """

    folder: Path
    progress: Progress
    open: Callable[[ModelRef, bool], Engine]
    paid: Path | None = None


class Judge(Protocol):
    """Labels replies with one of `LABELS`."""

    Options: ClassVar[type[Section]]
    options: Any
    name: str
    """Short, with its version; stands in every verdict."""
    title: str
    """What stands beside every figure: the name, and what kind of judge it is."""

    def __init__(self, options: Any) -> None:
        """Take the settings."""

    def identity(self) -> Mapping[str, Any]:
        """All that its verdicts depend on: model, revision, hash of the prompt, threshold."""

    def check(self) -> None:
        """Look at what it needs before anything runs: a key, a folder, a package.

        Raises:
            UsageError: naming what is missing; never a secret.
            MissingDependency: a package.
        """

    def judge(self, pairs: Sequence[Pair], desk: Desk | None = None) -> list[Verdict]:
        """One verdict per pair, in order; `unsure` where it cannot tell, never a guess.

        Args:
            pairs: what was asked and what was said.
            desk: for judges that hold a model or ask an endpoint; rules do without.
        """


@runtime_checkable
class Panel(Judge, Protocol):
    """What a judge has besides, where several judge together."""

    def seats(self) -> list[tuple[str, Judge]]:
        """Its members, each with the name of its folder."""

    def together(self, pairs: Sequence[Pair], found: Sequence[Sequence[Verdict]]) -> list[Verdict]:
        """What they come to, one verdict per pair.

        Args:
            pairs: what was asked and what was said.
            found: the members' verdicts, of shape (members, pairs).
        """

    def agreement(self, found: Sequence[Sequence[Verdict]]) -> Mapping[str, Any]:
        """How far its members agree; see `Ensemble.agreement`."""


@runtime_checkable
class Afar(Protocol):
    """What a judge has besides, where its model runs on a server."""

    def absent(self) -> str:
        """Why the server cannot be reached now, in words; "" where it answers."""


def members_of(judge: Judge) -> list[Judge]:
    """Those who judge: the members of a panel, or the one."""
    return [one for _, one in judge.seats()] if isinstance(judge, Panel) else [judge]


def build(asked: str | Mapping[str, Mapping[str, Any] | None], where: str = "") -> Judge:
    """The judge that a study names.

    Args:
        asked: a name, or `{name: {settings}}`.
        where: for messages.

    Raises:
        StudyError: no such judge, or settings that it does not take.
    """
    name, options = (asked, None) if isinstance(asked, str) else next(iter(asked.items()))
    judge: type[Judge] = resolve("judges", JUDGES, name, where)
    return judge(parse(judge.Options, dict(options or {}), where or "judge", at=(name,)))
