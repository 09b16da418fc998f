"""The anchors of a log: which contracts on which chains, and moving them to the log's newest head.

The list is a JSON file, written by `sealproof ledger anchor deploy` or by hand:

    [{"name": "main", "rpc": "https://node.example/token", "contract": "0x...", "keyFile": "chain.key",
      "finality": "finalized"}]

`keyFile` (needed to push, not to compare) is relative to the list; `finality` is the block at which a chain is read
when bundles are compared with it: latest (the default), safe or finalized. Reading the list needs no web3; using it
does, and raises ledger's MissingDependency where it is not installed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.alias_generators import to_camel

import ledger
from api.client.anchored import AnchorComparison, check_anchor
from api.client.session import log_errors
from api.client.trust import ConsistencySource
from ledger import VerifiedHead
from ledger.errors import OriginMismatch
from privacy.errors import DecodeError, UsageError, VerificationFailed
from privacy.private_files import read_limited, write_private

if TYPE_CHECKING:
    from ledger.anchors.evm import Receipt
    from ledger.anchors.head import AnchoredHead
    from ledger.anchors.head_anchor import HeadAnchor

__all__ = [
    "Anchor",
    "Pushed",
    "add_anchor",
    "compare_head",
    "open_anchor",
    "parse_anchors",
    "push_head",
    "read_anchors",
]

_MAX_BYTES: Final = 1 << 16
_MAX_ANCHORS: Final = 32
_WHAT: Final = "list of anchors"
_ADDRESS: Final = r"^0x[0-9a-fA-F]{40}$"


@dataclass(frozen=True)
class Anchor:
    """One line of the list."""

    __pydantic_config__ = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=False)

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$")]
    rpc: Annotated[str, Field(pattern=r"^https?://\S+$", max_length=2048)]
    contract: Annotated[str, Field(pattern=_ADDRESS)]
    key_file: Path | None = None
    finality: Literal["latest", "safe", "finalized"] = "latest"


_LIST: Final = TypeAdapter(Annotated[list[Anchor], Field(max_length=_MAX_ANCHORS)])


@dataclass(frozen=True)
class Pushed:
    """What became of a push: the head that was anchored before it, and the receipt of the new one, if it is new."""

    before: AnchoredHead
    receipt: Receipt | None


def read_anchors(path: Path) -> list[Anchor]:
    """The list in a file; its key files are looked for beside it. Raises UsageError, DecodeError."""
    return [_at(anchor, path.parent) for anchor in _listed(path)]


def parse_anchors(text: str) -> list[Anchor]:
    """What a user gave: `RPC#CONTRACT`, or the name of a file with a list, which must not be empty.

    Raises UsageError, DecodeError, and ledger's MissingDependency at once where web3 is missing: comparing needs it.
    """
    from ledger.anchors import evm  # noqa: F401

    if text.startswith(("http://", "https://")):
        rpc, _, contract = text.rpartition("#")
        try:
            return _LIST.validate_python([{"name": "anchor", "rpc": rpc, "contract": contract}])
        except ValidationError:
            raise UsageError(
                "an anchor is given as the node's address, # and the contract's address (0x and 40 hex digits), such "
                "as http://127.0.0.1:8545#0x..., or as the name of a file"
            ) from None
    anchors = read_anchors(Path(text))
    if not anchors:
        raise UsageError(f"{text} lists no anchors, so there is nothing to compare with")
    return anchors


def add_anchor(path: Path, anchor: Anchor) -> None:
    """Put one more anchor into the list, which is made if there is none. Raises UsageError for a name that is taken."""
    anchors = _listed(path) if path.exists() else []
    if any(known.name == anchor.name for known in anchors):
        raise UsageError(f"{path} has an anchor {anchor.name!r} already: give another --name")
    anchors.append(anchor)
    value = _LIST.dump_python(anchors, mode="json", by_alias=True, exclude_none=True)
    # Private, because the address of a node often holds an access token.
    write_private(path, (json.dumps(value, indent=2) + "\n").encode())


@contextmanager
def open_anchor(anchor: Anchor, *, to_push: bool = False) -> Iterator[HeadAnchor]:
    """The contract, whose code is checked to be ours; with `to_push`, its key pays and the newest block counts.

    Raises ledger's MissingDependency, ChainUnavailable, ChainRefused and UsageError; UsageError without a key.
    """
    from ledger.anchors.evm import Chain
    from ledger.anchors.head_anchor import HeadAnchor

    key = None
    if to_push:
        from api.chain.keys import load_key

        if anchor.key_file is None:
            raise UsageError(f"the anchor {anchor.name!r} has no keyFile, which a push needs")
        key = load_key(anchor.key_file)
    # A push builds on the newest block: the contract would refuse a proof from an older head.
    with Chain.connect(anchor.rpc, key, finality="latest" if to_push else anchor.finality) as chain:
        yield HeadAnchor.at(chain, anchor.contract)


def compare_head(
    anchors: Sequence[Anchor], head: VerifiedHead, consistency: ConsistencySource | None
) -> list[AnchorComparison]:
    """Compare a head with every anchor: what `api.client.anchored.check_anchor` finds, and raises, of each."""
    found = []
    for anchor in anchors:
        with log_errors(), open_anchor(anchor) as opened:
            found.append(check_anchor(head, consistency, opened))
    return found


def push_head(anchor: HeadAnchor, head: VerifiedHead, consistency: ConsistencySource) -> Pushed:
    """Move the anchor to `head`, unless it is there. All that the contract will check is checked here first.

    Raises:
        VerificationFailed: `anchor.rollback` for a smaller head than the anchored one, `anchor.fork` for one that does
            not extend it.
        ledger.OriginMismatch: the anchor is another log's.
        ledger.ChainUnavailable, ledger.ChainRefused: of the transaction.
    """
    before = anchor.newest()
    if head.origin != anchor.origin:
        raise OriginMismatch(anchor.origin, head.origin)
    if head.size < before.size:
        raise VerificationFailed(
            "anchor.rollback", f"the log has {head.size} entries, but {before.size} are anchored at {anchor.name}"
        )
    if head.size == before.size and head.root == before.root:
        return Pushed(before, None)
    proof = tuple(consistency(before.size, head.size)) if 0 < before.size < head.size else ()
    if before.size:
        try:
            ledger.verify_consistency(before.size, head.size, proof, before.root, head.root)
        except ledger.VerificationFailed as error:
            raise VerificationFailed(
                "anchor.fork", f"the log does not extend the {before.size} entries anchored at {anchor.name}: {error}"
            ) from error
    return Pushed(before, anchor.advance(head, proof))


def _listed(path: Path) -> list[Anchor]:
    """The list as it is written."""
    data = read_limited(path, _MAX_BYTES)
    if len(data) > _MAX_BYTES:
        raise DecodeError(_WHAT, f"{path} has more than {_MAX_BYTES} bytes")
    try:
        anchors = _LIST.validate_python(json.loads(data, object_pairs_hook=_once))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise DecodeError(_WHAT, f"{path}, {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise DecodeError(_WHAT, f"{path} is not JSON: {error}") from None
    names = [anchor.name for anchor in anchors]
    if len(set(names)) != len(names):
        raise DecodeError(_WHAT, f"{path} has two anchors of one name")
    return anchors


def _at(anchor: Anchor, folder: Path) -> Anchor:
    if anchor.key_file is None:
        return anchor
    return Anchor(anchor.name, anchor.rpc, anchor.contract, folder / anchor.key_file, anchor.finality)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is there twice")
    return found
