"""Counts the parameters of each kind of adapter, and the bytes that it keeps while it trains.

Counted from PEFT 0.21's layers, as `holdfast.train.adapters` sets them up. Rank-stabilised LoRA
differs from LoRA in its scale alone; CorDA and GuardSpace are a LoRA of twice the rank, and the
latter keeps a projector for all matrices that read the same. DoRA has one magnitude per
output and writes out the product of its matrices in every pass. OFT rotates a matrix's inputs in
blocks of `rank`. OSF trains the `rank` weakest directions of a matrix, and remembers where they
began and, on the matrix's longer side, all the others: in float32 that is more than the matrix
itself.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from holdfast.config.lora import TWO_HALVES
from holdfast.memory.estimate.workload import Workload
from holdfast.memory.model.layer import Linear
from holdfast.memory.model.shape import Shape
from holdfast.memory.model.targets import targeted

LOW_RANK = ("lora", "rslora", *TWO_HALVES)
"""Kinds whose change of a matrix is the product of two small ones and nothing else."""
WHOLE_WEIGHTS = ("osf", *TWO_HALVES)
"""Kinds that take the base's weights apart, which 4-bit ones do not allow."""
PLACES: Mapping[str, Collection[str]] = {
    **dict.fromkeys(("dora", "oft"), ("cpu", "single", "ddp")),
    **dict.fromkeys(("osf", *TWO_HALVES), ("cpu", "single")),
}  # fmt: skip
"""Where kinds were tried that were not tried in every placement."""


TOGETHER = (frozenset({"q_proj", "k_proj", "v_proj"}), frozenset({"gate_proj", "up_proj"}))
"""Names of matrices that read the same."""


def trained(shape: Shape, work: Workload) -> int:
    """Parameters that are trained.

    Args:
        shape: the model.
        work: kind and rank of the adapters, and where they are.

    Raises:
        StudyError: a name or a layer that the model does not have.
    """
    low = sum(count * _trained(one, work) for one, count in _matrices(shape, work))
    return low + _whole(shape, work)


def _whole(shape: Shape, work: Workload) -> int:
    """Parameters of modules that are trained whole, and of rows of the embedding that are."""
    sizes = {one.name: shape.layers * one.parameters for one in shape.linears}
    total = sum(whole_ends(shape, work))
    if "norm" in work.whole:
        total += shape.hidden
    return total + sum(sizes.get(name, 0) for name in set(work.whole))


def whole_ends(shape: Shape, work: Workload) -> tuple[int, int]:
    """Parameters of the embedding, and of the head, that are trained whole beside the adapters."""
    names = {"embed_tokens", "wte", "embed_in"}, {"lm_head", "embed_out"}
    asked = set(work.whole)
    if shape.tied:  # they are one
        names = (names[0] | names[1], set())
    first, last = (shape.vocab * shape.hidden * bool(asked & one) for one in names)
    return work.tokens * shape.hidden + first, last


def frozen(shape: Shape, work: Workload) -> int:
    """Parameters that adapters keep beside the base and do not train: OSF's first factors."""
    if work.variant != "osf":
        return 0
    total = 0
    for one, count in _matrices(shape, work):
        short, long = sorted((one.n_in, one.n_out))
        # The strong directions on the longer side; those on the shorter follow from the weak ones.
        strong = (short - work.rank) * long if short < long else 0
        total += count * (_trained(one, work) + strong)
    return total


def projector_bytes(shape: Shape, work: Workload) -> int:
    """Of GuardSpace's projectors, or of the covariances that they are made of: float32 squares."""
    if work.variant != "guardspace":
        return 0
    inputs = {
        (next((group for group in TOGETHER if one.name in group), one.name), one.n_in): count
        for one, count in _matrices(shape, work)
    }
    return 4 * sum(count * n_in**2 for (_, n_in), count in inputs.items())


def per_token(shape: Shape, work: Workload, wide: int) -> int:
    """Bytes per token that one layer keeps because its adapters are no plain LoRA.

    Args:
        shape: the model.
        work: the job.
        wide: bytes of one number in the computation.
    """
    match work.variant:
        case "dora":  # the base's and the adapter's results, for the magnitudes' gradient
            return 2 * wide * sum(one.n_out for one in adapted(shape, work))
        case "oft":  # a cast copy of what is rotated
            return wide * sum(one.n_in for one in adapted(shape, work))
        case "osf":  # a cast copy, and its products with both sets of factors
            return wide * sum(one.n_in + 2 * work.rank for one in adapted(shape, work))
        case _:
            return 0


def per_layer(shape: Shape, work: Workload, wide: int) -> int:
    """Bytes that one layer keeps whatever the number of tokens, likewise."""
    match work.variant:
        case "dora" if work.dropout:  # the dropped-out input goes through a cast copy of the base
            return wide * sum(one.n_in * one.n_out for one in adapted(shape, work))
        case "oft":  # powers of the skew matrices
            return 14 * work.rank * sum(one.n_in for one in adapted(shape, work))
        case "osf":  # both sets of factors side by side, cast
            both = sum(one.n_in + one.n_out for one in adapted(shape, work))
            return 2 * wide * work.rank * both
        case _:
            return 0


def scratch(shape: Shape, work: Workload) -> int:
    """Bytes for one matrix at a time, in the forward pass and again in recomputation."""
    sizes = [(one.n_in, one.n_out) for one in adapted(shape, work)] or [(0, 0)]
    match work.variant:
        case "dora":  # an identity in float32 and cast, or the product, weight and sum in float32
            return max(max(6 * n_in**2, 16 * n_in * n_out) for n_in, n_out in sizes)
        case "osf":  # the factors' products with their singular values, and their gradients
            return 12 * work.rank * max(n_in + n_out for n_in, n_out in sizes)
        case _:
            return 0


def _matrices(shape: Shape, work: Workload) -> list[tuple[Linear, int]]:
    """What gets adapters; fused experts take plain LoRA only."""
    found = targeted(shape, work.target_modules, work.layers)
    plain = work.variant in LOW_RANK
    return [(one, count) for one, count in found if plain or one not in shape.fused]


def adapted(shape: Shape, work: Workload) -> list[Linear]:
    """The matrices of one decoder layer that have adapters."""
    return [one for one, count in _matrices(shape, work) if count and one in shape.linears]


def _trained(matrix: Linear, work: Workload) -> int:
    """Parameters of one matrix's adapter."""
    low_rank = matrix.each(work.rank)
    match work.variant:
        case "dora":
            return low_rank + matrix.n_out
        case "oft":  # a skew matrix for each block
            return matrix.n_in // work.rank * (work.rank * (work.rank - 1) // 2)
        case "osf":  # and a singular value for each direction
            return work.rank * (matrix.n_in + matrix.n_out + 1)
        case "corda" | "guardspace":
            return 2 * low_rank
        case _:
            return low_rank
