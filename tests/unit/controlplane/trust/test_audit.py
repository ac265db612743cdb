"""The audit log."""

import asyncio
import json
from pathlib import Path

import pytest

from controlplane.core import request_errors as errors
from controlplane.core.trust.rules import Caller
from controlplane.trust import audit
from protos.orch.v1 import control_pb2 as pb
from protos.orch.v1 import objects_pb2, trust_pb2
from trust.core.identity import Identity, Role

ANN = Caller(identity=Identity(cluster="c", role=Role.EDITOR, name="ann"))
DELETE = pb.DeleteRequest(reference=pb.ObjectReference(kind="service", namespace="shop", name="web"))


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def tell(log: audit.Audit, request: object, *, quiet: bool = False, error: BaseException | None = None) -> None:
    with log.told(ANN, "/orch.v1.Control/Delete", request) as told:
        told.quiet = quiet
        if error is not None:
            raise error


def test_what_is_changed_is_told_with_who_and_what(tmp_path: Path) -> None:
    """One line, in a file that only its owner reads."""
    path = tmp_path / "audit.log"
    tell(audit.Audit(path), DELETE)
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
    path, log = tmp_path / "audit.log", audit.Audit(tmp_path / "audit.log")
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
    tell(audit.Audit(path), pb.ApplyRequest(objects=[objects_pb2.Object(service=service)]))
    assert "hunter2" not in path.read_text()
    assert lines(path)[0]["objects"] == ["service shop/web"]


def test_it_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four files; the newest line is in the newest."""
    monkeypatch.setattr(audit, "MAX_BYTES", 300)
    log = audit.Audit(tmp_path / "audit.log")
    for number in range(40):
        reference = pb.ObjectReference(kind="service", namespace="shop", name=f"web{number}")
        tell(log, pb.DeleteRequest(reference=reference))
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["audit.1", "audit.2", "audit.3", "audit.log"]
    assert all((tmp_path / name).stat().st_size < 600 for name in files)
    assert lines(tmp_path / "audit.log")[-1]["objects"] == ["service shop/web39"]


def test_a_log_that_cannot_be_written_holds_up_nobody(tmp_path: Path) -> None:
    """The call is answered, and what would have been told stands in the instance's log."""
    tell(audit.Audit(tmp_path / "missing" / "audit.log"), DELETE)
    assert not (tmp_path / "missing").exists()


def test_a_call_in_several_messages_is_told_with_what_the_first_one_names(tmp_path: Path) -> None:
    """Nothing of the command or of what is typed into it."""
    start = pb.ExecStart(namespace="shop", target="web-1", command=["login", "hunter2"])
    with audit.Audit(tmp_path / "audit.log").told(ANN, "/orch.v1.Control/Exec", None) as told:
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
    assert audit.objects(first) == named


def test_a_token_is_told_with_all_that_it_gives() -> None:
    """One for a shop is another thing than one for everything."""
    made = trust_pb2.CreateTokenRequest(role="editor", person="ann", namespaces=["shop", "bank"], replaces="5f0c2a11")
    told = ["role editor", "person ann", "namespace shop", "namespace bank", "instead of 5f0c2a11"]
    assert audit.objects(made) == told
    assert audit.objects(trust_pb2.CreateTokenRequest(role="node")) == ["role node"]


def test_a_call_that_is_broken_off_is_told_as_that(tmp_path: Path) -> None:
    """A command has done what it has done. Who stops reading is not worth a line."""
    log = audit.Audit(tmp_path / "audit.log")
    for quiet in (False, True):
        with pytest.raises(asyncio.CancelledError):
            tell(log, DELETE, quiet=quiet, error=asyncio.CancelledError())
    assert [line["refused"] for line in lines(tmp_path / "audit.log")] == [audit.BROKEN_OFF]


def test_names_beyond_all_measure_are_cut(tmp_path: Path) -> None:
    """A line is some kilobytes at most, whatever is sent, so that the cluster's store takes it."""
    services = [objects_pb2.Service(meta=objects_pb2.Meta(name="x" * 100_000)) for _ in range(40)]
    tell(
        audit.Audit(tmp_path / "audit.log"), pb.ApplyRequest(objects=[objects_pb2.Object(service=s) for s in services])
    )
    (line,) = lines(tmp_path / "audit.log")
    assert line["objects"] == [f"service {'x' * 100_000}"[: audit.MAX_NAME]] * audit.MAX_OBJECTS
