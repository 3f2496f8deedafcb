"""The recipe of a run: what it computes, as plain values for plugins, without protobuf messages or calls."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from optaic.expression import Macro
from optaic.plugins import ChangedDates, DateRange, Mode
from optaic.rules.columns import VALUE
from optaic.rules.kinds import TIMEZONE
from optaic.rules.monitoring import MonitoringSettings
from worker.backtest.settings import BacktestSettings
from worker.builtin.signal_guard import SignalContract
from worker.guardrails import Guardrail
from worker.preview.call import Call


@dataclass(frozen=True)
class Plugin:
    """The code of a definition version; two that execute the same are equal."""

    code_ref: str
    definition_version_id: str = field(default="", kw_only=True, compare=False)  # empty: of none
    definition_name: str = field(default="", kw_only=True, compare=False)
    definition_version: str = field(default="", kw_only=True, compare=False)


@dataclass(frozen=True)
class Component(Plugin):
    """A plugin and its configuration."""

    config: Mapping[str, object]


@dataclass(frozen=True)
class ConfiguredOptimizer(Component):
    """An optimizer, its configuration and its limits on weights."""

    constraints: Mapping[str, object]


@dataclass(frozen=True)
class StoredData:
    """One version of a dataset, and how it is read."""

    store: Component
    accessor: Component
    uri: str
    physical_version: str
    timezone: str = TIMEZONE  # the dataset's
    digest: str = ""  # of its content, where that is what a run builds on


@dataclass(frozen=True)
class Input:
    """One upstream at its pinned version."""

    role: str
    name: str
    instance_id: str
    version: int
    digest: str
    data: StoredData
    value_column: str = VALUE  # of a signal: what its pipeline calls its values
    # Since the base was computed, of a recipe that allows increments.
    changed: ChangedDates = field(default_factory=ChangedDates)


@dataclass(frozen=True)
class PipelineRecipe:
    """A refresh of a dataset, or, with a contract, of a signal."""

    pipeline: Component
    store: Component
    accessor: Component
    inputs: tuple[Input, ...]
    mode: Mode
    date_range: DateRange
    timezone: str  # the dataset's
    data_date: dt.date | None
    base: StoredData | None  # the flow's own output at admission
    contract: SignalContract | None
    macros: Mapping[str, Macro]
    operators: Mapping[str, Plugin]  # those that are not the language's own, by name
    output_schema: Mapping[str, Any]
    guardrails: tuple[Guardrail, ...]
    readers_hash: str
    base_readers_hash: (
        str  # of the base, as it was configured then; empty where it is recorded, or there is none
    )
    max_deleted_share: float | None  # None: how much is deleted is not judged
    allow_deletion: bool
    base_pipeline: Component | None = None  # the pipeline that computed the base; None if unknown
    keeps_dataset: ClassVar[bool] = True  # it writes a version of the flow's dataset
    has_artifacts: ClassVar[bool] = False  # it writes files to the run's own folder
    may_reshape: bool = False  # a full refresh was requested: columns may be gone or of another type
    allows_increment: bool = (
        False  # its inputs say in which dates they have changed since the base was computed
    )
    full_because: str = ""  # why they do not
    repins_types: bool = False

    @property
    def components(self) -> tuple[Component, ...]:
        """Return the plugins whose configuration it has, those of its inputs excepted."""
        base = () if self.base is None else (self.base.store, self.base.accessor)
        return (self.pipeline, self.store, self.accessor, *base)

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Return the code that it executes, that of its inputs excepted."""
        base = () if self.base is None else (self.base.store,)
        return (self.pipeline, self.store, self.accessor, *self.operators.values(), *base)

    @property
    def is_partial_range(self) -> bool:
        """Return whether the data outside of `date_range` is kept."""
        return bool(self.date_range.start or self.date_range.end)


