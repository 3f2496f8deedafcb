"""The policy and the secrets of one run, installed once in the process that computes the run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import optaic.plugins.secrets as plugin_secrets
import redaction
from optaic.plugins import InvalidConfig, SourceNotAllowed
from worker.sources.policy import Destination, SourcePolicy, is_bound

_REFERENCE = re.compile(r"\$\{([^}]*)\}")


@dataclass(frozen=True)
class SourceAccess:
    """The policy, and the values of the secrets that the run's configuration names."""

    policy: SourcePolicy = field(default_factory=SourcePolicy)
    source_secrets: Mapping[str, str] = field(default_factory=dict, repr=False)  # for `file` and `sql`
    plugin_secrets: Mapping[str, str] = field(default_factory=dict, repr=False)  # for code of definitions
    refusals: Mapping[str, str] = field(default_factory=dict)  # why a secret that is named is not here

    @property
    def values(self) -> tuple[str, ...]:
        """All secrets of the run."""
        return (*self.source_secrets.values(), *self.plugin_secrets.values())


_installed = SourceAccess()


def install(access: SourceAccess) -> None:
    """Let this process read by a policy, with the secrets of its run and no others."""
    global _installed  # noqa: PLW0603 - a process computes one run
    _installed = access
    plugin_secrets.provide(access.plugin_secrets, access.refusals)
    redaction.remember(access.values)


def current() -> SourceAccess:
    """Return what was installed; without that, a policy that allows no local file and no internal host."""
    return _installed


class BoundSecrets:
    """The secrets that one source's configuration names; each is sent only to a destination that it is bound to."""

    def __init__(self, access: SourceAccess) -> None:
        self._access = access
        self._used: set[str] = set()

    @property
    def are_used(self) -> bool:
        """Return whether any secret was filled in."""
        return bool(self._used)

    def fill(self, text: str, path: str) -> str:
        """Return a text with the value of every reference filled in.

        Raises:
            InvalidConfig: the worker has no such secret, or it must not be named.
            SourceNotAllowed: it is bound to no destination.
        """

        def value_of(match: re.Match[str]) -> str:
            name = match[1]
            if not name.startswith(redaction.PREFIX):
                raise InvalidConfig(
                    f"{path}: ${{{name}}} cannot be read; a reference must name a secret that begins with {redaction.PREFIX}"
                )
            if name not in self._access.source_secrets:
                raise self._refuse(name, path)
            self._used.add(name)
            return self._access.source_secrets[name]

        return _REFERENCE.sub(value_of, text)

    def check(self, destination: Destination, shown: str) -> None:
        """Check that every secret that was filled in may be sent to a destination.

        Raises:
            SourceNotAllowed: one is not bound to it.
        """
        for name in sorted(self._used):
            if not is_bound(self._access.policy.secrets.get(name, ()), destination):
                line = f'{{"{name}": ["{self.hide(str(destination))}"]}}'
                raise SourceNotAllowed(
                    f"url: the secret {name} must not be sent to {shown}, because it is not bound to it; nothing was sent. "
                    f"If it is meant for it, add this to OPTAIC_SOURCE_SECRETS of the worker: {line}"
                )

    def hide(self, text: str) -> str:
        """Return a text without the values that were filled in."""
        for value in sorted(
            (self._access.source_secrets[name] for name in self._used), key=len, reverse=True
        ):
            for form in (value, value.lower()):
                text = text.replace(form, redaction.HIDDEN) if form else text
        return redaction.redact(text)

    def _refuse(self, name: str, path: str) -> InvalidConfig | SourceNotAllowed:
        if (why := self._access.refusals.get(name)) is not None:
            return SourceNotAllowed(f"{path}: {why}")
        return InvalidConfig(f"{path}: the worker has no secret {name} for this tenant; set it")
