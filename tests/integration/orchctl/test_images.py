"""`orchctl image`: the real program on a store of its own, without any cluster."""

import contextlib
import gzip
import hashlib
import json
import os
import pty
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from images import image, manifest, rootfs
from images.store import ImageStore
from tests.support import orchctl
from tests.support.orchctl import Result
from tests.unit.images import makers

Run = Callable[..., Result]
LAYER = makers.archive(makers.directory("etc"), makers.member("etc/motd", content=b"hello\n" * 2000))
EXTRA = makers.archive(makers.member("etc/extra", content=b"extra\n" * 1000))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def run(tmp_path: Path, root: Path) -> Run:
    environ = {**orchctl.environment(tmp_path, "127.0.0.1:1"), "ORCH_IMAGE_STORE": str(root)}
    return lambda *arguments, stdin=b"": orchctl.run(environ, "image", *arguments, stdin=stdin)


@pytest.fixture
def web(run: Run, tmp_path: Path) -> str:
    """An image of two layers in the store; its digest."""
    path = tmp_path / "web.tar"
    path.write_bytes(makers.files(makers.docker_archive(LAYER, EXTRA, tags=("web:1",), Cmd=["cat", "/etc/motd"])))
    assert run("load", str(path)).code == 0
    return str(json.loads(run("inspect", "web:1", "-o", "json").out)["digest"])


def names(run: Run) -> list[str]:
    return run("ls", "-o", "name").out.split()


# Listing


def test_a_list_says_what_is_shared_and_what_removal_frees(run: Run, web: str, tmp_path: Path) -> None:
    archive = makers.files(makers.docker_archive(LAYER, tags=("base:1",), Cmd=["sh"]))
    assert run("load", stdin=archive).code == 0
    rows = {row["names"][0]: row for row in json.loads(run("ls", "-o", "json").out)}
    assert rows["web:1"]["sharedBytes"] == rows["base:1"]["sharedBytes"] == len(LAYER)
    assert rows["web:1"]["digest"] == web
    assert rows["web:1"]["uniqueBytes"] == rows["web:1"]["sizeBytes"] - len(LAYER)
    assert yaml.safe_load(run("ls", "-o", "yaml").out) == json.loads(run("ls", "-o", "json").out)
    title, *lines = run("ls").out.splitlines()
    assert title.split() == ["NAME", "DIGEST", "CREATED", "SIZE", "SHARED", "UNIQUE"]
    assert [line.split()[:2] for line in lines] == [["base:1", rows["base:1"]["digest"][7:19]], ["web:1", web[7:19]]]
    before = sum(path.stat().st_size for path in (tmp_path / "store" / "blobs" / "sha256").iterdir())
    assert run("rm", "web:1").code == 0
    after = sum(path.stat().st_size for path in (tmp_path / "store" / "blobs" / "sha256").iterdir())
    assert before - after == rows["web:1"]["uniqueBytes"]


def test_an_empty_store_says_so(run: Run) -> None:
    assert run("ls") == Result(code=0, out="", err="no images\n")
    assert run("ls", "-o", "json").out == "[]\n"


def test_an_image_is_shown_in_full(run: Run, web: str) -> None:
    page = run("inspect", web[7:19]).out
    assert f"Digest:         {web}" in page
    assert 'Cmd:            ["cat", "/etc/motd"]' in page
    document = json.loads(run("inspect", "web:1", "-o", "json").out)
    assert [layer["diffId"] for layer in document["layers"]] == [
        f"sha256:{hashlib.sha256(layer).hexdigest()}" for layer in (LAYER, EXTRA)
    ]
    assert len(json.loads(run("inspect", "web:1", web, "-o", "json").out)) == 2


def test_history_puts_layers_beside_their_steps(run: Run, root: Path) -> None:
    store = ImageStore(root)
    layer = store.put_bytes(LAYER)
    config = image.ConfigDocument(
        platform=manifest.Platform(architecture="amd64"),
        diff_ids=(layer,),
        config=image.Config(cmd=("sh",)),
        history=(
            image.Step(created="2024-05-06T07:08:09Z", created_by="COPY motd /etc"),
            image.Step(created_by="CMD sh", is_empty=True),
        ),
    ).as_bytes()
    store.put_bytes(config)
    store.tag("made", store.put_bytes(makers.manifest_document(config, LAYER)))
    lines = run("history", "made").out.splitlines()
    assert [line.split()[1] for line in lines[1:]] == ["-", "14Ki"]
    assert "CMD sh" in lines[1]
    assert "COPY motd /etc" in lines[2]
    assert json.loads(run("history", "made", "-o", "json").out) == [
        {"createdBy": "CMD sh", "isEmpty": True},
        {"created": "2024-05-06T07:08:09Z", "createdBy": "COPY motd /etc"},
    ]


