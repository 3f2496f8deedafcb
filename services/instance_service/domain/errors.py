"""What instance-service refuses, and in which words."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from servicekit.errors import (
    AbortedError,
    AlreadyExistsError,
    FailedPreconditionError,
    FieldViolation,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionViolation,
    UnavailableError,
)

_MOST_NAMED = 100
_MOST_SAID = 5  # in the message, which is cut where it is too long
_LONGEST = 4096  # of one entry of the metadata


def refusal(violations: Sequence[FieldViolation]) -> InvalidArgumentError:
    """Return the one error that lists every violation; its reason is the first one's."""
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    message = f"{first.field}: {first.description}{more}"
    return InvalidArgumentError(first.reason, message, field_violations=violations)


def invalid_field(reason: str, field: str, text: str, message: str = "") -> InvalidArgumentError:
    """Return the refusal of one field; without a message of its own it says what is wrong with the field."""
    violation = FieldViolation(field, text, reason)
    return InvalidArgumentError(reason, message or text, field_violations=[violation])


def immutable_fields(violations: Sequence[FieldViolation]) -> InvalidArgumentError:
    """Return the refusal IMMUTABLE_FIELD of a project's fields."""
    return InvalidArgumentError("IMMUTABLE_FIELD", "a field cannot be changed", field_violations=violations)


def unsupported_kind(text: str, field: str = "instance_id") -> InvalidArgumentError:
    """Return the refusal UNSUPPORTED_KIND of a method that is not for this kind of instance."""
    return invalid_field("UNSUPPORTED_KIND", field, text)


def answer_too_large(count: int, size: int, limit: int) -> InvalidArgumentError:
    """Return the refusal TOO_LARGE of a call that asks for more instances than one answer holds."""
    text = f"{count} instances take {size} bytes, more than the {limit} of an answer: ask for fewer"
    return invalid_field("TOO_LARGE", "instance_ids", text)


def rehearsal_too_long(judged: int, given: int, seconds: float) -> InvalidArgumentError:
    """Return the refusal REHEARSAL_TOO_LONG."""
    time = f"{seconds:.0f} s"
    text = f"{given} changes take more than {time}, in which {judged} were judged; give fewer at a time"
    return invalid_field("REHEARSAL_TOO_LONG", "changes", text)


def instances_not_found(instance_ids: Sequence[str]) -> NotFoundError:
    """Return the refusal INSTANCE_NOT_FOUND, naming every missing instance."""
    text = ", ".join(instance_ids)
    return NotFoundError(
        "INSTANCE_NOT_FOUND", f"there is no instance {text}", metadata={"instance_ids": text[:_LONGEST]}
    )


def revision_not_found(instance_id: str, revision: int) -> NotFoundError:
    """Return the refusal REVISION_NOT_FOUND."""
    text = f"instance {instance_id} has no revision {revision}"
    return NotFoundError("REVISION_NOT_FOUND", text, metadata={"instance_id": instance_id})


def project_not_found(which: str) -> NotFoundError:
    """Return the refusal PROJECT_NOT_FOUND of a project that is named by its id or name."""
    return NotFoundError("PROJECT_NOT_FOUND", f"there is no project {which}", metadata={"project": which})


def project_of_instance_not_found(project_id: str) -> NotFoundError:
    """Return the refusal PROJECT_NOT_FOUND of a new instance."""
    violation = FieldViolation("instance.project_id", "there is no such project", "PROJECT_NOT_FOUND")
    text = f"there is no project {project_id!r}"
    return NotFoundError("PROJECT_NOT_FOUND", text, field_violations=[violation])


def definition_not_found(which: str) -> NotFoundError:
    """Return the refusal DEFINITION_NOT_FOUND of a definition that is read."""
    return NotFoundError(
        "DEFINITION_NOT_FOUND", f"there is no definition {which}", metadata={"definition": which}
    )


def version_not_found(which: str) -> NotFoundError:
    """Return the refusal DEFINITION_VERSION_NOT_FOUND."""
    return NotFoundError(
        "DEFINITION_VERSION_NOT_FOUND",
        f"there is no definition version {which}",
        metadata={"definition_version_id": which},
    )


def named_not_found(violations: Sequence[FieldViolation]) -> NotFoundError:
    """Return the refusal of what an instance names and what is not there; its reason is the first one's."""
    text = "; ".join(violation.description for violation in violations)
    return NotFoundError(violations[0].reason, text, field_violations=violations)


def model_version_not_found(version: str, registered_model: str, problem: str) -> NotFoundError:
    """Return the refusal MODEL_VERSION_NOT_FOUND of a version that is not there, or cannot be promoted."""
    return NotFoundError(
        "MODEL_VERSION_NOT_FOUND",
        f"version {version} of the registered model {registered_model} {problem}",
        metadata={"registered_model": registered_model},
        field_violations=[FieldViolation("model_version", problem, "MODEL_VERSION_NOT_FOUND")],
    )


def data_removal_not_found(instance_id: str) -> NotFoundError:
    """Return the refusal DATA_REMOVAL_NOT_FOUND."""
    text = f"no data of an instance {instance_id} is to be removed"
    return NotFoundError("DATA_REMOVAL_NOT_FOUND", text, metadata={"instance_id": instance_id})


def etag_mismatch(which: str, present: str, given: str) -> AbortedError:
    """Return the refusal ETAG_MISMATCH of an instance or a project that has changed."""
    return AbortedError(
        "ETAG_MISMATCH",
        f"{which} has changed: its etag is {present}, not {given}",
        metadata={"etag": present},
    )


def deletion_changed() -> AbortedError:
    """Return the refusal DELETION_CHANGED of a deletion that would delete something else than was shown."""
    text = "what would be deleted has changed since it was shown: look at it again"
    return AbortedError("DELETION_CHANGED", text)


