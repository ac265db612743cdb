"""What a certificate says: whose it is, from when to when, its number and the digest of its key (RFC 5280, 4.1).

It reads and does not verify: that is TLS's work, or that of whoever compares a pin. Reading it here spares every agent
and every control plane a library of 12 MB.
"""

import base64
import binascii
import calendar
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass

from trust.core import der
from trust.core.identity import Identity, Malformed, role

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE-----")
_REQUEST = re.compile(rb"-----BEGIN CERTIFICATE REQUEST-----\s+([A-Za-z0-9+/=\s]+?)-----END CERTIFICATE REQUEST-----")
_ORGANIZATION, _UNIT, _COMMON_NAME = b"\x55\x04\x0a", b"\x55\x04\x0b", b"\x55\x04\x03"
_NAMES = {_ORGANIZATION: "O", _UNIT: "OU", _COMMON_NAME: "CN"}
MAX_CHAIN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Moments in milliseconds since 1970. `key_digest`: the SHA-256 of the public key (its SubjectPublicKeyInfo)."""

    subject: tuple[tuple[str, str], ...]
    issuer: tuple[tuple[str, str], ...]
    serial: int
    not_before_ms: int
    not_after_ms: int
    key_digest: str

    @property
    def identity(self) -> Identity:
        """Raises Malformed when the subject is none of a cluster's."""
        names = dict(self.subject)
        if len(names) != len(self.subject) or names.keys() != {"O", "OU", "CN"}:
            raise Malformed("the certificate's subject is not O, OU and CN, each once")
        return Identity(cluster=names["O"], role=role(names["OU"]), name=names["CN"])


def split(pem: bytes) -> list[bytes]:
    """Each certificate of a PEM text, as DER. Raises Malformed."""
    found = _PEM.findall(pem)
    if len(found) > MAX_CHAIN:
        raise Malformed(f"{len(found)} certificates are more than the {MAX_CHAIN} that are taken together")
    try:
        return [base64.b64decode(b"".join(body.split()), validate=True) for body in found]
    except binascii.Error as error:
        raise Malformed(f"the certificate is damaged: {error}") from error


def read(pem: bytes) -> Facts:
    """What the first certificate of a PEM text says. Raises Malformed."""
    found = split(pem)
    if not found:
        raise Malformed("there is no certificate in it")
    return of_der(found[0])


def of_der(data: bytes) -> Facts:
    """What a certificate says. Raises Malformed."""
    signed = der.one(data).parts()
    if len(signed) != 3:
        raise Malformed("a certificate has three parts")
    fields = signed[0].parts()
    if fields and fields[0].tag == 0xA0:  # the version, which an old certificate leaves out
        fields = fields[1:]
    if len(fields) < 6:
        raise Malformed("a certificate without a public key")
    serial, _, issuer, validity, subject, key = fields[:6]
    moments = [_moment(each) for each in validity.parts()]
    if len(moments) != 2:
        raise Malformed("a validity is from one moment to another")
    return Facts(
        subject=tuple(_names(subject)),
        issuer=tuple(_names(issuer)),
        serial=int.from_bytes(der.expect(serial, der.INTEGER).content, "big"),
        not_before_ms=moments[0],
        not_after_ms=moments[1],
        key_digest=hashlib.sha256(der.expect(key, der.SEQUENCE).whole).hexdigest(),
    )


def _names(value: der.Value) -> Iterator[tuple[str, str]]:
    """Pairs such as (`O`, the cluster's id); what is none of ours is told by its number."""
    for group in value.parts():
        for pair in group.parts(der.SET):
            parts = pair.parts()
            if len(parts) != 2 or parts[1].tag not in {der.UTF8, der.PRINTABLE}:
                raise Malformed("a name in the certificate is no text")
            number = der.expect(parts[0], der.OID).content
            try:
                yield _NAMES.get(number, number.hex()), parts[1].content.decode()
            except UnicodeDecodeError as error:
                raise Malformed("a name in the certificate is no UTF-8") from error


def _moment(value: der.Value) -> int:
    """UTCTime until 2049, GeneralizedTime after (RFC 5280, 4.1.2.5): `261126054744Z`, `20501126054744Z`."""
    text = value.content.decode(errors="replace")
    if value.tag == der.UTC_TIME and re.fullmatch(r"[0-9]{12}Z", text, re.ASCII):
        text = ("19" if text[0] >= "5" else "20") + text
    elif value.tag != der.GENERALIZED_TIME or not re.fullmatch(r"[0-9]{14}Z", text, re.ASCII):
        raise Malformed(f"a moment that is not allowed in a certificate: {text!r:.30}")
    fields = (int(text[:4]), *(int(text[place : place + 2]) for place in range(4, 14, 2)))
    if not (1 <= fields[1] <= 12 and 1 <= fields[2] <= 31 and fields[3] < 24 and fields[4] < 60 and fields[5] < 60):
        raise Malformed(f"there is no such moment: {text!r}")
    return calendar.timegm((*fields, 0, 0, 0)) * 1000


def of_request(pem: str) -> str:
    """The digest of the public key in a certificate request (RFC 2986, 4.1). Raises Malformed."""
    found = _REQUEST.fullmatch(pem.strip().encode())
    if found is None:
        raise Malformed("it is no certificate request")
    try:
        data = base64.b64decode(b"".join(found[1].split()), validate=True)
    except binascii.Error as error:
        raise Malformed(f"the certificate request is damaged: {error}") from error
    signed = der.one(data).parts()
    fields = signed[0].parts() if signed else []
    if len(signed) != 3 or len(fields) < 3:
        raise Malformed("a certificate request has three parts, with a public key in the first")
    return hashlib.sha256(der.expect(fields[2], der.SEQUENCE).whole).hexdigest()
