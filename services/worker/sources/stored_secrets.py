"""Read the secrets of a tenant from the worker's environment and folder; it decides nothing about who gets them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from redaction import PREFIX

_NAME = re.compile(PREFIX + r"[A-Za-z0-9_]+")
_TENANT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*")


def read_secrets(
    tenant_id: str, environment: Mapping[str, str], folder: str, own_tenant: str
) -> Mapping[str, str]:
    """Return the secrets of a tenant.

    Args:
        tenant_id: whose they are.
        environment: of the worker; its secrets are those of the tenant that the worker serves.
        folder: with a folder for each tenant, with a file for each secret; empty: none.
        own_tenant: that the worker serves.
    """
    found: dict[str, str] = {}
    if tenant_id == own_tenant:
        found |= {name: value for name, value in environment.items() if _NAME.fullmatch(name)}
    if folder and _TENANT.fullmatch(tenant_id):
        place = Path(folder, tenant_id)
        files = sorted(place.iterdir()) if place.is_dir() else []
        found |= {
            file.name: file.read_text(encoding="utf-8").rstrip("\r\n")
            for file in files
            if _NAME.fullmatch(file.name) and file.is_file()
        }
    return found
