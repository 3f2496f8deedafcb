"""The expression language: parsing with exact errors, no evaluation and nothing beyond the standard library.

`optaic.expression.compiler` turns a parsed expression into polars work; it is imported on its own.
"""

from optaic.expression.errors import ExpressionError, Reason
from optaic.expression.operators import OPERATORS
from optaic.expression.parser import MAX_DEPTH, MAX_LENGTH, MAX_NODES, parse
from optaic.expression.signature import Parameter, Scope, Signature
from optaic.expression.tree import Binary, Call, Column, Expression, Negate, Node, Number

__all__ = [
    "MAX_DEPTH",
    "MAX_LENGTH",
    "MAX_NODES",
    "OPERATORS",
    "Binary",
    "Call",
    "Column",
    "Expression",
    "ExpressionError",
    "Negate",
    "Node",
    "Number",
    "Parameter",
    "Reason",
    "Scope",
    "Signature",
    "parse",
]
