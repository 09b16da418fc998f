"""The numbers of a bundle, each as the verified objects have it, after the words that say what they mean."""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

from api.binding import ProofGroup, parameters_of
from api.client.explain import soundness
from api.client.explain.document import Quantity, Section, Sentence
from api.client.explain.facts import Facts, amount, fraction_text, listed, many
from api.client.joint_prediction import VerifiedJointPrediction
from api.client.prediction import VerifiedPrediction, rounded_up
from api.client.shown import ShownFact, VerifiedDisclosure
from api.exposure import bits_of_groups, hidden_bits, joint_bits, network_bits
from privacy.ckks.params import ParameterSet

__all__ = ["numbers"]

_LINKS: Final = {
    "identity": "read as it is",
    "logit": "log-odds: the probability is 1 / (1 + e^-answer)",
    "softmax": "log-odds between outputs: only differences mean something",
}


def numbers(facts: Facts) -> Section:
    """The section of numbers."""
    sentences, quantities = [_boundary(facts)], list(_shown(facts.disclosure))
    if facts.ckks is not None:
        sentences += _exposure_words(facts.ckks)
        quantities += _ckks(facts.ckks)
    if facts.mpc is not None:
        quantities += _mpc(facts.mpc)
    quantities += _chances(facts)
    quantities += _sizes(facts)
    return Section("numbers", "Numbers", tuple(sentences), (), tuple(quantities))


# -- what answers are worth -------------------------------------------------------------------------------------------


def _boundary(facts: Facts) -> Sentence:
    if facts.mpc is not None:
        return Sentence(
            "The answers are exact for the committed network; only against the network as it was trained is there a "
            "rounding error. An answer that lies closer to a decision boundary than that error may belong on the other "
            "side of it for the trained network, and never for the committed one."
        )
    return Sentence(
        "An answer that lies closer to a decision boundary than the error bound may belong on the other side of it: "
        "with a boundary of 0, an answer of less than the bound in magnitude decides nothing."
    )


def _shown(found: VerifiedDisclosure | None) -> Iterator[Quantity]:
    for number, fact in enumerate(() if found is None else found.facts, start=1):
        bits = fact.scale_bits if fact.kind == "open" else fact.grid_bits
        name = f"shown answer {number}" if found is not None and len(found.facts) > 1 else "shown answer"
        yield Quantity(name, f"{fact.subject} {fact.in_words}", fact.value, f"{fact.kind}, value in units of 2^-{bits}")
        if fact.kind == "exact":
            yield Quantity(f"{name}, tolerance", _steps(fact), fact.tolerance)
        error = "none" if fact.error == 0 else f"{rounded_up(fact.error)} of a unit"
        yield Quantity(f"{name}, error of the answer itself", error, fraction_text(fact.error))


def _steps(fact: ShownFact) -> str:
    return f"{many(fact.tolerance, 'step')} of {amount(Fraction(1, 1 << fact.grid_bits), up=True)}"


def _ckks(found: VerifiedPrediction) -> Iterator[Quantity]:
    bound, params = found.prediction.body.error_bound, parameters_of(found.model.body.parameter_set)
    yield Quantity(
        "error of the evaluation",
        f"{rounded_up(found.evaluation_error)} of a unit",
        f"{bound.error}/2^{bound.scale_bits}",
        "what a decryption is off from the committed model's answer at most",
    )
    for place, output in enumerate(found.model.body.outputs):
        error = found.error_bound(place)
        yield Quantity(
            f"error bound of {output.name!r}",
            f"{rounded_up(error)} of a unit",
            fraction_text(error),
            f"with the rounding of weights and inputs, against the model as it was trained; {_link(output.link)}",
        )
    yield _grid(bound.grid_bits)
    yield from _parameters(params)
    for number, proof in enumerate(found.prediction.body.proofs, start=1):
        yield Quantity(
            f"blur of proof {number}",
            f"{proof.blur_bits} bits",
            proof.blur_bits,
            "noise under which answers hide the weights from the clinic; part of the error above",
        )
    yield from _exposure(found)


def _mpc(found: VerifiedJointPrediction) -> Iterator[Quantity]:
    body = found.model.body
    error = found.network.error_bound
    yield Quantity(
        "error of the computation", "none", 0, "committed answers are those of the committed network, exactly"
    )
    yield Quantity(
        "rounding error of every output",
        f"{rounded_up(error)} of a unit",
        fraction_text(error),
        f"against the network as it was trained; {_link(body.link)}",
    )
    yield _grid(found.prediction.body.grid_bits)
    yield Quantity("scale of the answers", f"2^-{found.answer_scale_bits}", found.answer_scale_bits)
    bound = found.network.bounds[-1]
    yield Quantity("largest answer that there can be", f"{bound} at that scale", bound)
    yield Quantity("parameter set", body.parameter_set, body.parameter_set, f"inputs at 2^-{body.input_scale_bits}")
    whole = network_bits(body)
    for place, bits in sorted(joint_bits(body, found.count).items()):
        yield _exposed(body.outputs[place], bits, whole)


