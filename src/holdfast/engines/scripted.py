"""Answers with replies that are known beforehand.

An `Engine` without a model, for tests and for looking at a study's plumbing: a function says what
is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from holdfast.config import Sampling
from holdfast.engines import Engine, Usage
from holdfast.engines.reply_text import cut
from holdfast.progress import Progress
from holdfast.types import Example, Reply

Script = Callable[[Example, str | None, int], str]


class ScriptedEngine(Engine):
    """Answers with ``script(example, adapter, sample)``."""

    about = "scripted"

    def __init__(self, script: Script) -> None:
        """Take the script; `calls` counts the examples that were asked."""
        self._script = script
        self.calls = 0
        self.usage = Usage()
        self.answer_folder: Path | None = None

    def __enter__(self) -> Self:
        """Nothing to load."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to free."""

    def generate(
        self,
        examples: Sequence[Example],
        sampling: Sampling,
        adapter: str | None,
        progress: Progress,
        scale: float = 1.0,
    ) -> list[list[Reply]]:
        """See `Engine.generate`."""
        self.calls += len(examples)
        progress.advance(len(examples))
        return [
            [
                Reply(
                    example.id,
                    sample,
                    text := cut(self._script(example, adapter, sample), sampling.stop),
                    "stop",
                    len(text),
                )
                for sample in range(sampling.samples)
            ]
            for example in examples
        ]

    def token_nll(self, examples: Sequence[Example]) -> list[list[float]]:
        """A stand-in that prefers short answers: each word costs a hundredth of their number."""
        answers = [(one.target or "").split() for one in examples]
        return [[len(words) / 100] * len(words) + [0.0] for words in answers]

    def loglikelihood(
        self, pairs: Sequence[tuple[Example, str]], adapter: str | None, scale: float = 1.0
    ) -> list[tuple[float, bool]]:
        """Certain of the text that is the scripted answer; others cost a nat per letter."""
        self.calls += len(pairs)
        said = [
            self._script(example, adapter, 0).strip() == text.strip() for example, text in pairs
        ]
        return [
            (0.0, True) if same else (-float(len(text)), False)
            for same, (_, text) in zip(said, pairs, strict=True)
        ]

    def first_token(
        self, examples: Sequence[Example], words: Sequence[str], progress: Progress
    ) -> list[list[float]]:
        """Certain of the word that the scripted answer begins with; of none where of none."""
        self.calls += len(examples)
        progress.advance(len(examples))
        said = [self._script(one, None, 0) for one in examples]
        return [[float(text.startswith(word)) for word in words] for text in said]
