"""Report the code that a run will execute, and what to do if it has changed."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Iterable
from importlib import metadata

from optaic.plugins.registry import list_registered_code
from optaic.run.v1 import run_pb2
from worker.code_identity import CodeIdentity, identify
from worker.config import CodeCheck
from worker.recipe import Plugin


def state_code(plugins: Iterable[Plugin], check: CodeCheck) -> list[run_pb2.PluginCode]:
    """Return the code of each plugin as it is installed now; it reads files, so keep it off the event loop."""
    registered = list_registered_code()
    unknown = CodeIdentity()  # the run fails when it loads code that is not registered
    return [
        _state(plugin, identify(plugin.code_ref) if plugin.code_ref in registered else unknown, check)
        for plugin in plugins
    ]


def hash_code(code: Iterable[run_pb2.PluginCode]) -> str:
    """Return one hash over the code of plugins and the libraries that decide the last bit of a number; empty if a hash is unknown."""
    known = sorted({(each.code_ref, each.hash) for each in code})
    if not all(digest for _, digest in known):
        return ""
    lines = [*(f"{code_ref} {digest}" for code_ref, digest in known), *_list_libraries()]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@functools.cache
def _list_libraries() -> tuple[str, ...]:
    versions = [f"{name} {metadata.version(name)}" for name in ("numpy", "polars")]
    return (*versions, platform.machine(), platform.python_version())


def _state(plugin: Plugin, found: CodeIdentity, check: CodeCheck) -> run_pb2.PluginCode:
    warns = check == "warn" or (check == "auto" and found.is_editable)
    return run_pb2.PluginCode(
        definition_version_id=plugin.definition_version_id,
        definition_name=plugin.definition_name,
        definition_version=plugin.definition_version,
        code_ref=plugin.code_ref,
        distribution=found.distribution,
        distribution_version=found.version,
        hash=found.hash,
        git_revision=found.git_revision,
        is_builtin=found.is_builtin,
        check=run_pb2.CODE_CHECK_WARN if warns else run_pb2.CODE_CHECK_REFUSE,
    )
