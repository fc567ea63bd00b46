"""Forms the change of a matrix from its two factors, and finds factors of a change again."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import torch

OVERSAMPLED, ROUNDS = 16, 6
"""Of the randomised decomposition (arXiv:0909.4061)."""
Pair: TypeAlias = "tuple[torch.Tensor, torch.Tensor]"
"""A (r, in) and B (out, r)."""


def nearest(change: torch.Tensor, rank: int) -> Pair:
    """Factors A (rank, in) with orthonormal rows, and B, of the nearest matrix of that rank.

    Args:
        change: shape (out, in).
        rank: at most that of the matrix is used.
    """
    import torch

    rank, full = min(rank, *change.shape), min(change.shape)
    u, s, v = torch.svd_lowrank(change, q=min(rank + OVERSAMPLED, full), niter=ROUNDS)
    return v[:, :rank].T.contiguous(), u[:, :rank] * s[:rank]


def seeded_nearest(change: torch.Tensor, rank: int, seed: int) -> Pair:
    """`nearest`, with random numbers of its own."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nearest(change, rank)


def inner(first: Pair, second: Pair) -> float:
    """Sum of the products of the entries of B₁·A₁ and B₂·A₂: tr((B₁ᵀB₂)(A₂A₁ᵀ))."""
    (a1, b1), (a2, b2) = ((a.double(), b.double()) for a, b in (first, second))
    return float(((b1.T @ b2) * (a1 @ a2.T)).sum())
