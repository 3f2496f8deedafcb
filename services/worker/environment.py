"""Keep settings and secrets out of every process image: they come in the environment, and leave it at once.

The program starts twice. First it puts its settings into a file without a name and executes itself with a clean
environment; then it reads and closes the file. What it forks or starts from then on has never held them.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Mapping
from urllib.parse import urlsplit

import redaction
from worker import privileges
from worker.config import Settings
from worker.storage_access import renew_access

_DESCRIPTOR = "OPTAIC_SETTINGS_DESCRIPTOR"
_NAMES = frozenset(
    {
        *(
            "PATH",
            "HOME",
            "USER",
            "LOGNAME",
            "SHELL",
            "LANG",
            "LANGUAGE",
            "TZ",
            "TMPDIR",
            "TEMP",
            "TMP",
            "TERM",
        ),
        *("VIRTUAL_ENV", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
        *(
            "CURL_CA_BUNDLE",
            "PREFECT_HOME",
            "DO_NOT_TRACK",
            "MLFLOW_DISABLE_TELEMETRY",
            "_RJEM_MALLOC_CONF",
            "JE_ARROW_MALLOC_CONF",
        ),
    }
)
_PREFIXES = ("LC_", "PYTHON", "OMP_", "OPENBLAS_", "MKL_", "NUMEXPR_", "NUMBA_", "POLARS_", "RAYON_")
# The credentials of the storage, where the data lies in one; by the scheme of the data root.
_STORAGES = {
    "s3": "AWS_",
    "gs": "GOOGLE_",
    "gcs": "GOOGLE_",
    "az": "AZURE_",
    "abfs": "AZURE_",
    "abfss": "AZURE_",
}
_secrets: dict[str, str] = {}


def clean(environment: Mapping[str, str], settings: Settings) -> dict[str, str]:
    """Return the variables that a process of user code may have."""
    library = _STORAGES.get(urlsplit(settings.data_root).scheme)
    # A credential of our own settings is given with the task, and stands alone.
    prefixes = (*_PREFIXES, library) if library and not settings.s3_access_key_id else _PREFIXES
    names = _NAMES | set(settings.child_environment)
    return {name: value for name, value in environment.items() if name in names or name.startswith(prefixes)}


def leave() -> None:
    """Execute this program anew with a clean environment, unless that is done; reads and checks the settings."""
    if _DESCRIPTOR in os.environ:
        return
    settings = Settings()
    kept = clean(os.environ, settings)
    given = {name: value for name, value in os.environ.items() if name not in kept}
    if sys.platform == "linux":
        descriptor = os.memfd_create("optaic-settings")
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.write(descriptor, json.dumps(given).encode())
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.set_inheritable(descriptor, True)  # noqa: FBT003 - a function of the system
    # -P: neither the working folder nor that of a script is a place to import from.
    arguments = [sys.executable, *([] if sys.flags.safe_path else ["-P"]), *sys.orig_argv[1:]]
    os.execve(  # noqa: S606 - this program, without a shell
        sys.executable, arguments, {**kept, **settings.environment, _DESCRIPTOR: str(descriptor)}
    )


def take() -> Settings:
    """Return the settings; from now on neither the environment nor any other process of this user shows them."""
    descriptor = os.environ.pop(_DESCRIPTOR, None)
    if descriptor is None:  # a test's own process
        return Settings()
    privileges.hide()
    with open(int(descriptor), "rb") as file:  # noqa: PTH123 - it has no path
        given: dict[str, str] = json.load(file)
    os.environ.update(given)
    try:
        settings = Settings()
    finally:
        for name in given:
            os.environ.pop(name, None)
    _secrets.update({name: value for name, value in given.items() if name.startswith(redaction.PREFIX)})
    redaction.remember(_secrets.values())
    renew_access(settings)
    return settings


def known_secrets() -> dict[str, str]:
    """Return all secrets that came in the environment; which of them a run gets is not decided here."""
    own = {name: value for name, value in os.environ.items() if name.startswith(redaction.PREFIX)}
    return {**own, **_secrets}
