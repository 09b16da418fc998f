"""Generators are hashes that anyone can recompute, disjoint by purpose, whatever lies in the cache."""

from __future__ import annotations

import hashlib
import re
from itertools import count
from pathlib import Path

import pytest

from privacy.errors import UsageError
from privacy.zk import generators as module
from privacy.zk.generators import BLINDING, blinding_generator, cache_folder, generators
from privacy.zk.group import ARKWORKS, REFERENCE

PURPOSES = ["test", "test/0", "test-0", "test0", "other"]


def expected(purpose: str, index: int) -> bytes:
    from py_ecc.bls.hash_to_curve import hash_to_G1
    from py_ecc.bls.point_compression import compress_G1

    tag = b"SEALPROOF-V1-BLS12381G1_XMD:SHA-256_SSWU_RO_"
    point = hash_to_G1(f"sealproof/v1/generator/{purpose}/{index}".encode(), tag, hashlib.sha256)
    return compress_G1(point).to_bytes(48, "big")


def encoded(purpose: str, number: int, group=ARKWORKS) -> list[bytes]:
    return [group.encode(p) for p in generators(purpose, number, group)]


def rewrite(path, data: bytes) -> None:
    """A forged cache file whose digest fits."""
    path.write_bytes(hashlib.sha256(data).digest() + data)


def test_generators_are_the_published_hashes_in_both_implementations(fresh_cache):
    for index, (mine, other) in enumerate(zip(encoded("test", 3), encoded("test", 3, REFERENCE), strict=True)):
        assert mine == other == expected("test", index)
    assert ARKWORKS.encode(blinding_generator()) == expected("blinding", 0)
    assert REFERENCE.encode(blinding_generator(REFERENCE)) == expected("blinding", 0)


def test_purposes_and_the_blinding_share_no_generator(fresh_cache):
    everything = [e for purpose in PURPOSES for e in encoded(purpose, 12)] + [ARKWORKS.encode(blinding_generator())]
    assert len(set(everything)) == 12 * len(PURPOSES) + 1


def test_purposes_have_separate_cache_files(fresh_cache):
    folder, _ = fresh_cache
    for purpose in PURPOSES:
        generators(purpose, 1)
    assert len(list(folder.iterdir())) == len(PURPOSES)


def test_longer_vectors_extend_shorter_ones_across_chunks(fresh_cache):
    long = encoded("test", 20)
    assert [len(encoded("test", n)) for n in (0, 1, 8, 9)] == [0, 1, 8, 9]
    assert all(encoded("test", n) == long[:n] for n in (1, 7, 8, 9, 16, 17))
    for index in (7, 8, 15, 16, 19):
        assert long[index] == expected("test", index)


