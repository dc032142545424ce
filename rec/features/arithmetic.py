"""Arithmetic expressions of one variable, compiled from a fixed set of Python's syntax: no eval."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import numpy as np

from rec.config.names import listed, suggest

_FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "abs": (1, np.abs),
    "ceil": (1, np.ceil),
    "cos": (1, np.cos),
    "exp": (1, np.exp),
    "floor": (1, np.floor),
    "ln": (1, np.log),
    "log": (1, np.log),
    "log10": (1, np.log10),
    "log1p": (1, np.log1p),
    "log2": (1, np.log2),
    "max": (2, np.maximum),
    "min": (2, np.minimum),
    "pow": (2, np.power),
    "round": (1, np.round),
    "sigmoid": (1, lambda x: 1 / (1 + np.exp(-x))),
    "sign": (1, np.sign),
    "sin": (1, np.sin),
    "sqrt": (1, np.sqrt),
    "tanh": (1, np.tanh),
    "where": (3, np.where),
}
_BINARY: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Mod: np.mod,
    ast.Pow: np.power,
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
_CONSTANTS = {"pi": np.pi, "e": np.e}


class Arithmetic:
    """`y = f(x)` element-wise.

    Numbers, `x`, pi, e, `+ - * / % ** ^`, comparisons (1 or 0), parentheses and the functions of
    `Arithmetic.functions`.

    Args:
        text: e.g. "log1p(max(x, 0)) / 3".

    Raises:
        ValueError: naming what is not understood.
    """

    functions = tuple(_FUNCTIONS)

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            # "^" is a power here, as in the expressions of other feature generators.
            tree = ast.parse(text.replace("^", "**"), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
            raise ValueError(f'"{text}" is no expression ({e.__class__.__name__})') from e
        self._check(tree.body, 100)
        self._body = tree.body

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """float64, the shape of `x`; NaN and infinities come out as numpy gives them."""
        x = np.asarray(x, np.float64)
        with np.errstate(all="ignore"):
            return np.broadcast_to(np.asarray(self._value(self._body, x), np.float64), x.shape)

    def _check(self, node: ast.AST, depth: int) -> None:
        if depth == 0:
            raise ValueError(f'"{self.text[:40]}..." is nested too deeply')
        children: list[ast.AST] = []
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            children = [node.left, node.right]
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            children = [node.operand]
        elif isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _BINARY:
            children = [node.left, node.comparators[0]]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            name = node.func.id
            if name not in _FUNCTIONS:
                raise ValueError(f'"{self.text}" calls "{name}"; {suggest(name, _FUNCTIONS, what="functions are")}')
            if len(node.args) != _FUNCTIONS[name][0]:
                raise ValueError(f'"{self.text}": {name} takes {_FUNCTIONS[name][0]} arguments, found {len(node.args)}')
            children = list(node.args)
        elif isinstance(node, ast.Name):
            if node.id != "x" and node.id not in _CONSTANTS:
                raise ValueError(
                    f'"{self.text}" names "{node.id}"; the variable is "x", constants are {listed(_CONSTANTS)}'
                )
        elif not (isinstance(node, ast.Constant) and type(node.value) in (int, float)):
            raise ValueError(f'"{self.text}": {ast.unparse(node)} is not understood')
        for child in children:
            self._check(child, depth - 1)

    def _value(self, node: ast.AST, x: np.ndarray) -> Any:
        if isinstance(node, ast.BinOp):
            return _BINARY[type(node.op)](self._value(node.left, x), self._value(node.right, x))
        if isinstance(node, ast.UnaryOp):
            value = self._value(node.operand, x)
            return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.Compare):
            result = _BINARY[type(node.ops[0])](self._value(node.left, x), self._value(node.comparators[0], x))
            return np.asarray(result, np.float64)
        if isinstance(node, ast.Call):
            assert isinstance(node.func, ast.Name)
            return _FUNCTIONS[node.func.id][1](*(self._value(a, x) for a in node.args))
        if isinstance(node, ast.Name):
            return x if node.id == "x" else _CONSTANTS[node.id]
        assert isinstance(node, ast.Constant)
        assert isinstance(node.value, (int, float))
        # float: an integer power of huge integers would run for ever in Python's integers
        return np.float64(node.value)
