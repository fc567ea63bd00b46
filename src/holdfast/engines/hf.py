"""How does transformers answer many prompts fast?

Prompts are sorted by length, padded on the left and decoded in batches that shrink as answers end
(`holdfast.engines.decode`); a reply does not depend on the batch it was in. The base model is kept
loaded while adapters come and go; *before* is always measured on a model that PEFT has never
wrapped or that it has fully unwrapped.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from holdfast import chat, models
from holdfast.errors import HoldfastError
from holdfast.models import ModelRef
from holdfast.progress import Progress
from holdfast.spec import Sampling
from holdfast.types import Example, Reply

CPU_BATCH = 64
GPU_BATCH = 32


class HFEngine:
    """An `Engine` over ``transformers``."""

    def __init__(
        self,
        ref: ModelRef,
        device: str = "auto",
        bf16: bool | str = "auto",
        nf4: bool = False,
        batch_size: int | None = None,
    ) -> None:
        """Name the model; it is loaded on entry.

        Args:
            ref: the base.
            device: `auto`, `cpu` or `cuda`.
            bf16: see `models.pick_dtype`.
            nf4: load the base in 4 bits, as QLoRA trained on it.
            batch_size: prompts at a time; None: by the device.
        """
        self.ref, self._wanted, self._bf16, self._nf4 = ref, device, bf16, nf4
        self._batch_size = batch_size
        self._base: Any = None
        self._adapter: str | None = None
        self._tuned: Any = None

    def __enter__(self) -> Self:
        """Load tokenizer and weights."""
        self.device = models.pick_device(self._wanted)
        self.tokenizer = models.load_tokenizer(self.ref)
        dtype = models.pick_dtype(self.device, self._bf16)
        self.about = models.describe_device(self.device, dtype) + (", NF4" if self._nf4 else "")
        self._base = models.load_model(self.ref, dtype, self.device, self._nf4).eval()
        self._stops = sorted(chat.stop_ids(self.tokenizer, self._base.generation_config))
        if self._batch_size is None:
            self._batch_size = GPU_BATCH if self.device == "cuda" else CPU_BATCH
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drop the weights and empty the GPU's cache."""
        self._base = self._tuned = self._adapter = None
        gc.collect()
        models.empty_cache()

    def generate(
        self,
        examples: Sequence[Example],
        sampling: Sampling,
        adapter: str | None,
        progress: Progress,
    ) -> list[list[Reply]]:
        """See `Engine.generate`."""
        model = self._model(adapter)
        encoded = [chat.prompt_ids(self.tokenizer, one.messages) for one in examples]
        order = sorted(range(len(examples)), key=lambda i: (-len(encoded[i]), examples[i].id))
        replies: list[list[Reply]] = [[] for _ in examples]
        size = max(1, (self._batch_size or 1) // sampling.samples)
        for start in range(0, len(order), size):
            members = order[start : start + size]
            outputs = self._batch(model, [(examples[i].id, encoded[i]) for i in members], sampling)
            for place, index in enumerate(members):
                first = place * sampling.samples
                for sample, tokens in enumerate(outputs[first : first + sampling.samples]):
                    replies[index].append(self._reply(examples[index].id, sample, tokens))
            progress.advance(len(members))
        return replies

    def mean_nll(self, examples: Sequence[Example]) -> list[float]:
        """See `Engine.mean_nll`; teacher-forced, answer tokens and end of turn only.

        Padding is on the left, so that all answers end together and logits are needed for their
        length only; with a vocabulary of 152k that is what decides the memory.
        """
        import torch

        from holdfast.engines.decode import pad_left

        model = self._model(None)
        stops = frozenset(self._stops)
        rows = [chat.encode(self.tokenizer, one, stops) for one in examples]
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i].ids))
        found = [0.0] * len(rows)
        size = max(1, (self._batch_size or 1) // 4)
        for start in range(0, len(order), size):
            members = [rows[i] for i in order[start : start + size]]
            ids, mask = pad_left(
                [row.ids for row in members], self.tokenizer.pad_token_id, self.device
            )
            answers = [row.cost.supervised for row in members]
            with torch.inference_mode():
                logits = model(
                    ids,
                    attention_mask=mask,
                    position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                    logits_to_keep=max(answers) + 1,
                ).logits
                for row, (index, count) in enumerate(
                    zip(order[start : start + size], answers, strict=True)
                ):
                    loss = torch.nn.functional.cross_entropy(
                        logits[row, -count - 1 : -1].float(), ids[row, -count:]
                    )
                    found[index] = loss.item()
        return found

    def _batch(self, model: Any, asked: Sequence[tuple[str, list[int]]], sampling: Sampling) -> Any:
        """Token ids of the answers to (example id, prompt ids), `samples` per prompt in turn."""
        from holdfast.engines.decode import decode

        rows = [(name, ids, n) for name, ids in asked for n in range(sampling.samples)]
        return decode(
            model,
            [ids for _, ids, _ in rows],
            [_seed(sampling.seed, name, n) for name, _, n in rows],
            sampling,
            self._stops,
            self.tokenizer.pad_token_id,
        )

    def _reply(self, example_id: str, sample: int, tokens: list[int]) -> Reply:
        ended = bool(tokens) and tokens[-1] in self._stops
        text = self.tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True)
        return Reply(example_id, sample, text, "stop" if ended else "length", len(tokens))

    def _model(self, adapter: str | None) -> Any:
        """The base as it is, or wrapped with `adapter`; switches when needed."""
        if adapter == self._adapter:
            return self._tuned if adapter else self._plain()
        if self._tuned is not None:
            self._base, self._tuned, self._adapter = self._tuned.unload(), None, None
        if adapter is None:
            return self._plain()
        from peft import PeftModel

        self._tuned = PeftModel.from_pretrained(self._base, adapter).eval()
        self._adapter = adapter
        return self._tuned

    def _plain(self) -> Any:
        from peft.tuners.tuners_utils import BaseTunerLayer

        if any(isinstance(module, BaseTunerLayer) for module in self._base.modules()):
            raise HoldfastError(
                "the untouched model still carries an adapter; 'before' would be wrong",
                remedy="please report this",
            )
        return self._base


def _seed(seed: int, example_id: str, sample: int) -> int:
    """The seed of one reply: the same in every batch."""
    digest = hashlib.blake2b(f"{seed}:{sample}:{example_id}".encode(), digest_size=7).digest()
    return int.from_bytes(digest)
