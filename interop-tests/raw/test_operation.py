"""The executable as its operator meets it: what it logs and counts, reloading, ending, listeners, and what it says and
does to topics by itself. Only for tidegate, as settings and names are its own."""

from __future__ import annotations

import collections
import json
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import time
import unittest

from harness import broker as brokers
from harness import case, wire
from harness.wire import V5, V31, V311, VERSIONS

NODE = "node@here"
SYS = f"$SYS/brokers/{NODE}"
SYSTEM = {"node.name": NODE, "sys_topics.sys_msg_interval": "1s", "sys_topics.sys_heartbeat_interval": "1s"}


@unittest.skipIf(brokers.KIND != "tidegate", "about the executable tidegate")
class OperationCase(case.BrokerCase):
    with_bystander = False

    def answer(self, version: int, client_id: str, listener: str = "tcp:default", **options: object) -> wire.Packet:
        """What CONNECT is answered."""
        link = self.link(version, listener)
        link.send(wire.connect(version, client_id, **options))
        return link.receive()

    def send(self, data: bytes, listener: str = "tcp:default") -> None:
        """Sends it on a connection of its own and waits for the broker to close that."""
        with socket.create_connection(self.broker.address(listener), timeout=wire.SECONDS) as stream:
            stream.sendall(data)
            try:
                while stream.recv(1 << 16):
                    pass
            except ConnectionResetError:
                pass

    def watcher(self, *filters: str) -> wire.Link:
        """A subscriber of topics that may have news before SUBACK, which is kept for it."""
        link = self.client(V5)
        link.send(wire.subscribe(V5, [(name, 0) for name in filters], 1))
        news = []
        while (found := link.receive()).kind != wire.SUBACK:
            news.append(found)
        link.backlog = news
        return link

    def metrics(self, *names: str) -> dict[str, int]:
        """Counters as $SYS tells them next; 0 for what has not been counted yet."""
        link = self.watcher(f"{SYS}/metrics/#", f"{SYS}/uptime")
        found: dict[str, int] = {}
        # The heartbeat comes behind the metrics of the same second.
        while (message := link.take()).topic != f"{SYS}/uptime" or not found:
            if "/metrics/" in message.topic:
                found[message.topic.removeprefix(f"{SYS}/metrics/")] = int(message.payload)
        link.leave()
        return {name: found.get(name, 0) for name in names}


class BadInput(OperationCase):
    settings = {
        **SYSTEM,
        "log.level": "info",
        "mqtt.idle_timeout": "1s",
        "listeners.ws.default.bind": "127.0.0.1:0",
        "listeners.tcp.few.bind": "127.0.0.1:0",
        "listeners.tcp.few.max_connections": "1",
        **brokers.tls_listener("default"),
    }

    def test_each_kind_has_one_line_and_a_counter(self) -> None:
        connect = wire.connect(V5, "bad")
        upgrade = (
            b"GET /mqtt HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        table = [
            ("malformed_packet", connect + b"\x00\x00", "tcp:default"),
            ("malformed_packet", connect + wire.publish(V5, b"a\xff"), "tcp:default"),
            ("packet_too_large", connect + b"\x30\xff\xff\xff\x7f", "tcp:default"),
            ("protocol_error", connect + connect, "tcp:default"),
            ("protocol_error", wire.publish(V5, "a"), "tcp:default"),
            ("protocol_error", connect + wire.publish(V5, "a", props=[(wire.TOPIC_ALIAS, 0)]), "tcp:default"),
            ("connect_timeout", b"\x10\x20\x00", "tcp:default"),
            ("not_mqtt_http", b"GET / HTTP/1.1\r\n\r\n", "tcp:default"),
            ("not_mqtt_tls", b"\x16\x03\x01\x00\xc8\x01\x00\x00\xc4\x03\x03", "tcp:default"),
            ("tls_handshake", b"GET / HTTP/1.1\r\n\r\n", "ssl:default"),
            ("websocket_handshake", b"GET /nowhere HTTP/1.1\r\nHost: h\r\n\r\n", "ws:default"),
            # An unmasked frame, RFC 6455 §5.1.
            ("websocket_violation", upgrade + b"\x82\x02\xc0\x00", "ws:default"),
        ]
        expected = collections.Counter(f"connections/closed/{reason}" for reason, _, _ in table)
        before = self.metrics(*expected)
        for reason, data, listener in table:
            with self.subTest(reason=reason, data=data[-20:]):
                start = len(self.broker.log())
                self.send(data, listener)
                log = self.broker.await_log(f'reason="{reason}"', start)
                lines = [line for line in log.splitlines() if f'reason="{reason}"' in line]
                self.assertEqual(len(lines), 1, log)
                self.assertIn(f'listener="{listener}"', lines[0])
                self.assertIn("peer=127.0.0.1:", lines[0])
        after = self.metrics(*expected)
        self.assertEqual({name: after[name] - before[name] for name in expected}, expected)

    def test_too_many_connections(self) -> None:
        start = len(self.broker.log())
        with wire.Link(self.broker.address("tcp:few"), V5) as first:
            first.connect(case.unique())
            with wire.Link(self.broker.address("tcp:few"), V5) as second:
                second.send_hostile(wire.connect(V5, case.unique()))
                second.expect_closed()
            self.broker.await_log('reason="max_connections"', start)
            first.ping()
            first.leave()

    def test_names_of_clients_cannot_forge_lines(self) -> None:
        start = len(self.broker.log())
        name = "x\x1b[31m\x7fy"
        self.send(wire.connect(V5, name) * 2)
        log = self.broker.await_log("protocol_error", start)
        self.assertNotIn("\x1b", log)
        self.assertNotIn("\x7f", log)


