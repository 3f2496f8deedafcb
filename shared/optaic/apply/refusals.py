"""Give the refusals of a service their place in the document."""

from __future__ import annotations

import re
from collections.abc import Sequence

import grpc

from optaic import errors
from optaic.apply.plan import Action, Verb
from optaic.errors import OptaicError, Violation
from optaic.instance.v1.instance_pb2 import Instance

# What a document says is wrong, or does not fit what exists; the next entry may be right.
REFUSALS = (
    errors.InvalidArgumentError,
    errors.NotFoundError,
    errors.AlreadyExistsError,
    errors.FailedPreconditionError,
    errors.ConflictError,
)
_UPSTREAM = re.compile(r"upstream_refs\[(\d+)\](\.\w+)?")


def placed(action: Action, error: OptaicError) -> OptaicError:
    """Return an error that names its entry; paths in the request become paths in the document."""
    text = f"{action.kind} {action.name} ({action.path}): {error.message}"
    violations = _violations(action, error)
    if not violations and not error.blocking:
        violations = [Violation(action.path, error.message, error.reason)]
    return type(error)(error.code, error.reason, text, violations, error.metadata, error.blocking)


def refuse_all(refused: Sequence[tuple[Action, OptaicError]]) -> None:
    """Raise one error with all refusals, if there are any.

    Raises:
        OptaicError: The only one.
        ConflictError: APPLY_CONFLICT; `violations` and `blocking` are those of all.
    """
    if len(refused) == 1:
        raise placed(*refused[0])
    if refused:
        text = f"{len(refused)} entries of the documents are refused"
        violations = [
            violation
            for action, error in refused
            for violation in _violations(action, error)
            or [Violation(action.path, f"{action.kind} {action.name}: {error.message}", error.reason)]
        ]
        blocking = [each for _, error in refused for each in error.blocking]
        code = grpc.StatusCode.ABORTED
        raise errors.ConflictError(code, "APPLY_CONFLICT", text, violations, blocking=blocking)


def _violations(action: Action, error: OptaicError) -> list[Violation]:
    return [Violation(_path(action, each.field), each.description, each.reason) for each in error.violations]


def _path(action: Action, field: str) -> str:
    if isinstance(action.desired, Instance):
        return f"{action.path}.{_instance_path(action.desired, field.removeprefix('instance.'))}"
    return f"{action.path}.{field}" if action.verb is Verb.PUBLISH else action.path


def _instance_path(instance: Instance, field: str) -> str:
    """Return a field's path as a document has it: upstreams by role."""
    found = _UPSTREAM.fullmatch(field)
    if found and int(found[1]) < len(instance.upstream_refs):
        return f"upstreams.{instance.upstream_refs[int(found[1])].role}"
    return "upstreams" if field == "upstream_refs" else field
