"""The text and the metadata of each refusal that several services raise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_LONGEST = 4096  # characters of one entry of the metadata


class Refusal(NamedTuple):
    """A refusal's text, and the values that a program can read of it."""

    text: str
    metadata: dict[str, str]


def instance_not_found(instance_ids: Sequence[str]) -> Refusal:
    """Return INSTANCE_NOT_FOUND, which lists every missing instance."""
    named = ", ".join(instance_ids)
    return Refusal(
        f"there is no instance {named}; check the id (ListInstances lists the instances), "
        "or retry in a few seconds if the instance is new",
        {"instance_ids": named[:_LONGEST]},
    )


def flow_not_found(instance_id: str, flow_kind: str) -> Refusal:
    """Return FLOW_NOT_FOUND for a flow that a service does not find; `flow_kind` is empty for the default flow."""
    which = f"{flow_kind} flow" if flow_kind else "flow"
    return Refusal(
        f"flow_kind: instance {instance_id} has no {which}; choose one of its flows (GetInstance lists them), "
        "or retry in a few seconds if the instance is new",
        {"instance_id": instance_id, "flow_kind": flow_kind},
    )


def instance_deleting(instance_id: str) -> Refusal:
    """Return INSTANCE_DELETING for a change or a run of an instance that is being deleted."""
    return Refusal(
        f"instance {instance_id} is being deleted: it takes no more changes and no more runs; "
        "when it is gone, create it again",
        {"instance_id": instance_id},
    )


def plan_too_large(flows: int) -> Refusal:
    """Return TOO_MANY_FLOWS for a plan whose flows do not fit into one answer."""
    return Refusal(
        f"the plan of {flows} flows is too large for one answer; choose fewer, for example by project or by label",
        {"flows": str(flows)},
    )


def too_many_flows(limit: int, advice: str = "choose fewer, for example by project or by label") -> Refusal:
    """Return TOO_MANY_FLOWS for a refresh with more flows than one may have."""
    return Refusal(
        f"there are more than {limit} flows to bring up to date (OPTAIC_REFRESH_FLOWS); {advice}",
        {"limit": str(limit)},
    )
