"""MQTT over WebSocket (MQTT 5 §6, RFC 6455): handshake, framing, and what ends the connection with which code."""

from __future__ import annotations

import socket
import ssl
import unittest

from harness import broker as brokers
from harness import case, wire
from harness import websocket as ws
from harness.wire import V5, V31, V311, VERSIONS


class WebSocketCase(case.BrokerCase):
    settings = {"listeners.ws.default.bind": "127.0.0.1:0"}
    # An external broker may have no TCP listener for the bystander.
    listener = "ws:default"

    def web(self, **options: object) -> ws.WebSocket:
        found = ws.WebSocket(self.broker.address(self.listener), **options)  # type: ignore[arg-type]
        self.addCleanup(found.close)
        return found

    def over(self, web: ws.WebSocket, version: int = V5) -> wire.Link:
        link = wire.Link(("", 0), version, stream=ws.Stream(web))
        self.links.append(link)
        return link


class Handshake(WebSocketCase):
    def test_subprotocols(self) -> None:
        self.assertEqual(self.web(subprotocols="mqtt").subprotocol, "mqtt")
        self.assertEqual(self.web(subprotocols="mqttv3.1").subprotocol, "mqttv3.1")
        self.assertIn(self.web(subprotocols="mqttv3.1, mqtt").subprotocol, ("mqtt", "mqttv3.1"))
        self.assertEqual(self.web(subprotocols="chat, mqtt").subprotocol, "mqtt")

    def test_unknown_subprotocol(self) -> None:
        # [MQTT-6.0.0-3]: the client offers mqtt. The server refuses, or selects none, which a client must not accept.
        for offered in ("chat", "mqttx"):
            try:
                self.assertIsNone(self.web(subprotocols=offered).subprotocol)
            except ws.Refused as refused:
                self.assertEqual(refused.status // 100, 4)

    def test_wrong_path(self) -> None:
        for path in ("/", "/other", "/mqttx", "/mqtt/x"):
            with self.subTest(path):
                with self.assertRaises(ws.Refused) as caught:
                    self.web(path=path)
                self.assertEqual(caught.exception.status, 404)

    def test_query_is_allowed(self) -> None:
        self.assertEqual(self.web(path="/mqtt?token=abc").subprotocol, "mqtt")

    def test_faulty_requests(self) -> None:
        faults: dict[str, dict[str, str | None]] = {
            "no key": {"Sec-WebSocket-Key": None},
            "old version": {"Sec-WebSocket-Version": "8"},
            "no upgrade": {"Upgrade": None, "Connection": "close"},
        }
        for name, headers in faults.items():
            with self.subTest(name):
                with self.assertRaises(ws.Refused) as caught:
                    self.web(headers=headers)
                # RFC 6455 §4.4 names 426 for the version, and 400 for what is no handshake.
                self.assertIn(caught.exception.status, (400, 404, 426, 0))

    def raw(self, data: bytes) -> bytes:
        with socket.create_connection(self.broker.address(self.listener), timeout=5) as plain:
            plain.sendall(data)
            out = b""
            try:
                while more := plain.recv(4096):
                    out += more
            except ConnectionResetError:
                pass
            return out

    def test_not_http(self) -> None:
        for data in (
            wire.connect(V311, "plain"),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 600,
            b"\0" * 50,
        ):
            self.assertIn(self.raw(data + b"\r\n\r\n")[:5], (b"", b"HTTP/"))

    def test_endless_header(self) -> None:
        try:
            found = self.raw(b"GET /mqtt HTTP/1.1\r\n" + b"X-Long: " + b"a" * (1 << 20))
        except (BrokenPipeError, ConnectionResetError):
            return  # Closed before all of it was sent: what a broker does that keeps no endless header.
        self.assertIn(found[:5], (b"", b"HTTP/"))
        self.assertNotIn(b" 101 ", found[:20])

    def test_post(self) -> None:
        found = self.raw(b"POST /mqtt HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        self.assertNotIn(b" 101 ", found[:20])


class Framing(WebSocketCase):
    def test_every_version(self) -> None:
        for version, name in ((V31, "mqttv3.1"), (V311, "mqtt"), (V5, "mqtt")):
            with self.subTest(version=version):
                link = self.over(self.web(subprotocols=name), version)
                link.connect(case.unique())
                topic = case.unique("t")
                link.subscribe((topic, 2))
                publisher = self.over(self.web(), V5)
                publisher.connect(case.unique())
                for qos in range(3):
                    publisher.publish(topic, b"%d" % qos, qos)
                    found = link.take()
                    self.assertEqual((found.payload, found.qos), (b"%d" % qos, qos))

    def conversation(self, version: int, topic: str) -> bytes:
        return b"".join([
            wire.connect(version, case.unique()), wire.subscribe(version, [(topic, 0)], 1),
            wire.publish(version, topic, b"x" * 300), wire.PINGREQ_BYTES,
        ])  # fmt: skip

    def answers(self, link: wire.Link) -> list[int]:
        # Nothing orders PINGRESP and a PUBLISH.
        return sorted(link.receive().kind for _ in range(4))

    AWAITED = sorted([wire.CONNACK, wire.SUBACK, wire.PUBLISH, wire.PINGRESP])

    def test_several_packets_in_one_frame(self) -> None:
        for version in VERSIONS:
            web = self.web()
            web.send(ws.frame(ws.BINARY, self.conversation(version, case.unique("t"))))
            self.assertEqual(self.answers(self.over(web, version)), self.AWAITED)

    def test_one_byte_per_frame(self) -> None:
        for version in VERSIONS:
            web = self.web()
            for byte in self.conversation(version, case.unique("t")):
                web.send(ws.frame(ws.BINARY, bytes([byte])))
            self.assertEqual(self.answers(self.over(web, version)), self.AWAITED)

    def test_frames_byte_by_byte(self) -> None:
        web = self.web()
        for byte in ws.frame(ws.BINARY, self.conversation(V5, case.unique("t"))):
            web.send(bytes([byte]))
        self.assertEqual(self.answers(self.over(web)), self.AWAITED)

    def test_fragmented_message_with_a_ping_inside(self) -> None:
        # RFC 6455 §5.4: control frames may come between the fragments of a message.
        web = self.web()
        data = self.conversation(V5, case.unique("t"))
        web.send(ws.frame(ws.BINARY, data[:7], fin=False))
        web.send(ws.frame(ws.PING, b"mid"))
        web.send(ws.frame(0, data[7:40], fin=False) + ws.frame(0, b"", fin=False) + ws.frame(0, data[40:]))
        self.assertEqual(web.receive(), (ws.PONG, b"mid"))
        self.assertEqual(self.answers(self.over(web)), self.AWAITED)

    def test_ping_pong(self) -> None:
        web = self.web()
        for payload in (b"", b"hello", b"x" * 125):
            web.send(ws.frame(ws.PING, payload))
            self.assertEqual(web.receive(), (ws.PONG, payload))
        web.send(ws.frame(ws.PONG, b"unasked"))
        link = self.over(web)
        link.connect(case.unique())
        self.assertEqual(link.settle(), [])

    def test_large_message(self) -> None:
        link = self.over(self.web())
        link.connect(case.unique())
        topic = case.unique("t")
        link.subscribe((topic, 0))
        payload = bytes(range(256)) * 2048
        link.send(wire.publish(V5, topic, payload))
        self.assertEqual(link.take().payload, payload)

    def test_closing_handshake(self) -> None:
        web = self.web()
        web.send(ws.frame(ws.CLOSE, (1000).to_bytes(2, "big") + b"bye"))
        opcode, payload = web.receive()
        self.assertEqual((opcode, payload[:2]), (ws.CLOSE, (1000).to_bytes(2, "big")))
        with self.assertRaises(EOFError):
            web.receive()

    def test_disconnect_is_followed_by_close(self) -> None:
        web = self.web()
        link = self.over(web)
        link.connect(case.unique())
        web.send(ws.frame(ws.BINARY, wire.disconnect()))
        self.assertIn(web.close_code(), (1000, 1005, None))


class Violations(WebSocketCase):
    def codes(self, name: str, data: bytes, allowed: set[int | None], connected: bool = True) -> None:
        with self.subTest(name, connected=connected):
            web = self.web()
            if connected:
                self.over(web).connect(case.unique())
            try:
                web.send(data)
            except OSError:
                pass
            self.assertIn(web.close_code(), allowed)

    def test_violations(self) -> None:
        # RFC 6455 §7.4.1. A server may also drop the connection without a frame (§7.1.7).
        protocol: set[int | None] = {1002, None}
        for connected in (False, True):
            ping = wire.PINGREQ_BYTES
            self.codes("unmasked", ws.frame(ws.BINARY, ping, mask=False), protocol, connected)
            self.codes("reserved bit", ws.frame(ws.BINARY, ping, reserved=4), protocol, connected)
            self.codes("reserved opcode 3", ws.frame(3, b""), protocol, connected)
            self.codes("reserved control opcode 11", ws.frame(11, b""), protocol, connected)
            self.codes("continuation of nothing", ws.frame(0, ping), protocol, connected)
            self.codes("fragmented ping", ws.frame(ws.PING, b"", fin=False), protocol, connected)
            self.codes("ping of 126 bytes", ws.frame(ws.PING, b"x" * 126), protocol, connected)
            nested = ws.frame(ws.BINARY, ping[:1], fin=False) + ws.frame(ws.BINARY, ping)
            self.codes("message inside a message", nested, protocol, connected)
            self.codes("close of one byte", ws.frame(ws.CLOSE, b"\x03"), protocol, connected)
            self.codes("close code 999", ws.frame(ws.CLOSE, (999).to_bytes(2, "big")), protocol, connected)
            self.codes("close code 1005", ws.frame(ws.CLOSE, (1005).to_bytes(2, "big")), protocol, connected)
            bad_reason = ws.frame(ws.CLOSE, (1000).to_bytes(2, "big") + b"\xff")
            self.codes("close reason of invalid UTF-8", bad_reason, {1002, 1007, None}, connected)
            # [MQTT-6.0.0-1]
            self.codes("text frame", ws.frame(ws.TEXT, b"text"), {1003, 1002, None}, connected)

    def test_oversized(self) -> None:
        # A claimed frame of 2^62 bytes: refused without waiting for it.
        web = self.web()
        web.send(bytes([0x82, 0xFF]) + (1 << 62).to_bytes(8, "big") + b"\0\0\0\0")
        self.assertIn(web.close_code(), (1009, 1002, None))

    def test_endless_fragments(self) -> None:
        # Bytes of one MQTT packet that claims to be too large, in endless fragments.
        web = self.web()
        try:
            web.send(ws.frame(ws.BINARY, b"\x10\xff\xff\xff\x7f", fin=False))
            for _ in range(2000):
                web.send(ws.frame(0, b"x" * 16_384, fin=False))
        except OSError:
            pass
        self.assertIn(web.close_code(), (1000, 1002, 1008, 1009, None))

    def test_mqtt_faults(self) -> None:
        # The MQTT answer comes first, then the closing handshake.
        web = self.web()
        link = self.over(web)
        link.connect(case.unique())
        web.send(ws.frame(ws.BINARY, b"\x36\x05\0\1a\0\1"))
        self.assertEqual(link.expect(wire.DISCONNECT).code, 0x81)
        self.assertIn(web.close_code(), (1000, 1002, 1005, 1007, 1008, None))

    def test_will_fires_on_a_violation(self) -> None:
        topic = case.unique("will")
        watcher = self.over(self.web())
        watcher.connect(case.unique())
        watcher.subscribe((topic, 0))
        web = self.web()
        self.over(web).connect(case.unique(), will=wire.Will(topic, b"gone"))
        web.send(ws.frame(ws.TEXT, b"text"))
        self.assertEqual(watcher.take().payload, b"gone")


class Origin(WebSocketCase):
    settings = {
        "listeners.ws.default.bind": "127.0.0.1:0",
        "listeners.ws.default.websocket.check_origin_enable": "true",
        "listeners.ws.default.websocket.check_origins": "http://good.example, https://also.example:8443",
    }

    def test_origins(self) -> None:
        for origin in ("http://good.example", "https://also.example:8443", None):
            with self.subTest(origin):
                self.assertEqual(self.web(origin=origin).subprotocol, "mqtt")
        for origin in ("http://evil.example", "http://good.example.evil", "https://good.example", "null"):
            with self.subTest(origin):
                with self.assertRaises(ws.Refused) as caught:
                    self.web(origin=origin)
                self.assertEqual(caught.exception.status, 403)


class Secure(WebSocketCase):
    listener = "wss:default"

    @classmethod
    def setUpClass(cls) -> None:
        cls.settings = brokers.tls_listener("default", "wss")
        super().setUpClass()

    def test_conversation(self) -> None:
        context = ssl.create_default_context(cafile=brokers.certificates().ca)
        link = self.over(self.web(tls=context))
        link.connect(case.unique())
        topic = case.unique("t")
        link.subscribe((topic, 1))
        link.send(wire.publish(V5, topic, b"x" * 100_000, 0))
        self.assertEqual(len(link.take().payload), 100_000)

    def test_plain_http_is_refused(self) -> None:
        with socket.create_connection(self.broker.address(self.listener), timeout=5) as plain:
            plain.sendall(b"GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n")
            try:
                self.assertNotIn(b"101", plain.recv(100))
            except ConnectionResetError:
                pass


if __name__ == "__main__":
    unittest.main()
