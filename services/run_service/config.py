"""The settings of run-service; no other module reads the environment."""

from datetime import timedelta

from pydantic import Field, field_validator

from optaic.rules.locations import normalize_root
from servicekit.artifact_urls import ArtifactUrlSettings
from servicekit.centrifugo import CentrifugoSettings
from servicekit.object_store import ObjectStoreSettings
from servicekit.prefect import PrefectCallerSettings
from servicekit.settings import WatchSettings


class Settings(
    PrefectCallerSettings, WatchSettings, CentrifugoSettings, ObjectStoreSettings, ArtifactUrlSettings
):
    """The settings that run-service adds to those of every service."""

    instance_address: str = Field(default="127.0.0.1:50051", description="host:port of instance-service.")
    lineage_address: str = Field(default="127.0.0.1:50053", description="host:port of lineage-service.")
    lease_seconds: float = Field(
        default=30.0, gt=0, description="A run without a heartbeat for this long fails as WORKER_LOST."
    )
    credential_seconds: float = Field(
        default=3600.0,
        gt=0,
        description="How long an executor's credential for the reports of a run is valid; each heartbeat renews it.",
    )
    data_root: str = Field(
        default="",
        description="Folder or URI of all data, as the workers have it. Empty: outputs may lie below any folder, "
        "each in its flow's own folder.",
    )
    gateway_url: str = Field(
        default="",
        description="Base URL of the gateway, as callers reach it; with OPTAIC_ARTIFACT_URL_KEY, files in a folder get signed URLs there.",
    )
    heartbeat_seconds: float = Field(
        default=5.0, gt=0, description="Time between two heartbeats of an executor."
    )
    lease_interval_seconds: float = Field(
        default=1.0, gt=0, description="Time between two checks of the leases."
    )
    progress_interval_seconds: float = Field(
        default=1.0, ge=0, description="Shortest time between two progress events of a run."
    )
    tenant_active_runs: int = Field(
        default=10_000,
        ge=0,
        description="Pending and running runs that one tenant may have; 0: no limit. Not with OPTAIC_AUTH=development.",
    )
    dispatch_concurrency: int = Field(
        default=8, gt=0, description="Most calls to Prefect at the same time, per process."
    )
    dispatch_interval_seconds: float = Field(
        default=0.5, gt=0, description="Time between two checks of the dispatches if none is announced."
    )
    dispatch_claim_seconds: float = Field(
        default=20.0,
        gt=0,
        description="After this time another replica takes over a dispatch that one has claimed.",
    )
    dispatch_backoff_seconds: float = Field(
        default=5.0, gt=0, description="Longest wait between two attempts to dispatch a run."
    )
    dispatch_expiry_seconds: float = Field(
        default=86_400.0, gt=0, description="A run that is pending for longer fails as DISPATCH_EXPIRED."
    )
    start_timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        description="A run that a worker has claimed and not started for this long is dispatched again.",
    )
    dispatch_limit: int = Field(
        default=3,
        gt=0,
        description="How often workers may claim a run without starting it; then it fails as WORKER_LOST.",
    )
    observe_interval_seconds: float = Field(
        default=5.0,
        gt=0,
        description="Time between two comparisons of an active run with its flow run in Prefect.",
    )
    observe_batch: int = Field(
        default=200, gt=0, description="Runs compared with their flow runs in Prefect at once."
    )
    observe_claim_seconds: float = Field(
        default=20.0,
        gt=0,
        description="After this time another replica takes over a comparison that one has claimed.",
    )
    orchestrator_grace_seconds: float = Field(
        default=10.0,
        ge=0,
        description="How long a run may stay active after its flow run has ended in Prefect.",
    )
    end_settle_seconds: float = Field(
        default=600.0,
        ge=0,
        description="If a run ended without its worker's report, its flow run in Prefect is still compared for this long.",
    )
    end_batch: int = Field(default=200, gt=0, description="Flow runs of ended runs compared at once.")
    end_claim_seconds: float = Field(
        default=20.0,
        gt=0,
        description="After this time another replica takes over the end of a flow run that one has claimed.",
    )
    sweep_interval_seconds: float = Field(
        default=10.0,
        gt=0,
        description="Time between two comparisons of everything that is under way in Prefect.",
    )
    retry_interval_seconds: float = Field(
        default=1.0, gt=0, description="Time between two checks for due retries."
    )
    retry_batch: int = Field(default=8, gt=0, description="Due retries that one replica claims at once.")
    retry_claim_seconds: float = Field(
        default=20.0,
        gt=0,
        description="After this time a claimed retry that is not done is tried again, by any replica.",
    )
    tick_grace_seconds: float = Field(
        default=120.0,
        gt=0,
        description="A flow run that starts more than this after its scheduled time is late; catch_up_policy decides about it.",
    )
    tick_early_seconds: float = Field(
        default=60.0,
        ge=0,
        description="A flow run may start this long before its scheduled time; clocks may differ.",
    )
    tick_late_seconds: float = Field(
        default=2_678_400.0,
        gt=0,
        description="A scheduled time that is longer ago than this does not count.",
    )
    tick_settle_seconds: float = Field(
        default=5.0,
        ge=0,
        description="How long late scheduled times wait for each other, so that the latest is known.",
    )
    tick_interval_seconds: float = Field(
        default=1.0, gt=0, description="Time between two checks of waiting scheduled times."
    )
    tick_recheck_seconds: float = Field(
        default=15.0,
        gt=0,
        description="Longest time between two looks at a scheduled time that waits for upstream flows; changes of theirs announce themselves.",
    )
    tick_batch: int = Field(
        default=32, gt=0, description="Waiting scheduled times that one replica claims at once."
    )
    tick_claim_seconds: float = Field(
        default=20.0,
        gt=0,
        description="After this time claimed scheduled times that are not done are tried again, by any replica.",
    )
    refresh_flows: int = Field(default=5_000, gt=0, le=10_000, description="Flows that one refresh may have.")
    tenant_refreshes: int = Field(
        default=100, gt=0, description="Running refreshes that one tenant may have."
    )
    refresh_interval_seconds: float = Field(
        default=1.0, gt=0, description="Time between two looks for refreshes that are due."
    )
    refresh_batch: int = Field(default=16, gt=0, description="Due refreshes that one replica claims at once.")
    refresh_claim_seconds: float = Field(
        default=10.0,
        gt=0,
        description="A running refresh is looked at again after this time if nothing wakes it before, by any replica.",
    )
    refresh_keep_seconds: float = Field(
        default=2_592_000.0, gt=0, description="How long an ended refresh is kept."
    )
    auto_refresh_interval_seconds: float = Field(
        default=1.0,
        gt=0,
        description="Time between two checks for flows that may follow their upstream flows, if none is announced.",
    )
    auto_refresh_recheck_seconds: float = Field(
        default=60.0,
        gt=0,
        description="Longest time after which a flow that may follow its upstream flows is looked at again while a run of it is active or a scheduled time waits; their end announces itself.",
    )
    auto_refresh_batch: int = Field(
        default=32,
        gt=0,
        description="Flows that may follow their upstream flows and that one replica claims at once.",
    )
    auto_refresh_claim_seconds: float = Field(
        default=20.0,
        gt=0,
        description="After this time claimed flows that may follow their upstream flows are looked at again, by any replica.",
    )
    log_poll_seconds: float = Field(
        default=0.5,
        gt=0,
        description="Time between two looks for new lines in the log of a run that somebody watches; four times as long while none come.",
    )
    log_patience_seconds: float = Field(
        default=15.0,
        ge=0,
        description="How long a stream of a log waits for Prefect to answer; then it ends with UNAVAILABLE.",
    )
    log_settle_seconds: float = Field(
        default=30.0,
        ge=0,
        description="How long a stream of a log waits, after the end of the run, for lines that its worker has not delivered yet.",
    )
    watch_queue_size: int = Field(
        default=64,
        gt=0,
        description="Changes kept for a slow watcher; it misses the oldest ones, never the newest.",
    )

    @field_validator("data_root")
    @classmethod
    def _normalize(cls, value: str) -> str:
        return normalize_root(value) if value else ""

    @property
    def auto_refresh_recheck(self) -> timedelta:
        """Return the longest time between two looks at a flow with an active run or a waiting scheduled time."""
        return timedelta(seconds=self.auto_refresh_recheck_seconds)

    @property
    def credential_lifetime(self) -> timedelta:
        """Return how long the credential of a run's executor is valid."""
        return timedelta(seconds=self.credential_seconds)
