"""The abstract base classes of user code and how `code_ref` names it; it runs nothing and imports no data library."""

from optaic.plugins.base import Accessor, Operator, Pipeline, Store, StoredVersion
from optaic.plugins.context import DateRange, InputTable, Mode, PipelineContext
from optaic.plugins.errors import (
    GuardrailViolated,
    InvalidConfig,
    InvalidExpression,
    InvalidQuery,
    MissingInput,
    NoDataInRange,
    PluginError,
    PluginInvalid,
    PluginNotFound,
    SchemaMismatch,
    SourceNotFound,
    SourceUnavailable,
    UnknownEntity,
    UnparsableData,
    VersionNotFound,
    WriteConflict,
)
from optaic.plugins.loading import load

__all__ = [
    "Accessor",
    "DateRange",
    "GuardrailViolated",
    "InputTable",
    "InvalidConfig",
    "InvalidExpression",
    "InvalidQuery",
    "MissingInput",
    "Mode",
    "NoDataInRange",
    "Operator",
    "Pipeline",
    "PipelineContext",
    "PluginError",
    "PluginInvalid",
    "PluginNotFound",
    "SchemaMismatch",
    "SourceNotFound",
    "SourceUnavailable",
    "Store",
    "StoredVersion",
    "UnknownEntity",
    "UnparsableData",
    "VersionNotFound",
    "WriteConflict",
    "load",
]
