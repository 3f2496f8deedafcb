"""The expression language: parsing with exact errors, no evaluation and nothing beyond the standard library.

`optaic.expression.compiler` turns a parsed expression into polars work; it is imported on its own.
"""

from optaic.expression.errors import ExpressionError, Reason, suggest
from optaic.expression.macros import Macro
from optaic.expression.names import find_namesakes, read_parts, rename_tables, spell, spell_column, spellings
from optaic.expression.operators import OPERATORS
from optaic.expression.parser import MAX_DEPTH, MAX_LENGTH, MAX_NODES, check_macro, list_called, parse
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
    "Macro",
    "Negate",
    "Node",
    "Number",
    "Parameter",
    "Reason",
    "Scope",
    "Signature",
    "check_macro",
    "find_namesakes",
    "list_called",
    "parse",
    "read_parts",
    "rename_tables",
    "spell",
    "spell_column",
    "spellings",
    "suggest",
]
