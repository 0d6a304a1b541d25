"""MQTT-SN 1.2 as the tests write and read it, from the specification alone: the messages, and an endpoint on a socket.
Builders check nothing, so that a test can send what no client would; what comes from the gateway is read strictly."""

from __future__ import annotations

import itertools
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Any

Address = tuple[str, int]

# §5.2.2
ADVERTISE, SEARCHGW, GWINFO = 0x00, 0x01, 0x02
CONNECT, CONNACK, WILLTOPICREQ, WILLTOPIC, WILLMSGREQ, WILLMSG = range(0x04, 0x0A)
REGISTER, REGACK, PUBLISH, PUBACK, PUBCOMP, PUBREC, PUBREL = range(0x0A, 0x11)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = range(0x12, 0x19)
WILLTOPICUPD, WILLTOPICRESP, WILLMSGUPD, WILLMSGRESP = range(0x1A, 0x1E)
ENCAPSULATED = 0xFE

NAMES = {value: name for name, value in list(globals().items()) if name.isupper()}
RESERVED = [kind for kind in range(256) if kind not in NAMES]

# §5.3.4
DUP, RETAIN, WILL, CLEAN = 0x80, 0x10, 0x08, 0x04
NORMAL, PREDEFINED, SHORT, RESERVED_TYPE = 0, 1, 2, 3
# §5.3.10
ACCEPTED, CONGESTION, INVALID_TOPIC_ID, NOT_SUPPORTED = range(4)


class Malformed(Exception):
    """The gateway sent what is no MQTT-SN message."""


class TimedOut(Exception):
    """Nothing arrived before the deadline."""


def frame(kind: int, body: bytes = b"", long: bool = False) -> bytes:
    """One message; `long` writes three octets of length where one would do."""
    if long or len(body) + 2 > 255:
        return b"\x01" + struct.pack(">HB", len(body) + 4, kind) + body
    return bytes([len(body) + 2, kind]) + body


def flags(
    qos: int = 0, topic_type: int = NORMAL, dup: bool = False, retain: bool = False, will: bool = False,
    clean: bool = False,
) -> int:  # fmt: skip
    bits = (qos & 3) << 5 | topic_type
    return bits | (DUP if dup else 0) | (RETAIN if retain else 0) | (WILL if will else 0) | (CLEAN if clean else 0)


def _text(value: str | bytes) -> bytes:
    return value.encode("utf-8") if isinstance(value, str) else value


def _topic(value: int | str | bytes) -> bytes:
    """A topic id, or the two octets of a short name."""
    return struct.pack(">H", value) if isinstance(value, int) else _text(value)


def searchgw(radius: int = 0) -> bytes:
    return frame(SEARCHGW, bytes([radius]))


def connect(
    client_id: str | bytes = "", clean: bool = True, will: bool = False, duration: int = 60, protocol: int = 1,
    bits: int | None = None,
) -> bytes:  # fmt: skip
    first = flags(will=will, clean=clean) if bits is None else bits
    return frame(CONNECT, struct.pack(">BBH", first, protocol, duration) + _text(client_id))


def willtopic(topic: str | bytes | None, qos: int = 0, retain: bool = False, kind: int = WILLTOPIC) -> bytes:
    """`None` is the empty message, which deletes the Will."""
    return frame(kind, b"" if topic is None else bytes([flags(qos, retain=retain)]) + _text(topic))


def willmsg(message: bytes, kind: int = WILLMSG) -> bytes:
    return frame(kind, message)


def register(topic: str | bytes, msg_id: int = 1, topic_id: int = 0) -> bytes:
    return frame(REGISTER, struct.pack(">HH", topic_id, msg_id) + _text(topic))


def regack(topic_id: int, msg_id: int, code: int = ACCEPTED) -> bytes:
    return frame(REGACK, struct.pack(">HHB", topic_id, msg_id, code))


def publish(
    topic: int | str | bytes, payload: bytes = b"", qos: int = 0, msg_id: int = 0, topic_type: int | None = None,
    retain: bool = False, dup: bool = False, bits: int | None = None,
) -> bytes:  # fmt: skip
    """`topic` is an id (normal unless said otherwise) or a name of two octets."""
    if topic_type is None:
        topic_type = NORMAL if isinstance(topic, int) else SHORT
    first = flags(qos, topic_type, dup, retain) if bits is None else bits
    return frame(PUBLISH, bytes([first]) + _topic(topic) + struct.pack(">H", msg_id) + payload)


