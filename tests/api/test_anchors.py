"""Anchoring a running server's log from the command line, and comparing bundles with what is anchored."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from api.chain.anchors import Anchor, add_anchor, parse_anchors, read_anchors
from api.cli.main import main
from api.client.anchored import check_anchor
from api.client.owner import Owner
from api.client.transport import Server
from ledger import Checkpoint, Signer, VerifiedHead, Verifier, open_checkpoint
from ledger.anchors.head import AnchoredHead
from ledger.checkpoint import sign_checkpoint
from ledger.errors import ChainUnavailable
from privacy.errors import DecodeError, UsageError, VerificationFailed
from tests.support.anvil import KEYS
from tests.support.service import RunningServer, listening

FROZEN = Path(__file__).resolve().parents[1] / "frozen" / "v1"
BUNDLE = FROZEN / "heart.sealproof"
ADDRESS = "0x5FbDB2315678afecb367f032d93F642f64180aa3"


def sealproof(*arguments: str, code: int = 0) -> tuple[str, str]:
    """Run a command in this process; its standard output and standard error."""
    out, err = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["sealproof", *arguments])
        patch.setattr("sys.stdout", out)
        patch.setattr("sys.stderr", err)
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == code, (arguments, out.getvalue(), err.getvalue())
    return out.getvalue(), err.getvalue()


def told(*arguments: str, code: int = 0) -> Any:
    return json.loads(sealproof(*arguments, "--json", code=code)[0])


# -- a server and two chains that are one ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    with listening(tmp_path_factory.mktemp("anchored") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def folder(server, chain, tmp_path_factory) -> Path:
    """The log's key, a chain key, and a list with one anchor `main`, which holds the first heads."""
    made = tmp_path_factory.mktemp("operator")
    (made / "log.vkey").write_text(server.log_key + "\n")
    (made / "chain.key").touch(0o600)
    (made / "chain.key").write_text(KEYS[2])
    return made


class Operator:
    def __init__(self, folder: Path, server: RunningServer, rpc: str) -> None:
        self.server, self.rpc, self.config = server, rpc, folder / "anchors.json"
        self.log = ("--server", server.url, "--log-key", str(folder / "log.vkey"))
        self.list = ("--config", str(self.config))
        self._folder = folder

    def __call__(self, command: str, *more: str, code: int = 0) -> Any:
        return told("ledger", "anchor", command, *self.log, *self.list, *more, code=code)

    def deploy(self, name: str, code: int = 0) -> Any:
        key = str(self._folder / "chain.key")
        return self("deploy", "--rpc", self.rpc, "--key", key, "--name", name, code=code)

    def grow(self, folder: Path, name: str) -> int:
        """One more entry; the log's size afterwards."""
        Owner.init(folder, self.server.url, name, log_key=self.server.log_key)
        return self.head().size

    def head(self) -> VerifiedHead:
        """The head that the server shows now."""
        verifier = Verifier.parse(self.server.log_key)
        return open_checkpoint(Server(self.server.url).checkpoint(), verifier, verifier.name)


@pytest.fixture
def operator(folder, server, anvil) -> Iterator[Operator]:
    yield Operator(folder, server, anvil.rpc)
    (folder / "anchors.json").unlink(missing_ok=True)


def test_deploy_push_status_and_push_again(operator, tmp_path):
    deployed = operator.deploy("main")
    assert deployed["chain"] == 31337
    assert 900_000 < deployed["gas"] < 1_100_000
    assert [anchor.name for anchor in read_anchors(operator.config)] == ["main"]
    assert operator.config.stat().st_mode & 0o077 == 0
    (row,) = operator("status")["anchors"]
    assert (row["size"], row["result"]) == (0, "holds")

    size = operator.grow(tmp_path / "one", "lab-one")
    pushed = operator("push")
    assert (pushed["size"], pushed["anchors"][0]["result"]) == (size, "pushed")
    assert pushed["anchors"][0]["gas"] < 60_000
    assert operator("push")["anchors"][0]["result"] == "current"
    grown = operator.grow(tmp_path / "two", "lab-two")
    (row,) = operator("status")["anchors"]
    assert (row["size"], row["behind"]) == (size, grown - size)
    assert operator("push")["anchors"][0]["from"] == size
    (row,) = operator("status")["anchors"]
    assert (row["size"], row["behind"], row["origin"]) == (grown, 0, deployed["origin"])
    assert row["operator"] == "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"


