"""Where an installation has what; deploy/install.sh and the units in deploy/system name the same places."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

OWNER: Final = "orch"
"""The user that the control plane and the store run as."""
API_PORT: Final = 7400
DOOR_PORT: Final = 7401
BLOB_PORT: Final = 7402


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The folders and files of an installation. `root` is another one for whoever tries things out."""

    root: Path = Path("/")

    @property
    def managed(self) -> bool:
        """Whether systemd runs this machine (sd_booted(3)), and these are its own places."""
        return self.root == Path("/") and Path("/run/systemd/system").is_dir()

    @property
    def configuration(self) -> Path:
        return self.root / "etc/orch"

    @property
    def agent(self) -> Path:
        """The agent's state."""
        return self.root / "var/lib/orch/agent"

    @property
    def agent_trust(self) -> Path:
        """The node's certificate."""
        return self.agent / "trust"

    @property
    def run(self) -> Path:
        """What means nothing after a reboot."""
        return self.root / "run/orch"

    @property
    def trust(self) -> Path:
        """The certificates of the instance of the control plane, and of its member of the store."""
        return self.root / "var/lib/orch/trust"

    @property
    def instance(self) -> Path:
        """The instance's state."""
        return self.root / "var/lib/orch/controlplane"

    @property
    def store(self) -> Path:
        """The data of the member of the store."""
        return self.root / "var/lib/orch/etcd"