@dataclass(frozen=True)
class BacktestRecipe:
    """The recipe of a backtest, whose settings pin its procedure."""

    prices: Input
    signals: tuple[Input, ...]  # the primary first
    settings: BacktestSettings
    membership: Input | None = None
    optimizer: ConfiguredOptimizer | None = None  # which decides the weights
    keeps_dataset: ClassVar[bool] = False
    has_artifacts: ClassVar[bool] = True
    base: ClassVar[None] = None

    @property
    def components(self) -> tuple[Component, ...]:
        """Return the plugins whose configuration it has, those of its inputs excepted."""
        return () if self.optimizer is None else (self.optimizer,)

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Return the code that it executes, that of its inputs excepted."""
        return self.components

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Return everything that it reads."""
        return (self.prices, *self.signals, *([self.membership] if self.membership is not None else []))


@dataclass(frozen=True)
class ExperimentRecipe:
    """The recipe of a preview: an operator or a macro with its arguments, and the rows that are shown."""

    call: Call
    definition: Plugin | None  # of the operator that is called; None where it is a macro
    read: tuple[Input, ...]
    prices: Input | None  # whose later returns the values are compared with
    macros: Mapping[str, Macro]
    operators: Mapping[str, Plugin]  # those that are not the language's own, by the names in the call
    universe: tuple[str, ...]  # empty: all entities
    date_range: DateRange
    guardrails: tuple[Guardrail, ...] = ()
    scheduled_date: dt.date | None = None
    base_digest: str = ""  # of the preview before; empty if there is none
    components: ClassVar[tuple[Component, ...]] = ()
    keeps_dataset: ClassVar[bool] = True
    has_artifacts: ClassVar[bool] = True
    base: ClassVar[None] = None

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Return the code that it executes, that of its inputs excepted."""
        own = () if self.definition is None else (self.definition,)
        return (*own, *self.operators.values())

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Return everything that it reads."""
        return (*self.read, *([self.prices] if self.prices is not None else []))


@dataclass(frozen=True)
class OptimizationRecipe:
    """The recipe of an optimizer's decision."""

    optimizer: ConfiguredOptimizer
    signals: tuple[Input, ...]  # the primary first
    prices: Input  # which give the returns
    primary_weight: float
    data_date: dt.date | None  # None: the last date that every signal has
    guardrails: tuple[Guardrail, ...]
    base: StoredData | None  # the earlier decisions
    keeps_dataset: ClassVar[bool] = True
    has_artifacts: ClassVar[bool] = True

    @property
    def components(self) -> tuple[Component, ...]:
        """Return the plugins whose configuration it has, those of its inputs excepted."""
        return (self.optimizer,)

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Return the code that it executes, that of its inputs excepted."""
        return (self.optimizer,)

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Return everything that it reads."""
        return (*self.signals, self.prices)


