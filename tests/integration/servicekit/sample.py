"""Names and small deeds of the sample service, shared by the tests of servicekit."""

from typing import Any

import sqlalchemy as sa
from google.protobuf.wrappers_pb2 import StringValue
from sqlalchemy.ext.asyncio import AsyncConnection

from servicekit.clock import SystemClock
from servicekit.events import Event, make_event
from servicekit.ids import new_id
from servicekit.settings import ServiceSettings

SAMPLE_PACKAGE = "integration.servicekit.sample_service"
STREAMS = {"SAMPLE_EVENTS": ["optaic.*.protobuf.>"]}


def make_settings(**values: Any) -> ServiceSettings:
    unused = {
        f"database{login}_url": "postgresql+psycopg://127.0.0.1/unused" for login in ("", "_owner", "_infra")
    }
    return ServiceSettings(**{**unused, **values})


def sample_event(text: str, tenant_id: str = "acme") -> Event:
    return make_event("sample", tenant_id, StringValue(value=text), "created", "thing", SystemClock(), new_id)


async def insert_note(connection: AsyncConnection, tenant_id: str, note_id: str, text: str = "") -> None:
    await connection.execute(
        sa.text("insert into notes (tenant_id, id, text) values (:tenant_id, :id, :text)"),
        {"tenant_id": tenant_id, "id": note_id, "text": text},
    )


async def list_notes(connection: AsyncConnection) -> list[str]:
    return list((await connection.execute(sa.text("select id from notes order by id"))).scalars())
