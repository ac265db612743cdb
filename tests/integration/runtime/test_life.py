"""Creation, start, exit, signals, adoption and deletion."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from runtime import cgroupfiles, client, control, errors, residence, state
from tests.integration.runtime.conftest import Box, wait_gone, wait_until
from tests.support import groups, processes

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[3]


def test_output_and_exit_code_are_kept(box: Box) -> None:
    """Both streams reach the log in the CRI format, and the exit code the disk."""
    box.create("a", box.config("a", "sh", "-c", "echo out; echo err >&2; exit 7"))
    ended = box.ended("a")
    assert (ended.exit_code, ended.signal, ended.oom_killed) == (7, 0, False)
    records = [line.split(" ", 3) for line in box.log_path("a").read_text().splitlines()]
    assert sorted(record[1:] for record in records) == [["stderr", "F", "err"], ["stdout", "F", "out"]]
    assert state.load(box.root, "a").status == "stopped"


def test_created_container_waits_for_start(box: Box) -> None:
    """Between create and start everything is set up and nothing of the program has run."""
    box.create("a", box.config("a", "sh", "-c", "echo ran; sleep 100"), start=False)
    assert state.load(box.root, "a").status == "created"
    with box.monitor("a") as monitor:
        assert monitor.state().status == "created"
        assert not box.log_path("a").read_text()
        monitor.start()
        assert state.load(box.root, "a").status == "running"
        wait_until(lambda: "ran" in box.log_path("a").read_text(), "the program runs")
        with pytest.raises(errors.WrongStatus, match="running"):
            monitor.start()


def test_signal_ends_and_is_reported(box: Box) -> None:
    """A signal's number is in the exit, and the connected client hears of it."""
    box.create("a", box.config("a", "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.01; done"))
    with box.monitor("a") as monitor:
        monitor.kill(signal.SIGKILL)
        ended = monitor.wait(10)
    assert (ended.exit_code, ended.signal) == (137, signal.SIGKILL)


def test_missing_program_is_127_and_leaves_nothing(box: Box) -> None:
    """The error names the program; no folder, cgroup or process stays."""
    with pytest.raises(errors.ProgramNotFound, match=r"nothere.*PATH") as caught:
        box.create("a", box.config("a", "nothere"))
    assert caught.value.exit_code == 127
    assert not Path(box.root, "a").exists()
    assert not groups.folder("memory", f"{box.parent}/a").exists()


def test_unexecutable_program_is_126(box: Box) -> None:
    """A file without the x bit, and one that is no program, are told apart from a missing one."""
    with pytest.raises(errors.ProgramNotExecutable, match="chmod") as caught:
        box.create("a", box.config("a", "/etc/passwd"))
    assert caught.value.exit_code == 126
    upper = Path(box.overlay("b")["upper"])
    (upper / "junk").write_text("junk")
    (upper / "junk").chmod(0o755)
    with pytest.raises(errors.ProgramNotExecutable, match="another architecture"):
        box.create("b", box.config("b", "/junk"))


def test_failing_step_is_named(box: Box) -> None:
    """A bind source that is not there gives the field, the path and the reason."""
    config = box.config("a", "true")
    config["mounts"].append({"destination": "/x", "source": "/no/such/folder", "options": ["bind"]})
    with pytest.raises(errors.SetupFailed, match=r"mounts\[7\].*/no/such/folder.*No such file"):
        box.create("a", config)


def test_id_is_taken_until_deleted(box: Box) -> None:
    """The same id twice is refused; delete frees it, also twice, and refuses what runs unless forced."""
    box.create("a", box.config("a", "sleep", "100"))
    with pytest.raises(errors.ContainerExists, match="delete it first"):
        box.create("a", box.config("a", "true"))
    with pytest.raises(errors.WrongStatus, match="running"):
        client.delete(box.root, "a")
    client.delete(box.root, "a", force=True)
    client.delete(box.root, "a")
    assert client.list_containers(box.root) == []
    box.create("a", box.config("a", "true"))
    assert box.ended("a").exit_code == 0


