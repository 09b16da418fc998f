"""Ethereum-like chains over JSON-RPC: deploy a contract, call it, send it a transaction, read its events.

The only module that imports web3 (extra `evm`); without it, importing this module raises MissingDependency. Errors of
web3 and of its HTTP library become ChainUnavailable (the node or the transaction did not get through) and ChainRefused
(the contract itself said no, and why). A node is believed: whoever relies on what a chain says chooses a node that he
trusts, or runs his own. Its address is never shown whole, since it often holds an access token.
"""

from __future__ import annotations

import json
import re
import secrets
import threading
import time
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import TracebackType
from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

from ledger.errors import ChainRefused, ChainUnavailable, MissingDependency, UsageError

try:
    import requests
    import web3
    from eth_account import Account
    from web3 import exceptions as web3_errors
except ImportError as error:
    raise MissingDependency("web3", "evm") from error

__all__ = ["Artefact", "Chain", "ChainKey", "Contract", "Event", "Finality", "Receipt", "account_of", "checked_address"]

Finality = Literal["latest", "safe", "finalized"]
"""Which block a chain is read at. A block that is not finalized may still be replaced by another."""

_ADDRESS: Final = re.compile(r"0x[0-9a-fA-F]{40}", re.ASCII)
_SECRET: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LAST_SECOND: Final = 253_402_300_799
"""9999-12-31T23:59:59Z: what cannot be written as a date is no time."""
_MOST_GAS: Final = 1 << 24
"""What one transaction may take at most (EIP-7825). Gas and fees are the node's word, and the key's account pays."""
_CURVE_ORDER: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@dataclass(frozen=True, slots=True)
class Artefact:
    """A compiled contract: what to deploy, how to talk to it, and what must lie at its address afterwards."""

    name: str
    abi: tuple[Mapping[str, Any], ...]
    bytecode: bytes
    """Code of the deployment, without the constructor's arguments."""
    runtime: bytes
    """Code at the contract's address, up to the immutable values that the constructor appends."""
    immutable_bytes: int
    """Number of those bytes."""
    compiler: str
    evm_version: str
    source_sha256: bytes

    @classmethod
    def load(cls, name: str) -> Artefact:
        """The contract `name` of this package, as `docs/tools/contracts.py` compiled it. Raises UsageError."""
        return _artefact(name)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Artefact:
        """An artefact from its file's content. It is part of this package or of a test, never from outside."""
        return cls(
            value["name"],
            tuple(value["abi"]),
            bytes.fromhex(value["bytecode"]),
            bytes.fromhex(value["runtime"]),
            value["immutable_bytes"],
            value["compiler"],
            value["evm_version"],
            bytes.fromhex(value["source_sha256"]),
        )


@cache
def _artefact(name: str) -> Artefact:
    path = resources.files("ledger.anchors") / "contracts" / f"{name}.json"
    if not path.is_file():
        raise UsageError(f"there is no contract {name!r} in this package")
    return Artefact.from_json(json.loads(path.read_text(encoding="utf-8")))


