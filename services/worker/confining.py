"""Choose how a child is confined: find out what the machine allows, and name the places of one task; it confines nothing."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import structlog

from optaic.rules.locations import local_path
from worker import environment, ownership
from worker.child import Task
from worker.config import Settings
from worker.confinement import Confinement
from worker.data_removal import Removal
from worker.locations import instance_uri
from worker.recipe import InferenceRecipe, MonitoringRecipe
from worker.source_probe import SourceProbe

_PROBE_SECONDS = 60.0
_log = structlog.get_logger(__name__)


class ConfinementImpossibleError(RuntimeError):
    """The machine does not allow what OPTAIC_CHILD_ISOLATION demands; the message says why and what to do."""


@dataclass(frozen=True)
class Means:
    """The means of confinement that this machine allows, and why it allows no others."""

    has_user: bool = False
    has_namespaces: bool = False
    problem: str = ""


_found: dict[tuple[str, str], Means] = {}  # once for each way to ask


async def find_means(settings: Settings) -> Means:
    """Return the means that the settings choose, and say in the log what is not protected.

    Raises:
        ConfinementImpossibleError: the settings demand what the machine does not allow.
    """
    key = settings.child_isolation, settings.child_uids
    if (means := _found.get(key)) is None:
        means = await _probe(settings)
        if _found.setdefault(key, means) is means:  # another run may have been quicker
            _announce(settings, means)
    return _found[key]


async def _probe(settings: Settings) -> Means:
    """Ask a program of its own, which tries it."""
    wanted = settings.child_isolation
    if wanted == "none":
        return Means()
    user = ownership.user_of("", *map(int, settings.child_uids.split("-")))
    inherited = environment.clean(os.environ, settings)
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "worker.probe", wanted, str(user)),
        env={**inherited, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(_PROBE_SECONDS):
            said, _ = await program.communicate()
    except TimeoutError:
        program.kill()
        await program.wait()
        said = b""
    try:
        means = Means(**json.loads(said))
    except (ValueError, TypeError):  # not taken for a machine that allows nothing
        raise ConfinementImpossibleError(
            "the program that tries which confinement this machine allows (python -m worker.probe) did not answer; start the "
            "worker again, or set OPTAIC_CHILD_ISOLATION to none"
        ) from None
    is_there = {"uid": means.has_user, "namespace": means.has_namespaces}.get(wanted, True)
    if not is_there:
        raise ConfinementImpossibleError(
            f"OPTAIC_CHILD_ISOLATION is {wanted}, but this machine does not allow it: {means.problem}. Allow it, or set "
            "OPTAIC_CHILD_ISOLATION to auto, which takes what the machine allows"
        )
    return means


def _announce(settings: Settings, means: Means) -> None:
    if means.has_user or means.has_namespaces:
        _log.info(
            "user code is confined",
            other_user=means.has_user,
            namespaces=means.has_namespaces,
            problem=means.problem,
        )
        return
    problem = means.problem or f"OPTAIC_CHILD_ISOLATION is {settings.child_isolation}"
    _log.warning(
        "user code is not confined: it can read and write every file of the worker's user", problem=problem
    )


async def confine(task: Task | Removal | SourceProbe, tenant_id: str, settings: Settings) -> Confinement:
    """Return the confinement of the child that does a task.

    Raises:
        ConfinementImpossibleError: the settings demand what the machine does not allow.
    """
    means = await find_means(settings)
    data, outputs = _places_of(task, tenant_id)
    own = [
        settings.run_output_folder,
        settings.telemetry_folder,
        str(settings.evidently_workspace.absolute()),
        settings.secrets_folder,
        *settings.source_excluded,
    ]
    users = map(int, settings.child_uids.split("-"))
    return Confinement(
        user=ownership.user_of(tenant_id, *users) if means.has_user else None,
        has_namespaces=means.has_namespaces,
        hidden=tuple(filter(None, [*own, _local_path(settings.data_root)])),
        readable=settings.child_readable,
        writable=settings.child_writable,
        tenant_folder=_local_path(f"{settings.data_root}/{tenant_id}") or "",
        data=_local_paths(data),
        outputs=_local_paths(outputs),
        policy=settings.source_policy,
    )


def _places_of(task: Task | Removal | SourceProbe, tenant_id: str) -> tuple[list[str], list[str]]:
    """Return the URIs of the data that a task reads and writes; a probe has none."""
    if isinstance(task, SourceProbe):
        return [], []
    return _places_of_removal(task, tenant_id) if isinstance(task, Removal) else _places_of_run(task)


def _places_of_run(task: Task) -> tuple[list[str], list[str]]:
    """Return the URIs of what a run reads and writes."""
    recipe, location = task.recipe, task.location
    bases = [] if recipe.base is None else [recipe.base.uri]
    written = [location.data_uri] if recipe.keeps_dataset else []
    written += [location.outputs_uri(task.run_id)] if recipe.has_artifacts else []
    trainings = recipe.training_folders if isinstance(recipe, InferenceRecipe | MonitoringRecipe) else ()
    return [*bases, *(each.data.uri for each in recipe.inputs), *trainings], written


def _places_of_removal(task: Removal, tenant_id: str) -> tuple[list[str], list[str]]:
    """Return the same of a removal, which writes only to what exists."""
    folder = instance_uri(task.data_root, tenant_id, task.instance_id)
    path = _local_path(folder)
    return [], [folder] if path is not None and Path(path).is_dir() else []


def _local_paths(uris: list[str]) -> tuple[str, ...]:
    return tuple(path for uri in uris if (path := _local_path(uri)) is not None)


def _local_path(uri: str) -> str | None:
    """Return the path of a local URI without a slash at its end; None if it is elsewhere."""
    path = local_path(uri)
    return None if "://" in path else path.rstrip("/")
