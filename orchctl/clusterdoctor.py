"""The cluster's doctor, as a person sees it: what this machine knows by itself, and what the control plane has found.

The rule: it always answers. That nobody can be reached is a finding with a remedy, too, and the exit code says so.
"""

import time
from collections.abc import Iterator, Sequence

from orchctl import client, errors, output, terminal, who
from protos import findings, release
from protos.orch.v1 import control_pb2 as control

TIMEOUT_S = 180.0
HERE = "here"
CLOCK_WARNING_MS = 1_000
CERTIFICATE_SOON_MS = 7 * 86_400_000


def run(server: str, *, form: str | None, without_network: bool) -> None:
    """Prints every finding. Raises NotDone when something has failed."""
    found = [*findings.at(HERE, _here(server)), *_there(server, without_network=without_network)]
    if form == "json":
        terminal.say(output.as_json(findings.documents(found)))
    else:
        output.print_lines(findings.lines(found))
    if findings.has_failed(found):
        raise errors.NotDone(findings.summary(found))
    if form is None:
        terminal.note(findings.summary(found))


def _here(server: str) -> Iterator[control.Finding]:
    """This machine's certificate, and how it stands to the instance that it talks to."""
    material = who.material()
    if material is not None:
        yield _certificate(material.facts.not_after_ms, str(material.identity))
    before = time.time_ns()
    try:
        with client.connect(server) as stub:
            said = stub.Version(control.VersionRequest(), timeout=client.CALL_TIMEOUT_S)
    except errors.OrchctlError as error:
        yield findings.failed("control plane", error.message, error.hint)
        return
    after = time.time_ns()
    yield findings.ok("control plane", f"{said.instance} at {server} answers")
    yield _version(said.version)
    if said.now:
        yield _clock((before + after) // 2_000_000 - said.now, (after - before) // 2_000_000 + 1)


def _certificate(until_ms: int, whose: str) -> control.Finding:
    left_ms = until_ms - terminal.now_ms()
    hours = abs(left_ms) // 3_600_000
    told = f"{hours // 24} days" if hours >= 48 else f"{hours} h"
    if left_ms <= 0:
        return findings.failed("certificate", f"that of {whose} expired {told} ago", "`orchctl login` with a new token")
    if left_ms < CERTIFICATE_SOON_MS:
        return findings.warning("certificate", f"that of {whose} expires in {told}", "`orchctl login --renew`")
    return findings.ok("certificate", f"that of {whose} is good for {told}")


def _version(theirs: str) -> control.Finding:
    ours = release.VERSION
    if theirs == ours:
        return findings.ok("version", f"orchctl {ours}, as the control plane")
    text = f"orchctl {ours} beside a control plane {theirs}: one may not know what the other says"
    return findings.warning("version", text, "install the same version here")


def _clock(ahead_ms: int, uncertain_ms: int) -> control.Finding:
    way = "ahead of" if ahead_ms > 0 else "behind"
    if abs(ahead_ms) - uncertain_ms > CLOCK_WARNING_MS:
        text = f"this machine is {abs(ahead_ms) / 1000:.1f} s {way} the control plane: ages and events look wrong here"
        return findings.warning("clock", text, "`timedatectl set-ntp true` on both machines, or install chrony")
    return findings.ok("clock", f"within {max(abs(ahead_ms), uncertain_ms)} ms of the control plane's")


def _there(server: str, *, without_network: bool) -> Sequence[control.Finding]:
    request = control.DiagnoseRequest(without_network=without_network)
    try:
        return client.at_leader(server, lambda address: _ask(address, request))
    except errors.Unreachable:
        return []  # said already
    except errors.OrchctlError as error:
        return [findings.failed("diagnosis", error.message, error.hint)]


def _ask(server: str, request: control.DiagnoseRequest) -> list[control.Finding]:
    with client.connect(server) as stub:
        return [finding for part in stub.Diagnose(request, timeout=TIMEOUT_S) for finding in part.findings]
