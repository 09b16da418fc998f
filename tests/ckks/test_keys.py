from __future__ import annotations

import dataclasses
import hashlib
import os
import stat
import struct
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from privacy.ckks.canonical import ResultCiphertext, public_key_digest
from privacy.ckks.keys import E_PK_MAX, ClinicKeys, PublicKeys, derive_p1
from privacy.ckks.params import ParameterSet
from privacy.ckks.polynomial import centred_from_residues, negacyclic_multiply_mod
from privacy.errors import DecodeError, UsageError

pytest.importorskip("tenseal.sealapi")


# -- the key equation


def test_p0_is_minus_p1_s_plus_the_short_error(params: ParameterSet, clinic_keys: ClinicKeys) -> None:
    public = clinic_keys.public
    q = np.array(params.primes, dtype=np.uint64)[:, None]
    error = (public.p0 + negacyclic_multiply_mod(params, public.p1, clinic_keys.s)) % q
    assert centred_from_residues(params, error) == clinic_keys.e_pk.tolist()


def test_the_error_is_centred_binomial_and_fresh(params: ParameterSet, clinic_keys: ClinicKeys) -> None:
    e = clinic_keys.e_pk
    assert np.abs(e).max() <= E_PK_MAX == 21
    # Variance 21/2; six standard deviations of the estimates over 4096 samples.
    assert abs(e.mean()) < 6 * (10.5 / 4096) ** 0.5
    assert abs(e.var() - 10.5) < 6 * 10.5 * (2 / 4096) ** 0.5
    other = ClinicKeys.generate(params, "clinic-a", 1)
    assert not np.array_equal(other.e_pk, e)
    assert not np.array_equal(other.s, clinic_keys.s)


def test_p1_is_what_the_specification_says(params: ParameterSet) -> None:
    """Second implementation, one word at a time."""
    p1 = derive_p1(params, "clinic-a", 7)
    for level, q in enumerate(params.primes):
        fields = [b"sealproof-pk", params.encode(), b"clinic-a", struct.pack("<I", 7), bytes([level])]
        seed = b"".join(struct.pack("<I", len(field)) + field for field in fields)
        stream = hashlib.shake_256(seed).digest(8 * 5000)
        words = [word & (2**36 - 1) for (word,) in struct.iter_unpack("<Q", stream)]
        assert p1[level].tolist() == [word for word in words if word < q][: params.N]


def test_p1_skips_words_that_are_not_below_the_prime(params: ParameterSet) -> None:
    """With primes just above a power of two about half of all words are skipped, and more have to be drawn."""
    other = dataclasses.replace(params, primes=(2**35 + 1, 2**35 + 3))
    p1 = derive_p1(other, "clinic-a", 1)
    assert p1.shape == (2, 4096)
    assert all(row.max() < q for q, row in zip(other.primes, p1, strict=True))
    assert abs(p1.mean() / 2**34 - 1) < 0.05


@pytest.mark.parametrize("change", [{"clinic_id": "clinic-b"}, {"number": 2}, {"params": "SX"}, {"params": "special"}])
def test_p1_depends_on_every_name(params: ParameterSet, change: dict) -> None:
    sets = {
        "SX": dataclasses.replace(params, input_scale_bits=33),
        "special": dataclasses.replace(params, special_prime=params.special_prime + 2),
    }
    names = {"params": params, "clinic_id": "clinic-a", "number": 1}
    changed = {key: sets[value] if key == "params" else value for key, value in change.items()}
    assert (derive_p1(**names) == derive_p1(**{**names, **changed})).mean() < 0.001  # type: ignore[arg-type]


def test_a_clinic_cannot_choose_its_own_p1(params: ParameterSet, clinic_keys: ClinicKeys) -> None:
    """With p1 = 0 or a short quotient every shortness check passes and one result gives all weights away."""
    assert {field.name for field in dataclasses.fields(PublicKeys)} == {"params", "clinic_id", "number", "p0"}
    with pytest.raises(AttributeError):
        clinic_keys.public.p1 = np.zeros((2, params.N), dtype=np.uint64)  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        derive_p1(params, "clinic-a", 1)[0, 0] = 0


@pytest.mark.parametrize("clinic_id", ["", " a", "a b", "a\n", "é", "-a", "a" * 129, "a\0"])
@pytest.mark.parametrize("make", ["derive", "generate"])
def test_ambiguous_clinic_ids_are_refused(params: ParameterSet, clinic_id: str, make: str) -> None:
    with pytest.raises(UsageError, match="clinic id"):
        (derive_p1 if make == "derive" else ClinicKeys.generate)(params, clinic_id, 1)