def deletion_blocked(
    reason: str, problem: str, blocking: Sequence[tuple[str, str]], way: str
) -> FailedPreconditionError:
    """Return the refusal of a deletion for what is in its way: (name, what it is), of which the first are named."""
    blocking = sorted(blocking)
    names = ", ".join(name for name, _ in blocking[:_MOST_SAID])
    more = f" and {len(blocking) - _MOST_SAID} more" if len(blocking) > _MOST_SAID else ""
    return FailedPreconditionError(
        reason,
        f"{problem} {names}{more}: {way}",
        metadata={"count": str(len(blocking))},
        preconditions=[PreconditionViolation(reason, *each) for each in blocking[:_MOST_NAMED]],
    )


def instance_deleting(name: str) -> FailedPreconditionError:
    """Return the refusal INSTANCE_DELETING."""
    return FailedPreconditionError("INSTANCE_DELETING", f"instance {name} is being deleted")


def project_deleting(name: str) -> FailedPreconditionError:
    """Return the refusal PROJECT_DELETING."""
    return FailedPreconditionError("PROJECT_DELETING", f"project {name} is being deleted")


def invalid_version_state(name: str, version: str, present: str, wanted: str) -> FailedPreconditionError:
    """Return the refusal INVALID_STATE of a definition version."""
    return FailedPreconditionError(
        "INVALID_STATE",
        f"version {version} of {name} is {present}, not {wanted}",
        metadata={"state": present},
    )


def cycle_closed(
    cycle: Sequence[str], names: Mapping[str, str], paths: Sequence[str]
) -> FailedPreconditionError:
    """Return the refusal CYCLE: the ids along the cycle, names by id, and the fields that close it."""
    called = [names.get(instance_id, instance_id) for instance_id in cycle]
    path = " -> ".join(called)
    return FailedPreconditionError(
        "CYCLE",
        f"the upstreams close a cycle: {path}",
        metadata={"path": " -> ".join(cycle)[:_LONGEST]},
        preconditions=[
            PreconditionViolation("CYCLE", one, f"reads {other}") for one, other in itertools.pairwise(called)
        ],
        field_violations=[FieldViolation(where, f"closes a cycle: {path}", "CYCLE") for where in paths],
    )


def no_output(name: str) -> FailedPreconditionError:
    """Return the refusal NO_OUTPUT of a dataset that cannot be promoted."""
    text = f"{name} has no output that could be checked: refresh it first"
    return FailedPreconditionError("NO_OUTPUT", text)


def output_not_profiled(name: str, run_number: int) -> FailedPreconditionError:
    """Return the refusal OUTPUT_NOT_PROFILED of a dataset that cannot be promoted."""
    text = f"nobody knows what run {run_number} of {name} has written: refresh it first"
    return FailedPreconditionError("OUTPUT_NOT_PROFILED", text)


def no_signal(
    name: str, broken: Sequence[FieldViolation], refusing: Sequence[PreconditionViolation]
) -> FailedPreconditionError:
    """Return the refusal of a dataset that breaks the contract, or whose readers take no signal."""
    reason = "CONTRACT_BROKEN" if broken else "WRONG_UPSTREAM_KIND"
    problems = [f"{len(broken)} checks of the contract fail"] if broken else []
    if refusing:
        problems.append(f"{', '.join(one.subject for one in refusing)} cannot read one")
    text = f"{name} cannot become a signal: {', and '.join(problems)}"
    return FailedPreconditionError(reason, text, field_violations=broken, preconditions=refusing)


def instance_name_taken(name: str) -> AlreadyExistsError:
    """Return the refusal NAME_TAKEN of an instance."""
    return AlreadyExistsError(
        "NAME_TAKEN",
        f"the project has an instance {name}",
        metadata={"name": name},
        field_violations=[FieldViolation("instance.name", "is taken in this project", "NAME_TAKEN")],
    )


def name_taken_in_reader(name: str, reader: str, reader_id: str) -> AlreadyExistsError:
    """Return the refusal NAME_TAKEN of an instance that a reader could no longer tell from another one."""
    text = f"{reader} reads another instance called {name}, and its expression names one of both"
    return AlreadyExistsError(
        "NAME_TAKEN",
        f"{text}: choose another name",
        metadata={"name": name, "reader": reader_id},
        field_violations=[FieldViolation("instance.name", text, "NAME_TAKEN")],
    )


def project_name_taken(name: str) -> AlreadyExistsError:
    """Return the refusal NAME_TAKEN of a project."""
    return AlreadyExistsError(
        "NAME_TAKEN",
        f"there is a project {name}",
        metadata={"name": name},
        field_violations=[FieldViolation("project.name", "is taken", "NAME_TAKEN")],
    )


def version_conflict(name: str, version: str, version_id: str, content_hash: str) -> AlreadyExistsError:
    """Return the refusal VERSION_CONFLICT of a version that exists with other content."""
    return AlreadyExistsError(
        "VERSION_CONFLICT",
        f"version {version} of {name} exists with other content",
        metadata={"definition_version_id": version_id, "content_hash": content_hash},
        field_violations=[
            FieldViolation("definition_version.version", "exists with other content", "VERSION_CONFLICT")
        ],
    )


def dependency_unavailable(message: str) -> UnavailableError:
    """Return the refusal DEPENDENCY_UNAVAILABLE of what an outside system does not answer."""
    return UnavailableError("DEPENDENCY_UNAVAILABLE", message)


def not_a_worker() -> PermissionDeniedError:
    """Return the refusal PERMISSION_DENIED of a call that only workers make."""
    return PermissionDeniedError("PERMISSION_DENIED", "only a worker removes data")
