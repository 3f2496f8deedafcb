"""Seal committed audit records, tenant by tenant, a moment after the commit, so that no write waits for another."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from operator import itemgetter

import structlog

from optaic.audit.v1.audit_pb2 import AuditSeal
from optaic.rules.audit import merkle_root, seal_hash
from servicekit.audit import storage
from servicekit.clock import Clock
from servicekit.database import Database

MOST_RECORDS = 2_000  # of one step
_log = structlog.get_logger(__name__)


class Sealer:
    """The loop that seals new records. Of several replicas, one at a time seals."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def step(self) -> bool:
        """Seal some records; return whether more may be left."""
        async with self._database.infra() as connection:
            if not await storage.try_lock(connection):
                return False
            unsealed = await storage.list_unsealed(connection, MOST_RECORDS)
            if not unsealed:
                return False
            tenant_ids = sorted({tenant_id for tenant_id, _, _ in unsealed})
            seals, sequences = seal(unsealed, await storage.list_heads(connection, tenant_ids))
            changed = await storage.set_sequences(connection, sequences)
            if changed != len(sequences):
                raise RuntimeError(
                    f"{len(sequences) - changed} audit records vanished while they were sealed"
                )
            await storage.insert_seals(connection, seals, self._clock.now())
        return len(unsealed) == MOST_RECORDS


def seal(
    records: Iterable[tuple[str, str, bytes]], heads: Mapping[str, AuditSeal]
) -> tuple[list[tuple[str, AuditSeal]], list[tuple[str, str, int]]]:
    """Return the next seal of each tenant, and the sequence number of each record.

    Records are (tenant, id, content), those of a tenant together; `heads` are the tenants' newest seals.
    """
    seals, sequences = [], []
    for tenant_id, group in itertools.groupby(records, key=itemgetter(0)):
        members, head = list(group), heads.get(tenant_id, AuditSeal())
        made = AuditSeal(
            seal_number=head.seal_number + 1,
            first_sequence=head.last_sequence + 1,
            last_sequence=head.last_sequence + len(members),
            merkle_root=merkle_root([content for _, _, content in members]),
            previous_hash=head.hash,
        )
        made.hash = seal_hash(tenant_id, made)
        seals.append((tenant_id, made))
        sequences += [
            (tenant_id, audit_id, made.first_sequence + index)
            for index, (_, audit_id, _) in enumerate(members)
        ]
    return seals, sequences
