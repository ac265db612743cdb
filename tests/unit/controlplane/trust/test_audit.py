"""The audit log."""

import asyncio
import json
from pathlib import Path

import pytest

from controlplane.core import request_errors as errors
from controlplane.core.trust import deeds, refusals
from controlplane.core.trust.rules import Caller
from controlplane.store.errors import Unavailable
from controlplane.trust import audit
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2, trust_pb2
from tests.support.aio import bounded, until
from trust.core.identity import Identity, Role

ANN = Caller(identity=Identity(cluster="c", role=Role.EDITOR, name="ann"))
NOW_MS = 1_700_000_000_000
DELETE = pb.DeleteRequest(reference=pb.ObjectReference(kind="service", namespace="shop", name="web"))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def made(path: Path) -> audit.Audit:
    return audit.Audit(path, lambda: NOW_MS)


def tell(log: audit.Audit, request: object, *, quiet: bool = False, error: BaseException | None = None) -> None:
    with log.told(ANN, "/orch.v1.Control/Delete", request) as told:
        told.quiet = quiet
        if error is not None:
            raise error


def test_what_is_changed_is_told_with_who_and_what(tmp_path: Path) -> None:
    """One line, in a file that only its owner reads."""
    path = tmp_path / "audit.log"
    tell(made(path), DELETE)
    (line,) = lines(path)
    assert (line["who"], line["role"], line["call"], line["objects"]) == (
        "ann",
        "editor",
        "Delete",
        ["service shop/web"],
    )
    assert "refused" not in line
    assert path.stat().st_mode & 0o777 == 0o600


def test_reading_is_told_only_when_it_is_refused(tmp_path: Path) -> None:
    """A viewer who looks is not worth a line; one who tries what they may not is."""
    path, log = tmp_path / "audit.log", made(tmp_path / "audit.log")
    tell(log, DELETE, quiet=True)
    assert not path.exists()
    with pytest.raises(errors.Forbidden):
        tell(log, DELETE, quiet=True, error=errors.Forbidden("editor ann may not"))
    assert [line["refused"] for line in lines(path)] == ["editor ann may not"]


def test_no_value_of_a_manifest_is_in_it(tmp_path: Path) -> None:
    """An environment may hold passwords."""
    service = objects_pb2.Service(meta=objects_pb2.Meta(name="web", namespace="shop"))
    service.spec.template.container.env["PASSWORD"] = "hunter2"
    path = tmp_path / "audit.log"
    tell(made(path), pb.ApplyRequest(objects=[objects_pb2.Object(service=service)]))
    assert "hunter2" not in path.read_text()
    assert lines(path)[0]["objects"] == ["service shop/web"]


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four files; the newest line is in the newest."""
    monkeypatch.setattr(audit, "MAX_BYTES", 300)
    log = made(tmp_path / "audit.log")
    for number in range(40):
        reference = pb.ObjectReference(kind="service", namespace="shop", name=f"web{number}")
        tell(log, pb.DeleteRequest(reference=reference))
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["audit.1", "audit.2", "audit.3", "audit.log"]
    assert all((tmp_path / name).stat().st_size < 600 for name in files)
    assert lines(tmp_path / "audit.log")[-1]["objects"] == ["service shop/web39"]


def test_a_log_that_cannot_be_written_holds_up_nobody(tmp_path: Path) -> None:
    """The call is answered, and what would have been told stands in the instance's log."""
    tell(made(tmp_path / "missing" / "audit.log"), DELETE)
    assert not (tmp_path / "missing").exists()


def test_a_call_in_several_messages_is_told_with_what_the_first_one_names(tmp_path: Path) -> None:
    """Nothing of the command or of what is typed into it."""
    start = pb.ExecStart(namespace="shop", target="web-1", command=["login", "hunter2"])
    with made(tmp_path / "audit.log").told(ANN, "/orch.v1.Control/Exec", None) as told:
        for message in (pb.ExecRequest(start=start), pb.ExecRequest(stdin=b"hunter2"), pb.ExecRequest(start=start)):
            told.goes_on(message)
    (line,) = lines(tmp_path / "audit.log")
    assert (line["call"], line["objects"]) == ("Exec", ["target shop/web-1"])
    assert "hunter2" not in (tmp_path / "audit.log").read_text()


@pytest.mark.parametrize(
    ("first", "named"),
    [
        (pb.CommitRequest(start=pb.CommitStart(namespace="shop", task="web-1")), ["task shop/web-1"]),
        (pb.ImportImageRequest(options=pb.ImportImageOptions(name="web:1", env=["A=b"])), ["image web:1"]),
        (pb.PushBlobRequest(start=pb.PushBlobStart(digest="sha256:00", size=7)), ["blob sha256:00"]),
        (pb.PushBlobRequest(chunk=b"hunter2"), []),
    ],
)
def test_each_kind_of_call_in_several_messages_names_its_object(first: object, named: list[str]) -> None:
    assert deeds.objects(first) == named


