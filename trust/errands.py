"""Has keys and certificates made by the workshop, a process of its own for each piece of work.

The rule: what goes there and comes back goes through pipes; no key is ever an argument or a file of ours on the way.
"""

import asyncio
import base64
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trust.core import lifetime

TIMEOUT_S = 30.0
_COMMAND = (sys.executable, "-m", "trust.workshop")
_ROOT = str(Path(__file__).parents[1])


class NotMade(Exception):  # noqa: N818 - what happened
    """The workshop refused, or could not work; the text is one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A root as the store keeps it: its certificate as PEM, and its private key sealed."""

    certificate: str
    sealed_key: bytes
    about: str
    """What the key was sealed for: the cluster's id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a certificate is to say. `alternatives`: the names and addresses that a server is asked for by."""

    cluster: str
    role: str
    name: str
    server: bool = False
    alternatives: Sequence[str] = ()
    lifetime_ms: int = lifetime.LEAF_MS


def request(key: str = "") -> tuple[str, str]:
    """A private key and a certificate request for it, both as PEM. `key`: the one to use, instead of a new one."""
    made = _do({"work": "request", "key": key})
    return made["key"], made["request"]


def root(cluster: str, name: str, sealing_key: bytes, now_ms: int) -> Root:
    """A new root of a cluster."""
    work = {"work": "root", "cluster": cluster, "name": name, "about": cluster, **_sealing(sealing_key)}
    made = _do({**work, **_validity(now_ms, lifetime.ROOT_MS)})
    return Root(certificate=made["certificate"], sealed_key=base64.b64decode(made["sealed_key"]), about=cluster)


def cross(own: Root, by: Root, sealing_key: bytes, now_ms: int) -> str:
    """`own`'s key in a certificate signed by another root, as PEM."""
    work = {"work": "cross", "certificate": own.certificate, **_signer(by), **_sealing(sealing_key)}
    return str(_do({**work, **_validity(now_ms, lifetime.ROOT_MS)})["certificate"])


def issue(asked: str, wanted: Wanted, by: Root, sealing_key: bytes, now_ms: int) -> str:
    """A certificate for a request's key, as PEM."""
    return str(_do(_issue(asked, wanted, by, sealing_key, now_ms))["certificate"])


async def issue_async(asked: str, wanted: Wanted, by: Root, sealing_key: bytes, now_ms: int) -> str:
    """The same, beside other work."""
    return str((await _do_async(_issue(asked, wanted, by, sealing_key, now_ms)))["certificate"])


async def request_async(key: str = "") -> tuple[str, str]:
    """As `request`, beside other work."""
    made = await _do_async({"work": "request", "key": key})
    return made["key"], made["request"]


def _issue(asked: str, wanted: Wanted, by: Root, sealing_key: bytes, now_ms: int) -> Mapping[str, Any]:
    return {
        "work": "issue",
        "request": asked,
        "cluster": wanted.cluster,
        "role": wanted.role,
        "name": wanted.name,
        "server": wanted.server,
        "alternatives": list(wanted.alternatives),
        **_signer(by),
        **_sealing(sealing_key),
        **_validity(now_ms, wanted.lifetime_ms),
    }


def _signer(by: Root) -> Mapping[str, Any]:
    sealed = base64.b64encode(by.sealed_key).decode()
    return {"by_certificate": by.certificate, "sealed_key": sealed, "about": by.about}


def _sealing(sealing_key: bytes) -> Mapping[str, Any]:
    return {"sealing_key": base64.b64encode(sealing_key).decode()}


def _validity(now_ms: int, length_ms: int) -> Mapping[str, Any]:
    return {"not_before_ms": now_ms - lifetime.BACKDATED_MS, "not_after_ms": now_ms + length_ms}


def _do(work: Mapping[str, Any]) -> Mapping[str, Any]:
    try:
        done = subprocess.run(
            _COMMAND,
            input=json.dumps(work).encode(),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
            env=_environment(),
        )
    except subprocess.TimeoutExpired as error:
        raise NotMade(f"no certificate was made within {TIMEOUT_S:g} s") from error
    return _result(done.returncode, done.stdout, done.stderr)


async def _do_async(work: Mapping[str, Any]) -> Mapping[str, Any]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*_COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, env=_environment())
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, err = await process.communicate(json.dumps(work).encode())
    except TimeoutError as error:
        raise NotMade(f"no certificate was made within {TIMEOUT_S:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None, "it has ended"
    return _result(process.returncode, out, err)


def _environment() -> Mapping[str, str]:
    """Ours, with the folder of these very packages on the path, wherever this process was started."""
    inherited = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{_ROOT}{os.pathsep}{inherited}" if inherited else _ROOT}


def _result(code: int, out: bytes, err: bytes) -> Mapping[str, Any]:
    if code != 0:
        last = (err.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise NotMade(f"the workshop failed with exit code {code}: {last}")
    result: Mapping[str, Any] = json.loads(out)
    if "problem" in result:
        raise NotMade(result["problem"])
    return result
