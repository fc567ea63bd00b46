"""What if the replies are known beforehand?

An `Engine` without a model, for tests and for looking at a study's plumbing: a function says what
is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from holdfast.engines import Spent
from holdfast.progress import Progress
from holdfast.spec import Sampling
from holdfast.types import Example, Reply

Script = Callable[[Example, str | None, int], str]


class ScriptedEngine:
    """Answers with ``script(example, adapter, sample)``."""

    about = "scripted"

    def __init__(self, script: Script) -> None:
        """Take the script; `calls` counts the examples that were asked."""
        self._script = script
        self.calls = 0
        self.spent = Spent()

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
                Reply(one.id, sample, text := self._script(one, adapter, sample), "stop", len(text))
                for sample in range(sampling.samples)
            ]
            for one in examples
        ]

    def token_nll(self, examples: Sequence[Example]) -> list[list[float]]:
        """A stand-in that prefers short answers: each word costs a hundredth of their number."""
        answers = [(one.target or "").split() for one in examples]
        return [[len(words) / 100] * len(words) + [0.0] for words in answers]
