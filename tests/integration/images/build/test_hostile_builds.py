"""Dockerfiles, contexts and base images that want out: published attacks on builders, each as a test.

The folder `canary` lies on this machine; its fixture checks that nothing in it has changed, each test that nothing of
it can be seen.
"""

from __future__ import annotations

import io
import os
import tarfile
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from images import errors
from images.build import builder, cache, containers, context, workshop

if TYPE_CHECKING:
    from tests.support.building import Bench

pytestmark = pytest.mark.root
FROM = "FROM localhost/base\n"


def tar(*members: tarfile.TarInfo, content: bytes = b"") -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as file:
        for member in members:
            is_file = member.isreg()
            member.size = len(content) if is_file else 0
            file.addfile(member, io.BytesIO(content) if is_file else None)
    return sink.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, 0o644
    return info


# Mounts of RUN


def test_the_source_of_a_bind_is_found_inside_its_stage(bench: Bench, canary: Path) -> None:
    """CVE-2024-1753: a link to / in the stage must not lead to this machine's root."""
    image = bench.build(
        f"{FROM}RUN ln -s / /l && ln -s {canary} /c && mkdir -p .{canary} && echo image > .{canary}/secret\n"
        f"{FROM}RUN --mount=type=bind,from=0,source=/l,target=/m cat /m{canary}/secret > /all\n"
        "RUN --mount=type=bind,from=0,source=/c,target=/m ls /m > /names && cat /m/secret > /one\n"
    )
    assert bench.read(image, "/all") == bench.read(image, "/one") == "image\n"
    assert bench.read(image, "/names") == "secret\n"


@pytest.mark.parametrize("option", ["bind-propagation=rshared,suid", "relabel=shared", "z=true"])
def test_a_mount_takes_no_further_options(bench: Bench, option: str) -> None:
    """CVE-2024-9407: words that reach mount(2) unchecked."""
    with pytest.raises(errors.InvalidDockerfile, match=r"Dockerfile:2: RUN: --mount"):
        bench.build(f"{FROM}RUN --mount=type=bind,target=/m,{option} true\n")


def test_the_id_of_a_cache_is_no_path(bench: Bench, canary: Path) -> None:
    """CVE-2024-9675: an id with `..` in it."""
    for name in (f"../../../../../../..{canary}", str(canary), "..", "a/../.."):
        bench.build(f"{FROM}RUN --mount=type=cache,id={name},target=/m touch /m/made && ! test -e /m/secret\n")
    mounts = bench.store.root / "build" / "mounts"
    assert all(len(path.name) == 64 for path in mounts.iterdir())
    assert len(list(mounts.glob("*/0/made"))) == 4


def test_what_is_written_to_a_bind_does_not_come_back(bench: Bench) -> None:
    """CVE-2025-4953: a writable bind of the context."""
    context = bench.context(
        {"Dockerfile": f"{FROM}RUN --mount=type=bind,target=/m,rw echo evil > /m/f; touch /m/new\n", "f": "mine"}
    )
    bench.build(context)
    assert (context / "f").read_text() == "mine"
    assert sorted(path.name for path in context.iterdir()) == ["Dockerfile", "f"]


def test_the_source_of_a_cache_is_found_inside_its_stage(bench: Bench, canary: Path) -> None:
    """CVE-2024-23651: what a cache begins with."""
    image = bench.build(
        f"{FROM}RUN mkdir -p .{canary} && echo image > .{canary}/secret && ln -s {canary} /l\n"
        f"{FROM}RUN --mount=type=cache,from=0,source=/l,target=/m cat /m/secret > /found; echo more > /m/secret\n"
    )
    assert bench.read(image, "/found") == "image\n"


