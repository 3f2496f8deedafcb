"""The rule what a run that has ended without success keeps of its output folder."""

from __future__ import annotations

from collections.abc import Iterable

from optaic.rules.locations import is_inside


def list_kept_paths(uris: Iterable[str], outputs: str, data: str) -> list[str]:
    """Return where in its folder a run has its artifacts, whatever root that was below then; "" is all of the folder.

    What lies neither there nor in the flow's data may be anywhere, so all of the folder is kept.

    Args:
        uris: of its artifacts; as this release would refuse them, too.
        outputs: the run's folder below the root of all data.
        data: the folder of its flow's data.
    """
    elsewhere = (uri for uri in uris if uri and not is_inside(uri, data))
    return sorted({_path(uri, outputs) for uri in elsewhere})


def _path(uri: str, outputs: str) -> str:
    return uri.rpartition(f"/{outputs}")[2].strip("/") if is_inside(uri, outputs) else ""
