"""Import the class that a `code_ref` names, without instantiating or running it."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable
from typing import TypeVar, cast

from optaic.plugins.errors import PluginInvalid, PluginNotFound, PluginNotRegistered
from optaic.plugins.registry import GROUP, list_registered_code
from optaic.rules.forms import CODE_REF

T = TypeVar("T")


def load(code_ref: str, base: Callable[..., T]) -> type[T]:
    """Return the class that `code_ref` ("package.module:Class") names.

    Nothing is imported unless an installed package registers exactly this text. `base` is one of the abstract base
    classes; `type[T]` would make type checkers refuse an abstract one.

    Raises:
        PluginNotFound: malformed, or the module or the class does not exist.
        PluginNotRegistered: no installed package registers it.
        PluginInvalid: the module fails while it is imported, or the class is not a concrete subclass of `base`.
    """
    assert isinstance(base, type)
    if not CODE_REF.fullmatch(code_ref):
        raise PluginNotFound(f"code_ref {code_ref!r} must have the form package.module:Class")
    if code_ref not in list_registered_code():
        raise PluginNotRegistered(
            f"code_ref {code_ref!r} is not registered by a package that is installed here; name it in the package's "
            f"entry-point group {GROUP} or in a manifest of the package, install the package, and restart this program"
        )
    module_name, class_name = code_ref.split(":")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise PluginNotFound(
                f"code_ref {code_ref!r}: the module {missing!r} is not installed here; install its package"
            ) from error
        raise PluginInvalid(
            f"code_ref {code_ref!r}: its import needs the module {missing!r}, which is not installed here; install it"
        ) from error
    except Exception as error:  # a module may raise anything while it is imported
        reason = traceback.format_exception_only(error)[-1].strip()
        raise PluginInvalid(f"code_ref {code_ref!r}: its import failed: {reason}") from error
    found = getattr(module, class_name, None)
    if found is None:
        raise PluginNotFound(
            f"code_ref {code_ref!r}: module {module_name!r} has no class {class_name!r}; correct code_ref or the module"
        )
    if not (isinstance(found, type) and issubclass(found, base)):
        raise PluginInvalid(
            f"code_ref {code_ref!r} is not a subclass of {base.__name__}; derive the class from it"
        )
    if inspect.isabstract(found):
        missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
        raise PluginInvalid(f"code_ref {code_ref!r} does not implement {missing}; add these methods")
    return cast("type[T]", found)
