"""TorchScript, whose only call is here: torch.jit.script is deprecated in favour of torch.export (program.py).

FX first: it unrolls the Python of our modules (dicts, loops over features, branches on the config) into one
flat graph of ATen calls, which TorchScript then takes without annotations anywhere in the models.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from rec.config.errors import ConfigError

# Of ops that PyTorch itself carries; anything else would need a library to be loaded first.
NAMESPACES = ("aten", "prim", "prims")


def trace(module: nn.Module) -> fx.GraphModule:
    """The module as a flat graph from a dict of features to a dict of scores."""
    try:
        graph = fx.symbolic_trace(module.eval())
    except fx.proxy.TraceError as error:
        raise ConfigError(
            f"the model cannot be exported: it branches on the content of a tensor ({error})",
            hint="branch on the config only, or use torch.where",
        ) from error
    for node in graph.graph.nodes:
        # Under postponed annotations FX has read names, not types. TorchScript infers the output.
        node.type = dict[str, Tensor] if node.op == "placeholder" else None
    graph.recompile()
    return graph


def pruned(graph: fx.GraphModule) -> fx.GraphModule:
    """The graph without what leads to no output, and without the weights that only that reads."""
    graph.graph.eliminate_dead_code()
    # A module made from a graph takes the attributes that the graph names.
    kept = fx.GraphModule(graph, graph.graph)
    kept.delete_all_unused_submodules()
    return kept.eval()


def script(graph: fx.GraphModule) -> torch.jit.ScriptModule:
    """The traced module scripted, with its weights frozen into the graph."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        # torch.jit looks at the source of nn.Module.__init__ and finds annotations that it will not use.
        warnings.filterwarnings("ignore", "The TorchScript type system", UserWarning)
        # Not its numeric rewrites: they fold batch norm into a linear even where others read that linear's
        # output, and round otherwise than the trained network (DCNv3 makes 4e-4 of that).
        return torch.jit.freeze(torch.jit.script(graph.eval()), optimize_numerics=False)


def save(scripted: torch.jit.ScriptModule, path: Path) -> None:
    """Write a scripted module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(scripted, str(path))


def load(path: Path) -> torch.jit.ScriptModule:
    """Read a scripted module; needs nothing of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return torch.jit.load(str(path), map_location="cpu").eval()


def libraries(scripted: torch.jit.ScriptModule) -> list[str]:
    """Namespaces of ops beyond PyTorch's own that must be loaded before the model."""
    names = {node.kind().split("::")[0] for node in _nodes(scripted.inlined_graph)}
    return sorted(names - set(NAMESPACES))


def _nodes(block: torch._C.Graph | torch._C.Block) -> list[torch._C.Node]:
    nodes = []
    for node in block.nodes():
        nodes.append(node)
        for inner in node.blocks():
            nodes += _nodes(inner)
    return nodes