class Reload(OperationCase):
    """SIGHUP on a node with clients."""

    acl = "{allow, all}.\n"
    users = ""

    @classmethod
    def setUpClass(cls) -> None:
        made, cls.files = brokers.certificates(), pathlib.Path(tempfile.mkdtemp(prefix="tidegate-reload-"))
        cls.addClassCleanup(shutil.rmtree, cls.files, ignore_errors=True)
        cls.certificate("server")
        cls.settings = {
            **brokers.tls_listener("default"),
            "listeners.ssl.default.ssl_options.certfile": str(cls.files / "cert.pem"),
            "listeners.ssl.default.ssl_options.keyfile": str(cls.files / "key.pem"),
            "listeners.ssl.default.ssl_options.cacertfile": made.ca,
            "log.level": "info",
            "allow_anonymous": "false",
        }
        super().setUpClass()

    @classmethod
    def certificate(cls, name: str, key: str | None = None) -> None:
        made = brokers.certificates()
        shutil.copy(made.path(f"{name}.pem"), cls.files / "cert.pem")
        shutil.copy(made.path(f"{key or name}-key.pem"), cls.files / "key.pem")

    def reload(self) -> str:
        """The line in which the broker says what came of it."""
        assert self.broker.process is not None
        start = len(self.broker.log())
        self.broker.process.send_signal(signal.SIGHUP)
        return self.broker.await_log("configuration", start)

    def write(self, name: str, text: str) -> None:
        assert self.broker.directory is not None
        (self.broker.directory / name).write_text(text, encoding="utf-8")

    def shown(self) -> bytes:
        """The certificate that the broker shows."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with socket.create_connection(self.broker.address("ssl:default")) as plain:
            with context.wrap_socket(plain) as stream:
                return stream.getpeercert(True) or b""

    def test_users_rules_certificates_and_limits(self) -> None:
        assert self.broker.directory is not None
        who = {"username": "ann", "password": b"secret"}
        self.assertEqual(self.answer(V5, "ann", **who).code, 0x86)
        subprocess.run(
            [brokers.binary(), "passwd", "--file", str(self.broker.directory / "users"), "--stdin", "ann"],
            input="secret\n", text=True, check=True, capture_output=True,
        )  # fmt: skip
        self.assertIn("configuration reloaded", self.reload())
        link = self.client(V5, "ann", **who)
        self.assertEqual(link.publish("closed", b"", 1), 0x10)

        # A decision that the broker remembers does not outlive its rules.
        self.write("acl.conf", '{deny, all, all, ["closed"]}.\n{allow, all}.\n')
        self.assertIn("configuration reloaded", self.reload())
        self.assertEqual(link.publish("closed", b"", 1), 0x87)
        self.assertEqual(link.subscribe(("closed", 0)).codes, [0x87])

        first = self.shown()
        self.certificate("server", "client")
        self.assertIn("key.pem does not belong", self.reload())
        self.assertEqual(self.shown(), first)
        self.certificate("client")
        self.assertIn("configuration reloaded", self.reload())
        self.assertNotEqual(self.shown(), first)

        conf = (self.broker.directory / "tidegate.conf").read_text(encoding="utf-8")
        for name, text, said in [
            ("acl.conf", "{allow, all}.\n{allow, al}.\n", "acl.conf:2:"),
            ("users", "nonsense\n", "users:1:"),
            ("tidegate.conf", conf + "mqtt.max_packet_size = 2\n", "has no unit"),
        ]:
            kept = (self.broker.directory / name).read_text(encoding="utf-8")
            self.write(name, text)
            log = self.reload()
            self.assertIn("configuration not reloaded; the old one stays", log)
            self.assertIn(said, log)
            self.write(name, kept)
        self.assertEqual(link.publish("closed", b"", 1), 0x87)

        self.write("tidegate.conf", conf + "mqtt.max_topic_levels = 2\nauthorization.deny_action = disconnect\n")
        self.assertIn("configuration reloaded", self.reload())
        self.assertEqual(link.subscribe(("a/b/c", 0)).codes, [0x8F])
        link.send(wire.publish(V5, "closed"))
        self.assertEqual([found.code for found in link.until_closed()], [0x87])


class Terminate(unittest.TestCase):
    @unittest.skipIf(brokers.KIND != "tidegate", "about the executable tidegate")
    def test_with_all_sorts_of_clients(self) -> None:
        broker = brokers.start(
            {"listeners.ws.default.bind": "127.0.0.1:0", **brokers.tls_listener("default"), "log.level": "info"}
        )
        self.addCleanup(broker.close)
        links = [wire.Link(broker.address(), version) for version in VERSIONS]
        for link in links:
            link.connect(f"c{link.version}")
            self.addCleanup(link.drop)
        reader = wire.Link(broker.address(), V5)
        self.addCleanup(reader.drop)
        reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.connect("never reads")
        reader.subscribe(("flood", 0))
        # More than sockets hold, so that bytes wait for a client that takes none.
        for _ in range(200):
            links[2].publish("flood", b"x" * 100_000)
        links[2].ping()
        # Handshakes that are never finished.
        for listener in ("tcp:default", "ssl:default", "ws:default"):
            stream = socket.create_connection(broker.address(listener))
            self.addCleanup(stream.close)
            stream.sendall(b"\x16\x03\x01" if listener[0] == "s" else b"G")
        self.assertEqual(broker.terminate(), 0)
        self.assertEqual([found.code for found in links[2].until_closed()], [0x8B])
        for link in links[:2]:
            self.assertEqual(link.until_closed(), [])
        self.assertNotIn("panicked", broker.log())
        self.assertEqual(broker.log().count('reason="server_shutting_down"'), 4)


class Listeners(OperationCase):
    settings = {
        "listeners.tcp.six.bind": "[::1]:0",
        "listeners.tcp.both.bind": "0",
        "listeners.tcp.four.bind": "0.0.0.0:0",
        "listeners.tcp.mounted.bind": "127.0.0.1:0",
        "listeners.tcp.mounted.mountpoint": "home/${username}/${clientid}/",
    }

    def test_addresses(self) -> None:
        for name, hosts in [("six", ["::1"]), ("both", ["::1", "127.0.0.1"]), ("four", ["127.0.0.1"])]:
            for host in hosts:
                with self.subTest(name=name, host=host):
                    address = (host, self.broker.address(f"tcp:{name}")[1])
                    with wire.Link(address, V5) as link:
                        link.connect(case.unique())
                        link.leave()

    def test_names_that_would_leave_their_mountpoint(self) -> None:
        for client_id, user in [("a/b", "u"), ("+", "u"), ("#", "u"), ("c", "u/v"), ("c", "#"), ("c", None)]:
            for version, refused in ((V311, 5), (V5, 0x87)):
                with self.subTest(client_id=client_id, user=user, version=version):
                    found = self.answer(version, client_id, "tcp:mounted", username=user)
                    self.assertEqual((found.kind, found.code), (wire.CONNACK, refused))
        self.assertEqual(self.answer(V5, "c", "tcp:mounted", username="u").code, 0)


class Redirect(OperationCase):
    settings = {
        "mqtt.server_redirect.server_reference": "b.example:1883",
        "mqtt.server_redirect.reason": "server_moved",
    }

    def test_every_version(self) -> None:
        for version, code in ((V31, 3), (V311, 3), (V5, 0x9D)):
            link = self.link(version)
            link.send(wire.connect(version, "c"))
            (found,) = link.until_closed()
            self.assertEqual(found.code, code)
            self.assertEqual(found.get(wire.SERVER_REFERENCE), "b.example:1883" if version == V5 else None)


class Users(OperationCase):
    """Who is let in, and may do everything or nothing."""

    settings = {"allow_anonymous": "false", "authorization.no_match": "deny", "log.level": "info"}
    acl = '{allow, {username, "ann"}, all, ["ann/#"]}.\n'

    @classmethod
    def setUpClass(cls) -> None:
        cls.users = cls.hashed("ann") + cls.hashed("root", "--superuser")
        super().setUpClass()

    @staticmethod
    def hashed(name: str, *options: str) -> str:
        """The line of a users file that `tidegate passwd` writes; the password is the name."""
        with tempfile.TemporaryDirectory() as directory:
            file = pathlib.Path(directory, "users")
            subprocess.run(
                [brokers.binary(), "passwd", "--file", str(file), "--stdin", *options, name],
                input=name + "\n", text=True, check=True, capture_output=True,
            )  # fmt: skip
            return file.read_text(encoding="utf-8")

    def test_rules_and_superusers(self) -> None:
        ann = self.client(V5, username="ann", password=b"ann")
        self.assertEqual(ann.subscribe(("ann/#", 1), ("bob", 1), ("#", 1)).codes, [1, 0x87, 0x87])
        self.assertEqual(ann.publish("bob", b"", 1), 0x87)
        root = self.client(V5, username="root", password=b"root")
        self.assertEqual(root.subscribe(("#", 1), ("$SYS/#", 0)).codes, [1, 0])
        self.assertEqual(self.answer(V5, "x", username="root", password=b"ann").code, 0x86)

    def test_a_will_that_is_not_allowed(self) -> None:
        root = self.client(V5, username="root", password=b"root")
        root.subscribe(("ann/will", 0), ("bob/will", 0))
        for topic in ("bob/will", "ann/will"):
            ann = self.client(V5, username="ann", password=b"ann", will=wire.Will(topic))
            ann.drop()
        self.assertEqual(root.take().topic, "ann/will")

    def test_nobody_else(self) -> None:
        for version, refused in ((V31, {4, 5}), (V311, {4, 5}), (V5, {0x86, 0x87})):
            for options in ({}, {"username": "ann"}, {"username": "eve", "password": b"secret"}):
                self.assertIn(self.answer(version, "ann", **options).code, refused)
        log = self.broker.await_log("client ann, user eve")
        self.assertNotIn("secret", log)


class UsersByClientId(OperationCase):
    settings = {"allow_anonymous": "false", "authentication.user_id_type": "clientid"}

    @classmethod
    def setUpClass(cls) -> None:
        cls.users = Users.hashed("meter-7", "--client-id")
        super().setUpClass()

    def test_the_client_id_is_looked_up(self) -> None:
        self.assertEqual(self.answer(V5, "meter-7", username="whoever", password=b"meter-7").code, 0)
        self.assertIn(self.answer(V5, "meter-8", username="meter-7", password=b"meter-7").code, {0x86, 0x87})


class ShippedRules(OperationCase):
    acl = (pathlib.Path(__file__).parents[2] / "etc" / "acl.conf").read_text(encoding="utf-8")

    def test_everything_but_everything(self) -> None:
        link = self.client(V5, username="ann")
        found = link.subscribe(("$SYS/#", 0), ("$SYS/brokers", 0), ("#", 0), ("+/#", 0), ("a/#", 0))
        self.assertEqual(found.codes, [0x87, 0x87, 0x87, 0x87, 0])
        self.assertEqual(self.client(V5, username="dashboard").subscribe(("$SYS/#", 0)).codes, [0])


class Quotas(OperationCase):
    # One worker, as limits of the node are divided among workers.
    settings = {
        "node.workers": "1",
        # The node's own retained messages would take places, too.
        "sys_topics.sys_msg_interval": "disabled",
        "retainer.max_retained_messages": "2",
        "retainer.max_payload_size": "64B",
        "delayed.max_delayed_messages": "1",
        "mqtt.max_subscriptions": "2",
        "mqtt.max_clientid_len": "23",
        "mqtt.max_payload_size": "1KB",
        "mqtt.max_inflight": "3",
        "mqtt.keepalive_multiplier": "2",
    }

    def test_retained(self) -> None:
        publisher = self.client(V5)
        for topic, payload in (("r/1", b"x"), ("r/2", b"x" * 65), ("r/3", b"x"), ("r/4", b"x"), ("r/1", b"y")):
            publisher.publish(topic, payload, 1, retain=True)
        reader = self.client(V5)
        reader.subscribe(("r/#", 0))
        found = {message.topic: message.payload for message in (reader.take(), reader.take())}
        self.assertEqual(found, {"r/1": b"y", "r/3": b"x"})
        publisher.publish("r/1", b"", 1, retain=True)
        self.assertEqual(reader.take().payload, b"")

    def test_the_rest(self) -> None:
        link = self.client(V5)
        self.assertEqual(link.subscribe(("a", 1), ("b", 1), ("c", 1)).codes, [1, 1, 0x97])
        self.assertEqual(link.publish("x", b"x" * 1025, 1), 0x97)
        self.assertEqual(self.answer(V5, "c" * 24).code, 0x85)
        self.assertEqual(self.answer(V311, "c" * 24).code, 2)
        self.assertEqual(link.publish("$delayed/60/x", b"", 1) & 0x80, 0)
        self.assertEqual(link.publish("$delayed/60/x", b"", 1), 0x97)
        publisher = self.client(V311)
        for _ in range(5):
            publisher.publish("a", b"", 1)
        self.assertEqual([found.pid for found in link.settle()], [1, 2, 3])

    def test_keep_alive(self) -> None:
        link = self.link(V5)
        link.connect("k", keep_alive=1)
        began = time.monotonic()
        self.assertEqual([found.code for found in link.until_closed()], [0x8D])
        self.assertGreaterEqual(time.monotonic() - began, 1.9)


class Topics(OperationCase):
    """What the node itself says, and what it does to the topics of clients."""

    settings = {
        **SYSTEM,
        "sys_topics.sys_event_messages.client_subscribed": "true",
        "sys_topics.sys_event_messages.client_unsubscribed": "true",
        "rewrite.1.action": "publish",
        "rewrite.1.source_topic": "old/#",
        "rewrite.1.re": "^old/(.+)$",
        "rewrite.1.dest_topic": "new/$1",
        "auto_subscribe.1.topic": "commands/${clientid}",
        "auto_subscribe.1.qos": "1",
    }

    def test_state_of_the_node(self) -> None:
        link = self.watcher("$SYS/#")
        wanted = {
            f"{SYS}/{name}"
            for name in (
                *("version", "sysdescr", "uptime", "datetime", "stats/connections/count", "stats/subscriptions/count"),
                *("stats/retained/count", "metrics/messages/received", "metrics/bytes/received"),
                "metrics/messages/dropped",
            )
        }
        found: dict[str, bytes] = {}
        while not wanted <= found.keys():
            message = link.take()
            found[message.topic] = message.payload
        self.assertEqual(found["$SYS/brokers"], NODE.encode())
        self.assertGreater(int(found[f"{SYS}/uptime"]), 0)
        self.assertRegex(found[f"{SYS}/datetime"].decode(), r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertGreaterEqual(int(found[f"{SYS}/stats/connections/count"]), 1)
        self.assertGreater(int(found[f"{SYS}/metrics/bytes/received"]), 0)
        # Its own messages that nobody heard are no loss.
        self.assertEqual(int(found[f"{SYS}/metrics/messages/dropped"]), 0)

    def test_clients_come_and_go(self) -> None:
        watcher = self.watcher(f"{SYS}/clients/+/+")
        name = case.unique()
        link = self.client(V5, name, keep_alive=30, username="ann", props=[(wire.SESSION_EXPIRY, 5)])
        link.subscribe(("t", 1))
        link.send(wire.unsubscribe(V5, ["t"], 9))
        link.expect(wire.UNSUBACK)
        link.leave()
        events: dict[str, dict] = {}
        while "disconnected" not in events:
            message = watcher.take()
            if message.topic.startswith(f"{SYS}/clients/{name}/"):
                events[message.topic.rsplit("/", 1)[1]] = json.loads(message.payload)
        common = {"clientid", "username", "protocol", "ts"}
        client = common | {"ipaddress", "sockport", "proto_name", "proto_ver", "connected_at", "client_attrs"}
        fields = {
            "connected": client | {"conn_props", "receive_maximum", "keepalive", "clean_start", "expiry_interval"},
            "disconnected": client | {"disconn_props", "reason", "disconnected_at"},
            "subscribed": common | {"topic", "subopts"},
            "unsubscribed": common | {"topic", "subopts"},
        }
        self.assertEqual({event: set(found) & fields[event] for event, found in events.items()}, fields)
        connected = events["connected"]
        wanted = {"clientid": name, "username": "ann", "ipaddress": "127.0.0.1", "proto_ver": 5, "keepalive": 30}
        self.assertEqual({key: connected[key] for key in wanted}, wanted)
        self.assertEqual(connected["expiry_interval"], 5)
        self.assertEqual((events["disconnected"]["reason"], events["subscribed"]["topic"]), ("normal", "t"))

    def test_rewrite_and_auto_subscribe(self) -> None:
        for version in VERSIONS:
            name = case.unique()
            link = self.client(version, name)
            link.subscribe(("new/x", 0))
            sender = self.client(V5)
            sender.publish("old/x", b"moved", 0)
            self.assertEqual(link.take().topic, "new/x")
            sender.publish(f"commands/{name}", b"go", 1)
            found = link.take()
            self.assertEqual((found.topic, found.qos), (f"commands/{name}", 1))


if __name__ == "__main__":
    unittest.main()
