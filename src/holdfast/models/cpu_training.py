"""Makes a training on a CPU fast: dropout, LoRA layers, and the log-probabilities of the head.

torch draws a mask on a CPU one number at a time, which takes longer than the matrix product that
follows. Here only the places that are dropped are drawn: the gaps between them are geometric, so
every element is dropped independently with probability p, as by `torch.nn.Dropout`. Each mask has a
63-bit seed from torch's own generator, so that saved random states, recomputation and resuming stay
exact; numpy's PCG64 draws from there. A plain LoRA layer is one step of autograd: what was dropped
is put to nought in place, and no tensor of the size of its input or output is made for it.

TRL's tiled head projects every position on a device without Triton, those of the prompt included,
and once more in the backward pass. With a frozen head the gradient of a log-probability by its
hidden state is the label's row of the head less the mean row under the model's own probabilities:
both are at hand in the forward pass. So only positions with a loss are projected, once, in tiles of
whole rows: two matrix products instead of three. The mean row gives the entropy too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from types import MethodType
from typing import TYPE_CHECKING, Any

from holdfast.memory.estimate.activations import NARROWEST

if TYPE_CHECKING:
    import torch
    from torch.autograd.function import FunctionCtx

GENERATOR = "PCG64, sparse"
"""What draws the masks then, for the record."""
FEWEST_WORDS = 4096
"""Vocabulary from which this is used: below it there is nothing to win."""
TILE = 1 << 25
"""Logits that are in memory at once, float32."""


def dropped(count: int, p: float) -> torch.Tensor:
    """Which of `count` elements are dropped, in rising order; each with probability p, 0 < p < 1.

    Takes one number from torch's default generator.
    """
    import numpy
    import torch

    seed = int(torch.empty((), dtype=torch.int64).random_())
    draw = numpy.random.Generator(numpy.random.PCG64(seed))
    expected = count * p
    places = numpy.cumsum(draw.geometric(p, int(expected + 4 * expected**0.5) + 8)) - 1
    while places[-1] < count:
        places = numpy.append(places, places[-1] + numpy.cumsum(draw.geometric(p, len(places))))
    found = places[: numpy.searchsorted(places, count)]
    return torch.from_numpy(found if count > 2**31 else found.astype(numpy.int32))


def quicken(model: torch.nn.Module) -> None:
    """Let a model that is about to be trained on a CPU use what this module has.

    Args:
        model: with its adapters. What it computes is the same; random masks differ from torch's.
            On a GPU, and below `NARROWEST`, it is left as it is.
    """
    import torch
    from peft.tuners.lora.layer import Linear

    embeddings = model.get_input_embeddings().weight
    if embeddings.device.type != "cpu" or embeddings.shape[1] < NARROWEST:
        return
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is torch.nn.Dropout and not child.inplace:
                setattr(module, name, _classes().Dropout(child.p))
        if type(module) is Linear and type(module.get_base_layer()) is torch.nn.Linear:
            module.forward = MethodType(_adapted, module)


def mask_generator(model: torch.nn.Module) -> dict[str, str]:
    """What draws a model's masks, for the record; empty where that is torch itself, or nothing."""
    own = _classes().Dropout
    quick = any(isinstance(module, own) and module.p for module in model.modules())
    return {"dropout_masks": GENERATOR} if quick else {}


