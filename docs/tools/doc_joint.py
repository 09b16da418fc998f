"""Examples of two-party computation: entries, statements, frames and plans, from fixed seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

from doc_consent import ConsentExample, add_consent_entries, shown_envelope
from doc_seeds import PLACEHOLDER, WHEN, hex_lines, point, seed, signing_key

from api import entries
from api.client.handles import RecordHandles
from api.entries import Reference
from api.joint_binding import joint_predicate, network_entry
from api.mpc.handshake import MAGIC, certificate_of
from privacy import attestation
from privacy.models.network import Dense, Network
from privacy.models.network_certificate import network_statement
from privacy.models.network_quantise import CommittedLayer, quantise_network
from privacy.models.schema import Schema
from privacy.mpc.channel import StreamChannel
from privacy.mpc.dealer import BinaryTriple, FieldProducts, MatrixTriple, encode_plan
from privacy.mpc.joint_proof import answers_digest
from privacy.mpc.params import mpc_parameters

__all__ = ["PARTS", "add_joint_entries", "joint_payload", "network", "signed_disclosure"]

Add = Callable[[str, entries.Body, int | None, str], Reference]
"""Log an entry of the examples: name, body, index of its author's entry (None for a party), name of its author's key.
"""

PARAMS = mpc_parameters("mpc-64")
RECORDS = tuple(point(f"C_x of patient {patient}") for patient in range(2))
ANSWERS = tuple(point(f"C_z of patient {patient}") for patient in range(2))
HANDLES = RecordHandles(("p-1", "p-2"), tuple(seed(f"salt {patient}")[:16] for patient in range(2)))
REASON = "mpc.stalled: node 9f3c9f3c9f3c9f3c sent nothing for 120 s, or too slowly; 'commitments' was due"


def network(schema: Schema) -> Network:
    """A float network of two hidden neurons on the examples' schema."""
    hidden = Dense([[0.02, 0.125, 0.75], [-0.01, 0.5, 0.25]], [-1.5, 0.5])
    return Network("ward-risk", (hidden, Dense([[1.25, -0.5]], [0.125])), ("y",), "logit", schema)


def _network_body(schema: Schema) -> entries.Network:
    quantised = quantise_network(network(schema), PARAMS.input_scale_bits)
    layers = [
        CommittedLayer(shape, tuple(point(f"C_{number}{row}") for row in range(shape.outputs)))
        for number, shape in enumerate(quantised.shapes, start=1)
    ]
    statement = network_statement(quantised, PARAMS, "1", layers)
    return network_entry(statement, seed("network certificate"), seed("artefact"), {"purpose": "An example."})


def add_joint_entries(
    log: Sequence[bytes],
    add: Add,
    schema: Schema,
    head: Callable[[], tuple[int, bytes]],
    parties: Mapping[str, int],
) -> ConsentExample:
    """Log one entry of each kind; returns what stands behind those about consent. `log` is what `add` appends to,
    `head` its size and root, `parties` by role."""
    server, clinic, owner = (parties[role] for role in ("server", "clinic", "owner"))
    body = _network_body(schema)
    published = add("network", body, owner, "example owner")
    committed = add(
        "committed-records",
        entries.CommittedRecords(
            clinic="example-clinic",
            parameter_set=PARAMS.name,
            schema=schema.digest(),
            d=schema.d,
            count=len(RECORDS),
            commitments=hashlib.sha256(entries.encode_point_list(RECORDS)).digest(),
            certificates=(seed("records certificate"),),
            handles=HANDLES.root,
            policy=entries.Policy((published,), None),
        ),
        clinic,
        "example-clinic",
    )
    size, root = head()
    proof = hashlib.sha256(PLACEHOLDER).digest()
    prediction = add(
        "joint-prediction",
        entries.JointPrediction(
            records=committed,
            model=published,
            session=seed("session"),
            proofs=(entries.JointProof(0, len(RECORDS), proof, len(PLACEHOLDER), answers_digest(ANSWERS)),),
            answer_scale_bits=body.answer_scale_bits,
            grid_bits=body.grid_bits,
            checkpoint_size=size,
            checkpoint_root=root,
        ),
        server,
        "example server",
    )
    consent = add_consent_entries(log, add, prediction, clinic, ANSWERS[1], HANDLES)
    both = Reference.to(clinic, log[clinic]), Reference.to(owner, log[owner])
    broken = add("suspension", entries.Suspension(*both, seed("another session"), REASON), owner, "example owner")
    add("clearance", entries.Clearance(broken), owner, "example owner")
    return consent


def joint_payload(log: Sequence[bytes], index: int) -> bytes:
    """The statement about the joint prediction in entry `index`: the payload of its envelope."""
    prediction = entries.decode_entry(log[index]).body
    assert isinstance(prediction, entries.JointPrediction)
    model = entries.decode_entry(log[prediction.model.index]).body
    assert isinstance(model, entries.Network)
    said = joint_predicate(
        log.__getitem__, index, prediction, model, issued_at=WHEN, request_nonce=seed("request nonce")
    )
    return attestation.encode_statement(said)


def signed_disclosure(log: Sequence[bytes], index: int) -> bytes:
    """The envelope in which the examples' clinic says that patient 1 of prediction `index` reaches 0.5."""
    kinds = [entries.decode_entry(data).body.KIND for data in log]
    return shown_envelope(log, index, kinds.index(entries.Grant.KIND), ANSWERS[1], HANDLES)


# -- between processes ------------------------------------------------------------------------------------------------


class _Written(StreamChannel):
    """A channel that keeps what it is given to write."""

    def __init__(self) -> None:
        super().__init__("nobody")
        self.data = b""

    def _write(self, data: bytes) -> None:
        self.data += data


def _frame(label: str, data: bytes) -> bytes:
    channel = _Written()
    channel.send(label, data)
    return channel.data


def link_examples() -> str:
    """A preamble, and frames as they go over the link."""
    certificate = certificate_of(signing_key("example owner"))
    preamble = MAGIC + len(certificate).to_bytes(2, "little") + certificate
    aborted = _Written()
    aborted.abort("the disk is full")
    shown = (
        (f"preamble of the examples' owner, {len(preamble)} bytes", preamble),
        ("frame `complete`, without data", _frame("complete", b"")),
        ("frame `tau` with one scalar, 7", _frame("tau", (7).to_bytes(32, "little"))),
        ("abort frame that says *the disk is full*", aborted.data),
    )
    return "\n\n".join(f"{name}:\n\n{hex_lines(data)}" for name, data in shown)


def plan_example() -> str:
    """A plan with an item of each form."""
    plan = (MatrixTriple(2, 3, 2), BinaryTriple(4), FieldProducts((40, 40, 1)))
    data = encode_plan(plan)
    return (
        f"a triple of (2, 3) and (3, 2) matrices, one of 4 words under AND, inner products of 40, 40 and 1 scalars: "
        f"{len(data)} bytes.\n\n{hex_lines(data)}"
    )


PARTS: Mapping[str, Callable[[], str]] = {"link": link_examples, "plan": plan_example}