# Names


def test_names_are_given_and_taken(run: Run, web: str) -> None:
    assert run("tag", web[7:15], "team/web:2", "registry.example.com/web").code == 0
    assert names(run) == ["registry.example.com/web:latest", "team/web:2", "web:1"]
    assert run("tag", "web:1", "good", "Not Good").code == 2
    assert "good:latest" not in names(run), "all names are read before the first is given"
    result = run("rm", "team/web:2")
    assert result.out == "team/web:2 removed\nfreed 0\n"
    assert run("inspect", "web:1").code == 0


def test_an_image_with_several_names_is_not_removed_by_its_digest_unless_forced(run: Run, web: str, root: Path) -> None:
    run("tag", "web:1", "web:2")
    result = run("rm", web[7:19])
    assert (result.code, result.out) == (2, "")
    assert "has 2 names: web:1, web:2" in result.err
    assert run("rm", "--force", web[7:19]).out.splitlines()[:2] == ["web:1 removed", "web:2 removed"]
    assert list((root / "blobs" / "sha256").iterdir()) == []


@pytest.mark.usefixtures("web")
def test_nothing_is_removed_when_one_of_them_is_not_there(run: Run) -> None:
    result = run("rm", "web:1", "gone")
    assert result.code == 1
    assert "image gone is not in" in result.err
    assert names(run) == ["web:1"]


# Room


@pytest.mark.usefixtures("web")
def test_prune_tells_what_it_would_do_and_then_does_it(run: Run, root: Path) -> None:
    rootfs.build_image(ImageStore(root), [rootfs.File(path="a", content=b"loose")])
    told = run("prune", "--dry-run").out
    assert told.startswith("3 blobs (")
    assert told.endswith("would be removed\n")
    assert run("prune").out == told.replace("would be removed", "removed")
    assert names(run) == ["web:1"]


def test_prune_by_age_spares_what_was_used_since(run: Run, web: str, root: Path) -> None:
    run("load", stdin=makers.files(makers.docker_archive(EXTRA, tags=("new:1",))))
    os.utime(root / "blobs" / "sha256" / web.removeprefix("sha256:"), (1_600_000_000, 1_600_000_000))
    assert run("prune", "--older-than", "30d").out.splitlines()[0] == "web:1 removed"
    assert names(run) == ["new:1"]
    assert run("prune", "--all", "--older-than", "1h").code == 2
    assert run("prune", "--all").code == 0
    assert names(run) == []


# In and out


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir"])
@pytest.mark.usefixtures("web")
def test_what_is_saved_loads_with_all_digests(run: Run, tmp_path: Path, form: str) -> None:
    run("load", stdin=makers.files(makers.docker_archive(LAYER, tags=("base:1",), Cmd=["sh"])))
    run("tag", "web:1", "not:asked-for")
    before = json.loads(run("inspect", "web:1", "base:1", "-o", "json").out)
    target = tmp_path / "saved"
    result = run("save", "web:1", "base:1", "--format", form, "-o", str(target))
    assert (result.code, result.out) == (0, ""), result.err
    assert run("prune", "--all").code == 0
    loaded = run("load", str(target))
    assert sorted(line.split()[0] for line in loaded.out.splitlines()) == ["base:1", "web:1"], loaded.err
    after = json.loads(run("inspect", "web:1", "base:1", "-o", "json").out)
    assert [one["digest"] for one in after] == [one["digest"] for one in before]
    assert [one["layers"] for one in after] == [one["layers"] for one in before]
    assert "not:asked-for" not in names(run)


def test_an_archive_goes_through_a_pipe_compressed_or_not(run: Run, web: str, root: Path) -> None:
    piped = subprocess.run(
        orchctl.command("image", "save", "web:1"),
        env={**orchctl.environment(Path("/nowhere")), "ORCH_IMAGE_STORE": str(root)},
        capture_output=True,
        timeout=orchctl.TIMEOUT_S,
        check=True,
    ).stdout
    for data in (piped, gzip.compress(piped)):
        run("prune", "--all")
        assert run("load", stdin=data).out.startswith("web:1 loaded ")
    assert json.loads(run("inspect", "web:1", "-o", "json").out)["digest"] == web