def _adapted(layer: Any, x: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
    """The forward pass of a LoRA layer; by PEFT itself where it is not plain LoRA in training."""
    import torch

    names = [one for one in layer.active_adapters if one in layer.lora_A]
    base = layer.get_base_layer()
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
    plain = (
        len(names) == 1 and not (args or kwargs or layer.disable_adapters or layer.merged)
        and names[0] not in layer.lora_variant and not layer.lora_bias[names[0]]
        and layer.training and torch.is_grad_enabled() and x.dtype == base.weight.dtype == dtype
        and not base.weight.requires_grad and not layer.fan_in_fan_out
    )  # fmt: skip
    if not plain:
        return type(layer).forward(layer, x, *args, **kwargs)
    name = names[0]
    p = float(getattr(layer.lora_dropout[name], "p", 0.0))
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    given = (x, base, a, b, float(layer.scaling[name]), p)
    found: torch.Tensor = _classes().Adapted.apply(*given)
    return found


@cache
def _classes() -> Any:
    """The classes that need torch to be made."""
    import torch

    class Zeroing(torch.autograd.Function):  # type: ignore[misc]
        """Dropout of a tensor."""

        @staticmethod
        def forward(ctx: FunctionCtx, x: torch.Tensor, p: float) -> torch.Tensor:
            places = dropped(x.numel(), p)
            ctx.save_for_backward(places)
            ctx.scale = 1 / (1 - p)
            return _without(x * ctx.scale, places)

        @staticmethod
        def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            return _without(grad * ctx.scale, *ctx.saved_tensors), None

    class Dropout(torch.nn.Dropout):  # type: ignore[misc]
        """`torch.nn.Dropout`, with masks from `dropped`."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if not self.training or not 0 < self.p < 1 or x.device.type != "cpu":
                return super().forward(x)
            return Zeroing.apply(x, self.p)

    class Adapted(torch.autograd.Function):  # type: ignore[misc]
        """x Wᵀ + bias + s · dropout(x) Aᵀ Bᵀ with W frozen."""

        @staticmethod
        def forward(
            ctx: FunctionCtx,
            x: torch.Tensor,
            base: torch.nn.Linear,
            a: torch.Tensor,
            b: torch.Tensor,
            s: float,
            p: float,
        ) -> torch.Tensor:
            rows = x.reshape(-1, x.shape[-1])
            places = dropped(rows.numel(), p) if p else None
            thinned = rows if places is None else _without(rows.clone(), places)
            low = thinned @ a.to(x.dtype).t()
            ctx.scale = s / (1 - p)
            ctx.save_for_backward(x, base.weight, a, b, low, places)
            found = torch.nn.functional.linear(rows, base.weight, base.bias)
            found.addmm_(low, b.to(x.dtype).t(), alpha=ctx.scale)
            return found.view(*x.shape[:-1], -1)

        @staticmethod
        def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
            x, w, a, b, low, places = ctx.saved_tensors
            grad = grad.reshape(-1, grad.shape[-1])
            rows, lowered = x.reshape(-1, x.shape[-1]), grad @ b.to(x.dtype)
            thinned = rows if places is None else _without(rows.clone(), places)
            to_b = (grad.t() @ low).mul_(ctx.scale).to(b.dtype)
            to_a = (lowered.t() @ thinned).mul_(ctx.scale).to(a.dtype)
            del thinned
            to_x = None
            if ctx.needs_input_grad[0]:
                to_x = grad @ w
                flat = to_x.view(-1)
                kept = None if places is None else flat[places]
                to_x.addmm_(lowered, a.to(x.dtype), alpha=ctx.scale)
                if kept is not None:
                    flat[places] = kept  # nothing flows back through what was dropped
                to_x = to_x.view(x.shape)
            return to_x, None, to_a, to_b, None, None

    Adapted.forward.__doc__ = Adapted.backward.__doc__ = Adapted.__doc__
    return type("Classes", (), {"Dropout": Dropout, "Adapted": Adapted})


def _without(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Put the named elements of a tensor of one's own to nought."""
    x.view(-1)[places] = 0
    return x


@contextmanager
def quick_head(model: torch.nn.Module) -> Iterator[None]:
    """For as long as this lasts, TRL's head skips positions without a loss, and is fast.

    Args:
        model: that is called meanwhile. On a GPU, and with a small vocabulary, nothing changes.
    """
    head = model.get_output_embeddings()
    weight = getattr(head, "weight", None)
    if weight is None or weight.device.type != "cpu" or len(weight) < FEWEST_WORDS:
        yield
        return
    from trl.trainer import utils

    tiled, triton = utils._ChunkedLogProbFunction, utils._use_triton
    utils._ChunkedLogProbFunction, utils._use_triton = _chooser(tiled), lambda device: True
    try:
        yield
    finally:
        utils._ChunkedLogProbFunction, utils._use_triton = tiled, triton


def _chooser(tiled: Any) -> Any:
    """What stands for TRL's function: itself, or the faster one where that gives the same."""

    class Chooser:
        @staticmethod
        def apply(*given: Any) -> object:
            import torch

            hidden, weight, bias, targets, temperature, _, cap, scale, asked = given
            plain = bias is None and cap is None and temperature == scale == 1
            plain = plain and set(asked) <= {"log_probs", "entropy", "is_top1"}
            learns = torch.is_grad_enabled() and hidden.requires_grad
            if not (plain and learns) or weight.requires_grad:
                return tiled.apply(*given)
            own, entropy, top = _head().apply(hidden, weight, targets)
            return own, entropy, None, None, top

    return Chooser


@cache
def _head() -> Any:
    """The function, made once torch is there."""
    import torch

    class FrozenHead(torch.autograd.Function):  # type: ignore[misc]  # mypy does not follow torch
        """Log-probability of each target, entropy, and whether the target is the likeliest."""

        @staticmethod
        def forward(
            ctx: FunctionCtx, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
        ) -> tuple[torch.Tensor, ...]:
            count, (words, width) = len(hidden), weight.shape
            own, entropy = (torch.zeros(count) for _ in range(2))
            top = torch.zeros(count, dtype=torch.bool)
            slope = torch.empty(count, width)
            dtype = hidden.dtype
            if torch.is_autocast_enabled("cpu"):
                dtype = torch.get_autocast_dtype("cpu")
            narrow = weight.to(dtype)
            rows = max(1, min(count, TILE // words))
            tile = torch.empty(rows, words, dtype=dtype)  # once: fresh pages take longer than sums
            for start in range(0, count, rows):
                here = slice(start, min(count, start + rows))
                some, label = hidden[here].to(dtype), targets[here]
                logits = torch.mm(some, narrow.t(), out=tile[: len(some)]).float()
                chosen = logits.gather(1, label[:, None]).squeeze(1)
                most, likeliest = logits.max(1)
                masses = logits.sub_(most[:, None]).exp_()
                total = masses.sum(1)
                mean = (masses.to(dtype) @ narrow).float() / total[:, None]
                norm = most + total.log()
                own[here], top[here] = chosen - norm, likeliest == label
                entropy[here] = norm - (mean * some.float()).sum(1)
                slope[here] = narrow[label].float() - mean
            ctx.save_for_backward(slope)
            ctx.dtype = hidden.dtype
            ctx.mark_non_differentiable(entropy, top)
            return own, entropy, top

        @staticmethod
        def backward(
            ctx: FunctionCtx, grad: torch.Tensor, *_: object
        ) -> tuple[torch.Tensor | None, ...]:
            (slope,) = ctx.saved_tensors
            return (slope * grad[:, None]).to(ctx.dtype), None, None

    return FrozenHead