@pytest.mark.parametrize("number", [-1, 2**32])
def test_key_numbers_out_of_range_are_refused(params: ParameterSet, number: int) -> None:
    with pytest.raises(UsageError, match="key number"):
        derive_p1(params, "clinic-a", number)


# -- the two types


def test_public_keys_cannot_decrypt_or_encrypt() -> None:
    assert not [name for name in dir(PublicKeys) if "crypt" in name and "de" in name]
    assert not hasattr(PublicKeys, "decrypt")
    assert not issubclass(PublicKeys, ClinicKeys)
    assert not issubclass(ClinicKeys, PublicKeys)


def test_the_secret_is_in_no_representation(clinic_keys: ClinicKeys) -> None:
    for text in (repr(clinic_keys), str(clinic_keys), f"{clinic_keys}", repr(clinic_keys.public)):
        assert "array" not in text.replace("p0=array", "")
        assert " s=" not in text
        assert "e_pk" not in text


@pytest.mark.parametrize("field", ["s", "e_pk"])
def test_key_pairs_with_long_secrets_are_refused(clinic_keys: ClinicKeys, field: str) -> None:
    bound = {"s": 1, "e_pk": 21}[field]
    for value in (bound + 1, -bound - 1, -(2**63)):
        vector = getattr(clinic_keys, field).copy()
        vector[9] = value
        with pytest.raises(UsageError, match=field):
            dataclasses.replace(clinic_keys, **{field: vector})
    for vector in (getattr(clinic_keys, field)[:-1], getattr(clinic_keys, field).astype(np.int8)):
        with pytest.raises(UsageError, match=field):
            dataclasses.replace(clinic_keys, **{field: vector})


def test_public_keys_round_trip_and_refuse_what_is_not_canonical(params: ParameterSet, clinic_keys: ClinicKeys) -> None:
    public = clinic_keys.public
    data = public.encode()
    again = PublicKeys.decode(params, "clinic-a", 1, data)
    assert again.encode() == data
    assert again.digest == public.digest == public_key_digest(params, public.p0)
    for bad in (data[:-1], data + b"\0", b"", params.primes[0].to_bytes(8, "little") + data[8:], b"\xff" * len(data)):
        with pytest.raises(DecodeError):
            PublicKeys.decode(params, "clinic-a", 1, bad)
    with pytest.raises(UsageError):
        dataclasses.replace(public, p0=public.p0 + np.uint64(params.primes[1]))


