"""Engines turn prompts into replies; each is a context manager, because it may hold a GPU."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from holdfast.config import Sampling
from holdfast.errors import ModelError
from holdfast.models import ModelRef
from holdfast.progress import Progress
from holdfast.registry import Registry
from holdfast.types import Example, Reply

ENGINES = {
    "hf": "holdfast.engines.hf:HFEngine",
    "remote": "holdfast.engines.remote:RemoteEngine",
    "vllm": "holdfast.engines.vllm:VLLMEngine",
}
FROM_FILES = ("hf", "vllm")
"""Engines that answer with the weights that a study names, in the precision that it decides."""


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


@dataclass(frozen=True, slots=True)
class TextLoss:
    """What a model makes of a text.

    Attributes:
        nats: negative log-likelihood of all its tokens.
        tokens: that were scored; all of the text.
        unknown: of them that stand for characters which the tokenizer does not know.
    """

    nats: float
    tokens: int
    unknown: int


class Engine(ABC):
    """Answers prompts with one base model and any of its adapters.

    `generate` must be written; an engine that cannot score text leaves the other questions out, and
    they are refused in words.

    Attributes:
        version: raised whenever the same prompts would get other replies.
        plugin: the name that it is registered under.
        code: a hash of its file, where it is a class in a file of the user's; else "".
        about: device and precision in words, known once it is entered.
        usage: is added to with every call.
        answer_folder: of the stage under way. An engine whose answers take money or time keeps each
            there as it comes, and looks for it again; others ignore it.
        answered: told of an example when its replies are all there and in `usage`; what it was not
            told of is asked again after an interruption. None: nobody listens.
    """

    version: ClassVar[str] = "1"
    plugin: str = ""
    code: str = ""
    about: str = ""
    usage: Usage
    answer_folder: Path | None = None
    answered: Callable[[Example, list[Reply]], None] | None = None

    def __init__(
        self,
        ref: ModelRef,
        device: str = "auto",
        dtype: str = "auto",
        nf4: bool = False,
        batch_size: int | None = None,
        device_map: Mapping[str, int | str] | None = None,
    ) -> None:
        """Name the model; it is loaded on entry.

        Args:
            ref: the base.
            device: `auto`, `cpu` or `cuda`.
            dtype: `bfloat16`, `float16` or `float32`; `auto`: what suits device and model.
            nf4: load the base in 4 bits.
            batch_size: prompts at a time; None: as suits the device.
            device_map: module name to GPU, for a model that no single GPU holds.
        """
        self.ref, self.device, self.dtype, self.nf4 = ref, device, dtype, nf4
        self.batch_size, self.device_map = batch_size, device_map
        self.usage = Usage()

    def __enter__(self) -> Self:
        """Take the device; by default there is nothing to take."""
        return self

    def __exit__(  # noqa: B027  # a default, no duty
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the device back; by default there is nothing to give."""

    @abstractmethod
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

        Raises:
            ModelError: this engine cannot.
        """
        raise self._cannot("token_nll", "say how likely a given text is (perplexity, drift, KL)")

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

        Raises:
            ModelError: this engine cannot.
        """
        raise self._cannot("loglikelihood", "say how likely a given text is (multiple choice)")

    def text_nll(
        self,
        texts: Sequence[str],
        window: int | None,
        stride: int | None,
        adapter: str | None,
        scale: float = 1.0,
    ) -> list[TextLoss]:
        """How likely whole texts are, without a chat template.

        Args:
            texts: none of them empty.
            window: tokens that are read at a time; see `windows.fitted`.
            stride: of them that are new.
            adapter: see `generate`.
            scale: see `generate`.

        Raises:
            StudyError: a window longer than the model reads.
            ModelError: this engine cannot.
        """
        raise self._cannot("text_nll", "say how likely a whole text is (bits per byte)")

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
            ModelError: two words begin with the same token, or this engine cannot.
        """
        raise self._cannot("first_token", "say how likely a first word is (a judge's threshold)")

    def _cannot(self, member: str, what: str) -> ModelError:
        return ModelError(
            f"the engine {self.plugin} cannot {what}",
            where=f"answer.engine: {self.plugin}",
            remedy=f"use `engine: hf`, leave that measure out, or write {member} in the engine",
        )


REGISTRY: Registry[Engine] = Registry("engines", (Engine,), ENGINES)


def identity_of(name: str, folder: Path | None = None) -> object:
    """An engine as it stands in a stage's identity.

    Args:
        name: as a study gives it.
        folder: see `Registry.find`.

    Returns:
        Its name; of one in a user's file also version and the file's hash.
    """
    found = REGISTRY.find(name, "answer.engine", folder)
    return [found.name, found.make.version, found.code] if found.code else found.name


def mean_nll(engine: Engine, examples: Sequence[Example]) -> list[float]:
    """Mean loss of each target under the plain base, nats per token."""
    return [sum(one) / len(one) for one in engine.token_nll(examples)]
