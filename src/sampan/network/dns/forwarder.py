"""Names of others: asked of upstream servers, checked, kept for as long as they may be."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from sampan.network.dns import message as dns
from sampan.network.dns import names
from sampan.network.dns.config import Config, Server
from sampan.network.dns.message import Edns, Malformed, Message, Question, Record

Opener = Callable[[int, int], Awaitable[socket.socket]]  # family, type -> a non-blocking socket

_TRY, _WHOLE = 1.5, 4.5  # seconds: one exchange, one query; a client's own patience is 5
_LONGEST, _LONGEST_NEGATIVE, _FAILURE = 3600, 300, 1  # seconds an answer is kept at most
_ENTRIES = 4096
_AT_ONCE = 512
_AVOIDED = 10.0  # seconds a server that did not answer is asked last
_ALIASES = 16
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Kept:
    at: float
    until: float
    message: Message


class Forwarder:
    """open_socket: makes sockets where upstream servers can be reached. now: monotonic seconds.
    rng: must not be predictable outside of tests."""

    def __init__(
        self, open_socket: Opener, *, now: Callable[[], float], rng: random.Random
    ) -> None:
        self.config = Config()
        self._open = open_socket
        self._now = now
        self._rng = rng
        self._kept: OrderedDict[tuple[bytes, int], _Kept] = OrderedDict()
        self._flying: dict[tuple[bytes, int], asyncio.Task[Message | None]] = {}
        self._avoid: dict[Server, float] = {}

    def configure(self, config: Config) -> None:
        self.config = config
        self._kept.clear()
        self._avoid.clear()

    async def stop(self) -> None:
        tasks = [*self._flying.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def resolve(self, name: bytes, kind: int) -> Message | None:
        """rcode, answers and (of negative answers) the SOA, with the time they may still be kept,
        for *name* in the caller's case. None: no server answered, or too much is asked at once."""
        key = (name.lower(), kind)
        kept = self._fresh(key)
        if kept is None:
            task = self._flying.get(key)
            if task is None:
                if len(self._flying) >= _AT_ONCE:
                    return None
                task = asyncio.create_task(self._ask(key), name="dns forward")
                self._flying[key] = task
                task.add_done_callback(lambda _t: self._flying.pop(key, None))
            found = await asyncio.shield(task)
            if found is None:
                return None
            kept = _Kept(0, 0, found)
            age = 0
        else:
            age = int(self._now() - kept.at)
        return _aged(kept.message, name, age)

    def _fresh(self, key: tuple[bytes, int]) -> _Kept | None:
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.until <= self._now():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return kept

    async def _ask(self, key: tuple[bytes, int]) -> Message | None:
        servers = self.config.servers(key[0])
        now = self._now()
        servers = tuple(sorted(servers, key=lambda s: self._avoid.get(s, 0) > now))
        found: Message | None = None
        try:
            async with asyncio.timeout(_WHOLE):
                for server in servers:
                    answer = await self._exchange(server, key)
                    if answer is None:
                        self._avoid[server] = self._now() + _AVOIDED
                        continue
                    self._avoid.pop(server, None)
                    found = answer
                    if answer.rcode in (dns.NOERROR, dns.NXDOMAIN):
                        break
        except TimeoutError:
            log.debug("no upstream answered in time for %s", names.text(key[0]))
        if found is None:
            return None
        if found.rcode not in (dns.NOERROR, dns.NXDOMAIN):
            found = Message(0, rcode=dns.SERVFAIL)
        found = _relevant(found, *key)
        self._keep(key, found)
        return found

    def _keep(self, key: tuple[bytes, int], found: Message) -> None:
        seconds = _lifetime(found, key[1])
        if seconds <= 0:
            return
        now = self._now()
        self._kept[key] = _Kept(now, now + seconds, found)
        while len(self._kept) > _ENTRIES:
            self._kept.popitem(last=False)

    # -- one server -----------------------------------------------------------------------------

    async def _exchange(self, server: Server, key: tuple[bytes, int]) -> Message | None:
        """Its answer, by UDP and where that is not enough by TCP; None: none in time."""
        try:
            async with asyncio.timeout(_TRY):
                found = await self._datagram(server, key, edns=True)
                if found is not None and found.rcode == dns.FORMERR:
                    found = await self._datagram(server, key, edns=False)
                if found is None or found.flags & dns.TC:
                    found = await self._stream(server, key)
                return found
        except (TimeoutError, OSError, EOFError) as e:
            log.debug("upstream %s: %s", server[0], e or "no answer in time")
            return None

    def _query(self, key: tuple[bytes, int], *, edns: bool) -> Message:
        """With a random id, and letters in random case: an answer that has guessed both, and the
        port, is the server's own."""
        name = bytearray(key[0])
        for i, byte in enumerate(name):
            if 97 <= byte <= 122 and self._rng.getrandbits(1):
                name[i] = byte - 32
        question = Question(bytes(name), key[1])
        opt = Edns(dns.UDP_SIZE) if edns else None
        return Message(self._rng.getrandbits(16), dns.RD, questions=(question,), edns=opt)

    async def _datagram(
        self, server: Server, key: tuple[bytes, int], *, edns: bool
    ) -> Message | None:
        """None: an answer that does not repeat the case; TCP, which nobody can forge, decides."""
        loop = asyncio.get_running_loop()
        sock = await self._open(_family(server), socket.SOCK_DGRAM)
        try:
            query = self._query(key, edns=edns)
            sock.connect(server)
            sock.send(dns.encode(query))
            while True:
                answer = _answers(query, await loop.sock_recv(sock, 65535))
                if answer is None:
                    continue
                if answer.questions and answer.questions != query.questions:
                    return None
                return answer
        finally:
            sock.close()

    async def _stream(self, server: Server, key: tuple[bytes, int]) -> Message | None:
        loop = asyncio.get_running_loop()
        sock = await self._open(_family(server), socket.SOCK_STREAM)
        try:
            query = self._query(key, edns=True)
            await loop.sock_connect(sock, server)
            packet = dns.encode(query)
            await loop.sock_sendall(sock, len(packet).to_bytes(2, "big") + packet)
            size = int.from_bytes(await _exactly(sock, 2), "big")
            return _answers(query, await _exactly(sock, size))
        finally:
            sock.close()


