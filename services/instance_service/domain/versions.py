"""The precedence of semantic versions as text that the database can sort."""

from __future__ import annotations


def precedence(version: str) -> str:
    """Return a text whose byte order is the precedence of the version by semver.org; build metadata is ignored."""
    core, _, pre_release = version.partition("+")[0].partition("-")
    numbers = ".".join(_number(part) for part in core.split("."))
    if not pre_release:
        return f"{numbers}~"  # a release comes after all its pre-releases
    return f"{numbers}-" + "".join(
        "!" + (f"0{_number(part)}" if part.isdecimal() else f"1{part}") for part in pre_release.split(".")
    )


def _number(text: str) -> str:
    """Return digits that sort by their value: the number of digits comes first."""
    digits = text.lstrip("0") or "0"
    return f"{len(digits):02d}{digits}"
