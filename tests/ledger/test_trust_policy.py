"""Policies: what a file says, what it may not say, who counts, and since when there were enough."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.checkpoint import Checkpoint, sign_checkpoint
from ledger.cosignature import Cosigner, with_cosignatures
from ledger.errors import (
    DecodeError,
    OriginMismatch,
    RootMismatch,
    StorageError,
    UsageError,
    VerificationFailed,
)
from ledger.note import Note, Signature, Signer
from ledger.trust_policy import Cosigned, TlogPolicy, WitnessedHead
from tests.support.lying_log import text_of

LOG = Signer("log.example/test", bytes(range(32)))
OTHER = Signer("log.example/other", bytes(range(1, 33)))
W = [Cosigner(f"w{i}.example/key", bytes([i + 1]) * 32) for i in range(6)]
HEAD = sign_checkpoint(Checkpoint(LOG.name, 5, bytes(32)), LOG)
TEXT = text_of(HEAD)
LOG_LINE = f"log {LOG.verifier}\n"
WORDS = ["log", "witness", "group", "quorum", "none", "W0", "W1", "g", "any", "1", " ", "\n", "\t", "#"]
WORDS += [str(LOG.verifier), str(W[0].verifier)]
WITNESSES = "".join(f"witness W{i} {w.verifier}\n" for i, w in enumerate(W))

# The structure of the format document's own example.
EXAMPLE = f"""\
log {LOG.verifier}

witness X1 {W[0].verifier}
witness X2 {W[1].verifier}
witness X3 {W[2].verifier}
group X-witnesses 2 X1 X2 X3

witness Y1 {W[3].verifier}
witness Y2 {W[4].verifier}
witness Y3 {W[5].verifier}
group Y-witnesses any Y1 Y2 Y3

