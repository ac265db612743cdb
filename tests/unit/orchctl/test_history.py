"""The history of rollouts is one row a revision, in the order in which they were rolled out last."""

from pathlib import Path

from orchctl import history
from protos.orch.v1 import objects_pb2 as pb
from tests.support import golden, samples

HERE = Path(__file__).parent


def revision(number: int, outcome: pb.RevisionOutcome.ValueType, ago_s: int, *changes: str) -> pb.Revision:
    value = samples.revision()
    value.meta.id, value.number = f"rev{number}", number
    value.written.CopyFrom(value.template)
    value.outcome, value.asked_by = outcome, "ann@laptop"
    value.rolled_out_at = samples.NOW_MS - 1_000 * ago_s
    value.image_digest = "sha256:" + "7b" * 32
    value.changes.extend(changes)
    return value


def test_the_history_tells_what_changed_who_asked_and_what_became_of_it() -> None:
    """Revision 1 was rolled out again after 2: it comes after it, and has the star."""
    service = samples.service()
    service.status.revision_id = "rev1"
    known = [
        revision(1, pb.REVISION_OUTCOME_COMPLETED, 5),
        revision(2, pb.REVISION_OUTCOME_ROLLED_BACK, 60, "container.image: hello:1 → hello:2"),
        revision(3, pb.REVISION_OUTCOME_ABORTED, 30, "restarted"),
    ]
    known[2].asked_by = ""
    known[0].failed, known[1].failed = 2, 1
    golden.check(HERE / "history.txt", "\n".join(history.table(service, known, samples.NOW_MS)) + "\n")


def test_before_the_leader_has_looked_there_is_nothing_to_tell() -> None:
    service = samples.service()
    service.meta.generation += 1
    assert history.status(service, samples.NOW_MS) == ["waiting for the leader"]
