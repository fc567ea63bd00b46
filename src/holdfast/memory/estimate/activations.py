"""Bytes of activations, logits and scratch space, by formulas that count tensor by tensor.

What one layer keeps for its backward pass is counted in `holdfast.memory.estimate.kept`; the fixed
costs of a layer are in `MARGIN`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from holdfast.memory.estimate import adapters, litgpt
from holdfast.memory.estimate.kept import gradients_per_token, intermediate, kept_per_token
from holdfast.memory.estimate.method_overhead import PER_COMPARED_LOGIT, PER_PROBED_LOGIT
from holdfast.memory.estimate.states import BYTES
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.memory_plan import GIB
from holdfast.memory.model.shape import Shape

MARGIN = 1.04
MARGIN_UNKNOWN = 1.25
"""For architectures whose code was not counted: mixtures of experts and unknown families."""
EAGER = 6.1
"""Bytes per head, query and key that eager attention keeps: float32 softmax, its copy, the mask."""
SOFT_CAPPED = 8.2
PER_LOGIT, IN_PLACE = 12, 8
"""Bytes of a whole logit: in 16 bits, its float32 copy, log-probabilities and gradient; and where
the gradient is written over it: in float32, and once more shifted by a place, which is a copy."""
LOSS_TILE = 4096
AFTER_LOSS = 24
"""Bytes x hidden size per token while a tiled loss and the last norm are passed back through: their
float32 gradients, by trace."""
CPU_TILE = 1 << 25
"""Logits that are in memory at once in the head of a CPU (`holdfast.models.cpu_head`)."""
VOCABULARY_TILE = 32768


@dataclass(frozen=True, slots=True)
class Moment:
    """What a process holds beside its states at one moment of a step, bytes.

    Attributes:
        activations: kept for the backward pass.
        logits: and the loss.
        workspace: what is needed for a moment.
        again: what of it are activations that are computed again.
        gradients: the share of them that is there where no earlier micro-batch left any.
        backward: a layer is passed back through.
    """

    activations: int
    logits: int
    workspace: int
    gradients: float = 0.0
    backward: bool = False
    again: int = 0


class Activations(Protocol):
    """What a micro-batch takes, by formula or by trace."""

    def moments(self, layers: int, head: bool) -> Sequence[Moment]:
        """The moments at which a process may be fullest.

        Args:
            layers: decoder layers that it runs.
            head: whether it runs the output head and the loss.
        """


Estimate = Callable[[Shape, Workload, str, int, bool], Activations]
"""Model, job, method, micro-batch and recomputation to what a micro-batch takes."""


@dataclass(frozen=True, slots=True)
class Aside:
    """What a process holds while it runs the model without learning, bytes.

    Attributes:
        cache_layer: keys and values of one layer.
        logits: at their peak.
        workspace: of the pass through one layer.
    """

    cache_layer: int
    logits: int
    workspace: int

    def moment(self, layers: int, head: bool) -> Moment:
        """As one moment of a process that runs these layers; see `Activations.moments`."""
        cache = layers * self.cache_layer
        return Moment(0, self.logits if head else 0, cache + self.workspace)


@dataclass(frozen=True, slots=True)
class Formula:
    """Bytes of one micro-batch on one process, by formula.

    Attributes:
        kept_layer: kept for the backward pass by one layer.
        work_layer: needed on top while one layer is recomputed or passed back through.
        loss: logits and loss at their peak.
        after_loss: what of that is still there when the backward pass enters the layers.
        dequantised: the largest matrix written out in full by a 4-bit layer.
        copies_layer: 16-bit copies of one layer's float32 weights, which autocast keeps until the
            end of the forward pass, and without recomputation until the backward pass.
        checkpointing: layers are recomputed.
        scratch: needed for one matrix at a time in the forward pass, where that is not little.
        asides: when the model runs without learning.
        again: what of `work_layer` are activations that are computed again.
        earlier_layer: kept by one layer of the step before, until this one's loss is there.
    """

    kept_layer: int
    work_layer: int
    loss: int
    after_loss: int
    dequantised: int
    copies_layer: int
    checkpointing: bool
    scratch: int = 0
    asides: tuple[Aside, ...] = ()
    again: int = 0
    earlier_layer: int = 0

    def moments(self, layers: int, head: bool) -> Sequence[Moment]:
        """The loss (or the end of the forward pass), the last layer's backward pass and others."""
        kept, copies = layers * self.kept_layer, layers * self.copies_layer
        before = kept + layers * self.earlier_layer
        loss = Moment(before, self.loss if head else 0, copies + (0 if head else self.dequantised))
        back = self.work_layer + self.dequantised + (0 if self.checkpointing else copies)
        begun = 1 / max(1, layers)  # the last layer's gradients come into being
        after = self.after_loss if head else 0
        found = [loss, Moment(kept, after, back, begun, True, self.again)]
        left = self.copies_layer if self.checkpointing else copies
        last = self.work_layer + self.dequantised + left
        found.append(Moment(self.kept_layer, 0, last, 1.0, True, self.again))
        if self.scratch:
            found.append(Moment(kept, 0, copies + self.scratch))
        return [*found, *(one.moment(layers, head) for one in self.asides)]


