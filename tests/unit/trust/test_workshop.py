"""Keys, certificates and roots, judged by `openssl verify` and by the library that our own reader spares us."""

import contextlib
import dataclasses
import subprocess
import time
from pathlib import Path

import hypothesis
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import strategies as st

from trust import errands, workshop
from trust.core import certificate, identity
from trust.core.identity import Malformed, Role

NOW_MS = time.time_ns() // 1_000_000
SEALING = b"s" * 32
DAY_MS = 86_400_000


@pytest.fixture(scope="module")
def first() -> errands.Root:
    return errands.root("c1", "first", SEALING, NOW_MS)


@pytest.fixture(scope="module")
def second() -> errands.Root:
    return errands.root("c1", "second", SEALING, NOW_MS)


def leaf(by: errands.Root, **wanted: object) -> tuple[str, str]:
    """A key, and a certificate for it."""
    key, asked = errands.request()
    fields = {"cluster": "c1", "role": "node", "name": "id1", **wanted}
    return key, errands.issue(asked, errands.Wanted(**fields), by, SEALING, NOW_MS)  # type: ignore[arg-type]


def verify(folder: Path, roots: str, chain: str, *options: str) -> str:
    """What openssl says: `OK`, or its reason."""
    first, *between = chain.replace("-----END CERTIFICATE-----\n", "-----END CERTIFICATE-----\n\0").split("\0")[:-1]
    for name, text in (("roots", roots), ("leaf", first), ("between", "".join(between))):
        (folder / name).write_text(text)
    untrusted = ["-untrusted", str(folder / "between")] if between else []
    command = ["openssl", "verify", "-x509_strict", "-CAfile", str(folder / "roots"), *untrusted, *options]
    done = subprocess.run([*command, str(folder / "leaf")], capture_output=True, text=True, timeout=30, check=False)
    return "OK" if done.returncode == 0 else done.stderr


def test_openssl_believes_a_certificate_of_the_root_and_of_no_other(
    tmp_path: Path, first: errands.Root, second: errands.Root
) -> None:
    """Strictly, as RFC 5280 has it."""
    _, made = leaf(first)
    assert verify(tmp_path, first.certificate, made, "-purpose", "sslclient") == "OK"
    assert "unable to get local issuer" in verify(tmp_path, second.certificate, made)


def test_keys_are_of_the_curve_p_256_roots_and_others_alike(first: errands.Root) -> None:
    _, made = leaf(first)
    for one in (first.certificate, made):
        public = x509.load_pem_x509_certificate(one.encode()).public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert isinstance(public.curve, ec.SECP256R1)


def test_only_a_server_may_be_one(tmp_path: Path, first: errands.Root) -> None:
    """A node that stands up as a control plane is not believed: neither its uses nor its names allow it."""
    _, node = leaf(first)
    _, instance = leaf(first, role="controlplane", server=True, alternatives=(identity.SERVER_NAME, "10.0.0.1"))
    as_server = ("-purpose", "sslserver", "-verify_hostname", identity.SERVER_NAME)
    assert verify(tmp_path, first.certificate, instance, *as_server) == "OK"
    assert verify(tmp_path, first.certificate, instance, "-verify_ip", "10.0.0.1") == "OK"
    assert "purpose" in verify(tmp_path, first.certificate, node, "-purpose", "sslserver")
    assert "mismatch" in verify(tmp_path, first.certificate, node, "-verify_hostname", identity.SERVER_NAME)


def test_who_trusts_the_old_root_alone_believes_the_new_one_through_the_cross_certificate(
    tmp_path: Path, first: errands.Root, second: errands.Root
) -> None:
    """And who trusts the new one alone does without it."""
    cross = errands.cross(second, first, SEALING, NOW_MS)
    _, made = leaf(second)
    assert verify(tmp_path, first.certificate, made + cross) == "OK"
    assert verify(tmp_path, second.certificate, made) == "OK"
    assert verify(tmp_path, second.certificate, made + cross) == "OK"
    assert "unable to get local issuer" in verify(tmp_path, first.certificate, made)


def test_a_certificate_that_was_issued_issues_nothing(tmp_path: Path, first: errands.Root) -> None:
    """Openssl refuses a chain over it."""
    key, between = leaf(first)
    sealed = workshop.seal(key.encode(), SEALING, "c1")
    forged = errands.Root(certificate=between, sealed_key=sealed, about="c1")
    _, made = leaf(forged, role="admin", name="mallory")
    assert verify(tmp_path, first.certificate, made + between) != "OK"


