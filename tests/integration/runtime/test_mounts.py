"""The options of mounts: a tmpfs with the image's content, links, superblock flags, and attributes below a mount."""

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from runtime import defaults, errors, state
from tests.integration.runtime.conftest import Box

pytestmark = pytest.mark.root

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service, effective

DESCRIBE = (  # the size of a folder is its file system's business
    "find . | LC_ALL=C sort | while read f; do busybox stat -c '%n %F %a %u:%g %h' $f; "
    "[ -d $f ] || busybox stat -c %s $f; done"
)


def mounting(*mounts: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda config: config["mounts"].extend(mounts)


def copied(destination: str = "/data", *options: str) -> dict[str, Any]:
    return {"destination": destination, "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", *options]}


def upper(box: Box, name: str) -> Path:
    """The folder /data of a container that is to be made."""
    data = Path(box.overlay(name)["upper"]) / "data"
    data.mkdir()
    return data


def mapped(config: dict[str, Any]) -> None:
    defaults.give_user_namespace(config, first_id=1 << 20)


@pytest.mark.parametrize("own_users", [False, True])
def test_tmpcopyup(box: Box, *, own_users: bool) -> None:
    """Content, owners, modes, times, links, hard links and holes are those of the image; changes are not."""
    data = upper(box, "a")
    data.chmod(0o2751)
    (data / "sub/deeper").mkdir(parents=True)
    (data / "sub/file").write_text("content")
    os.link(data / "sub/file", data / "sub/deeper/same")
    (data / "sub/link").symlink_to("../nowhere")
    os.mkfifo(data / "fifo", 0o640)
    (data / "tool").write_text("x")
    os.truncate(data / "tool", 1 << 40)
    os.chown(data / "tool", 7, 8)
    (data / "tool").chmod(0o4755)
    os.setxattr(data / "tool", "security.capability", CAPABILITY)
    os.chown(data / "sub/link", 9, 9, follow_symlinks=False)
    for path in (data / "sub/file", data / "sub"):
        os.utime(path, (1000000000, 1000000000))
    before = describe(data)
    script = (
        f"cd /data; {DESCRIBE}; cat sub/file; echo;"
        "readlink sub/link; stat -c '%Y %b' sub sub/file tool; echo changed > sub/file; mount | grep /data"
    )

    def change(config: dict[str, Any]) -> None:
        config["mounts"].append(copied("/data", "size=1m", "nosuid"))
        if own_users:
            mapped(config)

    lines = box.run("a", "sh", "-c", script, change=change).splitlines()
    assert lines[: len(before)] == before
    content, target, sub, file, tool, mount = lines[len(before) :]
    assert (content, target) == ("content", "../nowhere")
    assert [line.split()[0] for line in (sub, file)] == ["1000000000"] * 2
    assert int(tool.split()[1]) <= 16, "the hole of a terabyte takes no memory"
    assert "tmpfs on /data type tmpfs (rw,nosuid" in mount
    assert (data / "sub/file").read_text() == "content"


