"""What an answer about admission lists of the flows that block."""

from __future__ import annotations

import pytest

from lineage_service.store.reads import AdmissionFacts
from lineage_service.use_cases import admission
from servicekit import pages
from unit.lineage_service.test_circles import flow


@pytest.mark.parametrize("most_bytes", [400, 10_000])
def test_flows_without_a_version_are_listed_where_not_all_fit(
    monkeypatch: pytest.MonkeyPatch, most_bytes: int
) -> None:
    monkeypatch.setattr(pages, "LONG_MOST_BYTES", most_bytes)
    flows = [flow(number, version=0 if number == 20 else 1) for number in range(1, 21)]
    blocking = [admission.Blocking(each, "stale", [], []) for each in flows]
    facts = AdmissionFacts(1, flow(30), [], flows)
    answer = admission.Answer(facts, blocking, [], blocking_count=20, missing_count=1)
    listed = admission._message(answer, is_service=True).blocking
    places = [each.is_missing_input for each in listed].index(True)
    assert (places, len(listed) == 20) == ((0, False) if most_bytes == 400 else (19, True))
