"""The kernel parameters of deploy/system/60-orch.conf that also machines have which share this computer's kernel."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

INSTALLED = {"max_user_instances": 8192, "max_user_watches": 524_288}
OTHERS = {"max_user_instances": 4099, "max_user_watches": 262_147}
_FOLDER = Path("/proc/sys/fs/inotify")


def parameters() -> Mapping[str, int]:
    """As they are now."""
    return {name: int((_FOLDER / name).read_text()) for name in INSTALLED}


@contextlib.contextmanager
def others() -> Iterator[None]:
    """In the block they begin as what no installation sets; afterwards they are what they were."""
    before = parameters()
    _set(OTHERS)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, int]) -> None:
    for name, value in values.items():
        (_FOLDER / name).write_text(str(value))
