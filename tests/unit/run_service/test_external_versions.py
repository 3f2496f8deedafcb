"""The rules for reports of external versions, over the product of everything that a report may differ in."""

from itertools import product

import pytest

from run_service.domain.external_versions import ExternalVersion, check_date, is_current
from run_service.domain.refreshing import Entry, Progress, Skip, refused
from servicekit.errors import InvalidArgumentError

NAMES, FINGERPRINTS, DATES = ("v1", "v2"), ("f1", "f2"), ("", "2026-11-27", "2026-11-28")
REPORTS = [ExternalVersion(*parts) for parts in product(NAMES, DATES, FINGERPRINTS)]


@pytest.mark.parametrize("current", [None, *REPORTS])
@pytest.mark.parametrize("reported", REPORTS)
def test_a_report_is_of_the_current_version_if_name_and_configuration_are_the_same(
    reported: ExternalVersion, current: ExternalVersion | None
) -> None:
    is_same = current is not None and (reported.name, reported.compute_fingerprint) == (
        current.name,
        current.compute_fingerprint,
    )
    if (
        is_same
        and current is not None
        and reported.last_data_date
        and reported.last_data_date != current.last_data_date
    ):
        with pytest.raises(InvalidArgumentError) as caught:
            is_current(reported, current)
        assert [each.field for each in caught.value.field_violations] == ["last_data_date"]
    else:
        assert is_current(reported, current) is is_same


@pytest.mark.parametrize("is_judged", [True, False])
@pytest.mark.parametrize(
    ("date", "is_date"),
    [("2024-02-29", True), ("2023-02-29", False), ("0000-01-01", False), ("2024-13-01", False)],
)
def test_a_date_that_does_not_exist_is_refused(date: str, *, is_date: bool, is_judged: bool) -> None:
    report = ExternalVersion("v1", date, "f")
    if is_date:
        check_date(report, is_judged=is_judged)
    else:
        with pytest.raises(InvalidArgumentError, match="does not exist"):
            check_date(report, is_judged=is_judged)


def test_a_date_is_required_only_where_a_policy_judges_it() -> None:
    report = ExternalVersion("v1", "", "f")
    check_date(report, is_judged=False)
    with pytest.raises(InvalidArgumentError, match="freshness policy"):
        check_date(report, is_judged=True)


def test_a_refresh_skips_a_flow_that_no_run_computes_and_says_what_to_do() -> None:
    after = refused(Entry(progress=Progress.RUNNING), "FLOW_EXTERNAL", "report a version", frozenset())
    assert (after.progress, after.skip, after.reason) == (Progress.SKIPPED, Skip.EXTERNAL, "report a version")
