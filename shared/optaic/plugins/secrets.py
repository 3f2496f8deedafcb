"""Fill in references like `${OPTAIC_SECRET_WAREHOUSE}` in a configuration from the worker's environment.

Configurations are stored and shown; what they hold in clear is no secret. Only variables of this prefix may be named:
a configuration must not be able to send the worker's other credentials to a place of its choice.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from optaic.plugins.errors import InvalidConfig
from redaction import HIDDEN, PREFIX, redact

_PLACEHOLDER = re.compile(r"\$\{([^}]*)\}")


def has_placeholder(text: str) -> bool:
    """Return whether a text has a placeholder that the worker's environment fills in."""
    return _PLACEHOLDER.search(text) is not None


class Secrets:
    """The secrets that were filled in for placeholders; it can remove them from texts again."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._environment = environment
        self._used: set[str] = set()

    def fill(self, text: str, field: str) -> str:
        """Return the text with the value of every placeholder filled in.

        Raises:
            InvalidConfig: a variable is not set, or must not be named.
        """

        def value_of(match: re.Match[str]) -> str:
            name = match[1]
            if not name.startswith(PREFIX):
                raise InvalidConfig(
                    f"{field}: ${{{name}}} cannot be read; a reference must name a variable that begins with {PREFIX}"
                )
            if name not in self._environment:
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