group X-and-Y all X-witnesses Y-witnesses
quorum X-and-Y
"""


def cosigned(times: dict[int, int] | Sequence[int], note: bytes = HEAD) -> bytes:
    """The head with cosignatures of witnesses by number; given by number only, witness i signs at 100 + i."""
    by_number = times if isinstance(times, dict) else {i: 100 + i for i in times}
    return with_cosignatures(note, [W[i].cosign(text_of(note), time) for i, time in by_number.items()])


def refused(policy: str, note: bytes, check: str, match: str | None = None) -> None:
    with pytest.raises(VerificationFailed, match=match) as caught:
        TlogPolicy.parse(policy).open(note, LOG.name)
    assert caught.value.check == check


class TestTheExampleOfTheFormat:
    def test_it_says_what_it_says(self) -> None:
        policy = TlogPolicy.parse(EXAMPLE)
        assert policy.logs == (LOG.verifier,)
        assert policy.log(LOG.name) == LOG.verifier
        assert policy.log("other") is None
        assert [w.name for w in policy.witnesses] == ["X1", "X2", "X3", "Y1", "Y2", "Y3"]
        assert [w.verifier for w in policy.witnesses] == [w.verifier for w in W]
        assert policy.groups["X-witnesses"].needed == 2
        assert policy.groups["X-and-Y"].needed == 2
        assert policy.quorum == "X-and-Y"

    def test_two_of_x_and_one_of_y_are_enough_and_nothing_less_is(self) -> None:
        policy = TlogPolicy.parse(EXAMPLE)
        for mask in range(64):
            signed = [i for i in range(6) if mask >> i & 1]
            enough = sum(i < 3 for i in signed) >= 2 and any(i >= 3 for i in signed)
            try:
                head = policy.open(cosigned(signed), LOG.name)
            except VerificationFailed as error:
                assert error.check == "policy.quorum"
                assert not enough
                continue
            assert enough
            assert [c.time - 100 for c in head.cosigned] == signed

    def test_the_error_says_how_many_are_missing_and_who_signed(self) -> None:
        refused(EXAMPLE, cosigned([0, 1]), "policy.quorum", "1 of 2 needed, valid cosignatures: X1, X2")
        refused(EXAMPLE, HEAD, "policy.quorum", "0 of 2 needed, valid cosignatures: none")


class TestTime:
    def test_it_is_when_there_were_enough(self) -> None:
        policy = TlogPolicy.parse(LOG_LINE + WITNESSES + "group G 2 W0 W1 W2\nquorum G\n")
        for times, expected in (
            ({0: 500, 1: 300}, 500),
            ({0: 500, 1: 300, 2: 400}, 400),
            ({0: 100, 1: 100, 2: 9}, 100),
            ({2: 7, 1: 7}, 7),
            ({0: 500, 1: 300, 5: 1, 4: 2}, 500),  # witnesses who are not in the quorum do not date it
        ):
            assert policy.open(cosigned(times), LOG.name).time == expected

    def test_one_witness_dates_alone_and_no_quorum_does_not_date(self) -> None:
        head = TlogPolicy.parse(LOG_LINE + WITNESSES + "quorum W3\n").open(cosigned({3: 42, 0: 1}), LOG.name)
        assert head.time == 42
        head = TlogPolicy.parse(LOG_LINE + WITNESSES + "quorum none\n").open(cosigned({3: 42}), LOG.name)
        assert head.time is None
        assert head.cosigned == (Cosigned("W3", 42),)
        assert TlogPolicy.parse(LOG_LINE + "quorum none\n").open(HEAD, LOG.name).cosigned == ()

    def test_the_earliest_of_several_cosignatures_of_one_witness_counts_and_counts_once(self) -> None:
        lines = [W[0].cosign(TEXT, time).line() for time in (90, 50, 70)]
        note = HEAD + "".join(lines).encode()
        policy = LOG_LINE + WITNESSES + "quorum W0\n"
        head = TlogPolicy.parse(policy).open(note, LOG.name)
        assert (head.cosigned, head.time) == ((Cosigned("W0", 50),), 50)
        refused(LOG_LINE + WITNESSES + "group G 2 W0 W1\nquorum G\n", note, "policy.quorum", "1 of 2 needed")

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_it_is_the_smallest_time_at_which_the_rule_holds(self, data: st.DataObject) -> None:
        """Against the definition, tried for each time; groups of groups drawn at random."""
        free, lines = [f"W{i}" for i in range(6)], list[str]()
        groups: dict[str, tuple[int, list[str]]] = {}
        while len(free) > 1:
            count = data.draw(st.integers(2, min(3, len(free))))
            members = [free.pop(data.draw(st.integers(0, len(free) - 1))) for _ in range(count)]
            needed = data.draw(st.integers(1, count))
            name = f"G{len(groups)}"
            groups[name] = (needed, members)
            lines.append(f"group {name} {needed} {' '.join(members)}\n")
            free.append(name)
        times = data.draw(st.dictionaries(st.integers(0, 5), st.integers(1, 9)))

        def holds(name: str, t: int) -> bool:
            if name in groups:
                needed, members = groups[name]
                return sum(holds(member, t) for member in members) >= needed
            return times.get(int(name[1:]), 99) <= t

        expected = next((t for t in range(1, 10) if holds(free[0], t)), None)
        policy = TlogPolicy.parse(LOG_LINE + WITNESSES + "".join(lines) + f"quorum {free[0]}\n")
        try:
            found = policy.open(cosigned(times), LOG.name).time
        except VerificationFailed:
            found = None
        assert found == expected


class TestOpening:
    POLICY = LOG_LINE + WITNESSES + "quorum W0\n"

    def test_the_head_is_verified_and_only_opening_makes_one(self) -> None:
        note = cosigned([0])
        head = TlogPolicy.parse(self.POLICY).open(note, LOG.name)
        assert head.head.note == note
        assert head.head.size == 5
        with pytest.raises(UsageError):
            WitnessedHead(head.head, head.cosigned, head.time, _token=object())

    def test_a_bad_signature_by_a_listed_witness_refuses_the_note_whatever_else_holds(self) -> None:
        good = cosigned([0, 1, 2])
        for key in (W[3], W[0]):
            bad = Signature(key.name, key.verifier.key_id, key.cosign(TEXT, 7).signature[:-1] + b"\0")
            refused(self.POLICY, good + bad.line().encode(), "note.signature")
        # A stranger's line means nothing.
        stranger = Signature("stranger", bytes(4), b"nonsense")
        TlogPolicy.parse(self.POLICY).open(good + stranger.line().encode(), LOG.name)

    def test_cosignatures_do_not_stand_in_for_the_logs_signature(self) -> None:
        text = TEXT.decode()
        unsigned = Note(text, tuple(w.cosign(TEXT, 5) for w in W)).format()
        refused(self.POLICY, unsigned, "note.unsigned")
        forged = Note(text, (Signer(LOG.name, bytes(32)).sign(TEXT), W[0].cosign(TEXT, 5))).format()
        refused(self.POLICY, forged, "note.unsigned")

    def test_a_log_that_nobody_named_is_refused(self) -> None:
        refused("witness W " + str(W[0].verifier) + "\nquorum W\n", cosigned([0]), "policy.log")
        policy = TlogPolicy.parse(self.POLICY)
        with pytest.raises(VerificationFailed, match="lists no log"):
            policy.open(cosigned([0]), "another")

    def test_a_key_known_otherwise_serves_a_policy_without_logs_but_not_against_one(self) -> None:
        bare = TlogPolicy.parse(WITNESSES + "quorum W0\n")
        assert bare.open(cosigned([0]), LOG.name, LOG.verifier).time == 100
        assert TlogPolicy.parse(self.POLICY).open(cosigned([0]), LOG.name, LOG.verifier).time == 100
        with pytest.raises(VerificationFailed, match="another key") as caught:
            TlogPolicy.parse(self.POLICY).open(cosigned([0]), LOG.name, Signer(LOG.name, bytes(32)).verifier)
        assert caught.value.check == "policy.log"

    def test_a_head_of_another_log_and_a_malformed_one_are_refused(self) -> None:
        policy = TlogPolicy.parse(LOG_LINE + f"log {OTHER.verifier}\n" + WITNESSES + "quorum W0\n")
        with pytest.raises(VerificationFailed, match=r"note\.unsigned"):
            policy.open(cosigned([0]), OTHER.name)
        text = Checkpoint(OTHER.name, 5, bytes(32)).format()
        crossed = Note(text, (LOG.sign(text.encode()), W[0].cosign(text.encode(), 5))).format()
        with pytest.raises(OriginMismatch):
            policy.open(crossed, LOG.name)
        with pytest.raises(DecodeError):
            policy.open(b"garbage", LOG.name)
        with pytest.raises(RootMismatch):
            policy.open(cosigned([0], sign_checkpoint(Checkpoint(LOG.name, 0, bytes(32)), LOG)), LOG.name)


class TestFiles:
    def test_comments_empty_lines_spaces_tabs_and_addresses_are_understood(self) -> None:
        policy = TlogPolicy.parse(
            f"# a comment\n\n \t \n\t# another\n  log\t{LOG.verifier}   https://log.example/prefix \n"
            f"witness W0 {W[0].verifier}\thttps://w0.example\n#quorum none\ngroup g any W0\t\n quorum g\n"
        )
        assert policy.log_urls == {LOG.name: "https://log.example/prefix"}
        assert [w.url for w in policy.witnesses] == ["https://w0.example"]
        assert policy.open(cosigned([0]), LOG.name).time == 100

    def test_names_are_opaque_and_may_look_like_words_of_the_format(self) -> None:
        kelvin, nbsp = "\u212a", "a\u00a0b\u2028c"
        policy = TlogPolicy.parse(
            f"witness K {W[0].verifier}\nwitness {kelvin} {W[1].verifier}\nwitness {nbsp} {W[2].verifier}\n"
            f"witness all {W[3].verifier}\nwitness 2 {W[4].verifier}\ngroup any 2 K {kelvin} {nbsp} all 2\nquorum any\n"
        )
        assert policy.groups["any"].members == ("K", kelvin, nbsp, "all", "2")
        assert len({w.name for w in policy.witnesses}) == 5

    def test_the_order_of_logs_and_witnesses_is_free_and_the_quorum_may_come_before_them(self) -> None:
        policy = TlogPolicy.parse("quorum none\n" + WITNESSES + LOG_LINE)
        assert policy.open(HEAD, LOG.name).time is None

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "newline"),
            ("\n", "no quorum line"),
            (LOG_LINE, "no quorum line"),
            ("quorum none", "newline"),
            ("quorum none\nquorum none\n", "line 2: a second quorum"),
            ("quorum W0\n" + WITNESSES, "line 1: 'W0' is not the name"),
            ("quorum\n", "line 1: expected"),
            ("quorum none more\n", "line 1: expected"),
            ("Quorum none\n", "line 1: expected"),
            ("quorum\u00a0none\n", "line 1: expected"),
            ("quorum none\nsomething else\n", "line 2: expected"),
            ("quorum none\r\n", "control character"),
            ("quorum none\x7f\n", "control character"),
            ("quorum none\x0b\n", "control character"),
            ("quorum \0none\n", "control character"),
            ("log\nquorum none\n", "line 1: expected"),
            (f"log {LOG.verifier} u v\nquorum none\n", "line 1: expected"),
            (f"log {W[0].verifier}\nquorum none\n", "line 1: .*type 01 but 04"),
            (f"log {LOG.verifier}x\nquorum none\n", "line 1"),
            (LOG_LINE + LOG_LINE + "quorum none\n", "line 2: the public key of"),
            (
                LOG_LINE + f"log {Signer(LOG.name, bytes(32)).verifier}\nquorum none\n",
                "line 2: the log 'log.example/test' has a key already",
            ),
            (f"witness W {W[0].verifier} u v\nquorum none\n", "line 1: expected"),
            ("witness W\nquorum none\n", "line 1: expected"),
            (f"witness W {LOG.verifier}\nquorum none\n", "line 1: .*type 04 but 01"),
            (f"witness none {W[0].verifier}\nquorum none\n", "line 1: the name 'none' is taken"),
            (f"witness W {W[0].verifier}\nwitness W {W[1].verifier}\nquorum W\n", "line 2: the name 'W' is taken"),
            (f"witness W {W[0].verifier}\nwitness V {W[0].verifier}\nquorum W\n", "line 2: the public key of"),
            (WITNESSES + "group W0 any W1\nquorum none\n", "line 7: the name 'W0' is taken"),
            (WITNESSES + "group none any W1\nquorum none\n", "line 7: the name 'none' is taken"),
            (WITNESSES + "group g any\nquorum none\n", "line 7: expected"),
            (WITNESSES + "group g any none\nquorum none\n", "line 7: 'none' is not the name"),
            (WITNESSES + "group g any g\nquorum none\n", "line 7: 'g' is not the name"),
            (WITNESSES + "group g any h\ngroup h any g\nquorum none\n", "line 7: 'h' is not the name"),
            (WITNESSES + "group g any W0 W0\nquorum none\n", "line 7: 'W0' is a member of a group already"),
            (WITNESSES + "group g any W0\ngroup h all g W0\nquorum h\n", "line 8: 'W0' is a member of a group already"),
            (WITNESSES + "group g any W0\ngroup h any g\ngroup i any g\nquorum i\n", "line 9: 'g' is a member"),
            *(
                (WITNESSES + f"group g {k} W0 W1\nquorum g\n", "line 7")
                for k in ("0", "3", "-1", "+1", "01", "1_0", "1.0", "ALL", "\u0662", "")
            ),
        ],
    )
    def test_a_file_that_says_anything_else_is_refused_with_the_line(self, text: str, reason: str) -> None:
        with pytest.raises(DecodeError, match=reason):
            TlogPolicy.parse(text)

    def test_two_witnesses_with_one_key_name_and_key_id_are_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # 32 bits of key ID collide for whoever tries; here the same is had by cutting the ID off.
        from ledger.cosignature import CosignatureVerifier

        monkeypatch.setattr(CosignatureVerifier, "key_id", property(lambda self: bytes(4)))
        one, other = (CosignatureVerifier("same.example", bytes([i]) * 32) for i in (1, 2))
        with pytest.raises(DecodeError, match="same key name and key ID"):
            TlogPolicy.parse(f"witness A {one}\nwitness B {other}\nquorum none\n")

    def test_sizes_are_limited_but_not_below_what_the_format_asks_for(self) -> None:
        logs = [f"log {Signer(f'log{i}.example', bytes([1, i]) + bytes(30)).verifier}\n" for i in range(65)]
        witnesses = [
            f"witness N{i} {Cosigner(f'w{i}.example', bytes([2, i]) + bytes(30)).verifier}\n" for i in range(65)
        ]
        groups = [f"group G{i} any N{i}\n" for i in range(64)]
        policy = TlogPolicy.parse("".join([*logs[:64], *witnesses[:64], *groups]) + "quorum G3\n")
        assert (len(policy.logs), len(policy.witnesses), len(policy.groups)) == (64, 64, 64)
        for lines in (logs, witnesses, [*witnesses[:64], *groups, "group more any G0\n"]):
            with pytest.raises(DecodeError, match="more than 64"):
                TlogPolicy.parse("".join(lines) + "quorum none\n")
        with pytest.raises(DecodeError, match="longer than"):
            TlogPolicy.parse("#" * (1 << 17) + "\nquorum none\n")

    def test_deep_nesting_is_no_trouble(self) -> None:
        lines = "group G0 any W0\n" + "".join(f"group G{i} all G{i - 1}\n" for i in range(1, 64))
        assert TlogPolicy.parse(LOG_LINE + WITNESSES + lines + "quorum G63\n").open(cosigned([0]), LOG.name).time == 100

    def test_files_are_read_and_their_troubles_told(self, tmp_path: Path) -> None:
        path = tmp_path / "policy"
        path.write_text(EXAMPLE)
        assert TlogPolicy.load(path) == TlogPolicy.parse(EXAMPLE)
        path.write_bytes(b"# \xff\nquorum none\n")
        with pytest.raises(DecodeError, match="UTF-8"):
            TlogPolicy.load(path)
        path.write_bytes(b"#" * (1 << 20))
        with pytest.raises(DecodeError, match="longer than"):
            TlogPolicy.load(path)
        with pytest.raises(StorageError, match="cannot read"):
            TlogPolicy.load(tmp_path / "none")

    @settings(max_examples=300, deadline=None)
    @given(
        st.one_of(
            st.text(max_size=80),
            st.lists(
                st.sampled_from(WORDS),
                max_size=20,
            ).map(" ".join),
        )
    )
    def test_any_text_is_a_policy_or_refused(self, text: str) -> None:
        with contextlib.suppress(DecodeError):
            TlogPolicy.parse(text + "\nquorum none\n")
        with contextlib.suppress(DecodeError):
            TlogPolicy.parse(text)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_no_change_of_a_note_satisfies_a_policy_with_another_head(data: st.DataObject) -> None:
    note = cosigned([0, 1])
    at = data.draw(st.integers(0, len(note)))
    changed = note[:at] + data.draw(st.binary(max_size=3)) + note[at + data.draw(st.integers(0, 3)) :]
    try:
        head = TlogPolicy.parse(LOG_LINE + WITNESSES + "group g all W0 W1\nquorum g\n").open(changed, LOG.name)
    except (DecodeError, VerificationFailed):
        return
    assert text_of(head.head.note) == TEXT
    assert head.time == 101
