"""Build the container's file tree in its own mount namespace, and make it the root.

Every mount is made detached and complete, with its options, and only then moved onto a descriptor inside the root
(fsmount, open_tree, mount_setattr, move_mount): no half-configured mount is ever visible, and no path of the
container is resolved twice.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import Final

from runtime import copyup, devices, errors, idmap, overlay, paths, syscalls, userns
from runtime.spec import Mount, Overlay, Spec
from runtime.values import frozen

_PROC_FILES: Final = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo diskstats loadavg meminfo slabinfo stat swaps uptime net/dev "
        "sys/kernel/ns_last_pid sys/crypto/fips_enabled"
    ).split()
)
"""What may be mounted over inside /proc: files that tell how the machine is, as lxcfs fakes them."""

_KERNEL_TREES: Final = frozenset({"proc", "sysfs"})


@frozen
class Tree:
    """What the tree is made of. `stage` is an own folder of the host that some kernels mount overlays on meanwhile."""

    spec: Spec
    overlay: Overlay | None
    stage: str
    cgroup_folders: tuple[tuple[str, str], ...]  # name below /sys/fs/cgroup, folder of the host


@frozen
class Sources:
    """Detached mounts that only the host's privileges can make. Without a user namespace these are the fewest."""

    root: int
    mounts: dict[str, int]  # by the field's path: binds, and file systems that are not the user namespace's
    cgroups: dict[str, tuple[tuple[str, int], ...]]  # likewise: name below /sys/fs/cgroup, copy of the host's folder
    links: dict[str, str]  # likewise: the target of a link that is copied, not bound
    has_devices: bool = False  # /dev is among the mounts, and filled


def prepare(tree: Tree, owner: userns.Owner | None, *, ahead: bool = False) -> Sources:
    """Take from the host what the container gets of it.

    From the host's mount namespace: such a copy still hears from the host's mounts, as `rslave` and `rshared` promise.
    With an owner the caller makes files as its root. `ahead`: for another process, and so what shows a namespace that
    is joined is not made here, but a /dev in memory is in any case.
    """
    spec = tree.spec
    links = {mount.path: os.readlink(mount.source) for mount in spec.mounts if _is_copied_link(mount)}
    binds = (mount for mount in spec.mounts if mount.options.bind and mount.path not in links)
    mounts = {mount.path: _copy_source(mount, owner) for mount in binds}
    cgroups = {mount.path: _copy_cgroups(tree, mount) for mount in spec.mounts if _is_cgroup(mount)}
    has_devices = False
    for mount in spec.mounts if owner is not None or ahead else ():
        if mount.destination == "/dev" and mount.kind == "tmpfs":
            has_devices = True
        elif owner is None or ahead or not is_of_shared_namespace(spec, mount):
            continue
        with errors.step(f"{mount.path}: make a {mount.kind} for {mount.destination}"):
            mounts[mount.path] = _new_file_system(mount)
            if mount.destination == "/dev":
                devices.fill(mounts[mount.path], spec.devices, owner.maps if owner is not None else None, empty=True)
    root = _open_root(tree, owner)
    return Sources(root=root, mounts=mounts, cgroups=cgroups, links=links, has_devices=has_devices)


