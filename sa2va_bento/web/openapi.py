"""The OpenAPI document at `/docs.json`: every route with its fields, examples and statuses.

BentoML would write one, but of its own routes only, without null, uploads, keys or our errors.
"""

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, Protocol

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from sa2va_bento import __version__
from sa2va_bento.web.schemas import ErrorResponse
from sa2va_bento.web.statuses import STATUSES

Json = dict[str, Any]

_SECURITY: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer KEY`"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "`X-API-Key: KEY`"},
}
_REQUEST_ID: Json = {
    "description": "The request's id: the one it came with, if it is clean, or a new one",
    "schema": {"type": "string", "examples": ["4f1c0a"]},
}
_RETRY_AFTER: Json = {"description": "Seconds to wait", "schema": {"type": "integer", "examples": [1]}}
_CHALLENGE: Json = {"description": "How to give a key", "schema": {"type": "string", "examples": ["Bearer"]}}
_PICTURE: Json = {
    "type": "string",
    "format": "binary",
    "contentMediaType": "application/octet-stream",
    "description": "The picture's file, in place of `base64Image`",
}
_VIDEO: Json = {
    "type": "string",
    "format": "binary",
    "contentMediaType": "application/octet-stream",
    "description": "The video's file",
}
_FRAMES: Json = {
    "type": "array",
    "items": {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"},
    "description": "In place of a video: pictures of one size, in order",
}
_UPLOADS: Mapping[str, Json] = {
    "ProcessForm": {
        "description": "The fields of a JSON request, the picture as a file; lists are JSON.",
        "required": ["prompt"],
        "files": {"image": _PICTURE},
        "oneOf": [{"required": ["image"]}, {"required": ["base64Image"]}],
    },
    "VideoForm": {
        "description": "The fields of a JSON request, the video or its frames as files; lists are JSON.",
        "required": [],
        "files": {"video": _VIDEO, "frames": _FRAMES},
        "oneOf": [{"required": ["video"]}, {"required": ["frames"]}],
    },
}
"""What forms hold as files."""
_OPENAI_ERROR: Json = {
    "type": "object",
    "description": "Why there is no answer, as OpenAI's clients read it.",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "description": "What is wrong",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string", "description": "For a person to read", "examples": ["messages: empty"]},
                "type": {"type": "string", "description": "Its kind", "examples": ["invalid_request_error"]},
                "param": {"type": ["string", "null"], "description": "The field", "examples": ["messages"]},
                "code": {"type": ["string", "null"], "description": "For programs", "examples": [None]},
            },
        }
    },
}


class Documented(Protocol):
    """What an endpoint of the table says of itself."""

    @property
    def method(self) -> str: ...
    @property
    def documented_path(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def summary(self) -> str: ...
    @property
    def tag(self) -> str: ...
    @property
    def is_open(self) -> bool: ...
    @property
    def takes(self) -> type[BaseModel] | None: ...
    @property
    def takes_form(self) -> bool: ...
    @property
    def answer(self) -> type[BaseModel] | str: ...
    @property
    def events(self) -> tuple[str, ...]: ...
    @property
    def events_are(self) -> str: ...
    @property
    def accepted(self) -> type[BaseModel] | None: ...
    @property
    def query(self) -> tuple[tuple[str, str, str], ...]: ...
    @property
    def errors(self) -> tuple[int, ...]: ...
    @property
    def not_ready(self) -> type[BaseModel] | None: ...


Endpoints = tuple[Documented, ...]


@cache
def document_bytes(endpoints: Endpoints, *, keys: bool) -> bytes:
    """The document as JSON. Making it takes a while, once: not for the event loop."""
    return json.dumps(build_document(endpoints, keys=keys), ensure_ascii=False).encode()


def build_document(endpoints: Endpoints, *, keys: bool) -> Json:
    """The document; with `keys` it asks for one on all routes that are not open."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Sa2VA",
            "version": __version__,
            "summary": "A picture and a prompt go in; text and a mask for everything it points at come out",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "Where this document came from"}],
        "tags": [
            {"name": "answers", "description": "Text and masks"},
            {"name": "video", "description": "Videos, as jobs"},
            {"name": "openai", "description": "The same for OpenAI's clients"},
            {"name": "service", "description": "What is running, and how it is"},
        ],
        "paths": _paths(endpoints, keys=keys),
        "components": {"schemas": _schemas(endpoints), "securitySchemes": _SECURITY if keys else {}},
    }


def _schemas(endpoints: Endpoints) -> Json:
    """Schemas of requests as they are read and of answers as they are written."""
    read = _models(endpoint.takes for endpoint in endpoints)
    written = _models(
        [
            ErrorResponse,
            *(e.answer for e in endpoints),
            *(e.not_ready for e in endpoints),
            *(e.accepted for e in endpoints),
        ]
    )
    _, definitions = models_json_schema(
        [*((model, "validation") for model in read), *((model, "serialization") for model in written)],
        ref_template="#/components/schemas/{model}",
    )
    schemas: Json = definitions["$defs"]
    for model in read:
        schemas[model.__name__] = _null_as_absent(schemas[model.__name__])
    for model in _models(endpoint.takes for endpoint in endpoints if endpoint.takes_form):
        schemas[_form_name(model)] = _form(schemas[model.__name__], _form_name(model))
    schemas["OpenAIErrorResponse"] = _OPENAI_ERROR
    return schemas


def _models(kinds: Iterable[type[BaseModel] | str | None]) -> list[type[BaseModel]]:
    """The distinct models among what endpoints take or answer."""
    return list(dict.fromkeys(kind for kind in kinds if isinstance(kind, type)))


def _form_name(model: type[BaseModel]) -> str:
    return model.__name__.replace("Request", "Form")


def _null_as_absent(schema: Json) -> Json:
    """An object's schema whose optional fields may be null, as requests are read."""
    required = schema.get("required", [])
    fields = {name: field if name in required else _or_null(field) for name, field in schema["properties"].items()}
    return {**schema, "properties": fields}


def _or_null(field: Json) -> Json:
    if {"type": "null"} in field.get("anyOf", []):
        return field
    about = {name: field[name] for name in ("title", "description", "examples", "default") if name in field}
    kind = {name: value for name, value in field.items() if name not in about}
    return {**about, "anyOf": [kind, {"type": "null"}]}


def _form(request: Json, name: str) -> Json:
    """A request as a multipart form: pictures and videos as files, lists and numbers as JSON."""
    upload = _UPLOADS[name]
    fields = {name: _in_form(field) for name, field in request["properties"].items()}
    return {
        **request,
        "title": name,
        "description": upload["description"],
        "required": upload["required"],
        "properties": {**fields, **upload["files"]},
        "oneOf": upload["oneOf"],
    }


def _in_form(field: Json) -> Json:
    """A field whose null may be written out, as a form can't carry another."""
    kinds = [{"enum": [None, "null"]} if kind == {"type": "null"} else kind for kind in field.get("anyOf", [])]
    return {**field, "anyOf": kinds} if kinds else field


def _paths(endpoints: Endpoints, *, keys: bool) -> Json:
    paths: Json = {}
    for endpoint in endpoints:
        operation = _operation(endpoint)
        if keys:
            operation["security"] = [] if endpoint.is_open else [{name: []} for name in _SECURITY]
        paths.setdefault(endpoint.documented_path, {})[endpoint.method.lower()] = operation
    return paths


def _operation(endpoint: Documented) -> Json:
    schema = "OpenAIErrorResponse" if endpoint.tag == "openai" else "ErrorResponse"
    responses = {200: _answer(endpoint), **_errors(*endpoint.errors, schema=schema)}
    if endpoint.not_ready:
        responses[503] = _json("The model is still loading, or is gone", endpoint.not_ready.__name__, retry=True)
    if endpoint.accepted:
        responses[202] = _json("It is under way", endpoint.accepted.__name__)
    if endpoint.answer == "removed":
        responses[204] = responses.pop(200)
    operation: Json = {
        "operationId": endpoint.name,
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "responses": _by_status(responses),
    }
    if names := re.findall(r"{(\w+)}", endpoint.documented_path):
        operation["parameters"] = [_path_parameter(name) for name in names]
    if endpoint.query:
        operation["parameters"] = operation.get("parameters", []) + [_query_parameter(*one) for one in endpoint.query]
    if endpoint.takes:
        operation["requestBody"] = {"required": True, "content": _content(endpoint.takes, endpoint.takes_form)}
    return operation


def _path_parameter(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "description": "Its name", "schema": {"type": "string"}}


def _query_parameter(name: str, kind: str, description: str) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": {"type": kind}}


def _content(model: type[BaseModel], takes_form: bool) -> Json:
    content = {"application/json": {"schema": _ref(model.__name__)}}
    return content | ({"multipart/form-data": {"schema": _ref(_form_name(model))}} if takes_form else {})


def _answer(endpoint: Documented) -> Json:
    match endpoint.answer:
        case "object":
            return _free_object(endpoint.summary)
        case "text":
            return _text(endpoint.summary)
        case "page":
            return _text(endpoint.summary, "text/html")
        case "file":
            return _text(endpoint.summary, "*/*")
        case "nothing" if endpoint.events:
            return _events(endpoint.events_are, *endpoint.events)
        case "nothing":
            return {"description": "Yes", "headers": _headers()}
        case "removed":
            return {"description": "It is gone", "headers": _headers()}
        case str() as unknown:
            raise ValueError(unknown)
        case model:
            answer = _json("The answer", model.__name__)
            if endpoint.events:  # the same, in chunks
                answer["content"] |= _events("", *endpoint.events)["content"]
            return answer


def _by_status(responses: Mapping[int, Json]) -> Json:
    return {str(status): responses[status] for status in sorted(responses)}


def _errors(*statuses: int, schema: str = "ErrorResponse") -> dict[int, Json]:
    return {
        status: _json(STATUSES[status].meaning, schema, retry=status in (429, 503), challenge=status == 401)
        for status in statuses
    }


def _json(description: str, schema: str, *, retry: bool = False, challenge: bool = False) -> Json:
    headers = _headers()
    if retry:
        headers["Retry-After"] = _RETRY_AFTER
    if challenge:
        headers["WWW-Authenticate"] = _CHALLENGE
    return {"description": description, "headers": headers, "content": {"application/json": {"schema": _ref(schema)}}}


def _free_object(description: str) -> Json:
    return {
        "description": description,
        "headers": _headers(),
        "content": {"application/json": {"schema": {"type": "object"}}},
    }


def _text(description: str, media_type: str = "text/plain") -> Json:
    content = {media_type: {"schema": {"type": "string"}}}
    return {"description": description, "headers": _headers(), "content": content}


def _events(description: str, *names: str) -> Json:
    """A stream of server-sent events with these names; the schema is that of one event."""
    event = {
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": {"enum": list(names), "description": "What the event is", "examples": [names[0]]},
            "data": {"type": "string", "description": "JSON on one line", "examples": ["{}"]},
        },
    }
    content = {"text/event-stream": {"schema": event}}
    return {"description": description, "headers": _headers(), "content": content}


def _headers() -> Json:
    return {"X-Request-ID": _REQUEST_ID}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}
