"""A clinic that is bare tenseal.sealapi code: it shares the packing rule with ours, and nothing else.

It has its own context, key, encoder use and file handling, so what we read is SEAL's format and not our own idea of it.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import zstandard

from privacy.ckks import packing
from privacy.ckks.canonical import ResultCiphertext
from privacy.ckks.keys import ClinicKeys
from privacy.ckks.packing import Packing
from privacy.ckks.params import ParameterSet

sealapi = pytest.importorskip("tenseal.sealapi")
from privacy.ckks import backend  # noqa: E402

N = 4096
PRIMES = [68719230977, 68719403009]


def exponents(generator: int) -> list[int]:
    return [pow(generator, j, 2 * N) for j in range(N // 2)]


def to_slots(coefficients: np.ndarray, generator: int = 3) -> list[complex]:
    """The packing rule: slot j holds the value at zeta^(3^j)."""
    values = np.fft.ifft(coefficients * np.exp(1j * np.pi * np.arange(N) / N)) * N  # value k: at zeta^(2k+1)
    return values[[(e - 1) // 2 for e in exponents(generator)]].tolist()


def to_coefficients(slots: list[complex], generator: int = 3) -> np.ndarray:
    values = np.zeros(N, dtype=complex)
    for e, value in zip(exponents(generator), slots, strict=True):
        values[(e - 1) // 2] = value
        values[(2 * N - e - 1) // 2] = value.conjugate()
    return (np.fft.fft(values) / N * np.exp(-1j * np.pi * np.arange(N) / N)).real


class BareClinic:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "seal.bin"
        settings = sealapi.EncryptionParameters(sealapi.SCHEME_TYPE.CKKS)
        settings.set_poly_modulus_degree(N)
        settings.set_coeff_modulus(sealapi.CoeffModulus.Create(N, [36, 36, 37]))
        self.context = sealapi.SEALContext(settings, True, sealapi.SEC_LEVEL_TYPE.TC128)
        self.encoder = sealapi.CKKSEncoder(self.context)
        self.use_key(sealapi.KeyGenerator(self.context).secret_key())

    def use_key(self, key: object) -> None:
        self.secret_key = key
        self.encryptor = sealapi.Encryptor(self.context, key)
        self.decryptor = sealapi.Decryptor(self.context, key)

    def encrypt(self, coefficients: np.ndarray, *, seeded: bool) -> bytes:
        plaintext = sealapi.Plaintext()
        self.encoder.encode(to_slots(coefficients), 2.0**34, plaintext)
        if seeded:
            self.encryptor.encrypt_symmetric(plaintext).save(str(self.path))
        else:
            ciphertext = sealapi.Ciphertext()
            self.encryptor.encrypt_symmetric(plaintext, ciphertext)
            ciphertext.save(str(self.path))
        return self.path.read_bytes()

    def ntt(self, polynomial: np.ndarray) -> np.ndarray:
        """SEAL's NTT words, (2, N), of residues (2, N). The encoder only takes doubles, so by limbs of 18 bits."""
        words = np.zeros((2, N), dtype=object)
        for level, q in enumerate(PRIMES):
            for limb in range(2):
                part = (polynomial[level] >> np.uint64(18 * limb)) & np.uint64(2**18 - 1)
                plaintext = sealapi.Plaintext()
                self.encoder.encode(to_slots(part.astype(float)), 1.0, plaintext)
                plaintext.save(str(self.path))
                data = zstandard.ZstdDecompressor().decompress(self.path.read_bytes()[16:])
                ntt_of_part = np.frombuffer(data[-16 * N :], dtype="<u8").reshape(2, N)[level].astype(object)
                words[level] = (words[level] + (ntt_of_part << (18 * limb))) % q
        return words.astype(np.uint64)

    def decrypt(self, c0: np.ndarray, c1: np.ndarray, scale: float, generator: int = 3) -> np.ndarray:
        """Coefficients of c0 + c1 s in units of `scale`, through SEAL's own decryptor and decoder."""
        words = np.stack([self.ntt(c0), self.ntt(c1)]).tobytes()
        parms_id = struct.pack("<4Q", *self.context.first_parms_id())
        fields = parms_id + struct.pack("<BQQQdQ", 1, 2, N, 2, scale, 1)
        array = struct.pack("<HBBBBHQQ", 0xA15E, 16, 4, 3, 0, 0, 24 + len(words), len(words) // 8) + words
        body = fields + array
        self.path.write_bytes(struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, 0, 0, 16 + len(body)) + body)
        ciphertext, plaintext = sealapi.Ciphertext(), sealapi.Plaintext()
        ciphertext.load(self.context, str(self.path))
        self.decryptor.decrypt(ciphertext, plaintext)
        return to_coefficients(self.encoder.decode_complex(plaintext), generator)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> BareClinic:
    return BareClinic(tmp_path_factory.mktemp("clinic"))


def evaluate(inputs: list[np.ndarray], weights: list[int], positions: np.ndarray) -> ResultCiphertext:
    """The plain weighted sum over the canonical forms, in integers of any size, restricted to what is published."""
    q = np.array(PRIMES, dtype=object)[:, None]
    total = sum(w * array.astype(object) for w, array in zip(weights, inputs, strict=True)) % q
    return ResultCiphertext(positions, total[0][:, positions].astype(np.uint64), total[1].astype(np.uint64))


