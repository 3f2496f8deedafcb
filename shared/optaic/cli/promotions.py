"""`optaic instance promote-model`, `remove-champion` and `promotions`: which version of a model others read."""

from __future__ import annotations

from typing import Annotated

import typer

from optaic.cli.naming import find_instance, is_unattended
from optaic.cli.output import (
    Format,
    ListFormat,
    ListOutputOption,
    OutputOption,
    moment,
    print_list,
)
from optaic.cli.session import (
    DryRunOption,
    EtagOption,
    InstanceArgument,
    ProjectOption,
    ReasonOption,
    end_dry_run,
    run,
)
from optaic.cli.shown import show_instance
from optaic.client import AsyncClient


def promote_model(
    instance: InstanceArgument,
    version: Annotated[str, typer.Argument(help="The version in the MLflow registry.", show_default=False)],
    dry_run: DryRunOption = False,
    etag: EtagOption = "",
    reason: ReasonOption = "",
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Make a registered version the model's champion, which its inference reads.

    To go back, promote the earlier version again, or remove the champion.
    """

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project, whole=is_unattended())
        answer = await client.instances.promote_model_version(
            found, version, etag=etag, reason=reason, validate_only=dry_run
        )
        done = "could have the champion" if dry_run else "has the champion"
        show_instance(answer, output, f"{done} {answer.model.champion.model_version}")
        end_dry_run(dry_run=dry_run)

    run(command)


def remove_champion(
    instance: InstanceArgument,
    dry_run: DryRunOption = False,
    etag: EtagOption = "",
    reason: ReasonOption = "",
    project: ProjectOption = "",
    output: OutputOption = Format.TABLE,
) -> None:
    """Leave a model without a champion: its inference reads the newest training again."""

    async def command(client: AsyncClient) -> None:
        found = await find_instance(client, instance, project, whole=is_unattended())
        answer = await client.instances.remove_champion(
            found, etag=etag, reason=reason, validate_only=dry_run
        )
        show_instance(answer, output, "could be without a champion" if dry_run else "has no champion")
        end_dry_run(dry_run=dry_run)

    run(command)


def promotions(
    instance: InstanceArgument, project: ProjectOption = "", output: ListOutputOption = ListFormat.TABLE
) -> None:
    """List the champion versions of a model, newest first; NONE means that the champion was removed."""

    async def command(client: AsyncClient) -> None:
        found = await client.instances.model_promotions(await find_instance(client, instance, project))
        print_list(
            found,
            ("VERSION", "AUTHOR", "TIME", "METRICS", "REASON"),
            [
                (
                    each.model_version or "NONE",
                    each.author,
                    moment(each, "create_time"),
                    ", ".join(f"{name}={value:g}" for name, value in each.metrics.items()),
                    each.reason,
                )
                for each in found
            ],
            output,
        )

    run(command)
