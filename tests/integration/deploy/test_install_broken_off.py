"""An installation that is killed among Debian's packages: the next goes on with it, and `uninstall` takes it away."""

from collections.abc import Iterator

import pytest

from tests.integration.deploy.conftest import LISTING, check_nothing_is_left
from tests.support.systemdmachine import Machine

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("install"),
    pytest.mark.usefixtures("_kernel_parameters"),
]
POLICY = "/usr/sbin/policy-rc.d"
OWNERS = "#!/bin/sh\n# The owner's: nothing starts by itself.\nexit 101\n"
BREAK_OFF = """\
systemd-run --quiet --collect --unit=installing /bundles/orch/install.sh
until grep --quiet --no-messages '^Package: libpython3.*-stdlib' /var/lib/dpkg/updates/*; do
  systemctl --quiet is-active installing || exit 1
done
systemctl kill --signal=KILL installing
while systemctl --quiet is-active installing; do :; done
"""
"""An installation whose every process is killed while dpkg unpacks one of the larger packages."""


@pytest.fixture
def owners_policy(machine: Machine) -> Iterator[None]:
    """The machine's owner has said something about daemons of packages."""
    machine.put(POLICY, OWNERS)
    machine.sh(f"chmod 750 {POLICY}; {LISTING} >/tmp/before; dpkg-query --show >/tmp/packages")
    yield
    machine.sh(f"rm {POLICY}")


@pytest.mark.usefixtures("owners_policy")
def test_one_that_broke_off_among_packages_is_taken_away_with_those_that_came(machine: Machine) -> None:
    """As by a power cut. What the owner had said about daemons of packages is said again."""
    machine.sh(BREAK_OFF)
    check_it_broke_off(machine)
    said = machine.sh("/bundles/orch/install.sh uninstall")
    assert "an installation broke off among Debian's packages" in said
    check_the_owners_policy(machine)
    check_nothing_is_left(machine)
    assert machine.sh("dpkg-query --show | diff /tmp/packages - && dpkg --audit") == ""


@pytest.mark.usefixtures("owners_policy")
def test_one_that_broke_off_among_packages_is_gone_on_with_by_the_next(machine: Machine) -> None:
    """What came before that goes in the end, too."""
    machine.sh(BREAK_OFF)
    check_it_broke_off(machine)
    assert "is installed; next: orchctl cluster init" in machine.sh("/bundles/orch/install.sh")
    check_the_owners_policy(machine)
    assert machine.sh("dpkg --audit") == ""
    machine.sh("/opt/orch/install.sh uninstall")
    check_the_owners_policy(machine)
    check_nothing_is_left(machine)
    assert machine.sh("dpkg-query --show | diff /tmp/packages - && dpkg --audit") == ""


def check_it_broke_off(machine: Machine) -> None:
    """In the middle: packages have come, others have not, and daemons may not start."""
    assert machine.sh("dpkg --audit") != ""
    assert "ok installed" not in machine.sh("dpkg-query --show --showformat='${Status}' python3", code=None)
    assert "Orch's installation" in machine.sh(f"cat {POLICY}")


def check_the_owners_policy(machine: Machine) -> None:
    assert machine.sh(f"cat {POLICY}; stat --format=%a {POLICY}") == f"{OWNERS}750\n"
    assert machine.sh(f"ls -d {POLICY}* /opt/orch/policy*", code=2).splitlines()[-1] == POLICY
