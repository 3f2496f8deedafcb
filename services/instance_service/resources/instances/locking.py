"""Check an instance before it changes: it exists, the caller's etag is current, and it is not being deleted."""

from __future__ import annotations

from instance_service.domain import errors
from instance_service.resources.conversion import etag_of
from instance_service.store import instances as store
from optaic.instance.v1.instance_pb2 import INSTANCE_STATE_DELETING, Instance
from servicekit.database import Connection
from servicekit.ids import is_id


async def lock(connection: Connection, tenant_id: str, instance_id: str) -> Instance:
    """Lock an instance until the transaction ends, and return it.

    Raises:
        NotFoundError: It does not exist.
    """
    instance_id = instance_id.lower()
    snapshot = await store.lock_instance(connection, tenant_id, instance_id) if is_id(instance_id) else None
    if snapshot is None:
        raise errors.instances_not_found([instance_id])
    return Instance.FromString(snapshot)


def check_etag(instance: Instance, etag: str) -> None:
    """Refuse a stale etag; an empty etag matches any revision.

    Raises:
        AbortedError: The instance has changed since it was read.
    """
    check_revision(instance.name, instance.revision, etag)


def check_revision(name: str, revision: int, etag: str) -> None:
    """Refuse an etag that does not match a revision; an empty etag matches any.

    Raises:
        AbortedError: The instance has changed since it was read.
    """
    if etag and etag != (present := etag_of(revision)):
        raise errors.etag_mismatch(f"instance {name}", present, etag)


def check_not_deleting(instance: Instance) -> None:
    """Refuse to change an instance that is being deleted.

    Raises:
        FailedPreconditionError: The instance is being deleted.
    """
    if instance.state == INSTANCE_STATE_DELETING:
        raise errors.instance_deleting(instance.instance_id)
