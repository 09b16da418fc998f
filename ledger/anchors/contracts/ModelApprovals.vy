# pragma version 0.4.3
"""
@title Which models of one transparency log a set of hospitals approves
@license Apache-2.0
@notice A hospital approves the entry of a model by a signature that anybody may bring here: hospitals need no ether. A
        model is approved while `threshold` hospitals have approved it and not withdrawn.
@dev    Signed (secp256k1, low s) is the SHA-256 of

            sealproof/approval/v1, or sealproof/withdrawal/v1, and a newline
            chain id (32 bytes, big-endian), address of this contract (20), SHA-256 of the log's origin (32)
            index of the model's entry (8 bytes, big-endian), its leaf hash (32)

        so that a signature counts for one act, chain, contract, log and entry. The same signatures, with the hospitals'
        keys, make up the approval entry of the ledger.

        A withdrawal is for good. Approvals are public, on the ledger too, and carry no counter: if an approval after a
        withdrawal counted, anybody could bring the old one again. A counter for each hospital would prevent that here
        but not for readers of the ledger, who do not ask this contract. So a hospital that changes its mind once more
        approves a new entry of the model: its owner publishes the next version. A withdrawal counts before its approval
        came, too: a hospital that gave its signature away can still make it worthless.

        Hospitals and threshold never change. A hospital whose key was stolen withdraws what it approved; a new set of
        hospitals is a new contract, and a new governance file for whoever relies on it.
"""

event Approved:
    hospital: indexed(address)
    index: indexed(uint64)
    leaf: indexed(bytes32)
    approvals: uint256

event Withdrawn:
    hospital: indexed(address)
    index: indexed(uint64)
    leaf: indexed(bytes32)
    approvals: uint256

MAX_HOSPITALS: constant(uint256) = 32

# What this contract knows of a hospital and an entry; 0 is nothing.
APPROVED: constant(uint256) = 1
WITHDRAWN: constant(uint256) = 2

APPROVAL: constant(Bytes[24]) = b"sealproof/approval/v1\n"
WITHDRAWAL: constant(Bytes[24]) = b"sealproof/withdrawal/v1\n"

# n/2, n being the order of secp256k1: of the two values of s that verify, only the lower one counts.
HALF_ORDER: constant(uint256) = 57896044618658097711785492504343953926418782139537452191302581570759080747168

THRESHOLD: immutable(uint256)
ORIGIN_HASH: immutable(bytes32)

is_hospital: public(HashMap[address, bool])
listed: DynArray[address, MAX_HOSPITALS]

# By index and leaf hash of the entry: neither alone says which entry of which log is meant.
state: public(HashMap[uint64, HashMap[bytes32, HashMap[address, uint256]]])
approvals: public(HashMap[uint64, HashMap[bytes32, uint256]])


@deploy
def __init__(hospitals: DynArray[address, MAX_HOSPITALS], threshold: uint256, origin_hash: bytes32):
    assert threshold >= 1 and threshold <= len(hospitals), "the threshold is from 1 to the number of hospitals"
    assert origin_hash != empty(bytes32), "which log?"
    for hospital: address in hospitals:
        # ecrecover answers zero for what is no signature.
        assert hospital != empty(address), "the zero address is no hospital"
        assert not self.is_hospital[hospital], "a hospital is there twice"
        self.is_hospital[hospital] = True
    self.listed = hospitals
    THRESHOLD = threshold
    ORIGIN_HASH = origin_hash


@external
def approve(hospital: address, index: uint64, leaf: bytes32, r: bytes32, s: bytes32):
    """
    @notice Count a hospital's approval of the entry with this index and leaf hash. Anybody may bring it.
    """
    self._check(hospital, self._digest(APPROVAL, index, leaf), r, s)
    known: uint256 = self.state[index][leaf][hospital]
    assert known != WITHDRAWN, "withdrawn for good"
    assert known != APPROVED, "approved already"
    self.state[index][leaf][hospital] = APPROVED
    approvals: uint256 = self.approvals[index][leaf] + 1
    self.approvals[index][leaf] = approvals
    log Approved(hospital=hospital, index=index, leaf=leaf, approvals=approvals)


@external
def withdraw(hospital: address, index: uint64, leaf: bytes32, r: bytes32, s: bytes32):
    """
    @notice Withdraw a hospital's approval of this entry for good, whether it has come already or not. Anybody may bring
            the hospital's signature.
    """
    self._check(hospital, self._digest(WITHDRAWAL, index, leaf), r, s)
    known: uint256 = self.state[index][leaf][hospital]
    assert known != WITHDRAWN, "withdrawn already"
    self.state[index][leaf][hospital] = WITHDRAWN
    approvals: uint256 = self.approvals[index][leaf]
    if known == APPROVED:
        approvals -= 1
        self.approvals[index][leaf] = approvals
    log Withdrawn(hospital=hospital, index=index, leaf=leaf, approvals=approvals)


@external
@view
def approved(index: uint64, leaf: bytes32) -> bool:
    """
    @notice Whether enough hospitals approve this entry now.
    """
    return self.approvals[index][leaf] >= THRESHOLD


@external
@view
def states(index: uint64, leaf: bytes32) -> DynArray[uint256, MAX_HOSPITALS]:
    """
    @notice For each hospital, in the order of `hospitals`: 0 nothing, 1 approved, 2 withdrawn.
    """
    found: DynArray[uint256, MAX_HOSPITALS] = []
    for hospital: address in self.listed:
        found.append(self.state[index][leaf][hospital])
    return found


@external
@view
def hospitals() -> DynArray[address, MAX_HOSPITALS]:
    """
    @notice All hospitals.
    """
    return self.listed


@external
@view
def threshold() -> uint256:
    """
    @notice How many hospitals must approve.
    """
    return THRESHOLD


@external
@view
def origin_hash() -> bytes32:
    """
    @notice SHA-256 of the origin of the log whose models are approved here.
    """
    return ORIGIN_HASH


@external
@view
def approval_digest(index: uint64, leaf: bytes32) -> bytes32:
    """
    @notice What a hospital signs to approve this entry.
    """
    return self._digest(APPROVAL, index, leaf)


@external
@view
def withdrawal_digest(index: uint64, leaf: bytes32) -> bytes32:
    """
    @notice What a hospital signs to withdraw its approval of this entry.
    """
    return self._digest(WITHDRAWAL, index, leaf)


@internal
@view
def _digest(act: Bytes[24], index: uint64, leaf: bytes32) -> bytes32:
    place: Bytes[8] = slice(convert(index, bytes32), 24, 8)
    # The chain's id is asked for each time: on a chain that split off, what was signed before does not count.
    return sha256(concat(act, convert(chain.id, bytes32), convert(self, bytes20), ORIGIN_HASH, place, leaf))


@internal
@view
def _check(hospital: address, digest: bytes32, r: bytes32, s: bytes32):
    assert self.is_hospital[hospital], "no hospital of this contract"
    assert convert(s, uint256) <= HALF_ORDER, "s is above n/2: another spelling of the same signature"
    # Which of the two points r stands for is not part of the signature on the ledger: both are tried.
    if ecrecover(digest, 27, r, s) != hospital:
        assert ecrecover(digest, 28, r, s) == hospital, "not the hospital's signature of this act"