def build(tree: Tree, sources: Sources) -> int:
    """Make everything below the new root; returns the root's descriptor, for `restrict` and `pivot.enter`."""
    spec = tree.spec
    with errors.step("make the host's mounts private here"):
        syscalls.set_propagation("/", syscalls.MS_REC | syscalls.MS_PRIVATE)
    root = sources.root
    with errors.step("attach the root"):
        stage = os.open(stands_at(tree), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        syscalls.move_mount(root, stage)
        os.close(stage)
    for mount in spec.mounts:
        with errors.step(f"{mount.path}: mount {mount.kind or 'bind'} on {mount.destination}"):
            _mount(root, mount, sources)
    if not sources.has_devices:
        _make_devices(spec, root)
    with errors.step("working directory"):
        os.close(paths.make_folder(root, spec.process.cwd))
    return root


def stands_at(tree: Tree) -> str:
    """Where the root is until it is /; a plain folder covers itself, since hooks look for the tree at its own path.

    In a user namespace only / can be counted on to be reached, where no hook finds what is mounted on it.
    """
    if tree.spec.user_namespace is not None:
        return "/"
    return tree.stage if tree.overlay is not None else tree.spec.root_path


def _open_root(tree: Tree, owner: userns.Owner | None) -> int:
    with errors.step(f"root {tree.spec.root_path or 'overlay'}"):
        if tree.overlay is not None:
            private = overlay.own_namespace() if overlay.needs_own_namespace() else contextlib.nullcontext()
            with private:
                return overlay.mount(tree.overlay, tree.stage, owner.fd if owner is not None else None)
        flags = syscalls.OPEN_TREE_CLONE | syscalls.AT_RECURSIVE
        root = syscalls.open_tree(syscalls.AT_FDCWD, tree.spec.root_path, flags)
        if tree.spec.root_nodev:
            syscalls.mount_setattr(root, add=syscalls.MOUNT_ATTR_NODEV, recursive=True)
        _set_root_propagation(root, tree.spec)
        if owner is not None:
            idmap.apply_to_root(root, tree.spec.root_path, owner)
    return root


def _set_root_propagation(root: int, spec: Spec) -> None:
    """Only a slave hears of the host's mounts; a peer group, or its opposite, is the container's own (`pivot`)."""
    wanted, recursive = spec.root_propagation
    for_now = wanted if wanted == syscalls.MS_SLAVE else syscalls.MS_PRIVATE
    syscalls.mount_setattr(root, propagation=for_now, recursive=True)
    if recursive:
        syscalls.mount_setattr(root, propagation=wanted, recursive=True)
        syscalls.mount_setattr(root, propagation=for_now)


def _is_copied_link(mount: Mount) -> bool:
    return mount.options.copy_symlink and os.path.islink(mount.source)


def _is_cgroup(mount: Mount) -> bool:
    return mount.kind == "cgroup" and not mount.options.bind


def is_devices(mount: Mount) -> bool:
    """Whether a mount is the container's own /dev, which is filled by us."""
    return mount.destination == "/dev" and mount.kind == "tmpfs" and not mount.options.bind


def comes_from_outside(mount: Mount) -> bool:
    """Whether `prepare` makes the mount, when it makes them ahead and the namespaces are all the container's own."""
    return mount.options.bind or _is_cgroup(mount) or is_devices(mount)


def is_of_shared_namespace(spec: Spec, mount: Mount) -> bool:
    """Whether a new file system shows a namespace that the container has not made, which may be the host's."""
    kind = _SHOWN.get(mount.kind)
    return kind is not None and not mount.options.bind and not spec.makes(kind)


_SHOWN: Final = {"proc": "pid", "sysfs": "network", "mqueue": "ipc"}


def _copy_source(mount: Mount, owner: userns.Owner | None) -> int:
    options = mount.options
    flags = syscalls.AT_RECURSIVE if options.recursive_bind else 0
    flags |= syscalls.AT_SYMLINK_NOFOLLOW if options.source_nofollow else 0
    with errors.step(f"{mount.path}: bind {mount.source}"):
        copy = syscalls.open_tree(syscalls.AT_FDCWD, mount.source, syscalls.OPEN_TREE_CLONE | flags)
        idmap.apply(copy, mount, owner)
        _set_options(copy, mount)
    return copy


def _copy_cgroups(tree: Tree, mount: Mount) -> tuple[tuple[str, int], ...]:
    with errors.step(f"{mount.path}: the container's cgroups"):
        return tuple((name, _copy_folder(folder, mount)) for name, folder in tree.cgroup_folders)


def _set_options(detached: int, mount: Mount) -> None:
    options = mount.options
    propagation = options.propagation or syscalls.MS_PRIVATE
    everything = options.propagation_recursive or not options.propagation
    syscalls.mount_setattr(detached, propagation=propagation, recursive=everything)
    if options.add_recursive or options.remove_recursive:
        syscalls.mount_setattr(detached, add=options.add_recursive, remove=options.remove_recursive, recursive=True)
    if options.bind and (options.add or options.remove):
        syscalls.mount_setattr(detached, add=options.add, remove=options.remove)


def _mount(root: int, mount: Mount, sources: Sources) -> None:
    if mount.path in sources.cgroups:
        _mount_cgroups(root, mount, sources.cgroups[mount.path])
        return
    if mount.path in sources.links:
        paths.make_link(root, mount.destination, sources.links[mount.path])
        return
    detached = sources.mounts[mount.path] if mount.path in sources.mounts else _new_file_system(mount)
    try:
        _attach(root, detached, mount)
    finally:
        os.close(detached)


def _attach(root: int, detached: int, mount: Mount) -> None:
    target = _target(root, mount, folder=stat.S_ISDIR(os.fstat(detached).st_mode))
    try:
        _guard_kernel_trees(target, detached, mount)
        if mount.options.tmpcopyup:
            copyup.fill(target, detached, mount)
            syscalls.mount_setattr(detached, add=mount.options.add & syscalls.MOUNT_ATTR_RDONLY)
        syscalls.move_mount(detached, target)
    finally:
        os.close(target)


def _target(root: int, mount: Mount, *, folder: bool) -> int:
    if mount.options.target_nofollow and mount.kind not in _KERNEL_TREES:
        return paths.make_unfollowed(root, mount.destination, folder=folder)
    if not folder:
        return paths.make_file(root, mount.destination)
    # A link in the place of /proc or /sys would lead later writes "below /proc" to files of the image's choice.
    return paths.make_folder(root, mount.destination, links=mount.kind not in _KERNEL_TREES)


def _guard_kernel_trees(target: int, detached: int, mount: Mount) -> None:
    """Nobody but procfs itself may cover /proc, and nothing inside it but a few harmless files."""
    on_proc = syscalls.fstatfs_type(target) == syscalls.PROC_SUPER_MAGIC
    is_proc = syscalls.fstatfs_type(detached) == syscalls.PROC_SUPER_MAGIC
    if mount.destination == "/proc" and not is_proc:
        raise errors.InvalidSpec(f"{mount.path}.destination: /proc may be covered by a proc file system only")
    if on_proc and not is_proc and mount.destination not in _PROC_FILES:
        raise errors.InvalidSpec(f"{mount.path}.destination: {mount.destination} leads into /proc, which is refused")


def _new_file_system(mount: Mount) -> int:
    context = syscalls.fsopen(mount.kind)
    try:
        if mount.source:
            syscalls.fsconfig_string(context, "source", mount.source)
        for option in mount.options.data:
            key, equals, value = option.partition("=")
            if equals:
                syscalls.fsconfig_string(context, key, value)
            else:
                syscalls.fsconfig_flag(context, key)
        syscalls.fsconfig_create(context)
        # What is copied into a read-only mount is copied before it is one.
        later = syscalls.MOUNT_ATTR_RDONLY if mount.options.tmpcopyup else 0
        detached = syscalls.fsmount(context, mount.options.add & ~later)
    except OSError as error:
        said = overlay.messages(context)
        raise OSError(error.errno, f"{error.strerror}{' (' + said + ')' if said else ''}") from error
    finally:
        os.close(context)
    _set_options(detached, mount)
    return detached


def _mount_cgroups(root: int, mount: Mount, copies: tuple[tuple[str, int], ...]) -> None:
    """The container's own groups: the one folder of version 2, or a folder for each controller of version 1."""
    if [name for name, _ in copies] == [""]:
        _attach(root, copies[0][1], mount)
        os.close(copies[0][1])
        return
    board = cgroup_board(mount)
    _attach(root, board, mount)
    for name, detached in copies:
        os.mkdir(name, 0o755, dir_fd=board)
        target = paths.locate(board, name, links=False)
        syscalls.move_mount(detached, target)
        os.close(detached)
        os.close(target)
    syscalls.mount_setattr(board, add=mount.options.add)
    os.close(board)


def cgroup_board(mount: Mount) -> int:
    """A detached folder in memory for the groups of version 1, which is to be made as the options say in the end."""
    return _tmpfs(mount.options.add & ~syscalls.MOUNT_ATTR_RDONLY, mode="755", size="65536")


def _copy_folder(folder: str, mount: Mount) -> int:
    detached = syscalls.open_tree(syscalls.AT_FDCWD, folder, syscalls.OPEN_TREE_CLONE)
    syscalls.mount_setattr(detached, add=mount.options.add, propagation=syscalls.MS_PRIVATE)
    return detached


def _tmpfs(attributes: int, **options: str) -> int:
    context = syscalls.fsopen("tmpfs")
    try:
        for key, value in options.items():
            syscalls.fsconfig_string(context, key, value)
        syscalls.fsconfig_create(context)
        return syscalls.fsmount(context, attributes)
    finally:
        os.close(context)


def detached_procfs() -> int:
    """A proc file system that is mounted nowhere, so that nobody can redirect what is written below it."""
    context = syscalls.fsopen("proc")
    try:
        syscalls.fsconfig_create(context)
        return syscalls.fsmount(context, 0)
    finally:
        os.close(context)


def _make_devices(spec: Spec, root: int) -> None:
    """Fill /dev, unless the configuration brings a whole /dev of its own by a bind mount."""
    if any(mount.destination == "/dev" and mount.options.bind for mount in spec.mounts):
        return
    with errors.step("make /dev"):
        # Never through a link: the nodes would be made where the image wants them.
        folder = paths.make_folder(root, "/dev", links=False)
        devices.fill(folder, spec.devices)
        os.close(folder)


def restrict(spec: Spec, root: int) -> None:
    """Read-only and masked paths, and last the root: nothing can be made in it any more."""
    for path in spec.readonly_paths:
        with errors.step(f"make {path} read-only"), _existing(root, path) as target:
            if target is not None:
                copy = syscalls.open_tree(target, "", _CLONE_THIS | syscalls.AT_RECURSIVE)
                syscalls.mount_setattr(copy, add=syscalls.MOUNT_ATTR_RDONLY, recursive=True)
                syscalls.move_mount(copy, target)
                os.close(copy)
    if spec.masked_paths:
        _mask(root, spec.masked_paths)
    with errors.step("make the root as the configuration has it"):
        if spec.root_readonly:
            syscalls.mount_setattr(root, add=syscalls.MOUNT_ATTR_RDONLY)


_CLONE_THIS: Final = syscalls.OPEN_TREE_CLONE | syscalls.AT_EMPTY_PATH


def _mask(root: int, masked: tuple[str, ...]) -> None:
    """Cover files with /dev/null and folders with one empty read-only folder."""
    covers = _Covers(root)
    for path in masked:
        with errors.step(f"mask {path}"), _existing(root, path) as target:
            if target is not None:
                covers.put_on(target)
    covers.close()


class _Covers:
    """The two things that masks are copies of, opened when the first is needed."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._null = -1
        self._empty = -1

    def put_on(self, target: int) -> None:
        if stat.S_ISDIR(os.fstat(target).st_mode):
            self._put_folder(target)
            return
        if self._null < 0:
            self._null = devices.open_null(self._root)
        _put_copy(self._null, target)

    def _put_folder(self, target: int) -> None:
        """The first folder gets the file system itself: only what is attached may be copied before Linux 6.15."""
        if self._empty < 0:
            self._empty = _tmpfs(syscalls.MOUNT_ATTR_RDONLY, mode="755", size="4096")
            syscalls.move_mount(self._empty, target)
            return
        _put_copy(self._empty, target)

    def close(self) -> None:
        for fd in (self._null, self._empty):
            if fd >= 0:
                os.close(fd)


def _put_copy(source: int, target: int) -> None:
    copy = syscalls.open_tree(source, "", _CLONE_THIS)
    syscalls.move_mount(copy, target)
    os.close(copy)


@contextlib.contextmanager
def _existing(root: int, path: str) -> Iterator[int | None]:
    """The descriptor of a path, or None when the container has no such path: then there is nothing to hide."""
    try:
        target = paths.locate(root, path)
    except (FileNotFoundError, NotADirectoryError):
        yield None
        return
    try:
        yield target
    finally:
        os.close(target)