@pytest.mark.parametrize("seeded", [True, False])
@pytest.mark.parametrize("layout", Packing)
def test_a_bare_seal_client_encrypts_for_us_and_decrypts_our_results(
    params: ParameterSet, clinic: BareClinic, rng: np.random.Generator, layout: Packing, seeded: bool
) -> None:
    d, count = 3, 500
    values = np.round(rng.uniform(-50, 50, (count, d)), 3)
    weights = [round(w * 2**24) for w in (0.5, -1.25, 0.0625)]
    if layout is Packing.COLUMNS:
        sent = [clinic.encrypt(np.pad(values[:, i], (0, N - count)), seeded=seeded) for i in range(d)]
        inputs = [backend.canonical_from_seal(params, data) for data in sent]
        published = np.arange(count)
    else:
        row = clinic.encrypt(np.pad(values.reshape(-1), (0, N - count * d)), seeded=seeded)
        inputs = packing.rows_shifted(params, backend.canonical_from_seal(params, row), d)
        published = np.arange(count) * d + d - 1
    assert packing.positions(params, layout, d, count).tolist() == published.tolist()
    result = evaluate(inputs, weights, published)

    c0 = np.zeros((2, N), dtype=np.uint64)
    c0[:, published] = result.c0  # the rest is never released, and not needed
    answers = clinic.decrypt(c0, result.c1, 2.0**58)[published]
    expected = values @ np.array(weights) / 2**24
    # Encryption noise of at most 21 + 1/2 a feature, and SEAL's double precision on coefficients as large as Q.
    bound = sum(abs(w) for w in weights) * 22.0 / 2**58 + N * params.Q / 2.0**58 * 2.0**-50
    assert np.abs(answers - expected).max() < bound


def test_a_bare_seal_client_with_our_exported_key_reads_the_same_answers(
    params: ParameterSet, clinic_keys: ClinicKeys, tmp_path: Path, rng: np.random.Generator
) -> None:
    bare = BareClinic(tmp_path)
    bare.path.write_bytes(backend.secret_key_to_seal(params, clinic_keys.s))
    key = sealapi.SecretKey()
    key.load(bare.context, str(bare.path))
    bare.use_key(key)
    values = rng.uniform(-50, 50, (N, 2))
    inputs = [encrypted.array for encrypted in clinic_keys.encrypt_block(packing.pack_columns(params, values))]
    result = evaluate(inputs, [3 << 24, -(1 << 24)], np.arange(N))
    ours = clinic_keys.decrypt_unverified(result)
    assert np.abs(bare.decrypt(result.c0, result.c1, 2.0**58) - ours).max() < 1e-9
    assert np.abs(ours - values @ [3, -1]).max() < 4 * 22 / 2**34


def test_our_secret_reading_of_a_bare_seal_key_decrypts_what_it_encrypts(
    params: ParameterSet, clinic: BareClinic, rng: np.random.Generator
) -> None:
    clinic.secret_key.save(str(clinic.path))
    s = backend.secret_coefficients(params, clinic.path.read_bytes())
    keys = ClinicKeys(params, "bare", 0, s, np.zeros(N, dtype=np.int64))
    values = rng.uniform(-50, 50, N)
    array = backend.canonical_from_seal(params, clinic.encrypt(values, seeded=True))
    result = ResultCiphertext(np.arange(N), array[0], array[1])
    noise = np.array(keys.decrypt_integers_unverified(result)) - np.rint(values * 2**34)
    assert np.abs(noise).max() <= 22


@pytest.mark.parametrize("coefficient", [0, 1, 2047, 4095])
def test_the_generator_is_three_a_changed_residue_moves_exactly_one_coefficient(
    params: ParameterSet, clinic: BareClinic, rng: np.random.Generator, coefficient: int
) -> None:
    """With the wrong one everything round-trips, scalar products are right, and coefficients are no coefficients."""
    array = backend.canonical_from_seal(params, clinic.encrypt(rng.uniform(-1, 1, N), seeded=True))
    moved = array[0].copy()
    for level, q in enumerate(PRIMES):
        moved[level, coefficient] = (int(moved[level, coefficient]) + 2**48) % q

    def changed(generator: int) -> list[int]:
        before, after = (clinic.decrypt(c0, array[1], 2.0**34, generator) for c0 in (array[0], moved))
        return np.flatnonzero(np.abs(after - before) > 1.0).tolist()

    assert changed(3) == [coefficient]
    if coefficient:  # a constant is the same in every slot, whatever their order
        assert len(changed(5)) > 1


def test_our_own_encoding_puts_one_value_into_one_coefficient(params: ParameterSet, clinic_keys: ClinicKeys) -> None:
    coefficients = np.zeros((1, N))
    coefficients[0, 1234] = 2.0**14
    [sent] = clinic_keys.encrypt_block(coefficients)
    result = ResultCiphertext(np.arange(N), sent.array[0], sent.array[1])
    integers = np.array(clinic_keys.decrypt_integers_unverified(result))
    assert np.flatnonzero(np.abs(integers) > 2**40).tolist() == [1234]
    assert abs(int(integers[1234]) - 2**48) <= 22
