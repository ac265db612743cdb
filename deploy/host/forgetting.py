"""What a person on this machine is known by, when a cluster ends with the machine: `install.sh uninstall --with-data`.

The rule: whose cluster goes on elsewhere keeps the key to it. That of the first admin may be the only one that there
is, and it works from here after the control plane has gone to other machines.
"""

import shutil
from pathlib import Path

from controlplane.trust import storeplace
from deploy.host.errors import HostError
from deploy.host.places import Places
from orchctl import config
from trust.folder import Folder, NotTrusted


def forget(places: Places) -> str:
    """Removes the contexts of whoever calls that are of this machine's cluster, if it has no other control plane.

    Those are meant whose folder lies where `orchctl login` and `cluster init` put it. Returns what was done, in a line;
    empty: there was nothing to do. Raises HostError, NotTrusted, OrchctlError.
    """
    own = Folder(places.trust)
    path = config.default_path()
    known = config.load(path)
    if not own.exists() or not known.contexts:
        return ""
    cluster = own.load().identity.cluster
    logged_in = {
        name: folder
        for name in known.contexts
        if (folder := known.trust(name)) and folder.parent == path.parent / "trust"
    }
    mine = {name: folder for name, folder in logged_in.items() if _cluster_of(folder) == cluster}
    if not mine:
        return ""
    if not _ends_here(own):
        return f"the cluster {cluster} goes on elsewhere: the key to it stays in {path.parent}"
    try:
        for name, folder in mine.items():
            shutil.rmtree(folder)
            known = known.without_context(name)
        _save(path, known)
    except OSError as error:
        raise HostError(f"cannot remove it from {path.parent}: {error.strerror}", hint="remove it yourself") from error
    return f"removed from {path.parent}: {', '.join(mine)}"


def _cluster_of(folder: Path) -> str:
    """The id of the cluster that somebody is known in; empty when nobody can tell."""
    try:
        return Folder(folder).load().identity.cluster
    except NotTrusted:  # it is of no use to anybody, and no reason to keep the machine from being cleared
        return ""


def _ends_here(own: Folder) -> bool:
    """Whether the store has no other member than the one of this machine."""
    place = storeplace.load(own)
    return place.member is not None and list(place.endpoints) == [place.member.endpoint]


def _save(path: Path, known: config.Config) -> None:
    """Without a context there is no file, and no folder but for what somebody else has put there."""
    if known.contexts:
        config.save(path, known)
        return
    path.unlink(missing_ok=True)
    for folder in (path.parent / "trust", path.parent):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
