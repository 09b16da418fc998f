"""A link lets the two keys that belong together through, and nobody and nothing else."""

from __future__ import annotations

import os
import pickle
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from api.mpc import handshake, link
from api.mpc.link import Address, LinkChannel, Listener, connect, parse_address
from privacy.errors import SessionBroken, UsageError

HOST = "127.0.0.1"
ANY = Address(HOST, 0)
CLINIC, OWNER, STRANGER = (Ed25519PrivateKey.generate() for _ in range(3))


def key_of(private_key: Ed25519PrivateKey) -> bytes:
    return private_key.public_key().public_bytes_raw()


def in_background(action: Callable[..., Any], *args: Any, **options: Any) -> Future[Any]:
    """The future of a call in a thread of its own, which must end before the test does."""
    executor = ThreadPoolExecutor(1)
    future = executor.submit(action, *args, **options)
    executor.shutdown(wait=False)
    return future


@pytest.fixture
def listener() -> Iterator[Listener]:
    with Listener(ANY, OWNER, hold=0.5, stall_timeout=10) as found:
        yield found


@contextmanager
def linked(listener: Listener) -> Iterator[tuple[LinkChannel, LinkChannel]]:
    """Both ends of a link: that of the clinic, and that of the owner, who listens."""
    accepted = in_background(listener.accept, key_of(CLINIC), 10)
    with (
        connect(HOST, listener.port, CLINIC, key_of(OWNER), stall_timeout=10) as clinic,
        accepted.result() as owner,
    ):
        yield clinic, owner


def still_lets_the_clinic_in(listener: Listener) -> None:
    with linked(listener) as (clinic, owner):
        clinic.send("hello", b"x")
        assert owner.receive("hello", 1) == b"x"


# -- what works -------------------------------------------------------------------------------------------------------


def test_both_sides_know_the_key_of_the_other(listener: Listener) -> None:
    with linked(listener) as (clinic, owner):
        assert clinic.peer_key == key_of(OWNER)
        assert owner.peer_key == key_of(CLINIC)


