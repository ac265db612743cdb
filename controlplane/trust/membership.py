"""Lets machines and people in, renews what they have, makes tokens, and takes members out.

Two rules. What is stored comes before what is answered, and both come after everything was checked. An answer that is
lost costs nothing: the same key gets the same again. And a certificate takes a while to make, in which the cluster goes
on: what is written is decided anew by what is known when it is there.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence

import structlog

from controlplane.core import plan
from controlplane.core import request_errors as errors
from controlplane.core.trust import admission, over, rotation, store_rotation
from controlplane.store import errors as store_errors
from controlplane.store import etcd_members
from controlplane.trust import joiners, storeplace, tokenrecords
from controlplane.trust.registry import INSTANCES, Registry
from protos.orch.v1 import trust_pb2 as pb
from trust import errands
from trust.core import certificate, identity, lifetime, token
from trust.core.identity import PEOPLE, Identity, Malformed, Role
from trust.folder import Folder, NotTrusted

ATTEMPTS = 5
MAX_TOKENS = 200
WORKSHOPS = 2
"""Certificates that are made at a time, each in a process of its own: a thousand nodes may ask together."""
SEALING_KEY = "sealing.key"
STORE_IDENTITY, STORE_ROOTS = "store.pem", "store-roots.pem"
FOUNDING = "founding.bin"
"""The first records, until the first instance has written them into the store."""

_log = structlog.get_logger()


class Membership:
    """`folder` is this instance's own, with the sealing key; `members` are those of the store, where it is etcd."""

    def __init__(
        self,
        registry: Registry,
        folder: Folder,
        now_ms: Callable[[], int],
        members: etcd_members.Members | None = None,
    ) -> None:
        self._registry = registry
        self._folder = folder
        self._now_ms = now_ms
        self._store = joiners.Joiners(members, folder)
        self._at_work = asyncio.Semaphore(WORKSHOPS)

    # Certificates -----------------------------------------------------------------------------------------------------

    async def join(self, request: pb.JoinRequest) -> pb.JoinResponse:
        """Lets in whoever shows a token. Raises Forbidden, Invalid or NotNow."""
        said, digest = _read(request)
        for _ in range(ATTEMPTS):
            trust, asked_at = self._registry.trust, self._now_ms()
            # Before a process is started for it; and the certificate is for whom the token names.
            who = self._admitted(said, digest, request, asked_at).identity
            made = await self._issue(trust, who, request.certificate_request)
            admitted = self._admitted(said, digest, request, asked_at)
            if admitted.identity != who or not self._still_issues(trust):
                continue
            with contextlib.suppress(store_errors.Conflict):
                member = admission.with_key(admitted.member, _key(made, trust))
                await self._registry.commit(trust=admitted.trust, members=[member])
                _log.info("joined", member=member.name, role=said.role, token=member.token)
                return await self._answer(trust, who, made, request)
            await self._registry.catch_up()
        raise errors.Outdated("the cluster's members changed faster than this join", hint="try again")

    def _admitted(self, said: token.Token, digest: str, request: pb.JoinRequest, asked_at: int) -> admission.Admission:
        """Whether the token opens the door now, and to whom. Raises Forbidden, Invalid or NotNow."""
        trust, members = self._registry.trust, self._registry.members
        known = members.get(identity.member(said.role, request.name))
        asked = admission.Ask(
            said=said,
            name=request.name,
            node_name=request.node_name,
            key_digest=digest,
            known=known if said.role not in PEOPLE else members.get(self._person(said)),
            others=members.values() if said.role is not Role.CONTROLPLANE else (),
            asked_at=asked_at,
        )
        return admission.admit(trust, asked, self._now_ms())

    async def renew(self, who: Identity, used: str, request: pb.RenewRequest) -> pb.RenewResponse:
        """Another certificate for a member, for a key of their choice. `used`: the digest of the key they ask with."""
        _key_of(request.certificate_request)  # a process would be started for nothing
        for _ in range(ATTEMPTS):
            trust = self._registry.trust
            self._member(who)
            made = await self._issue(trust, who, request.certificate_request)
            member = self._member(who)
            if not self._still_issues(trust):
                continue
            with contextlib.suppress(store_errors.Conflict):
                key = _key(made, trust)
                # The answer may be lost. That matters to an exchange alone; else it is not worth another commit. An
                # instance renews by the store, whatever it has missed.
                key.unconfirmed = bool(trust.rotation) and who.role is not Role.CONTROLPLANE
                await self._registry.commit(members=[admission.with_key(member, key, used)])
                return pb.RenewResponse(certificate=made, roots=rotation.bundle(trust))
            await self._registry.catch_up()
        raise errors.Outdated(f"the record of {who} changed faster than this renewal", hint="try again")

    async def confirm(self, who: Identity, used: str) -> None:
        """The certificate for this key has come: whoever holds it calls with it. Raises Outdated."""
        await self._publish(who, lambda record: record.CopyFrom(admission.confirmed(record, used)))

    def _member(self, who: Identity) -> pb.MemberRecord:
        """The record of somebody who has called. Raises Forbidden."""
        member = self._registry.members.get(who.member)
        if member is None:
            raise errors.Forbidden(f"{who} was removed from this cluster meanwhile")
        return member

    def _still_issues(self, trust: pb.TrustRecord) -> bool:
        """Whether the root that a certificate was made with is the one that issues now."""
        return self._registry.trust.roots[0] == trust.roots[0]

    async def publish(self, who: Identity, address: str) -> None:
        """Has everybody know where an instance answers. One that was taken out meanwhile is not told of."""
        await self._publish(who, lambda record: setattr(record, "address", address))

    async def publish_store(self, who: Identity, standing: pb.StoreStanding) -> None:
        """Has everybody know how far an instance is with an exchange of the store's root."""
        await self._publish(who, lambda record: record.store.CopyFrom(standing))

    async def _publish(self, who: Identity, change: Callable[[pb.MemberRecord], None]) -> None:
        for _ in range(ATTEMPTS):
            member = self._registry.members.get(who.member)
            if member is None:
                return
            changed = plan.copy(member)
            change(changed)
            if changed == member:
                return
            with contextlib.suppress(store_errors.Conflict):
                await self._registry.commit(members=[changed])
                return
            await self._registry.catch_up()
        raise errors.Outdated(f"the record of {who} changed faster than this", hint="try again")

    async def _issue(self, trust: pb.TrustRecord, who: Identity, asked: str) -> str:
        """The certificate, and the one that leads from a new root to the one before it."""
        called = identity.SERVER_NAMES.get(who.role)
        wanted = errands.Wanted(
            cluster=trust.cluster,
            role=who.role,
            name=who.name,
            server=called is not None,
            alternatives=[called] if called is not None else [],
        )
        made = await self._made(asked, wanted, trust.roots[0])
        return made + trust.roots[0].cross_certificate

    async def _made(self, asked: str, wanted: errands.Wanted, root: pb.RootRecord) -> str:
        by = _root(self._registry.trust, root)
        try:
            async with self._at_work:
                return await errands.issue_async(asked, wanted, by, self._folder.read(SEALING_KEY), self._now_ms())
        except errands.NotMade as error:
            raise errors.Invalid(f"no certificate was made: {error}") from error
        except NotTrusted as error:
            raise errors.NotNow(f"this instance cannot issue certificates: {error}", hint="ask another one") from error

    async def _answer(
        self, trust: pb.TrustRecord, who: Identity, made: str, request: pb.JoinRequest
    ) -> pb.JoinResponse:
        answer = pb.JoinResponse(certificate=made, roots=rotation.bundle(trust))
        if who.role is Role.CONTROLPLANE:
            await self._answer_instance(who, answer, request)
        return answer

    async def _answer_instance(self, who: Identity, answer: pb.JoinResponse, request: pb.JoinRequest) -> None:
        """What an instance gets beside its certificate: it has what this one has, and a member of etcd of its own."""
        trust = self._registry.trust
        answer.sealing_key = self._folder.read(SEALING_KEY)
        if not trust.HasField("store_root"):
            answer.store_roots = self._folder.read(STORE_ROOTS).decode()
            answer.store_identity = self._folder.read(STORE_IDENTITY)
            answer.store_endpoints.extend(storeplace.load(self._folder).endpoints)
            return
        answer.store_roots = store_rotation.bundle(trust)
        answer.store_certificate = await self.store_certificate(request.certificate_request, who.name)
        if not self._store.manages:
            return
        member, endpoints = await self._store.admit(who.name, request.host)
        answer.member_name = member.name
        answer.member_cluster.update(member.cluster)
        answer.store_endpoints.extend(endpoints)
        answer.member_certificate = await self.store_certificate(request.member_request, member.name, member.hosts)

    async def store_certificate(self, asked: str, name: str, hosts: Sequence[str] = ()) -> str:
        """One of the store's root: for an instance, or for a member, which is asked for at its hosts."""
        trust = self._registry.trust
        wanted = errands.Wanted(
            cluster=trust.cluster,
            role=Role.CONTROLPLANE,
            name=name,
            server=bool(hosts),
            alternatives=hosts,
            lifetime_ms=lifetime.STORE_MS,
        )
        made = await self._made(asked, wanted, trust.store_root)
        return made + trust.store_root.cross_certificate

    def _person(self, said: token.Token) -> str:
        """The member that a person's token is for; nobody when there is no such token."""
        record = next((one for one in self._registry.trust.tokens if token.is_secret(said, one.digest)), None)
        return identity.member(said.role, record.person) if record is not None else ""

    # The root ---------------------------------------------------------------------------------------------------------

    async def rotate_root(self, request: pb.RotateRootRequest) -> pb.RotateRootResponse:
        """Begins an exchange, goes on with one, or tells how far it is. Raises NotNow while another is under way."""
        if request.begin:
            await self._begin_rotation()
        step, store = await self.advance_rotation(request.left_behind)
        trust = self._registry.trust
        return pb.RotateRootResponse(
            rotating=bool(trust.rotation),
            waiting_for=step.waiting_for,
            store=trust.store_rotation,
            store_waiting_for=store.waiting_for,
            left_behind=step.left_behind,
        )

    async def _begin_rotation(self) -> None:
        """Of both roots in one commit; of the cluster's alone where the store is somebody else's."""
        trust = self._registry.trust
        rotation.check_beginning(trust)
        store_rotation.check_beginning(trust)
        record, store_record = await self._successor(trust, trust.roots[0], "cluster"), None
        if trust.HasField("store_root") and self._store.manages:
            store_record = await self._successor(trust, trust.store_root, "store")
        now = self._registry.trust  # tokens were made and used meanwhile, or another has begun
        if (now.store_root, now.roots[0]) != (trust.store_root, trust.roots[0]):
            raise errors.Outdated("the roots have changed meanwhile", hint=rotation.LOOK)
        changed = rotation.begin(now, record)
        if store_record is not None:
            changed = store_rotation.begin(changed, store_record)
        try:
            await self._registry.commit(trust=changed)
        except store_errors.Conflict as error:
            raise errors.Outdated("the cluster's record has changed meanwhile", hint="try again") from error
        _log.warning("the root is being exchanged", new=rotation.pin(record)[:32], store=bool(changed.store_rotation))

    async def _successor(self, trust: pb.TrustRecord, old: pb.RootRecord, what: str) -> pb.RootRecord:
        """A new root, which the old one has signed across."""
        sealing_key, now_ms = self._folder.read(SEALING_KEY), self._now_ms()
        try:
            new = await asyncio.to_thread(errands.root, trust.cluster, f"{what} {now_ms}", sealing_key, now_ms)
            cross = await asyncio.to_thread(errands.cross, new, _root(trust, old), sealing_key, now_ms)
        except errands.NotMade as error:
            raise errors.NotNow(f"no new root was made: {error}") from error
        return pb.RootRecord(certificate=new.certificate, sealed_key=new.sealed_key, cross_certificate=cross)

    async def advance_rotation(self, left_behind: Collection[str] = ()) -> tuple[rotation.Step, rotation.Step]:
        """Goes on with the exchange of each root once nobody needs the old one. Any instance may do it, at any time.

        What was done with the cluster's root, and with the store's, or whom they wait for.
        """
        members = self._registry.members
        step = rotation.advance(self._registry.trust, members.values(), self._now_ms(), left_behind=left_behind)
        step = await self._go_on(step, "the old root is dropped, and every token with it")
        store = store_rotation.advance(self._registry.trust, members.values())
        return step, await self._go_on(store, "the exchange of the store's root goes on")

    async def _go_on(self, step: rotation.Step, what: str) -> rotation.Step:
        """What was done of it."""
        if step.next is None:
            return step
        try:
            await self._registry.commit(trust=step.next)
        except store_errors.Conflict:
            await self._registry.catch_up()  # another instance did it, or something else: look again then
            return rotation.Step()
        _log.warning(what)
        return step

    # Tokens -----------------------------------------------------------------------------------------------------------

    def tokens(self) -> Sequence[pb.TokenRecord]:
        """All of them, without what they are recognised by."""
        return [tokenrecords.shown(one) for one in self._registry.trust.tokens]

    async def create_token(self, request: pb.CreateTokenRequest, actor: str) -> pb.CreateTokenResponse:
        """Makes one. Raises Invalid or Unknown."""
        role = tokenrecords.role(request)
        for _ in range(ATTEMPTS):
            trust = plan.copy(self._registry.trust)
            if request.replaces:
                tokenrecords.without(trust, request.replaces)
            over.make_room(trust, MAX_TOKENS, self._now_ms())
            if len(trust.tokens) >= MAX_TOKENS:
                raise errors.Overloaded(f"there are {MAX_TOKENS} tokens already", hint="revoke those that nobody needs")
            made, record = tokenrecords.new(
                role, rotation.pin(trust.roots[0]), request, actor=actor, now_ms=self._now_ms()
            )
            trust.tokens.append(record)
            with contextlib.suppress(store_errors.Conflict):
                await self._registry.commit(trust=trust)
                return pb.CreateTokenResponse(token=str(made), record=tokenrecords.shown(record))
            await self._registry.catch_up()
        raise errors.Outdated("the tokens changed faster than this one was made", hint="try again")

    async def revoke_token(self, token_id: str) -> None:
        """Makes one worthless. Raises Unknown."""
        for _ in range(ATTEMPTS):
            trust = plan.copy(self._registry.trust)
            tokenrecords.without(trust, token_id)
            with contextlib.suppress(store_errors.Conflict):
                await self._registry.commit(trust=trust)
                return
            await self._registry.catch_up()
        raise errors.Outdated("the tokens changed faster than this one was revoked", hint="try again")

    async def revoke_member(self, name: str) -> None:
        """Takes a member out: its open calls end, and its certificates are worth nothing. Raises Unknown or NotNow."""
        if name not in self._registry.members:
            raise errors.Unknown(f"there is no member {name!r:.80}", hint="`orchctl cluster member ls` lists them")
        if name.startswith(INSTANCES) and self._registry.trust.HasField("store_root"):
            # First: a member that stays behind would count for the quorum.
            started = bool(self._registry.members[name].address)
            await self._store.dismiss(name.removeprefix(INSTANCES), started=started)
        for _ in range(ATTEMPTS):
            member = self._registry.members.get(name)
            if member is None:
                return
            stays = admission.other_admin(member, self._registry.members.values(), self._now_ms())
            with contextlib.suppress(store_errors.Conflict):
                await self._registry.remove(name, stays)
                return
            await self._registry.catch_up()
        raise errors.Outdated("the admins changed faster than this one was taken out", hint="try again")


def _key(made: str, trust: pb.TrustRecord) -> pb.MemberKey:
    """What is kept of a certificate that the first root of this record has issued."""
    facts = certificate.read(made.encode())
    return pb.MemberKey(digest=facts.key_digest, expires_at=facts.not_after_ms, root=rotation.pin(trust.roots[0]))


def _root(trust: pb.TrustRecord, root: pb.RootRecord) -> errands.Root:
    return errands.Root(certificate=root.certificate, sealed_key=root.sealed_key, about=trust.cluster)


def _read(request: pb.JoinRequest) -> tuple[token.Token, str]:
    """The token, and the digest of the key."""
    try:
        return token.parse(request.token), _key_of(request.certificate_request)
    except Malformed as error:
        raise errors.Invalid(str(error)) from error


def _key_of(request: str) -> str:
    """The digest of the key that a certificate is asked for. Raises Invalid."""
    try:
        return certificate.of_request(request)
    except Malformed as error:
        raise errors.Invalid(str(error)) from error
