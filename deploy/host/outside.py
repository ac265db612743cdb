"""Looks at an etcd that there is already, before a cluster is founded in it, or restored into it.

The rule: both write down where the store is, and the next try goes on with what is written. So a wrong address or
certificate, or a store that holds a cluster, is told while nothing is.
"""

import base64
import contextlib
import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, Final

from controlplane.trust import storeplace
from deploy.host.errors import HostError

PREFIX: Final = "/orch"
"""What every key of a cluster begins with."""
_TIMEOUT_S: Final = 5.0
_FILES: Final = ("etcd-ca", "etcd-cert", "etcd-key")


def check(arguments: Sequence[str]) -> None:
    """`--etcd=https://10.0.0.9:2379`, `--etcd-ca=FILE`, … as they were given; none: nothing to look at.

    Raises HostError when something is missing, no member answers, or the store holds a cluster; NotTrusted for what is
    no address.
    """
    said = [(key, text) for key, _, text in (one.removeprefix("--").partition("=") for one in arguments)]
    urls, files = [text for key, text in said if key == "etcd"], {key: text for key, text in said if key != "etcd"}
    if not urls and not files:
        return
    missing = [f"--{name}" for name in ("etcd", *_FILES) if name not in (files if name in _FILES else dict(said))]
    if missing:
        text = f"{' and '.join(missing)} must be given, too: an etcd that there is already is spoken to by TLS"
        raise HostError(text, hint="without any of them a member of etcd is run beside the control plane")
    # As the instance dials it: a path or the port of another service would be of no use.
    addresses = [storeplace.endpoint(url) for url in urls]
    context = _context(files)
    problems = {address: _problem(address, context) for address in addresses}
    if all(problems.values()):
        told = "; ".join(f"{address}: {why}" for address, why in problems.items())
        hint = "`curl --cacert CA --cert CERT --key KEY https://HOST:PORT/health` with the same files tells more"
        raise HostError(f"no member of the etcd answers: {told}", hint=hint)
    there = next(address for address, why in problems.items() if not why)
    if _is_used(there, context):
        hint = (
            f"name an etcd in which no key begins with {PREFIX}; to be one more control plane of the cluster in this "
            "one: `orchctl cluster join`"
        )
        raise HostError(f"the etcd at {there} holds a cluster already", hint=hint)


def _context(files: dict[str, str]) -> ssl.SSLContext:
    try:
        made = ssl.create_default_context(cafile=files["etcd-ca"])
        # Whoever asks for a password would wait for a person.
        made.load_cert_chain(files["etcd-cert"], files["etcd-key"], password="")
    except ssl.SSLError as error:
        names = ", ".join(files.values())
        text = f"{names} are no CA, certificate and key that fit: {error.reason or error}"
        raise HostError(text, hint="give PEM files; the key is the certificate's, without a password") from error
    except OSError as error:
        names = ", ".join(files.values())
        raise HostError(f"cannot read one of {names}: {error.strerror}", hint="give the right files") from error
    # Newer releases of Python want more of certificates than instances do, who are to judge.
    made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return made


def _problem(address: str, context: ssl.SSLContext) -> str:
    """Why a member does not answer; empty when it does."""
    try:
        _asked(address, "health", None, context)
    except urllib.error.URLError as error:
        return _reason(error.reason)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return _reason(error)
    return ""


def _reason(error: str | BaseException) -> str:
    """In the words of whoever has given the options."""
    match error:
        case ssl.SSLCertVerificationError():
            return f"its certificate is not believed, by --etcd-ca: {error.verify_message}"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
            return "it does not speak TLS there"
        # In TLS 1.3 our handshake is over before the other side turns our certificate away: it just hangs up.
        case ssl.SSLError() | ConnectionResetError() | BrokenPipeError():
            return f"it hangs up on the certificate of --etcd-cert: {getattr(error, 'reason', None) or error}"
        case OSError():
            return error.strerror or str(error) or "no answer in time"
        case ValueError() | http.client.HTTPException():
            return "it does not answer as etcd does"
        case _:
            return str(error)


def _is_used(address: str, context: ssl.SSLContext) -> bool:
    """Whether there is a key of a cluster's. Not every etcd answers this by HTTP: then whoever starts on it tells."""
    key, end = (base64.b64encode(text.encode()).decode() for text in (PREFIX, PREFIX[:-1] + chr(ord(PREFIX[-1]) + 1)))
    question = {"key": key, "range_end": end, "limit": 1, "keys_only": True}
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        return bool(_asked(address, "v3/kv/range", question, context).get("kvs"))
    return False


def _asked(address: str, what: str, question: object, context: ssl.SSLContext) -> Any:
    data = json.dumps(question).encode() if question is not None else None
    # No proxy of the person's: instances dial the store themselves.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with opener.open(f"https://{address}/{what}", data, timeout=_TIMEOUT_S) as answer:
        return json.load(answer)