def _family(server: Server) -> int:
    return socket.AF_INET6 if ":" in server[0] else socket.AF_INET


async def _exactly(sock: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < size:
        part = await loop.sock_recv(sock, size - len(data))
        if not part:
            raise EOFError("the server closed the connection")
        data += part
    return data


def _answers(query: Message, packet: bytes) -> Message | None:
    """The message where it answers *query* (whatever the case of its question); None: it is
    somebody else's, or garbage. A FORMERR may come without the question."""
    try:
        answer = dns.parse(packet)
    except Malformed:
        return None
    if answer.id != query.id or not answer.flags & dns.QR or answer.flags & dns.OPCODE:
        return None
    if not answer.questions and answer.rcode == dns.FORMERR:
        return answer
    folded = [(q.name.lower(), q.type, q.klass) for q in answer.questions]
    asked = query.questions[0]
    return answer if folded == [(asked.name.lower(), asked.type, asked.klass)] else None


def _relevant(found: Message, name: bytes, kind: int) -> Message:
    """Only what was asked for: the aliases from *name* on and the records at their end; of a
    negative answer the SOA of a zone above it."""
    chain = [name]
    answers: dict[Record, None] = {}
    for _ in range(_ALIASES):
        here = chain[-1]
        at = [r for r in found.answers if r.klass == dns.IN and r.name.lower() == here]
        wanted = [r for r in at if kind in (r.type, dns.ANY)]
        answers.update(dict.fromkeys(wanted))
        alias = next((r for r in at if r.type == dns.CNAME), None)
        if wanted or alias is None or alias.data.lower() in chain:
            break
        answers[alias] = None
        chain.append(alias.data.lower())
    negative = not any(kind in (r.type, dns.ANY) for r in answers)
    soa = [
        r for r in found.authorities
        if r.type == dns.SOA and r.klass == dns.IN
        and names.is_below(chain[-1], r.name.lower())
    ]  # fmt: skip
    return Message(
        0, rcode=found.rcode, answers=tuple(answers), authorities=tuple(soa[:1] if negative else ())
    )


def _lifetime(found: Message, kind: int) -> int:
    """Seconds the answer may be kept (RFC 2308)."""
    if found.rcode not in (dns.NOERROR, dns.NXDOMAIN):
        return _FAILURE
    ttls = [r.ttl for r in found.answers if r.ttl < 1 << 31]
    if any(kind in (r.type, dns.ANY) for r in found.answers) and found.rcode == dns.NOERROR:
        return min([*ttls, _LONGEST])
    if not found.authorities:
        return 0
    soa = found.authorities[0]
    return min([*ttls, soa.ttl, int.from_bytes(soa.data[-4:], "big"), _LONGEST_NEGATIVE])


def _aged(found: Message, name: bytes, age: int) -> Message:
    """TTLs less *age*; the name as the caller wrote it."""
    lower = name.lower()

    def aged(records: tuple[Record, ...]) -> tuple[Record, ...]:
        return tuple(
            r._replace(
                ttl=max(0, min(r.ttl, _LONGEST) - age),
                name=name if r.name.lower() == lower else r.name,
            )
            for r in records
        )

    return replace(found, answers=aged(found.answers), authorities=aged(found.authorities))
