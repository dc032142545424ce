"""Where the columns of groups lie in the answers of TorchRec.

Columns are found by key, never by place: their order in a KeyedTensor is that of the sharding. That is
worked out once; neighbours are then taken as one slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from rec.embedding.inputs import divides, ids_per_row, rows_of
from rec.embedding.parts import Part
from rec.embedding.plan import Lookup, Plan, Use


@dataclass
class Piece:
    """Columns of a block: some of a KeyedTensor's values, or the answer to a use.

    Attributes:
        part: number of the KeyedTensor.
        start, stop: columns [start, stop).
        first, last: which of the parts that these columns are split into, [first, last).
        lookup: one of those that it consists of, which tells its rows.
        divide: the look-up whose mean this is, to be divided by the number of its ids.
        use: the use, when the columns are no part of a KeyedTensor.
    """

    part: int = -1
    start: int = 0
    stop: int = 0
    first: int = 0
    last: int = 0
    lookup: Lookup | None = None
    divide: Lookup | None = None
    use: Use | None = None

    def take(
        self, columns: list[tuple[Tensor, ...]], found: dict[Use, Tensor], features: dict[str, Tensor]
    ) -> Sequence[Tensor]:
        """The columns, from left to right."""
        if self.use is not None:
            return (found[self.use],)
        taken: Sequence[Tensor] = columns[self.part][self.first : self.last]
        assert self.lookup is not None
        rows = rows_of(self.lookup, features)
        if taken[0].shape[0] != rows:
            taken = [values[:rows] for values in taken]
        if self.divide is None:
            return taken
        ids = ids_per_row(self.divide, features).clamp(min=1).unsqueeze(1)
        return [values / ids for values in taken]


def write_recipes(
    plan: Plan, parts: Sequence[Part], layouts: Sequence[Sequence[tuple[str, int]]]
) -> tuple[list[list[Piece]], list[list[int]]]:
    """Where the columns of each block are, neighbours in one slice.

    Args:
        plan: blocks and tables.
        parts: the pooled collections.
        layouts: (key, width) of each one's answer, from left to right.

    Returns:
        the pieces of each block, and the widths into which each answer must be split for them
    """
    places: dict[tuple[str, str], tuple[int, int, Lookup]] = {}
    for number, (part, layout) in enumerate(zip(parts, layouts, strict=True)):
        by_key = {lookup.key: lookup for lookup in part.lookups}
        start = 0
        for key, width in layout:
            lookup = by_key[key]
            places[lookup.table, lookup.feature] = (number, start, lookup)
            start += width
    recipes = []
    for uses in plan.blocks:
        recipe: list[Piece] = []
        for use in uses:
            if (use.table, use.feature) not in places:
                recipe.append(Piece(use=use))
                continue
            number, start, lookup = places[use.table, use.feature]
            dim = plan.tables[use.table].dim
            last = recipe[-1] if recipe else None
            divide = lookup if divides(lookup) else None
            # Padding ends a slice by itself: the next one does not start where it stops.
            if last and last.part == number and last.stop == start and not divide and not last.divide:
                recipe[-1] = Piece(part=number, start=last.start, stop=start + dim, lookup=lookup)
            else:
                recipe.append(Piece(part=number, start=start, stop=start + dim, lookup=lookup, divide=divide))
        recipes.append(recipe)
    return recipes, _cut(recipes, [sum(width for _, width in layout) for layout in layouts])


def _cut(recipes: list[list[Piece]], widths: list[int]) -> list[list[int]]:
    """How to split each KeyedTensor so that every piece is some neighbouring parts; tells the pieces which.

    Args:
        recipes: the pieces of all blocks.
        widths: columns of each KeyedTensor.

    Returns:
        widths of the parts of each
    """
    pieces = [piece for recipe in recipes for piece in recipe if piece.use is None]
    sizes = []
    for number, width in enumerate(widths):
        own = [piece for piece in pieces if piece.part == number]
        cuts = sorted({0, width, *(p.start for p in own), *(p.stop for p in own)})
        for piece in own:
            piece.first, piece.last = cuts.index(piece.start), cuts.index(piece.stop)
        sizes.append([b - a for a, b in pairwise(cuts)])
    return sizes