class ChainKey:
    """A secp256k1 secret that pays for transactions. It never appears in `repr`, and cannot be pickled."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) != 32 or not 0 < int.from_bytes(secret, "big") < _CURVE_ORDER:
            raise UsageError("an Ethereum key is a 32-byte number between 1 and the order of secp256k1")
        self._account = Account.from_key(secret)

    @classmethod
    def generate(cls) -> ChainKey:
        """A fresh key."""
        return cls((1 + secrets.randbelow(_CURVE_ORDER - 1)).to_bytes(32, "big"))

    @classmethod
    def parse(cls, text: str) -> ChainKey:
        """The key of 64 lower-case hex digits (what `format` gives, with or without its newline). Raises UsageError."""
        digits = text.removesuffix("\n")
        if _SECRET.fullmatch(digits) is None:
            raise UsageError("an Ethereum key is written as 64 lower-case hex digits, without 0x")
        return cls(bytes.fromhex(digits))

    def format(self) -> str:
        """The content of a key file. It is the secret itself."""
        return bytes(self._account.key).hex() + "\n"

    @property
    def address(self) -> str:
        """Its account, with checksum capitals (EIP-55)."""
        return str(self._account.address)

    def sign(self, transaction: Mapping[str, Any]) -> bytes:
        """The transaction, signed and ready to be sent."""
        return bytes(self._account.sign_transaction(dict(transaction)).raw_transaction)

    def __repr__(self) -> str:
        return f"ChainKey({self.address})"

    def __reduce__(self) -> str:
        raise TypeError("a secret key is not pickled")


@dataclass(frozen=True, slots=True)
class Receipt:
    """A transaction that succeeded."""

    transaction: bytes
    block: int
    gas_used: int
    address: str | None = None
    """Of the contract that it created, if it did."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a contract; `values` by parameter name."""

    name: str
    values: Mapping[str, Any]
    block: int
    transaction: bytes


