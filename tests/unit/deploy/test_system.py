"""Units, kernel parameters and modules: what can be said of them without installing anything."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.adapters.layout import KEEPER
from deploy.host import places, services

DEPLOY = Path(__file__).parents[3] / "deploy"
SYSTEM = DEPLOY / "system"
UNITS = sorted(SYSTEM.glob("*.service"))
SCRIPT = (DEPLOY / "install.sh").read_text()


def settings(unit: Path) -> dict[str, str]:
    """`Type` → `notify`; the last one of a name."""
    return dict(re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """Every line of them: it warns of names and values that it does not know. Programs are there once installed."""
    for unit in UNITS:
        text = re.sub(r"^ExecStart=/opt/orch/\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text)
    command = ["systemd-analyze", "verify", "--man=no", *(tmp_path / unit.name for unit in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    own = [line for line in (done.stdout + done.stderr).splitlines() if "orch-" in line]
    assert (done.returncode, own) == (0, [])


def test_containers_outlive_the_agent_and_it_says_when_it_is_ready() -> None:
    agent = settings(SYSTEM / "orch-agent.service")
    assert {name: agent[name] for name in ("Type", "KillMode", "Delegate", "RuntimeDirectoryPreserve")} == {
        "Type": "notify",
        "KillMode": "process",
        "Delegate": "yes",
        "RuntimeDirectoryPreserve": "yes",
    }
    assert agent["PartOf"] == "orch-tasks.service"
    tasks = SYSTEM / "orch-tasks.service"
    assert (settings(tasks)["Delegate"], settings(tasks)["KillMode"]) == ("yes", "control-group")
    assert f"/{KEEPER}/cgroup.procs" in tasks.read_text()
    assert services.TASKS_GROUP == "/system.slice/orch-tasks.service"


@pytest.mark.parametrize("name", ["orch-controlplane", "orch-etcd"])
def test_what_needs_no_root_has_none_of_its_powers(name: str) -> None:
    unit = settings(SYSTEM / f"{name}.service")
    assert unit["User"] == places.OWNER
    assert unit["CapabilityBoundingSet"] == ""
    assert (unit["NoNewPrivileges"], unit["ProtectSystem"]) == ("yes", "strict")


def test_a_member_of_etcd_is_told_that_it_is_started_again_where_it_is() -> None:
    """The control plane ends it then to exchange the store's root; what it notes for that is in the folder of trust."""
    unit = settings(SYSTEM / "orch-etcd.service")
    assert (unit["Restart"], "--restarted" in unit["ExecStart"].split()) == ("always", True)
    assert "orch/trust" in unit["StateDirectory"].split()


def test_wrong_options_are_not_tried_again() -> None:
    """2 is what the programs end with then."""
    for unit in UNITS:
        found = settings(unit)
        assert found.get("Restart") is None or found["RestartPreventExitStatus"] == "2", unit.name


@pytest.mark.parametrize("name", ["60-orch.conf", "orch-modules.conf"])
def test_every_parameter_and_module_has_its_reason_above_it(name: str) -> None:
    """Or above the group that it stands in."""
    reason = ""
    for line in (SYSTEM / name).read_text().splitlines():
        if line.startswith("#"):
            reason = line
        elif line:
            assert reason, f"{name}: {line} has no reason above it"
        else:
            reason = ""


def test_script_units_and_programs_name_the_same_places() -> None:
    for unit in services.COMMANDS:
        assert unit in re.search(r"^SERVICES=\((.*?)\)", SCRIPT, re.MULTILINE)[1], unit  # type: ignore[index]
        program, _, path = services.COMMANDS[unit].split()
        assert program in re.search(r"^PROGRAMS=\((.*?)\)", SCRIPT, re.MULTILINE)[1]  # type: ignore[index]
        assert settings(SYSTEM / f"{unit}.service")["ConditionPathExists"] == path
    here = places.Places()
    assert f"CONFIGURATION={here.configuration}\n" in SCRIPT
    assert all(
        str(folder).startswith("/var/lib/orch/") for folder in (here.agent, here.trust, here.store, here.instance)
    )


def test_the_scripts_are_sound_shell() -> None:
    for name in ("install.sh", "bundle.sh"):
        done = subprocess.run(["bash", "-n", DEPLOY / name], capture_output=True, text=True, timeout=30, check=False)
        assert (done.returncode, done.stderr) == (0, "")
