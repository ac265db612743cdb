"""Whether what is written to a folder is read and written on a disk, as the kernel counts it."""

import os
from pathlib import Path


def disk_of(path: Path) -> str:
    """MAJOR:MINOR of the block device that a folder is on; "" where it is on none (a tmpfs, an overlay)."""
    device = path.stat().st_dev
    name = f"{os.major(device)}:{os.minor(device)}"
    return name if Path(f"/sys/dev/block/{name}").exists() else ""


def assert_written(told: str, folder: Path) -> None:
    """A client tells of two megabytes that were written, such as "2.1MB"; where there is no disk, it tells of none."""
    if disk_of(folder):
        assert 2 <= float(told.removesuffix("MB")) < 3, told
    else:
        print(f"{folder} is on no block device here, so no writing is counted: {told}")
        assert told.endswith("B"), told