def test_taking_mount_points_away_follows_no_link(bench: Bench, canary: Path) -> None:
    """CVE-2024-23652: the command puts links in the place of what is tidied up after it."""
    image = bench.build(
        f"{FROM}RUN --mount=type=tmpfs,target=/a/b/x mv /a/b /a/c && ln -s {canary} /a/b\n"
        f"RUN --mount=type=tmpfs,target=/q/x ln -s {canary} /p\n"
        f"RUN --mount=type=tmpfs,target=/p/x mkdir -p .{canary}/y && touch /p/x/y\n"
    )
    tree = bench.tree(image)
    assert tree["a/b"].content == tree["p"].content == str(canary)
    assert "q" not in tree
    assert f"{canary}/x".strip("/") not in tree
    assert f"{canary}/y".strip("/") in tree


def test_no_entitlements_are_taken_from_a_dockerfile(bench: Bench) -> None:
    """CVE-2024-23653: a Dockerfile that asks for more than any container has."""
    for flag in ("--security=insecure", "--device=/dev/vda", "--privileged"):
        with pytest.raises(errors.InvalidDockerfile, match="Dockerfile:2: RUN: "):
            bench.build(f"{FROM}RUN {flag} true\n")


# Users


@pytest.mark.parametrize("step", ["COPY --chown=app f /f", "USER app\nWORKDIR /made", "USER app\nRUN true"])
def test_a_pipe_for_a_table_of_users_is_refused_at_once(bench: Bench, step: str) -> None:
    """CVE-2024-9676: whoever opens it without care waits for good."""
    with pytest.raises(errors.ImageError, match=r"Dockerfile:\d: \w+: .*/?etc/passwd is not a regular file"):
        bench.build(f"{FROM}RUN rm /etc/passwd && mkfifo /etc/passwd\n{step}\n", {"f": ""})


def test_users_are_those_of_the_image(bench: Bench) -> None:
    """Not those of this machine, whatever links the image has in their place."""
    image = bench.build(
        f"{FROM}RUN mv /etc/passwd /users && echo daemon:x:4711:42::/: >> /users && ln -s ../../../users /etc/passwd\n"
        "COPY --chown=daemon f /f\n",
        {"f": ""},
    )
    assert (bench.tree(image)["f"].uid, bench.tree(image)["f"].gid) == (4711, 42)
    with pytest.raises(errors.InvalidImage, match=r"Dockerfile:2: COPY: --chown='bin': .*no user 'bin'"):
        bench.build(f"{FROM}COPY --chown=bin f /f\n", {"f": ""})


# Files


def test_copy_writes_below_the_root_only(bench: Bench, canary: Path) -> None:
    """Targets that are links to places of this machine, absolute and upwards."""
    up = "../" * 20
    image = bench.build(
        f"{FROM}RUN ln -s {canary} /abs && ln -s {up}{str(canary).strip('/')} /up\n"
        f"RUN mkdir /d && ln -s {canary}/x /d/x\n"
        "COPY f /abs/\nCOPY f /up/g\nCOPY d /d\n",
        {"f": "new", "d/x": "new", "d/y": "new"},
    )
    inside = str(canary).strip("/")
    tree = bench.tree(image)
    assert tree[f"{inside}/f"].kind == tree[f"{inside}/g"].kind == "-"
    assert bench.read(image, "/d/x") == "new"
    assert tree["d/x"].kind == "-", "a link that a file replaces is not followed"


def test_copy_reads_below_its_source_only(bench: Bench, canary: Path) -> None:
    """Links in a stage, and in the context."""
    with pytest.raises(errors.NotFound, match="Dockerfile:4: COPY: stage 0: no file '/l/secret'"):
        bench.build(f"{FROM}RUN ln -s {canary} /l\nFROM scratch\nCOPY --from=0 /l/secret /\n")


def test_links_in_a_context_lead_nowhere_else(bench: Bench, canary: Path) -> None:
    context = bench.context({"Dockerfile": f"{FROM}COPY link /f\n", "d/f": ""})
    (context / "link").symlink_to(canary / "secret")
    (context / "d/inner").symlink_to(canary / "secret")
    with pytest.raises(errors.NotFound, match=r"Dockerfile:2: COPY: build context .*: no file 'link'"):
        bench.build(context)
    (context / "Dockerfile").write_text(f"{FROM}COPY d /d\n")
    assert bench.tree(bench.build(context))["d/inner"].content == str(canary / "secret"), "a link stays a link"


