"""The filters of `optaic status list` and `count`, as options and as what the client takes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Self

import typer

from optaic.cli.filters import combine
from optaic.cli.values import MOMENT, parse_labels, parse_moment
from optaic.client import AsyncClient
from optaic.client.moments import MomentLike

_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}
_DURATION = re.compile(r"(\d+)([dhms])")
_FIELDS = {"status": "statuses", "kind": "kinds", "cause": "cause_kinds", "flow": "flow_kinds"}
KindOption = Annotated[list[str] | None, typer.Option(help="Only this kind, for example dataset.")]
CauseOption = Annotated[
    list[str] | None, typer.Option(help="Only with a cause of this kind, for example overdue.")
]
FlowOption = Annotated[
    list[str] | None, typer.Option(help="Only with a flow of this kind, for example training.")
]
LabelOption = Annotated[
    list[str] | None, typer.Option(help="Only with this label, name=value; may be repeated.")
]
OwnerOption = Annotated[str, typer.Option(help="Only of this owner.")]
NameOption = Annotated[str, typer.Option(help="Only of this name.")]
NamePrefixOption = Annotated[str, typer.Option(help="Only names that begin with this.")]
UnchangedForOption = Annotated[
    str,
    typer.Option(
        help="Only with the same status for at least this long, until now or until --as-of; for example 2d, 6h or 30m."
    ),
]
ChangedWithinOption = Annotated[
    str,
    typer.Option(
        help="Only with a status that changed within this time before now, or before --as-of; for example 1h."
    ),
]
AsOfOption = Annotated[str, typer.Option("--as-of", help=f"Show it as it was: {MOMENT}.")]


@dataclass(frozen=True)
class Asked:
    """The filters that were given, as options or in `--filter`."""

    several: Mapping[str, list[str]]
    single: Mapping[str, str]

    @classmethod
    def of(
        cls, filters: list[str] | None, several: Mapping[str, list[str] | None], single: Mapping[str, str]
    ) -> Self:
        """Return the filters of options and of `--filter`.

        Raises:
            typer.BadParameter: A text of `--filter` is none.
        """
        return cls(*combine(filters, several, single))

    def is_narrowed(self) -> bool:
        """Return whether any filter was given."""
        return any(self.several.values()) or any(self.single.values())

    def selection(self) -> dict[str, Any]:
        """Return them as the client takes them.

        Raises:
            ValueError: A label has another form than name=value, or is given twice.
        """
        found: dict[str, Any] = {
            _FIELDS[key]: values for key, values in self.several.items() if key != "label"
        }
        return {**found, "labels": parse_labels(self.several["label"]), **self.single}


async def read_times(
    client: AsyncClient, as_of: str, unchanged_for: str, changed_within: str
) -> dict[str, Any]:
    """Return the moment that is shown, and since when a status must hold or must have changed, as the client takes them.

    Raises:
        typer.BadParameter: A text is no duration, or there is no time before which it ends.
        ValueError: `as_of` is no moment.
        NotFoundError: There is no such run.
    """
    when = await parse_moment(client, as_of)
    return {**_since(when, unchanged_for, changed_within), "as_of": when}


def _since(as_of: MomentLike | None, unchanged_for: str, changed_within: str) -> dict[str, datetime | None]:
    """Return since when a status must hold, and since when it must have changed, at the moment that is shown."""
    shown = datetime.now(UTC) if as_of is None else as_of
    if not isinstance(shown, datetime):
        if unchanged_for or changed_within:
            raise typer.BadParameter(
                "must be a time if --unchanged-for or --changed-within is given", param_hint="--as-of"
            )
        return {}
    return {
        "unchanged_since": _before(shown, unchanged_for, "--unchanged-for"),
        "changed_since": _before(shown, changed_within, "--changed-within"),
    }


def _before(time: datetime, text: str, option: str) -> datetime | None:
    """Return the moment that is a duration before a time; of nothing: none."""
    if not text:
        return None
    if not (found := _DURATION.fullmatch(text)):
        raise typer.BadParameter(
            f"{text!r} is no duration; write for example 2d, 6h, 30m or 45s", param_hint=option
        )
    try:
        return time - timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        raise typer.BadParameter(f"{text!r} goes back to before the year 1", param_hint=option) from None
