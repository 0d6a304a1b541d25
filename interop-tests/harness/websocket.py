"""A WebSocket client of RFC 6455 that can also break its rules, and a byte stream over it for `wire.Link`."""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import ssl
import struct
import time

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
SECONDS = 5.0


class Refused(Exception):
    """The handshake was answered with another status than 101."""

    def __init__(self, status: int, head: str) -> None:
        super().__init__(f"status {status}: {head[:200]!r}")
        self.status, self.head = status, head


def frame(opcode: int, payload: bytes, fin: bool = True, mask: bool = True, reserved: int = 0) -> bytes:
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    bit, size = 0x80 if mask else 0, len(payload)
    if size < 126:
        head = bytes([first, bit | size])
    elif size < 1 << 16:
        head = struct.pack(">BBH", first, bit | 126, size)
    else:
        head = struct.pack(">BBQ", first, bit | 127, size)
    if not mask:
        return head + payload
    key = os.urandom(4)
    long_key = (key * (size // 4 + 1))[:size]
    masked = (int.from_bytes(payload, "big") ^ int.from_bytes(long_key, "big")).to_bytes(size, "big")
    return head + key + masked


class WebSocket:
    """One connection. `subprotocols`, `path`, `origin` and `headers` go into the handshake as given."""

    def __init__(
        self,
        address: tuple[str, int],
        subprotocols: str | None = "mqtt",
        path: str = "/mqtt",
        origin: str | None = None,
        tls: ssl.SSLContext | None = None,
        headers: dict[str, str | None] | None = None,
    ) -> None:
        self.socket: socket.socket = socket.create_connection(address, timeout=SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.buffer = bytearray()
        self.subprotocol: str | None = None
        key = base64.b64encode(os.urandom(16)).decode()
        fields: dict[str, str | None] = {
            "Host": f"{address[0]}:{address[1]}",
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Key": key,
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Protocol": subprotocols,
            "Origin": origin,
        }
        fields.update(headers or {})
        lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
        self.socket.sendall("\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode())
        try:
            self._handshake(key)
        except BaseException:
            self.socket.close()
            raise

    def _handshake(self, key: str) -> None:
        while b"\r\n\r\n" not in self.buffer:
            data = self.socket.recv(4096)
            if not data:
                raise Refused(0, self.buffer.decode("latin-1"))
            self.buffer += data
        end = self.buffer.index(b"\r\n\r\n") + 4
        head = self.buffer[:end].decode("latin-1")
        del self.buffer[:end]
        status = int(head.split(" ", 2)[1])
        if status != 101:
            raise Refused(status, head)
        answer = {}
        for line in head.split("\r\n")[1:]:
            name, _, value = line.partition(":")
            answer[name.strip().lower()] = value.strip()
        accept = base64.b64encode(hashlib.sha1(key.encode() + _GUID).digest()).decode()
        assert answer.get("sec-websocket-accept") == accept, head
        self.subprotocol = answer.get("sec-websocket-protocol")

    def send(self, data: bytes) -> None:
        self.socket.settimeout(SECONDS)
        self.socket.sendall(data)

    def _take(self, count: int, deadline: float) -> bytes:
        while len(self.buffer) < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self.socket.settimeout(left)
            try:
                data = self.socket.recv(1 << 17)
            except TimeoutError:
                raise
            except OSError:
                data = b""
            if not data:
                raise EOFError
            self.buffer += data
        out = bytes(self.buffer[:count])
        del self.buffer[:count]
        return out

    def receive(self, seconds: float = SECONDS) -> tuple[int, bytes]:
        """The next frame of the server: opcode and payload. The end of the connection is an EOFError."""
        deadline = time.monotonic() + seconds
        first, second = self._take(2, deadline)
        assert not second & 0x80, "RFC 6455 §5.1: a server must not mask"
        size = second & 0x7F
        if size == 126:
            size = int.from_bytes(self._take(2, deadline), "big")
        elif size == 127:
            size = int.from_bytes(self._take(8, deadline), "big")
        return first & 15, self._take(size, deadline)

    def close_code(self, seconds: float = SECONDS) -> int | None:
        """Reads on until the server closes; its close code, or None if it closed without a close frame."""
        code = None
        while True:
            try:
                opcode, payload = self.receive(seconds)
            except EOFError:
                return code
            if opcode == CLOSE and code is None:
                code = int.from_bytes(payload[:2], "big") if payload else 1005
                try:
                    self.send(frame(CLOSE, payload))
                except OSError:
                    pass

    def close(self) -> None:
        self.socket.close()


class Stream:
    """The socket's methods over a WebSocket: each `sendall` is one binary frame."""

    def __init__(self, web: WebSocket) -> None:
        self.web, self.timeout, self.pending = web, SECONDS, b""

    def settimeout(self, seconds: float) -> None:
        self.timeout = seconds

    def sendall(self, data: bytes) -> None:
        self.web.send(frame(BINARY, data))

    def recv(self, _: int) -> bytes:
        while True:
            try:
                opcode, payload = self.web.receive(self.timeout)
            except EOFError:
                return b""
            if opcode == PING:
                self.web.send(frame(PONG, payload))
            elif opcode == CLOSE:
                return b""
            elif opcode != PONG:
                assert opcode in (BINARY, 0), f"[MQTT-6.0.0-1]: frame of type {opcode}"
                if payload:
                    return payload

    def shutdown(self, how: int) -> None:
        self.web.socket.shutdown(how)

    def close(self) -> None:
        self.web.close()
