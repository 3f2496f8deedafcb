"""The defaults of a monitoring, the figures that have a threshold, and the words for one that crossed it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from google.protobuf.message import Message

from optaic.instance.v1.spec_pb2 import MonitoringConfig

REFERENCE_SESSIONS = 252  # where neither the configuration nor a training period says what is compared with
MOST_ALERTS = 100  # of one run; more are counted only


@dataclass(frozen=True)
class MonitoringSettings:
    """The settings of a monitoring: what it compares and when it alerts; the defaults are those of the contract."""

    window_sessions: int = 63
    reference_sessions: int = 0  # 0: the training period, or without one REFERENCE_SESSIONS
    max_drift_share: float = 0.5
    max_psi: float = 0.25
    max_ks: float = 0.25
    max_js: float = 0.1
    max_missing_share: float = 0.1
    max_outlier_share: float = 0.01
    max_duplicate_share: float = 0.0
    min_realised_ic: float = 0.0
    min_hit_rate: float = 0.0


_NAMES = tuple(field.name for field in fields(MonitoringSettings))
# The figures that have a threshold, as `metrics` calls them, and the setting that holds it.
THRESHOLDS: Mapping[str, str] = {
    name.partition("_")[2]: name for name in _NAMES if name[:3] in {"max", "min"}
}
FLOORS = frozenset(figure for figure, name in THRESHOLDS.items() if name.startswith("min"))


def read_settings(config: MonitoringConfig) -> MonitoringSettings:
    """Return the settings of a configuration, with the defaults for what it leaves out."""
    messages: tuple[Message, ...] = (config, config.thresholds)
    given = {
        name: getattr(message, name)
        for message in messages
        for name in _NAMES
        if name in message.DESCRIPTOR.fields_by_name and message.HasField(name)
    }
    return MonitoringSettings(**given)


def differing_settings(config: MonitoringConfig) -> dict[str, Any]:
    """Return the settings that differ from their defaults; saying a default changes nothing."""
    defaults = asdict(MonitoringSettings())
    return {name: value for name, value in asdict(read_settings(config)).items() if value != defaults[name]}


def describe_alert(metric: str, column: str, value: float, threshold: float) -> str:
    """Return an alert in plain words."""
    named = f"{metric} of {column}" if column else metric
    return f"{named} is {value:.4g}, {'below' if metric in FLOORS else 'above'} {threshold:.4g}"
