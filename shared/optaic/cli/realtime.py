"""`optaic status token`: what a subscriber of live messages needs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from optaic.cli.completion import complete_instances
from optaic.cli.naming import find_instances
from optaic.cli.output import (
    Format,
    OutputOption,
    is_data,
    message_dict,
    moment,
    print_data,
    print_line,
    print_table,
)
from optaic.cli.session import ProjectOption, run, warn
from optaic.client import AsyncClient, word

_TOKENS = ("connection_token", "token")


def token(
    instances: Annotated[
        list[str],
        typer.Argument(
            help="Instances, by id or name; at most 100.",
            show_default=False,
            autocompletion=complete_instances,
        ),
    ],
    project: ProjectOption = "",
    run_id: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            help="Also the progress of this run, the newest of a flow of one of them; may be repeated.",
        ),
    ] = None,
    without_tenant: Annotated[
        bool,
        typer.Option("--without-tenant", help="The channels of statuses without a tenant in their names."),
    ] = False,
    show_tokens: Annotated[
        bool,
        typer.Option(
            "--show-tokens", help="Print the tokens too; whoever has them reads these channels as you."
        ),
    ] = False,
    output: OutputOption = Format.TABLE,
) -> None:
    """Make tokens to subscribe to the live messages of instances, and show the channels, the address and the expiry."""

    async def command(client: AsyncClient) -> None:
        found = await find_instances(client, instances, project)
        names = {each.instance_id: each.name for each in found}
        made = await client.status.realtime_token(found, runs=run_id or (), without_tenant=without_tenant)
        url = client.status.realtime_url()
        if not url:
            warn("the address of Centrifugo is not known; set OPTAIC_REALTIME_URL to that of its WebSocket")
        if is_data(output):
            content: dict[str, Any] = {"url": url, **message_dict(made)}
            for each in content["subscriptions"]:
                each["instance_name"] = names.get(each.get("instance_id", ""), "")
            print_data(content if show_tokens else _without_tokens(content), output)
            return
        print_line("address", url or "-")
        print_line("expires", moment(made, "expire_time"))
        columns = ("TOPIC", "NAME", "CHANNEL")
        rows = [
            (word(each, "topic"), names.get(each.instance_id, each.run_id), each.channel, each.token)
            for each in made.subscriptions
        ]
        if show_tokens:
            print_line("connection token", made.connection_token)
            print_table((*columns, "TOKEN"), rows)
        else:
            print_table(columns, [row[: len(columns)] for row in rows])

    run(command)


def _without_tokens(content: dict[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in content.items() if name not in _TOKENS}
    subscriptions = [
        {name: value for name, value in each.items() if name not in _TOKENS}
        for each in content["subscriptions"]
    ]
    return {**kept, "subscriptions": subscriptions}
