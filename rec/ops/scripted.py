"""Functions that stay one call in a traced graph, for TorchScript to compile with their loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import fx

F = TypeVar("F", bound=Callable[..., Any])


def scriptable(function: F) -> F:
    """Mark a function of ATen calls whose loops follow the data: FX cannot unroll it, TorchScript compiles it.

    The exported model has its compiled body, and needs nothing of ours.
    """
    function.is_scriptable = True  # type: ignore[attr-defined]
    return function


def graph_call(function: Callable[..., Any], *arguments: Any) -> fx.Proxy:
    """One node of the graph being traced, which calls a `scriptable` function.

    Args:
        function: the node's target.
        arguments: at least one is a proxy.
    """
    assert function.is_scriptable  # type: ignore[attr-defined]
    tracer = next(a.tracer for a in arguments if isinstance(a, fx.Proxy))
    return tracer.create_proxy("call_function", function, arguments, {})
