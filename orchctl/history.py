"""The pages of `orchctl rollout`: where a rollout stands, and what was rolled out before. Pure."""

from collections.abc import Collection

from orchctl import amounts, pages, phrases, tables, terminal
from protos import schema
from protos.orch.v1 import objects_pb2 as pb

_TITLES = ["NUMBER", "OUTCOME", "ROLLED OUT", "BY", "IMAGE", "DIGEST", "CHANGES"]
_GOING = frozenset(
    {pb.ROLLOUT_STATE_ROLLING, pb.ROLLOUT_STATE_PAUSED, pb.ROLLOUT_STATE_WAITING, pb.ROLLOUT_STATE_FAILED}
)
_OVER = frozenset({pb.REVISION_OUTCOME_COMPLETED, pb.REVISION_OUTCOME_FAILED})
"""Beside these it is told how many tasks failed; what was taken back needs no figures."""


def status(service: pb.Service, now_ms: int) -> list[str]:
    """Where the rollout of a service stands."""
    rollout = service.status.rollout
    if not phrases.is_observed(service) or not rollout.revision_id:
        return ["waiting for the leader"]
    since = ("Began", phrases.timestamp(rollout.began_at, now_ms))
    progress = ("Progressed", phrases.timestamp(rollout.progressed_at, now_ms))
    return pages.facts(
        ("Rollout", rollout.message),
        ("State", state(rollout)),
        since,
        progress if rollout.state in _GOING else ("", ""),
        ("Tasks", service.status.message),
    )


def state(rollout: pb.RolloutStatus) -> str:
    """`rolling-back`."""
    return schema.enum_word(pb.RolloutState.DESCRIPTOR, rollout.state) if rollout.state else ""


def table(service: pb.Service, revisions: Collection[pb.Revision], now_ms: int) -> list[str]:
    """One row a revision, in the order in which they were rolled out last. A star is at the one that is asked for."""
    ordered = sorted(revisions, key=lambda one: (one.rolled_out_at, one.number))
    rows = [[terminal.one_line(cell) or "-" for cell in _row(service, one, now_ms)] for one in ordered]
    return tables.table(_TITLES, rows)


def _row(service: pb.Service, revision: pb.Revision, now_ms: int) -> list[str]:
    present = revision.meta.id == service.status.revision_id
    ago = f"{amounts.age(now_ms - revision.rolled_out_at)} ago" if revision.rolled_out_at else ""
    return [
        f"{revision.number}{'*' if present else ''}",
        _outcome(revision),
        ago,
        revision.asked_by,
        revision.written.container.image,
        amounts.digest(revision.image_digest),
        ", ".join(revision.changes),
    ]


def _outcome(revision: pb.Revision) -> str:
    """`completed`; `completed (2 tasks failed)` when some did on the way."""
    if not revision.outcome:
        return ""
    word = schema.enum_word(pb.RevisionOutcome.DESCRIPTOR, revision.outcome)
    told = revision.failed and revision.outcome in _OVER
    return f"{word} ({amounts.count(revision.failed, 'task')} failed)" if told else word
