"""Which role permits what."""

import itertools

import pytest

from optaic.common.v1 import access_pb2
from servicekit import access
from servicekit.errors import PermissionDeniedError

PERMISSIONS = {
    name.removeprefix("PERMISSION_")
    for name in access_pb2.Permission.keys()  # noqa: SIM118 - an enum wrapper is no mapping
}


def test_every_permission_of_the_contract_is_some_roles_and_no_role_has_another() -> None:
    given = frozenset[str]().union(*access.PERMISSIONS_BY_ROLE.values())
    assert given == PERMISSIONS - {"UNSPECIFIED"}


def test_each_role_of_people_has_all_that_the_one_before_has() -> None:
    ladder = [access.PERMISSIONS_BY_ROLE[role] for role in ("viewer", "researcher", "maintainer", "admin")]
    assert all(less < more for less, more in itertools.pairwise(ladder))


@pytest.mark.parametrize("role", ["viewer", "researcher", "maintainer", "admin"])
def test_no_person_reports_runs_removes_data_or_serves(role: str) -> None:
    assert not access.PERMISSIONS_BY_ROLE[role] & {"REPORT_RUNS", "REMOVE_DATA", "SERVE"}


def test_an_executor_does_nothing_but_execute() -> None:
    assert access.PERMISSIONS_BY_ROLE["executor"] == {"READ_CONFIGURATION", "REPORT_RUNS", "REMOVE_DATA"}


@pytest.mark.parametrize("roles", [(), ("viewer",), ("nobody",), ("viewer", "executor")])
def test_the_error_for_a_missing_permission_names_the_least_role_that_has_it(roles: tuple[str, ...]) -> None:
    with pytest.raises(PermissionDeniedError) as refused:
        access.check_permitted(roles, "EDIT", "/optaic.instance.v1.InstanceService/CreateInstance")
    assert refused.value.metadata == {"permission": "edit", "role": "researcher"}
    assert "CreateInstance" in refused.value.message
    assert "researcher" in refused.value.message


def test_one_of_several_roles_is_enough() -> None:
    access.check_permitted(("viewer", "researcher"), "EDIT", "/x/CreateInstance")


def test_a_permission_that_nobody_has_is_refused_to_everybody() -> None:
    with pytest.raises(PermissionDeniedError):
        access.check_permitted(access.ROLES, "UNSPECIFIED", "/x/y")


@pytest.mark.parametrize("method", ["/optaic.run.v1.RunService/Nothing", "/nowhere.Service/Get", "Get", ""])
def test_a_method_without_a_contract_has_no_permission(method: str) -> None:
    with pytest.raises(ValueError, match="no contract"):
        access.access_of(method)
