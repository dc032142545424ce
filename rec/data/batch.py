"""One step's rows as tensors. The only file of `rec.data` that imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


# Start of every tensor in packed memory: enough for any dtype and for coalesced reads.
_ALIGN = 64


class Arrays(Protocol):
    """What `rec.data.encoder.Encoder.encode` returns."""

    features: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    keys: dict[str, np.ndarray]
    size: int
    candidates: dict[str, np.ndarray]


@dataclass(frozen=True)
class Batch:
    """Rows of one step, encoded (B rows; names as in `rec.data.encoder`).

    Attributes:
        features: `<feature>.values`, `.lengths`, `.inner_lengths`, `.weights`; with sampled negatives those of the
            item tower have `items` rows, the first B of which are the rows' own.
        labels: name -> float32 [B] or [B, k].
        weights: name -> float32 [B].
        keys: column -> int64 [B], hashed, for grouped metrics.
        size: B.
        position: where the reader stands after this batch, JSON-able; give it to `Loader.epoch` to go on.
        rows: the original columns where the loader keeps them (predict).
        filler: this rank has no rows left while another one has. The batch repeats earlier rows: run it so that
            collectives match, but its loss counts 0 and no metric sees it.
        candidates: of a retrieval model, see `rec.data.candidates`.
    """

    features: dict[str, Tensor]
    labels: dict[str, Tensor] = field(default_factory=dict)
    weights: dict[str, Tensor] = field(default_factory=dict)
    keys: dict[str, Tensor] = field(default_factory=dict)
    size: int = 0
    position: dict[str, Any] = field(default_factory=dict)
    rows: pa.RecordBatch | None = None
    filler: bool = False
    candidates: dict[str, Tensor] = field(default_factory=dict)

    @property
    def items(self) -> int:
        """Rows of the item tower's features: B, and the sampled negatives."""
        keys = self.candidates.get("item_key")
        return self.size if keys is None else keys.shape[0]

    @staticmethod
    def from_arrays(
        arrays: Arrays, *, position: dict[str, Any] | None = None, rows: pa.RecordBatch | None = None
    ) -> Batch:
        """Tensors on the memory of encoded arrays."""
        return Batch(
            features=_tensors(arrays.features),
            labels=_tensors(arrays.labels),
            weights=_tensors(arrays.weights),
            keys=_tensors(arrays.keys),
            candidates=_tensors(arrays.candidates),
            size=arrays.size,
            position=position or {},
            rows=rows,
        )

    @staticmethod
    def concat(batches: Sequence[Batch]) -> Batch:
        """Rows of all batches in order, e.g. the micro-batches of a step; position is the last one's.

        Candidates belong to one batch each and are left out where there are several.
        """
        if len(batches) == 1:
            return batches[0]
        if any(b.filler for b in batches):
            # A filler has no rows of its own; it stands for something only where it stands alone.
            real = [b for b in batches if not b.filler]
            return replace(Batch.concat(real or batches[:1]), position=batches[-1].position)
        rows = None
        if batches[0].rows is not None:
            import pyarrow as pa

            rows = pa.Table.from_batches([b.rows for b in batches]).combine_chunks().to_batches()[0]
        return Batch(
            features=_cat([b.features for b in batches]),
            labels=_cat([b.labels for b in batches]),
            weights=_cat([b.weights for b in batches]),
            keys=_cat([b.keys for b in batches]),
            size=sum(b.size for b in batches),
            position=batches[-1].position,
            rows=rows,
        )

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The batch on a device; a packed one in a single copy."""
        memory = self._memory()
        if memory is None:
            return self._map(lambda t: t.to(device, non_blocking=non_blocking))
        moved = memory.to(device, non_blocking=non_blocking)
        return self._map(lambda t: _view(moved, int(t.storage_offset()) * t.element_size(), t))

    def pin_memory(self) -> Batch:
        """The batch in page-locked memory, all in one piece."""
        return self.pack(pin=True)

    def pack(self, *, pin: bool = False) -> Batch:
        """The batch with all tensors in one allocation, so that `to` copies once and not once per tensor."""
        size = sum(_room(t) for t in self._tensors())
        memory = torch.empty(size, dtype=torch.uint8, pin_memory=pin)
        taken = 0

        def copy(tensor: Tensor) -> Tensor:
            nonlocal taken
            view = _view(memory, taken, tensor)
            view.copy_(tensor)
            taken += _room(tensor)
            return view

        return self._map(copy)

    def record_stream(self, stream: torch.Stream) -> None:
        for tensor in self._tensors():
            tensor.record_stream(stream)  # type: ignore[arg-type]

    def _tensors(self) -> Iterator[Tensor]:
        for tensors in (self.features, self.labels, self.weights, self.keys, self.candidates):
            yield from tensors.values()

    def _memory(self) -> Tensor | None:
        """The bytes of the one allocation that all tensors lie in, None when there are several."""
        tensors = list(self._tensors())
        storages = {t.untyped_storage().data_ptr() for t in tensors}
        if len(tensors) < 2 or len(storages) > 1 or tensors[0].is_meta or not all(t.is_contiguous() for t in tensors):
            return None
        return torch.empty(0, dtype=torch.uint8, device=tensors[0].device).set_(tensors[0].untyped_storage())

    def _map(self, fn: Callable[[Tensor], Tensor]) -> Batch:
        def apply(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: fn(tensor) for name, tensor in tensors.items()}

        return replace(
            self,
            features=apply(self.features),
            labels=apply(self.labels),
            weights=apply(self.weights),
            keys=apply(self.keys),
            candidates=apply(self.candidates),
        )


def _room(tensor: Tensor) -> int:
    return -(-tensor.nbytes // _ALIGN) * _ALIGN


def _view(memory: Tensor, at: int, like: Tensor) -> Tensor:
    """Bytes of a flat uint8 tensor from `at` on, as a tensor like another."""
    return memory[at : at + like.nbytes].view(like.dtype).view(like.shape)


def _tensors(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    # Read-only arrays are views of Arrow memory: a copy can be written to and does not keep a whole window alive.
    return {name: torch.from_numpy(a if a.flags.writeable else a.copy()) for name, a in arrays.items()}


def _cat(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    # Values, lengths, inner lengths and weights are all flat along rows: joining each joins the jagged whole.
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
