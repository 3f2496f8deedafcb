"""`code_ref` either gives a usable class or says why not."""

import pickle
import sys
from pathlib import Path

import pytest

from optaic.plugins import (
    Accessor,
    NoDataInRange,
    Operator,
    Pipeline,
    PluginError,
    PluginInvalid,
    PluginNotFound,
    PluginNotRegistered,
    Store,
    load,
)
from support.plugin_packages import install_code

REGISTERED = (
    "no_such_package.module:X",
    "worker.no_such_module:X",
    "worker.builtin.prices:NoSuchClass",
    "worker.builtin.derivation:parse",
    "worker.builtin.delta_store:DeltaStore",
    "optaic.plugins:Pipeline",
    "broken_plugin:X",
    "needy_plugin:X",
)


@pytest.mark.parametrize(
    ("code_ref", "base"),
    [
        ("worker.builtin.prices:SP500Prices", Pipeline),
        ("worker.builtin.derivation:ExpressionPipeline", Pipeline),
        ("worker.builtin.delta_store:DeltaStore", Store),
        ("worker.builtin.simple_accessor:SimpleAccessor", Accessor),
    ],
)
def test_built_in_definitions_load(code_ref: str, base: type) -> None:
    assert issubclass(load(code_ref, base), base)


@pytest.mark.parametrize(
    ("code_ref", "error", "part"),
    [
        ("", PluginNotFound, "package.module:Class"),
        ("os.path", PluginNotFound, "package.module:Class"),
        ("os:path.join", PluginNotFound, "package.module:Class"),
        ("../etc/passwd:X", PluginNotFound, "package.module:Class"),
        ("os.path:join", PluginNotRegistered, "entry-point group optaic.definitions"),
        ("worker.builtin.prices:load_closes", PluginNotRegistered, "'worker.builtin.prices:load_closes'"),
        ("worker.builtin:prices", PluginNotRegistered, "is not registered"),
        ("unregistered_plugin:X", PluginNotRegistered, "is not registered"),
        ("broken_plugin:Y", PluginNotRegistered, "is not registered"),
        ("no_such_package.module:X", PluginNotFound, "'no_such_package'"),
        ("worker.no_such_module:X", PluginNotFound, "'worker.no_such_module'"),
        ("worker.builtin.prices:NoSuchClass", PluginNotFound, "NoSuchClass"),
        ("worker.builtin.derivation:parse", PluginInvalid, "subclass of Pipeline"),
        ("worker.builtin.delta_store:DeltaStore", PluginInvalid, "subclass of Pipeline"),
        ("optaic.plugins:Pipeline", PluginInvalid, "does not implement run"),
        ("broken_plugin:X", PluginInvalid, "ZeroDivisionError"),
        ("needy_plugin:X", PluginInvalid, "module 'no_such_library'"),
    ],
)
def test_an_unusable_code_ref_is_refused(
    code_ref: str, error: type[PluginError], part: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_plugin.py").write_text("1 / 0\n")
    (tmp_path / "unregistered_plugin.py").write_text("1 / 0\n")
    (tmp_path / "needy_plugin.py").write_text("import no_such_library\n")
    install_code(monkeypatch, tmp_path, *REGISTERED)
    with pytest.raises(PluginError) as caught:
        load(code_ref, Pipeline)
    assert type(caught.value) is error
    assert caught.value.type == error.__name__
    assert part in caught.value.message
    assert not {"broken_plugin", "unregistered_plugin"} & sys.modules.keys()


def test_an_error_keeps_its_type_across_processes() -> None:
    for error in (NoDataInRange("nothing"), PluginError("too little", type="TooFewAssets")):
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
        assert (type(copy), copy.type, copy.message, str(copy)) == (
            type(error),
            error.type,
            error.message,
            error.message,
        )


def test_an_operator_class_describes_itself_to_the_parser() -> None:
    polars = pytest.importorskip("polars")
    from optaic.expression import OPERATORS, Parameter, Scope, parse  # noqa: PLC0415 - beside what it is for
    from optaic.expression.compiler import IMPLEMENTATIONS, evaluate  # noqa: PLC0415 - beside what it is for

    class Median(Operator):
        name = "MEDIAN"
        scope = Scope.TIME_SERIES
        parameters = (Parameter("n", minimum=1, maximum=100),)

        def compile(self, values, parameters):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - see the base
            return values[0].rolling_median(int(parameters[0]))

    expression = parse("median(close, 3)", {**OPERATORS, "MEDIAN": Median.signature()})
    table = polars.DataFrame({"date": [1, 2, 3], "entity": ["a"] * 3, "close": [5.0, 1.0, 2.0]})
    result = evaluate(expression, table, operators={**IMPLEMENTATIONS, "MEDIAN": Median().compile})
    assert result["value"].to_list() == [None, None, 2.0]
