"""Lays several examples into one row such that none sees another, and proves it on the model.

Positions begin anew with every example. transformers reads that off ``position_ids`` when there is
no attention mask: eager, sdpa and flex attention get a mask of blocks, flash attention the lengths.
The first token of an example has no label, because the token before it is another example's. Every
token that pads a row is an example of its own, at position 0 and without a label.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from holdfast.data.chat import IGNORED
from holdfast.errors import StudyError, TrainingError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, TrainerCallback
    from trl import SFTTrainer

Batch = dict[str, Any]
EXAMPLES, SKIPPED = "examples", "skipped"
"""In a packed micro-batch: row, first token and end of every example; and whether it is not run."""
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}
"""Kinds of layers in which tokens meet only where the mask lets them."""
WHERE = "train.packing"
ROUNDING, COARSE = 1e-4, 5e-2
"""Share of the largest logit by which two ways to compute the same may differ: in float32, and in
16 bits."""
TRIED = 16
"""Tokens of each example that the model is tried on."""


def lay_out(
    examples: Sequence[Mapping[str, Sequence[float]]], rows: Sequence[int], pad: int, varlen: bool
) -> Batch:
    """Several examples in a rectangle of rows.

    Args:
        examples: ``input_ids``, ``labels`` and maybe ``kl_weights`` of each, of its length.
        rows: in which row each of them stands, from 0 on.
        pad: id of the pad token.
        varlen: add the lengths that flash attention takes; for a single row.

    Returns:
        The same names, ``position_ids`` and ``attention_mask`` (1 where there is an example), each
        of shape (rows, widest); and `EXAMPLES`.
    """
    import torch

    fillings: dict[str, float] = {
        "input_ids": pad, "labels": IGNORED, "kl_weights": 0.0, "position_ids": 0,
    }  # fmt: skip
    names = [name for name in fillings if name in examples[0]]
    found: dict[str, list[list[float]]] = {
        name: [[] for _ in range(max(rows) + 1)] for name in (*names, "position_ids")
    }
    places: list[tuple[int, int, int]] = []
    for one, row in zip(examples, rows, strict=True):
        start, size = len(found["position_ids"][row]), len(one["input_ids"])
        for name in names:
            first = one[name][0] if name == "input_ids" else fillings[name]
            found[name][row] += [first, *one[name][1:]]
        found["position_ids"][row] += range(size)
        places.append((row, start, start + size))
    filled = [len(row) for row in found["position_ids"]]
    width = max(filled)
    for row, size in enumerate(filled):
        for name, columns in found.items():
            columns[row] += [fillings[name]] * (width - size)
    batch: Batch = {name: torch.tensor(values) for name, values in found.items()}
    batch["attention_mask"] = (torch.arange(width) < torch.tensor(filled)[:, None]).long()
    batch[EXAMPLES] = places
    return batch | (_lengths(places) if varlen else {})


def _lengths(places: Sequence[tuple[int, int, int]]) -> Batch:
    """What flash attention takes instead of a mask."""
    import torch

    ends = torch.tensor([0, *(end for _, _, end in places)], dtype=torch.int32)
    longest = max(end - start for _, start, end in places)
    return {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends,
            "max_length_q": longest, "max_length_k": longest}  # fmt: skip


def for_model(batch: Mapping[str, Any]) -> Batch:
    """A micro-batch as the model takes it: a packed one has positions in the place of a mask."""
    left_out = {EXAMPLES, SKIPPED} | ({"attention_mask"} if EXAMPLES in batch else set())
    return {name: value for name, value in batch.items() if name not in left_out}


def pieces(batch: Batch, most: int) -> list[Batch]:
    """A packed micro-batch in pieces of at most `most` examples, which stay in rows as they were.

    Args:
        batch: from `lay_out`.
        most: examples of a piece.
    """
    places, pad = batch[EXAMPLES], 0
    columns: tuple[str, ...] = ("input_ids", "labels", "kl_weights")
    names = [name for name in columns if name in batch]
    count = -(-len(places) // most)
    found = []
    for at in range(count):
        some = places[len(places) * at // count : len(places) * (at + 1) // count]
        numbers = {row: number for number, row in enumerate(dict.fromkeys(p[0] for p in some))}
        examples = [
            {name: batch[name][row, start:end].tolist() for name in names}
            for row, start, end in some
        ]
        rows = [numbers[row] for row, _, _ in some]
        piece = lay_out(examples, rows, pad, "cu_seq_lens_q" in batch)
        device = batch["input_ids"].device
        found.append({
            name: value.to(device) if hasattr(value, "to") else value
            for name, value in piece.items()
        })  # fmt: skip
    return found


def predictions(
    places: Sequence[tuple[int, int, int]], width: int, columns: torch.Tensor | None = None
) -> torch.Tensor:
    """Where each example's predictions lie among those of all rows.

    Args:
        places: of the examples, see `EXAMPLES`.
        width: of the rows; each has one prediction fewer.
        columns: the only positions of the rows that there are; None: all.

    Returns:
        Places in (rows x positions), shape (examples, longest); -1: nothing there.
    """
    import torch

    each = [torch.arange(start, end - 1) for _, start, end in places]
    found = torch.nn.utils.rnn.pad_sequence(each, batch_first=True, padding_value=-1)
    row = torch.tensor([row for row, _, _ in places])[:, None]
    if columns is None:
        return torch.where(found < 0, -1, row * (width - 1) + found)
    among = torch.full((width - 1,), -1)
    among[columns.cpu()] = torch.arange(len(columns))
    here = torch.where(found < 0, -1, among[found.clamp(min=0)])
    return torch.where(here < 0, -1, row * len(columns) + here)


def apart(values: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Values of predictions, one row for each example; zero where an example has none.

    Args:
        values: shape (rows, positions, ...).
        places: from `predictions`.
    """
    places = places.to(values.device)
    found = values.flatten(0, 1)[places.clamp(min=0)]
    found[places < 0] = 0
    return found


