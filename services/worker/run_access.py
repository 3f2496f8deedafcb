"""Choose which secrets a run gets: those that its configuration names and that are bound; in the worker's own process."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import redaction
from optaic.rules.sources import EXTERNAL_CODE, FILE_CODE, SCHEMES, SQL_CODE
from redaction import PREFIX
from worker import environment
from worker.config import Settings
from worker.recipe import Component, Plugin, Recipe
from worker.sources.access import SourceAccess
from worker.sources.policy import DEFINITION, SourcePolicy
from worker.sources.stored_secrets import read_secrets

_CHECKED = FILE_CODE | EXTERNAL_CODE | SQL_CODE  # code that sends a secret to checked destinations only
_BUILTIN = "worker.builtin."  # code of the worker itself
_REFERENCE = re.compile(r"\$\{(" + PREFIX + r"[A-Za-z0-9_]+)\}")


def find_access(recipe: Recipe, tenant_id: str, settings: Settings) -> SourceAccess:
    """Return what a run of a tenant may read. All secrets of the tenant are hidden in whatever this process says from now on."""
    return access_of(components_of(recipe), tenant_id, settings, beside=packages_of(recipe))


def access_of(
    components: Iterable[Component], tenant_id: str, settings: Settings, *, beside: Iterable[str] = ()
) -> SourceAccess:
    """Return what code with these configurations may read, and the secrets of the tenant that it gets; as `secrets_for`."""
    secrets = read_secrets(
        tenant_id, environment.known_secrets(), settings.secrets_folder, settings.tenant_id
    )
    redaction.remember(secrets.values())
    return secrets_for(components, settings.source_policy, secrets, beside=beside)


def secrets_for(
    components: Iterable[Component],
    policy: SourcePolicy,
    secrets: Mapping[str, str],
    *,
    beside: Iterable[str] = (),
) -> SourceAccess:
    """Return what a run may read: the policy, and of a tenant's secrets those that the components name and that are bound.

    An external store reads in the process of every run that reads its dataset. Code of a package there could take the secret, so
    the store gets none where `beside` names such code.
    """
    packages = sorted(beside)
    for_sources: dict[str, str] = {}
    for_plugins: dict[str, str] = {}
    refusals: dict[str, str] = {}
    for component in components:
        is_checked = component.code_ref in _CHECKED
        for name in sorted(_references(component.config)):
            bindings = policy.secrets.get(name, ())
            wanted = f"{DEFINITION}:{component.definition_name}"
            is_bound = any(not each.startswith(f"{DEFINITION}:") for each in bindings)
            if name not in secrets:
                refusals[name] = (
                    f"the worker has no secret {name} for this tenant; set this variable of the worker, or write it to the "
                    f"tenant's folder in OPTAIC_SECRETS_FOLDER"
                )
            elif component.code_ref in EXTERNAL_CODE and packages:
                refusals[name] = (
                    f"the secret {name} is not given to a run that executes {packages[0]}, because this code could read it; read "
                    f"the file into a dataset with the pipeline `file`, and use that dataset as the input"
                )
            elif is_checked and is_bound:
                for_sources[name] = secrets[name]
            elif not is_checked and wanted in bindings:
                for_plugins[name] = secrets[name]
            else:
                line = f'{{"{name}": ["{_example(component) if is_checked else wanted}"]}}'
                refusals[name] = (
                    f"the secret {name} is bound to no destination, so nothing may use it. Add this to OPTAIC_SOURCE_SECRETS "
                    f"of the worker, with the destination that is meant: {line}"
                )
    return SourceAccess(policy, for_sources, for_plugins, refusals)


def _example(component: Component) -> str:
    """Return the destination that a source's URL names, as far as it shows."""
    url = str(component.config.get("url", ""))
    scheme, separator, rest = url.partition("://")
    host = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")[2]
    if not separator or "${" in host or "${" in scheme:
        return "https://its.host"
    scheme = scheme.partition("+")[0].lower()
    return f"{scheme}://{host}" if host or scheme not in SCHEMES else f"{scheme}://"


def components_of(recipe: Recipe) -> Iterator[Component]:
    """Yield all configurations that a recipe has, those of its inputs included."""
    yield from recipe.components
    for given in recipe.inputs:
        yield from (given.data.store, given.data.accessor)


def packages_of(recipe: Recipe) -> Iterator[str]:
    """Yield the code that a recipe executes and that is not the worker's own."""
    used: list[Plugin] = [*recipe.plugins]
    used += [plugin for given in recipe.inputs for plugin in (given.data.store, given.data.accessor)]
    yield from (plugin.code_ref for plugin in used if not plugin.code_ref.startswith(_BUILTIN))


def _references(value: object) -> set[str]:
    if isinstance(value, str):
        return set(_REFERENCE.findall(value))
    if isinstance(value, Mapping):
        return set().union(*(_references(each) for each in value.values()))
    if isinstance(value, list | tuple):
        return set().union(*(_references(each) for each in value))
    return set()
