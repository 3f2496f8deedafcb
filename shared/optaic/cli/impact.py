"""Show what would become stale if the output of some flows were no longer right."""

from __future__ import annotations

from collections.abc import Sequence

from optaic.cli.output import print_line
from optaic.client import AsyncClient, word
from optaic.client.references import FlowLike
from optaic.lineage.v1.lineage_service_pb2 import PreviewImpactResponse

_SHOWN = 20  # the nearest flows


async def show_impact(client: AsyncClient, flows: Sequence[FlowLike]) -> None:
    """Print how many flows of each kind would become stale, and the nearest of them."""
    print_impact(await client.lineage.preview_impact(*flows, most=_SHOWN))


def print_impact(impact: PreviewImpactResponse) -> None:
    """Print an impact: the counts, and the flows that it lists."""
    if not impact.total:
        print_line("no flow would become stale")
        return
    kinds = [
        f"{each.count} {word(each, 'instance_kind').lower()}/{word(each, 'flow_kind').lower()}"
        for each in impact.counts
    ]
    if impact.hidden_count:
        kinds.append(f"{impact.hidden_count} in projects that you may not read")
    flows = "1 flow" if impact.total == 1 else f"{impact.total} flows"
    print_line(f"{flows} would become stale: {', '.join(kinds)}")
    for each in impact.flows:
        if not each.hidden:
            print_line(f"    {each.instance_name}/{word(each.flow, 'flow_kind').lower()}")
    if impact.next_page_token:
        print_line(f"    and {impact.total - len(impact.flows)} more")
