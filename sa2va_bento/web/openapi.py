"""The OpenAPI document at `/docs.json`: every route with its fields, examples and statuses.

BentoML would write one, but of its own routes only, without null, uploads, keys or our errors.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from sa2va_bento import __version__
from sa2va_bento.schemas import ErrorResponse, HealthErrorResponse, HealthResponse, ProcessRequest, ProcessResponse
from sa2va_bento.web.access import OPEN_PATHS
from sa2va_bento.web.openai_schemas import ChatCompletion, ChatRequest, ModelCard, ModelList

Json = dict[str, Any]

STATUSES = {
    400: "A missing or malformed field, an undecodable picture, an empty prompt",
    401: "No key, or a wrong one",
    404: "No such thing",
    413: "A body, a picture or a prompt over its limit",
    415: "A media type, a picture format or a content encoding that is not supported",
    429: "The caller has asked too often",
    500: "The model failed on this request",
    503: "The model is not ready, or too many requests wait",
    504: "No answer within the deadline",
}

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
_STREAM = (
    "Server-sent events: `start` (`request_id`, `model`) at once, then `token` (`text`) and `segment` (one of "
    "`segments`) as they come, at last `done` (the answer of `POST /process`) or `error` (`error`, `status`)"
)


def build_document(*, keys: bool) -> Json:
    """The document; with `keys` it asks for one on all routes that are not open."""
    document: Json = {
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
            {"name": "openai", "description": "The same for OpenAI's clients"},
            {"name": "service", "description": "What is running, and how it is"},
        ],
        "paths": _paths(),
        "components": {"schemas": _schemas(), "securitySchemes": _SECURITY if keys else {}},
    }
    if keys:
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                is_open = method == "get" and path in OPEN_PATHS
                operation["security"] = [] if is_open else [{name: []} for name in _SECURITY]
    return document


def _schemas() -> Json:
    """Schemas of requests as they are read and of answers as they are written."""
    read: list[type[BaseModel]] = [ProcessRequest, ChatRequest]
    written: list[type[BaseModel]] = [ProcessResponse, HealthResponse, HealthErrorResponse, ErrorResponse]
    written += [ChatCompletion, ModelList, ModelCard]
    _, definitions = models_json_schema(
        [*((model, "validation") for model in read), *((model, "serialization") for model in written)],
        ref_template="#/components/schemas/{model}",
    )
    schemas: Json = definitions["$defs"]
    for model in read:
        schemas[model.__name__] = _null_as_absent(schemas[model.__name__])
    schemas["ProcessForm"] = _form(schemas["ProcessRequest"])
    schemas["OpenAIErrorResponse"] = _OPENAI_ERROR
    return schemas


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


def _form(request: Json) -> Json:
    """A request as a multipart form: the picture as a file, lists and numbers as JSON."""
    return {
        **request,
        "title": "ProcessForm",
        "description": "The fields of a JSON request, the picture as a file; lists are JSON.",
        "required": ["prompt"],
        "properties": {"image": _PICTURE, **{name: _in_form(field) for name, field in request["properties"].items()}},
        "oneOf": [{"required": ["image"]}, {"required": ["base64Image"]}],
    }


def _in_form(field: Json) -> Json:
    """A field whose null may be written out, as a form can't carry another."""
    kinds = [{"enum": [None, "null"]} if kind == {"type": "null"} else kind for kind in field.get("anyOf", [])]
    return {**field, "anyOf": kinds} if kinds else field


def _paths() -> Json:
    health = _json("What is running", "HealthResponse")
    not_ready = _json("The model is still loading, or is gone", "HealthErrorResponse", retry=True)
    return {
        "/process": {"post": _asking("process", "Answers a prompt about a picture", "ProcessResponse")},
        "/process_stream": {"post": _asking("process_stream", "The same, while it is made", None)},
        "/health": {
            "get": _operation("health", "What is running", {200: health, 503: not_ready}),
            "post": _operation("health_post", "What is running", {200: health, **_errors(401, 429), 503: not_ready}),
        },
        "/": {"get": _operation("welcome", "What this is", {200: _free_object("What there is")})},
        "/docs.json": {"get": _operation("docs", "This document", {200: _free_object("OpenAPI"), **_errors(401, 429)})},
        "/metrics": {"get": _operation("metrics", "Prometheus", {200: _text("Metrics"), **_errors(401, 429)})},
        **{path: {"get": _probe(path)} for path in ("/livez", "/readyz", "/healthz")},
        **_openai_paths(),
    }


def _openai_paths() -> Json:
    refused = _errors(401, 429, 503, schema="OpenAIErrorResponse")
    unknown = _errors(404, schema="OpenAIErrorResponse")
    name = {"name": "name", "in": "path", "required": True, "description": "The model", "schema": {"type": "string"}}
    answer = _json("The answer, or its chunks", "ChatCompletion")
    answer["content"] |= _events("", "message")["content"]
    answers = {200: answer, **_errors(*STATUSES, schema="OpenAIErrorResponse")}
    chat = _operation("chat_completions", "OpenAI's chat completions", answers, "openai")
    chat["requestBody"] = {"required": True, "content": {"application/json": {"schema": _ref("ChatRequest")}}}
    models = _operation("models", "The served model", {200: _json("A list of one", "ModelList"), **refused}, "openai")
    card = {200: _json("It", "ModelCard"), **refused, **unknown}
    model = {**_operation("model", "The served model, by its name", card, "openai"), "parameters": [name]}
    return {
        "/v1/chat/completions": {"post": chat},
        "/v1/models": {"get": models},
        "/v1/models/{name}": {"get": model},
    }


def _asking(name: str, summary: str, answer: str | None) -> Json:
    good = _json("The answer", answer) if answer else _events(_STREAM, "start", "token", "segment", "done", "error")
    content = {
        "application/json": {"schema": _ref("ProcessRequest")},
        "multipart/form-data": {"schema": _ref("ProcessForm")},
    }
    responses = {200: good, **_errors(*(status for status in STATUSES if status != 404))}
    return {**_operation(name, summary, responses, "answers"), "requestBody": {"required": True, "content": content}}


def _probe(path: str) -> Json:
    summary = "Whether requests are answered" if path == "/readyz" else "Whether the process is sound"
    return _operation(path[1:], summary, {200: {"description": "Yes", "headers": _headers()}, **_errors(503)})


def _operation(name: str, summary: str, responses: Mapping[int, Json], tag: str = "service") -> Json:
    return {"operationId": name, "summary": summary, "tags": [tag], "responses": _by_status(responses)}


def _by_status(responses: Mapping[int, Json]) -> Json:
    return {str(status): responses[status] for status in sorted(responses)}


def _errors(*statuses: int, schema: str = "ErrorResponse") -> dict[int, Json]:
    return {
        status: _json(STATUSES[status], schema, retry=status in (429, 503), challenge=status == 401)
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


def _text(description: str) -> Json:
    content = {"text/plain": {"schema": {"type": "string"}}}
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
