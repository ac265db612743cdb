"""Hooks in real containers: the right moment, the right namespaces, the state on stdin, and what a failure does."""

import json
from pathlib import Path
from typing import Any

import pytest

from runtime import errors, state
from tests.integration.runtime.conftest import Box

pytestmark = pytest.mark.root

ALL = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


class Diary:
    """A folder of the host, also bound into the container, in which hooks write down what they see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.script = folder / "note"
        self.script.write_text(
            "#!/bin/sh\n"
            "name=$1; shift\n"
            f"here={folder}; [ -d $here ] || here=/diary\n"
            "echo $name >> $here/order\n"
            "cat > $here/$name.state\n"
            "for kind in pid mnt net; do readlink /proc/self/ns/$kind; done > $here/$name.ns\n"
            'env > $here/$name.env; echo "$@" > $here/$name.args\n'
        )
        self.script.chmod(0o755)

    def hook(self, name: str, *args: str, **more: Any) -> dict[str, Any]:
        """A hook that notes what it sees."""
        path = "/diary/note" if name == "startContainer" else str(self.script)
        return {"path": path, "args": ["note", name, *args], "env": ["PATH=/bin:/usr/bin", "ONE=1"], **more}

    def order(self) -> list[str]:
        return (self.folder / "order").read_text().split()

    def state(self, name: str) -> dict[str, Any]:
        found = json.loads((self.folder / f"{name}.state").read_text())
        assert isinstance(found, dict)
        return found

    def namespaces(self, name: str) -> list[str]:
        return (self.folder / f"{name}.ns").read_text().split()


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path / "diary")


def configured(box: Box, diary: Diary, hooks: dict[str, Any], *args: str) -> dict[str, Any]:
    config = box.config("a", *args)
    config["hooks"] = hooks
    config["annotations"] = {"com.example.key": "value"}
    config["mounts"].append({"destination": "/diary", "source": str(diary.folder), "options": ["rbind"]})
    return config


def start(box: Box) -> None:
    with box.monitor("a") as monitor:
        monitor.start()


def failing(said: str) -> dict[str, Any]:
    return {"path": "/bin/sh", "args": ["sh", "-c", f"echo {said} >&2; exit 3"]}


def ours() -> list[str]:
    return namespaces_of("self")


def namespaces_of(process: int | str) -> list[str]:
    return [str(Path(f"/proc/{process}/ns/{kind}").readlink()) for kind in ("pid", "mnt", "net")]


def test_all_six_in_order_and_in_their_namespaces(box: Box, diary: Diary) -> None:
    """Two are executed in the container's namespaces, the others in ours; the program runs between the fourth and
    the fifth at the earliest."""
    hooks = {name: [diary.hook(name, "x", "y z")] for name in ALL}
    pid = box.create("a", configured(box, diary, hooks, "sleep", "100"), bundle="/some/bundle", start=False)["pid"]
    assert diary.order() == list(ALL[:3])
    start(box)
    assert diary.order() == list(ALL[:5])
    inside = namespaces_of(pid)
    for name in ("prestart", "createRuntime", "poststart"):
        assert diary.namespaces(name) == ours(), name
        assert diary.state(name)["pid"] == pid
    for name in ("createContainer", "startContainer"):
        assert diary.namespaces(name) == inside, name
        assert diary.state(name)["pid"] == 1
    assert (diary.folder / "prestart.args").read_text() == "x y z\n"
    assert "ONE=1" in (diary.folder / "startContainer.env").read_text().split()
    assert "HOME" not in (diary.folder / "startContainer.env").read_text()
    with box.monitor("a") as monitor:
        monitor.kill(9)
    box.ended("a")
    assert diary.order()[-1] != "poststop"
    box.delete("a")
    assert diary.order() == list(ALL)
    assert [diary.state(name)["status"] for name in ALL] == [
        *("creating", "creating", "creating", "created", "running", "stopped")
    ]
    for name in ALL:
        known = diary.state(name)
        assert known["bundle"] == "/some/bundle"
        assert known["annotations"] == {"com.example.key": "value"}
        assert known["ociVersion"].startswith("1.")
        assert known["id"] == "a"


def test_hooks_with_a_start_at_once(box: Box, diary: Diary) -> None:
    """The reply to `create` with `start` comes after the poststart hooks."""
    hooks = {name: [diary.hook(name)] for name in ALL}
    box.create("a", configured(box, diary, hooks, "echo", "hello"))
    assert diary.order() == list(ALL[:5])
    assert box.ended("a").exit_code == 0
    assert box.output("a") == "hello"


def test_a_hook_adds_to_the_file_tree(box: Box, tmp_path: Path) -> None:
    """A hook finds the tree where the state says, can mount into it although the root will be read-only, and the
    container sees it."""
    (tmp_path / "gift").mkdir()
    (tmp_path / "gift/file").write_text("given")
    script = tmp_path / "give"
    script.write_text(
        "#!/bin/sh\n"
        """root=$(sed 's/.*"root": "\\([^"]*\\)".*/\\1/')\n"""
        f"mkdir $root/gift && mount --bind {tmp_path}/gift $root/gift\n"
    )
    script.chmod(0o755)
    for name, overlay in (("a", box.overlay("a")), ("b", None)):
        config = box.config(name, "cat", "/gift/file")
        config["root"] = {"path": str(box.image), "readonly": True}
        config["hooks"] = {"createContainer": [{"path": str(script), "env": ["PATH=/bin:/sbin"]}]}
        try:
            box.create(name, config, overlay=overlay)
            assert box.ended(name).exit_code == 0, box.output(name)
        finally:
            if overlay is None:
                (box.image / "gift").rmdir()
        assert box.output(name) == "given"


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failed_hook_ends_the_creation(box: Box, diary: Diary, kind: str) -> None:
    """The error names the hook and has its words; later hooks are not executed, but for poststop; nothing is left."""
    hooks = {kind: [failing("no luck"), diary.hook(kind)], "poststop": [diary.hook("poststop")]}
    with pytest.raises(errors.SetupFailed, match=rf"hooks.{kind}\[0\] /bin/sh: exit code 3: no luck"):
        box.create("a", configured(box, diary, hooks, "true"))
    assert diary.order() == ["poststop"]
    assert diary.state("poststop")["status"] == "stopped"
    assert "pid" not in diary.state("poststop")
    with pytest.raises(errors.UnknownContainer):
        state.load(box.root, "a")


def test_a_failed_start_hook_ends_the_container(box: Box, diary: Diary) -> None:
    """The program never runs."""
    refused = {"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}
    box.create("a", configured(box, diary, {"startContainer": [refused]}, "touch", "/diary/ran"), start=False)
    with pytest.raises(errors.SetupFailed, match=r"hooks.startContainer\[0\] /bin/sh: exit code 3"):
        start(box)
    assert box.ended("a").exit_code != 0
    assert not (diary.folder / "ran").exists()


def test_late_failures_are_warnings(box: Box, diary: Diary, capfd: pytest.CaptureFixture[str]) -> None:
    """What fails after the start, or after the end, stops neither the container nor the hooks that follow."""
    hooks = {kind: [failing("never mind"), diary.hook(kind)] for kind in ("poststart", "poststop")}
    box.create("a", configured(box, diary, hooks, "echo", "hello"), start=False)
    start(box)
    assert box.ended("a").exit_code == 0
    box.delete("a")
    assert diary.order() == ["poststart", "poststop"]
    assert "hooks.poststop[0] /bin/sh: exit code 3: never mind" in capfd.readouterr().err


def test_a_hook_that_does_not_end_is_killed_with_its_children(box: Box, diary: Diary, tmp_path: Path) -> None:
    """After its timeout; the creation fails with that reason."""
    slow = {"path": "/bin/sh", "args": ["sh", "-c", f"sleep 1000 & echo $! > {tmp_path}/pid; wait"], "timeout": 1}
    with pytest.raises(errors.SetupFailed, match=r"hooks.createRuntime\[0\] /bin/sh: did not end within 1 s"):
        box.create("a", configured(box, diary, {"createRuntime": [slow]}, "true"))
    pid = int((tmp_path / "pid").read_text())
    assert state.process_start(pid) == 0


def test_a_hook_may_write_much_and_leave_a_child_behind(box: Box, diary: Diary) -> None:
    """More than a pipe holds; a daemon that keeps the streams open delays nobody; a state that nobody reads is no
    trouble."""
    script = "exec </dev/null; head -c 1000000 /dev/zero; setsid sleep 20 & exit 0"
    loud = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"], "timeout": 10}
    box.create("a", configured(box, diary, {"createRuntime": [loud]}, "true"))
    assert box.ended("a").exit_code == 0


def test_a_hook_that_is_not_there(box: Box, diary: Diary) -> None:
    """The path is named."""
    with pytest.raises(errors.SetupFailed, match=r"hooks.prestart\[0\] /no/such: No such file"):
        box.create("a", configured(box, diary, {"prestart": [{"path": "/no/such"}]}, "true"))