def test_one_chain_that_fails_does_not_keep_the_others(operator, tmp_path):
    operator.deploy("first")
    dead = replace(read_anchors(operator.config)[0], name="dead", rpc="http://127.0.0.1:1/token")
    add_anchor(operator.config, dead)
    operator.deploy("last")
    operator.grow(tmp_path / "three", "lab-three")
    pushed = operator("push", code=3)
    results = {row["name"]: row["result"] for row in pushed["anchors"]}
    assert results == {"first": "pushed", "dead": "failed", "last": "pushed"}
    shown = operator("status", code=3)["anchors"]
    assert [row.get("size") for row in shown] == [pushed["size"], None, pushed["size"]]
    assert "token" not in json.dumps(pushed) + json.dumps(shown)
    out, err = sealproof("ledger", "anchor", "status", *operator.list, code=3)
    assert out.count("holds") == 2
    assert err.startswith("dead: failed")


def test_there_must_be_something_to_push_to(operator):
    operator.config.write_text("[]")
    _, err = sealproof("ledger", "anchor", "push", *operator.log, *operator.list, code=2)
    assert "lists no anchors" in err
    assert operator("status")["anchors"] == []
    operator.config.unlink()
    _, err = sealproof("ledger", "anchor", "push", *operator.log, *operator.list, code=2)
    assert "cannot read" in err


def test_a_second_anchor_of_one_name_costs_nothing(operator):
    operator.deploy("main")
    before = operator.config.read_bytes()
    _, err = sealproof(
        *("ledger", "anchor", "deploy", *operator.log, *operator.list, "--rpc", operator.rpc),
        *("--key", str(operator.config.parent / "chain.key"), "--name", "main"),
        code=2,
    )
    assert "another --name" in err
    assert operator.config.read_bytes() == before


def test_a_push_of_a_forked_log_is_refused_and_told_as_such(operator, chain):
    from ledger.anchors.head_anchor import HeadAnchor

    origin, size = operator.deploy("main")["origin"], operator.head().size
    contract = read_anchors(operator.config)[0].contract
    # Somebody with the log's key and the chain's key anchored another history of the same size.
    signer = Signer(origin, bytes(32))
    note = sign_checkpoint(Checkpoint(origin, size, bytes(range(32))), signer)
    from ledger.anchors.evm import Chain, ChainKey

    with Chain.connect(operator.rpc, ChainKey.parse(KEYS[2])) as paid:
        HeadAnchor.at(paid, contract).advance(open_checkpoint(note, signer.verifier, origin), [])
    (row,) = operator("push", code=1)["anchors"]
    assert row["result"] == "refused"
    assert "anchor.fork" in row["message"]


def test_heads_of_a_server_are_tied_to_the_anchor_by_its_proofs(operator, tmp_path):
    source = Server(operator.server.url)
    operator.deploy("main")
    operator.grow(tmp_path / "four", "lab-four")
    old = operator.head()
    operator("push")
    operator.grow(tmp_path / "five", "lab-five")
    middle = operator.head()
    operator.grow(tmp_path / "six", "lab-six")
    operator("push")
    operator.grow(tmp_path / "seven", "lab-seven")
    new = operator.head()

    from api.chain.anchors import compare_head

    anchors = read_anchors(operator.config)
    found = [compare_head(anchors, head, source.consistency)[0] for head in (old, middle, new)]
    assert [comparison.relation for comparison in found] == ["same", "older", "newer"]
    assert [comparison.anchored.size for comparison in found] == [old.size, new.size - 1, new.size - 1]
    assert compare_head(anchors, old, None)[0].anchored.size == old.size
    for head in (middle, new):
        with pytest.raises(VerificationFailed, match=r"anchor\.untied.*--server"):
            compare_head(anchors, head, None)


