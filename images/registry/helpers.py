"""Credential helpers: the programs `docker-credential-NAME` that keep passwords in somebody's keychain.

Docker's protocol: one word (`get`, `store`, `erase`) as argument, the server or a JSON object on standard input, JSON
or one line of trouble on standard output. The rule: a helper has bounded time and output, and what goes wrong with it
is told with its name; secrets never stand in an argument or an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from typing import TYPE_CHECKING

from images import documents
from images import errors as image_errors
from images.registry import errors

if TYPE_CHECKING:
    from images.registry.credentials import Credentials

TIMEOUT_S = 60.0  # long enough for a person to unlock a keychain
MAX_OUTPUT_BYTES = 64 << 10
_END_TIMEOUT_S = 2.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_NOT_FOUND = "credentials not found"
IDENTITY = "<token>"
"""The user name under which helpers keep an identity token."""


async def get(name: str, server: str) -> tuple[str, str] | None:
    """User name and secret that the helper has for `server`; None when it has none."""
    code, output = await _call(name, "get", server)
    text = output.decode(errors="replace").strip()
    if code != 0 and _NOT_FOUND in text.lower():
        return None
    if code != 0:
        raise errors.BadConfiguration(f"docker-credential-{name} get {server}: {_short(text)}; repair the helper")
    try:
        item = documents.parse(output, what=f"answer of docker-credential-{name} for {server}")
        return item.text("Username"), item.text("Secret")
    except image_errors.InvalidImage as error:
        # The parser's words could quote the secret.
        message = f"docker-credential-{name} get {server}: the answer is no JSON with Username and Secret"
        raise errors.BadConfiguration(f"{message}; repair the helper") from error


async def store(name: str, server: str, credentials: Credentials) -> None:
    user, secret = credentials.user, credentials.password
    if credentials.identity_token:
        user, secret = IDENTITY, credentials.identity_token
    await _change(name, "store", json.dumps({"ServerURL": server, "Username": user, "Secret": secret}), server)


async def erase(name: str, server: str) -> None:
    await _change(name, "erase", server, server)


async def _change(name: str, action: str, line: str, server: str) -> None:
    code, output = await _call(name, action, line)
    text = output.decode(errors="replace").strip()
    if code != 0 and not (action == "erase" and _NOT_FOUND in text.lower()):
        raise errors.BadConfiguration(f"docker-credential-{name} {action} {server}: {_short(text)}; repair the helper")


async def _call(name: str, action: str, line: str) -> tuple[int, bytes]:
    """Exit code and standard output. The helper's standard error is the person's to see."""
    if not _NAME.fullmatch(name):
        raise errors.BadConfiguration(f"credential helper {name!r:.100}: expected letters, digits, '.', '_' or '-'")
    program = f"docker-credential-{name}"
    try:
        process = await asyncio.create_subprocess_exec(
            program, action, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
        )
    except OSError as error:
        message = f"{program}: {error.strerror}; install it, or remove it from Docker's config.json"
        raise errors.BadConfiguration(message) from error
    try:
        async with asyncio.timeout(TIMEOUT_S):
            return await _converse(process, line.encode())
    except TimeoutError as error:
        raise errors.BadConfiguration(f"{program} {action}: no answer in {TIMEOUT_S:g} s; repair the helper") from error
    finally:
        if process.returncode is None:
            await _end(process)


async def _converse(process: asyncio.subprocess.Process, line: bytes) -> tuple[int, bytes]:
    assert process.stdin is not None and process.stdout is not None, "both were asked for as pipes"  # noqa: PT018
    process.stdin.write(line + b"\n")
    process.stdin.close()
    output = b""
    while data := await process.stdout.read(MAX_OUTPUT_BYTES + 1 - len(output)):
        output += data
        if len(output) > MAX_OUTPUT_BYTES:
            raise errors.BadConfiguration(f"credential helper: more than {MAX_OUTPUT_BYTES >> 10} KiB of output")
    return await process.wait(), output


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it. asyncio sees an end only when the pipe is read to its own, which a helper's child may hold open."""
    assert process.stdout is not None, "it was asked for as a pipe"
    process.kill()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_TIMEOUT_S):
            while await process.stdout.read(MAX_OUTPUT_BYTES):
                pass
            await process.wait()


def _short(text: str) -> str:
    return " ".join(text.split())[:200] or "failed without a word"
