"""The handshake of a link: preambles, then TLS 1.3 with the other side's certificate as the only trust anchor.

A node proves its long-term key, the one that the ledger knows its party by, with a self-signed certificate made in
memory. A TLS server must know which certificate to ask a client for before the handshake, so both sides first send
theirs in the clear,

    preamble   "sealproof/link/v1\\n" || u16le length || certificate (DER)

then shake hands with that certificate as their only trust anchor. Whoever exchanges a preamble on the way can only make
himself the peer that TLS authenticates: what is returned is the key that was proved, to be compared with the one that
was expected (`api.mpc.link`). Signatures of TLS 1.3 begin with 64 blanks and those under certificates with a DER tag,
so neither can be taken for a signed request or entry under the same key. There are no session tickets: every connection
proves both keys afresh.
"""

from __future__ import annotations

import os
import socket
import ssl
import time
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from privacy.errors import SessionBroken

__all__ = ["MAGIC", "MAX_CERTIFICATE", "certificate_of", "read_preamble", "secured"]

MAGIC: Final = b"sealproof/link/v1\n"
MAX_CERTIFICATE: Final = 1024
"""Bytes of a certificate in a preamble, at most; those that are made here have about 300."""


def secured(
    plain: socket.socket, private_key: Ed25519PrivateKey, deadline: float, who: str, *, server: bool
) -> tuple[ssl.SSLSocket, bytes]:
    """`plain`, which is used up, as TLS, and the key that the other side has proved. Raises SessionBroken."""
    current: socket.socket = plain
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        certificate = certificate_of(private_key)
        _patience(plain, deadline)
        plain.sendall(MAGIC + len(certificate).to_bytes(2, "little") + certificate)
        theirs = read_preamble(plain, deadline, who)
        context = _context(private_key, certificate, theirs, server=server)
        _patience(plain, deadline)
        tls = context.wrap_socket(plain, server_side=server, do_handshake_on_connect=False)
        current = tls
        tls.do_handshake()
        proved = tls.getpeercert(binary_form=True)
        if proved != theirs:
            raise SessionBroken("mpc.handshake", f"{who} proved another certificate than it announced")
        return tls, _key_of(proved, who)
    except TimeoutError:
        current.close()
        raise SessionBroken("mpc.stalled", f"{who} did not finish its handshake in time") from None
    except (ssl.SSLError, ValueError) as error:
        current.close()
        reason = getattr(error, "reason", None) or str(error)
        raise SessionBroken("mpc.handshake", f"no TLS connection with {who}: {reason}") from error
    except OSError as error:
        current.close()
        raise SessionBroken("mpc.gone", f"{who} broke off its handshake: {error.strerror or error}") from error
    except BaseException:
        current.close()
        raise


def read_preamble(plain: socket.socket, deadline: float, who: str) -> bytes:
    """The certificate in the other side's preamble, as yet nothing but bytes. Raises SessionBroken, OSError."""
    if _read_plain(plain, len(MAGIC), deadline) != MAGIC:
        raise SessionBroken("mpc.handshake", f"{who} does not speak {MAGIC.decode().strip()}")
    size = int.from_bytes(_read_plain(plain, 2, deadline), "little")
    if not 1 <= size <= MAX_CERTIFICATE:
        raise SessionBroken("mpc.handshake", f"{who} announced a certificate of {size} bytes")
    return _read_plain(plain, size, deadline)


def _read_plain(plain: socket.socket, size: int, deadline: float) -> bytes:
    """Exactly `size` bytes: what comes after them belongs to TLS. Raises OSError."""
    data = b""
    while len(data) < size:
        _patience(plain, deadline)
        part = plain.recv(size - len(data))
        if not part:
            raise ConnectionResetError("the connection was closed")
        data += part
    return data


def _patience(plain: socket.socket, deadline: float) -> None:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError
    plain.settimeout(remaining)


def _context(private_key: Ed25519PrivateKey, certificate: bytes, anchor: bytes, *, server: bool) -> ssl.SSLContext:
    """TLS 1.3 under our key, with a peer that must have the certificate `anchor`. Raises SSLError, ValueError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # there are no names: the key is what is compared
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(cadata=anchor)
    except ssl.SSLError:
        # It reports the oldest error that OpenSSL has noted in this thread, which other users of the library leave
        # behind (petlib does). Reporting clears them: what is wrong with the certificate is wrong again.
        context.load_verify_locations(cadata=anchor)
    if server:
        context.num_tickets = 0
    pem = ssl.DER_cert_to_PEM_cert(certificate).encode("ascii") + private_key.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    # The ssl module reads keys from files only; this one is memory without a name, closed before we return.
    descriptor = os.memfd_create("sealproof-link")
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


def certificate_of(private_key: Ed25519PrivateKey) -> bytes:
    """The self-signed certificate of a key, DER. The same bytes every time."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sealproof node")])
    builder = x509.CertificateBuilder(
        issuer_name=name,
        subject_name=name,
        public_key=private_key.public_key(),
        serial_number=1,
        not_valid_before=datetime(2020, 1, 1, tzinfo=UTC),
        not_valid_after=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ).add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    return builder.sign(private_key, None).public_bytes(Encoding.DER)


def _key_of(certificate: bytes, who: str) -> bytes:
    try:
        key = x509.load_der_x509_certificate(certificate).public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise SessionBroken("mpc.handshake", f"the certificate of {who} cannot be read") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SessionBroken("mpc.handshake", f"the key of {who} is not an Ed25519 key")
    return key.public_bytes_raw()