def describe(folder: Path) -> list[str]:
    """The tree as busybox in the container is to describe it."""
    done = subprocess.run(["sh", "-c", f"cd $0; {DESCRIBE}", folder], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_tmpcopyup_keeps_capabilities(box: Box) -> None:
    """The attribute is set after the owner, whose change would remove it."""
    data = upper(box, "a")
    (data / "tool").write_text("x")
    os.setxattr(data / "tool", "security.capability", CAPABILITY)
    config = box.config("a", "sleep", "1000")
    mounting(copied())(config)
    box.create("a", config, start=True)
    pid = state.load(box.root, "a").pid
    assert os.getxattr(f"/proc/{pid}/root/data/tool", "security.capability") == CAPABILITY


def test_tmpcopyup_into_read_only_and_new(box: Box) -> None:
    """The copy is made before the mount is read-only; a folder that the image has not is empty."""
    (upper(box, "a") / "file").write_text("content")
    script = "cat /data/file; ls /new; (echo > /data/new) 2>&1"
    change = mounting(copied("/data", "ro", "noatime"), copied("/new", "strictatime"))
    config = box.config("a", "sh", "-c", f"{script}; true")
    change(config)
    box.create("a", config, start=True)
    assert box.ended("a").exit_code == 0
    assert box.output("a").startswith("content")
    assert "Read-only file system" in box.output("a")


def test_tmpcopyup_never_leaves_the_folder(box: Box, tmp_path: Path) -> None:
    """Links are copied as links, whatever they point to, and neither a device nor a pipe is opened."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("of the host")
    data = upper(box, "a")
    (data / "folder").symlink_to(secret)
    (data / "file").symlink_to(secret / "file")
    (data / "proc").symlink_to("/proc/self/root")
    os.mkfifo(data / "fifo")
    os.mknod(data / "console", 0o20600, os.makedev(5, 1))
    script = "for f in folder file proc; do readlink /data/$f; done; ls -l /data/console /data/fifo; find /data -type f"
    out = box.run("a", "sh", "-c", script, change=mounting(copied())).splitlines()
    assert out[:3] == [str(secret), str(secret / "file"), "/proc/self/root"]
    assert [line[0] for line in out[3:]] == ["c", "p"]


def test_tmpcopyup_is_bounded(box: Box) -> None:
    """A tree that is too deep, or larger than the tmpfs, is an error that names the place."""
    path = upper(box, "a")
    for _ in range(250):
        path /= "d"
        path.mkdir()
    config = box.config("a", "true")
    mounting(copied())(config)
    with pytest.raises(errors.SetupFailed, match=r"mounts\[7\]: tmpcopyup of /data/d.*: more than 200 folders deep"):
        box.create("a", config)
    (upper(box, "b") / "large").write_bytes(bytes(1 << 20) + b"x")
    config = box.config("b", "true")
    mounting(copied("/data", "size=64k"))(config)
    with pytest.raises(errors.SetupFailed, match=r"mounts\[7\]: tmpcopyup of /data/large: No space left"):
        box.create("b", config)


def test_tmpcopyup_enters_no_mount(box: Box, tmp_path: Path) -> None:
    """What the host has bound below the folder is not copied."""
    (upper(box, "a") / "inner").mkdir()
    config = box.config("a", "true")
    mounting({"destination": "/data/inner", "source": str(tmp_path), "options": ["bind"]}, copied())(config)
    with pytest.raises(errors.SetupFailed, match=r"tmpcopyup of /data/inner: something is mounted there"):
        box.create("a", config)


def test_superblock_words(box: Box) -> None:
    """Words that any file system takes reach it."""
    mount = {"destination": "/x", "type": "tmpfs", "source": "x", "options": ["sync", "dirsync", "lazytime", "nomand"]}
    out = box.run("a", "grep", " /x ", "/proc/mounts", change=mounting(mount))
    assert {"sync", "dirsync", "lazytime"} <= set(out.split()[3].split(","))
    mount["options"] = ["sync", "async", "lazytime", "nolazytime"]
    out = box.run("b", "grep", " /x ", "/proc/mounts", change=mounting(mount))
    assert not {"sync", "lazytime"} & set(out.split()[3].split(","))


def test_links_as_sources_and_targets(box: Box, tmp_path: Path) -> None:
    """A link is copied, or bound itself, or covered itself, as the words say; and else followed."""
    (tmp_path / "file").write_text("content")
    (tmp_path / "link").symlink_to("file")
    top = Path(box.overlay("a")["upper"])
    (top / "target").write_text("of the image")
    (top / "pointer").symlink_to("target")

    def bind(destination: str, *options: str, source: str = "link") -> dict[str, Any]:
        return {"destination": destination, "source": str(tmp_path / source), "options": ["bind", *options]}

    change = mounting(
        bind("/followed"),
        bind("/deep/copied", "copy-symlink"),
        bind("/deep/plain", "copy-symlink", source="file"),
        bind("/bound", "src-nofollow", "dest-nofollow"),
        bind("/pointer", "dest-nofollow", source="file"),
        bind("/new/file", "dest-nofollow", source="file"),
    )
    script = (
        "cat /followed; echo; readlink /deep/copied; cat /deep/plain; echo; readlink /bound; cat /pointer; echo; "
        "cat /target /new/file; echo; ls -l /deep"
    )
    lines = box.run("a", "sh", "-c", script, change=change).splitlines()
    assert lines[:6] == ["content", "file", "content", "file", "content", "of the imagecontent"]
    assert lines[-2].startswith("lrwx")


def test_copied_link_meets_something_else(box: Box, tmp_path: Path) -> None:
    """The same link is welcome; anything else stays, and is an error."""
    (tmp_path / "link").symlink_to("elsewhere")
    top = Path(box.overlay("a")["upper"])
    (top / "same").symlink_to("elsewhere")
    (top / "other").symlink_to("nowhere")
    for name, fine in (("same", True), ("other", False)):
        config = box.config("a", "readlink", f"/{name}")
        mount = {"destination": f"/{name}", "source": str(tmp_path / "link"), "options": ["bind", "copy-symlink"]}
        mounting(mount)(config)
        context = contextlib.nullcontext() if fine else pytest.raises(errors.SetupFailed, match="File exists")
        with context:
            box.create("a", config, start=True)
            assert box.ended("a").exit_code == 0
            box.delete("a")
    assert (top / "other").readlink() == Path("nowhere")


@contextlib.contextmanager
def tree_of_mounts(folder: Path) -> Iterator[None]:
    """A tmpfs with another one in it."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "outer", folder], check=True)
    try:
        (folder / "inner").mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "inner", folder / "inner"], check=True)
        yield
    finally:
        subprocess.run(["umount", "-R", folder], check=True)


