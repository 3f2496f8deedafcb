"""The errors of instance-service: one function for each, so that every error has one wording."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from optaic.rules import refusals
from servicekit.errors import (
    HIDDEN,
    HIDDEN_BECAUSE,
    AbortedError,
    AlreadyExistsError,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    PreconditionViolation,
    ResourceExhaustedError,
    UnavailableError,
)

_MOST_NAMED = 100
_MOST_SAID = 5  # names in the message; a long message is cut
_LONGEST = 4096  # characters of one entry of the metadata
_FIND_PROJECT = "check the id or name, or find the project with ListProjects"
_WAY_ON = {  # what can be done with a definition version in this state
    "draft": "activate it first (ActivateDefinitionVersion)",
    "active": "deprecate it first (DeprecateDefinitionVersion)",
    "deprecated": "retire it (RetireDefinitionVersion), or publish another version",
    "retired": "no step leads back; publish another version",
}


def refusal(violations: Sequence[FieldViolation]) -> InvalidArgumentError:
    """Return one error that lists every violation; it has the reason of the first one."""
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    message = f"{first.field}: {first.description}{more}"
    return InvalidArgumentError(first.reason, message, field_violations=violations)


def broken_contract(field: str, problem: str) -> InvalidArgumentError:
    """Return the error for an update after which a field of the instance would break a rule of its contract."""
    text = f"{problem} after this update; name the whole message in update_mask"
    return invalid_field("INVALID_ARGUMENT", f"instance.{field}", text)


def invalid_field(reason: str, field: str, text: str, message: str = "") -> InvalidArgumentError:
    """Return the error for one wrong field; `text` describes it, and is the message unless another is given."""
    violation = FieldViolation(field, text, reason)
    return InvalidArgumentError(reason, message or text, field_violations=[violation])


def immutable_fields(violations: Sequence[FieldViolation]) -> InvalidArgumentError:
    """Return IMMUTABLE_FIELD: an update names fields of a project that cannot change."""
    return InvalidArgumentError(
        "IMMUTABLE_FIELD",
        "the request changes fields that cannot change; its field violations name them",
        field_violations=violations,
    )


def unsupported_kind(text: str, field: str = "instance_id") -> InvalidArgumentError:
    """Return UNSUPPORTED_KIND: the method does not apply to this kind of instance."""
    return invalid_field("UNSUPPORTED_KIND", field, text)


def answer_too_large(count: int, size: int, limit: int) -> InvalidArgumentError:
    """Return TOO_LARGE: the requested instances do not fit into one answer."""
    text = (
        f"{count} instances take {size} bytes, but an answer holds at most {limit}; ask for fewer instances"
    )
    return invalid_field("TOO_LARGE", "instance_ids", text)


def rehearsal_too_long(judged: int, given: int, seconds: float) -> InvalidArgumentError:
    """Return REHEARSAL_TOO_LONG: checking all changes takes longer than one call may take."""
    time = f"{seconds:.0f} s"
    text = f"only {judged} of {given} changes could be checked within {time}; send fewer changes in one call"
    return invalid_field("REHEARSAL_TOO_LONG", "changes", text)


def instances_not_found(instance_ids: Sequence[str]) -> NotFoundError:
    """Return INSTANCE_NOT_FOUND, which lists every missing instance."""
    text, metadata = refusals.instance_not_found(instance_ids)
    return NotFoundError("INSTANCE_NOT_FOUND", text, metadata=metadata)


def revision_not_found(instance_id: str, revision: int) -> NotFoundError:
    """Return REVISION_NOT_FOUND: the instance has no revision with this number."""
    text = f"revision: instance {instance_id} has no revision {revision}; ListInstanceRevisions lists those it has"
    return NotFoundError("REVISION_NOT_FOUND", text, metadata={"instance_id": instance_id})


def project_not_found(which: str) -> NotFoundError:
    """Return PROJECT_NOT_FOUND for a project given by id or name."""
    text = f"there is no project {which}; {_FIND_PROJECT}"
    return NotFoundError("PROJECT_NOT_FOUND", text, metadata={"project": which})


def role_binding_not_found(actor: str, project_id: str) -> NotFoundError:
    """Return ROLE_BINDING_NOT_FOUND: there is nothing to revoke."""
    where = f"project {project_id}" if project_id else "the whole tenant"
    return NotFoundError(
        "ROLE_BINDING_NOT_FOUND",
        f"{actor} has no role in {where} that was granted; ListRoleBindings shows what was granted",
        metadata={"actor": actor, "project": project_id},
    )


def project_of_instance_not_found(project_id: str) -> NotFoundError:
    """Return PROJECT_NOT_FOUND: a new instance names a project that does not exist."""
    text = f"there is no project {project_id!r}; {_FIND_PROJECT}"
    violation = FieldViolation("instance.project_id", text, "PROJECT_NOT_FOUND")
    return NotFoundError("PROJECT_NOT_FOUND", text, field_violations=[violation])


def definition_not_found(which: str) -> NotFoundError:
    """Return DEFINITION_NOT_FOUND for a definition given by id or name."""
    text = f"there is no definition {which}; find it with ListDefinitions"
    return NotFoundError("DEFINITION_NOT_FOUND", text, metadata={"definition": which})


def version_not_found(which: str) -> NotFoundError:
    """Return DEFINITION_VERSION_NOT_FOUND for a version given by id or number."""
    return NotFoundError(
        "DEFINITION_VERSION_NOT_FOUND",
        f"there is no definition version {which}; find it with ListDefinitionVersions",
        metadata={"definition_version_id": which},
    )


def named_not_found(violations: Sequence[FieldViolation]) -> NotFoundError:
    """Return the error for everything that an instance names and that does not exist; it has the first one's reason."""
    text = "; ".join(violation.description for violation in violations)
    return NotFoundError(violations[0].reason, text, field_violations=violations)


