"""Replay: what if some of the original kind of data is mixed in?

A share of the final training set is data of the old kind, interleaved evenly: a file of the user's,
or refusals and everyday answers that the untouched model itself gives to prompts made for the
purpose (Bianchi et al., arXiv:2309.07875: about 3 % safety examples help; too many make the model
refuse harmless requests, hence the everyday half). The number of training steps does not grow: what
is replayed takes the place of the task's own examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from holdfast import store
from holdfast.asking import ask
from holdfast.errors import DataError
from holdfast.judges import build as build_judge
from holdfast.methods import EXAMPLES, Entry, Setting, Shared
from holdfast.progress import Progress
from holdfast.spec import Sampling, Section
from holdfast.tasks.jsonl import conversation
from holdfast.types import Example, Message

PROMPTS = {
    "builtin": "holdfast.methods.replay_prompts:prompts",
    "lab": "holdfast.lab.tasks:prompts",
}
KIND = "replay"


class Replay:
    """Mix in data of the original kind."""

    class Options(Section):
        """Settings of ``replay``."""

        share: float = Field(0.05, gt=0, lt=1)
        """Of the final training set."""
        source: Literal["both", "refusals", "everyday", "file"] = "both"
        """`both`, `refusals`, `everyday`: answers of the untouched model; `file`: yours."""
        path: str | None = None
        """For `file`: a jsonl with prompts and answers, in any form the task `jsonl` reads."""
        prompts: Literal["builtin", "lab"] = "builtin"
        """Where the prompts for the model's own answers come from."""
        pool: int = Field(400, ge=2)
        """How many prompts the model answers, at most."""
        max_new_tokens: int = Field(256, ge=1)
        """Longest answer of the model; unfinished ones are left out."""

        @model_validator(mode="after")
        def _path(self) -> Self:
            if (self.source == "file") != (self.path is not None):
                raise ValueError("`path` goes with `source: file`, and only with it")
            return self

    entry: ClassVar[Entry] = "data"
    version: ClassVar[str] = "1"
    mixes: ClassVar[bool] = True

    def __init__(self, options: Options) -> None:
        """Take the settings."""
        self.options = options

    def recipe(self) -> str:
        """See `DataMethod.recipe`."""
        what = {
            "both": "the model's own refusals and everyday answers",
            "refusals": "the model's own refusals",
            "everyday": "the model's own everyday answers",
            "file": f"examples from {self.options.path}",
        }[self.options.source]
        return f"replay ({self.options.share:.0%} {what})"

    def check(self, setting: Setting) -> None:
        """See `DataMethod.check`."""
        if self.options.source == "file":
            setting.leaks.refuse(self._file(), str(self.options.path))

    def identity(self) -> Mapping[str, Any]:
        """See `DataMethod.identity`."""
        found = self.options.model_dump(exclude={"path"})
        if self.options.source == "file":
            found["file"] = store.fingerprint([asdict(one) for one in self._file()])
        return found

    def shared(self, setting: Setting) -> list[Shared]:
        """The model's own answers, unless a file holds them."""
        if self.options.source == "file":
            return []
        identity = {
            "method": "replay",
            "version": self.version,
            "options": self.options.model_dump(exclude={"share", "path"}),
            "judge": build_judge("refusal").name,
            "seed": setting.seed,
        }
        return [
            Shared(
                self._name(setting), identity, lambda folder, bar: self._make(setting, folder, bar)
            )
        ]

    def apply(
        self, examples: Sequence[Example], setting: Setting, made: Mapping[str, Path]
    ) -> tuple[list[Example], list[str]]:
        """Append as many replayed examples as the share asks for; the pool is reused if small."""
        if self.options.source == "file":
            pool = self._file()
        else:
            pool = store.read_jsonl(made[self._name(setting)] / EXAMPLES, Example)
        if not pool:
            raise DataError(
                "there is nothing to replay: no usable answer was found",
                remedy="use `source: file` with examples of the old kind",
            )
        share = self.options.share
        wanted = max(1, round(len(examples) * share / (1 - share)))
        chosen = [
            Example(f"replay-{i}", one.messages, one.target, one.source, {**one.meta, "kind": KIND})
            for i in range(wanted)
            for one in [pool[i % len(pool)]]
        ]
        note = f"{wanted} replayed examples from a pool of {len(pool)}"
        if wanted > len(pool):
            note += " (some are repeated)"
        return [*examples, *chosen], [note]

    def _name(self, setting: Setting) -> str:
        key = [self.options.model_dump(exclude={"share"}), setting.seed]
        return f"replay-{self.options.source}-{store.fingerprint(key)[:6]}"

    def _make(self, setting: Setting, folder: Path, progress: Progress) -> Mapping[str, Any]:
        """Ask the base, keep finished answers of the expected kind, refusals and help in turn."""
        module, _, name = PROMPTS[self.options.prompts].partition(":")
        make = getattr(import_module(module), name)
        kinds = {"both": (True, False), "refusals": (True,), "everyday": (False,)}
        kept: dict[bool, list[Example]] = {}
        asked_in_all = 0
        for declined in kinds[self.options.source]:
            count = self.options.pool // len(kinds[self.options.source])
            asked = [
                Example(
                    f"{'declined' if declined else 'helped'}-{number}",
                    (Message("user", text),),
                    meta={"category": category},
                )
                for number, (category, text) in enumerate(make(count, declined, setting.seed))
            ]
            asked = [one for one in asked if setting.leaks.find(one) is None]
            asked_in_all += len(asked)
            kept[declined] = self._answered(setting, asked, declined, folder, progress)
        pool = [one for pair in _zip_longest(list(kept.values())) for one in pair]
        store.write_jsonl(folder / EXAMPLES, pool)
        return {"asked": asked_in_all, "kept": {str(key): len(one) for key, one in kept.items()}}

    def _answered(
        self,
        setting: Setting,
        asked: Sequence[Example],
        declined: bool,
        folder: Path,
        progress: Progress,
    ) -> list[Example]:
        sampling = Sampling(max_new_tokens=self.options.max_new_tokens)
        name = f"replies-{'declined' if declined else 'helped'}.jsonl"
        replies = ask(setting.engine, asked, sampling, None, folder, progress, name)
        pairs = [(one, reply) for one, reply in zip(asked, replies, strict=True)]
        verdicts = build_judge("refusal").judge(pairs)
        wanted = "refused" if declined else "answered"
        source = "own refusal" if declined else "own everyday answer"
        return [
            Example(one.id, one.messages, reply.text.strip(), source, one.meta)
            for (one, reply), verdict in zip(pairs, verdicts, strict=True)
            if verdict.label == wanted and reply.finish == "stop" and reply.text.strip()
        ]

    def _file(self) -> list[Example]:
        file = Path(self.options.path or "").expanduser()
        found = []
        for number, row in store.read_objects(file):
            where = f"{file}:{number}"
            messages, target = conversation(row, where)
            if target is None:
                raise DataError("has no answer to replay", where=where, remedy="add one")
            found.append(Example(f"file-{number}", messages, target, file.name))
        return found


def _zip_longest(lists: Sequence[Sequence[Example]]) -> list[list[Example]]:
    length = max((len(one) for one in lists), default=0)
    return [[one[i] for one in lists if i < len(one)] for i in range(length)]
