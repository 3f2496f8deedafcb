"""The names and tags of flows, deployments and flow runs in Prefect, and the parameters of a flow run."""

from __future__ import annotations

FLOW_NAME = "optaic"  # every deployment belongs to this one Prefect flow
TAG = "optaic"  # of every deployment and every flow run
WORK_POOL = "optaic"  # the default; the settings may name another one
FIRST_TENANT = "default"  # the tenant of an installation that names no other
ENTRYPOINT = "worker.flow.execute"  # what a flow run executes
PARAMETERS = ("tenant_id", "instance_id", "flow_kind", "run_id")  # of a flow run


def work_pool_of(work_pool: str, tenant_id: str) -> str:
    """Return the work pool of a tenant's deployments, which only the tenant's worker polls.

    `work_pool` is what the settings name. The pool of the tenant `default` has this name, as in earlier releases.
    """
    return work_pool if tenant_id == FIRST_TENANT else f"{work_pool}-{tenant_id}"


def deployment_name(tenant_id: str, instance_id: str, flow_kind: str) -> str:
    """Return the deterministic name of a flow's deployment."""
    return f"{tenant_id}.{instance_id}.{flow_kind}"


def deployment_tags(
    installation_id: str, tenant_id: str, instance_id: str, flow_kind: str
) -> tuple[str, ...]:
    """Return the tags by which a deployment is found again."""
    mark, *others = flow_run_tags(tenant_id, instance_id, flow_kind)
    return (mark, installation_tag(installation_id), *others)


def installation_tag(installation_id: str) -> str:
    """Return the tag of all deployments of an installation."""
    return f"installation:{installation_id}"


def flow_run_tags(tenant_id: str, instance_id: str, flow_kind: str) -> tuple[str, ...]:
    """Return the tags by which users find a flow run in Prefect."""
    return (TAG, f"tenant:{tenant_id}", f"instance:{instance_id}", f"flow:{flow_kind}")


def flow_run_parameters(tenant_id: str, instance_id: str, flow_kind: str, run_id: str = "") -> dict[str, str]:
    """Return the parameters of a flow run; without `run_id`, the schedule has started it."""
    return dict(zip(PARAMETERS, (tenant_id, instance_id, flow_kind, run_id), strict=True))
