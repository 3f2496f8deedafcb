"""The events that instance-service publishes; the use cases decide when."""

from __future__ import annotations

from google.protobuf.message import Message

from optaic.definition.v1.definition_events_pb2 import (
    DefinitionDeprecated,
    DefinitionPublished,
    DefinitionRetired,
)
from optaic.definition.v1.definition_pb2 import DefinitionVersion
from optaic.instance.v1.access_pb2 import RoleBinding
from optaic.instance.v1.instance_events_pb2 import (
    InstanceActivated,
    InstanceCreated,
    InstanceDeleted,
    InstanceDeletionRequested,
    InstanceUpdated,
    RoleBindingChanged,
    SourceProbed,
)
from optaic.instance.v1.instance_pb2 import Instance
from servicekit.clock import Clock
from servicekit.events import Event, make_event
from servicekit.ids import IdSource

SELF = "instance-service"  # the author of changes that no caller asked for


class Events:
    """The builder of instance-service's events for one tenant."""

    def __init__(self, tenant_id: str, clock: Clock, ids: IdSource) -> None:
        self._tenant_id = tenant_id
        self._clock = clock
        self._ids = ids

    def published(self, version: DefinitionVersion, reason: str = "") -> Event:
        """Announce that a definition version was published, or that a draft became active."""
        message = DefinitionPublished(definition_version=version, reason=reason)
        return self._make(message, "published", version.definition_id)

    def deprecated(self, version: DefinitionVersion, reason: str) -> Event:
        """Announce that a definition version should no longer be used."""
        message = DefinitionDeprecated(definition_version=version, reason=reason)
        return self._make(message, "deprecated", version.definition_id)

    def retired(self, version: DefinitionVersion, reason: str) -> Event:
        """Announce that new instances can no longer use a definition version."""
        message = DefinitionRetired(definition_version=version, reason=reason)
        return self._make(message, "retired", version.definition_id)

    def created(self, instance: Instance) -> Event:
        """Announce that an instance was created."""
        return self._make(InstanceCreated(instance=instance), "created", instance.instance_id)

    def updated(self, instance: Instance, author: str, reason: str) -> Event:
        """Announce that an instance has a new revision, or has become DEGRADED."""
        message = InstanceUpdated(instance=instance, author=author, reason=reason)
        return self._make(message, "updated", instance.instance_id)

    def activated(self, instance: Instance) -> Event:
        """Announce that every outside system has its counterpart of an instance."""
        return self._make(InstanceActivated(instance=instance), "activated", instance.instance_id)

    def deletion_requested(self, instance: Instance) -> Event:
        """Announce that the deletion of an instance has begun."""
        message = InstanceDeletionRequested(instance=instance)
        return self._make(message, "deletion_requested", instance.instance_id)

    def deleted(self, instance: Instance) -> Event:
        """Announce that an instance is gone."""
        return self._make(InstanceDeleted(instance=instance), "deleted", instance.instance_id)

    def source_probed(self, probed: SourceProbed) -> Event:
        """Announce what a probe of a source has found."""
        return self._make(probed, "source_probed", probed.flow.instance_id)

    def role_binding_changed(self, binding: RoleBinding) -> Event:
        """Announce that an actor was granted a role, or lost it."""
        message = RoleBindingChanged(role_binding=binding)
        return self._make(message, "role_binding_changed", binding.binding_id)

    def _make(self, message: Message, participle: str, resource_id: str) -> Event:
        return make_event(
            "instance", self._tenant_id, message, participle, resource_id, self._clock, self._ids
        )
