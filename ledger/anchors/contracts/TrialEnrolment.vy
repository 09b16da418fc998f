#pragma version 0.4.3
"""
@title Enrolment in a trial: at least `quorum` of a committee say that a record qualifies
@license Apache-2.0
@notice A member signs after verifying, off this chain, a clinic's proof that the committed answer of one model about one
        record reaches the trial's threshold (docs/spec/protocol.md, section 7, Disclosure). This contract checks the
        members' BLS signature, that it is about this trial, and that record and nonce are new. It sees no patient data:
        leaves of the ledger, a blinded handle, a nonce.
"""

# Committee: public keys in G2 with a proof of possession, so that nobody brings a key that cancels another's; fixed by
# `seal`. Signatures are in G1: BLS12-381, RFC 9380 BLS12381G1_XMD:SHA-256_SSWU_RO_; points and precompiles as in
# EIP-2537. Every digest is SHA-256 of a tag and fields of 32 bytes (the contract's address: 20), numbers big-endian:
#
#   committee  c_0 = 0,  c_(i+1) = H(c_i, key_i)                                           key: 256 bytes
#   trial      H("sealproof/trial/v1\n", chain, contract, origin, index, model, output, threshold, quorum, members,
#                committee)
#   nonce      H("sealproof/trial-nonce/v1\n", trial, case, blinding)
#   handle     H("sealproof/trial-handle/v1\n", trial, blinded handle of the record)      computed by the committee
#   message    H("sealproof/enrolment/v1\n", trial, prediction, disclosure, handle, nonce)

event MemberAdded:
    index: indexed(uint256)
    key: bytes32[8]

event Sealed:
    trial: bytes32

event NonceIssued:
    case: indexed(uint256)
    nonce: bytes32
    blinding: bytes32

event Enrolled:
    handle: indexed(bytes32)
    disclosure: indexed(bytes32)
    prediction: bytes32
    nonce: bytes32
    bitmap: uint256

MAX_MEMBERS: constant(uint256) = 64

# States of a nonce; 0 is unknown.
ISSUED: constant(uint256) = 1
SPENT: constant(uint256) = 2

# Precompiles: modular exponentiation (EIP-198), and those of EIP-2537.
MODEXP: constant(address) = 0x0000000000000000000000000000000000000005
G1_ADD: constant(address) = 0x000000000000000000000000000000000000000b
G2_ADD: constant(address) = 0x000000000000000000000000000000000000000d
PAIRING: constant(address) = 0x000000000000000000000000000000000000000F
MAP_TO_G1: constant(address) = 0x0000000000000000000000000000000000000010

# Domain separation tags with their length (62) as a last byte: DST_prime of RFC 9380, section 5.3.1.
SIGNATURE_TAG: constant(Bytes[63]) = b"SEALPROOF-V1-COMMITTEE-SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_\x3e"
POSSESSION_TAG: constant(Bytes[63]) = b"SEALPROOF-V1-COMMITTEE-POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_\x3e"

# 128 bytes are expanded: two numbers of 64.
EXPANDED_BYTES: constant(Bytes[3]) = x"008000"

# Lengths 64, 1, 48 of base, exponent and modulus; exponent and modulus: u^1 mod p.
MODEXP_LENGTHS: constant(Bytes[96]) = x"000000000000000000000000000000000000000000000000000000000000004000000000000000000000000000000000000000000000000000000000000000010000000000000000000000000000000000000000000000000000000000000030"
FIRST_POWER_MOD_P: constant(Bytes[49]) = x"011a0111ea397fe69a4b1ba7b6434bacd764774b84f38512bf6730d2a0f6b0f6241eabfffeb153ffffb9feffffffffaaab"

# The generator of G2, negated.
MINUS_G2: constant(Bytes[256]) = x"00000000000000000000000000000000024aa2b2f08f0a91260805272dc51051c6e47ad4fa403b02b4510b647ae3d1770bac0326a805bbefd48056c8c121bdb80000000000000000000000000000000013e02b6052719f607dacd3a088274f65596bd0d09920b61ab5da61bbdc7f5049334cf11213945d57e5ac7d055d042b7e000000000000000000000000000000000d1b3cc2c7027888be51d9ef691d77bcb679afda66c73f17f9ee3837a55024f78c71363275a75d75d86bab79f74782aa0000000000000000000000000000000013fa4d4a0ad8b1ce186ed5061789213d993923066dddaf1040bc3ff59f825c78df74f2d75467e25e0f55f8a00fa030ed"

# The organiser adds the committee's members and issues nonces. Enrolling is open to anybody who has the signatures.
ORGANISER: public(immutable(address))
CHAIN: immutable(uint256)

# Where a search for events begins.
FIRST_BLOCK: public(immutable(uint256))

