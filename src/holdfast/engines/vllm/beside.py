"""Answers with a model in training, by a vLLM that serves its base and its adapter of now.

Before answers are drawn the adapter is written as it is at this step, and loaded into the running
server under a name that tells its content. Prompts go and answers come as token ids, each answer
has a seed of its own, and how it reads is decided by the code of `holdfast.engines.live`, whose
place this takes. What the server thinks of its tokens' probabilities is not asked.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from holdfast import models
from holdfast.config import Sampling
from holdfast.data import chat
from holdfast.endpoint.client import require_packages
from holdfast.engines.live import Asked, Said
from holdfast.engines.reply_text import ThoughtReader, stops_of
from holdfast.engines.vllm.program import find
from holdfast.engines.vllm.questions import Choice, drawn
from holdfast.engines.vllm.server import NoRoom
from holdfast.engines.vllm.serving import Serving
from holdfast.engines.vllm.wanted import Wanted
from holdfast.errors import DoesNotFit, EndpointError, TrainingError
from holdfast.memory.precision import Dtype
from holdfast.models import ModelRef
from holdfast.progress import Silent
from holdfast.progress.stopping import Stop

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

TRAINED = "default"
"""What PEFT and TRL call the adapter that is trained."""


class Beside:
    """A model under training, asked through a server of its own; `close` ends that."""

    def __init__(
        self,
        model: PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        ref: ModelRef,
        dtype: Dtype,
        wanted: Wanted,
        say: Callable[[str], None],
    ) -> None:
        """Find the program; the server is started when something is asked.

        Args:
            model: with its adapters.
            tokenizer: the base's.
            ref: the base, as it is loaded.
            dtype: of the computation.
            wanted: with the server's `place`.
            say: is told what becomes of the server.

        Raises:
            MissingDependency: vLLM, or a package; naming what installs it.
        """
        require_packages()
        self._model, self._tokenizer = model, tokenizer
        program, place = find(wanted.program), wanted.place
        assert place is not None, "a server beside a training has its place"
        device = "cpu" if place.gpu is None else "cuda"
        self._serving = Serving(ref, program, device, dtype, place.rows, wanted)
        self._thoughts = ThoughtReader(tokenizer)
        self._folder = TemporaryDirectory(prefix="holdfast-drawn-")
        self._count, self._told = 0, _Told(say)

    def answers(self, asked: Sequence[Asked], sampling: Sampling) -> list[Said]:
        """One answer for each row, in order, with the adapter as it is now.

        Args:
            asked: rows; see `holdfast.engines.live.Live.answers`.
            sampling: how tokens are chosen; its seed is mixed with question and sample.

        Raises:
            TrainingError: the server does not start, does not stay, or does not take the adapter.
            DoesNotFit: it has no room where it was planned.
        """
        from holdfast.engines.next_token import seed_of

        own = self._model.get_base_model().generation_config
        stops = sorted(chat.stop_ids(self._tokenizer, own))
        questions = []
        for one, ids, sample in asked:
            seed, words = seed_of(sampling.seed, one.id, sample), stops_of(one, sampling)
            questions.append(drawn(ids, sampling, seed, stops, words))
        found: list[list[int]] = [[] for _ in asked]

        def done(place: int, choice: Choice) -> None:
            found[place] = list(map(int, choice["token_ids"]))

        try:
            self._serving.ask(questions, (str(self._written()), 1.0), self._told, done)
        except NoRoom as error:
            raise DoesNotFit(
                f"the vLLM that draws the answers has no room where it was planned: {error}",
                remedy="lower max_new_tokens, free memory or name another GPU; or leave `engine: "
                "vllm` out of the method",
            ) from None
        except EndpointError as error:
            raise TrainingError(
                f"the vLLM that draws the answers failed: {error.message}",
                remedy="the same command goes on from the last complete checkpoint; or leave "
                "`engine: vllm` out of the method",
            ) from None
        return [
            Said(self._thoughts.reply(row, sampling, tokens, stops), tokens)
            for row, tokens in zip(asked, found, strict=True)
        ]

    def close(self) -> None:
        """End the server, and remove the adapters that were written for it."""
        self._serving.close()
        self._folder.cleanup()

    def _written(self) -> Path:
        """The adapter as it is now, in a folder of its own; the one before is removed."""
        models.empty_cache()  # what is cached here the server may need
        last = Path(self._folder.name, str(self._count))
        self._count += 1
        folder = Path(self._folder.name, str(self._count))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Could not find a config file")  # of the base
            self._model.save_pretrained(
                folder, selected_adapters=[TRAINED], save_embedding_layers=False
            )
        shutil.rmtree(last, ignore_errors=True)
        return folder


class _Told(Silent):
    """Passes on what is said; whoever asks to stop is heard when the answers are there."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self.stop = say, Stop()

    def say(self, line: str) -> None:
        """See `Progress.say`."""
        self._say(line)