def model_version_not_found(version: str, registered_model: str, problem: str) -> NotFoundError:
    """Return MODEL_VERSION_NOT_FOUND: the registry has no such model version, or it cannot be promoted."""
    return NotFoundError(
        "MODEL_VERSION_NOT_FOUND",
        f"version {version} of the registered model {registered_model} {problem}",
        metadata={"registered_model": registered_model},
        field_violations=[FieldViolation("model_version", problem, "MODEL_VERSION_NOT_FOUND")],
    )


def data_removal_not_found(instance_id: str) -> NotFoundError:
    """Return DATA_REMOVAL_NOT_FOUND: no data of this instance waits to be removed."""
    text = f"no data of instance {instance_id} waits to be removed; ListDataRemovals lists what waits"
    return NotFoundError("DATA_REMOVAL_NOT_FOUND", text, metadata={"instance_id": instance_id})


def etag_mismatch(which: str, present: str, given: str) -> AbortedError:
    """Return ETAG_MISMATCH: an instance or project has changed since the caller read it."""
    return AbortedError(
        "ETAG_MISMATCH",
        f"{which} has changed: its etag is {present}, not {given}; read it again, then retry",
        metadata={"etag": present},
    )


def deletion_changed() -> AbortedError:
    """Return DELETION_CHANGED: the deletion would no longer delete exactly what the caller has confirmed."""
    text = "the list of what would be deleted has changed since it was shown; read and confirm it again"
    return AbortedError("DELETION_CHANGED", text)


class Blocking(NamedTuple):
    """An instance that blocks a change, and how."""

    instance_id: str
    name: str
    description: str


