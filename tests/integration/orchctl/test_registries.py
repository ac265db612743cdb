"""`orchctl image pull`, `push`, `login` and `logout`: the real program and Debian's docker-registry, and no cluster."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from images import manifest
from images.store import ImageStore
from tests.support import orchctl, registry
from tests.support.orchctl import Result
from tests.support.registry import PASSWORD, USER
from tests.unit.images import makers

Run = Callable[..., Result]
LAYER = makers.archive(makers.member("motd", content=b"hello\n" * 50_000))


@pytest.fixture
def run(tmp_path: Path) -> Run:
    environ = orchctl.environment(tmp_path, "127.0.0.1:1")
    environ |= {"ORCH_IMAGE_STORE": str(tmp_path / "store"), "DOCKER_CONFIG": str(tmp_path / "docker")}
    environ |= {"ORCH_REGISTRIES": str(tmp_path / "registries.yaml")}
    (tmp_path / "registries.yaml").touch()
    return lambda *arguments, stdin=b"": orchctl.run(environ, "image", *arguments, stdin=stdin)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[registry.Server]:
    with registry.running(tmp_path / "registry") as server:
        yield server


@pytest.fixture
def web(run: Run, peer: registry.Server) -> str:
    """An image with a name that says the registry."""
    name = f"{peer.address}/team/web:1"
    archive = makers.files(makers.docker_archive(LAYER, tags=(name,), Cmd=["cat"]))
    assert run("load", stdin=archive).code == 0
    return name


def test_an_image_goes_and_comes(run: Run, web: str) -> None:
    """Pushed, removed here, pulled again, and then up to date; digests tell that it is the same."""
    digest = json.loads(run("inspect", web, "-o", "json").out)["digest"]
    pushed = run("push", web)
    assert (pushed.code, pushed.out) == (0, f"{web} pushed ({digest})\n")
    assert "uploading" in pushed.err
    assert run("rm", web).code == 0
    pulled = run("pull", web)
    assert (pulled.code, pulled.out) == (0, f"{web} pulled ({digest[7:19]}, 294Ki)\n")
    assert "downloading" in pulled.err
    assert run("pull", web).out == f"{web} is up to date ({digest[7:19]}, 294Ki)\n"
    pinned = f"{web.removesuffix(':1')}@{digest}"
    assert run("pull", pinned).out == f"{pinned} is up to date ({digest[7:19]}, 294Ki)\n"
    assert run("rm", web).code == 0
    assert run("pull", pinned).out == f"{pinned} pulled ({digest[7:19]}, 294Ki)\n"


def test_a_push_of_less_than_the_name_stands_for_says_so(run: Run, tmp_path: Path, web: str) -> None:
    """Of an index whose other platform is not here, this machine's image goes; with --platform that was the wish."""
    store = ImageStore(tmp_path / "store")
    body = store.read_document(store.resolve(web).digest)
    entries = [
        makers.descriptor(body if is_here else b"elsewhere", manifest.OCI_MANIFEST, platform={"architecture": name})
        for is_here, name in ((True, manifest.host_platform().architecture), (False, "riscv64"))
    ]
    store.tag(web, store.put_bytes(makers.index_document(*entries)))
    assert "only the image for this machine" in run("push", web).out
    assert "only the image" not in run("push", web, "--platform", str(manifest.host_platform())).out


def test_what_is_missing_is_one_sentence(run: Run, web: str, peer: registry.Server) -> None:
    assert run("push", web).code == 0
    missing = run("pull", f"{peer.address}/nothing:1")
    assert (missing.code, missing.out) == (1, "")
    assert missing.err.startswith(f"orchctl: image {peer.address}/nothing:1: registry {peer.address} has no such thing")
    assert missing.err.endswith("check the name\n")
    nobody = run("pull", f"127.0.0.1:{registry.free_port()}/web")
    assert (nobody.code, nobody.err.count("\n")) == (1, 1)
    assert "is it running?" in nobody.err
    other = run("pull", web, "--platform", "linux/s390x")
    assert other.code == 1
    assert f"{web} is no image for linux/s390x; it is for linux/" in other.err
    assert run("pull", "Not/A/Name").code == 2
    both = run("pull", web, "--all-platforms", "--platform", "linux/arm64")
    assert (both.code, both.err.splitlines()[-1]) == (2, "hint: choose one of them")


def test_a_name_without_a_registry_means_the_cluster(run: Run, web: str) -> None:
    assert run("tag", web, "plain:1").code == 0
    refused = run("push", "plain:1")
    assert refused.code == 1
    assert refused.err.startswith("orchctl: cannot reach the control plane at ")
    assert run("push").code == 2
    assert run("push", web, "--archive", "-").code == 2
    refused = run("push", "--archive", "-", "--platform", "linux/arm64")
    assert (refused.code, "are for images of this machine" in refused.err) == (2, True)
    assert run("push", "--archive", "-", "--registries", "none.yaml").code == 2


def test_login_and_logout(run: Run, tmp_path: Path, web: str) -> None:
    """The password is never an argument; the file is for its owner; a push without it names the verb."""
    with registry.running(tmp_path / "closed", auth=registry.htpasswd(tmp_path)) as peer:
        name = f"{peer.address}/web:1"
        assert run("tag", web, name).code == 0
        refused = run("push", name)
        assert refused.code == 1
        assert f"log in with `orchctl image login {peer.address}`" in refused.err
        wrong = run("login", peer.address, "-u", USER, "--password-stdin", stdin=b"wrong\n")
        assert (wrong.code, wrong.out) == (1, "")
        assert "does not accept this user name and password" in wrong.err
        config = tmp_path / "docker/config.json"
        assert not config.exists()
        logged_in = run("login", peer.address, "-u", USER, "--password-stdin", stdin=f"{PASSWORD}\n".encode())
        assert (logged_in.code, logged_in.out) == (0, f"logged in to {peer.address} (kept by {config})\n")
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        assert run("push", name).code == 0
        assert run("logout", peer.address).out == f"logged out of {peer.address}\n"
        assert "no user and password" in run("logout", peer.address).err
        assert run("push", name).code == 1


def test_nobody_is_asked_who_is_not_there(run: Run, peer: registry.Server) -> None:
    refused = run("login", peer.address)
    assert refused.code == 2
    assert "--password-stdin" in refused.err


def test_a_mistake_in_the_configuration_is_told_with_its_line(run: Run, tmp_path: Path, web: str) -> None:
    (tmp_path / "registries.yaml").write_text("registries:\n  docker.io:\n    mirror: [a.example]\n")
    refused = run("pull", web)
    assert refused.code == 1
    path = tmp_path / "registries.yaml"
    assert refused.err == (
        f"orchctl: {path}:3: registries.docker.io.mirror: there is no such key; did you mean mirrors?\n"
    )
