"""What an inspection of a dataset found, as tables, bars, and rows that show what is trained on."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cli.errors import printable
from cli.show.money import dollars
from cli.show.readable import span
from cli.show.terminal import coloured

_BAR_CELLS = 40
_SEVERITIES = {"ERROR": "red", "WARNING": "yellow"}
_MOST_LABELS = 20

Report = Mapping[str, Any]


def inspection_lines(report: Report, *, colour: bool, unicode: bool) -> list[str]:
    """All of it, in the order in which it is of use: what is wrong, how much it is, what it looks like."""
    training = report.get("training") or {}
    return [
        *_summary(report, training),
        *_findings(report.get("findings") or [], colour),
        *_histogram(training.get("lengths") or [], "#" if not unicode else "█"),
        *_labels(training.get("labels") or {}),
        *_rows(report.get("rows") or [], _Marks(colour, unicode)),
    ]


def _summary(report: Report, training: Report) -> list[str]:
    estimate = report.get("estimate") or {}
    seconds = int(estimate.get("seconds") or 0)
    told = {
        "Rows": f"{_count(training, 'rows')}, {_count(training, 'rowsTrained')} of them trained",
        "Cut Off": f"{_count(training, 'rowsCut')} at {report.get('cutoffLength')} tokens",
        "Tokens": f"{_count(training, 'tokens')} an epoch, {_count(training, 'trainedTokens')} trained",
        "Longest Row": f"{_count(training, 'longest')} tokens",
        "Steps": f"{_count(estimate, 'steps')}, {_count(estimate, 'stepsPerEpoch')} an epoch",
        "Time": f"{span(seconds)}, as fast as the last job on this model" if seconds else "not known yet",
        "Cost": f"{dollars(estimate.get('cost'))} for {_count(estimate, 'tokens')} tokens",
        "Template": str(report.get("template") or "none"),
        "Masking": str(report.get("masking") or ""),
    }
    if report.get("evaluation"):
        told["Evaluation Rows"] = _count(report["evaluation"], "rowsTrained")
    return [f"{title}: {printable(text)}" for title, text in told.items()]


def _count(counts: Report, key: str) -> str:
    return f"{int(counts.get(key) or 0):,}"


def _findings(findings: Sequence[Report], colour: bool) -> list[str]:
    if not findings:
        return ["", "Nothing was found that stands in the way."]
    lines = [""]
    for finding in findings:
        severity = str(finding.get("severity") or "")
        word = coloured(severity, _SEVERITIES.get(severity, "")) if colour else severity
        lines.append(f"{word} {finding.get('code')}: {printable(str(finding.get('sentence')))}")
        lines += [f"  {printable(str(place))}" for place in finding.get("places") or []]
        lines.append(f"  {printable(str(finding.get('hint')))}")
    return lines


def _histogram(steps: Sequence[Report], ink: str) -> list[str]:
    """A bar for each step; a step that has any row has some bar."""
    counts = [int(step.get("rows") or 0) for step in steps]
    most = max(counts, default=0)
    if not most:
        return []
    ends = [f"{step.get('tokens'):,}" for step in steps]
    width = max(map(len, ends))
    return [
        "",
        "Rows by their length in tokens, up to:",
        *(
            f"  {end:>{width}}  {ink * -(-count * _BAR_CELLS // most):<{_BAR_CELLS}}  {count:,}"
            for end, count in zip(ends, counts, strict=True)
        ),
    ]


def _labels(labels: Mapping[str, Any]) -> list[str]:
    if not labels:
        return []
    shown = list(labels.items())[:_MOST_LABELS]
    more = [f"  and {len(labels) - len(shown)} more"] if len(labels) > len(shown) else []
    return ["", "Rows by their label:", *(f"  {printable(name)}: {count:,}" for name, count in shown), *more]


class _Marks:
    """How pieces of a row are told apart: by colours, or by brackets around what is trained."""

    def __init__(self, colour: bool, unicode: bool) -> None:
        self.colour = colour
        self.open, self.close = ("⟦", "⟧") if unicode else ("[[", "]]")

    def legend(self) -> str:
        if self.colour:
            return " ".join(
                [coloured("trained", "green"), coloured("special", "yellow"), coloured("cut off", "dim")]
            )
        return f"{self.open}trained{self.close}; what is cut off is left out"

    def text(self, pieces: Sequence[Report]) -> str:
        if self.colour:
            return "".join(self._coloured(piece) for piece in pieces)
        inside, parts = False, []
        for piece in pieces:
            if piece.get("cut"):
                break
            trained = bool(piece.get("trained"))
            if trained != inside:
                parts.append(self.open if trained else self.close)
            parts.append(_plain(piece))
            inside = trained
        return "".join([*parts, self.close if inside else ""])

    def _coloured(self, piece: Report) -> str:
        """Each line by itself: a pager, or a terminal that is cut, then colours no more than is meant."""
        lines = _plain(piece).split("\n")
        return "\n".join(coloured(line, self._colour_of(piece)) if line else "" for line in lines)

    def _colour_of(self, piece: Report) -> str:
        if piece.get("cut"):
            return "dim"
        if piece.get("special"):
            return "yellow"
        return "green" if piece.get("trained") else ""


def _plain(piece: Report) -> str:
    """The text, over as many lines as it has; nothing in it moves the cursor."""
    return "\n".join(printable(line) for line in str(piece.get("text") or "").split("\n"))


def _rows(rows: Iterable[Report], marks: _Marks) -> list[str]:
    lines: list[str] = []
    for row in rows:
        examples = row.get("examples") or []
        for number, pieces in enumerate(examples, start=1):
            part = f", example {number} of {len(examples)}" if len(examples) > 1 else ""
            tokens = sum(int(piece.get("tokens") or 0) for piece in pieces)
            lines += ["", f"{printable(str(row.get('place')))}{part}, {tokens:,} tokens:"]
            lines += marks.text(pieces).split("\n")
        if row.get("problem"):
            lines += ["", printable(str(row["problem"]))]
    return ["", f"The rows as they are trained ({marks.legend()}):", *lines] if lines else []
