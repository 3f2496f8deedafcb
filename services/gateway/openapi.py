"""The OpenAPI document of the gateway: paths and schemas from the contracts, words from their comments."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

import optaic
from gateway import comments
from gateway.methods import Method
from gateway.read_parameters import MEDIA_TYPES, MOST_ROWS

VERSION = "3.1.0"
_COMMENTS = Path(optaic.__file__).with_name("comments.json")
_ERROR = "Error"
_TEXT = {"type": "string"}
_NUMBER = {"type": ["number", "string"], "description": "A number, or NaN, Infinity or -Infinity as a text."}
_LARGE = {"type": ["string", "integer"], "pattern": "^-?[0-9]+$"}
_SMALL = {"type": "integer", "minimum": -(2**31), "maximum": 2**32 - 1}
_WELL_KNOWN: Mapping[str, Any] = {
    "google.protobuf.Any": {"type": "object", "properties": {"@type": _TEXT}, "required": ["@type"]},
    "google.protobuf.BoolValue": {"type": ["boolean", "null"]},
    "google.protobuf.DoubleValue": _NUMBER,
    "google.protobuf.Duration": {"type": "string", "pattern": r"^-?[0-9]+(\.[0-9]+)?s$"},
    "google.protobuf.Empty": {"type": "object"},
    "google.protobuf.FieldMask": {"type": "string", "description": "Paths with commas between them."},
    "google.protobuf.Int32Value": {"type": ["integer", "null"]},
    "google.protobuf.Int64Value": _LARGE,
    "google.protobuf.ListValue": {"type": "array", "items": {}},
    "google.protobuf.NullValue": {"type": "null"},
    "google.protobuf.StringValue": {"type": ["string", "null"]},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Value": {},
}
_SCALARS: Mapping[int, Any] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_DOUBLE: _NUMBER,
    FieldDescriptor.TYPE_FLOAT: _NUMBER,
    FieldDescriptor.TYPE_STRING: _TEXT,
    **dict.fromkeys(
        (
            FieldDescriptor.TYPE_INT64,
            FieldDescriptor.TYPE_UINT64,
            FieldDescriptor.TYPE_SINT64,
            FieldDescriptor.TYPE_FIXED64,
            FieldDescriptor.TYPE_SFIXED64,
        ),
        _LARGE,
    ),
}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {
        "code": {"type": "string", "description": "The code of gRPC, in lower case."},
        "message": _TEXT,
        "details": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "value"],
                "properties": {
                    "type": {"type": "string", "description": "A message of google.rpc."},
                    "value": {"type": "string", "contentEncoding": "base64"},
                    "debug": {"type": "object", "description": "The same, readable."},
                },
            },
        },
    },
}
_INTRODUCTION = (
    "Every method is a POST with its request as JSON. A method whose answers are a stream speaks Connect's streaming "
    "protocol: each message follows one byte of flags and four bytes of length. Fields without a value are left out."
)
_PARAMETERS = {
    "timeout": {
        "name": "Connect-Timeout-Ms",
        "in": "header",
        "schema": {"type": "integer", "minimum": 0, "maximum": 10**10 - 1},
        "description": "The deadline of the call, in milliseconds.",
    },
    "read_tokens": {
        "name": "Optaic-Read-Tokens",
        "in": "header",
        "schema": _TEXT,
        "description": "Write tokens of earlier answers, with commas between them: the answer shows what those calls wrote.",
    },
}
_WRITE_TOKEN = {
    "schema": _TEXT,
    "description": "What the call wrote; send it as Optaic-Read-Tokens to read it.",
}


_FILES = {
    "get": {
        "operationId": "runs.artifacts",
        "tags": ["optaic.run.v1.RunService"],
        "summary": "A file of a run",
        "description": "A file that a run has written, whole or in part; its names stand in Run.artifact_manifest.",
        "parameters": [
            {
                "name": "run_id",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "format": "uuid"},
            },
            {"name": "name", "in": "path", "required": True, "schema": _TEXT},
            {"name": "Range", "in": "header", "schema": _TEXT, "description": "One range of bytes."},
        ],
        "responses": {
            "200": {"description": "The file.", "content": {"application/octet-stream": {}}},
            "206": {"description": "A part of it.", "content": {"application/octet-stream": {}}},
            "304": {"description": "If-None-Match names this very file."},
            "default": {"$ref": "#/components/responses/refused"},
        },
    }
}


_SELECTION = [
    {
        "name": name,
        "in": "query",
        "schema": _TEXT,
        "description": f"The {name} that are wanted: with commas between them, or a JSON list. Left out: all.",
    }
    for name in ("columns", "entities")
] + [
    {
        "name": name,
        "in": "query",
        "schema": {"type": "string", "format": "date"},
        "description": f"The {which} day that is wanted.",
    }
    for name, which in (("start", "first"), ("end", "last"))
]
_PAGING = [
    {
        "name": "page_size",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": 1000},
        "description": "The most rows of the page; it may have fewer, and none, and yet be followed by another.",
    },
    {
        "name": "page_token",
        "in": "query",
        "schema": _TEXT,
        "description": "nextPageToken of the page before.",
    },
]
_ROWS_SCHEMA = {
    "type": "object",
    "required": ["columns", "rows", "nextPageToken"],
    "properties": {
        "columns": {
            "type": "array",
            "items": {"type": "object", "properties": {"name": _TEXT, "type": _TEXT}},
        },
        "rows": {"type": "array", "items": {"type": "object"}},
        "nextPageToken": {"type": "string", "description": "Empty on the last page."},
        "totalRows": {"type": "integer", "description": "Of the whole table, where its format counts them."},
    },
}
_STATISTICS_SCHEMA = {
    "type": "object",
    "required": ["columns", "rows", "scannedRows", "isComplete"],
    "properties": {
        "columns": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    **dict.fromkeys(("name", "type"), _TEXT),
                    **{name: {"type": "integer"} for name in ("count", "nulls", "nans", "distinct")},
                    "distinctIsApproximate": {"type": "boolean"},
                    **{name: {} for name in ("min", "max")},
                    **dict.fromkeys(("mean", "std"), _NUMBER),
                },
            },
        },
        "rows": {"type": "integer"},
        "scannedRows": {"type": "integer"},
        "totalRows": {"type": "integer"},
        "isComplete": {
            "type": "boolean",
            "description": "False: rows were left out, because of their number or the time.",
        },
    },
}


def _table(place: str, names: tuple[str, ...], *, is_statistics: bool) -> dict[str, Any]:
    """Return the operation that reads a table."""
    what = "Statistics of the columns" if is_statistics else "Rows"
    formats: dict[str, Any] = {
        "application/json": {"schema": _STATISTICS_SCHEMA if is_statistics else _ROWS_SCHEMA}
    }
    if not is_statistics:
        formats |= {media_type: {} for media_type in MEDIA_TYPES[1:]}
    return {
        "get": {
            "operationId": f"{place}.{'statistics' if is_statistics else 'rows'}",
            "tags": ["optaic.run.v1.RunService"],
            "summary": what,
            "description": f"{what} of {'a file' if 'name' in names else 'the table'} that a run has written.",
            "parameters": [
                *({"name": name, "in": "path", "required": True, "schema": _TEXT} for name in names),
                *_SELECTION,
                *([] if is_statistics else _PAGING),
            ],
            "responses": {
                "200": {"description": f"{what}.", "content": formats},
                "default": {"$ref": "#/components/responses/refused"},
            },
        }
    }


_TABLES = {
    "/data/{run_id}": _table("data", ("run_id",), is_statistics=False),
    "/data/{run_id}/statistics": _table("data", ("run_id",), is_statistics=True),
    "/runs/{run_id}/artifacts/{name}/rows": _table("artifacts", ("run_id", "name"), is_statistics=False),
    "/runs/{run_id}/artifacts/{name}/statistics": _table("artifacts", ("run_id", "name"), is_statistics=True),
}


class Document:
    """The document, which is written when it is first asked for."""

    def __init__(self, methods: Mapping[str, Method]) -> None:
        self._methods = methods

    @functools.cached_property
    def _bytes(self) -> bytes:
        return json.dumps(describe(self._methods, comments.read(_COMMENTS))).encode()

    def read(self) -> bytes:
        """Return the document as JSON."""
        return self._bytes


def describe(methods: Mapping[str, Method], texts: Mapping[str, str]) -> dict[str, Any]:
    """Return the document of some methods."""
    schemas = _Schemas(texts)
    paths = {path: {"post": _operation(method, texts, schemas)} for path, method in sorted(methods.items())}
    tags = sorted({method.descriptor.containing_service.full_name for method in methods.values()})
    return {
        "openapi": VERSION,
        "info": {"title": "OptAIC", "version": "v1", "description": _INTRODUCTION},
        "security": [{"token": []}, {}],
        "tags": [{"name": tag, "description": texts.get(tag, "")} for tag in tags],
        "paths": {**paths, "/runs/{run_id}/artifacts/{name}": _FILES, **_TABLES},
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "parameters": _PARAMETERS,
            "headers": {"write_token": _WRITE_TOKEN},
            "responses": {
                "refused": {
                    "description": "The call was refused, or failed.",
                    "content": {"application/json": {"schema": _reference(_ERROR)}},
                }
            },
            "schemas": {_ERROR: _ERROR_SCHEMA, **schemas.found},
        },
    }


def _operation(method: Method, texts: Mapping[str, str], schemas: _Schemas) -> dict[str, Any]:
    descriptor = method.descriptor
    contract = descriptor.containing_service
    media = "application/connect+json" if method.is_stream else "application/json"
    # The audit trails of the services are one contract at four paths.
    unique = method.path.strip("/").replace("/", ".")
    return {
        "operationId": unique,
        "tags": [contract.full_name],
        "summary": descriptor.name,
        "description": texts.get(f"{contract.full_name}.{descriptor.name}", ""),
        "parameters": [{"$ref": f"#/components/parameters/{name}"} for name in _PARAMETERS],
        "requestBody": {
            "required": True,
            "content": {media: {"schema": schemas.refer_to(descriptor.input_type)}},
        },
        "responses": {
            "200": {
                "description": "A stream of answers." if method.is_stream else "The answer.",
                "headers": {"Trailer-Optaic-Write-Token": {"$ref": "#/components/headers/write_token"}},
                "content": {media: {"schema": schemas.refer_to(descriptor.output_type)}},
            },
            "default": {"$ref": "#/components/responses/refused"},
        },
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


class _Schemas:
    """The schemas of the messages and enumerations that something refers to."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.found: dict[str, Any] = {}
        self._texts = texts

    def refer_to(self, kind: Descriptor | EnumDescriptor) -> Any:
        """Return a schema, or a reference to one that is found now."""
        name = kind.full_name
        if name in _WELL_KNOWN:
            return _WELL_KNOWN[name]
        if name not in self.found:
            self.found[name] = {}  # a message may contain itself
            made = self._of_enum(kind) if isinstance(kind, EnumDescriptor) else self._of_message(kind)
            self.found[name] = self._described(name, made)
        return _reference(name)

    def _of_message(self, message: Descriptor) -> dict[str, Any]:
        return {
            "type": "object",
            "additionalProperties": False,
            "properties": {
                field.json_name: self._described(field.full_name, self._of_field(field))
                for field in message.fields
            },
        }

    def _of_enum(self, kind: EnumDescriptor) -> dict[str, Any]:
        lines = [
            f"{value.name}: {text}"
            for value in kind.values
            if (text := self._texts.get(f"{kind.full_name}.{value.name}"))
        ]
        values = {"type": "string", "enum": [value.name for value in kind.values]}
        own = [self._texts[kind.full_name]] if kind.full_name in self._texts else []
        return {**values, "description": "\n\n".join([*own, *lines])}

    def _of_field(self, field: FieldDescriptor) -> Any:
        if not field.is_repeated:
            return self._of_value(field)
        entry = field.message_type
        if entry is not None and entry.GetOptions().map_entry:
            return {
                "type": "object",
                "additionalProperties": self._of_value(entry.fields_by_name["value"]),
            }
        return {"type": "array", "items": self._of_value(field)}

    def _of_value(self, field: FieldDescriptor) -> Any:
        kind = field.message_type or field.enum_type
        return _SCALARS.get(field.type, _SMALL) if kind is None else self.refer_to(kind)

    def _described(self, name: str, schema: Any) -> Any:
        text = self._texts.get(name)
        return {**schema, "description": text} if text and "description" not in schema else schema
