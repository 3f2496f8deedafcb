"""Report the code that a run will execute, and what to do if it has changed."""

from __future__ import annotations

from collections.abc import Iterable

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
