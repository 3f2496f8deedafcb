"""Refuse early how a file's URL and options may never be written; which places may be read, the worker decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from instance_service.resources.instances.references import Use
from optaic.rules.sources import (
    EXTERNAL_CODE,
    FILE_CODE,
    describe_options,
    find_strange_options,
    find_url_problem,
    find_version_problem,
    scheme_of,
)
from redaction import has_reference
from servicekit.errors import FieldViolation


def source_violations(uses: Iterable[Use]) -> Iterator[FieldViolation]:
    """Yield a violation for each field that no worker would read; an unchanged configuration is not checked again."""
    for use in uses:
        if (
            use.version.code_ref not in FILE_CODE | EXTERNAL_CODE
            or use.reference.held.config == use.reference.spec.config
        ):
            continue
        where = f"{use.reference.path}.config"
        url, options = use.config.get("url"), use.config.get("storage_options")
        is_external = use.version.code_ref in EXTERNAL_CODE
        if isinstance(url, str) and is_external and (problem := find_version_problem(url)):
            yield FieldViolation(f"{where}.url", problem, "INVALID_CONFIG")
            continue
        if not isinstance(url, str) or ("://" not in url and has_reference(url)):
            continue  # the secret says where the file is
        if problem := find_url_problem(url):
            yield FieldViolation(f"{where}.url", problem, "INVALID_CONFIG")
        elif isinstance(options, dict):
            scheme = scheme_of(url)
            for name in find_strange_options(scheme, options):
                yield FieldViolation(
                    f"{where}.storage_options.{name}", describe_options(scheme), "INVALID_CONFIG"
                )
