"""The folder with what a machine is known by."""

import os
import time
from pathlib import Path

import pytest

from trust import errands, folder
from trust.core import certificate
from trust.core.identity import Role
from trust.folder import IDENTITY, PENDING, ROOTS, Folder, Material, NotTrusted, material

NOW_MS = time.time_ns() // 1_000_000
SEALING = b"s" * 32


@pytest.fixture(scope="module")
def own() -> Material:
    root = errands.root("c1", "first", SEALING, NOW_MS)
    key, asked = errands.request()
    wanted = errands.Wanted(cluster="c1", role="node", name="id1")
    chain = errands.issue(asked, wanted, root, SEALING, NOW_MS)
    return material(key.encode(), chain.encode(), root.certificate.encode())


def test_what_is_kept_is_read_again_and_is_the_owner_s_alone(tmp_path: Path, own: Material) -> None:
    """And the key that waited for an answer is gone."""
    folder = Folder(tmp_path / "trust")
    folder.write(PENDING, own.key)
    assert folder.pending().encode() == own.key
    assert folder.is_empty()
    folder.save(own)
    assert not folder.is_empty()
    assert folder.load(Role.NODE) == own
    assert {path.name: path.stat().st_mode & 0o777 for path in folder.path.iterdir()} == {IDENTITY: 0o600, ROOTS: 0o600}
    assert folder.path.stat().st_mode & 0o777 == 0o700
    assert b"PRIVATE" not in repr(own).encode()


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o722])
def test_a_folder_that_others_can_open_is_refused(mode: int, tmp_path: Path, own: Material) -> None:
    """For reading and for writing: who may write there puts other roots in the place of ours."""
    kept = Folder(tmp_path / "trust")
    kept.save(own)
    kept.path.chmod(mode)
    for use in (kept.load, lambda: kept.write(PENDING, own.key)):
        with pytest.raises(NotTrusted, match="is open to others than its owner; `chmod 700 "):
            use()
    assert sorted(path.name for path in kept.path.iterdir()) == [IDENTITY, ROOTS]
    kept.path.chmod(0o700)
    assert kept.load() == own


def test_what_is_written_is_on_the_disk_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content before it has its name, then the folder, and those that the folder was made in."""
    flushed: list[str] = []
    real = os.fsync

    def noted(descriptor: int) -> None:
        flushed.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    kept = Folder(tmp_path / "a" / "trust")
    kept.write(PENDING, b"x")
    assert set(flushed[:2]) == {str(tmp_path), str(tmp_path / "a")}
    assert flushed[2].startswith(f"{kept.path}/.{PENDING}.")
    assert flushed[3:] == [str(kept.path)]


def test_a_certificate_that_is_replaced_can_be_used_until_the_new_one_can(
    tmp_path: Path, own: Material, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also by one of another cluster: after each file there is one of the two, and its roots are believed."""
    root = errands.root("c2", "second", SEALING, NOW_MS)
    key, asked = errands.request()
    chain = errands.issue(asked, errands.Wanted(cluster="c2", role="node", name="id1"), root, SEALING, NOW_MS)
    other = material(key.encode(), chain.encode(), root.certificate.encode())
    kept = Folder(tmp_path)
    kept.save(own)
    there: list[Material] = []
    real = Folder.write

    def looked(self: Folder, name: str, content: bytes) -> None:
        real(self, name, content)
        there.append(self.load())

    monkeypatch.setattr(Folder, "write", looked)
    kept.keep(other)
    assert [one.identity.cluster for one in there] == ["c1", "c2", "c2"]
    for one, wanted in zip(there, (own, other, other), strict=True):
        assert set(certificate.split(one.roots)) >= set(certificate.split(wanted.roots))
    assert there[-1] == other


def test_a_key_that_others_can_read_is_refused(tmp_path: Path, own: Material) -> None:
    """It may have been read already, so that nothing is mended in silence."""
    folder = Folder(tmp_path)
    folder.save(own)
    folder.identity.chmod(0o640)
    with pytest.raises(NotTrusted, match="can be read by others than its owner"):
        folder.load()


def test_what_is_missing_damaged_or_of_another_role_is_told(tmp_path: Path, own: Material) -> None:
    """Each with the file, and what to do."""
    folder = Folder(tmp_path)
    with pytest.raises(NotTrusted, match=r"identity.pem is not there: this machine has not joined"):
        folder.load()
    folder.save(own)
    with pytest.raises(NotTrusted, match="is the certificate of node id1, and one of role controlplane is needed"):
        folder.load(Role.CONTROLPLANE)
    for damage in (
        own.key,
        own.chain,
        b"",
        own.key + b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ):
        folder.write(IDENTITY, damage)
        with pytest.raises(NotTrusted, match="join again with a new token"):
            folder.load()


def test_a_file_is_there_completely_or_not_at_all(tmp_path: Path, own: Material) -> None:
    """A folder that cannot be written leaves what was there."""
    folder = Folder(tmp_path)
    folder.save(own)
    blocked = Folder(tmp_path / IDENTITY / "below")
    with pytest.raises(NotTrusted, match="cannot write"):
        blocked.write(ROOTS, b"x")
    assert folder.load() == own
    assert sorted(path.name for path in tmp_path.iterdir()) == [IDENTITY, ROOTS]


def test_a_file_is_read_as_a_whole_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The beginning of one would be taken for something else."""
    kept = Folder(tmp_path)
    kept.write("founding.bin", b"x" * 300_000)
    assert len(kept.read("founding.bin")) == 300_000
    monkeypatch.setattr(folder, "MAX_FILE_BYTES", 1024)
    with pytest.raises(NotTrusted, match=r"founding\.bin has more than"):
        kept.read("founding.bin")
