from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import zstandard

from privacy.ckks.canonical import input_digest
from privacy.ckks.keys import ClinicKeys
from privacy.ckks.params import ParameterSet
from privacy.ckks.polynomial import centred_from_residues, negacyclic_multiply_mod
from privacy.ckks.seal_bytes import ParsedCiphertext, encode_ciphertext, parse_ciphertext
from privacy.errors import DecodeError, UsageError

sealapi = pytest.importorskip("tenseal.sealapi")
from privacy.ckks import backend  # noqa: E402


def decrypt(params: ParameterSet, s: np.ndarray, array: np.ndarray) -> list[int]:
    q = np.array(params.primes, dtype=np.uint64)[:, None]
    return centred_from_residues(params, (array[0] + negacyclic_multiply_mod(params, array[1], s)) % q)


def test_secret_keys_are_ternary_and_fresh(params: ParameterSet) -> None:
    first, second = (backend.generate_secret_key(params) for _ in range(2))
    assert first.dtype == np.int64
    assert first.shape == (4096,)
    assert set(first.tolist()) == {-1, 0, 1}
    assert not np.array_equal(first, second)


def test_secret_keys_round_trip_through_seals_own_format(params: ParameterSet, clinic_keys: ClinicKeys) -> None:
    file = backend.secret_key_to_seal(params, clinic_keys.s)
    assert np.array_equal(backend.secret_coefficients(params, file), clinic_keys.s)


@pytest.mark.parametrize("offset", [0, 5, 16, 47, 48, 56, 64, 80, 88, 89, 4096 * 8 + 90, -1, -8, -4096 * 8])
def test_a_changed_secret_key_file_is_refused(params: ParameterSet, clinic_keys: ClinicKeys, offset: int) -> None:
    file = bytearray(backend.secret_key_to_seal(params, clinic_keys.s))
    file[offset] ^= 1
    with pytest.raises(DecodeError):
        backend.secret_coefficients(params, bytes(file))


def test_a_secret_that_is_not_ternary_is_refused(params: ParameterSet, clinic_keys: ClinicKeys) -> None:
    for s in (clinic_keys.s * 2, clinic_keys.s[:-1], clinic_keys.s.astype(np.float64)):
        with pytest.raises(UsageError):
            backend.secret_key_to_seal(params, s)
    doubled = backend._secret_body(params, clinic_keys.s * 2)
    with pytest.raises(DecodeError, match="-1, 0 or 1"):
        backend.secret_coefficients(params, backend.uncompressed_file(doubled))


def test_coefficients_decrypt_to_the_scaled_values_plus_bounded_noise(
    params: ParameterSet, clinic_keys: ClinicKeys, rng: np.random.Generator
) -> None:
    coefficients = rng.uniform(-1000, 1000, (3, params.N))
    for row, encrypted in zip(coefficients, clinic_keys.encrypt_block(coefficients), strict=True):
        noise = np.array(decrypt(params, clinic_keys.s, encrypted.array)) - np.rint(row * 2.0**params.SX)
        assert np.abs(noise).max() <= 21 + 1
        assert noise.any()


def test_two_encryptions_share_nothing(params: ParameterSet, clinic_keys: ClinicKeys) -> None:
    first, second = clinic_keys.encrypt_block(np.zeros((2, params.N)))
    seeds = {parse_ciphertext(params, encrypted.seal_bytes).seed for encrypted in (first, second)}
    assert len(seeds) == 2
    assert (first.array == second.array).mean() < 0.001


def test_what_is_encrypted_is_what_the_receiver_computes(params: ParameterSet, clinic_keys: ClinicKeys) -> None:
    [sent] = clinic_keys.encrypt_block(np.ones((1, params.N)))
    received = backend.canonical_from_seal(params, sent.seal_bytes)
    assert input_digest(params, bytes(32), received) == input_digest(params, bytes(32), sent.array)