class Chain:
    """A chain through one node. Use it in a `with` block, or call `close`. Safe to use from several threads."""

    def __init__(self, rpc: str, key: ChainKey | None, timeout: float, finality: Finality) -> None:
        self.shown = _host(rpc)
        # Our own session, so that it can be closed.
        session = requests.Session()
        weakref.finalize(self, session.close)
        self._session = session
        provider = web3.HTTPProvider(
            rpc,
            request_kwargs={"timeout": timeout, "allow_redirects": False},  # a node cannot send us elsewhere
            session=session,
            exception_retry_configuration=None,
        )
        self._web3 = web3.Web3(provider)
        self._lock = threading.Lock()
        self.key = key
        self.timeout = timeout
        self.finality = finality
        with self._translated("ask for the chain's id"):
            self.chain_id = int(self._web3.eth.chain_id)

    @classmethod
    def connect(
        cls, rpc: str, key: ChainKey | None = None, *, timeout: float = 60.0, finality: Finality = "latest"
    ) -> Chain:
        """The chain behind the node at `rpc` (http:// or https://).

        `key` pays for transactions; without one the chain can only be read. `timeout` in seconds is per request, and
        how long a transaction may take to be mined. Reading happens at the block that `finality` names.

        Raises UsageError for another kind of address, ChainUnavailable when no node answers there.
        """
        if not rpc.startswith(("http://", "https://")):
            raise UsageError("the address of a chain's node begins with http:// or https://")
        return cls(rpc, key, timeout, finality)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def block_number(self) -> int:
        """Number of the block that is read. Raises ChainUnavailable."""
        with self._translated(f"read its {self.finality} block"):
            return int(self._web3.eth.get_block(self.finality)["number"])

    def block_time(self, block: int) -> int:
        """When block number `block` was made, in seconds since 1970. Raises ChainUnavailable."""
        with self._translated(f"read block {block}"):
            time = int(self._web3.eth.get_block(block)["timestamp"])
        if not 0 <= time <= _LAST_SECOND:
            raise ChainUnavailable(self.shown, f"says that block {block} was made at {time}, which is no time")
        return time

    def deploy(self, artefact: Artefact, *arguments: Any) -> tuple[Contract, Receipt]:
        """Create a contract, paid by the key. Raises ChainUnavailable, ChainRefused, UsageError."""
        factory = self._web3.eth.contract(abi=list(artefact.abi), bytecode=artefact.bytecode)
        with _encoded(f"deploy {artefact.name}"):
            call = factory.constructor(*arguments)
        receipt = self._transact(f"deploy {artefact.name}", call)
        if receipt.address is None:
            raise ChainUnavailable(self.shown, "the receipt of a deployment names no contract")
        return Contract(self, receipt.address, artefact), receipt

    def contract(self, address: str, artefact: Artefact) -> Contract:
        """The contract at `address`, which must be exactly `artefact`: another could do as it likes.

        Only the immutable values at the end of the code may differ; ask the contract for them. Raises UsageError for
        a malformed address, ChainRefused when something else or nothing lies there, ChainUnavailable.
        """
        address = checked_address(address)
        with self._translated(f"read the code at {address}"):
            code = bytes(self._web3.eth.get_code(web3.Web3.to_checksum_address(address), self.finality))
        if not code:
            raise ChainRefused("chain.no-contract", f"no contract lies at {address} on chain {self.chain_id}")
        if len(code) != len(artefact.runtime) + artefact.immutable_bytes or not code.startswith(artefact.runtime):
            raise ChainRefused(
                "chain.other-contract",
                f"the contract at {address} on chain {self.chain_id} is not {artefact.name} "
                f"({artefact.compiler}, source {artefact.source_sha256.hex()[:16]}...)",
            )
        return Contract(self, address, artefact)

    def _transact(self, what: str, call: Any) -> Receipt:
        """Estimate, sign, send, and wait until it is mined."""
        if self.key is None:
            raise UsageError(f"to {what}, a key that pays for the transaction is needed")
        # One at a time: two transactions with one number would replace each other.
        with self._lock:
            with self._translated(what):
                sender = web3.Web3.to_checksum_address(self.key.address)
                gas = int(call.estimate_gas({"from": sender}))
                if gas + gas // 4 > _MOST_GAS:
                    raise ChainUnavailable(self.shown, f"asks {gas} gas to {what}: no transaction may take so much")
                transaction = call.build_transaction(
                    {
                        "from": sender,
                        "chainId": self.chain_id,
                        "nonce": self._web3.eth.get_transaction_count(sender, "pending"),
                        "gas": gas + gas // 4,
                    }
                )
                sent = self._web3.eth.send_raw_transaction(self.key.sign(transaction))
            with self._translated(f"{what}: transaction {sent.hex()} was sent; look for it before sending another"):
                mined = self._mined(sent)
        if mined["status"] != 1:
            raise ChainRefused("chain.reverted", f"{what}: transaction {sent.hex()} was reverted")
        created = mined.get("contractAddress")
        return Receipt(bytes(sent), int(mined["blockNumber"]), int(mined["gasUsed"]), created and str(created))

    def _mined(self, transaction: bytes) -> Any:
        """The receipt, once there is one: soon on a development chain, after seconds on others."""
        until, pause = time.monotonic() + self.timeout, 0.005
        while True:
            try:
                return self._web3.eth.get_transaction_receipt(transaction)
            except web3_errors.TransactionNotFound:
                if time.monotonic() > until:
                    raise web3_errors.TimeExhausted from None
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Errors of web3 and of its HTTP library as ours."""
        try:
            yield
        except web3_errors.ContractLogicError as error:
            raise ChainRefused("chain.refused", f"{what}: {_reason(error)}") from error
        except web3_errors.BadFunctionCallOutput as error:
            raise ChainRefused("chain.other-contract", f"{what}: the answer is not one of this contract") from error
        except web3_errors.TimeExhausted as error:
            raise ChainUnavailable(self.shown, f"{what}: not mined after {self.timeout:g} s") from error
        except web3_errors.Web3RPCError as error:
            raise ChainUnavailable(self.shown, f"{what}: {_node_message(error)}") from error
        except Exception as error:
            # A node may answer anything, and web3 raises whatever that leads to. The message may hold the whole
            # address of the node.
            raise ChainUnavailable(self.shown, f"{what}: {type(error).__name__}") from error


class Contract:
    """A contract on a chain; made by `Chain.deploy` and `Chain.contract`."""

    def __init__(self, chain: Chain, address: str, artefact: Artefact) -> None:
        self.chain = chain
        self.address = checked_address(address)
        self.artefact = artefact
        self._contract = chain._web3.eth.contract(
            address=web3.Web3.to_checksum_address(self.address), abi=list(artefact.abi)
        )

    def call(self, function: str, *arguments: Any) -> Any:
        """What a view answers, several values as a list. Raises ChainRefused when it reverts, ChainUnavailable."""
        what = f"ask {self.artefact.name}.{function}"
        with _encoded(what):
            call = self._contract.functions[function](*arguments)
        with self.chain._translated(what):
            return call.call(block_identifier=self.chain.finality)

    def send(self, function: str, *arguments: Any) -> Receipt:
        """Call a function in a transaction that the chain's key pays, and wait until it is mined.

        Raises ChainRefused with the contract's reason, ChainUnavailable, UsageError without a key.
        """
        what = f"send {self.artefact.name}.{function}"
        with _encoded(what):
            call = self._contract.functions[function](*arguments)
        return self.chain._transact(what, call)

    def events(
        self,
        name: str,
        filters: Mapping[str, Any] | None = None,
        *,
        first_block: int = 0,
        last_block: int | None = None,
    ) -> Iterator[Event]:
        """Events of a kind in order, up to the block that the chain is read at; `filters` are on indexed parameters.

        Raises ChainUnavailable.
        """
        last = self.chain.block_number() if last_block is None else last_block
        # Nodes allow different numbers of blocks per request: what one refuses is asked for in two halves.
        start, count = first_block, last - first_block + 1
        while start <= last:
            stop = min(start + count - 1, last)
            try:
                found = self._logs(name, filters or {}, start, stop)
            except ChainUnavailable:
                if stop == start:
                    raise
                count = (stop - start + 1) // 2
                continue
            start = stop + 1
            for log in found:
                yield Event(name, dict(log["args"]), int(log["blockNumber"]), bytes(log["transactionHash"]))

    def _logs(self, name: str, filters: Mapping[str, Any], start: int, stop: int) -> list[Any]:
        what = f"read the events {name} of {self.artefact.name}"
        with _encoded(what):
            event = self._contract.events[name]()
        with self.chain._translated(what):
            return list(event.get_logs(argument_filters=dict(filters), from_block=start, to_block=stop))


def checked_address(text: str) -> str:
    """An address with checksum capitals (EIP-55). Raises UsageError for another spelling, and for a wrong checksum."""
    if _ADDRESS.fullmatch(text) is None:
        raise UsageError(f"{text[:60]!r} is not the address of a contract: expected 0x and 40 hex digits")
    checked = str(web3.Web3.to_checksum_address(text.lower()))
    digits = text[2:]
    if digits not in (digits.lower(), checked[2:]):
        raise UsageError(f"the address {text} has a wrong checksum (EIP-55): a digit is wrong")
    return checked


def account_of(point: bytes) -> str:
    """Address of the account whose public key is the point x || y (64 bytes), with checksum capitals. UsageError."""
    if len(point) != 64:
        raise UsageError(f"a public key is 64 bytes, x and y; this one has {len(point)}")
    return str(web3.Web3.to_checksum_address(web3.Web3.keccak(point)[12:]))


@contextmanager
def _encoded(what: str) -> Iterator[None]:
    """Errors about a function and its arguments, before anything is sent."""
    try:
        yield
    except (web3_errors.Web3Exception, TypeError, ValueError) as error:
        raise UsageError(f"{what}: {' '.join(str(error).split())}") from error


def _node_message(error: web3_errors.Web3RPCError) -> str:
    response = error.rpc_response or {}
    said = response.get("error")
    return str(said.get("message") if isinstance(said, dict) else error)[:500]


def _reason(error: web3_errors.ContractLogicError) -> str:
    """What the contract gave as its reason."""
    text = str(error.message or "no reason given")
    return text.removeprefix("execution reverted").removeprefix(": ") or "no reason given"


def _host(rpc: str) -> str:
    """Host and port of a node: the path of its address often holds an access token. Raises UsageError."""
    try:
        parts = urlsplit(rpc)
        return f"{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        raise UsageError("the address of the chain's node is malformed") from None