def test_recursive_binds_and_attributes(box: Box, tmp_path: Path) -> None:
    """rbind brings what is mounted below and bind does not; a word with r is for all, one without for the top."""
    with tree_of_mounts(tmp_path / "tree"):
        (tmp_path / "tree/inner/file").write_text("inner")

        def bind(name: str, *options: str) -> dict[str, Any]:
            return {"destination": f"/{name}", "source": str(tmp_path / "tree"), "options": list(options)}

        change = mounting(
            bind("flat", "bind"), bind("top", "rbind", "ro"), bind("all", "rbind", "rro", "rnosuid", "rnoexec")
        )
        script = "ls /flat/inner; cat /top/inner/file /all/inner/file; echo; cat /proc/self/mountinfo"
        lines = box.run("a", "sh", "-c", script, change=change).splitlines()
    assert lines[0] == "innerinner"
    options = {row[4]: set(row[5].split(",")) for row in (line.split() for line in lines[1:])}
    assert "ro" in options["/top"]
    assert "rw" in options["/top/inner"]
    assert {"ro", "nosuid", "noexec"} <= options["/all"] & options["/all/inner"]


def test_device_nodes(box: Box) -> None:
    """Kind, numbers, mode and owner are as asked for, also in folders below /dev."""
    wanted = [
        {"path": "/dev/deep/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o620, "uid": 7, "gid": 8},
        {"path": "/dev/block", "type": "b", "major": 7, "minor": 200, "fileMode": 0o100600},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o644},
        {"path": "/dev/null", "type": "u", "major": 1, "minor": 3, "fileMode": 0o600},
    ]

    def change(config: dict[str, Any]) -> None:
        config["linux"]["devices"] = wanted

    script = "stat -c '%F %t:%T %a %u:%g' /dev/deep/zero /dev/block /dev/pipe /dev/null"
    assert box.run("a", "sh", "-c", script, change=change).splitlines() == [
        "character special file 1:5 620 7:8",
        "block special file 7:c8 600 0:0",
        "fifo 0:0 644 0:0",
        "character special file 1:3 600 0:0",
    ]
