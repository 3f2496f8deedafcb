"""The differences between two revisions, as paths."""

from typing import Any

import pytest

from instance_service.domain.revision_diff import ABSENT, differences


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({"name": "a", "revision": 1}, {"name": "a", "revision": 2}, []),
        ({"name": "a"}, {"name": "b", "owner": "o"}, [("name", "a", "b"), ("owner", ABSENT, "o")]),
        (
            {"dataset": {"pipeline": {"config": {"as_of": "x", "n": 1}}}},
            {"dataset": {"pipeline": {"config": {"n": 2.5}}}},
            [("dataset.pipeline.config.as_of", "x", ABSENT), ("dataset.pipeline.config.n", 1, 2.5)],
        ),
        (
            {"upstream_refs": [{"role": "a"}, {"role": "b"}]},
            {"upstream_refs": [{"role": "a"}, {"role": "c"}, {"role": "d"}]},
            [("upstream_refs[1].role", "b", "c"), ("upstream_refs[2]", ABSENT, {"role": "d"})],
        ),
        ({"labels": {"a.b": "1"}}, {"labels": {}}, [("labels['a.b']", "1", ABSENT)]),
        ({"config": {"x": None}}, {"config": {}}, [("config.x", None, ABSENT)]),
        ({"config": {"x": True}}, {"config": {"x": 1}}, [("config.x", True, 1)]),
        ({"config": {"x": [1]}}, {"config": {"x": {"y": 1}}}, [("config.x", [1], {"y": 1})]),
        (
            {"flows": [{"flow_kind": "F", "prefect_deployment_id": "", "compute_fingerprint": "a"}]},
            {"flows": [{"flow_kind": "F", "prefect_deployment_id": "d", "compute_fingerprint": "b"}]},
            [("flows[0].compute_fingerprint", "a", "b")],
        ),
        (
            {"signal": {"dataset": {"evidently_project_id": ""}}, "model": {"mlflow_experiment_id": ""}},
            {"signal": {"dataset": {"evidently_project_id": "x"}}, "model": {"mlflow_experiment_id": "7"}},
            [],
        ),
        (
            {"dataset": {"pipeline": {"config": {"evidently_project_id": "x"}}}},
            {"dataset": {"pipeline": {"config": {"evidently_project_id": "y"}}}},
            [("dataset.pipeline.config.evidently_project_id", "x", "y")],
        ),
    ],
)
def test_every_field_that_differs_is_named_in_order(
    before: dict[str, Any], after: dict[str, Any], expected: list[tuple[str, Any, Any]]
) -> None:
    assert differences(before, after) == expected
    assert [(path, new, old) for path, old, new in differences(after, before)] == expected