@pytest.mark.parametrize("days", [-1, 91])
def test_it_is_valid_for_ninety_days(tmp_path: Path, first: errands.Root, days: int) -> None:
    """Not before, not after."""
    _, made = leaf(first)
    moment = (NOW_MS + days * DAY_MS) // 1000
    problem = "expired" if days > 0 else "not yet valid"
    assert problem in verify(tmp_path, first.certificate, made, "-attime", str(moment))
    assert verify(tmp_path, first.certificate, made, "-attime", str(NOW_MS // 1000 + 89 * 86_400)) == "OK"


def test_nothing_but_the_key_is_taken_from_a_request(first: errands.Root) -> None:
    """A request that asks to be an admin, and an authority, gets what it was given."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, "admin")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    asked = builder.sign(key, workshop.hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
    wanted = errands.Wanted(cluster="c1", role="node", name="id1")
    made = errands.issue(asked, wanted, first, SEALING, NOW_MS)
    assert certificate.read(made.encode()).identity.role is Role.NODE
    constraints = x509.load_pem_x509_certificate(made.encode()).extensions.get_extension_for_class(
        x509.BasicConstraints
    )
    assert not constraints.value.ca


def request_with(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> str:
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, workshop.hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def test_requests_that_are_none_are_refused(first: errands.Root) -> None:
    """Damaged ones, keys of another kind, and a signature by another key."""
    good = request_with(ec.generate_private_key(ec.SECP256R1()))
    lines = good.splitlines()
    lines[-2] = lines[-2][:-12] + ("A" * 8) + lines[-2][-4:]
    cases = {
        "": "cannot be read",
        "x" * 100_000: "cannot be read",
        request_with(rsa.generate_private_key(65537, 2048)): "none of the kind",
        request_with(ec.generate_private_key(ec.SECP384R1())): "none of the kind",
        "\n".join(lines): "not signed with its own key|cannot be read",
    }
    wanted = errands.Wanted(cluster="c1", role="node", name="id1")
    for asked, why in cases.items():
        with pytest.raises(errands.NotMade, match=why):
            errands.issue(asked, wanted, first, SEALING, NOW_MS)


def test_a_root_is_opened_by_its_cluster_s_sealing_key_alone(first: errands.Root) -> None:
    """Another key, another cluster, and one flipped bit open nothing."""
    _, asked = errands.request()
    wanted = errands.Wanted(cluster="c1", role="node", name="id1")
    flipped = bytes([*first.sealed_key[:-1], first.sealed_key[-1] ^ 1])
    for root, key in (
        (first, b"t" * 32),
        (dataclasses.replace(first, about="c2"), SEALING),
        (dataclasses.replace(first, sealed_key=flipped), SEALING),
        (dataclasses.replace(first, sealed_key=b"\x02" + first.sealed_key[1:]), SEALING),
    ):
        with pytest.raises(errands.NotMade, match=r"sealing key does not open|another release"):
            errands.issue(asked, wanted, root, key, NOW_MS)
    assert b"PRIVATE" not in first.sealed_key


# At most 64 bytes, of which a letter takes up to four: the library makes no longer names.
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=16)


@hypothesis.given(cluster=TEXT, name=TEXT, role=st.sampled_from(Role), start=st.integers(0, 4_000_000_000))
@hypothesis.settings(deadline=None, max_examples=60)
def test_our_reader_reads_what_the_library_wrote(cluster: str, name: str, role: Role, start: int) -> None:
    """Names of any letters; moments before and after 2050, where their form changes."""
    sealed = workshop.root({
        "cluster": cluster, "name": name, "about": "x", "sealing_key": "c3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3M=",
        "not_before_ms": start * 1000, "not_after_ms": (start + 1) * 1000,
    })  # fmt: skip
    made = x509.load_pem_x509_certificate(sealed["certificate"].encode())
    facts = certificate.read(sealed["certificate"].encode())
    assert facts.subject == (("O", cluster), ("OU", "root"), ("CN", name))
    assert facts.serial == made.serial_number
    assert facts.not_before_ms == start * 1000
    assert facts.not_after_ms == int(made.not_valid_after_utc.timestamp() * 1000)
    public = made.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert facts.key_digest == workshop_digest(public)
    assert role in Role


def workshop_digest(data: bytes) -> str:
    digest = workshop.hashes.Hash(workshop.hashes.SHA256())
    digest.update(data)
    return digest.finalize().hex()


@hypothesis.given(place=st.integers(0, 10_000), byte=st.integers(0, 255), cut=st.integers(0, 10_000))
@hypothesis.settings(deadline=None)
def test_our_reader_refuses_or_reads_and_never_fails_otherwise(
    first: errands.Root, place: int, byte: int, cut: int
) -> None:
    """A certificate with a byte changed, and with its end cut off."""
    (good,) = certificate.split(first.certificate.encode())
    place %= len(good)
    for data in (good[:place] + bytes([byte]) + good[place + 1 :], good[: cut % len(good)]):
        with contextlib.suppress(Malformed):
            assert len(certificate.of_der(data).key_digest) == 64
