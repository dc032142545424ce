"""Smaller tables in an export: a rewrite of the traced graph, so that neither models nor look-ups know of it."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

DATA_TYPES = ("FP32", "FP16", "INT8")

# N ids, D embedding width, R rows of a table


def quantized(graph: fx.GraphModule, data_type: str) -> fx.GraphModule:
    """The graph with its tables stored in `data_type`; the same object for FP32.

    Rows are turned into float32 when they are read, so sums over ids are float32 as before. INT8 has a scale
    and a smallest value for each row (8 bytes); tables of width 1 and 2 stay as they are, which is smaller.
    """
    if data_type == "FP32":
        return graph
    # Of the graph only: tables that stay are shared with the original.
    rewritten = fx.GraphModule(graph, copy.deepcopy(graph.graph))
    for node in list(rewritten.graph.nodes):
        if node.op == "get_attr" and node.users and all(_is_look_up(user, node) for user in node.users):
            table = _attribute(rewritten, str(node.target))
            if table.dtype == torch.float32 and (data_type == "FP16" or table.shape[1] > 2):
                _replace(rewritten, node, table.detach(), data_type)
    rewritten.delete_all_unused_submodules()
    rewritten.graph.lint()
    rewritten.recompile()
    return rewritten.eval()


def to_int8(table_RD: Tensor) -> tuple[Tensor, Tensor]:
    """Row-wise 8 bits: codes [R, D] uint8, and scale and smallest value [R, 2] of each row."""
    low, high = table_RD.aminmax(dim=1)
    scale = (high - low) / 255
    # A row of equal values has codes 0.
    codes = ((table_RD - low[:, None]) / torch.where(scale > 0, scale, 1.0)[:, None]).round()
    return codes.clamp(0, 255).to(torch.uint8), torch.stack([scale, low], dim=1)


def _replace(module: fx.GraphModule, node: fx.Node, table: Tensor, data_type: str) -> None:
    """Store a table smaller, and widen the rows that each look-up reads."""
    name = "table_" + str(node.target).replace(".", "_")
    graph = module.graph
    if data_type == "FP16":
        if table.abs().max() > torch.finfo(torch.float16).max:
            return  # it would overflow
        module.register_buffer(name, table.half())
    else:
        codes, scales = to_int8(table)
        module.register_buffer(name, codes)
        module.register_buffer(f"{name}_scales", scales)
    for user in list(node.users):
        with graph.inserting_before(user):
            ids = user.args[0]
            rows = graph.call_function(torch.index_select, (graph.get_attr(name), 0, ids))
            rows = graph.call_method("float", (rows,))
            if data_type == "INT8":
                pairs = graph.call_function(torch.index_select, (graph.get_attr(f"{name}_scales"), 0, ids))
                scale = graph.call_method("narrow", (pairs, 1, 0, 1))
                low = graph.call_method("narrow", (pairs, 1, 1, 1))
                rows = graph.call_function(torch.addcmul, (low, rows, scale))
            if user.target is F.embedding_bag:
                # The rows that were read are the table now, and each is its own id.
                count = graph.call_method("size", (ids, 0))
                own = graph.call_function(torch.arange, (count,))
                rows = graph.call_function(F.embedding_bag, (own, rows, *user.args[2:]), user.kwargs)
        user.replace_all_uses_with(rows)
        graph.erase_node(user)
    graph.erase_node(node)


def _is_look_up(user: fx.Node, table: fx.Node) -> bool:
    return user.target in (F.embedding, F.embedding_bag) and len(user.args) > 1 and user.args[1] is table


def _attribute(module: fx.GraphModule, target: str) -> Tensor:
    value: Any = module
    for part in target.split("."):
        value = getattr(value, part)
    return value