def puback(topic_id: int, msg_id: int, code: int = ACCEPTED) -> bytes:
    return frame(PUBACK, struct.pack(">HHB", topic_id, msg_id, code))


def ack(kind: int, msg_id: int) -> bytes:
    """PUBREC, PUBREL, PUBCOMP."""
    return frame(kind, struct.pack(">H", msg_id))


def subscribe(
    topic: int | str | bytes, qos: int = 0, msg_id: int = 1, topic_type: int | None = None, dup: bool = False,
    kind: int = SUBSCRIBE, bits: int | None = None,
) -> bytes:  # fmt: skip
    """`topic` is a predefined id, or a name: one of two octets is sent as short name unless said otherwise."""
    if topic_type is None:
        topic_type = PREDEFINED if isinstance(topic, int) else SHORT if len(_text(topic)) == 2 else NORMAL
    first = flags(qos, topic_type, dup) if bits is None else bits
    return frame(kind, struct.pack(">BH", first, msg_id) + _topic(topic))


def unsubscribe(topic: int | str | bytes, msg_id: int = 1, topic_type: int | None = None) -> bytes:
    return subscribe(topic, 0, msg_id, topic_type, kind=UNSUBSCRIBE)


def pingreq(client_id: str | bytes = b"") -> bytes:
    return frame(PINGREQ, _text(client_id))


def disconnect(duration: int | None = None) -> bytes:
    return frame(DISCONNECT, b"" if duration is None else struct.pack(">H", duration))


def encapsulate(node: bytes, message: bytes, radius: int = 0) -> bytes:
    """§5.5: the length covers the head only."""
    return bytes([len(node) + 3, ENCAPSULATED, radius]) + node + message


@dataclass
class Message:
    """A message from the gateway; `node` is the wireless node id it was encapsulated with."""

    kind: int
    bits: int = 0
    topic_id: int = 0
    msg_id: int = 0
    code: int = 0
    payload: bytes = b""
    name: str = ""
    duration: int | None = None
    gateway: int = 0
    radius: int | None = None
    node: bytes | None = None
    raw: bytes = field(default=b"", repr=False)

    @property
    def qos(self) -> int:
        return self.bits >> 5 & 3

    @property
    def dup(self) -> bool:
        return bool(self.bits & DUP)

    @property
    def retain(self) -> bool:
        return bool(self.bits & RETAIN)

    @property
    def topic_type(self) -> int:
        return self.bits & 3

    @property
    def short(self) -> str:
        """The short topic name in the place of the id."""
        return struct.pack(">H", self.topic_id).decode("utf-8")

    def __str__(self) -> str:
        return f"{NAMES.get(self.kind, hex(self.kind))} {self.raw.hex(' ')}"


_FIXED = {
    CONNACK: "code", WILLTOPICRESP: "code", WILLMSGRESP: "code", REGACK: "topic_id msg_id code",
    PUBACK: "topic_id msg_id code", PUBREC: "msg_id", PUBREL: "msg_id", PUBCOMP: "msg_id",
    SUBACK: "bits topic_id msg_id code", UNSUBACK: "msg_id", WILLTOPICREQ: "", WILLMSGREQ: "", PINGRESP: "",
    PINGREQ: "", ADVERTISE: "gateway duration",
}  # fmt: skip
_WIDTH = {"code": "B", "bits": "B", "topic_id": "H", "msg_id": "H", "gateway": "B", "duration": "H"}


