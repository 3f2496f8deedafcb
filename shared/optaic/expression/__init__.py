"""The expression language: parsing with exact errors, for which the standard library is enough, and local evaluation.

`evaluate` loads what computes on first use; `optaic.expression.compiler` evaluates what is parsed already.
"""

from optaic.expression.calls import list_called
from optaic.expression.errors import ExpressionError, Reason, suggest
from optaic.expression.library import MACROS
from optaic.expression.local import evaluate
from optaic.expression.macros import Macro
from optaic.expression.names import find_namesakes, read_parts, rename_tables, spell, spell_column, spellings
from optaic.expression.operators import FIRST_OPERATORS, OPERATORS
from optaic.expression.parser import MAX_DEPTH, MAX_LENGTH, MAX_NODES, check_macro, parse
from optaic.expression.signature import Parameter, Scope, Signature
from optaic.expression.tree import Binary, Call, Column, Expression, Negate, Node, Number, Text

__all__ = [
    "FIRST_OPERATORS",
    "MACROS",
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
    "Text",
    "check_macro",
    "evaluate",
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
