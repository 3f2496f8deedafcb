# ruff: noqa: N818 - these names are shown to people as a run's error type
"""Define the errors of user code, as types that a run reports; runs and transports are not known here."""

from __future__ import annotations


class PluginError(Exception):
    """A failure with a stable type.

    Raise a subclass, or `PluginError(message, type="YourReason")` for a reason of your own; the run that fails
    shows both. Any other exception is reported too, under its class name.
    """

    def __init__(self, message: str, *, type: str = "") -> None:  # noqa: A002 - the name that runs report it under
        super().__init__(message)
        self.type = type or self.__class__.__name__
        self.message = message


class InvalidConfig(PluginError):
    """A parameter has a value that the code cannot work with."""


class InvalidExpression(PluginError):
    """An expression cannot be parsed, or names columns that its inputs do not have."""


class MissingInput(PluginError):
    """An input of a required role is absent."""


class NoDataInRange(PluginError):
    """The requested dates have no data."""


class SchemaMismatch(PluginError):
    """A table lacks a column, has one of a wrong type, or repeats or lacks a key."""


class InvalidColumnName(PluginError):
    """A table has a column whose name a store or a message cannot carry."""


class SourceNotFound(PluginError):
    """The source does not exist."""


class SourceNotAllowed(PluginError):
    """The policy of the worker does not allow this source, or does not allow a secret to be sent there."""


class SourceUnavailable(PluginError):
    """The source cannot be reached or opened."""


class OutOfRange(PluginError):
    """A number or a time is outside the range that a store keeps; nothing is rounded to fit."""


class UnparsableData(PluginError):
    """The source's data cannot be parsed, for example because of its file format or its dates."""


class InvalidQuery(PluginError):
    """A database refuses the query, or has no such table."""


class UnknownEntity(PluginError):
    """A named entity (symbol) does not exist in the source."""


class GuardrailViolated(PluginError):
    """Produced data breaks a contract that blocks."""


class DeletionRefused(PluginError):
    """A refresh would delete more than it may; nothing was written."""


class NotFitted(PluginError):
    """A model is asked to predict before its training."""


class NoSolution(PluginError):
    """Nothing satisfies all constraints."""


class StoreRefused(PluginError):
    """The library below a store refuses a table or the stored data; the message is the library's."""


class StoreUnavailable(PluginError):
    """The storage of a dataset cannot be read or written: it is full, forbidden or unreachable."""


class CannotRemove(PluginError):
    """The data of a deleted dataset cannot be removed and stays where it is."""


class VersionNotFound(PluginError):
    """A store does not have the requested version."""


class WriteConflict(PluginError):
    """Other writers committed first every time; nothing was written."""


class PluginNotFound(PluginError):
    """`code_ref` names nothing that can be imported."""


class PluginNotRegistered(PluginNotFound):
    """`code_ref` names code that no installed package registers."""


class PluginInvalid(PluginError):
    """`code_ref` names something that is not a concrete class of the expected base."""