def test_a_token_is_told_with_all_that_it_gives() -> None:
    """One for a shop is another thing than one for everything."""
    made = trust_pb2.CreateTokenRequest(role="editor", person="ann", namespaces=["shop", "bank"], replaces="5f0c2a11")
    told = ["role editor", "person ann", "namespace shop", "namespace bank", "instead of 5f0c2a11"]
    assert deeds.objects(made) == told
    assert deeds.objects(trust_pb2.CreateTokenRequest(role="node")) == ["role node"]


def test_a_call_that_is_broken_off_is_told_as_that(tmp_path: Path) -> None:
    """A command has done what it has done. Who stops reading is not worth a line."""
    log = made(tmp_path / "audit.log")
    for quiet in (False, True):
        with pytest.raises(asyncio.CancelledError):
            tell(log, DELETE, quiet=quiet, error=asyncio.CancelledError())
    (line,) = lines(tmp_path / "audit.log")
    assert (line["step"], line["refused"]) == ("broken off", audit.BROKEN_OFF)


def test_names_beyond_all_measure_are_cut(tmp_path: Path) -> None:
    """A line is some kilobytes at most, whatever is sent, so that the cluster's store takes it."""
    services = [objects_pb2.Service(meta=objects_pb2.Meta(name="x" * 100_000)) for _ in range(40)]
    tell(made(tmp_path / "audit.log"), pb.ApplyRequest(objects=[objects_pb2.Object(service=s) for s in services]))
    (line,) = lines(tmp_path / "audit.log")
    name = f"service {'x' * 100_000}"[: deeds.MAX_NAME]
    assert line["objects"] == [*[name] * deeds.MAX_OBJECTS, "and 20 more"]


def test_what_lasts_is_told_when_it_begins_and_when_it_ends(tmp_path: Path) -> None:
    """An open shell is seen, also when the instance is killed before its end."""
    log = made(tmp_path / "audit.log")
    with log.told(ANN, "/orch.v1.Control/Exec", None) as told:
        told.goes_on(pb.ExecRequest(start=pb.ExecStart(namespace="shop", target="web-1")))
        assert not (tmp_path / "audit.log").exists()
        told.begins()
        told.begins()
        (line,) = lines(tmp_path / "audit.log")
        assert (line["call"], line["objects"], line["step"]) == ("Exec", ["target shop/web-1"], "begun")
    assert [line["step"] for line in lines(tmp_path / "audit.log")] == ["begun", "ended"]


def test_what_has_begun_and_fails_is_told_with_both(tmp_path: Path) -> None:
    """Something was done by then. Without a beginning it is a refusal: nothing was."""
    log = made(tmp_path / "audit.log")

    def fail(told: audit.Told, *, begins: bool) -> None:
        if begins:
            told.begins()
        raise errors.NotReachable("the node was lost")

    for begins in (True, False):
        with pytest.raises(errors.NotReachable), log.told(ANN, "/orch.v1.Control/Exec", None) as told:
            fail(told, begins=begins)
    steps = [(line.get("step"), line.get("refused")) for line in lines(tmp_path / "audit.log")]
    assert steps == [("begun", None), ("broken off", "the node was lost"), (None, "the node was lost")]


def test_refusals_are_told_at_a_pace_and_what_was_done_always(tmp_path: Path) -> None:
    """Whoever is refused without end writes a line a minute. Where nobody knows what was done, each is told."""
    log, path = made(tmp_path / "audit.log"), tmp_path / "audit.log"
    for _ in range(100):
        with pytest.raises(errors.Forbidden):
            tell(log, DELETE, quiet=True, error=errors.Forbidden("editor ann may not"))
    assert len(lines(path)) == refusals.BURST
    for _ in range(refusals.BURST + 5):
        tell(log, DELETE)
        with pytest.raises(Unavailable):
            tell(log, DELETE, error=Unavailable("nobody answers", ambiguous=True))
    assert len(lines(path)) == refusals.BURST + 2 * (refusals.BURST + 5)


@bounded(20)
async def test_what_was_left_out_is_told_once_the_pace_allows_it_and_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when nobody is refused any more. The time is that of the last refusal."""
    monkeypatch.setattr(audit, "LEFT_OUT_EVERY_S", 0.01)
    now_ms = NOW_MS
    log, path = audit.Audit(tmp_path / "audit.log", lambda: now_ms), tmp_path / "audit.log"

    def refuse(times: int) -> None:
        for _ in range(times):
            with pytest.raises(errors.Forbidden):
                tell(log, DELETE, error=errors.Forbidden("editor ann may not"))

    running = asyncio.create_task(log.run())
    refuse(refusals.BURST + 7)
    now_ms += 60_000
    await until(lambda: len(lines(path)) == refusals.BURST + 1, what="the rest is told", timeout_s=10)
    assert lines(path)[-1]["refused"] == "editor ann may not; and 6 more since the refusal before"
    assert str(lines(path)[-1]["at"]) == "2023-11-14T22:13:20.000+00:00"
    refuse(3)
    running.cancel()
    await asyncio.wait({running})
    assert lines(path)[-1]["refused"] == "editor ann may not; and 2 more since the refusal before"
