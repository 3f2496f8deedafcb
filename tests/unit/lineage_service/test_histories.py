"""Random histories of many flows: the rules of the domain, fed with events in any order, against the brute-force model."""

from __future__ import annotations

import pytest

from support import campaigns
from support.lineage_history import History

pytestmark = pytest.mark.faults
# In parts, so that one failure tells its seed and the others go on.
_PARTS = 4
_SMALL = campaigns.count("OPTAIC_HISTORIES", 2_000, 20_000)
_LARGE = campaigns.count("OPTAIC_LARGE_HISTORIES", 100, 1_000)


@pytest.mark.parametrize("part", range(_PARTS))
def test_histories_of_twenty_flows(part: int) -> None:
    del part  # another seed begins each
    random = campaigns.begin()
    for _ in range(max(_SMALL // _PARTS, 1)):
        History(random, 20).run(30, deliveries=12, checks=1)


@pytest.mark.parametrize("part", range(_PARTS))
def test_histories_of_two_hundred_flows(part: int) -> None:
    del part  # another seed begins each
    random = campaigns.begin()
    for _ in range(max(_LARGE // _PARTS, 1)):
        History(random, 200).run(200, deliveries=15, checks=2)