def test_frames_of_20_megabytes_arrive_unchanged_in_both_directions(listener: Listener) -> None:
    data = bytes(range(256)) * (20 * 2**20 // 256)
    with linked(listener) as (clinic, owner):
        received = in_background(owner.receive, "there", len(data))
        clinic.send("there", data)
        assert received.result() == data
        received = in_background(clinic.receive, "back", len(data))
        owner.send("back", data)
        assert received.result() == data
        assert clinic.sent_bytes == owner.received_bytes == len(data) + 6 + len("there")
        assert clinic.received_bytes == owner.sent_bytes == len(data) + 6 + len("back")


def test_two_sides_that_both_write_first_do_not_wait_for_each_other(listener: Listener) -> None:
    data = bytes(20 * 2**20)

    def exchange(channel: LinkChannel) -> bytes:
        channel.send("open", data)
        return channel.receive("open", len(data))

    with linked(listener) as (clinic, owner):
        exchanged = in_background(exchange, owner)
        assert exchange(clinic) == data
        assert exchanged.result() == data


def test_what_is_read_ahead_is_bounded(listener: Listener) -> None:
    with linked(listener) as (clinic, owner):
        clinic.timeout = 0.3
        clinic._read_ahead = owner._read_ahead = 1 << 18
        sent = in_background(owner.send, "flood", bytes(1 << 24))
        with pytest.raises(SessionBroken, match=r"mpc\.stalled.*took nothing for 0.3 s"):
            clinic.send("flood", bytes(1 << 24))
        assert len(clinic._ahead) < (1 << 18) + (1 << 16)
        owner.interrupt()
        with pytest.raises(SessionBroken, match=r"mpc\.gone"):
            sent.result()


def test_small_frames_are_sent_at_once(listener: Listener) -> None:
    with linked(listener) as (clinic, owner):
        for channel in (clinic, owner):
            assert channel._connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_tls_is_1_3_without_tickets(listener: Listener) -> None:
    with linked(listener) as (clinic, owner):
        owner.send("x", b"y")  # tickets would come before it
        assert clinic.receive("x", 1) == b"y"
        assert clinic._connection.version() == owner._connection.version() == "TLSv1.3"
        assert clinic._connection.session is None or not clinic._connection.session.has_ticket


def test_two_threads_may_wait_for_different_keys(listener: Listener) -> None:
    for_stranger = in_background(listener.accept, lambda key: key == key_of(STRANGER), 10)
    with linked(listener) as (clinic, _):
        assert not for_stranger.done()
        with connect(HOST, listener.port, STRANGER, key_of(OWNER)) as stranger, for_stranger.result() as accepted:
            assert accepted.peer_key == key_of(STRANGER)
            assert stranger.peer_key == clinic.peer_key


def test_whoever_comes_before_he_is_expected_is_held(listener: Listener) -> None:
    connected = in_background(connect, HOST, listener.port, CLINIC, key_of(OWNER), 5)
    time.sleep(0.2)
    with listener.accept(key_of(CLINIC), 5) as owner, connected.result() as clinic:
        owner.send("x", b"y")
        assert clinic.receive("x", 1) == b"y"


def test_whoever_was_held_and_has_gone_is_not_handed_out() -> None:
    with Listener(ANY, OWNER, hold=5) as listener:
        with pytest.raises(SessionBroken, match=r"mpc\.stalled.*did not take up the connection within 0.3 s"):
            connect(HOST, listener.port, CLINIC, key_of(OWNER), 0.3)
        time.sleep(0.1)
        still_lets_the_clinic_in(listener)


def test_nothing_touches_the_disk(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    load = ssl.SSLContext.load_cert_chain

    def spy(self: ssl.SSLContext, certfile: str, *rest: Any) -> None:
        opened.append(certfile)
        load(self, certfile, *rest)

    monkeypatch.setattr(ssl.SSLContext, "load_cert_chain", spy)
    still_lets_the_clinic_in(listener)
    assert len(opened) == 2
    assert all(name.startswith("/proc/self/fd/") for name in opened)


def test_the_certificate_of_a_key_is_always_the_same_and_cannot_issue_others() -> None:
    certificate = handshake.certificate_of(CLINIC)
    assert certificate == handshake.certificate_of(CLINIC)
    parsed = x509.load_der_x509_certificate(certificate)
    parsed.verify_directly_issued_by(parsed)
    assert parsed.not_valid_after_utc.year == 9999
    assert not parsed.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert len(certificate) <= handshake.MAX_CERTIFICATE


# -- keys -------------------------------------------------------------------------------------------------------------


def test_a_client_refuses_another_key_than_the_pinned_and_names_both(listener: Listener) -> None:
    with pytest.raises(SessionBroken) as caught:
        connect(HOST, listener.port, CLINIC, key_of(STRANGER))
    assert caught.value.check == "mpc.peer-key"
    assert key_of(STRANGER).hex() in caught.value.detail
    assert key_of(OWNER).hex() in caught.value.detail
    with pytest.raises(SessionBroken, match=r"mpc\.unreachable"):
        listener.accept(lambda key: True, 0.3)


def test_a_server_refuses_a_key_it_does_not_expect_and_says_so(listener: Listener) -> None:
    connected = in_background(connect, HOST, listener.port, STRANGER, key_of(OWNER))
    with pytest.raises(SessionBroken) as caught:
        listener.accept(key_of(CLINIC), 0.4)
    assert caught.value.check == "mpc.peer-key"
    assert key_of(STRANGER).hex() in caught.value.detail
    assert key_of(CLINIC).hex() in caught.value.detail
    with pytest.raises(SessionBroken, match=r"mpc\.aborted.*" + key_of(STRANGER).hex() + " is not expected here"):
        connected.result()
    still_lets_the_clinic_in(listener)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_pinned_key_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match="32 bytes"):
        connect(HOST, 1, CLINIC, bytes(size))


def test_a_man_in_the_middle_with_his_own_certificate_is_refused(listener: Listener) -> None:
    """He ends TLS on either side under his own key; the owner would even let him in."""
    with Listener(ANY, STRANGER, hold=5) as middle:
        with pytest.raises(SessionBroken) as caught:
            connect(HOST, middle.port, CLINIC, key_of(OWNER))
        assert caught.value.check == "mpc.peer-key"
        with pytest.raises(SessionBroken, match=r"mpc\.peer-key|mpc\.unreachable"):
            middle.accept(lambda key: False, 0.1)


def exchange_preamble(port: int, certificate: bytes) -> tuple[socket.socket, bytes]:
    plain = socket.create_connection((HOST, port), 5)
    plain.sendall(handshake.MAGIC + len(certificate).to_bytes(2, "little") + certificate)
    return plain, handshake.read_preamble(plain, time.monotonic() + 5, "the owner")


def context_with(certificate: bytes, private_key: Any) -> ssl.SSLContext:
    """A client that asks nothing of the server and shows this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    pem = ssl.DER_cert_to_PEM_cert(certificate).encode() + private_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    descriptor = os.memfd_create("test")
    try:
        os.write(descriptor, pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


def refused(connection: ssl.SSLSocket) -> bool:
    """Whether the other side ends a connection on which we say that we are ready."""
    try:
        connection.sendall(b"\0\x0alink/ready\0\0\0\0")
        return connection.recv(1) == b""
    except OSError:
        return True


def test_the_certificate_of_another_announced_and_an_own_one_proved_is_refused(listener: Listener) -> None:
    """The clinic's certificate is public; without its key it opens nothing."""
    accepted = in_background(listener.accept, lambda key: True, 1)
    plain, _ = exchange_preamble(listener.port, handshake.certificate_of(CLINIC))
    context = context_with(handshake.certificate_of(STRANGER), STRANGER)
    with plain, context.wrap_socket(plain) as tls:
        assert refused(tls)
    with pytest.raises(SessionBroken, match=r"mpc\.unreachable"):
        accepted.result()


def test_a_certificate_issued_under_the_announced_one_is_refused(listener: Listener) -> None:
    """The stranger announces an authority of his own, and proves a certificate that it issued."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sealproof node")])
    issued = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issued")])
    past, future = datetime(2020, 1, 1), datetime(2090, 1, 1)

    def certificate(subject: x509.Name, key: Ed25519PrivateKey, ca: bool) -> bytes:
        builder = x509.CertificateBuilder(name, subject, key.public_key(), 7, past, future)
        constraints = x509.BasicConstraints(ca=ca, path_length=None)
        return builder.add_extension(constraints, critical=True).sign(STRANGER, None).public_bytes(Encoding.DER)

    accepted = in_background(listener.accept, lambda key: True, 1)
    plain, _ = exchange_preamble(listener.port, certificate(name, STRANGER, True))
    with plain, context_with(certificate(issued, CLINIC, False), CLINIC).wrap_socket(plain) as tls:
        assert refused(tls)
    with pytest.raises(SessionBroken, match=r"mpc\.unreachable"):
        accepted.result()


def test_a_client_without_a_certificate_is_refused(listener: Listener) -> None:
    accepted = in_background(listener.accept, lambda key: True, 1)
    plain, _ = exchange_preamble(listener.port, handshake.certificate_of(CLINIC))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with plain, context.wrap_socket(plain) as tls:
        assert refused(tls)
    with pytest.raises(SessionBroken, match=r"mpc\.unreachable"):
        accepted.result()


def test_a_key_that_is_not_ed25519_is_refused(listener: Listener) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sealproof node")])
    past, future = datetime(2020, 1, 1), datetime(2090, 1, 1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, past, future)
    certificate = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    accepted = in_background(listener.accept, lambda key: True, 1)
    plain, _ = exchange_preamble(listener.port, certificate)
    with plain, context_with(certificate, key).wrap_socket(plain) as tls:
        assert refused(tls)
    with pytest.raises(SessionBroken, match=r"mpc\.unreachable"):
        accepted.result()


def test_tls_1_2_is_refused(listener: Listener) -> None:
    plain, _ = exchange_preamble(listener.port, handshake.certificate_of(CLINIC))
    context = context_with(handshake.certificate_of(CLINIC), CLINIC)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with plain, pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        context.wrap_socket(plain)
    still_lets_the_clinic_in(listener)


def test_a_server_that_speaks_tls_1_2_only_is_refused() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_server(ANY) as server:
        connected = in_background(connect, HOST, server.getsockname()[1], CLINIC, key_of(OWNER), 5)
        plain, _ = server.accept()
        certificate = handshake.certificate_of(OWNER)
        plain.sendall(handshake.MAGIC + len(certificate).to_bytes(2, "little") + certificate)
        handshake.read_preamble(plain, time.monotonic() + 5, "the clinic")
        with plain, pytest.raises(ssl.SSLError):
            context.wrap_socket(plain, server_side=True)
        with pytest.raises(SessionBroken, match=r"mpc\.handshake"):
            connected.result()


# -- hostile and slow clients -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01" + bytes(100),
        handshake.MAGIC + b"\xff\xff",
        handshake.MAGIC + b"\x00\x00",
        handshake.MAGIC + b"\x01\x04" + bytes(1025),
        handshake.MAGIC + b"\x10\x00" + bytes(16),
        handshake.MAGIC + b"\x2c\x01" + b"\x30\x82" * 150,
        handshake.MAGIC.replace(b"v1", b"v2") + bytes(100),
    ],
    ids=["http", "bare-tls", "oversized", "empty", "just-too-large", "zeros", "not-a-certificate", "another-version"],
)
def test_garbage_instead_of_a_preamble_is_dropped_at_once_and_others_get_in(listener: Listener, sent: bytes) -> None:
    begin = time.monotonic()
    with socket.create_connection((HOST, listener.port), 5) as plain:
        try:
            plain.sendall(sent)
            while plain.recv(4096):
                pass
        except ConnectionError:
            pass
    assert time.monotonic() - begin < link._HANDSHAKE_SECONDS - 1
    still_lets_the_clinic_in(listener)


@pytest.mark.parametrize("length", [0, 5, 19, 40])
def test_a_truncated_preamble_is_dropped_and_others_get_in(listener: Listener, length: int) -> None:
    certificate = handshake.certificate_of(CLINIC)
    sent = handshake.MAGIC + len(certificate).to_bytes(2, "little") + certificate
    with socket.create_connection((HOST, listener.port), 5) as plain:
        plain.sendall(sent[:length])
        plain.shutdown(socket.SHUT_WR)
        while plain.recv(4096):
            pass
    still_lets_the_clinic_in(listener)


def test_clients_that_say_nothing_are_dropped_and_keep_nobody_out(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_HANDSHAKE_SECONDS", 0.5)
    silent = [socket.create_connection((HOST, listener.port), 5) for _ in range(10)]
    still_lets_the_clinic_in(listener)
    time.sleep(0.6)
    for plain in silent:
        with plain:
            while plain.recv(4096):  # our preamble, then the end
                pass
    assert not listener._guests


def test_with_too_many_connections_the_oldest_goes(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "_MAX_GUESTS", 4)
    silent = [socket.create_connection((HOST, listener.port), 5) for _ in range(20)]
    still_lets_the_clinic_in(listener)
    for plain in silent:
        plain.close()


def test_a_client_that_hands_over_its_preamble_byte_by_byte_has_5_seconds_in_all(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "_HANDSHAKE_SECONDS", 0.4)
    begin = time.monotonic()
    with socket.create_connection((HOST, listener.port), 5) as plain, pytest.raises(ConnectionError):
        for byte in handshake.MAGIC * 20:
            plain.sendall(bytes([byte]))
            time.sleep(0.05)
    assert time.monotonic() - begin < 2


def test_a_server_that_says_nothing_is_given_up() -> None:
    with (
        socket.create_server(ANY) as server,
        pytest.raises(SessionBroken, match=r"mpc\.stalled.*did not finish its handshake"),
    ):
        connect(HOST, server.getsockname()[1], CLINIC, key_of(OWNER), 0.3)


def test_nobody_there_is_unreachable() -> None:
    with socket.create_server(ANY) as server:
        port = server.getsockname()[1]
    with pytest.raises(SessionBroken, match=r"mpc\.unreachable: 127\.0\.0\.1:\d+: Connection refused"):
        connect(HOST, port, CLINIC, key_of(OWNER))


def test_an_address_in_use_is_refused(listener: Listener) -> None:
    with pytest.raises(UsageError, match="cannot listen at"):
        Listener(Address(HOST, listener.port), OWNER)


def test_a_closed_listener_ends_those_who_wait() -> None:
    listener = Listener(ANY, OWNER)
    waiting = in_background(listener.accept, lambda key: True, 10)
    plain = socket.create_connection((HOST, listener.port), 5)
    time.sleep(0.1)
    listener.close()
    with pytest.raises(SessionBroken, match=r"mpc\.gone"):
        waiting.result(5)
    with plain:
        while plain.recv(4096):
            pass


# -- a link that breaks -----------------------------------------------------------------------------------------------


def test_the_reason_of_an_abort_arrives(listener: Listener) -> None:
    with linked(listener) as (clinic, owner):
        owner.abort("the proof does not hold\nat all \udcff")
        owner.close()
        with pytest.raises(SessionBroken) as caught:
            clinic.receive("shares", 100)
        assert caught.value.check == "mpc.aborted"
        assert "the proof does not hold?at all ?" in caught.value.detail
        with pytest.raises(SessionBroken, match=r"mpc\.gone"):
            clinic.receive("shares", 100)


def test_the_reason_of_an_abort_arrives_at_a_side_that_is_writing(listener: Listener) -> None:
    with linked(listener) as (clinic, owner):
        owner.send("before", b"not read by the clinic")
        sent = in_background(clinic.send, "shares", bytes(30 * 2**20))
        time.sleep(0.2)
        owner.abort("disk full")
        owner.close()
        with pytest.raises(SessionBroken, match=r"mpc\.aborted.*disk full"):
            sent.result()


def test_a_peer_that_sends_without_end_does_not_keep_a_link_from_closing(listener: Listener) -> None:
    with linked(listener) as (clinic, owner):
        owner.abort("enough")
        sent = in_background(clinic.send, "flood", bytes(1 << 27))
        begin = time.monotonic()
        owner.close(linger=0.05)
        assert time.monotonic() - begin < 1
        with pytest.raises(SessionBroken):
            sent.result()


def test_an_abort_never_raises(listener: Listener) -> None:
    with linked(listener) as (clinic, owner):
        clinic.close()
        clinic.abort("closed already")
        time.sleep(0.1)
        owner.abort("to nobody")
        owner.abort("again")
        with pytest.raises(SessionBroken, match=r"mpc\.gone"):
            owner.send("after", b"")


def test_the_end_of_the_stream_in_the_midst_of_a_frame_is_told(listener: Listener) -> None:
    with linked(listener) as (clinic, owner):
        owner._write(b"\0\x06shares" + (100).to_bytes(4, "little") + bytes(99))
        owner.close()
        with pytest.raises(SessionBroken, match=r"mpc\.gone.*'shares' was due"):
            clinic.receive("shares", 100)


def test_a_peer_that_stalls_is_given_up_with_the_seconds_and_the_label(listener: Listener) -> None:
    with linked(listener) as (clinic, owner):
        clinic.timeout = 0.3
        owner._write(b"\0\x06shares")
        begin = time.monotonic()
        with pytest.raises(SessionBroken, match=r"mpc\.stalled.*sent nothing for 0\.3 s.*'shares' was due"):
            clinic.receive("shares", 100)
        assert 0.25 < time.monotonic() - begin < 2
        clinic.abort("you stalled")  # what may still be sent arrives
        with pytest.raises(SessionBroken, match=r"mpc\.aborted.*you stalled"):
            owner.receive("anything", 1)


def test_a_frame_that_trickles_in_has_a_deadline(listener: Listener) -> None:
    stop = threading.Event()

    def trickle(owner: LinkChannel) -> None:
        owner._write(b"\0\x06shares" + (100).to_bytes(4, "little"))
        while not stop.wait(0.1):
            owner._write(b"x")

    with linked(listener) as (clinic, owner):
        clinic.timeout = 0.5
        trickling = in_background(trickle, owner)
        with pytest.raises(SessionBroken, match=r"mpc\.stalled"):
            clinic.receive("shares", 100)
        stop.set()
        trickling.result()


def test_a_frame_of_another_label_or_size_ends_the_link(listener: Listener) -> None:
    for label, size in (("other", 3), ("shares", 4)):
        with linked(listener) as (clinic, owner):
            owner.send("shares", b"abc")
            with pytest.raises(SessionBroken, match=r"mpc\.frame"):
                clinic.receive(label, size)
            with pytest.raises(SessionBroken, match=r"mpc\.gone"):
                clinic.receive(label, size)


def test_a_thread_that_waits_can_be_interrupted_and_still_say_why(listener: Listener) -> None:
    with linked(listener) as (clinic, owner):
        waiting = in_background(clinic.receive, "shares", 1)
        time.sleep(0.1)
        clinic.interrupt()
        with pytest.raises(SessionBroken, match=r"mpc\.gone.*this node is stopping"):
            waiting.result(5)
        clinic.abort("stopped by its operator")
        with pytest.raises(SessionBroken, match=r"mpc\.aborted.*stopped by its operator"):
            owner.receive("shares", 1)


@contextmanager
def relay(port: int, alter: Callable[[int, bytes], bytes]) -> Iterator[int]:
    """The port of one that passes everything on, and alters what the client sends (offset, bytes)."""
    with socket.create_server(ANY) as server:

        def run() -> None:
            left, _ = server.accept()
            with left, socket.create_connection((HOST, port)) as right:
                offset = 0
                while True:
                    ready, _, _ = select.select([left, right], [], [], 10)
                    for source in ready:
                        data = source.recv(65536)
                        if not data:
                            return
                        if source is left:
                            data, offset = alter(offset, data), offset + len(data)
                            right.sendall(data)
                        else:
                            left.sendall(data)

        running = in_background(run)
        yield server.getsockname()[1]
        running.result(10)


def test_a_bit_that_is_changed_on_the_way_ends_the_link(listener: Listener) -> None:
    spoil = threading.Event()

    def alter(offset: int, data: bytes) -> bytes:
        return data[:-1] + bytes([data[-1] ^ 1]) if spoil.is_set() else data

    with relay(listener.port, alter) as port:
        accepted = in_background(listener.accept, key_of(CLINIC), 10)
        with connect(HOST, port, CLINIC, key_of(OWNER), stall_timeout=10) as clinic, accepted.result() as owner:
            clinic.send("x", b"1")
            assert owner.receive("x", 1) == b"1"
            spoil.set()
            clinic.send("x", b"1")
            with pytest.raises(SessionBroken, match=r"mpc\.gone.*BAD_RECORD_MAC"):
                owner.receive("x", 1)


def test_nothing_that_is_sent_is_seen_on_the_way(listener: Listener) -> None:
    seen = bytearray()

    def alter(offset: int, data: bytes) -> bytes:
        seen.extend(data)
        return data

    with relay(listener.port, alter) as port:
        accepted = in_background(listener.accept, key_of(CLINIC), 10)
        with connect(HOST, port, CLINIC, key_of(OWNER)) as clinic, accepted.result() as owner:
            clinic.send("label-of-a-frame", b"secret" * 10)
            assert owner.receive("label-of-a-frame", 60) == b"secret" * 10
    assert b"secret" not in seen
    assert b"label-of-a-frame" not in seen


def test_a_link_is_not_pickled(listener: Listener) -> None:
    with linked(listener) as (clinic, _), pytest.raises(UsageError, match="not pickled"):
        pickle.dumps(clinic)


# -- addresses --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:4433", ("127.0.0.1", 4433)),
        ("node.clinic-1.example:65535", ("node.clinic-1.example", 65535)),
        ("[::1]:80", ("::1", 80)),
    ],
)
def test_addresses_are_parsed_and_written(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":80", "host:65536", "host:-1", "::1:80", "a b:80", "http://host:80", "host:80\n"]
)
def test_what_is_not_an_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not an address"):
        parse_address(text)


def test_errors_that_others_left_in_openssl_do_not_break_a_handshake() -> None:
    """petlib and the ssl module share OpenSSL's list of errors: an old one was taken for one of the certificate."""
    curves = pytest.importorskip("petlib.ec")
    own = handshake.certificate_of(OWNER)
    with pytest.raises(Exception, match="EC exception"):
        curves.EcPt.from_binary(b"\x02" + b"\xff" * 32, curves.EcGroup(713))
    assert handshake._context(OWNER, own, own, server=False).verify_mode is ssl.CERT_REQUIRED
