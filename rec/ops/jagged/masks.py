"""Which places of a padded rectangle count, and which of them a place may see."""

# B rows, L places of queries, S places of keys
from __future__ import annotations

from torch import Tensor


def padding_mask(lengths_B: Tensor, places: int) -> Tensor:
    """True where a row has a value: bool [B, places].

    Args:
        lengths_B: values of each row, integer [B].
        places: of the rectangle.
    """
    return _numbers(lengths_B, places).unsqueeze(0) < lengths_B.unsqueeze(1)


def causal_mask(places: int, like: Tensor) -> Tensor:
    """True where a place may see another of its sequence, itself and those before it: bool [places, places].

    Args:
        places: of the rectangle.
        like: an integer tensor, whose device is taken.
    """
    at_L = _numbers(like, places)
    return at_L.unsqueeze(1) >= at_L.unsqueeze(0)


def causal_cross_mask(queries_B: Tensor, keys_B: Tensor, queries: int, keys: int) -> Tensor:
    """True where a query may see a key of another sequence: up to its own place and |S - L| more.

    As in MulT (Tsai et al., ACL 2019), which hides `torch.triu(torch.ones(L, S), 1 + abs(S - L))`; here L and S are
    the lengths of each row, so that padding changes nothing.

    Args:
        queries_B: queries of each row, integer [B].
        keys_B: keys of each row, integer [B].
        queries: places of the rectangle for queries.
        keys: places of the rectangle for keys.

    Returns:
        bool [B, queries, keys]
    """
    more_B = (keys_B - queries_B).abs()
    at_L, at_S = _numbers(queries_B, queries), _numbers(keys_B, keys)
    return at_S.view(1, 1, -1) <= at_L.view(1, -1, 1) + more_B.view(-1, 1, 1)


def _numbers(like: Tensor, places: int) -> Tensor:
    # A sum and no arange: where it is traced, the device is that of the data.
    return like.new_ones(places).cumsum(0) - 1