def test_every_encoding_of_one_ciphertext_has_one_canonical_form(params: ParameterSet, clinic_keys: ClinicKeys) -> None:
    [sent] = clinic_keys.encrypt_block(np.ones((1, params.N)))
    seal = backend._seal(params)
    seeded = encode_ciphertext(params, parse_ciphertext(params, sent.seal_bytes))
    loaded = sealapi.Ciphertext()
    with backend._memory_file(seeded) as (_, path):
        loaded.load(seal.context, path)
    expanded = backend._saved(loaded)
    plain = encode_ciphertext(params, parse_ciphertext(params, expanded))
    coefficients = encode_ciphertext(params, ParsedCiphertext(sent.array, False, None))
    encodings = [sent.seal_bytes, seeded, expanded, plain, coefficients]
    assert len({len(encoding) for encoding in encodings}) >= 4
    for encoding in encodings:
        assert np.array_equal(backend.canonical_from_seal(params, encoding), sent.array)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 2.0**37, -(2.0**37)])
def test_values_that_cannot_be_encrypted_are_refused(
    params: ParameterSet, clinic_keys: ClinicKeys, value: float
) -> None:
    coefficients = np.zeros((1, params.N))
    coefficients[0, 5] = value
    with pytest.raises(UsageError):
        clinic_keys.encrypt_block(coefficients)


@pytest.mark.parametrize("shape", [(4096,), (1, 4095), (1, 1, 4096)])
def test_blocks_of_another_shape_are_refused(params: ParameterSet, clinic_keys: ClinicKeys, shape) -> None:
    with pytest.raises(UsageError, match="shape"):
        clinic_keys.encrypt_block(np.zeros(shape))


def test_our_products_are_seals_products(params: ParameterSet, clinic_keys: ClinicKeys, rng) -> None:
    u = rng.integers(-1, 2, params.N)
    [sent] = clinic_keys.encrypt_block(rng.normal(size=(1, params.N)))
    seal = backend._seal(params)
    ciphertext, product, plain = sealapi.Ciphertext(), sealapi.Ciphertext(), sealapi.Plaintext()
    with backend._memory_file(sent.seal_bytes) as (_, path):
        ciphertext.load(seal.context, path)
    slots = backend.coefficients_to_slots(u.astype(np.float64)).tolist()
    seal.encoder.encode(slots, list(seal.context.first_parms_id()), 1.0, plain)
    seal.evaluator.multiply_plain(ciphertext, plain, product)
    theirs = backend.canonical_from_seal(params, backend._saved(product))
    assert np.array_equal(negacyclic_multiply_mod(params, sent.array, u), theirs)


def test_seal_saves_and_loads_through_memory_only(params: ParameterSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret key, not even for a moment, is in a file that a disk could keep."""
    seen: list[str] = []
    cpp = sealapi._sealapi_cpp
    for kind in (cpp.SecretKey, cpp.Plaintext, cpp.Ciphertext, cpp.SerializableCiphertext):
        for name in ("save", "load"):
            original = getattr(kind, name, None)
            if original is None:
                continue

            def spy(*arguments: object, original=original, label=f"{kind.__name__}.{name}") -> object:
                seen.append(label)
                assert str(Path(str(arguments[-1])).readlink()).startswith("/memfd:"), label
                return original(*arguments)

            monkeypatch.setattr(kind, name, spy)
    ClinicKeys.generate(params, "clinic-a", 1).encrypt_block(np.zeros((1, params.N)))
    assert {"SecretKey.save", "SecretKey.load", "Plaintext.save", "SerializableCiphertext.save"} <= set(seen)


def test_without_tenseal_the_error_says_how_to_install_it() -> None:
    root = Path(__file__).parents[2]
    script = f"""
        import sys
        sys.path.insert(0, {str(root)!r})
        sys.modules["tenseal"] = None
        from privacy.ckks.keys import ClinicKeys, PublicKeys
        from privacy.ckks.params import parameter_set
        from privacy.errors import MissingDependency
        try:
            ClinicKeys.generate(parameter_set("linear-4096"), "clinic-a", 1)
        except MissingDependency as error:
            assert "sealproof[ckks]" in str(error)
        else:
            raise SystemExit("no error")
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)


def test_a_file_that_seal_refuses_is_a_decode_error(params: ParameterSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the parser ever to let something through, SEAL's own exception must not escape."""
    values = np.ones((2, params.L, params.N), dtype=np.uint64)
    monkeypatch.setattr(backend, "encode_ciphertext", lambda *_: zstandard.compress(b"not a SEAL file"))
    with pytest.raises(DecodeError, match="SEAL refuses it"):
        backend._coefficients(params, ParsedCiphertext(values, True, None))