def test_killed_launcher_and_client_stop_nothing(box: Box) -> None:
    """Containers run on without them, can be adopted, and their exit code is found by whoever looks later."""
    made = box.create("a", box.config("a", "sh", "-c", "while [ ! -e /go ]; do sleep 0.01; done; echo gone; exit 5"))
    assert box.launcher.process is not None
    box.launcher.process.kill()
    box.launcher.process.wait()
    box.launcher.socket.close()
    known = state.load(box.root, "a")
    assert (known.status, known.pid) == ("running", made["pid"])
    with box.monitor("a") as monitor:
        monitor.execute({"args": ["touch", "/go"]})
    ended = box.ended("a")
    assert ended.exit_code == 5
    assert box.output("a") == "gone"
    assert [entry.status for entry in client.list_containers(box.root)] == ["stopped"]


def test_a_monitor_does_not_heed_sigterm_and_neither_gives_it_away(box: Box) -> None:
    """systemd sends it to all that is in a unit: the container ends by it, and its monitor tells how. A process that is
    run inside later, and the first one of the next start, can be told to end as ever.
    """
    script = "trap 'exit 7' TERM; while :; do sleep 0.05; done"
    made = box.create("a", box.config("a", "sh", "-c", script))
    with box.monitor("a") as monitor:
        number, pid, _ = monitor.execute({"args": ["sleep", "100"]})
        os.kill(made["monitor_pid"], signal.SIGTERM)
        os.kill(pid, signal.SIGTERM)
        assert monitor.wait_exec(number, 10) == 128 + signal.SIGTERM
        os.kill(made["pid"], signal.SIGTERM)
    assert box.ended("a").exit_code == 7


