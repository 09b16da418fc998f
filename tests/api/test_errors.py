"""Errors over HTTP: every class has its row, one shape, and nothing internal is shown."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from fractions import Fraction

import httpx
import pytest

from api.app import create_app
from api.errors import ERRORS, ApiError, ExposureCap, RateLimited, describe
from api.settings import Settings
from ledger.errors import CorruptLog, LedgerError
from privacy.errors import DecodeError, PrivacyError, VerificationFailed
from tests.api.conftest import Running, refused

CLIENT_SIDE = ("api.client", "api.cli", "api.mpc")
"""What runs on the other side of the connection never becomes a response."""


def modules() -> Iterator[str]:
    for package in ("privacy", "ledger", "api"):
        path = importlib.import_module(package).__path__
        for found in pkgutil.walk_packages(path, f"{package}."):
            if not found.name.startswith(CLIENT_SIDE):
                yield found.name


def test_every_exception_class_has_a_row() -> None:
    classes = set()
    for name in modules():
        try:
            module = importlib.import_module(name)
        except PrivacyError:  # an optional dependency is not installed
            continue
        for _, found in inspect.getmembers(module, inspect.isclass):
            if issubclass(found, Exception) and found.__module__ == name:
                classes.add(found)
    assert {PrivacyError, LedgerError, ApiError} < classes
    assert {c.__qualname__ for c in classes - set(ERRORS)} == set()


def test_rows_are_errors_and_types_are_stable_names() -> None:
    for row in ERRORS.values():
        assert 400 <= row.status < 600
        assert row.type == row.type.lower()
        assert row.hint
        assert (row.type == "internal") <= row.internal


def test_unforeseen_errors_show_an_id_and_nothing_else() -> None:
    for error in (ValueError("patient 7 has rho=12345"), CorruptLog("secret detail"), KeyError("x")):
        problem = describe(error)
        assert problem.status == 500
        assert problem.incident is not None
        assert problem.message == f"internal error {problem.incident}"
        assert "secret" not in str(problem.to_json())


def test_checks_and_numbers_reach_the_caller() -> None:
    assert describe(VerificationFailed("key.number", "used")).check == "key.number"
    problem = describe(ExposureCap("risk", Fraction(1), Fraction(2), Fraction(7, 2), Fraction(6)))
    assert (problem.status, problem.type) == (403, "exposure-cap")
    numbers = {"released_bits": 1.0, "waiting_bits": 2.0, "asked_bits": 3.5, "cap_bits": 6.0}
    assert problem.details == {"output": "risk", **numbers}


def test_routes_that_do_not_exist_answer_in_the_same_shape(service: Running) -> None:
    refused(service.client.get("/v1/nothing"), 404, "not-found")
    refused(service.client.delete("/v1/health"), 405, "method-not-allowed")
    refused(service.client.get("/v1/ledger/entries/minus-one"), 422, "invalid-request")


@pytest.mark.parametrize(
    ("error", "status", "type"),
    [
        (RuntimeError("weights = [1, 2, 3]"), 500, "internal"),
        (DecodeError("x", "y"), 400, "malformed"),
        (RateLimited("slow", 7), 429, "rate-limited"),
    ],
)
def test_exceptions_in_a_route(settings: Settings, error: Exception, status: int, type: str) -> None:
    import asyncio

    app = create_app(settings)

    @app.get("/fail")
    def fail() -> None:
        raise error

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.get("/fail")

    response = asyncio.run(ask())
    refused(response, status, type)
    assert "weights" not in response.text
    assert "Traceback" not in response.text
    assert response.headers.get("retry-after") == ("7" if status == 429 else None)
