"""Where do tokens come from?

An engine turns prompts into replies. It is a context manager, because it may hold a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from holdfast.progress import Progress
from holdfast.spec import Sampling
from holdfast.types import Example, Reply

ENGINES = {"hf": "holdfast.engines.hf:HFEngine"}


class Engine(Protocol):
    """Answers prompts with one base model and any of its adapters.

    Attributes:
        about: device and precision in words, known once it is entered.
    """

    about: str

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
    ) -> list[list[Reply]]:
        """Answer every example `sampling.samples` times.

        Args:
            examples: their messages are the prompts.
            sampling: how.
            adapter: folder of the adapter to apply; None asks the plain base model.
            progress: is advanced by one for every example answered.

        Returns:
            One list of replies per example, in the order of `examples`.
        """

    def mean_nll(self, examples: Sequence[Example]) -> list[float]:
        """Mean negative log-likelihood, in nats per token, of each target under the plain base."""
