"""Random requests that fit the API's description, unsigned and signed: never an answer of 5xx, always the one shape."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.app import create_app
from api.schemas import ErrorBody
from api.settings import Settings
from api.signing import NONCE_HEADER, PARTY_HEADER, SIGNATURE_HEADER, TIME_HEADER, sign_request
from tests.api.conftest import Caller, Running

schemathesis = pytest.importorskip("schemathesis")

_SIGNED = {name.lower() for name in (NONCE_HEADER, PARTY_HEADER, SIGNATURE_HEADER, TIME_HEADER)}


# The description is made without starting anything, so operations are known before there is a server.
_DESCRIPTION = schemathesis.openapi.from_dict(create_app(Settings()).openapi())
OPERATIONS = {found.ok().label: found.ok() for found in _DESCRIPTION.get_all_operations()}
CHANGING = [label for label in OPERATIONS if label.startswith(("POST", "PUT"))]


def prepared(case: Any, service: Running) -> Any:
    """The request of a case, ready to be sent."""
    import requests

    return requests.Request(**case.as_transport_kwargs(base_url=service.url)).prepare()


def send(request: Any, service: Running, headers: dict[str, str]) -> httpx.Response:
    body = request.body.encode() if isinstance(request.body, str) else request.body or b""
    return service.client.request(request.method, request.path_url, content=body, headers=headers)


def check(response: httpx.Response) -> None:
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        ErrorBody.model_validate_json(response.content)


@pytest.mark.parametrize("label", OPERATIONS)
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_unsigned(label: str, data: st.DataObject, service: Running) -> None:
    case = data.draw(OPERATIONS[label].as_strategy())
    request = prepared(case, service)
    check(send(request, service, {k: v for k, v in request.headers.items() if k.lower() in _SIGNED}))


@pytest.mark.parametrize("label", CHANGING)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_signed(label: str, data: st.DataObject, service: Running, clinic_party: Caller) -> None:
    case = data.draw(OPERATIONS[label].as_strategy())
    request = prepared(case, service)
    body = request.body.encode() if isinstance(request.body, str) else request.body or b""
    signed = sign_request(
        request.method, request.path_url, body, clinic_party.reference.index, clinic_party.private_key
    )
    response = send(request, service, signed)
    check(response)
    assert response.status_code != 401, response.text
