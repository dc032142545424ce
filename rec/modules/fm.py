"""Factorisation machine: all pairs of fields in linear time."""

from __future__ import annotations

# B rows, F fields, D embedding width
from torch import Tensor


def factorization_machine(x_BFD: Tensor) -> Tensor:
    """Sum over feature pairs of e_i * e_j, as ((sum e)^2 - sum e^2) / 2 in O(F D).

    Rendle, "Factorization Machines", ICDM 2010, Lemma 3.1; the sum over D is left to the caller.

    Args:
        x_BFD: field embeddings, [B, F, D].
    Returns:
        [B, D]
    """
    total_BD = x_BFD.sum(dim=1)
    return 0.5 * (total_BD * total_BD - (x_BFD * x_BFD).sum(dim=1))