# SHA-256 of the ledger's origin; index and leaf of the model's entry on it; the model's output; least answer, in grid
# steps of the model.
ORIGIN: public(immutable(bytes32))
INDEX: public(immutable(uint256))
MODEL: public(immutable(bytes32))
OUTPUT: public(immutable(uint256))
THRESHOLD: public(immutable(int256))
QUORUM: public(immutable(uint256))

# Digest that all signatures are bound to; zero until the committee is sealed.
trial: public(bytes32)
members: public(uint256)
committee: public(bytes32)
cases: public(uint256)
participants: public(uint256)

keys: HashMap[uint256, bytes32[8]]
known: HashMap[bytes32, bool]
nonces: public(HashMap[bytes32, uint256])
enrolled: public(HashMap[bytes32, bool])


@deploy
def __init__(origin: bytes32, index: uint256, model: bytes32, output: uint256, threshold: int256, quorum: uint256):
    assert quorum >= 1 and quorum <= MAX_MEMBERS, "the quorum is from 1 to 64"
    ORGANISER = msg.sender
    CHAIN = chain.id
    FIRST_BLOCK = block.number
    ORIGIN = origin
    INDEX = index
    MODEL = model
    OUTPUT = output
    THRESHOLD = threshold
    QUORUM = quorum


@external
def add_member(key: bytes32[8], possession: bytes32[4]):
    """
    @notice Add a member whose `possession` shows that the secret of `key` is known: its signature of the key's 256 bytes
            under POSSESSION_TAG. The pairing precompile refuses points off the curve or the subgroup.
    """
    assert msg.sender == ORGANISER, "not the organiser"
    assert self.trial == empty(bytes32), "the committee is sealed"
    assert self.members < MAX_MEMBERS, "the committee is full"
    encoded: Bytes[256] = abi_encode(key)
    digest: bytes32 = sha256(encoded)
    assert not self.known[digest], "already a member"
    assert not self._is_zero(encoded), "the key is the identity"
    hashed: bytes32[4] = self._hash_to_curve(encoded, POSSESSION_TAG)
    assert self._signed(possession, hashed, key), "no proof of possession"
    index: uint256 = self.members
    self.known[digest] = True
    self.keys[index] = key
    self.members = index + 1
    self.committee = sha256(concat(self.committee, encoded))
    log MemberAdded(index=index, key=key)


@external
def seal():
    """
    @notice Fix the committee; from now on records can be enrolled.
    """
    assert msg.sender == ORGANISER, "not the organiser"
    assert self.trial == empty(bytes32), "the committee is sealed"
    assert self.members >= QUORUM, "fewer members than the quorum"
    self.trial = sha256(
        concat(
            b"sealproof/trial/v1\n",
            convert(CHAIN, bytes32),
            convert(self, bytes20),
            ORIGIN,
            convert(INDEX, bytes32),
            MODEL,
            convert(OUTPUT, bytes32),
            convert(THRESHOLD, bytes32),
            convert(QUORUM, bytes32),
            convert(self.members, bytes32),
            self.committee,
        )
    )
    log Sealed(trial=self.trial)


@external
def issue(blinding: bytes32) -> bytes32:
    """
    @notice A nonce for one more case, which the clinic puts into its disclosure. `blinding` is random, so that nobody
            knows the nonce beforehand.
    """
    assert msg.sender == ORGANISER, "not the organiser"
    assert self.trial != empty(bytes32), "the committee is not sealed"
    case: uint256 = self.cases
    nonce: bytes32 = sha256(concat(b"sealproof/trial-nonce/v1\n", self.trial, convert(case, bytes32), blinding))
    self.cases = case + 1
    self.nonces[nonce] = ISSUED
    log NonceIssued(case=case, nonce=nonce, blinding=blinding)
    return nonce


@external
def enrol(
    prediction: bytes32, disclosure: bytes32, handle: bytes32, nonce: bytes32, bitmap: uint256, signature: bytes32[4]
):
    """
    @notice Enrol the record whose blinded handle is `handle`, by the aggregate signature of the members of `bitmap` (bit
            i: member i). Anybody may send it.
    """
    assert chain.id == CHAIN, "another chain than that of the trial"
    assert self.trial != empty(bytes32), "the committee is not sealed"
    assert self.nonces[nonce] == ISSUED, "the nonce was not issued, or is spent"
    assert not self.enrolled[handle], "already enrolled"
    assert not self._is_zero(abi_encode(signature)), "the signature is the identity"
    hashed: bytes32[4] = self._hash_to_curve(
        abi_encode(self._message(prediction, disclosure, handle, nonce)), SIGNATURE_TAG
    )
    assert self._signed(signature, hashed, self._aggregate(bitmap)), "not the members' signature of this enrolment"
    self.nonces[nonce] = SPENT
    self.enrolled[handle] = True
    self.participants += 1
    log Enrolled(handle=handle, disclosure=disclosure, prediction=prediction, nonce=nonce, bitmap=bitmap)


