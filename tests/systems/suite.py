"""What `make check` executes, with the Python and the libraries of the other supported Debians: `make test-systems`.

This file is collected where it is named, and by nothing else: each of those systems is set up anew, which takes minutes
and a network.
"""

from pathlib import Path

import pytest

from tests.support import debians

ROOT = Path(__file__).parents[2]
OTHERS = [release for release in debians.SUPPORTED if release != debians.own()]
SUITE_S = 3000
SUITE = """\
mkdir /tmp/orch
cd /tmp/orch
without="--exclude=./.git --exclude=./.venv --exclude=./.cache --exclude=./build"
tar --create --directory=/mnt/source $without . | tar --extract
apt-get --quiet=2 update
apt-get --quiet=2 --assume-yes --no-install-recommends install git >/dev/null
# House rules are about files that are committed.
git init --quiet
git add --all
deploy/setup.sh test
.venv/bin/python -m pytest -q -n 2 -m 'not root and not etcd and not slow'
"""

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(SUITE_S + 600)]


@pytest.mark.parametrize("release", OTHERS)
def test_what_needs_no_root_passes_there(release: str, tmp_path: Path) -> None:
    """The summary is printed, so that it is seen how much that was."""
    if reason := debians.why_not(release):
        pytest.skip(reason)
    said = debians.inside(release, SUITE, source=ROOT, out=tmp_path, timeout_s=SUITE_S)
    print(said[-1000:])
    assert " passed" in said.splitlines()[-1]
