"""A calculator for what a model writes: + - * / and brackets on decimal numbers, nothing else."""

from __future__ import annotations

import ast
import operator
from decimal import Context, Decimal, DecimalException, localcontext

ERROR = "error"
LONGEST = 24
"""Characters of a result at most."""

_LONGEST_EXPRESSION = 200
_OPERATIONS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_SIGNS = {ast.UAdd: operator.pos, ast.USub: operator.neg}


def worked_out(expression: str) -> str:
    """The value of an expression, as text; ``ERROR`` for what is none, or has no value of ``LONGEST`` characters.

    Values are rounded to twelve digits: a third is 0.333333333333.
    """
    if len(expression) > _LONGEST_EXPRESSION:
        return ERROR
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        with localcontext(Context(prec=12)):
            value = _value(tree)
            text = f"{value.normalize():f}" if value.is_finite() and abs(value.adjusted()) < LONGEST else ERROR
    # What a model writes is wrong in many ways; all of them get the same answer.
    except (SyntaxError, ValueError, DecimalException, RecursionError, MemoryError):
        return ERROR
    return text if len(text) <= LONGEST else ERROR


def _value(node: ast.expr) -> Decimal:
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return +Decimal(str(node.value))
        case ast.BinOp() if type(node.op) in _OPERATIONS:
            return _OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
        case ast.UnaryOp() if type(node.op) in _SIGNS:
            return _SIGNS[type(node.op)](_value(node.operand))
    raise ValueError("no arithmetic")