def deletion_blocked(
    reason: str, problem: str, blocking: Sequence[Blocking], way: str
) -> FailedPreconditionError:
    """Return the error for a deletion that others block; the message names the first of them."""
    found = sorted(blocking, key=lambda each: (each.name, each.description))
    names = ", ".join(each.name for each in found[:_MOST_SAID])
    more = f" and {len(found) - _MOST_SAID} more" if len(found) > _MOST_SAID else ""
    return FailedPreconditionError(
        reason,
        f"{problem} {names}{more}: {way}",
        metadata={"count": str(len(found))},
        preconditions=[
            PreconditionViolation(reason, each.name, each.description) for each in found[:_MOST_NAMED]
        ],
        about=[each.instance_id for each in found if each.instance_id],
        without=lambda ids: deletion_blocked(
            reason,
            problem,
            [Blocking("", HIDDEN, HIDDEN_BECAUSE) if each.instance_id in ids else each for each in found],
            way,
        ),
    )


def instance_deleting(instance_id: str) -> FailedPreconditionError:
    """Return INSTANCE_DELETING: the instance is being deleted and takes no more changes."""
    text, metadata = refusals.instance_deleting(instance_id)
    return FailedPreconditionError("INSTANCE_DELETING", text, metadata=metadata)


def project_deleting(name: str) -> FailedPreconditionError:
    """Return PROJECT_DELETING: the project is being deleted and takes no more changes."""
    text = f"project {name} is being deleted and can no longer change; its name is free for a new project"
    return FailedPreconditionError("PROJECT_DELETING", text)


def invalid_version_state(
    name: str, version: str, present: str, wanted: str, target: str
) -> FailedPreconditionError:
    """Return INVALID_STATE: the definition version is not in the state from which this step leads."""
    text = (
        f"version {version} of {name} is {present}, but only a version that is {wanted} can become {target}"
    )
    return FailedPreconditionError(
        "INVALID_STATE", f"{text}; {_WAY_ON[present]}", metadata={"state": present}
    )


def cycle_closed(
    cycle: Sequence[str], names: Mapping[str, str], paths: Sequence[str]
) -> FailedPreconditionError:
    """Return CYCLE: the upstreams would form a cycle.

    Args:
        cycle: the ids along the cycle.
        names: the instances' names by id.
        paths: the fields that close the cycle.
    """
    called = [names.get(instance_id, instance_id) for instance_id in cycle]
    path = " -> ".join(called)
    return FailedPreconditionError(
        "CYCLE",
        f"the upstreams close a cycle: {path}; remove one of them",
        metadata={"path": " -> ".join(cycle)[:_LONGEST]},
        preconditions=[
            PreconditionViolation("CYCLE", one, f"depends on {other}")
            for one, other in itertools.pairwise(called)
        ],
        field_violations=[FieldViolation(where, f"closes a cycle: {path}", "CYCLE") for where in paths],
        about=[each for each in cycle if each != HIDDEN],
        without=lambda ids: cycle_closed(
            [HIDDEN if each in ids else each for each in cycle], {**names, HIDDEN: HIDDEN}, paths
        ),
    )


def no_output(name: str) -> FailedPreconditionError:
    """Return NO_OUTPUT: the dataset has no output yet, so it cannot be promoted."""
    text = f"{name} has no output to check; refresh it first"
    return FailedPreconditionError("NO_OUTPUT", text)


def output_not_profiled(name: str, run_number: int) -> FailedPreconditionError:
    """Return OUTPUT_NOT_PROFILED: the dataset's output has no profile, so it cannot be promoted."""
    text = f"run {run_number} of {name} reported no profile of its output; refresh {name} first"
    return FailedPreconditionError("OUTPUT_NOT_PROFILED", text)