def _grid(bits: int) -> Quantity:
    step = amount(Fraction(1, 1 << bits), up=True)
    return Quantity("grid", f"2^-{bits} = {step}", bits, "the steps in which answers may be shown to others")


def _link(link: str) -> str:
    return _LINKS.get(link, f"link {link}")


def _parameters(params: ParameterSet) -> Iterator[Quantity]:
    published, whole = params.Q.bit_length(), (params.Q * params.special_prime).bit_length()
    yield Quantity(
        "parameter set",
        f"{params.name}: N = {params.N}, ciphertexts of {published} bits",
        params.name,
        f"128-bit security by the tables of HomomorphicEncryption.org, which allow the {whole} bits of all its primes "
        "at this degree with ternary secrets",
    )


def _exposure_words(found: VerifiedPrediction) -> Iterator[Sentence]:
    released, model = _released(found), found.model.body
    names = [
        output.name
        for place, output in enumerate(model.outputs)
        if released[place] > hidden_bits(found.model.body, found.records.body.d, place)
    ]
    if names:
        yield Sentence(
            f"By the count, this prediction alone may tell the clinic all weights of {listed(list(map(repr, names)))}: "
            "think of them as known to it."
        )


def _exposure(found: VerifiedPrediction) -> Iterator[Quantity]:
    released, d = _released(found), found.records.body.d
    for place, output in enumerate(found.model.body.outputs):
        yield _exposed(output.name, released[place], hidden_bits(found.model.body, d, place))


def _released(found: VerifiedPrediction) -> dict[int, Fraction]:
    covers = [(ProofGroup(p.first_block, p.blocks, p.count), p.outputs) for p in found.prediction.body.proofs]
    return bits_of_groups(found.records.body, found.model.body, covers)


def _exposed(output: str, released: Fraction, whole: int) -> Quantity:
    shown = f"at most {math.ceil(released * 10) / 10:,g} of {whole:,} bits"
    note = "what the answers of this prediction tell the clinic about the model; other predictions add up"
    return Quantity(f"exposure of {output!r}", shown, fraction_text(released), note)


# -- what proofs are worth --------------------------------------------------------------------------------------------


def _chances(facts: Facts) -> Iterator[Quantity]:
    """Only of proofs that were checked."""
    if "proofs" in facts.steps and facts.ckks is not None:
        worst = max(soundness.evaluation_error(statement) for statement in facts.ckks.statements)
        yield _chance("evaluation proof", worst)
    if "certificates" in facts.steps and facts.ckks is not None:
        yield _chance("key certificate", soundness.key_error(parameters_of(facts.ckks.key.body.parameter_set)))
    if "proofs" in facts.steps and facts.mpc is not None:
        yield _chance("joint proof", max(soundness.joint_error(statement) for statement in facts.mpc.statements))
    found = facts.disclosure
    if found is None or "disclosure" not in facts.steps:
        return
    if facts.ckks is not None:
        params = parameters_of(facts.ckks.key.body.parameter_set)
        yield _chance("proof of the disclosure", soundness.disclosure_error(params, len(found.facts)))
    else:
        proven = sum(fact.kind != "open" for fact in found.facts)
        if proven:
            yield _chance("proof of the disclosure", soundness.joint_disclosure_error(proven))


def _chance(what: str, error: Fraction) -> Quantity:
    n = soundness.power_of_two(error)
    return Quantity(
        f"chance of a false {what}",
        f"below 2^-{n} an attempt",
        n,
        "unless discrete logarithms on BLS12-381 or the hash functions are broken",
    )


# -- sizes and times --------------------------------------------------------------------------------------------------


def _sizes(facts: Facts) -> Iterator[Quantity]:
    proofs = facts.prediction.prediction.body.proofs
    records = facts.prediction.records.body
    yield Quantity("patients", f"{records.count:,}", records.count)
    yield Quantity("features of a record", f"{records.d:,}", records.d)
    yield Quantity("file", f"{facts.bundle_bytes:,} bytes", facts.bundle_bytes)
    size = sum(proof.size for proof in proofs)
    yield Quantity("proofs of the prediction", f"{len(proofs)}, together {size:,} bytes", size)
    if facts.disclosure_bytes is not None:
        yield Quantity("proof of the disclosure", f"{facts.disclosure_bytes:,} bytes", facts.disclosure_bytes)
    milliseconds = round(1000 * sum(check.seconds for check in facts.checks))
    note = "certificates that this machine had verified before were not verified again" if facts.reading.cached else ""
    yield Quantity("verified here in", f"{milliseconds:,} ms", milliseconds, note)
    yield Quantity("attested", facts.prediction.issued_at, facts.prediction.issued_at, "by the server's own clock")
    if facts.disclosure is not None:
        issued = facts.disclosure.issued_at
        yield Quantity("disclosed", issued, issued, "by the clinic's own clock")
