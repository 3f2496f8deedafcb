"""The default retry delays: those of the code equal those that the proto comments state."""

from datetime import timedelta

from optaic.instance.v1.schedule_pb2 import RetryPolicy
from run_service.domain.retries import DEFAULT_DELAY, DEFAULT_MAX_DELAY
from run_service.use_cases.admission import _retry_policy
from support.contract import comments

POLICY = "optaic.instance.v1.RetryPolicy"


def test_the_contract_states_the_delays() -> None:
    assert "30 seconds" in comments()[f"{POLICY}.delay"]
    assert "one hour" in comments()[f"{POLICY}.max_delay"]
    assert (timedelta(seconds=30), timedelta(hours=1)) == (DEFAULT_DELAY, DEFAULT_MAX_DELAY)


def test_a_policy_without_delays_uses_the_default_delays() -> None:
    policy = _retry_policy(RetryPolicy(max_retries=1))
    assert policy is not None
    assert (policy.delay, policy.max_delay) == (DEFAULT_DELAY, DEFAULT_MAX_DELAY)
