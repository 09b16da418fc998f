"""The file that a recipient of disclosed answers gets: the prediction's bundle, and what shows the answers.

It carries everything: a recipient checks it with the log's key, its nonce and no server.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from api.client.session import Session, log_errors
from api.consistency import ConsistencyProof
from api.entries import Reference
from ledger import TlogProof
from privacy.bundle import BundleReader, BundleWriter
from privacy.errors import UsageError, VerificationFailed

__all__ = ["write_disclosure_bundle"]

_ATTEMPTS: Final = 5


def write_disclosure_bundle(
    session: Session, source: Path, path: Path, entries: Sequence[Reference], blobs: Sequence[bytes]
) -> None:
    """Write the prediction's bundle `source` with further ledger entries and blobs to `path`, whole or not at all, for
    this user's eyes (mode 0600).

    `source` must carry its inputs, if the recipient is to need no server. The entries are fetched and compared with
    their references, and all that the bundle has are proven under one present checkpoint, which the trusted log signed.

    Raises VerificationFailed(`entry.reference` for a server that shows another entry, `log.*`), UsageError for a log
    that grows too fast, DecodeError, ServerError.
    """
    server = session.server
    with BundleReader(source) as reader:
        contents = {index: reader.entry(index) for index in reader.entry_indices()}
        for wanted in entries:
            contents[wanted.index] = server.entry(wanted.index)
            if Reference.to(wanted.index, contents[wanted.index]) != wanted:
                raise VerificationFailed("entry.reference", f"entry {wanted.index} has another leaf hash")
        with log_errors():
            old = ConsistencyProof.parse(reader.consistency_proof()).old
        proofs, checkpoint = _proofs(session, contents)
        with log_errors():
            size = session.trust.follow(checkpoint, session.identity.origin, server.consistency).size
        with TemporaryDirectory(dir=path.parent, prefix=".disclosure-") as closed:  # which nobody else may enter
            written = Path(closed) / "disclosure.sealproof"
            with BundleWriter(written) as bundle:
                bundle.set_attestation(reader.attestation())
                for index, data in contents.items():
                    bundle.add_entry(index, data, proofs[index])
                bundle.set_consistency_proof(ConsistencyProof(old, size, tuple(server.consistency(old, size))).format())
                for digest in reader.blob_digests():
                    bundle.add_blob(reader.blob(digest))
                for blob in blobs:
                    bundle.add_blob(blob)
            written.chmod(0o600)
            written.replace(path)


def _proofs(session: Session, indices: Iterable[int]) -> tuple[dict[int, bytes], bytes]:
    """Inclusion proofs under one checkpoint, and that checkpoint."""
    for _ in range(_ATTEMPTS):  # the log may grow while its proofs are fetched
        proofs = {index: session.server.proof(index) for index in indices}
        with log_errors():
            checkpoints = {TlogProof.parse(proof).checkpoint for proof in proofs.values()}
        if len(checkpoints) == 1:
            return proofs, checkpoints.pop()
    raise UsageError("the ledger is growing too fast: try again")