def test_chunks_of_the_real_size_join_where_they_should(fresh_cache, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", 1024)
    long = encoded("test", 1025)
    assert [long[i] for i in (0, 1023, 1024)] == [expected("test", i) for i in (0, 1023, 1024)]
    assert len(set(long)) == 1025


def test_cache_is_read_back_and_not_written_again(fresh_cache, monkeypatch):
    folder, forget = fresh_cache
    first = encoded("test", 8)
    written = (folder / "test-0.bin").read_bytes()
    forget()
    monkeypatch.setattr(module, "_store", lambda *_: pytest.fail("a good cache file was thrown away"))
    assert encoded("test", 8) == first
    assert encoded("test", 8, REFERENCE) == first
    assert (folder / "test-0.bin").read_bytes() == written


def flipped(raw: bytes, byte: int) -> bytes:
    return raw[:byte] + bytes([raw[byte] ^ 1]) + raw[byte + 1 :]


CORRUPTIONS = {
    "a flipped coordinate bit": lambda raw: flipped(raw, 32 + 96 * 3 + 50),
    "a flipped digest bit": lambda raw: flipped(raw, 5),
    "truncated by a byte": lambda raw: raw[:-1],
    "truncated to the digest": lambda raw: raw[:32],
    "a byte too many": lambda raw: raw + b"\0",
    "empty": lambda raw: b"",
    "two points exchanged": lambda raw: raw[:32] + raw[128:224] + raw[32:128] + raw[224:],
    "a short file with a good digest": lambda raw: hashlib.sha256(raw[32:-96]).digest() + raw[32:-96],
    "a long file with a good digest": lambda raw: hashlib.sha256(raw[32:] + raw[:96]).digest() + raw[32:] + raw[:96],
    "an empty file with a good digest": lambda raw: hashlib.sha256(b"").digest(),
}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corrupted_cache_is_found_and_made_again(fresh_cache, name):
    folder, forget = fresh_cache
    good = encoded("test", 8)
    path = folder / "test-0.bin"
    raw = path.read_bytes()
    path.write_bytes(CORRUPTIONS[name](raw))
    forget()
    assert encoded("test", 8) == good
    assert path.read_bytes() == raw


def test_cache_of_another_purpose_or_chunk_is_found(fresh_cache):
    folder, forget = fresh_cache
    good, _ = encoded("test", 16), generators("other", 8)
    for source in ("other-0.bin", "test-1.bin"):
        (folder / "test-0.bin").write_bytes((folder / source).read_bytes())
        forget()
        assert encoded("test", 16) == good


def test_attack_generators_of_known_relation_with_a_good_digest_are_found(fresh_cache):
    # G_i = (i + 2) H: whoever wrote this file opens every commitment to anything.
    folder, forget = fresh_cache
    good = encoded("test", 8)
    path, h = folder / "test-0.bin", blinding_generator()
    rewrite(path, b"".join(ARKWORKS.export_affine(ARKWORKS.multiply(h, i + 2)) for i in range(8)))
    forget()
    assert encoded("test", 8) == good
    assert path.read_bytes()[32:128] == ARKWORKS.export_affine(generators("test", 1)[0])


@pytest.mark.parametrize("group", [ARKWORKS, REFERENCE], ids=lambda g: g.name)
def test_attack_one_exchanged_generator_is_found_when_a_spot_check_lands_on_it(fresh_cache, monkeypatch, group):
    folder, forget = fresh_cache
    good = encoded("test", 8)
    path = folder / "test-0.bin"
    data = path.read_bytes()[32:]
    forged = data[: 96 * 5] + ARKWORKS.export_affine(ARKWORKS.negate(generators("test", 6)[5])) + data[96 * 6 :]
    rewrite(path, forged)
    forget()
    # The sample is random; here its last draw is the forged place.
    draws = count()
    monkeypatch.setattr(
        module.secrets, "randbelow", lambda n: 5 if next(draws) % module._SPOT_CHECKS == module._SPOT_CHECKS - 1 else 0
    )
    assert encoded("test", 8, group) == good
    assert path.read_bytes()[32:] == data


def test_spot_checks_are_drawn_over_the_whole_chunk(fresh_cache, monkeypatch):
    _, forget = fresh_cache
    generators("test", 8)
    forget()
    bounds = []
    monkeypatch.setattr(module.secrets, "randbelow", lambda n: bounds.append(n) or 0)
    generators("test", 8)
    assert bounds == [8] * module._SPOT_CHECKS


def test_a_cache_that_cannot_be_written_costs_time_only(fresh_cache, tmp_path, monkeypatch):
    _, forget = fresh_cache
    good = encoded("test", 8)
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("SEALPROOF_CACHE", str(blocked))
    forget()
    assert encoded("test", 8) == good


def test_no_temporary_file_stays_behind(fresh_cache):
    folder, _ = fresh_cache
    generators("test", 20)
    assert sorted(p.name for p in folder.iterdir()) == ["test-0.bin", "test-1.bin", "test-2.bin"]


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SEALPROOF_CACHE", str(tmp_path / "a"))
    assert cache_folder() == tmp_path / "a"
    monkeypatch.delenv("SEALPROOF_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "b"))
    assert cache_folder() == tmp_path / "b" / "sealproof"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "c"))
    assert cache_folder() == tmp_path / "c" / ".cache" / "sealproof"


@pytest.mark.parametrize("purpose", ["", "Test", "a b", "a_b", "../a", "a.b", "a\n", "ä", "a\0"])
def test_purpose_that_is_not_plain_text_is_refused(purpose):
    with pytest.raises(UsageError, match="purpose"):
        generators(purpose, 1)


def test_attack_a_vector_on_the_blinding_generator_is_refused():
    with pytest.raises(UsageError, match="reserved"):
        generators(BLINDING, 1)


def test_attack_one_exchanged_generator_of_a_protocol_purpose_is_always_found(tmp_path, monkeypatch):
    # Spot checks would find one point in 1,024 rarely; the frozen digests of the package find it every time.
    monkeypatch.setenv("SEALPROOF_CACHE", str(tmp_path))
    module._chunk.cache_clear()
    good = encoded("quadratic/t", 2)
    path = tmp_path / "generators-v1" / "quadratic_t-0.bin"
    data = path.read_bytes()[32:]
    forged = data[:96] + ARKWORKS.export_affine(ARKWORKS.multiply(blinding_generator(), 7)) + data[192:]
    rewrite(path, forged)
    module._chunk.cache_clear()
    assert encoded("quadratic/t", 2) == good
    assert path.read_bytes()[32:] == data
    module._chunk.cache_clear()


def test_frozen_digests_are_those_of_the_hashes():
    frozen = module._frozen_digests()
    assert hashlib.sha256(module._hash_chunk("range/bits", 0)).hexdigest() == frozen["range/bits"][0]
    assert {len(digest) for digests in frozen.values() for digest in digests} == {64}


def test_every_purpose_that_the_package_names_is_frozen():
    named = {
        purpose
        for path in Path(module.__file__).parents[1].rglob("*.py")
        for purpose in re.findall(r'commitment_key\(\s*"([^"]+)"', path.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    assert named <= set(module._frozen_digests())