def test_the_public_half_needs_no_fhe_library() -> None:
    root = Path(__file__).parents[2]
    script = f"""
        import sys
        sys.path.insert(0, {str(root)!r})
        sys.modules["tenseal"] = None
        from privacy.ckks.keys import PublicKeys, derive_p1
        from privacy.ckks import canonical, packing, polynomial, seal_bytes
        from privacy.ckks.params import parameter_set
        params = parameter_set("linear-4096")
        PublicKeys.decode(params, "clinic-a", 1, derive_p1(params, "clinic-a", 1).tobytes()).p1
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)


# -- decryption


def test_decryption_is_exact(params: ParameterSet, clinic_keys: ClinicKeys, random_input: np.ndarray) -> None:
    """Against integers of any size: c0 is made so that known numbers come out, up to the ends of the range."""
    P = np.array([0, 1, 7, 4000, 4095])
    numbers = [0, 1, -1, params.Q // 2, -(params.Q // 2)]
    product = centred_from_residues(params, negacyclic_multiply_mod(params, random_input[1], clinic_keys.s))
    c0 = [[(m - product[k]) % q for m, k in zip(numbers, P.tolist(), strict=True)] for q in params.primes]
    result = ResultCiphertext(P, np.array(c0, dtype=np.uint64), random_input[1])
    assert clinic_keys.decrypt_integers_unverified(result) == numbers
    assert clinic_keys.decrypt_unverified(result).tolist() == [m / 2**58 for m in numbers]


def test_a_result_that_is_not_canonical_is_not_decrypted(
    params: ParameterSet, clinic_keys: ClinicKeys, random_result: ResultCiphertext
) -> None:
    for bad in (
        dataclasses.replace(random_result, positions=random_result.positions[::-1].copy()),
        dataclasses.replace(random_result, c0=random_result.c0[:, :-1]),
        dataclasses.replace(random_result, c1=random_result.c1 + np.uint64(params.primes[1])),
    ):
        with pytest.raises(UsageError):
            clinic_keys.decrypt_unverified(bad)


# -- the key file


def test_a_saved_key_is_private_and_comes_back_whole(tmp_path: Path, clinic_keys: ClinicKeys) -> None:
    path = tmp_path / "clinic.key"
    before = os.umask(0)
    try:
        clinic_keys.save(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["clinic.key"]
    loaded = ClinicKeys.load(path)
    assert np.array_equal(loaded.s, clinic_keys.s)
    assert np.array_equal(loaded.e_pk, clinic_keys.e_pk)
    assert (loaded.params, loaded.clinic_id, loaded.number) == (clinic_keys.params, "clinic-a", 1)
    assert loaded.public.digest == clinic_keys.public.digest


def test_a_key_file_is_never_overwritten(tmp_path: Path, clinic_keys: ClinicKeys) -> None:
    path = tmp_path / "clinic.key"
    path.write_bytes(b"precious")
    with pytest.raises(UsageError, match="never overwritten"):
        clinic_keys.save(path)
    assert path.read_bytes() == b"precious"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_failed_save_leaves_nothing(tmp_path: Path, clinic_keys: ClinicKeys, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        clinic_keys.save(tmp_path / "clinic.key")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610, 0o601, 0o620])
def test_a_key_that_others_may_touch_is_refused(tmp_path: Path, clinic_keys: ClinicKeys, mode: int) -> None:
    path = tmp_path / "clinic.key"
    clinic_keys.save(path)
    path.chmod(mode)
    with pytest.raises(UsageError, match="chmod 600"):
        ClinicKeys.load(path)


def test_only_regular_files_are_keys(tmp_path: Path, clinic_keys: ClinicKeys) -> None:
    clinic_keys.save(tmp_path / "clinic.key")
    (tmp_path / "link").symlink_to(tmp_path / "clinic.key")
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name in ("link", "pipe", "missing", "."):
        with pytest.raises(UsageError):
            ClinicKeys.load(tmp_path / name)


def _written(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "changed.key"
    path.write_bytes(data)
    path.chmod(0o600)
    return path


@pytest.mark.parametrize("offset", [0, 20, 24, 30, 60, 80, 100, 4000, 8000, -40, -1])
def test_a_damaged_key_file_is_refused(tmp_path: Path, clinic_keys: ClinicKeys, offset: int) -> None:
    data = bytearray(clinic_keys._encode())
    data[offset] ^= 1
    with pytest.raises(DecodeError, match="damaged"):
        ClinicKeys.load(_written(tmp_path, bytes(data)))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda f: [*f, b""],
        lambda f: f[:-1],
        lambda f: [b"linear-4096", *f[1:]],
        lambda f: [f[0], b"a b", *f[2:]],
        lambda f: [f[0], b"\xff", *f[2:]],
        lambda f: [*f[:2], b"\1\0\0\0\0", *f[3:]],
        lambda f: [*f[:2], b"\1", *f[3:]],
        lambda f: [*f[:3], b"\3" + f[3][1:], f[4]],
        lambda f: [*f[:3], f[3][1:], f[4]],
        lambda f: [*f[:4], b"\x2b" + f[4][1:]],
        lambda f: [*f[:4], f[4] + b"\0"],
        lambda f: [],
    ],
)
def test_a_key_file_with_a_good_checksum_and_bad_contents_is_refused(
    tmp_path: Path, clinic_keys: ClinicKeys, spoil
) -> None:
    fields = [
        clinic_keys.params.encode(),
        b"clinic-a",
        b"\1\0\0\0",
        bytes((clinic_keys.s + 1).tolist()),
        bytes((clinic_keys.e_pk + 21).tolist()),
    ]

    def file(parts: list[bytes], tail: bytes = b"") -> bytes:
        body = b"sealproof/clinic-key/v1\n" + b"".join(struct.pack("<I", len(part)) + part for part in parts) + tail
        return body + hashlib.sha256(body).digest()

    assert file(fields) == clinic_keys._encode()
    for data in (file(spoil(fields)), file(fields, b"\0"), file(fields, b"\xff\xff\xff\xff")):
        with pytest.raises(DecodeError):
            ClinicKeys.load(_written(tmp_path, data))
