"""The client's side of HTTP: what a server may answer and what then happens."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.client.identity import Identity, Role
from api.client.transport import Server, ServerError, ServerRefused, ServerUnreachable, UploadedProof
from api.entries import Party, Reference, decode_entry, sign_entry
from api.signing import parse_signed_request, verify_request
from ledger import leaf_hash
from privacy.canonical_json import parse_timestamp
from privacy.errors import DecodeError, UsageError

Handler = Callable[[httpx.Request], httpx.Response]
LEAF = "ab" * 32
WORDS = ["error", "type", "message", "check", "hint", "index", "leaf", "digests", "job", "id", "state", "done", "total"]


def answering(handler: Handler, identity: Identity | None = None, **options: Any) -> Server:
    client = httpx.Client(transport=httpx.MockTransport(handler), base_url="http://server")
    return Server("http://server", identity, client=client, pause=0, **options)


def constant(content: bytes, status: int = 200, **headers: str) -> Handler:
    return lambda request: httpx.Response(status, content=content, headers=headers)


@pytest.fixture
def identity(tmp_path: Path) -> Identity:
    made = Identity.create(tmp_path / "id", "clinic", "st-anna", "http://server", "log.example")
    return made.registered(Reference(7, bytes(32)))


CALLS: dict[str, Callable[[Server, Path], object]] = {
    "health": lambda s, path: s.health(),
    "job": lambda s, path: s.job("ab" * 16),
    "models": lambda s, path: s.models(),
    "entries": lambda s, path: s.entries(0, 3),
    "consistency": lambda s, path: s.consistency(1, 2),
    "parties": lambda s, path: s.parties("st-anna"),
    "requests": lambda s, path: s.requests_of(3),
    "exposure": lambda s, path: s.exposure("st-anna", 3),
    "blob": lambda s, path: s.blob(bytes(32)),
    "register": lambda s, path: s.register(b"entry"),
    "append": lambda s, path: s.append(b"entry"),
    "put_blob": lambda s, path: s.put_blob(b"blob"),
    "upload": lambda s, path: s.upload_ciphertexts(1, [b"a", b"b"]),
    "request": lambda s, path: s.request_prediction(1, 2, bytes(32)),
    "offers": lambda s, path: s.offers("owner.example:7100", "dealer.example:7300", bytes(32), 5),
}
GARBAGE = [
    b"",
    b"\x00\xff",
    b"<html>hello</html>",
    b"null",
    b"[1]",
    b"{}",
    b'{"index":"1","leaf":"zz"}',
    b'{"index":-1,"leaf":"' + LEAF.encode() + b'"}',
    b'{"index":1.5,"leaf":"' + LEAF.encode() + b'"}',
    b'{"digests":["00"]}',
    b'{"digests":[]}',
    b'{"job":"../../etc/passwd"}',
    b'["not base64!"]',
    b"[" * 100_000,
    b'{"status":"ok","version":1,"origin":null}',
    b'{"id":"x","state":"maybe","done":0,"total":0}',
    b'{"offers":[{"job":"' + b"ab" * 16 + b'","role":"C"}]}',
]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_a_clear_error(call: str, garbage: bytes, identity: Identity, tmp_path: Path) -> None:
    server = answering(constant(garbage), identity)
    with pytest.raises(DecodeError, match="answer of the server to /v1/"):
        CALLS[call](server, tmp_path)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    call=st.sampled_from(sorted(CALLS)),
    status=st.sampled_from([200, 200, 200, 201, 204, 301, 400, 404, 418, 500, 503, 599]),
    content=st.binary(max_size=200)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    ).map(lambda value: json.dumps(value).encode()),
    headers=st.dictionaries(
        st.sampled_from(["location", "content-type", "content-encoding", "retry-after"]),
        st.sampled_from(["http://evil.example/", "gzip", "br", "text/html", "-1", ""]),
    ),
)
def test_whatever_a_server_answers_is_an_answer_or_an_error_of_ours(
    identity: Identity, tmp_path: Path, call: str, status: int, content: bytes, headers: dict[str, str]
) -> None:
    seen: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(status, stream=httpx.ByteStream(content), headers=headers)

    server = answering(handler, identity, retries=1)
    with contextlib.suppress(DecodeError, ServerError):
        CALLS[call](server, tmp_path)
    assert all(url.startswith("http://server/") for url in seen)


def test_an_answer_larger_than_asked_for_is_not_read_to_its_end(identity: Identity) -> None:
    sent = 0

    def endless() -> Any:
        nonlocal sent
        while True:
            sent += 1 << 16
            yield bytes(1 << 16)

    server = answering(lambda request: httpx.Response(200, content=endless()), identity)
    for call, limit in (
        (lambda: server.checkpoint(), 1 << 20),
        (lambda: server.entry(0), 1 << 16),
        (lambda: server.blob(bytes(32)), 1 << 24),
        (lambda: server.health(), 1 << 25),
        (lambda: server.append(b"entry"), 1 << 20),
    ):
        sent = 0
        with pytest.raises(DecodeError, match="more than"):
            call()
        assert sent <= limit + (1 << 18)


def test_a_bundle_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "b.sealproof"
    answering(constant(b"bundle")).save_bundle(3, path)
    assert path.read_bytes() == b"bundle"

    def broken() -> Any:
        yield b"half"
        raise httpx.ReadError("cut off")

    with pytest.raises(ServerUnreachable):
        answering(lambda request: httpx.Response(200, content=broken())).save_bundle(3, path)
    with pytest.raises(ServerRefused):
        answering(constant(b"", 404)).save_bundle(3, path)
    monkeypatch.setattr("api.client.transport.MAX_BUNDLE_BYTES", 3)
    with pytest.raises(DecodeError, match="more than 3 bytes"):
        answering(constant(b"bundle", **{"content-length": "nonsense"})).save_bundle(3, path)
    assert path.read_bytes() == b"bundle"
    assert list(tmp_path.iterdir()) == [path]


def test_a_blob_with_another_digest_is_refused() -> None:
    with pytest.raises(DecodeError, match="another digest"):
        answering(constant(b"other")).blob(hashlib.sha256(b"blob").digest())
    assert answering(constant(b"blob")).blob(hashlib.sha256(b"blob").digest()) == b"blob"


def test_an_entry_that_was_logged_differently_is_refused(identity: Identity) -> None:
    def handler(leaf: str) -> Handler:
        return lambda request: httpx.Response(201, json={"index": 4, "leaf": leaf})

    with pytest.raises(DecodeError, match="leaf hash is not that"):
        answering(handler(LEAF), identity).append(b"entry")
    right = leaf_hash(b"entry")
    assert answering(handler(right.hex()), identity).append(b"entry") == Reference(4, right)


def test_a_stored_blob_must_be_the_one_that_was_sent(identity: Identity) -> None:
    digest = hashlib.sha256(b"blob").digest()
    good = {"digest": digest.hex(), "size": 4}
    for answer in ({**good, "size": 5}, {**good, "digest": LEAF}):
        with pytest.raises(DecodeError, match="another digest or size"):
            answering(lambda request, a=answer: httpx.Response(200, json=a), identity).put_blob(b"blob")
    assert answering(lambda request: httpx.Response(200, json=good), identity).put_blob(b"blob") == digest


def test_a_refusal_is_told_in_the_servers_words() -> None:
    body = {"error": {"type": "exposure-cap", "check": "exposure.cap", "message": "too many", "hint": "Ask less."}}
    with pytest.raises(ServerRefused, match=r"403 exposure-cap\): too many Ask less\.") as caught:
        answering(lambda request: httpx.Response(403, json=body)).health()
    assert (caught.value.status, caught.value.check) == (403, "exposure.cap")
    with pytest.raises(ServerRefused, match="418 unknown"):
        answering(constant(b"<html>", 418)).health()


def test_no_redirect_is_followed() -> None:
    with pytest.raises(ServerRefused, match="302"):
        answering(constant(b"", 302, location="http://evil.example/")).checkpoint()


def test_reading_and_storing_is_repeated_and_logging_is_not(identity: Identity) -> None:
    attempts: list[str] = []

    def flaky(request: httpx.Request) -> httpx.Response:
        attempts.append(request.headers.get("sealproof-nonce", ""))
        if len(attempts) < 3:
            raise httpx.ConnectError("refused")
        if request.method == "PUT":
            return httpx.Response(200, json={"digest": hashlib.sha256(b"blob").hexdigest(), "size": 4})
        return httpx.Response(200, content=b"note")

    assert answering(flaky).checkpoint() == b"note"
    attempts.clear()
    answering(flaky, identity).put_blob(b"blob")
    assert len(set(attempts)) == 3  # every attempt is signed anew
    attempts.clear()
    with pytest.raises(ServerUnreachable, match="cannot reach"):
        answering(flaky, identity).append(b"entry")
    assert len(attempts) == 1
    attempts.clear()
    with pytest.raises(ServerUnreachable):
        answering(flaky, retries=1).checkpoint()
    assert len(attempts) == 2
    for status, tries in ((503, 2), (429, 2), (404, 1), (500, 1)):
        attempts.clear()
        counting = answering(lambda request, s=status: attempts.append("") or httpx.Response(s), retries=1)  # type: ignore[func-returns-value]
        with pytest.raises(ServerRefused):
            counting.checkpoint()
        assert len(attempts) == tries


def test_a_server_that_does_not_answer_in_time_is_unreachable() -> None:
    def slow(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("slow")

    with pytest.raises(ServerUnreachable, match="in time"):
        answering(slow, retries=0).health()
    with pytest.raises(ServerUnreachable, match="cannot reach"):
        Server("http://127.0.0.1:1", retries=0).health()


def test_requests_are_signed_over_method_path_query_and_body(identity: Identity) -> None:
    seen: list[httpx.Request] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"digests": [LEAF]})

    answering(handler, identity).upload_ciphertexts(5, [b"seal"])
    (request,) = seen
    signed = parse_signed_request(request.headers)
    assert signed.party == 7
    verify_request(
        signed,
        "POST",
        "/v1/ciphertexts?key=5",
        hashlib.sha256(b"\x04\0\0\0seal").digest(),
        identity.private_key.public_key().public_bytes_raw(),
        parse_timestamp(signed.time),
    )
    assert request.url.raw_path == b"/v1/ciphertexts?key=5"


def test_wrong_use_is_refused_before_anything_is_sent(identity: Identity, tmp_path: Path) -> None:
    def never(request: httpx.Request) -> httpx.Response:
        raise AssertionError("sent")

    with pytest.raises(UsageError, match="must be signed"):
        answering(never).append(b"entry")
    with pytest.raises(UsageError, match="at most 64 ciphertexts"):
        answering(never, identity).upload_ciphertexts(1, [b""] * 65)
    with pytest.raises(UsageError, match="at most 256 entries"):
        answering(never).entries(0, 257)
    with pytest.raises(UsageError, match="address of a server"):
        Server("localhost:8000")
    fresh = Identity.create(tmp_path / "new", "clinic", "st-new", "http://server", "log.example")
    with pytest.raises(UsageError, match="must be signed"):
        answering(never, fresh).append(b"entry")


def test_entries_and_hashes_are_decoded(identity: Identity) -> None:
    texts = [base64.b64encode(data).decode() for data in (b"a", b"bb")]
    assert answering(lambda request: httpx.Response(200, json=texts)).entries(0, 2) == [b"a", b"bb"]
    with pytest.raises(DecodeError, match="another length"):
        answering(lambda request: httpx.Response(200, json=texts)).consistency(1, 2)


# -- identities --------------------------------------------------------------------------------------------------------


def test_an_identity_is_private_and_found_again(identity: Identity) -> None:
    found = Identity.load(identity.folder)
    assert (found.name, found.role, found.party) == ("st-anna", "clinic", Reference(7, bytes(32)))
    assert found.party_entry() == identity.party_entry()
    assert all(path.stat().st_mode & 0o077 == 0 for path in [identity.folder, *identity.folder.iterdir()])
    secret = identity.private_key.private_bytes_raw().hex()
    assert secret not in repr(identity)
    assert secret not in str(vars(identity))
    again = Identity.create(identity.folder, "clinic", "st-anna", "http://other", "log.example")
    assert (again.server, again.party) == ("http://other", identity.party)


def test_an_identity_that_others_can_read_is_not_used(identity: Identity) -> None:
    for name in ("identity.key", "identity.json", "mailbox.key"):
        (identity.folder / name).chmod(0o640)
        with pytest.raises(UsageError, match="accessible to others"):
            Identity.load(identity.folder)
        (identity.folder / name).chmod(0o600)
    identity.folder.chmod(0o755)
    with pytest.raises(UsageError, match="chmod 700"):
        Identity.create(identity.folder, "clinic", "st-anna", "http://server", "log.example")


def test_an_identity_of_someone_else_is_not_taken_over(identity: Identity, tmp_path: Path) -> None:
    for role, name, origin in (
        ("owner", "st-anna", "log.example"),
        ("clinic", "st-bruno", "log.example"),
        ("clinic", "st-anna", "other.example"),
    ):
        with pytest.raises(UsageError, match="belongs to the clinic"):
            Identity.create(identity.folder, role, name, "http://server", origin)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        Identity.create(tmp_path / "bad", "clinic", " name ", "http://server", "log.example")
    assert list((tmp_path / "bad").iterdir()) == []


def test_damaged_identity_files_are_refused(identity: Identity) -> None:
    path = identity.folder / "identity.json"
    good = path.read_bytes()
    for bad in (b"", b"{}", good + b"\n", good.replace(b"clinic", b"server")):
        path.write_bytes(bad)
        with pytest.raises(DecodeError):
            Identity.load(identity.folder)
    path.unlink()
    with pytest.raises(UsageError, match="cannot read"):
        Identity.load(identity.folder)
    with pytest.raises(UsageError, match="not registered"):
        Identity(
            identity.folder, "clinic", "x", "http://server", "log.example", None, Ed25519PrivateKey.generate()
        ).sign(None)  # type: ignore[arg-type]


@pytest.mark.parametrize("role", ["clinic", "consumer"])
def test_a_mailbox_is_private_registered_and_found_again(tmp_path: Path, role: Role) -> None:
    made = Identity.create(tmp_path / "id", role, "somebody", "http://server", "log.example")
    assert made.mailbox is not None
    public, secret = made.mailbox.public_key().public_bytes_raw(), made.mailbox.private_bytes_raw()
    party = decode_entry(made.party_entry()).body
    assert isinstance(party, Party)
    assert (party.role, party.mailbox) == (role, public)
    path = made.folder / "mailbox.key"
    assert path.read_bytes() == secret
    assert path.stat().st_mode & 0o777 == 0o600
    for found in (
        Identity.load(made.folder),
        Identity.create(made.folder, role, "somebody", "http://server", "log.example"),
        made.registered(Reference(7, bytes(32))),
    ):
        assert found.mailbox is not None
        assert found.mailbox.private_bytes_raw() == secret
        assert found.party_entry() == made.party_entry()
    assert secret.hex() not in repr(made)
    assert public.hex() not in repr(made)


def test_an_owner_has_no_mailbox(tmp_path: Path) -> None:
    made = Identity.create(tmp_path / "id", "owner", "lab", "http://server", "log.example")
    assert made.mailbox is None
    assert not (made.folder / "mailbox.key").exists()
    assert b"mailbox" not in made.party_entry()


def test_an_identity_of_an_older_release_keeps_its_party_entry(identity: Identity) -> None:
    stored = json.loads((identity.folder / "identity.json").read_bytes())
    del stored["mailbox"]
    (identity.folder / "identity.json").write_bytes(rfc8785.dumps(stored))
    (identity.folder / "mailbox.key").unlink()
    before = sign_entry(
        Party("clinic", "st-anna", identity.private_key.public_key().public_bytes_raw()), None, identity.private_key
    )
    for found in (
        Identity.load(identity.folder),
        Identity.create(identity.folder, "clinic", "st-anna", "http://server", "log.example"),
        Identity.load(identity.folder).registered(Reference(7, bytes(32))),
    ):
        assert found.mailbox is None
        assert found.party_entry() == before
    assert not (identity.folder / "mailbox.key").exists()


def test_a_mailbox_key_that_was_lost_or_exchanged_is_noticed(identity: Identity) -> None:
    path = identity.folder / "mailbox.key"
    good = path.read_bytes()
    for bad, error, match in (
        (good[:31], DecodeError, "31 bytes instead of 32"),
        (good + b"\n", DecodeError, "more than 32 bytes"),
        (bytes(range(32)), UsageError, "not the mailbox key that 'st-anna' has registered"),
    ):
        path.write_bytes(bad)
        with pytest.raises(error, match=match):
            Identity.load(identity.folder)
    path.write_bytes(good)
    path.chmod(0o640)
    with pytest.raises(UsageError, match="accessible to others"):
        Identity.load(identity.folder)
    path.unlink()
    with pytest.raises(UsageError, match="cannot read the mailbox key"):
        Identity.load(identity.folder)


def test_an_identity_that_was_interrupted_keeps_the_keys_it_has(tmp_path: Path) -> None:
    made = Identity.create(tmp_path / "id", "consumer", "insurer", "http://server", "log.example")
    (made.folder / "identity.json").unlink()
    again = Identity.create(tmp_path / "id", "consumer", "insurer", "http://server", "log.example")
    assert again.party_entry() == made.party_entry()


# -- lists of parties and requests ------------------------------------------------------------------------------------

PARTY = {"index": 1, "leaf": "9f3c" * 16, "role": "clinic", "name": "st-anna", "mailbox": True}
GRANT = {"index": 9, "until": "2026-08-01T00:00:00Z", "revoked": False, "disclosures": [11, 12]}
REQUEST = {
    "index": 8,
    "leaf": "9f3c" * 16,
    "clinic": 1,
    "consumer": 3,
    "state": "granted",
    "grants": [GRANT],
    "refusal": None,
}


def paged(rows: list[dict[str, Any]], asked: list[str]) -> Handler:
    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url.copy_with(scheme="http", host="x")).removeprefix("http://x"))
        start, limit = (int(request.url.params[name]) for name in ("start", "limit"))
        return httpx.Response(200, json=[row for row in rows if row["index"] >= start][:limit])

    return handler


def test_lists_are_read_page_by_page() -> None:
    asked: list[str] = []
    rows = [{**REQUEST, "index": 2 * i} for i in range(600)]
    found = answering(paged(rows, asked)).requests_of(3)
    assert [row.index for row in found] == [row["index"] for row in rows]
    assert asked == [f"/v1/parties/3/requests?start={start}&limit=256" for start in (0, 511, 1023)]
    assert found[0].grants[0].disclosures == (11, 12)
    assert [row.index for row in answering(paged(rows, asked)).requests_of(3, 1190)] == list(range(1190, 1200, 2))
    asked.clear()
    (party,) = answering(paged([PARTY], asked)).parties("st anna & co")
    assert (party.name, party.role, party.mailbox) == ("st-anna", "clinic", True)
    assert asked == ["/v1/parties?start=0&limit=256&name=st+anna+%26+co"]


@pytest.mark.parametrize(
    "rows",
    [
        [REQUEST, REQUEST],
        [{**REQUEST, "index": 9}, REQUEST],
        [{**REQUEST, "state": "perhaps"}],
        [{**REQUEST, "grants": [{**GRANT, "until": "tomorrow"}]}],
        [{**REQUEST, "grants": [{**GRANT, "revoked": None}]}],
        [{**REQUEST, "refusal": {"index": -1, "reason": "declined"}}],
        [{**REQUEST, "leaf": "9f3c"}],
        {"rows": []},
    ],
    ids=["twice", "order", "state", "until", "revoked", "refusal", "leaf", "shape"],
)
def test_a_list_that_is_none_is_refused(rows: Any) -> None:
    with pytest.raises(DecodeError, match="answer of the server to /v1/parties/3/requests"):
        answering(constant(json.dumps(rows).encode())).requests_of(3)


def test_a_server_that_tells_the_same_page_for_ever_is_refused() -> None:
    page = json.dumps([{**PARTY, "index": i} for i in range(256)]).encode()
    with pytest.raises(DecodeError, match="out of order"):
        answering(constant(page)).parties()


OFFER = {
    "job": "ab" * 16,
    "role": "A",
    "records": 4,
    "model": 2,
    "nonce": "00ff" * 16,
    "clinic": 1,
    "owner": 3,
    "peer_address": "owner.example:7100",
    "checkpoint": "log.example\n5\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n",
}


def test_offers_are_decoded_strictly(identity: Identity) -> None:
    bodies: list[bytes] = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(request.content)
        return httpx.Response(200, json={"offers": [OFFER, {**OFFER, "role": "B", "peer_address": None}]})

    first, second = answering(handler, identity).offers(None, "dealer.example:7300", b"\xab" * 32, 20)
    assert json.loads(bodies[0]) == {
        "address": None,
        "dealer_address": "dealer.example:7300",
        "dealer_key": "ab" * 32,
        "wait": 20,
    }
    assert (first.nonce, first.checkpoint) == (bytes.fromhex("00ff" * 16), OFFER["checkpoint"].encode())
    assert (second.role, second.peer_address) == ("B", None)
    for changes in (
        {"job": "../" + "ab" * 15},
        {"job": "AB" * 16},
        {"records": -1},
        {"records": "4"},
        {"model": 2.0},
        {"nonce": "00ff"},
        {"clinic": None},
        {"peer_address": "x" * 301},
        {"checkpoint": 5},
        {"checkpoint": "x" * (1 << 17)},
    ):
        server = answering(constant(json.dumps({"offers": [{**OFFER, **changes}]}).encode()), identity)
        with pytest.raises(DecodeError, match="answer of the server to /v1/mpc/offers"):
            server.offers(None, "dealer.example:7300", bytes(32), 0)
    with pytest.raises(UsageError, match="waits 0 to 30 seconds"):
        answering(handler, identity).offers(None, "dealer.example:7300", bytes(32), 31)


def test_results_and_failures_are_reported_signed_and_again(identity: Identity) -> None:
    seen: list[tuple[str, Any]] = []

    def handler(request: httpx.Request) -> httpx.Response:
        digest = hashlib.sha256(request.content).digest()
        signed = parse_signed_request(request.headers)
        public = identity.private_key.public_key().public_bytes_raw()
        verify_request(signed, request.method, request.url.path, digest, public, parse_timestamp(signed.time))
        seen.append((f"{request.method} {request.url.path}", json.loads(request.content or b"null")))
        return httpx.Response(503 if len(seen) % 2 else 202, content=b"box")

    server, job = answering(handler, identity), "ab" * 16
    server.post_result(job, b"\x01" * 32, [UploadedProof(b"\x02" * 32, 85_000, b"\x03" * 32)], b"sealed")
    server.post_failure(job, "mpc.stalled", "nothing was heard for 120 s")
    assert server.sealed(job) == b"box"
    result = {
        "session": "01" * 32,
        "proofs": [{"digest": "02" * 32, "size": 85_000, "answers": "03" * 32}],
        "sealed": base64.b64encode(b"sealed").decode(),
    }
    failure = {"check": "mpc.stalled", "message": "nothing was heard for 120 s"}
    assert seen == [
        *[(f"POST /v1/mpc/jobs/{job}/result", result)] * 2,
        *[(f"POST /v1/mpc/jobs/{job}/failure", failure)] * 2,
        *[(f"GET /v1/mpc/jobs/{job}/sealed", None)] * 2,
    ]
    with pytest.raises(DecodeError, match="more than 1048576 bytes"):
        answering(constant(bytes((1 << 20) + 1)), identity).sealed(job)
    with pytest.raises(UsageError, match="must be signed"):
        answering(handler).sealed(job)