def activations(
    shape: Shape, work: Workload, method: str, micro_batch: int, checkpointing: bool
) -> Formula:
    """Formula for one micro-batch.

    Args:
        shape: the model.
        work: lengths, adapters, loss path.
        method: `lora`, `qlora` or `full`.
        micro_batch: examples.
        checkpointing: whether layers are recomputed.
    """
    micro_batch *= work.method_overhead.rows
    tokens = micro_batch * work.seq_len
    wide = work.wide
    stream = work.stream_bytes(method)  # float32 weights make it float32
    margin = MARGIN if shape.exact else MARGIN_UNKNOWN
    padded = (work.padded and micro_batch > 1) or work.packed
    whole = round(margin * kept_per_token(shape, work, method, padded) * tokens)
    whole += _eager(shape, work, micro_batch)
    if work.packed and work.attention != "flash":  # blocks, in numbers, in every layer
        whole += wide * micro_batch * work.seq_len**2
    by_litgpt = work.script == "litgpt"
    earlier = 0
    if by_litgpt and not checkpointing:
        earlier = round(margin * litgpt.earlier_per_token(shape, work, method) * tokens)
    if method != "full":
        whole += adapters.per_layer(shape, work, wide)
    scratch = 0 if method == "full" else adapters.scratch(shape, work)
    transient = round(gradients_per_token(shape, work, method)) * tokens
    if method == "lora" and BYTES[work.adapters(False)] > wide:  # the cast input's gradient
        transient += 4 * _widest(shape, work) * tokens
    if method != "full" and work.variant == "dora":  # gradients of both results and their sum
        transient += 12 * _widest(shape, work) * tokens
    if method != "full" and work.variant == "oft":  # what was rotated, and its gradient
        transient += 2 * wide * _widest(shape, work) * tokens
    boundary = stream * shape.hidden * tokens
    loss, after = _loss(shape, work, method, micro_batch)
    if work.method_overhead.reference:  # where nothing is compared, the loss is the plain one
        each = PER_COMPARED_LOGIT[work.method_overhead.logits] * work.positions
        loss = max(loss, each * micro_batch * shape.vocab)
    return Formula(
        kept_layer=boundary if checkpointing else whole,
        work_layer=transient + scratch + (whole if checkpointing else 0),
        loss=loss,
        after_loss=after,
        dequantised=(litgpt.WRITTEN_OUT if by_litgpt else 1) * wide * shape.largest_linear
        if method == "qlora"
        else 0,
        copies_layer=_copies(shape, work, method),
        checkpointing=checkpointing,
        scratch=scratch,
        asides=asides(shape, work, micro_batch),
        again=whole if checkpointing else 0,
        earlier_layer=earlier,
    )


