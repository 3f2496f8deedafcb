"""Check what the proto contract of a spec cannot: fields of other kinds, dates and time zones."""

from __future__ import annotations

from collections.abc import Iterator

from instance_service.resources.conversion import dataset_of
from optaic.instance.v1.instance_pb2 import Instance
from optaic.rules import roles
from optaic.rules.backtests import (
    FIRST_PROCEDURE,
    NEWEST_PROCEDURE,
    NEWEST_SETTINGS,
    VOLUME,
    optimizer_conflicts,
)
from optaic.rules.forms import is_date
from optaic.rules.kinds import DEFINED_KINDS
from optaic.rules.schedules import is_timezone
from servicekit.errors import FieldViolation

_OF_DEFINED = ("definition_id", "definition_version_id", "definition_name", "definition_version")


def spec_violations(instance: Instance, kind: str) -> list[FieldViolation]:
    """Return every field of an instance that its kind does not allow, and every invalid date or time zone."""
    return [
        *_stray_violations(instance, kind),
        *_date_violations(instance, kind),
        *_timezone_violations(instance, kind),
        *(_backtest_violations(instance) if kind == "backtest" else ()),
    ]


def _stray_violations(instance: Instance, kind: str) -> list[FieldViolation]:
    """Return the fields that this kind does not have."""
    violations: list[FieldViolation] = []
    if kind not in DEFINED_KINDS:
        strays = [name for name in (*_OF_DEFINED, "track_newest") if getattr(instance, name)]
        if instance.HasField("config"):
            strays.append("config")
        text = "cannot be set on a backtest, which has no definition; put its settings in `backtest`"
        if dataset_of(instance) is not None:
            text = "belongs to the components of a dataset or signal; set it there"
        violations.extend(FieldViolation(f"instance.{name}", text, "INVALID_SPEC") for name in strays)
    if not instance.name:
        violations.append(FieldViolation("instance.name", "is required", "INVALID_SPEC"))
    return violations


def _date_violations(instance: Instance, kind: str) -> list[FieldViolation]:
    """Return dates that do not exist; the proto contract checks only their format."""
    if kind not in {"backtest", "experiment"}:
        return []
    given = getattr(instance, kind).date_range
    return [
        FieldViolation(
            f"instance.{kind}.date_range.{name}",
            f"{value} does not exist in the calendar; use a valid date",
            "INVALID_SPEC",
        )
        for name, value in (("start", given.start), ("end", given.end))
        if value and not is_date(value)
    ]


def _backtest_violations(instance: Instance) -> Iterator[FieldViolation]:
    """Yield the settings that exclude each other, and those that the backtest's procedure does not have."""
    spec, path = instance.backtest, "instance.backtest"
    has_membership = bool(spec.assets.membership_id) or any(
        ref.role == roles.MEMBERSHIP for ref in instance.upstream_refs
    )
    if has_membership and spec.assets.universe:
        text = "cannot be set together with universe, which also says who may be chosen; remove one of them"
        yield FieldViolation(f"{path}.assets.membership_id", text, "INVALID_SPEC")
    given = {field.name: value for field, value in spec.config.ListFields()}
    has_optimizer = any(ref.role == roles.OPTIMIZER for ref in instance.upstream_refs)
    for name, problem in optimizer_conflicts(given, has_optimizer=has_optimizer):
        yield FieldViolation(f"{path}.config.{name}", problem, "INVALID_SPEC")
    if spec.config.procedure > FIRST_PROCEDURE:
        return
    newer = [f"config.{name}" for name in NEWEST_SETTINGS if name in given]
    newer += ["config.slippage_model"] if spec.config.slippage_model == VOLUME else []
    newer += ["assets.membership_id"] if has_membership else []
    text = f"needs procedure {NEWEST_PROCEDURE}, and the backtest has procedure {FIRST_PROCEDURE}; set config.procedure to "
    text += f"{NEWEST_PROCEDURE}, which may change the results, or remove this setting"
    for name in newer:
        yield FieldViolation(f"{path}.{name}", text, "INVALID_SPEC")


def _timezone_violations(instance: Instance, kind: str) -> list[FieldViolation]:
    dataset = dataset_of(instance)
    if dataset is None or is_timezone(dataset.timezone):
        return []
    path = "instance.signal.dataset.timezone" if kind == "signal" else "instance.dataset.timezone"
    text = f"{dataset.timezone!r} is not an IANA time zone; use one like Asia/Tokyo"
    return [FieldViolation(path, text, "INVALID_SPEC")]
