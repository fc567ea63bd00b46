"""Makes dropout and adapters fast on a CPU: the same distribution, drawn and applied sparsely.

torch draws a mask on a CPU one number at a time, which takes longer than the matrix product that
follows. Here only the places that are dropped are drawn: the gaps between them are geometric, so
every element is dropped independently with probability p, as by `torch.nn.Dropout`. Each mask has a
63-bit seed from torch's own generator, so that saved random states, recomputation and resuming stay
exact; numpy's PCG64 draws from there. A plain LoRA layer is one step of autograd: what was dropped
is put to nought in place, and no tensor of the size of its input or output is made for it.
"""

from __future__ import annotations

from functools import cache
from types import MethodType
from typing import TYPE_CHECKING, NamedTuple

from holdfast.memory.estimate.kept import NARROWEST

if TYPE_CHECKING:
    import torch
    from peft.tuners.lora import Linear
    from torch.autograd.function import FunctionCtx

GENERATOR = "PCG64, sparse"
"""What draws the masks then, for the record."""


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


def _adapted(layer: Linear, x: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
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
        own: torch.Tensor = type(layer).forward(layer, x, *args, **kwargs)
        return own
    name = names[0]
    p = float(getattr(layer.lora_dropout[name], "p", 0.0))
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    settings = float(layer.scaling[name]), p
    found: torch.Tensor = _classes().Adapted.apply(x, base.weight, base.bias, a, b, settings)
    return found


class Classes(NamedTuple):
    """What `_classes` makes."""

    Dropout: type[torch.nn.Dropout]
    Adapted: type[torch.autograd.Function]


@cache
def _classes() -> Classes:
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
        def backward(ctx: FunctionCtx, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
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
            w: torch.Tensor,
            bias: torch.Tensor | None,
            a: torch.Tensor,
            b: torch.Tensor,
            settings: tuple[float, float],
        ) -> torch.Tensor:
            s, p = settings
            rows = x.reshape(-1, x.shape[-1])
            places = dropped(rows.numel(), p) if p else None
            thinned = rows if places is None else _without(rows.clone(), places)
            low = thinned @ a.to(x.dtype).t()
            ctx.scale = s / (1 - p)
            ctx.save_for_backward(x, w, a, b, low, places)
            found = torch.nn.functional.linear(rows, w, bias)
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
            return to_x, None, None, to_a, to_b, None

    Adapted.forward.__doc__ = Adapted.backward.__doc__ = Adapted.__doc__
    return Classes(Dropout, Adapted)


def _without(x: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Put the named elements of a tensor of one's own to nought."""
    x.view(-1)[places] = 0
    return x
