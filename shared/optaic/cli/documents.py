"""Read a YAML file, and say of each refusal where in the file it belongs."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from optaic.apply import yaml_text
from optaic.client.values import FieldError
from optaic.errors import OptaicError, Violation
from redaction import HIDDEN, is_secret_name


def read_yaml(path: Path) -> yaml_text.Documents:
    """Return the documents of a YAML file, and where everything stands.

    Raises:
        ValueError: It is not YAML, or not text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text; the byte at position {error.start} is not part of a character"
        ) from None
    return yaml_text.read(text, str(path))


@contextlib.contextmanager
def placing(found: yaml_text.Documents, within: str = "") -> Iterator[None]:
    """Add to each refusal its place in the file; `within` precedes the paths of a single document.

    Raises:
        OptaicError: The same, each violation with its place.
        ValueError: A field does not take its value.
    """
    try:
        yield
    except OptaicError as error:
        violations = [
            Violation(
                each.field,
                f"{each.description} ({found.where(within + each.field, _hinted(each))})",
                each.reason,
            )
            for each in error.violations
        ]
        raise type(error)(
            error.code, error.reason, error.message, violations, error.metadata, error.blocking
        ) from None
    except FieldError as error:
        raise ValueError(f"{error} ({found.where(within + error.path, 'INVALID_VALUE')})") from None


def _hinted(violation: Violation) -> str:
    """Return the reason of a violation, or an empty text if the value there may be a secret."""
    is_secret = "secret" in violation.description or HIDDEN in violation.description
    return "" if is_secret or is_secret_name(re.split(r"[.\[]", violation.field)[-1]) else violation.reason
