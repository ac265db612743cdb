"""Has keys and certificates made by the workshop, a process of its own for each order.

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
from typing import Any, Self

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A certificate that is to be issued by a root, for the key of a request (PEM)."""

    asked: str
    wanted: Wanted
    by: Root


Works = Sequence[Mapping[str, Any]]
"""As the workshop takes them and answers them."""


class Workshop:
    """One that is started before its order is known, and loads what it needs while others do something else.

    It takes one order. At the end of the block it is ended, if it got none.
    """

    def __init__(self) -> None:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(_COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, env=_environment())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        with self._process:  # closes the pipes, and waits
            pass

    def do(self, works: Works) -> Works:
        """Raises NotMade."""
        try:
            out, err = self._process.communicate(json.dumps(works).encode(), timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired as error:
            raise NotMade(f"no certificate was made within {TIMEOUT_S:g} s") from error
        return _result(self._process.returncode, out, err)


def request(key: str = "", workshop: Workshop | None = None) -> tuple[str, str]:
    """A private key and a certificate request for it, both as PEM. `key`: the one to use, instead of a new one.
    `workshop`: one that has been started already.
    """
    works = [{"work": "request", "key": key}]
    return _requested(workshop.do(works) if workshop is not None else _do(works))[0]


def requests(count: int) -> Sequence[tuple[str, str]]:
    """So many new ones, of one process."""
    return _requested(_do([{"work": "request"}] * count))


def root(cluster: str, name: str, sealing_key: bytes, now_ms: int) -> Root:
    """A new root of a cluster."""
    return roots(cluster, [name], sealing_key, now_ms)[0]


def roots(cluster: str, names: Sequence[str], sealing_key: bytes, now_ms: int) -> Sequence[Root]:
    """Several, of one process."""
    same = {"work": "root", "cluster": cluster, "about": cluster, **_sealing(sealing_key)}
    made = _do([{**same, "name": name, **_validity(now_ms, lifetime.ROOT_MS)} for name in names])
    return [
        Root(certificate=one["certificate"], sealed_key=base64.b64decode(one["sealed_key"]), about=cluster)
        for one in made
    ]


def cross(own: Root, by: Root, sealing_key: bytes, now_ms: int) -> str:
    """`own`'s key in a certificate signed by another root, as PEM."""
    work = {"work": "cross", "certificate": own.certificate, **_signer(by), **_sealing(sealing_key)}
    return _certificates(_do([{**work, **_validity(now_ms, lifetime.ROOT_MS)}]))[0]


def issue(asked: str, wanted: Wanted, by: Root, sealing_key: bytes, now_ms: int) -> str:
    """A certificate for a request's key, as PEM."""
    return issue_all([Order(asked=asked, wanted=wanted, by=by)], sealing_key, now_ms)[0]


def issue_all(orders: Sequence[Order], sealing_key: bytes, now_ms: int) -> Sequence[str]:
    """One for each order, of one process; all or none."""
    return _certificates(_do([_issue(order, sealing_key, now_ms) for order in orders]))


async def issue_async(asked: str, wanted: Wanted, by: Root, sealing_key: bytes, now_ms: int) -> str:
    """As `issue`, beside other work."""
    order = Order(asked=asked, wanted=wanted, by=by)
    return _certificates(await _do_async([_issue(order, sealing_key, now_ms)]))[0]


async def request_async(key: str = "") -> tuple[str, str]:
    """As `request`, beside other work."""
    return _requested(await _do_async([{"work": "request", "key": key}]))[0]


def _requested(made: Works) -> Sequence[tuple[str, str]]:
    return [(one["key"], one["request"]) for one in made]


def _certificates(made: Works) -> Sequence[str]:
    return [one["certificate"] for one in made]


def _issue(order: Order, sealing_key: bytes, now_ms: int) -> Mapping[str, Any]:
    wanted = order.wanted
    return {
        "work": "issue",
        "request": order.asked,
        "cluster": wanted.cluster,
        "role": wanted.role,
        "name": wanted.name,
        "server": wanted.server,
        "alternatives": list(wanted.alternatives),
        **_signer(order.by),
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


def _do(works: Works) -> Works:
    with Workshop() as workshop:
        return workshop.do(works)


async def _do_async(works: Works) -> Works:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*_COMMAND, stdin=pipe, stdout=pipe, stderr=pipe, env=_environment())
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, err = await process.communicate(json.dumps(works).encode())
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


def _result(code: int, out: bytes, err: bytes) -> Works:
    if code != 0:
        last = (err.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]
        raise NotMade(f"the workshop failed with exit code {code}: {last}")
    result: Any = json.loads(out)
    if isinstance(result, dict):
        raise NotMade(result["problem"])
    made: Works = result
    return made
