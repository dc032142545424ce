"""The ids, lengths and weights of a look-up, from the flat tensors of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from rec.embedding.plan import ROW, Lookup, Plan
from rec.ops.jagged import normalised_weights, segment_sum, sum_lengths


def ids_of(lookup: Lookup, features: dict[str, Tensor]) -> Tensor:
    """Ids [N]."""
    return features[f"{lookup.feature}.values"]


def rows_of(lookup: Lookup, features: dict[str, Tensor]) -> int:
    """Rows of a feature: those of the batch, or of all items where negatives were sampled."""
    return features[f"{lookup.feature}.lengths"].shape[0]


def ids_per_row(lookup: Lookup, features: dict[str, Tensor]) -> Tensor:
    """Number of ids of each row, [B]."""
    lengths = features[f"{lookup.feature}.lengths"]
    return sum_lengths(features[f"{lookup.feature}.inner_lengths"], lengths) if lookup.multi else lengths


def weights_of(lookup: Lookup, features: dict[str, Tensor], lengths: Tensor) -> Tensor:
    """Weights [N] with which the ids of each segment are summed.

    A weighted mean is sum(w e) / sum(w): its weights are divided by their sum in the segment.

    Args:
        lookup: of a weighted feature.
        features: the batch.
        lengths: ids of each segment.
    """
    weights = features[f"{lookup.feature}.weights"]
    return normalised_weights(weights, lengths) if lookup.pooling == "mean" else weights


def divides(lookup: Lookup) -> bool:
    """Whether a sum must be divided by the number of ids (a weighted mean has that in its weights)."""
    return lookup.pooling == "mean" and not lookup.weighted


def pooled(rows_ND: Tensor, lookup: Lookup, features: dict[str, Tensor], *, mode: str) -> Tensor:
    """Pool the embeddings of ids, in fp32.

    Args:
        rows_ND: embedding of each id, [N, D].
        lookup: what they are of.
        features: the batch.
        mode: ROW pools all ids of a row, STEP all ids of a step.

    Returns:
        [B, D] or [sum L, D]
    """
    rows_ND = rows_ND.float()
    if mode == ROW:
        lengths = ids_per_row(lookup, features)
    elif lookup.multi:
        lengths = features[f"{lookup.feature}.inner_lengths"]
    elif lookup.weighted and lookup.pooling == "sum":
        return rows_ND * features[f"{lookup.feature}.weights"].unsqueeze(1)
    else:
        return rows_ND  # one id a step: its mean is itself
    if lookup.weighted:
        rows_ND = rows_ND * weights_of(lookup, features, lengths).unsqueeze(1)
    total = segment_sum(rows_ND, lengths)
    return total / lengths.clamp(min=1).unsqueeze(1) if divides(lookup) else total


def whole_tables(plan: Plan, features: dict[str, Tensor]) -> dict[str, Tensor]:
    """Ids of the look-ups of whole tables, as if the batch's first row held all of them.

    So they are looked up and trained as any ids are: with the optimizer of the table, wherever its rows lie.

    Args:
        plan: tables and look-ups.
        features: the batch; tells the number of its rows.

    Returns:
        `<look-up>.values` [rows of the table] and `<look-up>.lengths` [B].
    """
    whole = [lookup for lookup in plan.lookups.values() if lookup.whole]
    if not whole:
        return {}
    like = next(value for name, value in features.items() if name.endswith(".lengths"))
    added: dict[str, Tensor] = {}
    for lookup in whole:
        count = plan.tables[lookup.table].rows
        lengths = torch.zeros_like(like)
        lengths[:1] = count
        added[f"{lookup.feature}.values"] = torch.arange(count, device=like.device)
        added[f"{lookup.feature}.lengths"] = lengths
    return added
