"""What was proved: every sentence belongs to a step of the audit, and is said only if that step was taken."""

from __future__ import annotations

from collections.abc import Iterator

from api.binding import statement_sentences
from api.client.explain.document import Section, Sentence
from api.client.explain.facts import Facts, amount, in_capitals, many, told
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VerifiedPrediction, rounded_up
from api.client.shown import ShownFact, VerifiedConsent, VerifiedDisclosure

__all__ = ["proved", "weights"]


def proved(facts: Facts) -> Section:
    """The section of claims."""
    said = list(_disclosure(facts, facts.disclosure)) if facts.disclosure is not None else []
    said += _ckks(facts.ckks) if facts.ckks is not None else []
    said += _mpc(facts.mpc) if facts.mpc is not None else []
    said += _ledger(facts)
    taken = tuple(sentence for sentence in said if sentence.step in facts.steps)
    return Section("proved", "What is proved, and how it was checked", taken)


def weights(facts: Facts) -> Section:
    """What the owner has proved of the hidden weights."""
    title = "What the owner has proved about the hidden weights"
    if "certificates" not in facts.steps:
        return Section("weights", title)
    if facts.mpc is not None:
        layers = facts.mpc.model.body.layers
        sentences = [
            Sentence(
                f"The network has {many(len(layers), 'layer')}, and all its weights are whole numbers within public "
                "bounds. Nothing is proved of single weights of a network.",
                "; ".join(
                    f"layer {number}: {layer.outputs} x {layer.inputs}, -2^{layer.b} <= w < 2^{layer.b} at "
                    f"2^{layer.weight_scale_bits}"
                    for number, layer in enumerate(layers, start=1)
                ),
                "certificates",
            )
        ]
    else:
        sentences = list(_linear_weights(facts.ckks)) if facts.ckks is not None else []
    return Section("weights", title, tuple(sentences))


def _linear_weights(found: VerifiedPrediction | None) -> Iterator[Sentence]:
    if found is None:
        return
    model = found.model.body
    for output in model.outputs:
        yield Sentence(
            f"Every weight of {output.name!r} is a whole number within public bounds.",
            f"-2^{output.b} <= w_i < 2^{output.b} at 2^{model.weight_scale_bits}, the bias within 2^{output.b_bias}",
            "certificates",
        )
    stated = statement_sentences(model, found.schema)
    for sentence, statement in zip(stated, model.statements, strict=True):
        yield Sentence(in_capitals(sentence), f"statement `{statement.type}`, section 8", "certificates")
    if not stated:
        yield Sentence("Of single weights the owner has proved nothing: any of them may be anything within the bounds.")


# -- predictions ------------------------------------------------------------------------------------------------------


def _ckks(found: VerifiedPrediction) -> list[Sentence]:
    model, records, prediction = found.model, found.records, found.prediction
    return [
        Sentence(
            f"Every answer of this prediction is, but for a small error, the one that the committed model "
            f"{model.body.name!r} {model.body.version!r} gives on the committed records: it was computed from these "
            "weights and from these encrypted records, and from nothing else.",
            "evaluation proof, protocol section 5: ct_b = sum_i w_i ct_(i,b) + bias + p u_b + e_b on the published "
            "coefficients, for the one (w, bias) that C_W opens to",
            "proofs",
        ),
        Sentence(
            "What the clinic decrypts differs from that answer by at most "
            f"{rounded_up(found.evaluation_error)} of a unit.",
            "err = N E_pk 2M' + 2 M0 + N 2 M1, computed again from public numbers (section 10) in step `statements`",
            "proofs",
        ),
        Sentence(
            "The clinic's key is well made: under it an answer cannot be opened to something else than it is.",
            "key certificate: s is ternary, |e_pk| <= 32, p1 is derived from the key's name (section 3)",
            "certificates",
        ),
        Sentence(
            "The model's weights are whole numbers within public bounds: for records within the ranges of the schema "
            "no answer can wrap around and mean something else.",
            "certificate `bounded`, exact, and the overflow check of section 3",
            "certificates",
        ),
        Sentence(
            "The clinic's key was fixed before its records, and key, records and model stood in the ledger before the "
            "answers: none could be chosen to fit them.",
            f"key {found.key.reference.index} < records {records.reference.index}, model {model.reference.index} < "
            f"prediction {prediction.reference.index}",
            "order",
        ),
        _complete(found),
    ]


def _mpc(found: VerifiedJointPrediction) -> list[Sentence]:
    model, records, prediction = found.model, found.records, found.prediction
    return [
        Sentence(
            f"Every committed answer of this prediction is exactly the one that the committed network "
            f"{model.body.name!r} {model.body.version!r} gives on the committed record, even if clinic, owner and the "
            "dealer of their random numbers had worked together to falsify it.",
            "joint proof, protocol section 7: C_z opens to the integer answer of the rows that C_lj commit to on the "
            "record that C_x commits to, layer by layer, over F_r",
            "proofs",
        ),
        Sentence(
            "Records and weights are whole numbers within public bounds, so nothing in the computation can wrap around "
            "and mean something else.",
            "certificates `bounded` of network and records, exact",
            "certificates",
        ),
        Sentence(
            "The committed network is within "
            f"{rounded_up(found.network.error_bound)} of a unit of the one that its owner trained, as far as its "
            "weights were rounded by the published rule.",
            "quantisation error, from schema, scales and bounds; the computation itself adds none",
            "statements",
        ),
        Sentence(
            "Network and records stood in the ledger before the answers: none could be chosen to fit them.",
            f"network {model.reference.index}, records {records.reference.index} < prediction "
            f"{prediction.reference.index}",
            "order",
        ),
        _complete(found),
    ]


