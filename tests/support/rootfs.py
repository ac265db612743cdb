"""A root file system made of Debian's busybox."""

import shutil
import subprocess
from pathlib import Path

BUSYBOX = Path("/bin/busybox")


def busybox(root: Path) -> Path:
    """Busybox with all its applets, a user `app`, and a member of two groups."""
    assert BUSYBOX.exists(), "install Debian's busybox-static"
    for folder in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "home/app"):
        (root / folder).mkdir(parents=True)
    shutil.copy(BUSYBOX, root / "bin/busybox")
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in set(applets) - {"busybox"}:
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/home/app:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\napp:x:1001:\nvideo:x:44:app\naudio:x:29:app,other\n")
    (root / "tmp").chmod(0o1777)
    return root
