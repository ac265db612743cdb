"""The gate before every service: who calls, whether they may, and the end of what they no longer may.

    certificate (TLS has verified it) ─► identity ─► its member's record ─► the table's rule ─► what the request touches

Two rules. A call is looked at when it begins, and those that last are looked at again whenever their member's record
changes: who is taken out loses what is open within a moment, and who renews a certificate keeps it. And what changes
something is written into the audit log, refused or done, and what lasts when it begins, too.
"""

import asyncio
import contextlib
import functools
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from controlplane.api import caller as callers
from controlplane.core import request_errors as errors
from controlplane.core.trust import admission, deeds, rules
from controlplane.trust.audit import Audit, Told
from controlplane.trust.registry import Registry
from protos import answering, headers
from protos.orch.v1 import trust_pb2 as pb
from trust import credentials
from trust.core import certificate
from trust.core.identity import Malformed


@dataclass(slots=True, kw_only=True, eq=False)
class _Open:
    """A call that is being answered."""

    facts: certificate.Facts
    member: pb.MemberRecord
    task: asyncio.Task[object]
    refusal: errors.RequestError | None = None


class Gate(answering.Before):
    """Stands inside `Refusals`, which answers what it raises."""

    def __init__(self, registry: Registry, audit: Audit) -> None:
        self._registry = registry
        self._audit = audit
        self._open: dict[str, set[_Open]] = {}

    def look_again(self, members: Iterable[str]) -> None:
        """Ends the open calls of those members that they could not make any more. Listens to the registry."""
        for one in [one for name in members for one in self._open.get(name, ())]:
            if one.refusal is None:
                one.refusal = self._refusal_of(one)
                if one.refusal is not None:
                    one.task.cancel()

    def refusal(self, pem: str, method: str) -> str:
        """Why the holder of a certificate, which TLS has verified, may not call something that asks for nothing in
        particular; empty: they may.
        """
        try:
            facts = certificate.read(pem.encode())
            caller = _caller(facts, self._believed(facts))
            rules.check_request(method, rules.check(method, caller), caller, None)
        except Malformed as error:
            return f"the certificate is of no member: {error}"
        except errors.RequestError as error:
            return f"{error.message}; {error.hint}"
        return ""

    def _refusal_of(self, one: _Open) -> errors.RequestError | None:
        name = one.facts.identity.member
        if admission.still_stands(one.member, self._registry.members.get(name)):
            return None
        try:
            self._believed(one.facts)
        except errors.Unidentified as refusal:
            return refusal
        return errors.Unidentified(f"what {one.facts.identity} may do has changed", hint="call again")

    def guard(self, behaviour: answering.Behaviour, method: answering.Method) -> answering.Behaviour:
        async def guarded(request: Any, context: answering.Context) -> Any:
            facts = _facts(context)
            member = self._believed(facts)
            caller = _caller(facts, member)
            with self._audit.told(caller, method.path, None if method.takes_stream else request) as told:
                rule = rules.check(method.path, caller)
                told.quiet = rule.reads or deeds.only_looks(request)
                check = functools.partial(rules.check_request, method.path, rule, caller)
                if method.takes_stream:
                    request = _checked(request, told, check)
                else:
                    check(request)
                await self._tell_instances(context)
                with callers.known(caller, told.begins), self._kept_open(facts, member):
                    answer = await answering.carry(behaviour, request, context)
                told.answered(answer)
                return answer

        return guarded

    async def _tell_instances(self, context: answering.Context) -> None:
        """Tells whoever says which instances they know, when there are others."""
        said = next((value for key, value in context.invocation_metadata() or () if key == headers.SERVERS), None)
        if said is None:
            return
        there = ",".join(self._registry.instances)
        if there and said != there:
            await context.send_initial_metadata(((headers.SERVERS, there),))

    def _believed(self, facts: certificate.Facts) -> pb.MemberRecord:
        return admission.believe(self._registry.trust.cluster, facts, self._registry.members.get(facts.identity.member))

    @contextlib.contextmanager
    def _kept_open(self, facts: certificate.Facts, member: pb.MemberRecord) -> Iterator[None]:
        """Inside the block the call may be ended from here. Raises why it was."""
        task = asyncio.current_task()
        assert task is not None, "a call is answered in a task"
        mine = _Open(facts=facts, member=member, task=task)
        name = facts.identity.member
        self._open.setdefault(name, set()).add(mine)
        try:
            yield
        except asyncio.CancelledError:
            if mine.refusal is None:
                raise
            task.uncancel()
            raise mine.refusal from None
        finally:
            self._open[name].discard(mine)
            if not self._open[name]:
                del self._open[name]


def _caller(facts: certificate.Facts, member: pb.MemberRecord) -> rules.Caller:
    return rules.Caller(
        identity=facts.identity,
        namespaces=list(member.namespaces),
        key_digest=facts.key_digest,
        node_name=member.node_name,
    )


async def _checked(requests: AsyncIterator[Any], told: Told, check: Callable[[Any], None]) -> AsyncIterator[Any]:
    """The messages of a stream, each looked at before the handler sees it."""
    async for request in requests:
        told.goes_on(request)  # before the check: what is refused is told with what it was about
        check(request)
        yield request


def _facts(context: answering.Context) -> certificate.Facts:
    """What the certificate of a connection says. Raises Unidentified."""
    try:
        return credentials.caller(context.auth_context())
    except Malformed as error:
        raise errors.Unidentified(f"whoever calls is no member: {error}", hint="join the cluster") from error