def test_a_dockerfile_that_is_a_link_is_read_inside_the_context(bench: Bench, canary: Path) -> None:
    context = bench.context({})
    (context / "Dockerfile").symlink_to(canary / "secret")
    with pytest.raises(errors.NotFound, match="Dockerfile: No such file"):
        bench.build(context)


@pytest.mark.parametrize(
    "archive",
    [
        tar(member("../../out")),
        tar(member("/out")),
        tar(member("l", tarfile.LNKTYPE, "../../../etc/passwd")),
    ],
    ids=["upwards", "absolute", "hard link"],
)
def test_archives_of_add_with_bad_names_are_refused(bench: Bench, archive: bytes) -> None:
    with pytest.raises(errors.InvalidImage, match="Dockerfile:2: ADD: "):
        bench.build(f"{FROM}ADD a.tar /\n", {"a.tar": archive})


def test_links_of_an_archive_of_add_lead_nowhere_else(bench: Bench, canary: Path) -> None:
    archive = tar(member("l", tarfile.SYMTYPE, str(canary)), member("l/x"), content=b"evil")
    image = bench.build(f"{FROM}ADD a.tar /\n", {"a.tar": archive})
    inside = f"{canary}/x"
    assert bench.read(image, inside) == "evil"


def test_devices_in_an_archive_of_add_are_refused(bench: Bench) -> None:
    disk = member("disk", tarfile.BLKTYPE)
    disk.devmajor, disk.devminor = 8, 0
    with pytest.raises(errors.InvalidImage, match="/disk: device 8:0 cannot be in an image"):
        bench.build(f"{FROM}ADD a.tar /\n", {"a.tar": tar(disk)})


def test_a_command_cannot_make_whiteouts_for_others(bench: Bench) -> None:
    """A file `.wh.x` would be a removal once it is in a layer."""
    with pytest.raises(errors.InvalidImage, match=r"Dockerfile:2: RUN: /etc/\.wh\.passwd: a name that begins with"):
        bench.build(f"{FROM}RUN touch /etc/.wh.passwd\n")


@pytest.mark.parametrize("more", ["", " && touch /f"], ids=["folders", "with a file"])
def test_folders_in_one_another_do_not_harm_the_store(bench: Bench, more: str) -> None:
    """Deeper than whoever walks them has stack: refused with the step's place, and removed."""
    with pytest.raises(errors.InvalidImage, match=r"Dockerfile:2: RUN: /a/a/a.* too deep for an image"):
        bench.build(f"{FROM}RUN mkdir -p $(yes a | head -n 1500 | tr '\\n' /){more}\n")
    assert list(bench.store.tmp.iterdir()) == []
    bench.build(
        f"{FROM}RUN --mount=type=cache,target=/c cd /c && mkdir -p $(yes a | head -n 1500 | tr '\\n' /)\n",
    )
    cache.Cache(store=bench.store).clear()
    assert list((bench.store.root / "build/mounts").glob("*/*")) == []


# Commands


def test_commands_have_the_rights_of_any_container(bench: Bench) -> None:
    """Nothing inheritable (CVE-2022-24769 and others), a system call filter, users of their own where there can be."""
    image = bench.build(
        f"{FROM}RUN cp /proc/self/status /s; cp /proc/self/uid_map /m; ! unshare -U true 2> /u; ls /dev > /d\n"
    )
    status = dict(line.split(":\t", 1) for line in bench.read(image, "/s").splitlines())
    assert int(status["CapInh"], 16) == int(status["CapAmb"], 16) == 0
    assert int(status["CapEff"], 16) == 0xA80425FB
    assert status["Seccomp"] == "2"
    assert "not permitted" in bench.read(image, "/u")
    assert bench.read(image, "/m").split() == ["0", str(0x6FFF0000), "65536"]
    assert "vda" not in bench.read(image, "/d")