@pytest.mark.usefixtures("web")
def test_a_file_appears_whole_or_not_at_all(run: Run, root: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "saved.tar"
    target.parent.mkdir()
    (root / "blobs" / "sha256" / hashlib.sha256(EXTRA).hexdigest()).unlink()
    result = run("save", "web:1", "-o", str(target))
    assert result.code == 1
    assert "is missing; fetch the image again" in result.err
    assert list(target.parent.iterdir()) == []
    assert "cannot write" in run("save", "web:1", "-o", str(tmp_path / "no" / "such")).err


@pytest.mark.usefixtures("web")
def test_a_folder_that_is_there_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").write_text("mine")
    result = run("save", "web:1", "--format", "oci-dir", "-o", str(tmp_path / "full"))
    assert result.code == 1
    assert "exists already" in result.err
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine"]


def test_a_root_file_system_becomes_an_image_that_starts_as_told(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "root.tar"
    path.write_bytes(LAYER)
    options = ("--cmd", "/bin/httpd -f", "--env", "A=b", "--workdir", "/srv", "--user", "1000", "--expose", "80/tcp")
    assert run("import", str(path), "--name", "hello", *options).code == 0
    config = json.loads(run("inspect", "hello", "-o", "json").out)["config"]
    assert config == {
        "cmd": ["/bin/httpd", "-f"],
        "env": ["A=b"],
        "workingDir": "/srv",
        "user": "1000",
        "exposedPorts": ["80/tcp"],
    }


@pytest.mark.usefixtures("web")
def test_one_image_of_several_has_to_be_chosen(run: Run, tmp_path: Path) -> None:
    run("tag", "web:1", "web:2")
    run("load", stdin=makers.files(makers.docker_archive(LAYER, tags=("base:1",))))
    run("save", "web:1", "base:1", "-o", str(tmp_path / "both.tar"))
    result = run("import", str(tmp_path / "both.tar"), "--name", "mine")
    assert result.code == 2
    assert "holds 2 images" in result.err
    assert run("import", str(tmp_path / "both.tar"), "--select", "base:1", "--name", "mine").code == 0
    assert "mine:latest" in names(run)


def test_a_bad_port_or_a_refused_archive_is_one_line_and_names_nothing(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "evil.tar"
    path.write_bytes(makers.archive(makers.member("../../etc/passwd", content=b"root")))
    result = run("import", str(path), "--name", "evil")
    assert result.code == 1
    assert result.err.splitlines()[-1].startswith(f"orchctl: archive {path}: entry '../../etc/passwd': ")
    path.write_bytes(LAYER)
    assert "99999/tcp" in run("import", str(path), "--name", "web", "--expose", "99999/tcp").err
    assert "No such file or directory; name a file that can be read" in run("load", str(tmp_path / "gone.tar")).err
    assert names(run) == []


# Around


@pytest.mark.usefixtures("web")
def test_the_option_wins_over_the_variable(run: Run, tmp_path: Path) -> None:
    assert run("ls", "--store", str(tmp_path / "other")).err == "no images\n"
    assert names(run) == ["web:1"]


@pytest.mark.usefixtures("web")
def test_no_server_is_asked(run: Run) -> None:
    """The server of these tests is a closed port: any verb that asked it would fail."""
    assert run("ls").code == 0


@pytest.mark.root
@pytest.mark.usefixtures("web")
def test_a_store_of_somebody_else_says_what_to_do(root: Path, tmp_path: Path) -> None:
    environ = {**orchctl.environment(tmp_path), "ORCH_IMAGE_STORE": str(root)}
    script = "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); os.execv(sys.argv[1], sys.argv[1:])"
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", script, *orchctl.command("image", "ls")],
        env={**environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPYCACHEPREFIX": str(tmp_path / "none")},
        cwd=orchctl.ROOT,
        capture_output=True,
        text=True,
        timeout=orchctl.TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 1
    assert "failed: Permission denied" in done.stderr
    assert "hint: run it as root, or choose a store of your own with --store DIR or ORCH_IMAGE_STORE" in done.stderr


@pytest.mark.usefixtures("web")
def test_names_of_the_store_are_completed(run: Run, root: Path, tmp_path: Path) -> None:
    run("tag", "web:1", "other:1")
    environ = {
        **orchctl.environment(tmp_path),
        "ORCH_IMAGE_STORE": str(root),
        "_ORCHCTL_COMPLETE": "bash_complete",
        "COMP_CWORD": "3",
        "COMP_WORDS": "orchctl image rm w",
    }
    assert orchctl.run(environ).out == "plain,web:1\n"
    nowhere = {**environ, "ORCH_IMAGE_STORE": str(tmp_path / "nowhere")}
    assert orchctl.run(nowhere).out.strip() == ""
    assert not (tmp_path / "nowhere").exists()


def test_a_root_file_system_goes_out_and_differences_are_told(run: Run, web: str, tmp_path: Path) -> None:
    run("load", stdin=makers.files(makers.docker_archive(LAYER, tags=("base:1",))))
    rows = [line.split() for line in run("diff", "base:1", "web:1").out.splitlines()]
    assert rows == [["CHANGE", "PATH", "SIZE", "WHAT"], ["added", "etc/extra", "5.9Ki"]]
    assert json.loads(run("diff", "web:1", "base:1", "-o", "json").out) == [
        {"path": "etc/extra", "change": "removed", "beforeBytes": 6000, "afterBytes": 0}
    ]
    assert run("diff", "web:1", web) == Result(code=0, out="", err="no differences\n")
    assert run("export", "web:1", "-o", str(tmp_path / "root.tar")).code == 0
    with tarfile.open(tmp_path / "root.tar") as packed:
        assert packed.getnames() == ["etc/motd", "etc/extra", "etc"]
        content = packed.extractfile("etc/motd")
        assert content is not None
        assert content.read() == b"hello\n" * 2000


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_a_compressed_archive_leaves_the_store_as_it_was(
    run: Run, web: str, root: Path, tmp_path: Path, form: str
) -> None:
    before = sorted(path.name for path in (root / "blobs" / "sha256").iterdir())
    target = tmp_path / "saved.tar"
    assert run("save", web, "--compress", form, "--format", "oci-archive", "-o", str(target)).code == 0
    assert sorted(path.name for path in (root / "blobs" / "sha256").iterdir()) == before
    other = str(tmp_path / "other")
    assert run("load", str(target), "--store", other).code == 0
    ours, theirs = (json.loads(run("inspect", "web:1", "-o", "json", *more).out) for more in ((), ("--store", other)))
    assert theirs["id"] == ours["id"]
    assert all(layer["mediaType"].endswith(f"+{form}") for layer in theirs["layers"])
    assert [layer["diffId"] for layer in theirs["layers"]] == [layer["diffId"] for layer in ours["layers"]]


def test_a_damaged_image_is_told_and_can_be_removed(run: Run, web: str, root: Path) -> None:
    run("load", stdin=makers.files(makers.docker_archive(EXTRA, tags=("good:1",))))
    path = root / "blobs" / "sha256" / web.removeprefix("sha256:")
    path.write_bytes(path.read_bytes().replace(b"manifest", b"tsefinam", 1))
    listed = run("ls")
    assert listed.code == 0
    assert "web:1 cannot be read: blob" in listed.err
    assert [line.split()[0] for line in listed.out.splitlines()] == ["NAME", "good:1"]
    assert run("rm", "web:1").code == 0
    assert run("ls").err == ""


def test_progress_is_drawn_in_a_terminal_and_ends_clean(run: Run, web: str, root: Path, tmp_path: Path) -> None:
    """Bars go to the terminal; what programs read is not mixed with them."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        orchctl.command("image", "save", web, "--compress", "gzip", "-o", str(tmp_path / "out.tar")),
        env={**orchctl.environment(tmp_path), "ORCH_IMAGE_STORE": str(root), "TERM": "xterm", "COLUMNS": "60"},
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    seen = b""
    with contextlib.suppress(OSError):  # EIO: the other end has closed
        while piece := os.read(leader, 4096):
            seen += piece
    os.close(leader)
    assert process.wait(orchctl.TIMEOUT_S) == 0
    last = seen.decode().rpartition("\x1b[J")[2].splitlines()
    assert last, seen
    assert all(line.endswith("done") for line in last), last
    assert len(last) == 4, "two layers as they were, and two as they are written"
    assert run("inspect", "web:1").code == 0