def test_a_launcher_lives_in_the_group_that_it_is_given_with_all_that_it_forks(box: Box) -> None:
    """Wherever somebody has put it."""
    outside, beside = f"{box.parent}-service", f"{box.parent}-tasks"
    tops = sorted(set(residence.mounts(Path("/proc/self/mountinfo").read_text()).values()))
    started = [str(Path(top + outside) / "cgroup.procs") for top in tops if "cpuset" not in top]
    for top in tops:
        Path(top + outside).mkdir(parents=True)
    join = "; ".join(f"echo $$ >{file}" for file in started)
    command = ["bash", "-c", f'{join}; exec "$@"', "-", sys.executable, "-c", _SPAWN, box.root, f"{beside}/@monitors"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        for line in done.stdout.splitlines():
            placed = [one.split(":", 2) for one in line.split()]
            apart = {path for _, names, path in placed if names != "cpuset"}
            assert apart == {f"{beside}/@monitors"}, line
        assert len(done.stdout.splitlines()) >= 3, "launcher, zygote, and the monitor that stands by"
    finally:
        for top in tops:
            cgroupfiles.remove_tree(top + beside, 1)
            cgroupfiles.remove_tree(top + outside, 0)


_SPAWN = """
import sys, time
from pathlib import Path
from runtime import client
from tests.support import processes
with client.Launcher.spawn(sys.argv[1] + "-2", sys.argv[2]) as launcher:
    pid = launcher.ping()
    deadline = time.monotonic() + 20
    while not (monitors := processes.monitors(pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    for each in (pid, *processes.zygotes(pid), *monitors):
        print(" ".join(Path(f"/proc/{each}/cgroup").read_text().split()))
"""
"""A client of a launcher that tells where it and its forks are."""


def test_killed_monitor_takes_its_container_along(box: Box) -> None:
    """No container runs without a monitor; what is left can be deleted, and the status is stopped."""
    made = box.create("a", box.config("a", "sleep", "100"))
    os.kill(made["monitor_pid"], signal.SIGKILL)
    wait_gone(made["pid"])
    wait_until(lambda: state.load(box.root, "a").status == "stopped", "status is stopped")
    assert state.load_exit(box.root, "a") is None
    with pytest.raises(errors.PeerGone):
        client.adopt(box.root, "a")
    client.delete(box.root, "a")
    assert not groups.folder("pids", f"{box.parent}/a").exists()


def test_creates_run_side_by_side(box: Box) -> None:
    """The launcher takes the next request while others are on their way; replies come as they are ready."""
    names = [f"c{number}" for number in range(8)]
    requests = {}
    for name in names:
        box._made.append(name)
        requests[len(requests) + 100] = name
        body = {"container": name, "config": box.config(name, "true"), "overlay": box.overlay(name), "start": True}
        client.protocol.send(box.launcher.socket, {"id": len(requests) + 99, "verb": "create", **body})
    seen = set()
    for _ in names:
        message = client.protocol.receive(box.launcher.socket)
        assert message is not None
        assert "ok" in message.body, message.body
        seen.add(message.body["id"])
    assert seen == set(requests)


def test_long_state_folder(box: Box, tmp_path: Path) -> None:
    """Socket paths beyond the 108 bytes of sun_path work."""
    deep = tmp_path.joinpath(*["x" * 60] * 4)
    with client.Launcher.spawn(str(deep)) as launcher:
        launcher.create("a", box.config("a", "sleep", "100"), overlay=box.overlay("a"))
        with client.adopt(str(deep), "a") as monitor:
            assert monitor.state().status == "running"
    client.delete(str(deep), "a", force=True)


def test_cgroup_of_another_is_left_alone(box: Box) -> None:
    """A second container in a live one's cgroup is refused, and the first goes on in it."""
    box.create("a", box.config("a", "sleep", "100"))
    with pytest.raises(errors.SetupFailed, match="holds processes; use another path"):
        box.create("b", box.config("a", "true"))
    assert not Path(box.root, "b").exists()
    assert state.load(box.root, "a").pid in client.cgroup(box.root, "a").pids()


def test_configuration_without_a_cgroup(box: Box) -> None:
    """It gets one of its own, which goes with it."""
    name = f"test-nocgroup-{os.getpid()}"
    config = box.config("a", "cat", "/proc/self/cgroup")
    del config["linux"]["cgroupsPath"]
    box.create(name, config)
    assert box.ended(name).exit_code == 0
    assert state.load(box.root, name).cgroups_path == f"/orch/{name}"
    client.delete(box.root, name)
    assert not groups.folder("pids", f"/orch/{name}").exists()


def test_zombies_are_reaped(box: Box) -> None:
    """Neither the launcher nor a monitor keeps an ended child."""
    box.create("a", box.config("a", "sleep", "100"))
    with box.monitor("a") as monitor:
        for _ in range(5):
            number, _, _ = monitor.execute({"args": ["true"]})
            monitor.wait_exec(number, 10)
    for _ in range(3):
        box.create(f"t{_}", box.config(f"t{_}", "true"))
        box.ended(f"t{_}")
    box.launcher.ping()
    monitor_pid = state.load(box.root, "a").monitor_pid
    for parent in (monitor_pid, box.launcher.ping()):
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        states = [Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0] for child in children]
        assert "Z" not in states


def test_events_reach_every_client(box: Box) -> None:
    """Two connections both hear of the exit."""
    box.create("a", box.config("a", "sleep", "100"))
    with box.monitor("a") as first, box.monitor("a") as second:
        first.state()
        second.state()
        first.kill(signal.SIGKILL)
        assert first.event("exit", 10)["exit_code"] == 137
        assert second.event("exit", 10)["signal"] == 9


def test_large_configuration_travels(box: Box) -> None:
    """A configuration above one packet goes by memory file."""
    config = box.config("a", "sh", "-c", "echo ${#BIG}")
    config["process"]["env"].append("BIG=" + "x" * 100_000)
    box.create("a", config)
    box.ended("a")
    assert box.output("a") == "100000"


