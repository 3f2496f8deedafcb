"""Compute the seals of audit records, so that a reader of a trail can check that no record was changed.

The tree is that of RFC 6962, section 2.1: SHA-256 with 0x00 before each leaf and 0x01 before each pair of nodes.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from optaic.audit.v1.audit_pb2 import AuditEntry, AuditSeal

_MOST_NAMED = 10
_LEAF, _NODE, _SEAL = b"\x00", b"\x01", b"\x02"


def merkle_root(contents: Sequence[bytes]) -> bytes:
    """Return the root of the tree over these leaves, 32 bytes; of no leaves it is the hash of nothing."""
    if not contents:
        return hashlib.sha256().digest()
    level = [hashlib.sha256(_LEAF + content).digest() for content in contents]
    # Pairing neighbours and carrying the odd one over gives the tree that the RFC defines from the top.
    while len(level) > 1:
        odd = level[-1:] if len(level) % 2 else []
        pairs = zip(level[0::2], level[1::2], strict=False)
        level = [hashlib.sha256(_NODE + left + right).digest() for left, right in pairs] + odd
    return level[0]


def seal_hash(tenant_id: str, seal: AuditSeal) -> bytes:
    """Return the hash of a seal, 32 bytes; the seal's own field `hash` is not read."""
    parts = (
        tenant_id,
        seal.seal_number,
        seal.first_sequence,
        seal.last_sequence,
        seal.merkle_root.hex(),
        seal.previous_hash.hex(),
    )
    return hashlib.sha256(_SEAL + "/".join(map(str, parts)).encode()).digest()


@dataclass(frozen=True)
class Problem:
    """Something that is not as it was sealed; `first_sequence` and `last_sequence` name the records in question."""

    seal_number: int
    first_sequence: int
    last_sequence: int
    text: str


class Verification:
    """A check of the seals of one tenant in one service, one after the other, each with the records that it covers."""

    def __init__(self, tenant_id: str) -> None:
        self.problems: list[Problem] = []
        self.records = 0
        self.head = b""
        self._tenant_id = tenant_id
        self.seal_number = 0
        self._sequence = 0

    def check(self, seal: AuditSeal, entries: Sequence[AuditEntry]) -> None:
        """Check the next seal; `entries` are the records whose sequence it covers, in the order of their sequence."""
        if seal.seal_number != self.seal_number + 1:
            self._report(seal, f"seal {self.seal_number + 1} is missing")
        elif seal.previous_hash != self.head:
            self._report(seal, "the seal does not follow from the previous one")
        if seal.first_sequence != self._sequence + 1 or seal.last_sequence < seal.first_sequence:
            self._report(seal, f"the seal does not begin with record {self._sequence + 1}")
        if seal.hash != seal_hash(self._tenant_id, seal):
            self._report(seal, "the seal was changed")
        self._check_records(seal, entries)
        self.seal_number, self._sequence, self.head = seal.seal_number, seal.last_sequence, seal.hash
        self.records += len(entries)

    def report_unsealed(self, sequence: int) -> None:
        """Report a record that has a sequence number and that no seal covers."""
        text = f"the seals are missing from record {sequence} on"
        self.problems.append(Problem(self.seal_number + 1, sequence, sequence, text))

    def _check_records(self, seal: AuditSeal, entries: Sequence[AuditEntry]) -> None:
        count = seal.last_sequence - seal.first_sequence + 1
        found = {entry.sequence for entry in entries}
        if count != len(entries) or [entry.sequence for entry in entries] != sorted(found):
            gaps = (
                number for number in range(seal.first_sequence, seal.last_sequence + 1) if number not in found
            )
            missing = list(itertools.islice(gaps, _MOST_NAMED))
            named = f"records are missing: {', '.join(map(str, missing))}"
            self._report(seal, named if missing else "more records are there than were sealed")
        elif merkle_root([entry.content for entry in entries]) != seal.merkle_root:
            self._report(seal, "a record was changed")

    def _report(self, seal: AuditSeal, text: str) -> None:
        self.problems.append(Problem(seal.seal_number, seal.first_sequence, seal.last_sequence, text))
