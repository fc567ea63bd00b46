"""Generates the answers of a batch with transformers' own loop, for models that need it.

Those whose attention has a window, or that keep a state instead of keys and values, are asked here;
all others in `holdfast.engines.refilled`. ``generate`` runs a batch until its last row has ended,
and answers differ in length by an order of magnitude. So it is stopped when half the rows have
ended, and goes on with the others from the same cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from transformers import (
    DynamicCache,
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
)

from holdfast.config import Sampling
from holdfast.engines.cohorts import Unsupported
from holdfast.engines.log_likelihood import SHARED, keeps_all
from holdfast.engines.next_token import Repetition, drawing, pad_left
from holdfast.engines.pace import Pace
from holdfast.engines.refilled import Answering, Row
from holdfast.engines.reply_text import Until

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CLOSE, CLOSE_HALF = 2e-3, 0.25
"""How far logits may lie apart, in their standard deviations, in float32 and in half precision."""
CHANGING = frozenset(
    {
        "bad_words_ids", "begin_suppress_tokens", "encoder_no_repeat_ngram_size",
        "encoder_repetition_penalty", "epsilon_cutoff", "eta_cutoff",
        "exponential_decay_length_penalty", "forced_bos_token_id", "forced_eos_token_id",
        "guidance_scale", "min_length", "min_new_tokens", "no_repeat_ngram_size", "num_beams",
        "remove_invalid_values", "renormalize_logits", "sequence_bias", "stop_strings",
        "suppress_tokens", "typical_p", "watermarking_config",
    }
)  # fmt: skip
"""Settings with which ``generate`` would choose other tokens."""
DRAWS = 5
"""Attempts at an agreement in half precision: with a few prompts of chance in a hundred, rounding
alone carries the logits anywhere, whichever way they are computed. A fault is there in each."""
SMALLEST = 8
"""Rows below which a batch is left alone."""


def decode(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    seeds: Sequence[int],
    sampling: Sampling,
    stops: Sequence[int],
    pad: int,
    until: Sequence[Until | None] = (),
) -> list[list[int]]:
    """The token ids of one answer for each prompt, the stop token included when there is one.

    Args:
        model: a causal language model on its device.
        prompts: token ids.
        seeds: one for each prompt; used when the temperature is above 0.
        sampling: how tokens are chosen, and the most new ones; its stop strings are in `until`.
        stops: ids that end an answer.
        pad: the id of the padding token.
        until: for each prompt the texts that end its answer as well, None for none; what follows
            them in the answer is not cut off here.
    """
    device = str(model.device)
    ids, mask = pad_left(prompts, pad, device)
    start, end = ids.shape[1], ids.shape[1] + sampling.max_new_tokens
    rows, cache = list(range(len(prompts))), None
    noise = [torch.Generator(device).manual_seed(seed) for seed in seeds]
    answers: list[list[int]] = [[] for _ in prompts]
    while rows:
        processors = _processors(sampling, [noise[row] for row in rows], mask)
        words = _Words([until[row] for row in rows] if until else [], start)
        halfway = [_HalfEnded(stops, words)] if len(rows) >= SMALLEST else []
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                max_new_tokens=end - ids.shape[1],
                logits_processor=LogitsProcessorList(processors),
                stopping_criteria=StoppingCriteriaList([words, *halfway] if words.any else halfway),
                return_dict_in_generate=True,
                eos_token_id=list(stops),
                pad_token_id=pad,
                repetition_penalty=1.0,
                do_sample=False,  # a model's own generation config may ask for sampling
                temperature=None,
                top_p=None,
                top_k=None,
            )
        sequences = output.sequences
        going = []
        for place, tokens in enumerate(sequences[:, start:].tolist()):
            tokens = _until_stop(tokens[: words.lengths.get(place)], stops)
            answers[rows[place]] = tokens
            ended = tokens[-1] in stops or place in words.lengths
            if not ended and sequences.shape[1] < end:
                going.append(place)
        rows = [rows[place] for place in going]
        kept = torch.tensor(going, dtype=torch.long)  # on the CPU: a split cache is on several GPUs
        mask = torch.nn.functional.pad(mask, (0, sequences.shape[1] - ids.shape[1]), value=1)[kept]
        ids, cache = sequences[kept], output.past_key_values
        if not isinstance(cache, DynamicCache):
            cache = None  # read again from the start: slower, never wrong
        elif rows:
            cache.batch_select_indices(kept)
    return answers


def suits(model: PreTrainedModel, pad: int) -> str:
    """Why a model cannot be asked by `holdfast.engines.refilled`; "" where it can.

    What is known of its kind decides first. Then a few tokens are computed both ways: the same
    logits, or it is left to ``generate``. In half precision one attempt of several must agree.

    Args:
        model: on its device, PEFT's wrapping taken off.
        pad: the id of the padding token.
    """
    config, settings = model.config, model.generation_config
    if config.get_text_config() is not config or config.is_encoder_decoder:
        return "it reads more than text"
    if not getattr(model, "_supports_attention_backend", False) or (
        config._attn_implementation not in ("sdpa", "eager")
    ):
        return "its attention is its own"
    if not keeps_all(model):
        return "not all of its layers look at all tokens"
    ropes = getattr(config, "rope_parameters", None) or {}
    if {ropes.get("rope_type"), ropes.get("type")} & {"dynamic", "longrope"}:
        return "its positions depend on the longest row"
    more = set(settings.to_diff_dict()) & CHANGING if settings else set()
    if more:
        return f"its generation config sets {', '.join(sorted(more))}"
    try:
        draws = range(1 if model.dtype == torch.float32 else DRAWS)
        agrees = any(_agrees(model, pad, draw) for draw in draws)
        return "" if agrees else "its logits would differ"
    except (Unsupported, TypeError, AttributeError, ValueError) as error:
        return str(error) or type(error).__name__


class _Watched(Answering):
    """Keeps the logits that it chose by."""

    def _choose(self, rows: Sequence[Row], scores: torch.Tensor) -> None:
        for row, one in zip(rows, scores, strict=True):
            self.seen.setdefault(row.place, []).append(one)
        super()._choose(rows, scores)

    @cached_property
    def seen(self) -> dict[int, list[torch.Tensor]]:
        """Logits by row."""
        return {}


def _agrees(model: PreTrainedModel, pad: int, seed: int) -> bool:
    """Whether a few rows of several lengths, with one beginning, get the logits of a plain pass."""
    chance = torch.Generator().manual_seed(seed)
    vocabulary = int(model.config.vocab_size)
    ids = torch.randint(vocabulary, (4, 2 * SHARED), generator=chance)
    ids[:, :SHARED] = ids[0, :SHARED]
    prompts = [row[: SHARED + 1 + 4 * n].tolist() for n, row in enumerate(ids)]
    watched = _Watched(model, Sampling(max_new_tokens=3), [], pad, Pace(len(prompts), True))
    close = CLOSE if model.dtype == torch.float32 else CLOSE_HALF
    for place, tokens in watched.answers(prompts, [0] * len(prompts)):
        with torch.inference_mode():
            whole = torch.tensor([prompts[place] + tokens[:-1]], device=model.device)
            plain = model(whole, use_cache=False, logits_to_keep=len(tokens)).logits[0].float()
        found = torch.stack(watched.seen[place]).to(plain.device)
        if not bool((found - plain).abs().max() <= close * plain.std()):  # NaN is no agreement
            return False
    return True


def _until_stop(tokens: list[int], stops: Sequence[int]) -> list[int]:
    for place, token in enumerate(tokens):
        if token in stops:
            return tokens[: place + 1]
    return tokens


def _processors(
    sampling: Sampling, noise: Sequence[torch.Generator], mask: torch.Tensor
) -> list[LogitsProcessor]:
    """What changes the logits, in the order of transformers."""
    penalty = sampling.repetition_penalty
    return [*([Repetition(penalty, mask)] if penalty != 1 else []), *drawing(sampling, noise)]


class _Words(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """Ends each row whose answer has come to one of its texts; `lengths` are in tokens."""

    def __init__(self, until: Sequence[Until | None], start: int) -> None:
        self.until, self.start = until, start
        self.any = any(until)
        self.lengths: dict[int, int] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        for row, tokens in enumerate(input_ids[:, self.start :].tolist()):
            stop = self.until[row]
            if stop and row not in self.lengths and stop.reached(tokens):
                self.lengths[row] = len(tokens)
        ended = [row in self.lengths for row in range(len(self.until))]
        return torch.tensor(ended, device=input_ids.device)


class _HalfEnded(StoppingCriteria):  # type: ignore[misc]  # transformers is untyped
    """Stops all rows when half of them have ended."""

    def __init__(self, stops: Sequence[int], words: _Words) -> None:
        self.stops, self.words = stops, words
        self.ended: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: object) -> torch.Tensor:
        stopped = torch.isin(input_ids[:, -1], torch.tensor(self.stops, device=input_ids.device))
        stopped[list(self.words.lengths)] = True
        self.ended = stopped if self.ended is None else self.ended | stopped
        return torch.full_like(stopped, bool(self.ended.float().mean() >= 0.5))