def test_a_dockerfile_cannot_take_back_the_network_that_a_person_took_away(bench: Bench) -> None:
    with pytest.raises(errors.InvalidDockerfile, match=r"Dockerfile:2: RUN: --network=host asks for .* none has taken"):
        bench.build(f"{FROM}RUN --network=host cat /proc/net/dev\n", network="none")
    with pytest.raises(errors.InvalidDockerfile, match=r"Dockerfile:2: ADD: http://127.0.0.1:1/x cannot be fetched: -"):
        bench.build(f"{FROM}ADD http://127.0.0.1:1/x /x\n", network="none")
    image = bench.build(f"{FROM}RUN --network=default cat /proc/net/dev > /n\n", network="none")
    assert len(bench.read(image, "/n").splitlines()) == 3, "two lines of titles, and the loopback"


def test_a_command_sees_no_process_and_no_cgroup_of_this_machine(bench: Bench) -> None:
    image = bench.build(f"{FROM}RUN cd /proc && ls -d [0-9]* > /pids; cat /proc/1/cgroup > /groups; hostname > /name\n")
    assert int(bench.read(image, "/pids").split()[0]) == 1
    assert all(line.endswith(":/") for line in bench.read(image, "/groups").splitlines())
    assert bench.read(image, "/name") == "build\n"


def test_what_a_command_says_cannot_steer_a_terminal(bench: Bench) -> None:
    with pytest.raises(errors.BuildFailed) as failed:
        bench.build(f"{FROM}RUN printf 'a\\033[2Jb\\n'; exit 7\n")
    assert str(failed.value) == "Dockerfile:2: RUN: ended with exit code 7:\n  a?[2Jb"


def test_a_flood_of_output_takes_no_memory(bench: Bench) -> None:
    """Whoever watches may drop it, and the error has its end only."""
    text = f"{FROM}RUN yes 0123456789012345678901234567890123456789 | head -c 20000000; echo end; exit 1\n"
    tracemalloc.start()
    try:
        with (
            context.folder(bench.context({"Dockerfile": text})) as found,
            pytest.raises(errors.BuildFailed, match=r"end$") as failed,
        ):
            builder.build(bench.store, found, workshop.Options(), area=bench.area)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()
    assert len(str(failed.value)) < 10_000


def test_secrets_stay_out_of_everything_that_is_kept(bench: Bench) -> None:
    secret = b"s3cret-of-the-test"
    text = (
        f"{FROM}RUN --mount=type=secret,id=a cat /run/secrets/a | sha256sum > /sum && ls -l /run/secrets > /mode\n"
        "RUN --mount=type=secret,id=a,env=TOKEN,uid=1000,target=/t test -n \"$TOKEN\" && stat -c '%u %a' /t > /own\n"
    )
    image = bench.build(text, secrets={"a": secret})
    warned = [f"secrets lie on a disk while their commands run: {bench.area} is on no tmpfs"]
    assert bench.last.warnings == ([] if containers.is_in_memory(bench.area) else warned)
    assert containers.is_in_memory(Path("/dev/shm"))
    assert bench.read(image, "/mode").splitlines()[1].startswith("-r--------")
    assert bench.read(image, "/own") == "1000 400\n"
    for folder, _, names in os.walk(bench.folder):
        for name in names:
            assert secret not in (Path(folder) / name).read_bytes(), f"{folder}/{name}"
    bench.build(text, secrets={"a": b"another"})
    assert not bench.last.made, "the value of a secret is no part of a key"
    with pytest.raises(errors.NotFound, match="Dockerfile:2: RUN: secret 'a' is required"):
        bench.build(f"{FROM}RUN --mount=type=secret,id=a,required=true true\n")


def test_a_volume_is_only_written_down(bench: Bench, canary: Path) -> None:
    """CVE-2022-23648 is about what is done with it; the build does nothing with it."""
    image = bench.build(f"{FROM}VOLUME /../../{canary}\nVOLUME /v\nRUN test ! -e /v\n")
    assert set(bench.config(image)["config"]["Volumes"]) == {f"/../../{canary}", "/v"}
