"""The history that status-service keeps reaches back over the windows that it answers by default."""

from datetime import UTC, datetime, timedelta

import pytest
from pydantic import ValidationError

from status_service.config import Settings
from status_service.domain.history import DEFAULT_WINDOWS, window_of

NOW = datetime(2026, 11, 29, 12, tzinfo=UTC)
URLS = dict.fromkeys(
    ("database_url", "database_owner_url", "database_infra_url"), "postgresql://nobody@127.0.0.1/none"
)


def _kept_days(days: float) -> float:
    """Return how many days are kept if the setting says so."""
    return Settings.model_validate({**URLS, "status_history_days": days}).status_history_days


@pytest.mark.parametrize("days", [31, 90, 3650])
def test_the_default_windows_are_answered_however_few_days_are_kept(days: float) -> None:
    kept_since = NOW - timedelta(days=_kept_days(days))
    for length in DEFAULT_WINDOWS:
        window = window_of("windows", NOW - length, None, NOW, kept_since)
        assert window.end_time - window.start_time == length


@pytest.mark.parametrize("days", [0, 7, 30, 3651])
def test_too_few_and_too_many_days_are_refused_at_the_start(days: float) -> None:
    with pytest.raises(ValidationError, match="status_history_days"):
        _kept_days(days)
