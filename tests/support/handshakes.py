"""What a server says in a TLS handshake, as openssl sees it."""

import asyncio


async def handshake(address: str, *options: str) -> tuple[int, str]:
    """The exit code of `openssl s_client`, and what it prints."""
    command = ["openssl", "s_client", "-connect", address, "-alpn", "h2", *options]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=asyncio.subprocess.STDOUT
    )
    async with asyncio.timeout(20):
        output, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, output.decode(errors="replace")
