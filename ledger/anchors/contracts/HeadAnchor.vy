# pragma version 0.4.3
"""
@title The head of one transparency log, which can only grow
@notice The log's operator writes (size, root) here. Every step is checked to extend the one before (RFC 9162, section
        2.1.4.2), so a log whose past was changed cannot go on: the first honest head can never be replaced by another.
@dev    A root does not commit to the size of its tree (RFC 6962): the size is stored beside it, and an index at or
        beyond the size is refused before anything else is looked at. Signatures of checkpoints (Ed25519) are not
        verified here; whoever compares a checkpoint with this head has verified its signature. No function returns
        false: what does not hold reverts, with the reason.
"""

event Head:
    size: indexed(uint64)
    root: bytes32
    previous: uint64

MAX_SIZE: constant(uint64) = 2**62
MAX_HASHES: constant(uint256) = 63  # a tree of 2^62 leaves has paths of 62 hashes; consistency needs one more
EMPTY_ROOT: constant(bytes32) = 0xe3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  # SHA-256("")

OPERATOR: immutable(address)
FIRST_BLOCK: immutable(uint256)

origin: public(String[128])
size: public(uint64)
root: public(bytes32)


@deploy
def __init__(origin: String[128]):
    assert len(origin) > 0, "the log needs a name"
    OPERATOR = msg.sender
    FIRST_BLOCK = block.number
    self.origin = origin
    self.root = EMPTY_ROOT


@external
def advance(size: uint64, root: bytes32, proof: DynArray[bytes32, MAX_HASHES]):
    """
    @notice Replace the head by one that extends it. Only the operator.
    @param proof Consistency proof from the present size, as RFC 9162, section 2.1.4.1 orders it; none for the first
    """
    assert msg.sender == OPERATOR, "only the operator"
    old: uint64 = self.size
    assert size >= old, "rollback: the size is smaller"
    if size == old:
        assert root == self.root, "fork: another root of this size"
        raise "this head is anchored already"
    assert size <= MAX_SIZE, "no log is so large"
    if old == 0:
        assert len(proof) == 0, "the first head needs no proof"
    else:
        self._check_consistency(old, self.root, size, root, proof)
    self.size = size
    self.root = root
    log Head(size=size, root=root, previous=old)


@external
@view
def head() -> (String[128], uint64, bytes32):
    """
    @notice The log's name, the size of its tree and its root; size 0 before the first head
    """
    return self.origin, self.size, self.root


@external
@view
def operator() -> address:
    """
    @notice Who may advance the head
    """
    return OPERATOR


@external
@view
def first_block() -> uint256:
    """
    @notice The block of the deployment: no event is older
    """
    return FIRST_BLOCK


@external
@view
def verify_inclusion(leaf: bytes32, index: uint64, proof: DynArray[bytes32, MAX_HASHES]):
    """
    @notice Reverts unless leaf hash `leaf` is number `index` in the anchored tree (RFC 9162, section 2.1.3.2)
    @param leaf SHA-256(00 || entry), which the caller computes from the entry itself
    """
    assert index < self.size, "index: the tree is smaller"
    fn: uint256 = convert(index, uint256)
    sn: uint256 = convert(self.size - 1, uint256)
    computed: bytes32 = leaf
    for sibling: bytes32 in proof:
        assert sn != 0, "proof: too long"
        if fn & 1 == 1 or fn == sn:
            computed = self._node(sibling, computed)
            for _: uint256 in range(64):
                if fn & 1 == 1 or fn == 0:
                    break
                fn >>= 1
                sn >>= 1
        else:
            computed = self._node(computed, sibling)
        fn >>= 1
        sn >>= 1
    assert sn == 0, "proof: too short"
    assert computed == self.root, "proof: another root"


@internal
@pure
def _check_consistency(
    size1: uint64, root1: bytes32, size2: uint64, root2: bytes32, proof: DynArray[bytes32, MAX_HASHES]
):
    # 0 < size1 < size2. RFC 9162, section 2.1.4.2; fn and sn are the RFC's.
    assert len(proof) > 0, "proof: too short"
    fn: uint256 = convert(size1 - 1, uint256)
    sn: uint256 = convert(size2 - 1, uint256)
    for _: uint256 in range(64):
        if fn & 1 == 0:
            break
        fn >>= 1
        sn >>= 1
    # A perfect old tree is itself a node of the new one: its root opens the path.
    perfect: bool = size1 & (size1 - 1) == 0
    first: bytes32 = root1
    second: bytes32 = root1
    if not perfect:
        first = proof[0]
        second = proof[0]
    for i: uint256 in range(len(proof), bound=MAX_HASHES):
        if i == 0 and not perfect:
            continue
        assert sn != 0, "proof: too long"
        if fn & 1 == 1 or fn == sn:
            first = self._node(proof[i], first)
            second = self._node(proof[i], second)
            for _: uint256 in range(64):
                if fn & 1 == 1 or fn == 0:
                    break
                fn >>= 1
                sn >>= 1
        else:
            second = self._node(second, proof[i])
        fn >>= 1
        sn >>= 1
    assert sn == 0, "proof: too short"
    assert first == root1, "proof: not from the anchored root"
    assert second == root2, "proof: not to this root"


@internal
@pure
def _node(left: bytes32, right: bytes32) -> bytes32:
    return sha256(concat(0x01, left, right))