def test_a_new_key_is_private_and_never_overwritten(tmp_path):
    path = tmp_path / "chain.key"
    address = told("ledger", "anchor", "key", str(path))["address"]
    assert path.stat().st_mode & 0o777 == 0o600
    secret = path.read_text()
    sealproof("ledger", "anchor", "key", str(path), code=2)
    assert path.read_text() == secret

    from api.chain.keys import load_key

    assert load_key(path).address == address
    path.chmod(0o640)
    with pytest.raises(UsageError, match="chmod 600"):
        load_key(path)
    path.chmod(0o600)
    path.write_text("0x" + secret)
    with pytest.raises(DecodeError) as refused:
        load_key(path)
    assert secret[:8] not in str(refused.value)


# -- sealproof verify --anchor -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def frozen() -> tuple[str, int, bytes]:
    """Origin, size and root of the head of a released bundle."""
    ledger = told("verify", str(BUNDLE), "--log-key", str(FROZEN / "log.vkey"))["ledger"]
    return ledger["origin"], ledger["size"], bytes.fromhex(ledger["root"])


@pytest.fixture
def anchored(chain, frozen):
    """A contract that holds (size, root) for the frozen bundle's log; gives what to write after --anchor."""
    from ledger.anchors.evm import Artefact
    from ledger.anchors.head_anchor import HeadAnchor

    def make(size: int, root: bytes, origin: str = frozen[0]) -> str:
        contract, _ = chain.deploy(Artefact.load("HeadAnchor"), origin)
        if size:
            contract.send("advance", size, root, [])
        return f"http://{chain.shown}#{HeadAnchor(contract).contract.address}"

    return make


def verify(*anchors: str, code: int = 0) -> Any:
    more = [word for anchor in anchors for word in ("--anchor", anchor)]
    return told("verify", str(BUNDLE), "--log-key", str(FROZEN / "log.vkey"), *more, code=code)


def test_verify_tells_what_was_compared(anchored, frozen, tmp_path):
    _, size, root = frozen
    first, second = anchored(size, root), anchored(size, root)
    found = verify(first, second)
    assert found["result"] == "verified"
    assert len(found["anchors"]) == 2
    (comparison, _) = found["anchors"]
    assert comparison["relation"] == "same"
    assert comparison["proof"] == "equal roots"
    assert (comparison["anchored"]["size"], comparison["anchored"]["root"]) == (size, root.hex())
    assert first.split("#")[1] in comparison["anchor"]
    assert comparison["anchored"]["block"] > 0
    assert comparison["anchored"]["time"].endswith("Z")
    rpc, contract = second.split("#")
    config = tmp_path / "anchors.json"
    config.write_text(json.dumps([{"name": "main", "rpc": rpc, "contract": contract, "finality": "latest"}]))
    out, _ = sealproof("verify", str(BUNDLE), "--log-key", str(FROZEN / "log.vkey"), "--anchor", str(config))
    assert "The signed head is the one of" in out
    assert "anchors" not in verify()


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda size, root: (size, bytes(32)), "anchor.fork"),
        (lambda size, root: (size + 3, bytes(32)), "anchor.untied"),
        (lambda size, root: (size - 1, bytes(32)), "anchor.untied"),
        (lambda size, root: (0, b""), "anchor.empty"),
    ],
    ids=["fork", "older", "newer", "empty"],
)
def test_verify_refuses_a_bundle_that_the_chain_does_not_confirm(anchored, frozen, change, check):
    good = anchored(*frozen[1:])
    found = verify(good, anchored(*change(*frozen[1:])), code=1)
    assert (found["result"], found["check"]) == ("refused", check)


def test_verify_refuses_the_anchor_of_another_log(anchored, frozen):
    found = verify(anchored(*frozen[1:], origin="other.example"), code=1)
    assert found["check"] == "anchor.origin"


def test_verify_refuses_a_contract_that_is_not_ours(chain, anchored, frozen):
    rpc = anchored(*frozen[1:]).split("#")[0]
    found = verify(f"{rpc}#{chain.key.address}", code=1)
    assert found["check"] == "chain.no-contract"