def together(values: torch.Tensor, places: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """What `apart` took apart, as rows again; zero at predictions of no example.

    Args:
        values: shape (examples, longest).
        places: from `predictions`.
        like: of shape (rows, positions).
    """
    places = places.to(values.device)
    found = values.new_zeros(like.shape).flatten()
    found[places[places >= 0]] = values[places >= 0]
    return found.view(like.shape)


def check_model(model: PreTrainedModel) -> None:
    """Refuse a model whose layers would carry something from one example to the next.

    Args:
        model: may be on the meta device.

    Raises:
        StudyError: naming what would.
    """
    import torch

    config = model.config.get_text_config()
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else model.base_model
    other = sorted(set(getattr(config, "layer_types", None) or ()) - ATTENTION)
    mixes = any(isinstance(part, torch.nn.Conv1d) for part in decoder.modules())
    why = ""
    if getattr(model, "_is_stateful", False) or other or mixes:
        what = f" ({', '.join(other)})" if other else ""
        why = f"has layers that read along the row by themselves{what}: state-space or convolution"
    elif "position_ids" not in inspect.signature(decoder.forward).parameters:
        why = "takes no positions, so examples in one row cannot be told apart"
    elif hasattr(config, "output_router_logits") and getattr(config, "router_aux_loss_coef", False):
        why = "balances its experts by a mean over each forward pass, which packing would change"
    elif not _loss_of_the_step(model):
        why = "has a loss that is a mean over each forward pass, which packing would change"
    if why:
        raise StudyError(
            f"{config.model_type} {why}",
            where=WHERE,
            remedy="leave packing out; group_by_length keeps padding small",
        )


def _loss_of_the_step(model: PreTrainedModel) -> bool:
    """Whether transformers divides its loss by the tokens of the whole step."""
    told = getattr(model, "accepts_loss_kwargs", None)
    given = inspect.signature(model.forward).parameters.values()
    return bool(told if told is not None else any(one.kind is one.VAR_KEYWORD for one in given))


def trial(trainer: SFTTrainer, varlen: bool) -> TrainerCallback:
    """A callback that tries the model before the first step; see `check`."""
    import torch
    from transformers import TrainerCallback

    class Trial(TrainerCallback):  # type: ignore[misc]  # mypy does not follow transformers
        def on_train_begin(self, *_: object, **__: object) -> None:
            args = trainer.args
            plain = trainer.model.dtype == torch.float32 and not (args.bf16 or args.fp16)
            check(trainer.model, str(args.device), varlen, ROUNDING if plain else COARSE)

    return Trial()


def check(
    model: PreTrainedModel, device: str, varlen: bool = False, rounding: float = ROUNDING
) -> None:
    """Prove that examples in one row do not see each other, on the very model and its kernels.

    An example behind another has the logits that it has behind any other, and those that it has
    alone.

    Args:
        model: about to be trained.
        device: on which it takes its inputs.
        varlen: see `lay_out`.
        rounding: share of the largest logit that is none.

    Raises:
        TrainingError: it has not.
    """
    import torch

    words = int(model.config.get_text_config().vocab_size)
    step = max(1, words // (4 * TRIED))
    first, other, last = (
        [(start + step * place) % words for place in range(TRIED)] for start in (1, 2, 3)
    )
    times = 1 if varlen else 2  # where a pass takes several rows, so does this
    was_training = model.training
    model.eval()
    try:
        found = []
        for row in ((first, last), (other[::-1], last), (last,)):
            examples = [{"input_ids": ids, "labels": ids} for ids in row] * times
            rows = [number for number in range(times) for _ in row]
            batch = for_model(lay_out(examples, rows, 0, varlen))
            del batch["labels"]
            inputs = {name: value.to(device) if hasattr(value, "to") else value
                      for name, value in batch.items()}  # fmt: skip
            with torch.no_grad():
                logits = model(**inputs, use_cache=False).logits
            found.append(logits[-1, -TRIED:].float())
    finally:
        model.train(was_training)
    limit = rounding * float(found[2].abs().max())
    for name, behind in (("another example", found[1]), ("its own beginning", found[2])):
        if not float((found[0] - behind).abs().max()) <= limit:
            raise TrainingError(
                f"an example that is packed behind another is read otherwise than behind {name}: "
                "this model's layers, or its attention on this device, do not keep examples apart",
                where=WHERE,
                remedy="leave packing out, or set model.attn_implementation: sdpa",
            )
