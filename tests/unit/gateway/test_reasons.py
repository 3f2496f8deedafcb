"""Every reason of the gateway itself is one of the common contract, or stands in its page."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from gateway import errors
from optaic.common.v1 import error_pb2

PAGE = Path(__file__).parents[3] / "docs" / "gateway.md"


def test_every_reason_is_documented() -> None:
    reasons = set(re.findall(r'Error\(\s*f?"([A-Z_{}. a-z()]+)"', inspect.getsource(errors)))
    assert "TOO_MANY_{what.upper()}" in reasons
    reasons = reasons - {"TOO_MANY_{what.upper()}"}
    reasons |= set(errors._TABLE_ERRORS)
    reasons |= {f"TOO_MANY_{what}" for what in ("CALLS", "STREAMS", "READS", "PAGES", "BYTES")}
    common = {name.removeprefix("ERROR_REASON_") for name in error_pb2.ErrorReason.keys()}  # noqa: SIM118 - an enum wrapper is no mapping
    documented = set(re.findall(r"`([A-Z_]+)`", PAGE.read_text("utf-8")))
    assert reasons - common - documented == set()