@dataclass(frozen=True)
class TrainingRecipe:
    """The recipe of a training."""

    module: Component
    inputs: tuple[Input, ...]  # of the roles `features` and `target`
    macros: Mapping[str, Macro]
    operators: Mapping[str, Plugin]  # those that are not the language's own, by name
    data_date: dt.date | None  # nothing later is read; None: everything is
    instance_revision: int
    keeps_dataset: ClassVar[bool] = False
    has_artifacts: ClassVar[bool] = True
    base: ClassVar[None] = None

    @property
    def components(self) -> tuple[Component, ...]:
        """Return the plugin whose configuration it has."""
        return (self.module,)

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Return the code that it executes, that of its inputs excepted."""
        return (self.module, *self.operators.values())


@dataclass(frozen=True)
class ModelConfiguration:
    """The configuration of a model at the revision that trained a version; it builds the features of that version."""

    revision: int
    module: Component
    inputs: tuple[Input, ...]  # the tables that features are built from, under the names of that revision
    macros: Mapping[str, Macro]
    operators: Mapping[str, Plugin]  # those that are not the language's own, by name


@dataclass(frozen=True)
class FileHash:
    """The size and the hash of a file, as its run has recorded them."""

    size: int  # in bytes
    sha256: str  # hexadecimal


@dataclass(frozen=True)
class TrainedFiles:
    """The folder that a training has written."""

    uri: str  # with a slash at the end
    hashes: Mapping[str, FileHash] = field(default_factory=dict)  # by path in the folder; empty: not recorded


@dataclass(frozen=True)
class TrainedModel:
    """The output of a training."""

    run_id: str
    files: TrainedFiles
    configuration: ModelConfiguration


@dataclass(frozen=True)
class InferenceRecipe:
    """The recipe of an inference."""

    models: tuple[
        TrainedModel, ...
    ]  # in the order in which they were trained to; the last is the one that is read
    left_out: Mapping[str, str]  # earlier trainings that are not read: run id -> why
    artifact_version: str  # what the run says that it has read
    revision: int  # of the instance
    mode: Mode
    data_date: dt.date | None  # nothing later is read; None: everything is
    base: StoredData | None  # the predictions so far
    guardrails: tuple[Guardrail, ...]
    warnings: tuple[str, ...] = ()  # what the run says besides
    keeps_dataset: ClassVar[bool] = True
    has_artifacts: ClassVar[bool] = False

    @property
    def read(self) -> TrainedModel:
        """Return the version that predicts the newest dates."""
        return self.models[-1]

    @property
    def training_folders(self) -> tuple[str, ...]:
        """Return the folders that its models are in; all trainings of an instance share one."""
        return tuple({each.files.uri.rstrip("/").rpartition("/")[0]: None for each in self.models})

    @property
    def configurations(self) -> tuple[ModelConfiguration, ...]:
        """Return the configurations of its models, each once."""
        return tuple({each.configuration.revision: each.configuration for each in self.models}.values())

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Return everything that it reads besides models."""
        return tuple(given for each in self.configurations for given in each.inputs)

    @property
    def components(self) -> tuple[Component, ...]:
        """Return the plugins whose configuration it has, those of its inputs excepted."""
        return tuple(each.module for each in self.configurations)

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Return the code that it executes, that of its inputs excepted."""
        return tuple(
            plugin for each in self.configurations for plugin in (each.module, *each.operators.values())
        )


@dataclass(frozen=True)
class MonitoredModel:
    """A model whose predictions are monitored, as the training was configured that made them."""

    configuration: ModelConfiguration
    targets: tuple[Input, ...]  # empty: the target is in what the features are built from
    training: TrainedFiles | None  # what that training has written; None if it is not known


@dataclass(frozen=True)
class MonitoringRecipe:
    """The recipe of a monitoring, of a dataset or, with `model`, of a model's features and predictions."""

    watched: Input  # the dataset, or the predictions
    settings: MonitoringSettings
    data_date: dt.date | None  # nothing later is read; None: everything is
    revision: int  # of the instance
    model: MonitoredModel | None = None
    keeps_dataset: ClassVar[bool] = False
    has_artifacts: ClassVar[bool] = True
    base: ClassVar[None] = None

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Return everything that it reads besides the training."""
        of_model = () if self.model is None else (*self.model.configuration.inputs, *self.model.targets)
        return (self.watched, *of_model)

    @property
    def training_folders(self) -> tuple[str, ...]:
        """Return the folders of trainings that it reads."""
        training = None if self.model is None else self.model.training
        return () if training is None else (training.uri,)

    @property
    def components(self) -> tuple[Component, ...]:
        """Return the plugins whose configuration it has, those of its inputs excepted."""
        return () if self.model is None else (self.model.configuration.module,)

    @property
    def plugins(self) -> tuple[Plugin, ...]:
        """Return the code that it executes, that of its inputs excepted."""
        if self.model is None:
            return ()
        configuration = self.model.configuration
        return (configuration.module, *configuration.operators.values())


Recipe = (
    PipelineRecipe
    | BacktestRecipe
    | ExperimentRecipe
    | OptimizationRecipe
    | MonitoringRecipe
    | TrainingRecipe
    | InferenceRecipe
)


def list_plugins(recipe: Recipe) -> list[Plugin]:
    """Return all code that a recipe executes, each definition version once; code of no definition is the worker's own."""
    used = [*recipe.plugins]
    used += [plugin for given in recipe.inputs for plugin in (given.data.store, given.data.accessor)]
    of_definitions = [plugin for plugin in used if plugin.definition_version_id]
    return list({plugin.definition_version_id: plugin for plugin in of_definitions}.values())