def decode(datagram: bytes) -> Message:
    """A datagram of the gateway, which has to be exactly one message that a gateway may send, or one encapsulated."""
    if len(datagram) >= 3 and datagram[1] == ENCAPSULATED and datagram[0] != 1:
        head = datagram[0]
        if not 3 <= head < len(datagram):
            raise Malformed(f"encapsulation of {head} octets in {datagram.hex(' ')}")
        inner = decode(datagram[head:])
        if inner.node is not None:
            raise Malformed(f"encapsulated twice: {datagram.hex(' ')}")
        inner.node, inner.radius = datagram[3:head], datagram[2]
        return inner
    if len(datagram) >= 4 and datagram[0] == 1:
        length, kind, body = struct.unpack(">H", datagram[1:3])[0], datagram[3], datagram[4:]
        if length <= 255:
            raise Malformed(f"three octets of length for {length}: {datagram[:8].hex(' ')}")
    elif len(datagram) >= 2:
        length, kind, body = datagram[0], datagram[1], datagram[2:]
    else:
        raise Malformed(datagram.hex(" "))
    if length != len(datagram):
        raise Malformed(f"length {length} in {len(datagram)} octets: {datagram[:16].hex(' ')}")
    try:
        found = _body(kind, body)
    except (struct.error, UnicodeDecodeError) as error:
        raise Malformed(f"{error}: {datagram.hex(' ')}") from None
    found.raw = datagram
    return found


def _body(kind: int, body: bytes) -> Message:
    found = Message(kind)
    if kind in _FIXED:
        names = _FIXED[kind].split()
        values = struct.unpack(">" + "".join(_WIDTH[name] for name in names), body)
        for name, value in zip(names, values, strict=True):
            setattr(found, name, value)
    elif kind == GWINFO:
        # A gateway sends no address of a gateway (§5.4.3).
        (found.gateway,) = struct.unpack(">B", body)
    elif kind == REGISTER:
        found.topic_id, found.msg_id = struct.unpack(">HH", body[:4])
        found.name = body[4:].decode("utf-8")
    elif kind == PUBLISH:
        found.bits, found.topic_id, found.msg_id = struct.unpack(">BHH", body[:5])
        found.payload = body[5:]
        if found.bits & (WILL | CLEAN) or found.topic_type == RESERVED_TYPE or found.qos == 3:
            raise Malformed(f"PUBLISH with flags {found.bits:#x}")
    elif kind == DISCONNECT:
        # Only a client says for how long it sleeps (§5.4.21).
        struct.unpack("", body)
    else:
        raise Malformed(f"{NAMES.get(kind, hex(kind))} from a gateway")
    return found


SECONDS = 5.0
"""Longest wait for an answer that has to come at once."""


class Endpoint:
    """A UDP socket, or what has its methods, that speaks to one gateway, message by message; behind a forwarder if
    `node` is given."""

    def __init__(
        self, gateway: Address, node: bytes | None = None, host: str = "127.0.0.1", stream: Any = None
    ) -> None:
        self.gateway, self.node = gateway, node
        if stream is None:
            stream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            stream.bind((host, 0))
        self.socket = stream
        self.backlog: list[Message] = []
        self._ids = itertools.count(1)

    @property
    def address(self) -> Address:
        return self.socket.getsockname()

    def next_id(self) -> int:
        return next(self._ids) % 65535 or next(self._ids) % 65535

    def send(self, *messages: bytes) -> None:
        for message in messages:
            data = message if self.node is None else encapsulate(self.node, message)
            self.socket.sendto(data, self.gateway)

    def receive(self, seconds: float = SECONDS) -> Message:
        """The next message."""
        return self.backlog.pop(0) if self.backlog else self._receive(seconds)

    def _receive(self, seconds: float) -> Message:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                datagram, sender = self.socket.recvfrom(1 << 16)
            except TimeoutError:
                break
            except ConnectionRefusedError:
                continue
            if sender != self.gateway:
                # Of another test's gateway, which knew this port as that of another sensor.
                continue
            found = decode(datagram)
            if found.node != self.node:
                raise Malformed(f"for node {found.node!r}, not {self.node!r}: {datagram.hex(' ')}")
            return found
        raise TimedOut("no message before the deadline")

    def expect(self, kind: int, seconds: float = SECONDS) -> Message:
        found = self.receive(seconds)
        assert found.kind == kind, f"awaited {NAMES[kind]}, got {found}"
        return found

    def settle(self, kinds: tuple[int, ...] = ()) -> list[Message]:
        """A round trip of a connected client; what came before its answer. Replaces waiting for silence."""
        self.send(pingreq())
        out: list[Message] = []
        while (found := self.receive()).kind != PINGRESP:
            out.append(found)
        return [found for found in out if not kinds or found.kind in kinds]

    def close(self) -> None:
        self.socket.close()