def test_an_environment_that_fails_is_no_verdict(anchored, frozen):
    log_key = str(FROZEN / "log.vkey")
    out, err = sealproof(
        "verify", str(BUNDLE), "--log-key", log_key, "--anchor", f"http://127.0.0.1:1/token#{ADDRESS}", code=3
    )
    assert out == ""
    assert "127.0.0.1:1" in err
    assert "token" not in err
    found = verify(f"http://127.0.0.1:1/token#{ADDRESS}", code=3)
    assert (found["result"], found["check"]) == ("unreachable", "chain.unavailable")


def test_without_web3_the_extra_is_named(tmp_path):
    program = (
        "import sys; sys.modules['web3'] = None\n"
        "from api.cli.main import main\n"
        f"sys.argv = ['sealproof', 'verify', {str(BUNDLE)!r}, '--log-key', {str(FROZEN / 'log.vkey')!r}]\n"
        "sys.argv += sys.argv_more\nmain()"
    )
    for more, code in (["--json"], 0), (["--anchor", f"http://127.0.0.1:1#{ADDRESS}"], 3):
        run = program.replace("sys.argv_more", repr(more))
        done = subprocess.run([sys.executable, "-c", run], capture_output=True, text=True, check=False)
        assert done.returncode == code, done.stderr
    assert "web3 is not installed. Install it with: pip install 'sealproof[evm]'" in done.stderr


# -- the list ----------------------------------------------------------------------------------------------------------


GOOD = {"name": "main", "rpc": "http://node.example/token", "contract": ADDRESS}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[1]",
        "[" * 100_000,
        "[]" + " " * 70_000,
        json.dumps([{**GOOD, "rpc": "ws://node.example"}]),
        json.dumps([{**GOOD, "contract": ADDRESS[:-1]}]),
        json.dumps([{**GOOD, "contract": ADDRESS + "\n"}]),
        json.dumps([{**GOOD, "finality": "soon"}]),
        json.dumps([{**GOOD, "key": "chain.key"}]),
        json.dumps([{**GOOD, "key_file": "chain.key"}]),
        json.dumps([{**GOOD, "name": "../main"}]),
        json.dumps([{**GOOD, "name": 1}]),
        json.dumps([GOOD, GOOD]),
        json.dumps([{**GOOD, "name": f"n{i}"} for i in range(33)]),
        '[{"name": "a", "name": "b", "rpc": "http://node.example", "contract": "' + ADDRESS + '"}]',
        b"\xff",
    ],
    ids=range(17),
)
def test_a_list_that_is_none_is_refused(tmp_path, text):
    path = tmp_path / "anchors.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(DecodeError) as refused:
        read_anchors(path)
    assert "token" not in str(refused.value)


def test_a_list_is_kept_as_it_was_written(tmp_path):
    path = tmp_path / "anchors.json"
    add_anchor(path, Anchor("one", "https://node.example/token", ADDRESS, Path("keys/chain.key"), "finalized"))
    add_anchor(path, Anchor("two", "http://127.0.0.1:8545", ADDRESS))
    first, second = read_anchors(path)
    assert first.key_file == tmp_path / "keys" / "chain.key"
    assert (first.finality, second.finality, second.key_file) == ("finalized", "latest", None)
    assert json.loads(path.read_text())[0]["keyFile"] == "keys/chain.key"
    with pytest.raises(UsageError, match="another --name"):
        add_anchor(path, first)


@pytest.mark.parametrize(
    "text", ["http://127.0.0.1:8545", "http://127.0.0.1:8545#", f"http://#{ADDRESS[:-1]}", "http://a b#" + ADDRESS]
)
def test_an_address_without_a_contract_is_refused(text):
    with pytest.raises(UsageError, match="0x and 40 hex digits"):
        parse_anchors(text)


