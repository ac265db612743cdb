"""Looks at an etcd that there is already, before a cluster is founded in it.

The rule: founding writes down where the store is, and the next try goes on with what is written. So a wrong address or
certificate, or a store that holds a cluster, is told while nothing is.
"""

import base64
import contextlib
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, Final

from deploy.host.errors import HostError

PREFIX: Final = "/orch"
"""What every key of a cluster begins with."""
_TIMEOUT_S: Final = 5.0


def check(arguments: Sequence[str]) -> None:
    """`--etcd=https://10.0.0.9:2379`, `--etcd-ca=FILE`, … as `cluster init` was given them; none: nothing to look at.

    Raises HostError when no member answers, or the store holds a cluster. What is missing or no address is told by
    whoever reads the arguments.
    """
    said = [(key, text) for key, _, text in (one.removeprefix("--").partition("=") for one in arguments)]
    urls, files = [text for key, text in said if key == "etcd"], {key: text for key, text in said if key != "etcd"}
    if not urls or not {"etcd-ca", "etcd-cert", "etcd-key"} <= files.keys():
        return
    context = _context(files)
    problems = {url: _problem(url, context) for url in urls}
    if all(problems.values()):
        told = "; ".join(f"{url}: {why}" for url, why in problems.items())
        hint = "`curl --cacert CA --cert CERT --key KEY URL/health` with the same files tells more"
        raise HostError(f"no member of the etcd answers: {told}", hint=hint)
    there = next(url for url, why in problems.items() if not why)
    if _is_used(there, context):
        hint = f"`orchctl cluster join` joins it; what begins with {PREFIX} in a store is one cluster's"
        raise HostError(f"the etcd at {there} holds a cluster already", hint=hint)


def _context(files: dict[str, str]) -> ssl.SSLContext:
    try:
        made = ssl.create_default_context(cafile=files["etcd-ca"])
        made.load_cert_chain(files["etcd-cert"], files["etcd-key"])
    except ssl.SSLError as error:
        names = ", ".join(files.values())
        text = f"{names} are no CA, certificate and key that fit: {error.reason or error}"
        raise HostError(text, hint="give PEM files; the key is the certificate's, without a password") from error
    except OSError as error:
        names = ", ".join(files.values())
        raise HostError(f"cannot read one of {names}: {error.strerror}", hint="give the right files") from error
    return made


def _problem(url: str, context: ssl.SSLContext) -> str:
    """Why a member does not answer; empty when it does."""
    try:
        _asked(f"{url.rstrip('/')}/health", None, context)
    except urllib.error.URLError as error:
        reason = error.reason
        return str(getattr(reason, "strerror", None) or reason)
    except (OSError, ValueError) as error:
        return str(error) or "no answer in time"
    return ""


def _is_used(url: str, context: ssl.SSLContext) -> bool:
    """Whether there is a key of a cluster's. Not every etcd answers this by HTTP: then whoever starts on it tells."""
    key, end = (base64.b64encode(text.encode()).decode() for text in (PREFIX, PREFIX[:-1] + chr(ord(PREFIX[-1]) + 1)))
    question = {"key": key, "range_end": end, "limit": 1, "keys_only": True}
    with contextlib.suppress(OSError, ValueError):
        return bool(_asked(f"{url.rstrip('/')}/v3/kv/range", question, context).get("kvs"))
    return False


def _asked(url: str, question: object, context: ssl.SSLContext) -> Any:
    data = json.dumps(question).encode() if question is not None else None
    if not url.startswith("https://"):
        raise ValueError("it is no https:// address")
    # No proxy of the person's: instances dial the store themselves.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context))
    with opener.open(url, data, timeout=_TIMEOUT_S) as answer:
        return json.load(answer)
