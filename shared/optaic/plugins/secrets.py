"""Fill in references like `${OPTAIC_SECRET_WAREHOUSE}` in a configuration with the secrets that the worker gives a run.

Configurations are stored and shown; what they hold in clear is no secret. Only names of this prefix may be referred to:
a configuration must not be able to send the worker's other credentials to a place of its choice. A worker gives a run
those secrets only that its configuration names and that the worker's policy binds to its definition.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from optaic.plugins.errors import InvalidConfig, SourceNotAllowed
from redaction import HIDDEN, PREFIX, redact

_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")
_provided: Mapping[str, str] | None = None
_refusals: Mapping[str, str] = {}


def provide(secrets: Mapping[str, str] | None, refusals: Mapping[str, str]) -> None:
    """Let `Secrets()` of this process know these secrets instead of the environment's.

    Args:
        secrets: their values, by name; None: those of the environment, as outside of a worker.
        refusals: why others that the configuration names are not among them, by name.
    """
    global _provided, _refusals
    _provided, _refusals = secrets, refusals


def has_placeholder(text: str) -> bool:
    """Return whether a text has a reference that is filled in."""
    return _PLACEHOLDER.search(text) is not None


class Secrets:
    """The secrets that were filled in for placeholders; it can remove them from texts again."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        """Know the secrets of the run; outside of a worker, those of the environment."""
        known = os.environ if _provided is None else _provided
        self._environment = known if environment is None else environment
        self._used: set[str] = set()

    def fill(self, text: str, field: str) -> str:
        """Return the text with the value of every placeholder filled in.

        Raises:
            InvalidConfig: there is no such secret, or it must not be named.
            SourceNotAllowed: the worker's policy does not bind it to this definition.
        """

        def value_of(match: re.Match[str]) -> str:
            name = match[1]
            if not name.startswith(PREFIX):
                raise InvalidConfig(
                    f"{field}: ${{{name}}} cannot be read; a reference must name a variable that begins with {PREFIX}"
                )
            if name not in self._environment:
                if name in _refusals:
                    raise SourceNotAllowed(f"{field}: {_refusals[name]}")
                raise InvalidConfig(
                    f"{field}: the worker's environment has no variable {name}; set it and restart the worker"
                )
            value = self._environment[name]
            self._used.add(value)
            return value

        return _PLACEHOLDER.sub(value_of, text)

    def redact(self, error: BaseException) -> str:
        """Return an error's text without the values that were filled in; drivers often repeat them."""
        text = str(error)
        for value in sorted(self._used, key=len, reverse=True):
            text = text.replace(value, HIDDEN) if value else text
        return redact(text, self._environment)
