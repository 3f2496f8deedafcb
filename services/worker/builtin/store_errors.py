"""Convert errors of the libraries below a store to the errors that all stores raise."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import polars as pl
from deltalake.exceptions import TableNotFoundError

from optaic.plugins import PluginError, StoreRefused, StoreUnavailable
from optaic.plugins.words import describe_error, describe_without_values

# deltalake says so within errors of its own, of parts, listings and logs.
_AWAY = ("Generic S3 error", "Error interacting with object store")
_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


def typed(operation: Callable[_Parameters, _Result]) -> Callable[_Parameters, _Result]:
    """Convert all errors of a store's operation to plugin errors.

    Raises:
        StoreUnavailable: the place cannot be read or written: it is full, locked, away.
        StoreRefused: the library under the store takes something for wrong.
    """

    @functools.wraps(operation)
    def guarded(*args: _Parameters.args, **options: _Parameters.kwargs) -> _Result:
        try:
            return operation(*args, **options)
        except PluginError:
            raise
        except (OSError, TableNotFoundError) as error:
            raise StoreUnavailable(describe_error(error)) from None
        except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 - each library has errors of its own
            if any(mark in str(error) for mark in _AWAY):
                raise StoreUnavailable(describe_error(error)) from None
            raise StoreRefused(describe_without_values(error)) from None

    return guarded