def test_an_empty_list_compares_with_nothing(tmp_path):
    (tmp_path / "anchors.json").write_text("[]")
    with pytest.raises(UsageError, match="lists no anchors"):
        parse_anchors(str(tmp_path / "anchors.json"))
    with pytest.raises(UsageError, match="cannot read"):
        parse_anchors(str(tmp_path / "missing.json"))


# -- nodes that misbehave ----------------------------------------------------------------------------------------------


@contextmanager
def node(status: int, body: bytes, headers: tuple[tuple[str, str], ...] = ()) -> Iterator[str]:
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            for name, value in (("content-length", str(len(body))), *headers):
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}/token"
        finally:
            listening.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (500, b"", ()),
        (200, b"", ()),
        (200, b"{", ()),
        (200, b"[]", ()),
        (200, b"\xff\xfe", ()),
        (200, b'{"jsonrpc": "2.0", "id": 0, "result": "x"}', ()),
        (200, b'{"jsonrpc": "2.0", "id": 0, "result": {}}', ()),
        (200, b'{"jsonrpc": "2.0", "id": 0, "result": null}', ()),
        (200, b'{"jsonrpc": "2.0", "id": 0, "error": {"code": -32000, "message": "no"}}', ()),
        (307, b"", (("location", "http://127.0.0.1:9/"),)),
    ],
    ids=range(10),
)
def test_a_node_that_answers_nonsense_cannot_be_used(status, body, headers):
    pytest.importorskip("web3", reason="web3 is not installed: pip install 'sealproof[evm]'")
    from ledger.anchors.evm import Chain

    with node(status, body, headers) as rpc, pytest.raises(ChainUnavailable) as failed:
        Chain.connect(rpc, timeout=5)
    assert "token" not in str(failed.value)


def test_events_are_found_through_a_node_that_allows_few_blocks_at_once(chain, frozen, monkeypatch):
    from ledger.anchors.evm import Artefact, Contract
    from ledger.anchors.head_anchor import HeadAnchor

    contract, _ = chain.deploy(Artefact.load("HeadAnchor"), frozen[0])
    anchor, asked = HeadAnchor(contract), []
    root = bytes(32)
    contract.send("advance", 2**40, root, [])
    original = Contract._logs

    def few(self: Contract, name: str, filters: Any, start: int, stop: int) -> list[Any]:
        asked.append(stop - start + 1)
        if stop - start >= 3:
            raise ChainUnavailable("node", "too many blocks")
        return original(self, name, filters, start, stop)

    monkeypatch.setattr(Contract, "_logs", few)
    found = list(contract.events("Head", {"size": 2**40}))
    assert [event.values["root"] for event in found] == [root]
    assert max(asked) == chain.block_number() + 1
    assert anchor.newest().root == root

    def none(self: Contract, *arguments: Any) -> list[Any]:
        raise ChainUnavailable("node", "never")

    monkeypatch.setattr(Contract, "_logs", none)
    with pytest.raises(ChainUnavailable, match="never"):
        anchor.newest()


# -- without a chain ---------------------------------------------------------------------------------------------------


class Memory:
    """An anchor as `check_anchor` sees it."""

    name = "0x... on chain 1"

    def __init__(self, *heads: AnchoredHead) -> None:
        self._heads = heads

    def newest(self) -> AnchoredHead:
        return self._heads[-1]

    def at_size(self, size: int) -> AnchoredHead | None:
        return next((head for head in self._heads if head.size == size), None)


@pytest.mark.parametrize("error", [OSError("no route"), DecodeError("answer", "nonsense")], ids=["os", "decode"])
def test_a_server_that_gives_no_proof_leaves_the_bundle_refused(error):
    signer = Signer("log.example", bytes(32))
    note = sign_checkpoint(Checkpoint(signer.name, 4, bytes(range(32))), signer)
    head = open_checkpoint(note, signer.verifier, signer.name)

    def consistency(old: int, new: int) -> list[bytes]:
        raise error

    with pytest.raises(VerificationFailed, match=r"anchor\.untied.*from 4 to 9") as refused:
        check_anchor(head, consistency, Memory(AnchoredHead(signer.name, 9, bytes(32), 1, 2)))
    assert str(error) in str(refused.value)
