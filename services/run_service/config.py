"""Settings of run-service, read from the environment once; no other module reads it."""

from pydantic import Field

from servicekit.prefect import PrefectCallerSettings
from servicekit.settings import ServiceSettings


class Settings(PrefectCallerSettings, ServiceSettings):
    """What run-service adds to every service's settings."""

    instance_address: str = Field(default="127.0.0.1:50051", description="host:port of instance-service.")
    lineage_address: str = Field(default="127.0.0.1:50053", description="host:port of lineage-service.")
    lease_seconds: float = Field(
        default=30.0, gt=0, description="A run not heard of for so long is given up as WORKER_LOST."
    )
    heartbeat_seconds: float = Field(
        default=5.0, gt=0, description="How often executors are asked to report."
    )
    lease_interval_seconds: float = Field(default=1.0, gt=0, description="Time between looks at the leases.")
    progress_interval_seconds: float = Field(
        default=1.0, ge=0, description="Shortest time between two progress events of a run."
    )
    dispatch_concurrency: int = Field(default=8, gt=0, description="Calls to Prefect at once, per process.")
    dispatch_interval_seconds: float = Field(
        default=0.5, gt=0, description="Time between looks at the dispatches when nobody announced one."
    )
    dispatch_claim_seconds: float = Field(
        default=20.0, gt=0, description="A dispatch claimed by a replica that died is taken over after this."
    )
    dispatch_backoff_seconds: float = Field(
        default=5.0, gt=0, description="Longest wait between two attempts to dispatch a run."
    )
    dispatch_expiry_seconds: float = Field(
        default=86_400.0, gt=0, description="A run pending for longer fails as DISPATCH_EXPIRED."
    )
    start_timeout_seconds: float = Field(
        default=30.0,
        gt=0,
        description="A run that a worker has claimed and not started for so long is dispatched again.",
    )
    dispatch_limit: int = Field(
        default=3,
        gt=0,
        description="Flow runs of one run that workers may claim without starting it; then it is WORKER_LOST.",
    )
    observe_interval_seconds: float = Field(
        default=5.0, gt=0, description="Time between two comparisons of an active run with Prefect's view."
    )
    observe_batch: int = Field(
        default=200, gt=0, description="Runs that are compared with Prefect's view at once."
    )
    observe_claim_seconds: float = Field(
        default=20.0,
        gt=0,
        description="A run claimed for its comparison by a replica that died is taken over after this.",
    )
    orchestrator_grace_seconds: float = Field(
        default=10.0,
        ge=0,
        description="How long a run may stay active after its flow run has ended in Prefect.",
    )
    end_settle_seconds: float = Field(
        default=600.0,
        ge=0,
        description="How long the flow run of a run that a worker did not end itself is compared after its end.",
    )
    end_batch: int = Field(default=200, gt=0, description="Flow runs whose ends are compared at once.")
    end_claim_seconds: float = Field(
        default=20.0,
        gt=0,
        description="A flow run claimed for its end by a replica that died is taken over after this.",
    )
    sweep_interval_seconds: float = Field(
        default=10.0, gt=0, description="Time between looks at all that is under way in Prefect."
    )
    retry_interval_seconds: float = Field(
        default=1.0, gt=0, description="Time between looks at the due retries."
    )
    retry_batch: int = Field(default=8, gt=0, description="Due retries that one replica claims at once.")
    retry_claim_seconds: float = Field(
        default=20.0,
        gt=0,
        description="A retry claimed by a replica that died, or not decided, is tried again after this.",
    )
    tick_grace_seconds: float = Field(
        default=120.0, gt=0, description="A schedule's tick that comes later than this is caught up with."
    )
    tick_settle_seconds: float = Field(
        default=5.0, ge=0, description="How long late ticks wait for each other, so that the latest is known."
    )
    tick_interval_seconds: float = Field(
        default=1.0, gt=0, description="Time between looks at waiting ticks."
    )
    tick_batch: int = Field(default=32, gt=0, description="Waiting ticks that one replica claims at once.")
    tick_claim_seconds: float = Field(
        default=20.0,
        gt=0,
        description="Ticks claimed by a replica that died, or not decided, are looked at again after this.",
    )
    watch_poll_seconds: float = Field(
        default=0.5, gt=0, description="How late a watch may hear of a change made by another replica."
    )
    watch_bookmark_seconds: float = Field(
        default=10.0,
        gt=0,
        description="A watch that has had nothing to tell for so long is told the run again, unchanged.",
    )
    watch_queue_size: int = Field(
        default=64,
        gt=0,
        description="Changes kept for a slow watcher; the oldest are dropped, the newest never.",
    )
