"""Choose the trained versions that an inference reads, for the worker's own process; nothing of them is opened here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from optaic.common.v1 import flow_pb2
from optaic.instance.v1 import instance_pb2
from optaic.plugins import MissingInput, PluginError
from optaic.run.v1 import run_pb2, run_report_service_pb2
from worker.peers import Peers
from worker.recipe import FileHash, TrainedFiles

Version = run_report_service_pb2.TrainedVersion
# Whether the registry has a version of the run's model; None: the registry does not say.
HasVersion = Callable[[str], Awaitable[bool | None]]
_TRAINING = flow_pb2.FLOW_KIND_TRAINING
_AT_ONCE = 8  # revisions that are read at the same time


def trained_files(version: Version) -> TrainedFiles:
    """Return what a training has written."""
    hashes = {
        entry.uri.removeprefix(version.uri): FileHash(entry.size_bytes, entry.sha256)
        for entry in version.artifact_manifest
    }
    return TrainedFiles(version.uri, hashes)


@dataclass(frozen=True)
class Trainings:
    """The trained versions that an inference reads, and the instance at the revision of each."""

    chosen: Sequence[Version]  # in the order of `train_end`; the last one is the version that is read
    artifact_version: str
    instances: dict[int, instance_pb2.Instance] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


async def find_trainings(
    run: run_pb2.Run,
    instance: instance_pb2.Instance,
    versions: Sequence[Version],
    peers: Peers,
    has_version: HasVersion,
) -> Trainings:
    """Return what an inference reads.

    Args:
        run: with its pins.
        instance: at the run's revision.
        versions: all completed trainings of the instance.
        peers: instance-service, for the earlier revisions.
        has_version: asked for a champion only.

    Raises:
        PluginError: `ModelVersionNotFound`, `ModelFilesNotFound` or `MissingInput`: the version to read is not there.
    """
    champion = instance.model.champion.model_version
    is_there = await has_version(champion) if champion else True
    if is_there is False:
        raise PluginError(
            f"model.champion: version {champion} is no longer in MLflow's registry; promote another version, or remove the "
            "champion (optaic instance remove-champion)",
            type="ModelVersionNotFound",
        )
    read = find_read(run, instance, versions)
    chosen = choose_chain(run, versions, read)
    revisions = {each.instance_revision for each in chosen} - {instance.revision}
    limit = asyncio.Semaphore(_AT_ONCE)

    async def get(revision: int) -> instance_pb2.Instance:
        async with limit:
            return await peers.get_instance(run.instance_id, revision)

    found = await asyncio.gather(*map(get, sorted(revisions)))
    instances = {each.revision: each for each in (*found, instance)}
    warnings = [f"MLflow does not say whether it still has the champion, version {champion}"]
    return Trainings(chosen, champion or read.run_id, instances, tuple(warnings if is_there is None else ()))


async def find_monitored(
    instance: instance_pb2.Instance, versions: Sequence[Version], training_run_id: str, peers: Peers
) -> Trainings:
    """Return the version whose predictions a monitoring reads; none if it is not known which that is."""
    read = next((each for each in versions if each.run_id == training_run_id), None)
    if read is None:
        return Trainings([], "")
    trained = instance
    if read.instance_revision != instance.revision:
        trained = await peers.get_instance(instance.instance_id, read.instance_revision)
    return Trainings([read], read.run_id, {read.instance_revision: trained})


def find_read(run: run_pb2.Run, instance: instance_pb2.Instance, versions: Sequence[Version]) -> Version:
    """Return the version that predicts the newest dates: the champion, else the training that the run is pinned to.

    Raises:
        PluginError: `ModelFilesNotFound`: no training of the instance made the champion; `MissingInput`: nothing was trained.
    """
    by_id = {each.run_id: each for each in versions}
    if instance.model.HasField("champion"):
        champion = instance.model.champion
        made = by_id.get(champion.training_run_id) or next(
            (each for each in versions if champion.run_id and each.mlflow_run_id == champion.run_id), None
        )
        if made is None:
            raise PluginError(
                f"model.champion: no training of {instance.name} made version {champion.model_version}, so it is not known which "
                "labels it has learnt; promote a version that a training of this model made",
                type="ModelFilesNotFound",
            )
        return made
    pinned = [each.physical_version for each in run.input_versions if each.flow_kind == _TRAINING]
    found = next((by_id[run_id] for run_id in pinned if run_id in by_id), None)
    if found is None:
        raise MissingInput(f"{instance.name} has no trained version to read; run its flow training first")
    return found


def choose_chain(run: run_pb2.Run, versions: Sequence[Version], read: Version) -> list[Version]:
    """Return the version that is read after the earlier ones that predict dates before it, in the order of `train_end`.

    Of versions with the same end the newest counts. An incremental run needs no version whose dates are written already.
    """
    ends = {each.train_end: each for each in sorted(versions, key=lambda each: each.run_number)}
    earlier = [ends[end] for end in sorted(ends) if end and end < read.train_end]
    chain = [*earlier, read]
    if run.mode == run_pb2.RUN_MODE_FULL or not run.base_version.last_data_date:
        return chain
    written = run.base_version.last_data_date
    return [
        each
        for each, later in zip(earlier, chain[1:], strict=True)
        if not later.label_end or later.label_end > written
    ] + [read]
