"""Sparse optimizers inside the backward pass, for those that fbgemm has no kernel of.

`LazyTables` stands where torchrec's look-up keeps fbgemm's table batched embedding: it uses that module's
storage and forward kernel, and in the backward pass sums the gradients of equal ids, then updates the
touched rows and their optimizer state. Vectorised over all tables of one width, so the Python cost is
per step and not per table.
"""

# B rows of the batch, T features, N ids, U different rows, D embedding width
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from rec.embedding.rules import SparseRule

# Rows updated at a time: a block and its states stay in the cache of one core. Adam on 55k rows of
# width 16, one thread: 8.5 ms in blocks of 4096, 14.8 ms in one.
BLOCK_ROWS = 4096


@dataclass
class Run:
    """Neighbouring tables of one width: one matrix to update.

    Attributes:
        first, last: features [first, last) of the look-up.
        column: first column of their pooled output.
        dim: columns that count; the storage may be padded.
        weight: all rows, [R, D], a view of the storage.
        row_offsets: first row of the table of each feature, int64 [last - first].
        state: optimizer states by name, [R, D] or [R].
    """

    first: int
    last: int
    column: int
    dim: int
    weight: Tensor
    row_offsets: Tensor
    state: dict[str, Tensor] = field(default_factory=dict)


class LazyTables(nn.Module):
    """A table batched embedding trained by a `SparseRule`.

    Args:
        inner: fbgemm's module, of which storage and forward are used (built with an optimizer without
            state, EXACT_SGD).
        rule: the update.
        dims: columns of each table that count.
        pooled: whether it sums the ids of each row.
    """

    def __init__(self, inner: Any, rule: SparseRule, *, dims: Sequence[int], pooled: bool) -> None:
        super().__init__()
        self.inner = inner
        self.rule = rule
        self.pooled = pooled
        self.lr = rule.lr
        # Of the whole job, for the bias corrections; held as a tensor to be saved and loaded in place.
        self.steps = torch.zeros(1, dtype=torch.int64)
        self._table_map = list(inner.feature_table_map)
        self._tables = inner.split_embedding_weights()
        self._first_rows: list[tuple[int, int]] = [(-1, 0)] * len(self._tables)
        self.runs = self._build_runs(dims)
        self._anchor = nn.Parameter(torch.zeros(()))
        self._bag_rows: dict[tuple[int, int], Tensor] = {}

    def __getattr__(self, name: str) -> Any:
        # What torchrec asks of fbgemm's module beyond the look-up.
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("inner"), name)

    def set_learning_rate(self, lr: float) -> None:
        """Learning rate of the next steps."""
        self.lr = lr

    def table_state(self, table: int) -> dict[str, Tensor]:
        """States of one table, views of what is updated: [rows, D] or [rows]; `step` is the job's, [1]."""
        run, first = self._first_rows[table]
        rows = self._tables[table].shape[0]
        state = {name: values[first : first + rows] for name, values in self.runs[run].state.items()}
        return {**state, "step": self.steps} if self.rule.counts_steps else state

    def forward(self, indices: Tensor, offsets: Tensor, per_sample_weights: Tensor | None = None) -> Tensor:
        """Look up, as fbgemm's module does.

        Args:
            indices: ids, feature by feature, int64 [N].
            offsets: where the ids of each (feature, row) start, int64 [T B + 1].
            per_sample_weights: [N], when pooled.

        Returns:
            [B, sum D] when pooled, else [N, D]
        """
        if not torch.is_grad_enabled():
            return self.inner(indices, offsets, per_sample_weights)
        return _LazyLookup.apply(self._anchor, self, indices, offsets, per_sample_weights)

    def _build_runs(self, dims: Sequence[int]) -> list[Run]:
        specs = [(w.shape[1], dims[i], w.dtype) for i, w in enumerate(self._tables)]
        runs: list[Run] = []
        column = feature = 0
        table = 0
        while table < len(specs):
            end = table
            while end < len(specs) and specs[end] == specs[table] and self._follows(table, end):
                end += 1
            width, dim, _ = specs[table]
            starts = [0]
            for t in range(table, end):
                self._first_rows[t] = (len(runs), starts[-1])
                starts.append(starts[-1] + self._tables[t].shape[0])
            first = feature
            while feature < len(self._table_map) and self._table_map[feature] < end:
                feature += 1
            weight = self._tables[table].detach().as_strided((starts[-1], width), (width, 1))
            offsets = torch.tensor([starts[self._table_map[f] - table] for f in range(first, feature)])
            run = Run(first, feature, column, dim, weight, offsets.to(weight.device))
            for name in self.rule.element_states:
                run.state[name] = torch.full(weight.shape, self.rule.initial(name), device=weight.device)
            for name in self.rule.row_states:
                run.state[name] = torch.full((starts[-1],), self.rule.initial(name), device=weight.device)
            runs.append(run)
            column += width * (feature - first)
            table = end
        return runs

    def _follows(self, first: int, table: int) -> bool:
        """Whether a table lies directly behind those from `first` on, in memory."""
        if table == first:
            return True
        before = self._tables[table - 1]
        return self._tables[table].data_ptr() == before.data_ptr() + before.numel() * before.element_size()

    def apply_gradient(self, grad: Tensor, indices: Tensor, offsets: Tensor, weights: Tensor | None) -> None:
        """Update the touched rows by the gradient of a look-up's output."""
        if self.rule.max_gradient:
            # Of the output, before equal ids are summed: as fbgemm does.
            grad = grad.clamp(-self.rule.max_gradient, self.rule.max_gradient)
        self.steps += 1
        step = int(self.steps)
        features = len(self._table_map)
        batch = (offsets.numel() - 1) // features
        for run in self.runs:
            ids, lengths, span = indices, offsets.diff(), slice(None)
            if len(self.runs) > 1:
                begin, end = int(offsets[run.first * batch]), int(offsets[run.last * batch])
                span = slice(begin, end)
                ids, lengths = indices[span], lengths[run.first * batch : run.last * batch]
            if ids.numel() == 0 and not self.rule.all_rows:
                continue
            per_feature = lengths.view(-1, batch).sum(dim=1)
            rows = ids + torch.repeat_interleave(run.row_offsets, per_feature, output_size=ids.numel())
            if self.pooled:
                width = run.weight.shape[1] * (run.last - run.first)
                values = grad[:, run.column : run.column + width].reshape(-1, run.weight.shape[1])
                source = self._source(run.last - run.first, batch, lengths, ids)
            else:
                values, source = grad[span], None
            self._update(run, rows, values, source, weights[span] if weights is not None else None, step)

    def _source(self, features: int, batch: int, lengths: Tensor, ids: Tensor) -> Tensor:
        """Row of the gradient, seen as [B T, D], that each id gets: int64 [N]."""
        key = (features, batch)
        if key not in self._bag_rows:
            # Bags are numbered feature by feature, rows of the gradient batch row by batch row.
            numbers = torch.arange(features * batch, device=ids.device).view(batch, features)
            self._bag_rows = {key: numbers.t().reshape(-1)}
        return torch.repeat_interleave(self._bag_rows[key], lengths, output_size=ids.numel())

    def _update(
        self, run: Run, rows: Tensor, values: Tensor, source: Tensor | None, weights: Tensor | None, step: int
    ) -> None:
        touched, grads = coalesce(rows, values, source, weights)
        if self.rule.all_rows:
            self._update_all(run, touched, grads, step)
            return
        for start in range(0, touched.numel(), BLOCK_ROWS):
            at = touched[start : start + BLOCK_ROWS]
            w = run.weight.index_select(0, at).float()
            state = {name: values.index_select(0, at) for name, values in run.state.items()}
            self.rule.step(w, grads[start : start + BLOCK_ROWS], state, lr=self.lr, step=step, dim=run.dim)
            run.weight.index_copy_(0, at, w.to(run.weight.dtype))
            for name, values in state.items():
                run.state[name].index_copy_(0, at, values)

    def _update_all(self, run: Run, touched: Tensor, grads: Tensor, step: int) -> None:
        """A dense step: rows that were not looked up have no gradient, but decay and moments of their own."""
        for start in range(0, run.weight.shape[0], BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            rows = run.weight[block]
            first, last = torch.searchsorted(touched, torch.tensor([start, start + rows.shape[0]])).tolist()
            g = torch.zeros(rows.shape, dtype=torch.float32, device=rows.device)
            g.index_copy_(0, touched[first:last] - start, grads[first:last])
            w = rows.float()
            state = {name: values[block] for name, values in run.state.items()}
            self.rule.step(w, g, state, lr=self.lr, step=step, dim=run.dim)
            if w.data_ptr() != rows.data_ptr():
                rows.copy_(w)


def coalesce(
    rows_N: Tensor, values: Tensor, source_N: Tensor | None, weights_N: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Sum the gradients of equal rows, in the order in which they appear.

    Args:
        rows_N: row that each id touches.
        values: gradients, [M, D].
        source_N: which of `values` an id gets; None is the id's own place.
        weights_N: factor of each id, None for 1.

    Returns:
        the different rows in ascending order, [U], and their gradients, fp32 [U, D]
    """
    # A stable sort and sums in order: the same bits on any number of threads.
    sorted_N, order_N = torch.sort(rows_N, stable=True)
    is_first = torch.ones_like(sorted_N, dtype=torch.bool)
    torch.ne(sorted_N[1:], sorted_N[:-1], out=is_first[1:])
    starts_U = is_first.nonzero().squeeze(1)
    picked_N = order_N if source_N is None else source_N.index_select(0, order_N)
    factors = None if weights_N is None else weights_N.index_select(0, order_N)
    # Gathers and sums in one pass.
    sums_UD = torch.nn.functional.embedding_bag(
        picked_N, values.float().contiguous(), starts_U, mode="sum", per_sample_weights=factors
    )
    return sorted_N.index_select(0, starts_U), sums_UD


class _LazyLookup(torch.autograd.Function):
    """Forward: fbgemm's. Backward: no gradient comes out, the tables are updated."""

    @staticmethod
    def forward(
        ctx: Any, anchor: Tensor, module: LazyTables, indices: Tensor, offsets: Tensor, weights: Tensor | None
    ) -> Tensor:
        ctx.module = module
        ctx.save_for_backward(indices, offsets, *([] if weights is None else [weights]))
        return module.inner(indices, offsets, weights)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, ...]:
        indices, offsets, *weights = ctx.saved_tensors
        ctx.module.apply_gradient(grad, indices, offsets, weights[0] if weights else None)
        return None, None, None, None, None