def _copies(shape: Shape, work: Workload, method: str) -> int:
    """Bytes of the copies of one layer's weights that autocast keeps: of trained float32 ones."""
    copied = method == "full" and work.autocast and work.weight_bytes(method) > work.wide
    return work.wide * shape.layer_parameters if copied else 0


def asides(shape: Shape, work: Workload, micro_batch: int) -> tuple[Aside, ...]:
    """When the model runs without learning: it answers, or is compared with the base.

    The base's pass before each micro-batch is none of them: nothing is kept yet while it runs, so
    it takes less than the backward pass does; what stays of it is counted with the loss.
    """
    overhead, wide = work.method_overhead, work.wide
    each = wide * (3 * intermediate(shape) + 4 * shape.hidden)
    found = []
    if overhead.generated_tokens and not overhead.served:
        # a row is as long as prompt and answer together, see `from_training`
        tokens = micro_batch * work.seq_len
        cache = 2 * shape.kv_heads * shape.head_dim * wide * tokens
        found.append(Aside(cache, 8 * shape.vocab * micro_batch, each * tokens))
    if overhead.probed_tokens:  # one row at a time, with the length of the longest example
        logits = PER_PROBED_LOGIT * shape.vocab * overhead.probed_tokens
        found.append(Aside(0, logits, each * work.seq_len))
    return tuple(found)


def cache_bytes(shape: Shape, work: Workload, sequences: int, tokens: int) -> int:
    """The key-value cache of an answering batch, and its logits."""
    wide = work.wide
    each = 2 * shape.kv_heads * shape.head_dim * shape.layers * wide
    return sequences * (tokens * each + 8 * shape.vocab)


def _widest(shape: Shape, work: Workload) -> int:
    """The width of the widest input that has an adapter."""
    return max((one.n_in for one in adapters.adapted(shape, work)), default=0)


def _eager(shape: Shape, work: Workload, micro_batch: int) -> int:
    """Whole attention matrices: asked for, or Gemma 2's soft-capped ones, which no kernel fuses."""
    each = SOFT_CAPPED if shape.family == "gemma2" else EAGER if work.attention == "eager" else 0.0
    return round(each * shape.heads * work.seq_len * work.seq_len * micro_batch)


def _loss(shape: Shape, work: Workload, method: str, micro_batch: int) -> tuple[int, int]:
    """Peak of the loss, and what remains of it afterwards.

    Whole logits: bfloat16 logits, their float32 copy, log-probabilities and gradient overlap to 12
    bytes per token and word; compared with the base's see
    `holdfast.memory.estimate.method_overhead`. TRL 1.16's fused head keeps the hidden states of the
    supervised tokens and their float32 gradient, and works in tiles of tokens x words; of it the
    gradient of the hidden states is left when the layers are passed back through.
    """
    tokens = micro_batch * work.seq_len
    if work.script == "litgpt":
        return litgpt.loss_bytes(shape, work, method, tokens)
    supervised = micro_batch * (work.supervised_tokens or work.seq_len)
    if not work.fused_loss:
        own = work.weight_bytes(method) * shape.hidden * shape.vocab if method == "full" else 0
        each = IN_PLACE if work.loss == "in_place" else PER_LOGIT
        return each * tokens * shape.vocab, 2 * shape.hidden * tokens + own
    gradients = 4 * shape.hidden * supervised + 2 * work.wide * shape.hidden * tokens
    if work.on_cpu and method != "full":
        each = 4 if work.wide == 4 else 8  # logits, and their copies in float32 and back
        return min(each * min(CPU_TILE, supervised * shape.vocab), GIB) + gradients, gradients
    tile = 3 * min(supervised, LOSS_TILE) * min(shape.vocab, VOCABULARY_TILE)
    after = work.stream_bytes(method) * shape.hidden * tokens
    end = AFTER_LOSS * shape.hidden * tokens
    if method == "full":  # the head's own gradient, summed in float32 and then as wide as the head
        head, own = shape.hidden * shape.vocab, work.weight_bytes(method)
        gradients += 4 * head
        after, end = after + own * head, end + (4 + own % 4) * head
    return max(min(tile, GIB) + gradients, end), after
