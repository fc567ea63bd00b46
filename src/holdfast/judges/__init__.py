"""Who says whether a reply is safe: rules, guard models, servers, and several of them together.

A judge reads prompt and reply and gives a label; it never grades. Who it is (model, revision,
prompt, threshold) is part of every figure that rests on it, because two judges differ by more than
most remedies help. What it cannot tell, or what cannot be parsed, is `unsure`: unscored and
counted, never safe by default.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol

from holdfast.config import Section
from holdfast.config.load import parse
from holdfast.engines import Engine
from holdfast.errors import HoldfastError
from holdfast.memory.hardware.devices import GPU
from holdfast.models import ModelRef
from holdfast.progress import Progress
from holdfast.registry import Registry, anchored
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
VOTES: Final = {"safe": "safe", "refused": "safe", "unsafe": "unsafe"}
"""What a label counts as where judges vote; others cast no vote."""
CLIP: Final = 400
"""Characters of what a judge says that are kept for audit."""

Pair = tuple[Example, Reply]


@dataclass(frozen=True, slots=True)
class JudgeContext:
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


@dataclass(frozen=True, slots=True)
class ParsedVerdict:
    """What a judge's words were read as; without a label nothing could be read.

    Attributes:
        label: one of `LABELS`.
        refused: whether the reply declines; None: the judge does not say.
        category: the hazard that it names, in its own words.
        confidence: 0 to 1, by its own account.
        labels: see `Verdict.labels`.
    """

    label: str = "unsure"
    refused: bool | None = None
    category: str = ""
    confidence: float = 1.0
    labels: Mapping[str, str] = field(default_factory=dict)


class JudgeModel(Protocol):
    """The language model behind a judge, as a study handles it; `_guard.Guard` is one."""

    def identity(self) -> Mapping[str, object]:
        """All that its verdicts depend on."""

    def check(self) -> None:
        """Look at a local folder before anything runs."""

    def takes(self) -> int:
        """Bytes that it takes for one reply, by its config alone."""

    def needs(self, gpus: Sequence[GPU]) -> float:
        """GiB that it takes on these GPUs for one reply."""


class Judge(ABC):
    """Labels replies with one of `LABELS`. `judge` must be written; the rest has a default.

    Attributes:
        Options: the settings that a study may give.
        version: raised whenever the same reply would get another label.
        only_declines: its labels say whether a reply declines, and nothing of what is safe.
        remote: its model runs on a server, which may not be up yet (see `absent`).
        plugin: the name that it is registered under.
        code: a hash of its file, where it is a class in a file of the user's; else "".
        name: short, with its version; stands in every verdict. Left out: plugin and version.
        title: what stands beside every figure: the name, and what kind of judge it is. Left out:
            the name.
        guard: the model that judges, loaded when it is needed; None: rules, or a server.
        options: the values of `Options`.
    """

    Options: ClassVar[type[Section]] = Section
    version: ClassVar[str] = "1"
    only_declines: ClassVar[bool] = False
    remote: ClassVar[bool] = False
    plugin: str = ""
    code: str = ""
    name: str = ""
    title: str = ""
    guard: JudgeModel | None = None
    options: Any = None

    def __init__(self, options: Any = None) -> None:
        """Take the settings; None: the defaults."""
        self.options = self.Options() if options is None else options

    @abstractmethod
    def judge(self, pairs: Sequence[Pair], context: JudgeContext | None = None) -> list[Verdict]:
        """One verdict per pair, in order; `unsure` where it cannot tell, never a guess.

        Args:
            pairs: what was asked and what was said.
            context: for judges that hold a model or ask an endpoint; rules do without.
        """

    def identity(self) -> Mapping[str, object]:
        """All that its verdicts depend on: model, revision, hash of the prompt, threshold."""
        if self.guard is not None:
            return self.guard.identity()
        return {"judge": self.name, "options": self.options.model_dump(mode="json")}

    def check(self) -> None:
        """Look at what it needs before anything runs: a key, a folder, a package.

        Raises:
            UsageError: naming what is missing; never a secret.
            MissingDependency: a package.
        """
        if self.guard is not None:
            self.guard.check()

    def absent(self) -> str:
        """Why the server of a `remote` judge cannot be reached now; "" where it answers."""
        return ""

    def seats(self) -> list[tuple[str, Judge]]:
        """The judges that decide together, each with the name of its folder; [] for one alone."""
        return []

    def together(self, pairs: Sequence[Pair], found: Sequence[Sequence[Verdict]]) -> list[Verdict]:
        """What several judges come to, one verdict per pair; only of a judge with `seats`.

        Args:
            pairs: what was asked and what was said.
            found: the members' verdicts, of shape (members, pairs).
        """
        raise HoldfastError(f"{self.name} has members and no rule", remedy="write `together`")

    def verdict(self, pair: Pair, parsed: ParsedVerdict, raw: str) -> Verdict:
        """The verdict on one pair, by this judge.

        Args:
            pair: what was asked and what was said.
            parsed: what its words were read as.
            raw: its words, or why it says so; the first `CLIP` characters are kept.
        """
        reply = pair[1]
        return Verdict(
            reply.example_id,
            reply.sample,
            parsed.label,
            self.name,
            raw.strip()[:CLIP],
            0.0 if parsed.label == "unsure" else round(parsed.confidence, 4),
            parsed.refused,
            parsed.category,
            labels=parsed.labels,
        )


REGISTRY: Registry[Judge] = Registry("judges", (Judge,), JUDGES)


def members_of(judge: Judge) -> list[Judge]:
    """Those who judge: the members of several, or the one."""
    return [member for _, member in judge.seats()] or [judge]


def identity_of(judge: Judge) -> dict[str, object]:
    """A judge's identity, with the hash of its file where it comes from one."""
    code = {"code": judge.code} if judge.code else {}
    return {**judge.identity(), **code}


def build(
    asked: str | Mapping[str, Mapping[str, object] | None],
    where: str = "",
    folder: Path | None = None,
) -> Judge:
    """The judge that a study names.

    Args:
        asked: a name, or `{name: {settings}}`; the name may be ``file.py:Class``.
        where: for messages.
        folder: from which the path of a file is taken; None: the working folder.

    Raises:
        StudyError: no such judge, or settings that it does not take.
    """
    name, options = (asked, None) if isinstance(asked, str) else next(iter(asked.items()))
    found = REGISTRY.find(name, where, folder)
    given = anchored(dict(options or {}), folder)  # members of an ensemble may be files too
    made = found.build(parse(found.make.Options, given, where or "judge", at=(name,)))
    made.name = made.name or f"{made.plugin}-{made.version}"
    made.title = made.title or made.name
    return made
