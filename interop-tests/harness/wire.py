"""MQTT 3.1, 3.1.1 and 5.0 frames as the tests write and read them. Written from the specifications; builders check
nothing, so that a test can send what no client library would."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from dataclasses import dataclass, field
from typing import Any

CONNECT, CONNACK, PUBLISH, PUBACK, PUBREC, PUBREL, PUBCOMP = range(1, 8)
SUBSCRIBE, SUBACK, UNSUBSCRIBE, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT, AUTH = range(8, 16)
NAMES = (
    "reserved CONNECT CONNACK PUBLISH PUBACK PUBREC PUBREL PUBCOMP SUBSCRIBE SUBACK UNSUBSCRIBE UNSUBACK "
    "PINGREQ PINGRESP DISCONNECT AUTH"
).split()
V31, V311, V5 = 3, 4, 5
VERSIONS = (V31, V311, V5)

# Property identifiers, MQTT 5 §2.2.2.2.
PAYLOAD_FORMAT, MESSAGE_EXPIRY, CONTENT_TYPE, RESPONSE_TOPIC, CORRELATION = 0x01, 0x02, 0x03, 0x08, 0x09
SUBSCRIPTION_ID, SESSION_EXPIRY, ASSIGNED_ID, SERVER_KEEP_ALIVE = 0x0B, 0x11, 0x12, 0x13
AUTH_METHOD, AUTH_DATA, REQUEST_PROBLEM, WILL_DELAY, REQUEST_RESPONSE = 0x15, 0x16, 0x17, 0x18, 0x19
RESPONSE_INFO, SERVER_REFERENCE, REASON_STRING, RECEIVE_MAXIMUM, TOPIC_ALIAS_MAXIMUM = 0x1A, 0x1C, 0x1F, 0x21, 0x22
TOPIC_ALIAS, MAXIMUM_QOS, RETAIN_AVAILABLE, USER_PROPERTY, MAXIMUM_PACKET = 0x23, 0x24, 0x25, 0x26, 0x27
WILDCARD_AVAILABLE, SUBSCRIPTION_ID_AVAILABLE, SHARED_AVAILABLE = 0x28, 0x29, 0x2A

_BYTE = {PAYLOAD_FORMAT, REQUEST_PROBLEM, REQUEST_RESPONSE, MAXIMUM_QOS, RETAIN_AVAILABLE}
_BYTE |= {WILDCARD_AVAILABLE, SUBSCRIPTION_ID_AVAILABLE, SHARED_AVAILABLE}
_TWO = {SERVER_KEEP_ALIVE, RECEIVE_MAXIMUM, TOPIC_ALIAS_MAXIMUM, TOPIC_ALIAS}
_FOUR = {MESSAGE_EXPIRY, SESSION_EXPIRY, WILL_DELAY, MAXIMUM_PACKET}
_BINARY = {CORRELATION, AUTH_DATA}
_STRING = {CONTENT_TYPE, RESPONSE_TOPIC, ASSIGNED_ID, AUTH_METHOD, RESPONSE_INFO, SERVER_REFERENCE, REASON_STRING}

Property = tuple[int, Any]


class Malformed(Exception):
    """The broker sent bytes that are no MQTT packet."""


class Closed(Exception):
    """The broker closed the connection where a packet was awaited."""


class TimedOut(Exception):
    """Nothing arrived before the deadline."""


def varint(value: int) -> bytes:
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | (0x80 if value else 0))
        if not value:
            return bytes(out)


def text(value: str | bytes) -> bytes:
    data = value.encode("utf-8") if isinstance(value, str) else value
    return struct.pack(">H", len(data)) + data


def one_property(ident: int, value: Any) -> bytes:
    head = varint(ident)
    if ident == USER_PROPERTY:
        return head + text(value[0]) + text(value[1])
    if ident == SUBSCRIPTION_ID:
        return head + varint(value)
    if ident in _BYTE:
        return head + bytes([value])
    if ident in _TWO:
        return head + struct.pack(">H", value)
    if ident in _FOUR:
        return head + struct.pack(">I", value)
    if ident in _BINARY or ident in _STRING:
        return head + text(value)
    raise ValueError(f"property {ident:#x}")


def properties(items: list[Property] | None) -> bytes:
    body = b"".join(one_property(ident, value) for ident, value in items or [])
    return varint(len(body)) + body


def packet(kind: int, flags: int, body: bytes) -> bytes:
    return bytes([kind << 4 | flags]) + varint(len(body)) + body


@dataclass
class Will:
    topic: str | bytes
    payload: bytes = b"gone"
    qos: int = 0
    retain: bool = False
    properties: list[Property] = field(default_factory=list)


def connect(
    version: int = V5,
    client_id: str | bytes = "",
    clean: bool = True,
    keep_alive: int = 0,
    will: Will | None = None,
    username: str | bytes | None = None,
    password: bytes | None = None,
    props: list[Property] | None = None,
    *,
    name: str | bytes | None = None,
    level: int | None = None,
    flags: int | None = None,
    tail: bytes = b"",
) -> bytes:
    bits = 0x02 if clean else 0
    if will:
        bits |= 0x04 | will.qos << 3 | (0x20 if will.retain else 0)
    bits |= (0x80 if username is not None else 0) | (0x40 if password is not None else 0)
    body = text(name if name is not None else ("MQIsdp" if version == V31 else "MQTT"))
    body += bytes([version if level is None else level, bits if flags is None else flags])
    body += struct.pack(">H", keep_alive)
    if version == V5:
        body += properties(props)
    body += text(client_id)
    if will:
        if version == V5:
            body += properties(will.properties)
        body += text(will.topic) + text(will.payload)
    if username is not None:
        body += text(username)
    if password is not None:
        body += text(password)
    return packet(CONNECT, 0, body + tail)


def publish(
    version: int,
    topic: str | bytes,
    payload: bytes = b"",
    qos: int = 0,
    pid: int = 1,
    retain: bool = False,
    dup: bool = False,
    props: list[Property] | None = None,
) -> bytes:
    body = text(topic)
    if qos:
        body += struct.pack(">H", pid)
    if version == V5:
        body += properties(props)
    return packet(PUBLISH, (8 if dup else 0) | qos << 1 | int(retain), body + payload)


def ack(kind: int, pid: int, code: int | None = None, props: list[Property] | None = None) -> bytes:
    body = struct.pack(">H", pid)
    if code is not None:
        body += bytes([code])
    if props is not None:
        body += properties(props)
    return packet(kind, 2 if kind == PUBREL else 0, body)


def subscribe(
    version: int, filters: list[tuple[str | bytes, int]], pid: int = 1, props: list[Property] | None = None
) -> bytes:
    body = struct.pack(">H", pid) + (properties(props) if version == V5 else b"")
    for name, options in filters:
        body += text(name) + bytes([options])
    return packet(SUBSCRIBE, 2, body)


def unsubscribe(version: int, filters: list[str | bytes], pid: int = 1, props: list[Property] | None = None) -> bytes:
    body = struct.pack(">H", pid) + (properties(props) if version == V5 else b"")
    return packet(UNSUBSCRIBE, 2, body + b"".join(text(name) for name in filters))


def disconnect(code: int | None = None, props: list[Property] | None = None) -> bytes:
    body = b"" if code is None else bytes([code]) + (properties(props) if props is not None else b"")
    return packet(DISCONNECT, 0, body)


def auth(code: int, props: list[Property] | None = None) -> bytes:
    return packet(AUTH, 0, bytes([code]) + properties(props))


PINGREQ_BYTES = packet(PINGREQ, 0, b"")


@dataclass
class Packet:
    """A packet from the broker. `code` is the reason or return code, `codes` those of SUBACK and UNSUBACK."""

    kind: int
    flags: int
    body: bytes
    pid: int = 0
    code: int = 0
    codes: list[int] = field(default_factory=list)
    session_present: bool = False
    topic: str = ""
    payload: bytes = b""
    props: list[Property] = field(default_factory=list)
    wire_bytes: int = 0

    @property
    def qos(self) -> int:
        return self.flags >> 1 & 3

    @property
    def retain(self) -> bool:
        return bool(self.flags & 1)

    @property
    def dup(self) -> bool:
        return bool(self.flags & 8)

    def get(self, ident: int, default: Any = None) -> Any:
        return next((value for found, value in self.props if found == ident), default)

    def all(self, ident: int) -> list[Any]:
        return [value for found, value in self.props if found == ident]

    def __str__(self) -> str:
        parts = [NAMES[self.kind]]
        if self.kind == PUBLISH:
            parts.append(f"{self.topic!r} qos={self.qos} pid={self.pid} dup={self.dup} retain={self.retain}")
            parts.append(repr(self.payload[:40]))
        else:
            parts.append(f"pid={self.pid} code={self.code:#x} codes={[hex(code) for code in self.codes]}")
        return " ".join([*parts, str(self.props)])


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise Malformed(f"truncated at {self.at} of {self.data[:80]!r}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def varint(self) -> int:
        value, shift = 0, 0
        while True:
            digit = self.number(1)
            value |= (digit & 127) << shift
            shift += 7
            if not digit & 128:
                return value

    def blob(self) -> bytes:
        return self.take(self.number(2))

    def text(self) -> str:
        return self.blob().decode("utf-8")

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)

    def more(self) -> bool:
        return self.at < len(self.data)

    def properties(self) -> list[Property]:
        inner, out = _Reader(self.take(self.varint())), []
        while inner.more():
            ident = inner.varint()
            value: Any
            if ident == USER_PROPERTY:
                value = (inner.text(), inner.text())
            elif ident == SUBSCRIPTION_ID:
                value = inner.varint()
            elif ident in _BYTE:
                value = inner.number(1)
            elif ident in _TWO:
                value = inner.number(2)
            elif ident in _FOUR:
                value = inner.number(4)
            elif ident in _BINARY:
                value = inner.blob()
            elif ident in _STRING:
                value = inner.text()
            else:
                raise Malformed(f"property {ident:#x}")
            out.append((ident, value))
        return out


def decode(version: int, first: int, body: bytes) -> Packet:
    found = Packet(first >> 4, first & 15, body)
    reader, five = _Reader(body), version == V5
    if found.kind == CONNACK:
        found.session_present, found.code = bool(reader.number(1) & 1), reader.number(1)
        # A server that refuses a level that it does not know may answer in either form.
        found.props = reader.properties() if reader.more() and (five or found.code >= 0x80) else []
    elif found.kind == PUBLISH:
        found.topic = reader.text()
        found.pid = reader.number(2) if found.qos else 0
        found.props = reader.properties() if five else []
        found.payload = reader.rest()
    elif found.kind in (PUBACK, PUBREC, PUBREL, PUBCOMP):
        found.pid = reader.number(2)
        found.code = reader.number(1) if reader.more() else 0
        found.props = reader.properties() if reader.more() else []
    elif found.kind in (SUBACK, UNSUBACK):
        found.pid = reader.number(2)
        found.props = reader.properties() if five else []
        found.codes = list(reader.rest())
    elif found.kind in (DISCONNECT, AUTH):
        found.code = reader.number(1) if reader.more() else 0
        found.props = reader.properties() if reader.more() else []
    if reader.more():
        raise Malformed(f"{len(body) - reader.at} bytes behind {found}")
    return found


SECONDS = 5.0
"""Longest wait for an answer that has to come at once."""


class Link:
    """One connection of a test, over any byte stream with the socket's methods."""

    def __init__(
        self, address: tuple[str, int], version: int = V5, tls: ssl.SSLContext | None = None, stream: Any = None
    ) -> None:
        self.version, self.buffer, self.closed = version, bytearray(), False
        self.backlog: list[Packet] = []
        if stream is None:
            stream = socket.create_connection(address, timeout=SECONDS)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls is not None:
                stream = tls.wrap_socket(stream, server_hostname="localhost")
        self.socket = stream
        self.last_pid = 0

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self.drop()

    def send(self, *data: bytes) -> Link:
        self.socket.settimeout(SECONDS * 4)
        self.socket.sendall(b"".join(data))
        return self

    def send_hostile(self, data: bytes) -> Link:
        """Sends what the broker may refuse before all of it is written."""
        try:
            self.send(data)
        except OSError:
            pass
        return self

    def _fill(self, count: int, deadline: float) -> None:
        while len(self.buffer) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOut("no packet before the deadline")
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 18)
            except (TimeoutError, ssl.SSLWantReadError):
                continue
            except OSError:
                data = b""
            if not data:
                self.closed = True
                raise Closed("closed by the broker")
            self.buffer += data

    def receive(self, seconds: float = SECONDS) -> Packet:
        """The next packet."""
        return self.backlog.pop(0) if self.backlog else self._receive(seconds)

    def _receive(self, seconds: float) -> Packet:
        deadline = time.monotonic() + seconds
        at, length, shift = 1, 0, 0
        while True:
            self._fill(at + 1, deadline)
            digit = self.buffer[at]
            length |= (digit & 127) << shift
            at, shift = at + 1, shift + 7
            if not digit & 128:
                break
            if at > 4:
                raise Malformed("remaining length of more than four bytes")
        self._fill(at + length, deadline)
        first, body = self.buffer[0], bytes(self.buffer[at : at + length])
        del self.buffer[: at + length]
        found = decode(self.version, first, body)
        found.wire_bytes = at + length
        return found

    def expect(self, kind: int, seconds: float = SECONDS) -> Packet:
        found = self.receive(seconds)
        assert found.kind == kind, f"awaited {NAMES[kind]}, got {found}"
        return found

    def expect_closed(self, seconds: float = SECONDS) -> None:
        try:
            found = self.receive(seconds)
        except Closed:
            return
        raise AssertionError(f"awaited the end of the connection, got {found}")

    def until_closed(self, seconds: float = SECONDS) -> list[Packet]:
        """Everything up to the end of the connection, which has to come."""
        out: list[Packet] = []
        while True:
            try:
                out.append(self.receive(seconds))
            except Closed:
                return out

    def connect(self, client_id: str = "", **options: Any) -> Packet:
        """CONNECT, which has to be accepted."""
        self.send(connect(self.version, client_id, **options))
        found = self.expect(CONNACK)
        assert found.code == 0, f"refused: {found}"
        return found

    def next_pid(self) -> int:
        self.last_pid = self.last_pid % 65535 + 1
        return self.last_pid

    def subscribe(self, *filters: tuple[str, int], props: list[Property] | None = None) -> Packet:
        pid = self.next_pid()
        self.send(subscribe(self.version, list(filters), pid, props))
        found = self.expect(SUBACK)
        assert found.pid == pid, found
        return found

    def publish(self, topic: str, payload: bytes = b"", qos: int = 0, **options: Any) -> int:
        """A whole publication: returns the reason code of its acknowledgement (0 for QoS 0).

        The acknowledgements have to be the next packets.
        """
        pid = self.next_pid() if qos else 0
        self.send(publish(self.version, topic, payload, qos, pid, **options))
        if qos == 0:
            return 0
        found = self.expect(PUBACK if qos == 1 else PUBREC)
        assert found.pid == pid, found
        if qos == 2 and found.code < 0x80:
            self.send(ack(PUBREL, pid))
            assert self.expect(PUBCOMP).pid == pid
        return found.code

    def acknowledge(self, message: Packet) -> None:
        """Answers a PUBLISH as its QoS asks, to the end. What comes before PUBREL is kept for `receive`."""
        if message.qos == 1:
            self.send(ack(PUBACK, message.pid))
        elif message.qos == 2:
            self.send(ack(PUBREC, message.pid))
            while True:
                found = self._receive(SECONDS)
                if (found.kind, found.pid) == (PUBREL, message.pid):
                    break
                self.backlog.append(found)
            self.send(ack(PUBCOMP, message.pid))

    def take(self, seconds: float = SECONDS) -> Packet:
        """The next packet, which has to be a PUBLISH; it is acknowledged."""
        found = self.expect(PUBLISH, seconds)
        self.acknowledge(found)
        return found

    def ping(self) -> None:
        """PINGREQ, whose answer has to be the next packet."""
        self.send(PINGREQ_BYTES)
        self.expect(PINGRESP)

    def settle(self) -> list[Packet]:
        """A round trip through the client's session; returns what came before its answer. Replaces waiting for silence."""
        pid = 65_535
        self.send(unsubscribe(self.version, ["no/such/subscription"], pid))
        out = []
        while True:
            found = self.receive()
            if found.kind == UNSUBACK and found.pid == pid:
                return out
            out.append(found)

    def drop(self) -> None:
        """Ends the connection without DISCONNECT."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()

    def leave(self, code: int | None = None, props: list[Property] | None = None) -> None:
        """DISCONNECT, then waits for the broker to close."""
        self.send(disconnect(code, props))
        self.until_closed()
        self.socket.close()
