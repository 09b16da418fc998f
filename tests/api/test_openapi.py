"""The API's description is complete: every route says what it is for, and shows what it answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from api.app import create_app
from api.settings import Settings


@pytest.fixture(scope="module")
def document(settings: Settings) -> dict[str, Any]:
    return create_app(settings).openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def has_example(document: dict[str, Any], content: dict[str, Any]) -> bool:
    if "example" in content or "examples" in content:
        return True
    schema = content.get("schema", {})
    schema = schema.get("items", schema)
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
    return bool(schema.get("examples"))


def test_every_route_has_summary_description_and_tag(document: dict[str, Any]) -> None:
    found = dict(operations(document))
    assert len(found) == 28
    for name, operation in found.items():
        assert operation.get("summary"), name
        assert operation.get("description"), name
        assert operation.get("tags"), name


def test_every_response_has_an_example(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            contents = response.get("content", {})
            assert contents, f"{name} {status}"
            for media, content in contents.items():
                assert has_example(document, content), f"{name} {status} {media}"


def test_every_route_that_changes_something_describes_its_body_and_signature(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        if name.startswith(("POST", "PUT")):
            assert operation["requestBody"]["required"], name
            headers = {p["name"].lower() for p in operation.get("parameters", []) if p["in"] == "header"}
            signed = {"sealproof-party", "sealproof-time", "sealproof-nonce", "sealproof-signature"}
            assert headers == (set() if name == "POST /v1/parties" else signed), name


def test_errors_are_described_in_their_one_shape(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorBody"}, f"{name} {status}"
