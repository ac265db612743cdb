"""Each verb of orchrun on its own, as its callers use it."""

import json
import os
import signal
import socket
import subprocess
import termios
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runtime_cli.conftest import Command, Typist
from tests.support.waiting import until

pytestmark = pytest.mark.root


def test_the_life_of_a_container(command: Command) -> None:
    """create, start, kill, delete: the states that `state` tells in between, and the output of the caller's streams."""
    bundle = command.bundle("a", ["sh", "-c", "echo hello; exec sleep 1000"])
    pid_file, out = command.folder / "pid", command.folder / "out"
    with out.open("wb") as output:
        arguments = command.line("create", "--bundle", bundle, "--pid-file", pid_file, "a")
        subprocess.run(arguments, check=True, timeout=60, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    told = json.loads(command.ok("state", "a"))
    assert told["status"] == "created"
    assert told["pid"] == int(pid_file.read_text())
    assert (told["id"], told["bundle"], told["rootfs"]) == ("a", str(bundle), str(command.rootfs))
    assert (told["owner"], told["annotations"]) == ("root", {})
    assert told["ociVersion"].startswith("1.")
    assert not out.read_text()

    command.ok("start", "a")
    assert command.status("a") == "running"
    until(lambda: out.read_text() == "hello\n", what="the program's output")
    assert "is running" in command.refused("delete", "a")
    assert "since it is running" in command.refused("start", "a")

    command.ok("kill", "a", "KILL")
    until(lambda: command.status("a") == "stopped", what="its end")
    assert json.loads(command.ok("state", "a"))["pid"] == 0
    assert "not running" in command.refused("kill", "a", "TERM")
    command.ok("delete", "a")
    assert "does not exist" in command.refused("state", "a")
    assert "does not exist" in command.refused("delete", "a")
    command.ok("delete", "--force", "a")
    assert not Path(f"/sys/fs/cgroup/pids{command.parent}/a").exists()
    assert command.leftovers() == []


def test_run_ends_as_its_program_does(command: Command) -> None:
    """The exit code, and the output, are the program's; nothing is left."""
    done = command.call("run", "--bundle", command.bundle("a", ["sh", "-c", "echo out; echo err >&2; exit 7"]), "a")
    assert (done.returncode, done.stdout, done.stderr) == (7, "out\n", "err\n")
    done = command.call("run", "--no-pivot", "--bundle", command.bundle("b", ["sh", "-c", "kill -9 $$"]), "b")
    # Process 1 of a namespace cannot kill itself; it goes on to the end of its script.
    assert done.returncode == 0
    assert command.ok("list", "-q") == ""


def test_run_passes_signals_on(command: Command) -> None:
    """What run gets, the program gets."""
    bundle = command.bundle("a", ["sh", "-c", "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done"])
    with subprocess.Popen(command.line("run", "--bundle", bundle, "a"), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 9


def test_stdin_is_the_callers(command: Command) -> None:
    bundle = command.bundle("a", ["cat"])
    done = command.call("run", "--bundle", bundle, "a", stdin=None, input="through\n")
    assert done.stdout == "through\n"


def test_a_program_that_is_missing(command: Command) -> None:
    """Clients look for these words; nothing is left."""
    bundle = command.bundle("a", ["nosuch"])
    log = command.folder / "log"
    done = command.call("--log", log, "--log-format", "json", "create", "--bundle", bundle, "a")
    assert done.returncode == 1
    assert "executable file not found in $PATH" in done.stderr
    told = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(entry["level"], "nosuch" in entry["msg"]) for entry in told] == [("error", True)]
    assert set(told[0]) == {"level", "msg", "time"}
    assert command.ok("list", "-q") == ""
    bundle = command.bundle("b", ["/etc/passwd"])
    assert "permission denied" in command.refused("create", "--bundle", bundle, "b")


def test_start_tells_why_a_program_is_not_executed(command: Command) -> None:
    """What only the exec itself finds out."""
    script = command.rootfs / "bin/odd"
    script.write_text("#!/bin/nowhere\n")
    script.chmod(0o755)
    bundle = command.bundle("a", ["/bin/odd"])
    with (command.folder / "out").open("wb") as output:
        subprocess.run(command.line("create", "-b", bundle, "a"), check=True, stdout=output, stderr=output, timeout=60)
    assert "no such file or directory" in command.refused("start", "a").lower()
    assert command.status("a") == "stopped"
    command.ok("delete", "a")


def test_a_created_container_is_deleted_without_force(command: Command) -> None:
    """As runc does it: its program has never run."""
    bundle = command.bundle("a", ["true"])
    with (command.folder / "out").open("wb") as output:
        subprocess.run(command.line("create", "-b", bundle, "a"), check=True, stdout=output, stderr=output, timeout=60)
    pid = command.pid("a")
    command.ok("delete", "a")
    until(lambda: not Path(f"/proc/{pid}/root/bin").exists(), what="its process has ended")
    assert command.ok("list", "-q") == ""


def test_exec(command: Command) -> None:
    """Another process inside: its exit code, user, folder, variables, groups and capabilities."""
    command.start("a")
    assert command.call("exec", "a", "sh", "-c", "exit 5").returncode == 5
    flags = ("--user", "app", "--cwd", "/tmp", "--env", "A=b c", "--additional-gids", "7")
    told = command.ok("exec", *flags, "a", "sh", "-c", "id -u; id -g; id -G; pwd; echo $A; echo $HOME")
    assert told.splitlines() == ["1000", "1001", "1001 7 44", "/tmp", "b c", "/tmp"]
    grep = ("grep", "-E", "CapEff|CapInh|CapAmb", "/proc/self/status")
    before, after = (
        dict(line.split() for line in command.ok("exec", *extra, "a", *grep).splitlines())
        for extra in ((), ("--cap", "CAP_SYS_ADMIN"))
    )
    assert int(after["CapEff:"], 16) == int(before["CapEff:"], 16) | 1 << 21
    assert int(after["CapInh:"], 16) == int(after["CapAmb:"], 16) == 0
    missing = command.call("exec", "a", "nosuch")
    assert missing.returncode == 255
    assert "executable file not found" in missing.stderr
    assert "no such flag" in command.refused("exec", "--nosuch", "a", "true")
    assert command.ok("exec", "a", "echo", "--detach", "-t", "--") == "--detach -t --\n"


def test_exec_from_a_file_and_detached(command: Command) -> None:
    """As conmon and the shim call it: a process object, a pid file, and nobody waits."""
    command.start("a")
    process = {"args": ["sh", "-c", "echo $B >/dev/shm/out; exec sleep 1000"], "env": ["B=c", "PATH=/bin"], "cwd": "/"}
    path, pid_file = command.folder / "process.json", command.folder / "pid"
    path.write_text(json.dumps({**process, "user": {"uid": 0, "gid": 0}}))
    with (command.folder / "out").open("wb") as output:
        line = command.line("exec", "--process", path, "--detach", "--pid-file", pid_file, "a")
        subprocess.run(line, check=True, timeout=60, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    pid = int(pid_file.read_text())
    assert Path(f"/proc/{pid}/root").stat().st_ino == Path(f"/proc/{command.pid('a')}/root").stat().st_ino
    until(lambda: command.ok("exec", "a", "cat", "/dev/shm/out") == "c\n", what="its variable")
    assert pid in json.loads(command.ok("ps", "--format", "json", "a"))


def test_ps_pause_resume(command: Command) -> None:
    """A paused container is told as such, takes no process, and can be killed."""
    pid = command.start("a")
    assert json.loads(command.ok("ps", "-f", "json", "a")) == [pid]
    heading, *rows = command.ok("ps", "a").splitlines()
    assert "PID" in heading
    assert [row.split()[1] for row in rows] == [str(pid)]
    assert command.ok("ps", "a", "-o", "pid,comm").split() == ["PID", "COMMAND", str(pid), "sleep"]
    command.ok("pause", "a")
    assert command.status("a") == "paused"
    assert "is paused" in command.refused("exec", "a", "true")
    assert "since it is paused" in command.refused("pause", "a")
    assert "is paused" in command.refused("start", "a") or "running" in command.refused("start", "a")
    command.ok("resume", "a")
    assert command.status("a") == "running"
    assert "not paused" in command.refused("resume", "a")
    command.ok("pause", "a")
    command.ok("kill", "a", "9")
    until(lambda: command.status("a") == "stopped", what="its end")


def test_kill_by_number_and_name_and_everybody(command: Command) -> None:
    command.start("a", "sh", "-c", "trap 'echo usr1' USR1; sleep 1000 & while :; do wait; done")
    out = command.folder / "a.out"
    for number, word in enumerate(("USR1", "SIGUSR1", "usr1", "10"), 1):
        until(lambda: len(json.loads(command.ok("ps", "-f", "json", "a"))) == 2, what="both processes")
        command.ok("kill", "a", word)
        until(lambda wanted=number: out.read_text().count("usr1") == wanted, what=f"{word} arrived")
    assert "is none" in command.refused("kill", "a", "NOSUCH")
    command.ok("kill", "--all", "a", "KILL")
    until(lambda: command.status("a") == "stopped", what="its end")
    command.ok("kill", "--all", "a", "KILL")


def test_list_tells_the_same_of_all(command: Command) -> None:
    command.start("b")
    command.start("a")
    found = json.loads(command.ok("list", "--format", "json"))
    assert [container["id"] for container in found] == ["a", "b"]
    assert found[0] == json.loads(command.ok("state", "a"))
    heading, first, second = command.ok("list").splitlines()
    assert heading.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert first.split()[0] == "a"
    assert second.split()[2] == "running"
    assert command.ok("list", "--quiet") == "a\nb\n"


def test_a_terminal_goes_to_the_console_socket(command: Command) -> None:
    """The caller gets the master; the container has the other end as its streams and its console."""

    def with_terminal(config: dict[str, Any]) -> None:
        config["process"]["terminal"] = True

    bundle = command.bundle("a", ["sh", "-c", "tty; tty </dev/console; read x; echo got $x"], change=with_terminal)
    assert "--console-socket" in command.refused("create", "--bundle", bundle, "a")
    path = command.folder / "console"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(1)
        command.ok("create", "--bundle", bundle, "--console-socket", path, "a")
        connection, _ = listener.accept()
        with connection:
            _, [master], _, _ = socket.recv_fds(connection, 100, 1)
    command.ok("start", "a")
    os.write(master, b"word\n")
    seen = b""
    while b"got word" not in seen:
        seen += os.read(master, 1000)
    os.close(master)
    assert b"/dev/pts/0" in seen
    assert b"/dev/console" in seen or seen.count(b"/dev/pts/0") == 2


def test_run_copies_the_callers_terminal(command: Command) -> None:
    """`run` with a terminal on a terminal: what is typed arrives, its size is known, and ours is as before."""

    def with_terminal(config: dict[str, Any]) -> None:
        config["process"]["terminal"] = True

    script = "stty size; read x; stty size; echo got $x; exit 3"
    bundle = command.bundle("a", ["sh", "-c", script], change=with_terminal)
    with Typist(command.line("run", "-b", bundle, "a")) as typist:
        typist.expect("33 77")
        typist.resize(22, 66)
        os.kill(typist.process.pid, signal.SIGWINCH)  # as the kernel tells the foreground of a terminal
        typist.type("word\r")
        typist.expect("got word")
        assert b"22 66" in typist.seen
        assert typist.ended() == 3
        local = termios.tcgetattr(typist.slave)[3]
        assert local & termios.ICANON
        assert local & termios.ECHO


def test_preserved_descriptors_and_no_others(command: Command) -> None:
    """--preserve-fds passes 3 to N+2; whatever else the caller leaked stays outside."""
    bundle = command.bundle("a", ["sh", "-c", "cat <&3; ls /proc/self/fd"])
    with (command.folder / "text").open("w+") as passed, (command.folder / "text").open() as leaked:
        passed.write("from three\n")
        passed.seek(0)
        os.dup2(passed.fileno(), 203)
        line = command.line("run", "--preserve-fds", "1", "--bundle", bundle, "a")
        script = f'exec 3<&203 9<&{leaked.fileno()} 203<&-; exec "$@"'
        shell = ["bash", "-c", script, "bash", *line]
        done = subprocess.run(
            shell, pass_fds=[203, leaked.fileno()], capture_output=True, text=True, timeout=60, check=False
        )
        os.close(203)
    assert done.returncode == 0, done.stderr
    first, *descriptors = done.stdout.split("\n")
    assert first == "from three"
    assert [word for word in descriptors if word] == ["0", "1", "2", "3", "4"]  # 4 is the listing's own
    assert "is not open" in command.refused("run", "--preserve-fds", "90", "--bundle", bundle, "a")


@pytest.mark.parametrize("tool", ["runc", "crun"])
def test_bundles_of_others_run_unchanged(command: Command, tool: str) -> None:
    """What `runc spec` and `crun spec` write, terminal and all."""
    bundle = command.folder / tool
    bundle.mkdir()
    subprocess.run([tool, "spec"], cwd=bundle, check=True, timeout=10)
    (bundle / "rootfs").symlink_to(command.rootfs)
    # Its cgroup is named after it, and two runs of the suite may go on at once.
    with Typist(command.line("run", "-b", bundle, f"{tool}-{os.getpid()}")) as typist:
        typist.expect("# ")
        typist.type("echo $((6*7)) $TERM; exit 4\r")
        typist.expect("42 xterm")
        assert typist.ended() == 4


def test_wrong_use_is_one_line(command: Command) -> None:
    """Exit code 1, one line, and what to do."""
    bundle = command.bundle("a", ["true"])
    for arguments, words in (
        (["nosuch"], "no such verb"),
        (["create", "--nosuch", "a"], "no such flag"),
        (["create", "--bundle"], "needs DIR"),
        (["create", "--bundle", "/nowhere", "a"], "/nowhere/config.json"),
        (["create", "--bundle", bundle], "expected ID"),
        (["create", "--bundle", bundle, "a/b"], "id: "),
        (["start", "nosuch"], "does not exist"),
        (["--systemd-cgroup", "create", "--bundle", bundle, "a"], "--systemd-cgroup"),
        (["--cgroup-manager", "odd", "list"], "--cgroup-manager"),
        (["--log-format", "odd", "list"], "--log-format"),
        (["spec", "--bundle", bundle], "exists already"),
        (["--rootless", "odd", "list"], "--rootless"),
    ):
        done = command.call(*arguments)
        assert done.returncode == 1, arguments
        assert words in done.stderr, (arguments, done.stderr)
        assert done.stderr.count("\n") == 1, done.stderr
    assert command.ok("--version").startswith("orchrun version ")
    assert "create" in command.ok("--help")
    assert "--console-socket" in command.ok("create", "--help")
    assert command.leftovers() == []


def test_update_changes_the_groups_limits(command: Command) -> None:
    """From a file as podman gives it, from the standard input as the shim does, and by flags; raised and lowered."""
    command.start("a")
    group = "/sys/fs/cgroup/{}" + f"{command.parent}/a/"

    def limit(controller: str, file: str) -> str:
        return Path(group.format(controller) + file).read_text().strip()

    path = command.folder / "resources.json"
    memory = {"limit": 64 << 20, "swap": 64 << 20}
    path.write_text(json.dumps({"memory": memory, "cpu": {"quota": 50000, "period": 100000}, "pids": {"limit": 33}}))
    command.ok("update", f"--resources={path}", "a")
    assert limit("memory", "memory.limit_in_bytes") == str(64 << 20)
    assert limit("cpu", "cpu.cfs_quota_us") == "50000"
    assert limit("pids", "pids.max") == "33"
    # Above the old limit of memory with swap, so that one has to go up first.
    raised = json.dumps({"memory": {"limit": 128 << 20, "swap": 256 << 20}, "cpu": {"period": 0}})
    command.ok("update", "--resources", "-", "a", stdin=None, input=raised)
    assert limit("memory", "memory.memsw.limit_in_bytes") == str(256 << 20)
    command.ok("update", "--memory", "32m", "--memory-swap", "32m", "--pids-limit", "44", "a")
    assert limit("memory", "memory.limit_in_bytes") == str(32 << 20)
    assert limit("pids", "pids.max") == "44"
    assert "nothing to change" in command.refused("update", "a")
    assert "no number" in command.refused("update", "--memory", "much", "a")
    assert command.ok("exec", "a", "sh", "-c", "echo >/dev/null && echo fine") == "fine\n"


def test_statistics(command: Command) -> None:
    """One line of JSON as runc's; `events` goes on until the end."""
    command.start("a")
    for arguments in (("events", "--stats", "a"), ("stats", "a")):
        told = json.loads(command.ok(*arguments))
        assert (told["type"], told["id"]) == ("stats", "a")
        assert told["data"]["pids"]["current"] == 1
        assert told["data"]["cpu"]["usage"]["total"] > 0
        assert 0 < told["data"]["memory"]["usage"]["usage"] < told["data"]["memory"]["usage"]["limit"]
    line = command.line("events", "--interval", "0.05s", "a")
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["id"] for _ in range(3)] == ["a"] * 3
        command.ok("kill", "a", "KILL")
        assert process.wait(timeout=30) == 0
    assert "not running" in command.refused("stats", "a")


def test_features_names_what_the_parsers_know(command: Command) -> None:
    told = json.loads(command.ok("features"))
    assert set(told["linux"]["namespaces"]) == {"cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"}
    assert len(told["linux"]["capabilities"]) == 41
    assert told["linux"]["cgroup"] == {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True}
    assert {"rbind", "rro", "nosuid", "rslave", "tmpcopyup", "sync", "src-nofollow"} <= set(told["mountOptions"])
    assert not {"remount", "mand", "silent"} & set(told["mountOptions"])
    assert [told["linux"][name]["enabled"] for name in ("apparmor", "selinux", "netDevices", "intelRdt")] == [
        *(True, True, True, False)
    ]
    assert told["linux"]["mountExtensions"] == {"idmap": {"enabled": True}}
    assert "MPOL_BIND" in told["linux"]["memoryPolicy"]["modes"]
    assert "SCMP_ACT_NOTIFY" in told["linux"]["seccomp"]["actions"]


def test_a_user_namespace_of_its_own(command: Command) -> None:
    """Root inside is nobody outside, also for a further process."""

    def mapped(config: dict[str, Any]) -> None:
        config["linux"]["namespaces"].append({"type": "user"})
        mapping = [{"containerID": 0, "hostID": 700000, "size": 65536}]
        config["linux"].update(uidMappings=mapping, gidMappings=mapping)
        del config["linux"]["sysctl"]["net.ipv4.ping_group_range"]  # of more groups than the namespace has

    pid = command.start("a", change=mapped)
    assert Path(f"/proc/{pid}").stat().st_uid == 700000
    assert command.ok("exec", "a", "id", "-u") == "0\n"
    assert command.ok("exec", "a", "cat", "/proc/self/uid_map").split() == ["0", "700000", "65536"]
