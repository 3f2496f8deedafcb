"""The limits that pages and contracts state are those that the programs have."""

import pytest

from instance_service.domain import check_costs, schema_bounds
from instance_service.reconcile import plans
from instance_service.use_cases import rehearsal
from instance_service.use_cases.instances import reading
from optaic.apply import yaml_text
from optaic.expression import MAX_DEPTH, MAX_LENGTH, MAX_NODES
from optaic.plugins import patterns
from servicekit import bounds, broker, events, server
from support.contract import comments, page
from worker import comparison, isolation, profile

_KIB, _MIB, _DAY = 1024, 1024**2, 24 * 3600


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("expressions.md", f"{MAX_LENGTH:,} characters"),
        ("expressions.md", f"{MAX_NODES:,} operations"),
        ("expressions.md", f"{MAX_DEPTH} levels"),
        ("definitions.md", f"{schema_bounds.MOST_BYTES // _KIB} KiB"),
        ("definitions.md", f"{schema_bounds.MOST_LEVELS} levels"),
        ("definitions.md", f"{schema_bounds.MOST_NODES:,} values"),
        ("definitions.md", f"{schema_bounds.MOST_ALTERNATIVES:,} subschemas"),
        ("definitions.md", f"{patterns._MOST_CHARACTERS:,} characters"),
        ("definitions.md", f"{check_costs.MOST_HOPS:,} references"),
        ("definitions.md", f"{check_costs.MOST_STEPS:,} steps"),
        ("definitions.md", f"{isolation._LONGEST_RESULT // _MIB} MiB"),
        ("apply.md", f"{yaml_text._MOST_VALUES:,} values"),
        ("apply.md", f"{yaml_text._MOST_LEVELS} levels"),
        ("instances.md", f"{profile._LARGEST // 1000} kB"),
        ("instances.md", f"{events.MAXIMUM_RESOURCE:,} bytes"),
        ("events.md", f"{broker.MAXIMUM_AGE // _DAY} days"),
        ("events.md", f"{broker._DUPLICATE_WINDOW // 60:.0f} minutes"),
        ("schedules.md", f"{plans._DAYS_AHEAD} days"),
        ("security.md", f"{bounds.DEFAULT_BYTES:,} bytes"),
        ("security.md", f"{bounds.MOST_NODES:,} values and {bounds.MOST_LEVELS} levels"),
        ("security.md", f"{bounds.MOST_NODES_AT_ONCE:,} values"),
        ("security.md", f"{bounds.MOST_PATHS:,} paths of at most {bounds.LONGEST_PATH:,} characters"),
        ("security.md", f"{server._MOST_METADATA_BYTES // _KIB} KiB of metadata"),
    ],
)
def test_a_page_states_the_limit(name: str, stated: str) -> None:
    assert stated in page(name)


@pytest.mark.parametrize(
    ("element", "stated"),
    [
        ("instance.v1.InstanceService.CreateInstance", f"{events.MAXIMUM_RESOURCE // 1000} kB"),
        ("instance.v1.InstanceService.BatchGetInstances", f"{reading._MOST_BYTES // 10**6} MB"),
        ("instance.v1.InstanceService.RehearseChanges", f"{rehearsal._LONGEST_SECONDS:.0f} seconds"),
        ("instance.v1.DatasetSpec.max_deleted_share", f"{comparison._FEWEST} keys"),
        ("run.v1.PipelineResult.output_profile", f"{profile._LARGEST // 1000} kB"),
    ],
)
def test_a_contract_states_the_limit(element: str, stated: str) -> None:
    assert stated in comments()[f"optaic.{element}"]
