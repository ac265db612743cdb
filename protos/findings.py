"""What a doctor has found: how findings are made, ordered and printed, for everybody who looks at something.

Two rules. A finding is one line: what was looked at, what was found and what that means, and what to do. And what is
well is said, too: a doctor who is silent may have looked at nothing.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from protos.orch.v1 import control_pb2 as pb

WORDS: Final[Mapping[int, str]] = {
    pb.VERDICT_OK: "ok",
    pb.VERDICT_WARNING: "warning",
    pb.VERDICT_FAILED: "failed",
}


def ok(check: str, message: str) -> pb.Finding:
    """All is well."""
    return pb.Finding(check=check, verdict=pb.VERDICT_OK, message=message)


def warning(check: str, message: str, remedy: str) -> pb.Finding:
    """It works, and somebody should look at it."""
    return pb.Finding(check=check, verdict=pb.VERDICT_WARNING, message=message, remedy=remedy)


def failed(check: str, message: str, remedy: str) -> pb.Finding:
    """Something does not work because of it."""
    return pb.Finding(check=check, verdict=pb.VERDICT_FAILED, message=message, remedy=remedy)


def at(place: str, found: Iterable[pb.Finding]) -> list[pb.Finding]:
    """The same, of that place."""
    return [
        pb.Finding(place=place, check=one.check, verdict=one.verdict, message=one.message, remedy=one.remedy)
        for one in found
    ]


def has_failed(found: Iterable[pb.Finding]) -> bool:
    """Whether something does not work."""
    return any(one.verdict == pb.VERDICT_FAILED for one in found)


def word(finding: pb.Finding) -> str:
    """`ok`, `warning` or `failed`; another version's verdict is a warning."""
    return WORDS.get(finding.verdict, WORDS[pb.VERDICT_WARNING])


def lines(found: Sequence[pb.Finding]) -> list[str]:
    """A line each, in columns.

    ok       n1  clock  within 3 ms of the leader's
    warning  n2  disk   8% are free of 40 GiB; images are removed to make room — make the disk larger
    """
    places = max((len(one.place) for one in found), default=0)
    checks = max((len(one.check) for one in found), default=0)
    return [_line(one, places, checks) for one in found]


def _line(one: pb.Finding, places: int, checks: int) -> str:
    place = f"{one.place:<{places}}  " if places else ""
    remedy = f" — {one.remedy}" if one.remedy else ""
    return _plain(f"{word(one):<7}  {place}{one.check:<{checks}}  {one.message}{remedy}").rstrip()


def _plain(text: str) -> str:
    """One line, and nothing that a terminal would obey."""
    return "".join(sign if sign.isprintable() else " " for sign in text)


def summary(found: Sequence[pb.Finding]) -> str:
    """`17 things were looked at: 1 failed, 2 warnings`."""
    counts = Counter(map(word, found))
    bad = f"{counts['failed']} failed, " if counts["failed"] else ""
    warnings = f"{counts['warning']} warning{'' if counts['warning'] == 1 else 's'}"
    told = f"{bad}{warnings}" if counts["failed"] or counts["warning"] else "all is well"
    return f"{len(found)} thing{'s were' if len(found) != 1 else ' was'} looked at: {told}"


def documents(found: Iterable[pb.Finding]) -> list[dict[str, str]]:
    """For JSON."""
    return [
        {
            "place": one.place,
            "check": one.check,
            "verdict": word(one),
            "message": one.message,
            "remedy": one.remedy,
        }
        for one in found
    ]


def of_documents(documents_: Iterable[Mapping[str, str]]) -> list[pb.Finding]:
    """And back. Raises KeyError."""
    numbers = {name: number for number, name in WORDS.items()}
    return [
        pb.Finding(
            place=one["place"],
            check=one["check"],
            verdict=pb.Verdict.ValueType(numbers[one["verdict"]]),
            message=one["message"],
            remedy=one["remedy"],
        )
        for one in documents_
    ]