def _complete(found: VerifiedPrediction | VerifiedJointPrediction) -> Sentence:
    policy = found.records.body.policy
    allowed = "any model" if policy.models == "any" else "this model"
    return Sentence(
        f"All {many(found.count, 'patient')} of the records were answered under every output of the model, and the "
        f"clinic's terms for these records allow {allowed}.",
        f"{many(found.count, 'record')}, {many(len(found.output_names), 'output')}, policy of the records entry",
        "references",
    )


def _ledger(facts: Facts) -> Iterator[Sentence]:
    found = facts.prediction
    yield Sentence(
        "Every ledger entry that this rests on is in the ledger, as it was signed.",
        f"RFC 6962 inclusion proofs under one checkpoint of {facts.head.size} entries",
        "log",
    )
    yield Sentence(
        "The state of the ledger that the prediction was made on is a past of the one shown here: nothing was "
        "rewritten between the two.",
        f"consistency proof from {found.prediction.body.checkpoint_size} to {facts.head.size} entries",
        "head",
    )
    if facts.reading.server:
        yield Sentence(
            "Nothing that the prediction uses had been revoked before it.",
            "the whole ledger was read and hashed up to its signed head, and searched for revocations",
            "head",
        )
    if facts.until is not None and facts.in_time(facts.until):
        yield Sentence(
            f"The records were used before the end that the clinic set for it, {facts.until}, by the clocks of "
            "witnesses.",
            "a head with the prediction that a quorum of the policy had cosigned by then",
            "head",
        )
    if found.approval is not None and facts.reading.governance is not None:
        governance = facts.reading.governance
        now = ", and in the contract enough of them approve it now" if facts.reading.contract else ""
        yield Sentence(
            f"{len(governance.signers(found.approval.body))} of {len(governance.hospitals)} hospitals of your "
            f"governance file approved this model before the prediction; {governance.threshold} were needed{now}.",
            f"secp256k1 signatures in entry {found.approval.reference.index}",
            "approval",
        )


# -- disclosures ------------------------------------------------------------------------------------------------------


def _disclosure(facts: Facts, found: VerifiedDisclosure) -> Iterator[Sentence]:
    for fact in found.facts:
        yield Sentence(f"The answer {told(fact)}.{_own_answer(fact)}", _terms(fact), "disclosure")
    records = found.prediction.records
    yield Sentence(
        "The records named here are those that stand at their places in the clinic's records, as these were fixed "
        "before the prediction: the clinic cannot show another patient's answer in their name.",
        f"blinded handles, opened under the Merkle root of records entry {records.reference.index}",
        "disclosure",
    )
    if facts.reading.nonce:
        yield Sentence(
            "It was made for you, as far as nobody else has the nonce that you gave.",
            "recipient nonce, in the clinic's signature" + ("" if _opened(found) else " and in the proof"),
            "disclosure",
        )
    if found.consent is not None:
        yield from _consent(facts, found, found.consent)


def _opened(found: VerifiedDisclosure) -> bool:
    return any(fact.kind == "open" for fact in found.facts)


def _own_answer(fact: ShownFact) -> str:
    """What follows for the committed model's own answer, where the published one has an error."""
    if fact.error == 0:
        return ""
    low, high = amount(fact.low - fact.error, up=False), fact.high
    if high is None:
        return f" So the committed model's own answer is at least {low}."
    return f" So the committed model's own answer lies between {low} and {amount(high + fact.error, up=True)}."


def _terms(fact: ShownFact) -> str:
    place = f"patient {fact.patient}, output {fact.output}" + ("" if fact.versus is None else f" minus {fact.versus}")
    if fact.kind == "open":
        return f"{place}: the commitment C_z is opened"
    proof = "range proof" if fact.error == 0 else "opening of the decryption under C_s, with a range proof"
    return f"{place}: {proof}, in steps of 2^-{fact.grid_bits}"


def _consent(facts: Facts, found: VerifiedDisclosure, consent: VerifiedConsent) -> Iterator[Sentence]:
    grant, document = consent.grant, consent.document
    to = "whoever chose the nonce" if consent.consumer is None else f"the consumer {consent.consumer.name!r}"
    asked = len(document.questions)
    yield Sentence(
        f"The clinic had consented on the ledger to show this to {to}, for the purpose {document.purpose!r}, until "
        f"{document.until}. What is shown is within what it consented to: {len(found.facts)} of "
        f"{many(asked, 'question')}.",
        f"grant {grant.reference.index} < disclosure {found.entry.reference.index}; the grant's document has the "
        "digest in its entry",
        "consent",
    )
    if consent.request is not None:
        yield Sentence(
            f"The grant answers a request of {to}: the same questions or fewer, the same purpose and nonce.",
            f"request {consent.request.reference.index} < grant {grant.reference.index}",
            "consent",
        )
    if facts.reading.server:
        yield Sentence(
            "Neither grant nor request had been revoked before the disclosure.",
            "the whole ledger was read and hashed up to its signed head, and searched for revocations",
            "head",
        )
    if facts.in_time(document.until):
        yield Sentence(
            f"It was shown before the consent ended at {document.until}, by the clocks of witnesses.",
            "a head with the disclosure that a quorum of the policy had cosigned by then",
            "consent",
        )
