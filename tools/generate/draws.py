"""Random draws that the generators share."""

from __future__ import annotations

import numpy as np


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + exp(-logits))."""
    return 1 / (1 + np.exp(-logits))


def zipf_ids(generator: np.random.Generator, *, size: int, vocabulary: int, exponent: float) -> np.ndarray:
    """Ids in [0, vocabulary) whose probability falls as rank^-exponent; the rank is scrambled over the ids.

    By inverting the distribution function of the bounded power law, O(1) a draw however large the vocabulary.
    """
    power = 1.0 - exponent
    draws = generator.random(size)
    if abs(power) < 1e-9:
        ranks = np.exp(draws * np.log(vocabulary + 1.0))
    else:
        ranks = (1.0 + draws * ((vocabulary + 1.0) ** power - 1.0)) ** (1.0 / power)
    place = np.minimum(ranks.astype(np.int64) - 1, vocabulary - 1)
    step = next(k for k in range(int(vocabulary * 0.618) + 1, 2 * vocabulary + 2) if np.gcd(k, vocabulary) == 1)
    return place * step % vocabulary
