"""Loads and asks a guard: a language model with a prompt of its own that judges replies.

Question and reply go in (`_prompts`), a few words or the probability of one come out, and a parser
in the file of each judge reads them. What cannot be parsed is `unsure`. The guard is loaded when it
is first needed, after whatever was on the GPU has left it, in bfloat16 there or, if asked for, in 4
bits; how the study trains plays no part. What it says is written down in chunks, so that an
interrupted stage goes on where it was.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from holdfast import models
from holdfast.config import Sampling, Section
from holdfast.engines import Engine
from holdfast.engines.chunks import in_chunks
from holdfast.engines.resumable import answering
from holdfast.errors import ModelError, UsageError
from holdfast.judges import JudgeContext, Pair
from holdfast.judges._prompts import Asked
from holdfast.memory.hardware.devices import GPU
from holdfast.memory.memory_plan import GIB
from holdfast.memory.model.reading import read_shape
from holdfast.memory.planner.inference import answering_bytes, longest
from holdfast.memory.precision import Dtype
from holdfast.models import ModelRef, files
from holdfast.models.precision import decide
from holdfast.runs import store
from holdfast.types import Example, Reply


class GuardOptions(Section):
    """What every judge that is a model takes."""

    model: str
    """Hub id or local folder."""
    revision: str | None = None
    """Branch, tag or commit on the hub; name one, so that the judge stays the same."""
    quantize: Literal["none", "nf4"] = "none"
    """`nf4` loads the judge in 4 bits: less memory, and other verdicts now and then."""
    max_new_tokens: int = Field(64, ge=1)
    """Longest thing it may say, in tokens."""


class Guard:
    """A model that judges, with its identity."""

    def __init__(self, name: str, options: GuardOptions, prompt: str, chats: bool) -> None:
        """Describe it; nothing is loaded.

        Args:
            name: of the judge, with its version.
            options: which model, and how.
            prompt: the text around question and reply; "" where it is the model's own template.
            chats: it is asked through its chat template.
        """
        self.name, self.options, self.prompt, self._chats = name, options, prompt, chats

    @cached_property
    def _folder(self) -> Path | None:
        """Where the weights lie, when not on the hub."""
        model = Path(self.options.model).expanduser()
        return model if self.options.model.startswith((".", "/", "~")) or model.is_dir() else None

    @property
    def ref(self) -> ModelRef:
        """Which weights."""
        if self._folder is not None:
            return ModelRef(str(self._folder))
        return ModelRef(self.options.model, self.options.revision)

    @cached_property
    def _identity(self) -> Mapping[str, Any]:
        settings = self.options.model_dump(mode="json", exclude={"model", "revision"})
        prompt = store.fingerprint(self.prompt) if self.prompt else "the model's own template"
        return {
            "judge": self.name,
            "model": models.identity(self.ref),
            "prompt": prompt,
            **settings,
        }

    def identity(self) -> dict[str, object]:
        """All that its verdicts depend on; hashes a local folder once."""
        return dict(self._identity)

    def title(self, *settings: str) -> str:
        """What stands beside every figure."""
        if self._folder is None:
            revision = self.options.revision
            model = f"{self.options.model}@{revision[:12]}" if revision else self.options.model
        else:
            model = f"{self._folder.name} {self._identity['model'].get('sha256', '')[:8]}".strip()
        words = [model, *filter(None, settings)]
        words += ["NF4"] if self.options.quantize == "nf4" else []
        return f"{self.name} ({', '.join(words)})"

    def takes(self, dtype: Dtype = "bfloat16") -> int:
        """Bytes for one reply; its config.json is read, nothing else.

        Raises:
            ModelError: no such model, or it cannot be reached.
        """
        shape = read_shape(self.ref.base, self.ref.revision)
        tokens = longest(shape, self.options.max_new_tokens)
        return answering_bytes(shape, self.options.quantize == "nf4", tokens, dtype)

    def needs(self, gpus: Sequence[GPU]) -> float:
        """Look at its tokenizer and its size before any reply is generated, also on the hub.

        Args:
            gpus: that are there; none: the CPU, whose memory is not looked at.

        Returns:
            GiB that it takes for one reply.

        Raises:
            ModelError: it is not there, may not be had, or does not fit.
        """
        models.load_tokenizer(self.ref, self._chats)
        size = self.takes(decide("cuda", [self.ref], gpus=gpus).dtype if gpus else "bfloat16")
        free = sum(gpu.free_bytes for gpu in gpus if not gpu.mig)
        if gpus and size > free:
            raise ModelError(
                f"the judge needs {size / GIB:.1f} GiB, and the GPUs have {free / GIB:.1f} free",
                where=self.title(),
                remedy="load it in 4 bits (quantize: nf4), take a smaller one, or serve it "
                "elsewhere (judge: {remote: ...})",
            )
        return size / GIB

    def check(self) -> None:
        """Look at a local folder; a model on the hub is looked at when the run begins (`needs`).

        Raises:
            ModelError: the folder lacks something.
        """
        if self._folder is not None:
            files.check_folder(self._folder, self._chats)

    def said(
        self, pairs: Sequence[Pair], asked: Sequence[Asked], context: JudgeContext | None
    ) -> list[str]:
        """What the guard says to each, greedily; kept in ``said.jsonl``.

        Args:
            pairs: what was asked and what was said.
            asked: one for each pair.
            context: lends the engine and the folder.

        Raises:
            UsageError: no context, so no model can be loaded.
        """
        context = self._needed(context)
        sampling = Sampling(max_new_tokens=self.options.max_new_tokens)
        replies = in_chunks(
            answering(lambda: self._engine(context), sampling, context.folder, context.progress),
            _examples(pairs, asked, self.name),
            context.folder,
            context.progress,
            "said.jsonl",
        )
        return [reply.text for reply in replies]

    def chances(
        self,
        pairs: Sequence[Pair],
        asked: Sequence[Asked],
        words: Sequence[str],
        context: JudgeContext | None,
        name: str = "chances.jsonl",
    ) -> list[list[float]]:
        """How probable each word is as the first that the guard says, of shape (asked, words).

        Args:
            pairs: one for each of `asked`.
            asked: how the guard is asked.
            words: see `Engine.first_token`.
            context: lends the engine and the folder.
            name: of the file that keeps them.

        Raises:
            UsageError: no context, so no model can be loaded.
        """
        context = self._needed(context)

        def work(some: Sequence[Example]) -> list[list[Reply]]:
            found = self._engine(context).first_token(some, words, context.progress)
            return [
                [Reply(example.id, 0, json.dumps(values), "stop", 1)]
                for example, values in zip(some, found, strict=True)
            ]

        replies = in_chunks(
            work, _examples(pairs, asked, self.name), context.folder, context.progress, name
        )
        return [json.loads(reply.text) for reply in replies]

    def _engine(self, context: JudgeContext) -> Engine:
        return context.open(self.ref, self.options.quantize == "nf4")

    def _needed(self, context: JudgeContext | None) -> JudgeContext:
        if context is None:
            raise UsageError(
                f"the judge {self.name} needs a model, and there is nothing to load it with",
                remedy="judge within a study, or use the judge `refusal`",
            )
        return context


def _examples(pairs: Sequence[Pair], asked: Sequence[Asked], name: str) -> list[Example]:
    return [
        Example(
            f"{reply.example_id}#{reply.sample}/{place}",
            one.messages,
            source=name,
            meta={} if one.form == "chat" else {"continue": one.form},
        )
        for place, ((_, reply), one) in enumerate(zip(pairs, asked, strict=True))
    ]
