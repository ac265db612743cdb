"""A cluster that `orchctl cluster init` has founded: etcd and one control plane as processes, and its admin."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import etcd, orchctl
from tests.support.trusted_process import Process, instance, leader
from trust.core.identity import Role
from trust.folder import Folder


@dataclass(frozen=True, slots=True, kw_only=True)
class Founded:
    """A cluster that runs, and its first admin's environment."""

    folder: Path
    control: Process
    environ: dict[str, str]
    said: str
    members: list[etcd.EtcdProcess] = field(default_factory=list)

    def run(self, *arguments: str) -> orchctl.Result:
        return orchctl.run(self.environ, *arguments)

    def token(self, *arguments: str) -> str:
        made = self.run("cluster", "token", "create", *arguments)
        assert made.code == 0, made.err
        return made.out.strip()

    def somebody(self, name: str) -> dict[str, str]:
        """The environment of somebody else's machine."""
        (self.folder / name).mkdir(exist_ok=True)
        return orchctl.environment(self.folder / name)


@contextlib.contextmanager
def running(folder: Path, members: int = 1) -> Iterator[Founded]:
    """`orchctl cluster init`, then so many members of etcd and one control plane as it says."""
    environ = orchctl.environment(folder)
    port = etcd.free_port()
    init = orchctl.run(
        environ,
        *("cluster", "init", "--name=cp1", f"--trust={folder / 'cp1'}", f"--server=127.0.0.1:{port}"),
        *("--admin=root", "--context=home"),
    )
    assert init.code == 0, init.err
    (folder / "founding").write_bytes((folder / "cp1" / "founding.bin").read_bytes())
    with etcd.cluster(members, folder / "cp1") as started, instance(folder, "cp1", started) as control:
        admin = Folder(folder / "trust" / "home").load(Role.ADMIN)
        assert leader(control, admin) == "cp1"
        environ["ORCH_SERVER"] = control.address
        yield Founded(folder=folder, control=control, environ=environ, said=init.out, members=started)