@external
@view
def key(index: uint256) -> bytes32[8]:
    """
    @notice Public key of a member.
    """
    assert index < self.members, "no such member"
    return self.keys[index]


@external
@view
def message(prediction: bytes32, disclosure: bytes32, handle: bytes32, nonce: bytes32) -> bytes32:
    """
    @notice What members sign of an enrolment.
    """
    return self._message(prediction, disclosure, handle, nonce)


@external
@view
def hash_to_curve(message: bytes32) -> bytes32[4]:
    """
    @notice The point that members multiply by their secrets, for whoever has no RFC 9380 at hand.
    """
    return self._hash_to_curve(abi_encode(message), SIGNATURE_TAG)


@internal
@view
def _message(prediction: bytes32, disclosure: bytes32, handle: bytes32, nonce: bytes32) -> bytes32:
    return sha256(concat(b"sealproof/enrolment/v1\n", self.trial, prediction, disclosure, handle, nonce))


@internal
@view
def _aggregate(bitmap: uint256) -> bytes32[8]:
    """
    @dev Sum of the keys of `bitmap`. Each is proved and in the subgroup, so their sum is in the subgroup, too.
    """
    assert bitmap >> self.members == 0, "the bitmap names members that do not exist"
    total: bytes32[8] = empty(bytes32[8])
    signers: uint256 = 0
    for i: uint256 in range(MAX_MEMBERS):
        rest: uint256 = bitmap >> i
        if rest == 0:
            break
        if rest & 1 == 1:
            total = abi_decode(self._precompile(G2_ADD, abi_encode(total, self.keys[i]), 256), bytes32[8])
            signers += 1
    assert signers >= QUORUM, "fewer members than the quorum"
    # Members could make keys together whose sum is zero: then nobody's signature would do.
    assert not self._is_zero(abi_encode(total)), "the keys cancel"
    return total


@internal
@view
def _signed(signature: bytes32[4], hashed: bytes32[4], key: bytes32[8]) -> bool:
    """
    @dev e(signature, -g2) e(hashed, key) = 1. The precompile reverts unless all four are in their subgroups.
    """
    pairs: Bytes[768] = concat(abi_encode(signature), MINUS_G2, abi_encode(hashed), abi_encode(key))
    return abi_decode(self._precompile(PAIRING, pairs, 32), uint256) == 1


@internal
@view
def _hash_to_curve(message: Bytes[256], tag: Bytes[63]) -> bytes32[4]:
    """
    @dev RFC 9380: expand_message_xmd (5.3.1), hash_to_field (5.2), hash_to_curve (3). The map clears the cofactor, which
         may be done before the addition as well as after.
    """
    zeros: bytes32 = empty(bytes32)
    first: bytes32 = sha256(concat(zeros, zeros, message, EXPANDED_BYTES, tag))
    b1: bytes32 = sha256(concat(first, x"01", tag))
    b2: bytes32 = self._next(first, b1, x"02", tag)
    b3: bytes32 = self._next(first, b2, x"03", tag)
    b4: bytes32 = self._next(first, b3, x"04", tag)
    points: Bytes[256] = concat(self._map(b1, b2), self._map(b3, b4))
    return abi_decode(self._precompile(G1_ADD, points, 128), bytes32[4])


@internal
@pure
def _next(first: bytes32, last: bytes32, number: Bytes[1], tag: Bytes[63]) -> bytes32:
    mixed: uint256 = convert(first, uint256) ^ convert(last, uint256)
    return sha256(concat(convert(mixed, bytes32), number, tag))


@internal
@view
def _map(high: bytes32, low: bytes32) -> Bytes[128]:
    """
    @dev The point that high || low, reduced mod p, is mapped to.
    """
    reduced: Bytes[256] = self._precompile(MODEXP, concat(MODEXP_LENGTHS, high, low, FIRST_POWER_MOD_P), 48)
    return slice(self._precompile(MAP_TO_G1, concat(empty(bytes16), slice(reduced, 0, 48)), 128), 0, 128)


@internal
@view
def _precompile(at: address, data: Bytes[768], size: uint256) -> Bytes[256]:
    """
    @dev What a precompile answers. Where a chain does not have it, the call succeeds and answers nothing: so its size is
         checked.
    """
    success: bool = False
    answer: Bytes[256] = b""
    success, answer = raw_call(at, data, max_outsize=256, is_static_call=True, revert_on_failure=False)
    assert success and len(answer) == size, "not points of the right subgroup"
    return answer


@internal
@pure
def _is_zero(data: Bytes[256]) -> bool:
    """
    @dev The identity, which has one encoding only, is all zeros.
    """
    for i: uint256 in range(8):
        if 32 * i < len(data) and extract32(data, 32 * i) != empty(bytes32):
            return False
    return True
