"""The page's part about predictions that clinic and owner compute together (two-party computation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from api.demo.disclosing import DisclosureReport
from api.demo.page import (
    Step,
    Tampering,
    bytes_text,
    checks_table,
    histogram,
    promises,
    scatter,
    seconds_text,
    steps_table,
    table,
    tampering_table,
    unbroken,
)

__all__ = [
    "CheatReport",
    "JointModelReport",
    "JointPatient",
    "JointReport",
    "JointStudyReport",
    "render_joint",
]


@dataclass(frozen=True)
class JointModelReport:
    """One model on the patients of a study."""

    title: str
    label: str
    patients: int
    features: int
    quality: Sequence[tuple[str, str, str]]
    """(measure, attested answers, plain float model)."""
    largest_difference: float
    bound: float
    steps: Sequence[Step]
    checks: Sequence[tuple[str, str, float]]
    """(name, plain sentence, seconds) of each check of the auditor."""
    scores: Sequence[tuple[float, bool]]
    """(answer, has the outcome) of every patient, for the picture; empty for a regression."""
    pairs: Sequence[tuple[float, float]]
    """(attested answer, measured value) of every patient of a regression; empty for a classification."""
    seconds: float
    """How long both nodes computed and proved."""
    between: int
    """Bytes between the two nodes, both ways together."""
    exposure: str
    bundle: str
    sizes: Sequence[tuple[str, int]]


@dataclass(frozen=True)
class JointPatient:
    """One patient as the clinic sees it: what each model says, and what was true."""

    patient: str
    readings: Sequence[str]
    truth: str


@dataclass(frozen=True)
class JointStudyReport:
    """One data set under its models; `steps` are those before the predictions."""

    title: str
    question: str
    patients: int
    features: int
    steps: Sequence[Step]
    models: Sequence[JointModelReport]
    sample: Sequence[JointPatient]


@dataclass(frozen=True)
class CheatReport:
    """The node that cheated: what happened, and what everybody said."""

    steps: Sequence[Step]
    clinic_said: str
    owner_said: str
    failure: str
    refusal: str


@dataclass(frozen=True)
class JointReport:
    """Everything that the page says of this part."""

    starting: Sequence[Step]
    studies: Sequence[JointStudyReport]
    tamperings: Sequence[Tampering]
    cheat: CheatReport
    disclosure: DisclosureReport
    claims: Sequence[str]
    not_claimed: Sequence[str]

    @property
    def models(self) -> list[JointModelReport]:
        """Every model of every study."""
        return [model for study in self.studies for model in study.models]


def render_joint(report: JointReport) -> str:
    """The sections of this part. Every text is escaped."""
    return "".join(
        [
            _story(report),
            _overview(report),
            *(_study(study) for study in report.studies),
            _disclosure(report.disclosure),
            _cheat(report.cheat),
            _tamperings(report.tamperings),
            promises(report.claims, report.not_claimed),
        ]
    )


def _story(report: JointReport) -> str:
    holders = [
        ("clinic's node", "the records; its half of each answer", "noise from the owner's node", "the weights"),
        ("owner's node", "the model's weights; its half of each answer", "noise from the clinic's node", "the records"),
        ("dealer", "nothing", "that these two compute, and how much", "records, weights, answers"),
        ("server", "the public ledger", "commitments, proofs, a sealed half", "records, weights, answers"),
        ("auditor", "nothing", "the bundle", "records, weights, answers"),
    ]
    return "".join(
        [
            "<section><h2>What happened</h2><p>Here no record leaves the clinic, not even encrypted, and no weight "
            "leaves the model owner. Each has a computer, its <b>node</b>, beside what must stay. The two compute the "
            "scores together, step by step, on numbers that are cut in two halves: each node has one half of every "
            "number, and a half alone is noise. A third computer, the <b>dealer</b>, hands out random numbers for this "
            "and sees nothing else.</p><p>While they compute, both nodes make one mathematical proof together: that "
            "the answers are exactly those of the model that the owner committed to in the public ledger, for the "
            "records that the clinic committed to there. The server checks the proof, writes the prediction into the "
            "ledger, and only then hands the clinic the other half of its answers. The clinic verifies everything once "
            "more before it puts the halves together. This way a small neural network can be used, too, and not only a "
            "linear model.</p>",
            _picture(),
            "<h3>Who holds what</h3>",
            table(["who", "holds", "sees", "never sees"], [tuple(map(escape, row)) for row in holders]),
            "<p class=lead>The dealer and a node that work together could find out what the other node holds. Even all "
            "three together cannot make a false answer pass.</p>",
            "<details><summary>How the computers started</summary>",
            steps_table(report.starting),
            "</details></section>",
        ]
    )


def _overview(report: JointReport) -> str:
    rows = [
        (
            unbroken(model.title),
            "<br>".join(unbroken(f"{name} {attested}") for name, attested, _ in model.quality),
            f"{model.largest_difference:.1e}",
            f"{model.bound:.1e}",
            seconds_text(model.seconds),
            bytes_text(model.between),
        )
        for model in report.models
    ]
    head = ["model", "quality", "difference", "promised", "both nodes", "sent"]
    return (
        "<section><h2>Four predictions at a glance</h2><p>Answers are exactly, to the last digit, those of the "
        "committed model. The only difference from the model as it was trained comes from rounding its weights and the "
        "measurements before anything is computed. What is promised is the most that can be said without knowing the "
        "weights, so it is far above what happens. The first prediction of a network includes loading the software for "
        f"it.</p>{table(head, rows, numbers={2, 3, 4, 5})}</section>"
    )


def _study(study: JointStudyReport) -> str:
    best = study.models[-1]
    picture = histogram(best.scores, 24) if best.scores else scatter(best.pairs)
    quality = [
        (escape(line[0][0]), *(escape(cell) for _, attested, plain in line for cell in (attested, plain)))
        for line in zip(*(model.quality for model in study.models), strict=True)
    ]
    labels = [model.label for model in study.models]
    head = ["On patients that were not trained on", *(x for label in labels for x in (label, f"plain {label}"))]
    sample = [(escape(row.patient), *map(escape, row.readings), escape(row.truth)) for row in study.sample]
    return "".join(
        [
            f"<section><h2>{escape(study.title)}</h2><p>{escape(study.question)}</p>",
            f"<p>{study.patients} of these patients, {study.features} measurements each, under two models: the linear "
            f"one, and a neural network with 16 neurons (<i>{escape(best.label)}</i>: measurements, neurons, answers)."
            "</p>",
            table(head, quality),
            f"<h3>Every patient at a glance, by the network</h3>{picture}",
            "<h3>Some patients, as the clinic sees them</h3>",
            table(["patient", *labels, "what was true"], sample),
            "<details open><summary>Who did what, and how long it took</summary>",
            steps_table([*study.steps, *(step for model in study.models for step in model.steps)]),
            f"</details><details><summary>What the auditor checked ({escape(best.label)})</summary>",
            checks_table(best.checks),
            "</details><details><summary>Sizes, and what the clinic learns of the models</summary>",
            *(_sizes(model) for model in study.models),
            "</details>",
            *(f"<p>Bundle: <code>{escape(model.bundle)}</code></p>" for model in study.models),
            "</section>",
        ]
    )


def _sizes(model: JointModelReport) -> str:
    rows = [(escape(name), bytes_text(size)) for name, size in model.sizes]
    return table([model.label, "bytes"], rows, numbers={1}) + f"<p>{escape(model.exposure)}</p>"


def _disclosure(shown: DisclosureReport) -> str:
    return "".join(
        [
            "<section><h2>One answer, shown to one insurer</h2><p>An insurer asked whether one patient's risk "
            "reaches a threshold. The clinic proved that, and nothing else: not how far beyond, and nothing about any "
            f"other patient. The insurer checked it without a key: <b>{escape(shown.says)}</b>. The first number is on "
            "the model's own scale (log-odds). The public ledger now says that something was shown, and neither whose "
            "answer it was nor what.</p><p>The same file in another insurer's "
            f"hands, as if it answered that one's question: refused by {escape(shown.replay)}.</p>",
            steps_table(shown.steps),
            "</section>",
        ]
    )


def _cheat(cheat: CheatReport) -> str:
    said = [
        ("the owner's node", cheat.owner_said),
        ("the clinic's node", cheat.clinic_said),
        ("the server, to the clinic that waits", cheat.failure),
        ("the server, to the next request", cheat.refusal),
    ]
    return "".join(
        [
            "<section><h2>A node that cheats, caught in the act</h2><p>The owner's node was started again with changed "
            "software: one bit of one message is wrong. The message is masked, so the clinic's node cannot see that. "
            "Its effect would be a proof that is wrong by exactly the first measurement of the first patient: whoever "
            "could look into the failed proof would read it there.</p><p>That is why both nodes ask first, in a way "
            "that shows yes or no and nothing else, whether the proof will hold. It did not. Nobody got an answer, "
            "both nodes wrote this into the public ledger, and from then on these two could not compute together at "
            "all. Only when both sides had looked into it and cleared it did they go on.</p>",
            steps_table(cheat.steps),
            "<details open><summary>What everybody said</summary>",
            table(["who", "what"], [(escape(who), escape(what)) for who, what in said]),
            "</details></section>",
        ]
    )


def _tamperings(tamperings: Sequence[Tampering]) -> str:
    return (
        "<section><h2>What was tried against the finished bundle</h2><p>Each of these manipulations was really carried "
        "out on a copy of a bundle of the network, with all signing keys of those who attack, and given to the same "
        f"auditor.</p>{tampering_table(tamperings)}</section>"
    )


# -- the picture ------------------------------------------------------------------------------------------------------

_BOXES = (
    (20, 128, "Clinic's node", ("has the records", "never sees the weights"), "var(--a)"),
    (530, 128, "Owner's node", ("has the weights", "never sees a record"), "var(--b)"),
    (275, 12, "Dealer", ("hands out random numbers", "sees nothing else"), "currentColor"),
    (275, 268, "Server", ("checks the proof", "keeps the ledger"), "currentColor"),
    (530, 268, "Auditor", ("checks the bundle", "has no key"), "var(--good)"),
)
_ARROWS = (
    ((275, 56), (150, 124), True),
    ((485, 56), (610, 124), True),
    ((234, 158), (526, 158), False),
    ((526, 182), (234, 182), False),
    ((590, 216), (489, 282), False),
    ((271, 300), (130, 220), False),
    ((489, 318), (526, 318), False),
)
_NOTES = (
    (180, 82, "end", "random numbers"),
    (580, 82, "start", "random numbers"),
    (380, 150, "middle", "halves of numbers: noise"),
    (380, 200, "middle", "halves of numbers: noise"),
    (594, 240, "start", "the proof, and its half"),
    (594, 256, "start", "of each answer, sealed"),
    (190, 278, "end", "the sealed half,"),
    (190, 294, "end", "once it is logged"),
)
_BOX_WIDTH, _BOX_HEIGHT = 210, 84


def _picture() -> str:
    """Who talks to whom; colours and text are those of the page."""
    parts = [
        '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        'orient="auto-start-reverse"><path d="M0 0 10 5 0 10z" fill="currentColor"/></marker></defs>'
    ]
    for (x1, y1), (x2, y2), dashed in _ARROWS:
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        parts.append(
            f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="currentColor" stroke-width="1.4" '
            f'marker-end="url(#tip)"{dash}/>'
        )
    for x, y, name, lines, colour in _BOXES:
        parts.append(
            f'<rect x="{x}" y="{y}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="9" fill="var(--back)" '
            f'stroke="{colour}" stroke-width="1.6"/>'
        )
        parts.append(_text(x + _BOX_WIDTH // 2, y + 28, "middle", name, 16, colour, bold=True))
        parts += [_text(x + _BOX_WIDTH // 2, y + 50 + 19 * i, "middle", line, 13) for i, line in enumerate(lines)]
    parts += [_text(x, y, anchor, note, 13, "var(--soft)") for x, y, anchor, note in _NOTES]
    return (
        '<svg viewBox="0 0 760 360" role="img" aria-label="Who talks to whom" xmlns="http://www.w3.org/2000/svg">'
        f"{''.join(parts)}</svg>"
    )


def _text(x: int, y: int, anchor: str, text: str, size: int, colour: str = "currentColor", bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="{size}" fill="{colour}"{weight}>{escape(text)}</text>'
    )
