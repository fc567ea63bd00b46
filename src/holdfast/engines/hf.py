"""How does transformers answer many prompts fast?

Prompts are sorted by length, padded on the left and decoded in batches that shrink as answers end
(`holdfast.engines.decode`); a reply does not depend on the batch it was in, so a batch that does
not fit into memory is asked again in halves. The base model is kept loaded while adapters come and
go; *before* is always measured on a model that PEFT has never wrapped or that it has fully
unwrapped.
"""

from __future__ import annotations

import gc
import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from holdfast import chat, models
from holdfast.chat import Encoded
from holdfast.engines import Spent
from holdfast.errors import HoldfastError
from holdfast.memory.drill import Drill
from holdfast.memory.exhausted import event, free, given_up, is_out_of_memory, loading, seen
from holdfast.models import ModelRef
from holdfast.progress import Progress
from holdfast.spec import Sampling
from holdfast.types import Example, Reply

CPU_BATCH = 64
GPU_BATCH = 32
NLL_SHARE = 4
"""Into how many the batch is cut where logits are needed for every token of an answer."""

Say = Callable[[str], None]
Asked = tuple[str, list[int], int]
"""One row: example id, prompt ids, number of the sample."""


class HFEngine:
    """An `Engine` over ``transformers``.

    Attributes:
        about: device and precision in words.
        events: one mapping per batch that did not fit into memory (`memory.exhausted.event`).
    """

    def __init__(
        self,
        ref: ModelRef,
        device: str = "auto",
        bf16: bool | str = "auto",
        nf4: bool = False,
        batch_size: int | None = None,
        device_map: Mapping[str, int | str] | None = None,
    ) -> None:
        """Name the model; it is loaded on entry.

        Args:
            ref: the base.
            device: `auto`, `cpu` or `cuda`.
            bf16: see `models.pick_dtype`.
            nf4: load the base in 4 bits, as QLoRA trained on it.
            batch_size: prompts at a time; None: by the device.
            device_map: module name to GPU, for a model that no single GPU holds.
        """
        self.ref, self._wanted, self._bf16, self._nf4 = ref, device, bf16, nf4
        self._batch_size, self._map = batch_size, device_map
        self.events: list[dict[str, Any]] = []
        self.spent = Spent()
        self._most: dict[str, int] = {}  # rows at a time since the last failure, by kind of work
        self._drill = Drill.from_environment()
        self._base: Any = None
        self._adapter: tuple[str, float] | None = None
        self._tuned: Any = None

    def __enter__(self) -> Self:
        """Load tokenizer and weights.

        Raises:
            OutOfMemory: they do not fit.
        """
        self.device = models.pick_device(self._wanted)
        self.tokenizer = models.load_tokenizer(self.ref)
        dtype = models.pick_dtype(self.device, self._bf16)
        self.about = models.describe_device(self.device, dtype) + (", NF4" if self._nf4 else "")
        with loading():
            self._base = models.load_model(
                self.ref, dtype, self.device, self._nf4, self._map
            ).eval()
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
        scale: float = 1.0,
    ) -> list[list[Reply]]:
        """See `Engine.generate`.

        Raises:
            OutOfMemory: one prompt does not fit.
        """
        model = self._model(adapter, scale)
        encoded = [chat.asked_ids(self.tokenizer, one) for one in examples]
        order = sorted(range(len(examples)), key=lambda i: (-len(encoded[i]), examples[i].id))
        samples = sampling.samples
        rows = [(examples[i].id, encoded[i], n) for i in order for n in range(samples)]
        size = max(1, (self._batch_size or 1) // samples) * samples
        self.spent.read += samples * sum(map(len, encoded))
        replies: list[list[Reply]] = [[] for _ in examples]
        done = 0
        for answers in self._in_batches(
            "generate", rows, size, lambda batch: self._batch(model, batch, sampling), progress.say
        ):
            self.spent.written += sum(map(len, answers))
            for row, tokens in enumerate(answers, start=done):
                name, _, sample = rows[row]
                replies[order[row // samples]].append(self._reply(name, sample, tokens))
            before, done = done, done + len(answers)
            progress.advance(done // samples - before // samples)
        return replies

    def token_nll(self, examples: Sequence[Example]) -> list[list[float]]:
        """See `Engine.token_nll`; teacher-forced, answer tokens and end of turn only.

        Raises:
            OutOfMemory: one example does not fit.
        """
        model = self._model(None)
        stops = frozenset(self._stops)
        encoded = [chat.encode(self.tokenizer, one, stops) for one in examples]
        order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i].ids))
        rows = [encoded[i] for i in order]
        self.spent.read += sum(len(row.ids) for row in rows)
        size = max(1, (self._batch_size or 1) // NLL_SHARE)
        say = logging.getLogger(__name__).warning
        losses = [
            loss
            for some in self._in_batches("nll", rows, size, lambda b: self._nll(model, b), say)
            for loss in some
        ]
        found: list[list[float]] = [[]] * len(rows)
        for index, loss in zip(order, losses, strict=True):
            found[index] = loss
        return found

    def _in_batches(
        self, kind: str, rows: Sequence[Any], size: int, work: Callable[[Any], Any], say: Say
    ) -> Iterator[Any]:
        """What `work` makes of the rows, at most `size` at a time, in order.

        A batch that does not fit is done again in halves, and so are those to come; what is done
        stays done.

        Raises:
            OutOfMemory: one row does not fit.
        """
        start = 0
        while start < len(rows):
            batch = rows[start : start + min(size, self._most.get(kind, size))]
            try:
                done, failure = work(batch), None
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                done, failure = None, seen(error)
            if failure is None:
                yield done
                start += len(batch)
                continue
            free()  # outside the except block: the traceback pins tensors
            half = len(batch) // 2 or None
            self.events.append(event("answer", None, len(batch), half, failure))
            if half is None:
                raise given_up("answer", "one prompt does not fit", failure)
            self._most[kind] = half
            say(f"out of memory with {len(batch)} prompts at a time; going on with {half}")

    def _batch(self, model: Any, rows: Sequence[Asked], sampling: Sampling) -> list[list[int]]:
        """Token ids of one answer for each row."""
        from holdfast.engines.decode import decode

        width = max(len(ids) for _, ids, _ in rows) + sampling.max_new_tokens
        self._drill.at("answer", len(rows) * width)
        return decode(
            model,
            [ids for _, ids, _ in rows],
            [_seed(sampling.seed, name, n) for name, _, n in rows],
            sampling,
            self._stops,
            self.tokenizer.pad_token_id,
        )

    def _nll(self, model: Any, rows: Sequence[Encoded]) -> list[list[float]]:
        """Loss of each token of each row's answer.

        Padding is on the left, so that all answers end together and logits are needed for their
        length only; with a vocabulary of 152k that is what decides the memory.
        """
        import torch

        from holdfast.engines.decode import pad_left

        self._drill.at("answer", len(rows) * max(len(row.ids) for row in rows))
        ids, mask = pad_left([row.ids for row in rows], self.tokenizer.pad_token_id, self.device)
        counts = [row.cost.supervised for row in rows]
        with torch.inference_mode():
            logits = model(
                ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                logits_to_keep=max(counts) + 1,
            ).logits
            return [
                torch.nn.functional.cross_entropy(
                    logits[row, -count - 1 : -1].float(), ids[row, -count:], reduction="none"
                ).tolist()
                for row, count in enumerate(counts)
            ]

    def _reply(self, example_id: str, sample: int, tokens: list[int]) -> Reply:
        ended = bool(tokens) and tokens[-1] in self._stops
        text = self.tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True)
        return Reply(example_id, sample, text, "stop" if ended else "length", len(tokens))

    def _model(self, adapter: str | None, scale: float = 1.0) -> Any:
        """The base as it is, or wrapped with a share of `adapter`; switches when needed."""
        wanted = (adapter, scale) if adapter else None
        if wanted == self._adapter:
            return self._tuned if adapter else self._plain()
        if self._tuned is not None:
            self._base, self._tuned, self._adapter = self._tuned.unload(), None, None
        if adapter is None:
            return self._plain()
        from peft import PeftModel

        with loading():
            self._tuned = PeftModel.from_pretrained(self._base, adapter).eval()
        if scale != 1:
            scale_adapter(self._tuned, scale)
        self._adapter = wanted
        return self._tuned

    def _plain(self) -> Any:
        from peft.tuners.tuners_utils import BaseTunerLayer

        if any(isinstance(module, BaseTunerLayer) for module in self._base.modules()):
            raise HoldfastError(
                "the untouched model still carries an adapter; 'before' would be wrong",
                remedy="please report this",
            )
        return self._base


def scale_adapter(model: Any, factor: float) -> None:
    """Apply a share of an adapter's change: W + factor · ΔW (WiSE-FT, arXiv:2109.01903).

    Args:
        model: a PEFT model whose adapters add to the weights (LoRA, rank-stabilised LoRA).
        factor: 0 is the base, 1 the model as it was trained.

    Raises:
        HoldfastError: the adapters do not add, so that a share of them is no interpolation.
    """
    from peft.tuners.lora import LoraLayer
    from peft.tuners.tuners_utils import BaseTunerLayer

    for module in model.modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        if not isinstance(module, LoraLayer) or any(module.use_dora.values()):
            raise HoldfastError(
                "only a share of LoRA's change can be applied",
                remedy="use train.lora.variant lora or rslora, or leave `scale` out",
            )
        module.scale_layer(factor)


def _seed(seed: int, example_id: str, sample: int) -> int:
    """The seed of one reply: the same in every batch."""
    digest = hashlib.blake2b(f"{seed}:{sample}:{example_id}".encode(), digest_size=7).digest()
    return int.from_bytes(digest)
