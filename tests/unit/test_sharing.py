"""Which tests are run together, and which are begun first."""

from pathlib import Path

import pytest

from support.sharing import AFTER, TOGETHER, count_processes, rank, scope_of, urgency

_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("place", TOGETHER)
def test_every_place_of_the_order_is_there(place: str) -> None:
    assert (_ROOT / place).exists()


@pytest.mark.parametrize(
    ("nodeid", "scope"),
    [
        ("tests/e2e/test_health.py::test_x[a/b::c]", "tests/e2e"),
        ("tests/e2e/clients/test_go.py::test_x", "tests/e2e"),
        ("tests/e2e/test_upgrade.py::test_x", "tests/e2e/test_upgrade.py"),
        ("tests/faults/run_service/test_kills.py::test_x", "tests/faults/run_service"),
        ("tests/faults/status_service/test_x.py::test_x", "tests/faults"),
        ("tests/unit/worker/test_x.py::test_x", "tests/unit/worker"),
        ("tests/unit/worker_builtin/test_x.py::test_x", "tests/unit/worker_builtin/test_x.py"),
    ],
)
def test_a_test_is_run_with_the_narrowest_place_or_its_file(nodeid: str, scope: str) -> None:
    assert scope_of(nodeid) == scope


def test_a_file_without_a_place_in_the_order_comes_last() -> None:
    assert rank("tests/unit/redaction/test_x.py") > max(map(rank, TOGETHER))


def test_there_is_a_process_at_least() -> None:
    assert count_processes() >= 1


def test_tests_that_use_servers_run_after_those_that_start_them_in_the_same_process() -> None:
    for scope, before in AFTER.items():
        assert rank(before) < rank(scope) < len(TOGETHER)
        others = [each for each in TOGETHER if each not in AFTER]
        assert all(urgency(scope, {before}, {before}) < urgency(each, {before}, {before}) for each in others)
        assert all(urgency(scope, set(), {before}) > urgency(each, set(), {before}) for each in others)


def test_tests_that_use_servers_keep_their_place_if_no_test_starts_them() -> None:
    assert sorted(TOGETHER, key=lambda scope: urgency(scope, set(), set())) == list(TOGETHER)