def test_nonsense_from_a_client_ends_only_its_connection(box: Box) -> None:
    """The container and the other clients go on."""
    box.create("a", box.config("a", "sleep", "100"))
    with box.monitor("a") as good:
        for packet in (b"J{}", b"J[]", b"nonsense", b'J{"id": "x"}', b'J{"id": 1, "verb": ["kill"], "signal": {}}'):
            with box.monitor("a") as bad:
                bad.socket.send(packet)
        with box.monitor("a") as bad, pytest.raises(errors.ProtocolError, match="unknown verb 'fly'; known are start"):
            bad.call("fly")
        with pytest.raises(errors.ProtocolError, match="signal must be a number"):
            good.call("kill", signal="TERM")
        with pytest.raises(errors.WrongStatus, match="no terminal"):
            good.resize(1, 1)
        assert good.state().status == "running"


def test_a_paused_container_can_be_killed(box: Box) -> None:
    """By its monitor, though what is frozen does not die by itself on version 1; and its exit is told."""
    box.create("a", box.config("a", "sleep", "100"))
    control.pause(state.load(box.root, "a"))
    with box.monitor("a") as monitor:
        monitor.kill(signal.SIGKILL)
        assert monitor.wait(10).exit_code == 137


def test_a_paused_container_is_deleted_at_once(box: Box) -> None:
    """Its monitor is not left to wait for an end that does not come."""
    box.create("a", box.config("a", "sleep", "100"))
    control.pause(state.load(box.root, "a"))
    begun = time.monotonic()
    client.delete(box.root, "a", force=True)
    assert time.monotonic() - begun < 4
    assert not Path(box.root, "a").exists()


def test_nothing_is_executed_in_a_paused_container(box: Box) -> None:
    """It is refused rather than left hanging; once resumed, commands join again."""
    box.create("a", box.config("a", "sleep", "100"))
    control.pause(state.load(box.root, "a"))
    with box.monitor("a") as monitor:
        with pytest.raises(errors.WrongStatus, match="resume it first"):
            monitor.execute({"args": ["true"]})
        control.resume(state.load(box.root, "a"))
        number, _, _ = monitor.execute({"args": ["true"]})
        assert monitor.wait_exec(number, 10) == 0


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("nth", range(8))
def test_a_creation_ends_with_the_launcher(box: Box, nth: int, *, plain: bool) -> None:
    """Whoever has seen the launcher end, and deletes, has deleted it: nothing appears later, however it is made."""
    launcher = box.launcher.ping()
    wait_until(lambda: len(processes.monitors(launcher)) == 1, "one stands by")
    involved = [*processes.zygotes(launcher), *processes.monitors(launcher)]
    body = {"container": "a", "config": box.config("a", "sleep", "100"), "overlay": box.overlay("a"), "start": plain}
    box._made.append("a")
    client.protocol.send(box.launcher.socket, {"id": 5, "verb": "create", **body})
    select.select([], [], [], 0.002 * nth)
    os.kill(launcher, signal.SIGKILL)
    wait_gone(launcher)
    client.delete(box.root, "a", force=True)
    for pid in involved:
        wait_gone(pid)
    assert not Path(box.root, "a").exists()
    assert groups.below(box.parent) == []


def test_what_a_killed_launcher_rehearsed_is_cleared(box: Box) -> None:
    """Its folder is no container, and the next launcher takes it away; that of one that lives stays."""
    gone, here = Path(box.root, "@rehearsal-4194305"), Path(box.root, f"@rehearsal-{os.getpid()}")
    for folder in (gone, here):
        folder.mkdir(parents=True)
        (folder / "exit.json.new").touch()
    assert client.list_containers(box.root) == []
    with client.Launcher.spawn(box.root) as another:
        another.ping()
    assert not gone.exists()
    assert here.exists()
