"""Where do tokens come from?

An engine turns prompts into replies. It is a context manager, because it may hold a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from holdfast.config import Sampling
from holdfast.progress import Progress
from holdfast.types import Example, Reply

ENGINES = {
    "hf": "holdfast.engines.hf:HFEngine",
    "remote": "holdfast.engines.remote:RemoteEngine",
}


@dataclass(slots=True)
class Usage:
    """What went through a model.

    Attributes:
        read: tokens of prompts, and of answers that were scored.
        written: tokens generated.
        seconds: that scoring took.
    """

    read: int = 0
    written: int = 0
    seconds: float = 0.0


class Engine(Protocol):
    """Answers prompts with one base model and any of its adapters.

    Attributes:
        about: device and precision in words, known once it is entered.
        usage: is added to with every call.
        answer_folder: of the stage under way. An engine whose every answer is paid for keeps each
            there as it comes, and looks for it again; others ignore it.
    """

    about: str
    usage: Usage
    answer_folder: Path | None

    def __enter__(self) -> Self:
        """Take the device."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the device back."""

    def generate(
        self,
        examples: Sequence[Example],
        sampling: Sampling,
        adapter: str | None,
        progress: Progress,
        scale: float = 1.0,
    ) -> list[list[Reply]]:
        """Answer every example `sampling.samples` times.

        Args:
            examples: their messages are the prompts; ``meta["continue"]`` asks for something else
                than a turn of the assistant (`chat.asked_ids`), and an answer ends before any of
                the texts in ``meta["until"]``.
            sampling: how.
            adapter: folder of the adapter to apply; None asks the plain base model.
            progress: is advanced by one for every example answered.
            scale: share of the adapter's change that is applied.

        Returns:
            One list of replies per example, in the order of `examples`.
        """

    def token_nll(self, examples: Sequence[Example]) -> list[list[float]]:
        """Negative log-likelihood, in nats, of each target's tokens under the plain base.

        Returns:
            One list per example; the last value is that of the end-of-turn token.
        """

    def loglikelihood(
        self, pairs: Sequence[tuple[Example, str]], adapter: str | None, scale: float = 1.0
    ) -> list[tuple[float, bool]]:
        """How likely it is that a text follows a prompt.

        Args:
            pairs: prompts, as for `generate`, each with a text that might follow.
            adapter: see `generate`.
            scale: see `generate`.

        Returns:
            For each pair the log-probability of the text, in nats, all its tokens together, and
            whether each of them is the most likely one.
        """

    def first_token(
        self, examples: Sequence[Example], words: Sequence[str], progress: Progress
    ) -> list[list[float]]:
        """How probable it is that the plain base begins its answer with each of some words.

        Args:
            examples: as for `generate`.
            words: compared by their first tokens, which must differ.
            progress: is advanced by one for every example.

        Returns:
            Probabilities of shape (examples, words), each of the whole vocabulary.

        Raises:
            ModelError: two words begin with the same token.
        """


def mean_nll(engine: Engine, examples: Sequence[Example]) -> list[float]:
    """Mean loss of each target under the plain base, nats per token."""
    return [sum(one) / len(one) for one in engine.token_nll(examples)]
