"""`orchctl image ls` of images that no name leads to, with the real program."""

import json
from pathlib import Path

from tests.support import orchctl
from tests.support.orchctl import Result
from tests.unit.images import makers

LAYER = makers.archive(makers.directory("etc"), makers.member("etc/motd", content=b"hello\n" * 2000))
EXTRA = makers.archive(makers.member("etc/extra", content=b"extra\n" * 1000))


def test_an_image_without_a_name_is_listed_and_found_by_its_digest(tmp_path: Path) -> None:
    """Of an archive that names none, or when its name has come to mean another; until the next prune."""
    environ = {**orchctl.environment(tmp_path, "127.0.0.1:1"), "ORCH_IMAGE_STORE": str(tmp_path / "store")}

    def run(*arguments: str, stdin: bytes = b"") -> Result:
        return orchctl.run(environ, "image", *arguments, stdin=stdin)

    def names() -> list[str]:
        return run("ls", "-o", "name").out.split()

    both = makers.files(makers.docker_archive(LAYER, EXTRA, tags=("web:1",), Cmd=["cat", "/etc/motd"]))
    assert run("load", stdin=both).code == 0
    web = str(json.loads(run("inspect", "web:1", "-o", "json").out)["digest"])
    archive = makers.files(makers.docker_archive(LAYER, Cmd=["sh"], tags=()))
    assert run("load", stdin=archive).code == 0
    (row,) = [each for each in json.loads(run("ls", "-o", "json").out) if not each["names"]]
    assert row["sharedBytes"] == len(LAYER)
    assert [line.split()[:2] for line in run("ls").out.splitlines()[1:]] == [
        ["web:1", web[7:19]],
        ["-", row["digest"][7:19]],
    ]
    assert names() == ["web:1", row["digest"]]
    assert run("tag", row["digest"], "web:1").code == 0
    assert names() == ["web:1", web], "the other one has lost its name"
    assert run("tag", web[7:19], "old").code == 0
    assert names() == ["old:latest", "web:1"]
    assert run("rm", "old").code == 0
    assert run("prune").code == 0
    assert names() == ["web:1"]
