"""Makes keys, certificates and roots: `python -m trust.workshop`, a process that lives for one order of works.

    stdin: [{"work": "issue", …}, …]      stdout: [{…}, …], or {"problem": "one line"}

Two rules. It is the only module that imports `cryptography`, and the only process that ever holds a root's private key
unsealed. And of a certificate request the public key is taken and nothing else: subject, lifetime and uses are the
authority's to say.
"""

import base64
import datetime as dt
import ipaddress
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

MAX_INPUT_BYTES = 4 * 1024 * 1024
NONCE_BYTES = 12
SEAL_VERSION = b"\x01"

Work = Mapping[str, Any]


class Problem(Exception):  # noqa: N818 - what it is
    """Why the work cannot be done, in one line."""


# Keys ---------------------------------------------------------------------------------------------------------------


def request(work: Work) -> Work:
    """A certificate request for a new key, or for the one that is given as `key`."""
    given = work.get("key", "")
    key = _key(given.encode()) if given else ec.generate_private_key(ec.SECP256R1())
    asked = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return {"key": given or _key_pem(key).decode(), "request": _pem(asked)}


def seal(plain: bytes, sealing_key: bytes, about: str) -> bytes:
    """AES-GCM under the sealing key. `about` is bound to it: what was sealed for one place opens in no other."""
    nonce = os.urandom(NONCE_BYTES)
    return SEAL_VERSION + nonce + AESGCM(sealing_key).encrypt(nonce, plain, about.encode())


def unseal(sealed: bytes, sealing_key: bytes, about: str) -> bytes:
    """What was sealed. Raises Problem for another key, another `about`, and for what was altered."""
    if sealed[:1] != SEAL_VERSION:
        raise Problem("what is sealed was sealed by another release")
    nonce, rest = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
    try:
        return AESGCM(sealing_key).decrypt(nonce, rest, about.encode())
    except (InvalidTag, ValueError) as error:
        raise Problem("the sealing key does not open the root's key: is it the file of this cluster?") from error


# Roots --------------------------------------------------------------------------------------------------------------


def root(work: Work) -> Work:
    """A new root: its certificate, and its private key sealed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name(work["cluster"], "root", work["name"])
    made = _signed(work, subject=name, issuer=name, public=key.public_key(), by=key, extensions=_authority())
    sealed = seal(_key_pem(key), _bytes(work["sealing_key"]), work["about"])
    return {"certificate": _pem(made), "sealed_key": base64.b64encode(sealed).decode()}


def cross(work: Work) -> Work:
    """A root's key in a certificate that another root signs: who trusts only that one comes to trust this one."""
    own, other = _certificate(work["certificate"]), _certificate(work["by_certificate"])
    made = _signed(
        work,
        subject=own.subject,
        issuer=other.subject,
        public=_public(own.public_key()),
        by=_root_key(work, other),
        extensions=[*_authority(), (_signed_by(other), False)],
    )
    return {"certificate": _pem(made)}


def issue(work: Work) -> Work:
    """A certificate for the key of a request, with the subject that is given."""
    asked, signer = _asked(work["request"]), _certificate(work["by_certificate"])
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH, *([ExtendedKeyUsageOID.SERVER_AUTH] if work["server"] else [])]
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (_usage(signs=False), True),
        (x509.ExtendedKeyUsage(usages), False),
        (_signed_by(signer), False),
    ]
    if work["alternatives"]:
        extensions.append((x509.SubjectAlternativeName([_alternative(each) for each in work["alternatives"]]), False))
    made = _signed(
        work,
        subject=_name(work["cluster"], work["role"], work["name"]),
        issuer=signer.subject,
        public=asked,
        by=_root_key(work, signer),
        extensions=extensions,
    )
    return {"certificate": _pem(made)}


def _signed(
    work: Work,
    *,
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    by: ec.EllipticCurvePrivateKey,
    extensions: Sequence[tuple[x509.ExtensionType, bool]],
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(_moment(work["not_before_ms"]))
        .not_valid_after(_moment(work["not_after_ms"]))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    return builder.sign(by, hashes.SHA256())


def _authority() -> Sequence[tuple[x509.ExtensionType, bool]]:
    """A root signs certificates that sign nothing themselves, and at most one other root across."""
    return [(x509.BasicConstraints(ca=True, path_length=1), True), (_usage(signs=True), True)]


def _signed_by(signer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """Which of two roots with one name it was (RFC 5280, 4.2.1.1)."""
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(_public(signer.public_key()))


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        key_cert_sign=signs,
        crl_sign=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


# Reading and writing ------------------------------------------------------------------------------------------------


def _asked(pem: str) -> ec.EllipticCurvePublicKey:
    """The public key of a certificate request whose maker has the private one."""
    try:
        asked = x509.load_pem_x509_csr(pem.encode())
        public = _public(asked.public_key())
        if not asked.is_signature_valid:
            raise Problem("the certificate request is not signed with its own key")
    except (ValueError, InvalidSignature) as error:
        raise Problem("the certificate request cannot be read") from error
    return public


def _public(key: object) -> ec.EllipticCurvePublicKey:
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise Problem("the key is none of the kind that a cluster uses (ECDSA on P-256)")
    return key


def _root_key(work: Work, signer: x509.Certificate) -> ec.EllipticCurvePrivateKey:
    pem = unseal(base64.b64decode(work["sealed_key"]), _bytes(work["sealing_key"]), work["about"])
    key = _key(pem)
    if key.public_key() != signer.public_key():
        raise Problem("the root's key does not belong to its certificate")
    return key


def _key(pem: bytes) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(pem, None)
    except ValueError as error:
        raise Problem("the private key cannot be read") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise Problem("the private key is none of the kind that a cluster uses (ECDSA on P-256)")
    return key


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _certificate(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def _pem(made: x509.Certificate | x509.CertificateSigningRequest) -> str:
    return made.public_bytes(serialization.Encoding.PEM).decode()


def _name(cluster: str, role: str, name: str) -> x509.Name:
    pairs = (
        (NameOID.ORGANIZATION_NAME, cluster),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, role),
        (NameOID.COMMON_NAME, name),
    )
    return x509.Name([x509.NameAttribute(number, text) for number, text in pairs])


def _alternative(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _moment(ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(ms // 1000, dt.UTC)


def _bytes(text: str) -> bytes:
    return base64.b64decode(text)


WORKS: Mapping[str, Callable[[Work], Work]] = {"request": request, "root": root, "cross": cross, "issue": issue}


def main() -> None:
    """Does the works that stand on standard input, all or none."""
    works = json.loads(sys.stdin.buffer.read(MAX_INPUT_BYTES))
    result: Sequence[Work] | Work
    try:
        result = [WORKS[work["work"]](work) for work in works]
    except Problem as problem:
        result = {"problem": str(problem)}
    sys.stdout.write(json.dumps(result))


if __name__ == "__main__":
    main()