def no_signal(
    name: str, broken: Sequence[FieldViolation], refusing: Sequence[Blocking]
) -> FailedPreconditionError:
    """Return the error for a dataset that cannot become a signal: it breaks the contract, or a dependant takes no signal."""
    reason = "CONTRACT_BROKEN" if broken else "WRONG_UPSTREAM_KIND"
    problems, ways = [], []
    if broken:
        problems.append(f"{len(broken)} checks of the contract fail")
        ways.append("change the contract or the data as the field violations say")
    if refusing:
        problems.append(f"{', '.join(one.name for one in refusing)} do not accept a signal")
        ways.append("remove these dependants' references to it first")
    text = f"{name} cannot become a signal: {', and '.join(problems)}; {'; '.join(ways)}"
    return FailedPreconditionError(
        reason,
        text,
        field_violations=broken,
        preconditions=[
            PreconditionViolation("WRONG_UPSTREAM_KIND", one.name, one.description) for one in refusing
        ],
        about=[one.instance_id for one in refusing if one.instance_id],
        without=lambda ids: no_signal(
            name,
            broken,
            [Blocking("", HIDDEN, HIDDEN_BECAUSE) if one.instance_id in ids else one for one in refusing],
        ),
    )


def instance_name_taken(name: str) -> AlreadyExistsError:
    """Return NAME_TAKEN: the project has another instance of this name."""
    return AlreadyExistsError(
        "NAME_TAKEN",
        f"the project already has an instance named {name}; choose another name",
        metadata={"name": name},
        field_violations=[FieldViolation("instance.name", "is already used in this project", "NAME_TAKEN")],
    )


def name_taken_in_dependant(name: str, reader: str, reader_id: str) -> AlreadyExistsError:
    """Return NAME_TAKEN: an instance depends on two instances that would have the same name, and its expression uses it."""
    text = f"{reader} depends on another instance named {name} too, so its expression would be ambiguous"
    return AlreadyExistsError(
        "NAME_TAKEN",
        f"{text}; choose another name",
        metadata={"name": name, "reader": reader_id},
        field_violations=[FieldViolation("instance.name", text, "NAME_TAKEN")],
        about=[reader_id] if reader_id else (),
        without=lambda _: name_taken_in_dependant(name, HIDDEN, ""),
    )


def project_name_taken(name: str) -> AlreadyExistsError:
    """Return NAME_TAKEN: the tenant has another project of this name."""
    return AlreadyExistsError(
        "NAME_TAKEN",
        f"there is already a project named {name}; choose another name",
        metadata={"name": name},
        field_violations=[FieldViolation("project.name", "is already used", "NAME_TAKEN")],
    )


def version_conflict(name: str, version: str, version_id: str, content_hash: str) -> AlreadyExistsError:
    """Return VERSION_CONFLICT: the definition has this version with different content."""
    return AlreadyExistsError(
        "VERSION_CONFLICT",
        f"version {version} of {name} exists with different content; publish it under another version",
        metadata={"definition_version_id": version_id, "content_hash": content_hash},
        field_violations=[
            FieldViolation("definition_version.version", "exists with different content", "VERSION_CONFLICT")
        ],
    )


def too_many_instances(limit: int) -> ResourceExhaustedError:
    """Return TOO_MANY_INSTANCES: the tenant has as many instances as it may have."""
    return ResourceExhaustedError(
        "TOO_MANY_INSTANCES",
        f"the tenant has {limit} instances, and may have no more (OPTAIC_TENANT_INSTANCES); delete some",
        metadata={"limit": str(limit)},
    )


def too_much_stored(limit: int) -> ResourceExhaustedError:
    """Return TOO_MUCH_STORED: with this change the tenant would have more bytes than it may have."""
    return ResourceExhaustedError(
        "TOO_MUCH_STORED",
        f"the tenant's instances, with all revisions, and its definition versions may have {limit} bytes "
        "(OPTAIC_TENANT_STORED_BYTES), and would have more; delete instances, or send smaller configurations",
        metadata={"limit": str(limit)},
    )


def dependency_unavailable(message: str) -> UnavailableError:
    """Return DEPENDENCY_UNAVAILABLE: an outside system that the call needs does not answer."""
    return UnavailableError("DEPENDENCY_UNAVAILABLE", message)
