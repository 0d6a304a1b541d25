"""What applications do with these clients: certificates, sessions, wills, shared subscriptions, large messages, requests."""

from __future__ import annotations

import pathlib
import queue
import ssl
import stat
import subprocess
import tempfile
import unittest
from typing import ClassVar

import adapters
from adapters import V5, V31, V311, VERSIONS, PahoLink, PahoPython
from test_matrix import settings

from harness import broker as brokers
from harness import wire

PYTHON = PahoPython()


class FeatureCase(unittest.TestCase):
    broker: ClassVar[brokers.Broker]
    extra: ClassVar[dict[str, str]] = {}

    @classmethod
    def setUpClass(cls) -> None:
        cls.broker = brokers.start({**settings(), **cls.extra})
        cls.addClassCleanup(cls.broker.close)

    def link(
        self, version: int = V5, client_id: str | None = None, transport: str = "tcp", **options: object
    ) -> PahoLink:
        found = PYTHON.connect(self.broker, transport, version, client_id, **options)
        self.addCleanup(found.close)
        return found


class Python(FeatureCase):
    """Paho Python."""

    def setUp(self) -> None:
        adapters.require(PYTHON)

    def test_persistent_session(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                topic, name = adapters.unique("keep/"), adapters.unique("keeper")
                link = self.link(version, name, clean=False, expiry=300)
                self.assertEqual(link.subscribe(topic, 2), [2])
                link.close()
                publisher = self.link(V311)
                for qos in (1, 2):
                    for number in range(20):
                        publisher.publish(topic, b"%d-%d" % (qos, number), qos)
                again = self.link(version, name, clean=False, expiry=300)
                if version != V31:
                    self.assertTrue(again.flags.session_present)
                self.assertEqual([again.next() for _ in range(40)], [f"{q}-{n}" for q in (1, 2) for n in range(20)])
                again.close()
                fresh = self.link(version, name, clean=True)
                self.assertFalse(fresh.flags.session_present)
                publisher.publish(topic, b"unseen", 1)
                fresh.subscribe(topic + "/end", 1)
                publisher.publish(topic + "/end", b"end", 1)
                self.assertEqual(fresh.next(), "end")

    def test_will(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                topic = adapters.unique("will/")
                watcher = self.link(V5)
                watcher.subscribe(topic, 2)
                PYTHON.connect(self.broker, "tcp", version, will=(topic, b"gone", 1, True)).lose()
                self.assertEqual(watcher.next(), "gone")
                late = self.link(V311)
                late.subscribe(topic, 1)
                found = late.message()
                self.assertEqual((found.payload, found.retain), (b"gone", True))

    def test_large_payload(self) -> None:
        payload = bytes(range(256)) * 4096
        for transport in adapters.TRANSPORTS:
            for version in VERSIONS:
                with self.subTest(transport=transport, version=version):
                    topic = adapters.unique("large/")
                    reader = self.link(version, transport=transport)
                    reader.subscribe(topic, 2)
                    writer = self.link(version, transport=transport)
                    for qos in range(3):
                        writer.publish(topic, payload, qos)
                        self.assertEqual(reader.message().payload, payload)

    def test_longest_topic(self) -> None:
        for version in VERSIONS:
            topic = "l" * 65_535
            reader = self.link(version)
            self.assertEqual(reader.subscribe(topic, 1), [1])
            self.link(version).publish(topic, b"x", 1)
            self.assertEqual(reader.message().topic, topic)

    def test_shared_subscription(self) -> None:
        for version in VERSIONS:
            with self.subTest(version=version):
                topic = adapters.unique("share/")
                members = [self.link(version) for _ in range(3)]
                for member in members:
                    member.subscribe(f"$share/group/{topic}", 1)
                writer = self.link(version)
                for number in range(60):
                    writer.publish(topic, b"%d" % number, 1)
                got: list[str] = []
                while len(got) < 60:
                    before = len(got)
                    for member in members:
                        try:
                            got.append(member.message(0.2).payload.decode())
                        except queue.Empty:
                            continue
                    self.assertGreater(len(got), before, f"{len(got)} of 60 arrived")
                self.assertEqual(sorted(got, key=int), [str(number) for number in range(60)])

    def test_hundred_in_flight(self) -> None:
        # More than any window: Paho queues, the broker acknowledges, the order stays.
        for version in VERSIONS:
            with self.subTest(version=version):
                topic = adapters.unique("flight/")
                reader = self.link(version)
                reader.subscribe(topic, 2)
                writer = self.link(version)
                pending = [writer.client.publish(topic, str(number), 2) for number in range(300)]
                for one in pending:
                    one.wait_for_publish(adapters.SECONDS)
                self.assertEqual([reader.next() for _ in range(300)], [str(number) for number in range(300)])


class Certificates(FeatureCase):
    """TLS with client certificates off, optional and required; 1.2 and 1.3."""

    extra = {
        **brokers.tls_listener("optional", "ssl", "verify_peer", False),
        **brokers.tls_listener("required", "ssl", "verify_peer", True),
        **brokers.tls_listener("required", "wss", "verify_peer", True),
    } if brokers.KIND != "external" else {}  # fmt: skip

    def setUp(self) -> None:
        adapters.require(PYTHON)
        if brokers.KIND == "external":
            self.skipTest("an external broker has no listeners of our choice")

    def context(self, who: str | None = None) -> ssl.SSLContext:
        made = brokers.certificates()
        out = ssl.create_default_context(cafile=made.ca)
        if who:
            out.load_cert_chain(made.path(f"{who}.pem"), made.path(f"{who}-key.pem"))
        return out

    def attempt(self, listener: str, context: ssl.SSLContext) -> bool:
        """Whether a client gets as far as CONNACK."""
        kind = listener.split(":")[0]
        try:
            PYTHON.connect(self.broker, kind, V311, context=context, listener=listener).close()
        except (OSError, queue.Empty, ValueError):
            return False
        return True

    def test_off(self) -> None:
        self.assertTrue(self.attempt("ssl:default", self.context()))
        self.assertTrue(self.attempt("ssl:default", self.context("client")))

    def test_optional(self) -> None:
        self.assertTrue(self.attempt("ssl:optional", self.context()))
        self.assertTrue(self.attempt("ssl:optional", self.context("client")))
        self.assertFalse(self.answered("ssl:optional", "stranger"))

    def test_required(self) -> None:
        for listener in ("ssl:required", "wss:required"):
            with self.subTest(listener):
                self.assertTrue(self.attempt(listener, self.context("client")))
                self.assertFalse(self.answered(listener, None))
                self.assertFalse(self.answered(listener, "stranger"))

    def answered(self, listener: str, who: str | None) -> bool:
        """Whether MQTT answers; where the TLS layer refuses, nothing but the end comes back."""
        import socket

        with socket.create_connection(self.broker.address(listener), timeout=5) as plain:
            try:
                with self.context(who).wrap_socket(plain, server_hostname="localhost") as secure:
                    secure.sendall(b"\x10\x0d\0\4MQTT\4\2\0\0\0\1x")
                    return secure.recv(4) != b""
            except OSError:
                return False

    def test_server_is_verified(self) -> None:
        # The client does not know the authority: its own refusal must not disturb the broker.
        self.assertFalse(self.attempt("ssl:default", ssl.create_default_context()))
        self.assertTrue(self.attempt("ssl:default", self.context()))

    def test_tls_versions(self) -> None:
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = self.context()
            context.minimum_version = context.maximum_version = version
            self.assertTrue(self.attempt("ssl:default", context), version)


class Commands(FeatureCase):
    """mosquitto_pub, mosquitto_sub, mosquitto_rr as shell scripts use them."""

    def setUp(self) -> None:
        adapters.require(adapters.Mosquitto())
        host, port = self.broker.address()
        self.where = ["-h", host, "-p", str(port)]

    def test_request_and_response(self) -> None:
        adapters.require(PYTHON)
        topic = adapters.unique("request/")
        responder = self.link(V5)
        responder.subscribe(topic, 1)
        asked = subprocess.Popen(
            ["mosquitto_rr", *self.where, "-V", "5", "-t", topic, "-e", topic + "/answer", "-m", "ping", "-q", "1", "-W", "10"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        request = responder.message()
        answer = adapters.Properties(adapters.PacketTypes.PUBLISH)
        if hasattr(request.properties, "CorrelationData"):
            answer.CorrelationData = request.properties.CorrelationData
        responder.publish(request.properties.ResponseTopic, b"pong " + request.payload, 1, properties=answer)
        out, _ = asked.communicate(timeout=15)
        self.assertEqual((asked.returncode, out.strip()), (0, "pong ping"))

    def test_properties_from_the_shell(self) -> None:
        topic = adapters.unique("props/")
        fields = [
            "content-type text/x",
            "user-property k v",
            "message-expiry-interval 100",
            "payload-format-indicator 1",
        ]
        given = [part for field in fields for part in ["-D", "publish", *field.split(" ")]]
        adapters.run(["mosquitto_pub", *self.where, "-V", "5", "-t", topic, "-m", "text", "-q", "1", "-r", *given])
        out = adapters.run(
            ["mosquitto_sub", *self.where, "-V", "5", "-t", topic, "-C", "1", "-W", "10", "-F", "%p|%C|%P|%F|%r"]
        )
        self.assertEqual(out.strip(), "text|text/x|k:v|1|1")
        adapters.run(["mosquitto_pub", *self.where, "-t", topic, "-n", "-r"])

    def test_persistent_subscriber(self) -> None:
        topic, name = adapters.unique("shell/"), adapters.unique("shell")
        subscribe = ["mosquitto_sub", *self.where, "-i", name, "-c", "-q", "1", "-t", topic]
        adapters.run([*subscribe, "-E"])
        for number in range(3):
            adapters.run(["mosquitto_pub", *self.where, "-t", topic, "-q", "1", "-m", str(number)])
        self.assertEqual(adapters.run([*subscribe, "-C", "3", "-W", "10"]).split(), ["0", "1", "2"])


class Script(FeatureCase):
    """MQTT.js."""

    def setUp(self) -> None:
        self.client = adapters.MqttJs()
        adapters.require(self.client)

    def test_version_5_features(self) -> None:
        topic = adapters.unique("js5/")
        task = self.client.task(
            self.broker, "ws", 5, topic=topic, qos=1, options={"properties": {"subscriptionIdentifier": 77}}
        )
        reader = adapters.JsonLines(["node", self.client.script, "sub", task])
        self.addCleanup(reader.close)
        publish = {"userProperties": {"k": "v"}, "contentType": "text/x", "responseTopic": "r/t"}
        task = self.client.task(self.broker, "tcp", 5, topic=topic, qos=2, payloads=["hello"], publish=publish)
        adapters.run(["node", self.client.script, "pub", task])
        found = reader.message()
        self.assertEqual((found["payload"], found["qos"]), ("hello", 1))
        self.assertEqual(found["properties"]["userProperties"], {"k": "v"})
        self.assertEqual(found["properties"]["contentType"], "text/x")
        self.assertEqual(found["properties"]["subscriptionIdentifier"], 77)

    def test_will_of_a_killed_process(self) -> None:
        for transport in adapters.TRANSPORTS:
            with self.subTest(transport):
                topic = adapters.unique("jswill/")
                watcher = self.client.subscribe(self.broker, "tcp", 4, topic, 1)
                self.addCleanup(watcher.close)
                will = {"topic": topic, "payload": "killed", "qos": 1}
                task = self.client.task(self.broker, transport, 5, topic="unused", qos=0, will=will)
                victim = adapters.JsonLines(["node", self.client.script, "sub", task])
                victim.close()
                self.assertEqual(watcher.next(), "killed")

    def test_large_payload(self) -> None:
        for transport in adapters.TRANSPORTS:
            with self.subTest(transport):
                topic = adapters.unique("jslarge/")
                reader = self.client.subscribe(self.broker, transport, 5, topic, 1)
                self.addCleanup(reader.close)
                task = self.client.task(self.broker, transport, 4, topic=topic, qos=1, bytes=1_000_000)
                adapters.run(["node", self.client.script, "pub", task])
                self.assertEqual(reader.next(), "1000000 bytes")


class Binary(unittest.TestCase):
    """The executable itself: its output, its end, and what it says when it cannot start."""

    def setUp(self) -> None:
        if brokers.KIND != "tidegate":
            self.skipTest("about the executable tidegate")

    def fails(self, **settings: str) -> str:
        """What a start that has to fail prints."""
        with tempfile.TemporaryDirectory() as directory:
            config = pathlib.Path(directory, "tidegate.conf")
            values = {
                "node.data_dir": directory + "/data",
                **{key.replace("__", "."): value for key, value in settings.items()},
            }
            for kind in ("tcp", "ssl", "ws", "wss"):
                if f"listeners.{kind}.default.bind" not in values:
                    values[f"listeners.{kind}.default.enable"] = "false"
            config.write_text("".join(f"{key} = {value}\n" for key, value in values.items()), encoding="utf-8")
            done = subprocess.run(
                [brokers.binary(), "--config", str(config)], capture_output=True, text=True, timeout=20, check=False
            )
            self.assertNotEqual(done.returncode, 0)
            self.assertNotIn("panicked", done.stderr)
            self.assertNotIn("ready", done.stdout.splitlines())
            return done.stdout + done.stderr

    def test_sigterm(self) -> None:
        broker = brokers.start()
        self.addCleanup(broker.close)
        self.assertEqual(broker.output[-1], "ready")
        adapters.require(PYTHON)
        link = PYTHON.connect(broker, "tcp", V5)
        self.assertEqual(broker.terminate(), 0)
        link.ended.get(timeout=5)
        link.client.loop_stop()

    def test_command_line_setting(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            command = [
                brokers.binary(),
                "--set",
                "listeners.tcp.default.bind=127.0.0.1:0",
                "--set",
                "gateway.mqttsn.enable=false",
                "--set",
                f"node.data_dir={directory}",
            ]
            for kind in ("ssl", "ws", "wss"):
                command += ["--set", f"listeners.{kind}.default.enable=false"]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=directory)
            assert process.stdout is not None
            printed = []
            for line in process.stdout:
                printed.append(line.strip())
                if printed[-1] == "ready":
                    break
            process.terminate()
            self.assertEqual(process.wait(20), 0)
            process.stdout.close()
            self.assertEqual(printed[-1], "ready")
            self.assertTrue(any("tcp:default" in line for line in printed), printed)

    def test_port_in_use(self) -> None:
        import socket

        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            said = self.fails(**{"listeners.tcp.default.bind": address})
            self.assertRegex(said, r"tidegate\.conf:\d+:1: listener tcp:default cannot listen on " + address)
            self.assertIn("stop the program that holds it or change listeners.tcp.default.bind", said)

    def test_certificate_cannot_be_read(self) -> None:
        made = brokers.certificates()
        options = {
            "listeners.ssl.default.bind": "127.0.0.1:0",
            "listeners.ssl.default.ssl_options.keyfile": made.path("server-key.pem"),
        }
        said = self.fails(**options, **{"listeners.ssl.default.ssl_options.certfile": "/nonexistent/server.pem"})
        self.assertRegex(said, r"tidegate\.conf:\d+:1: listeners\.ssl\.default\.ssl_options\.certfile: ")
        self.assertIn("/nonexistent/server.pem", said)
        self.assertIn("check the path", said)

    def test_wrong_key(self) -> None:
        made = brokers.certificates()
        said = self.fails(**{
            "listeners.ssl.default.bind": "127.0.0.1:0",
            "listeners.ssl.default.ssl_options.certfile": made.path("server.pem"),
            "listeners.ssl.default.ssl_options.keyfile": made.path("client-key.pem"),
        })  # fmt: skip
        self.assertRegex(said, r"tidegate\.conf:\d+:1: listeners\.ssl\.default\.ssl_options\.keyfile: ")
        self.assertIn("client-key.pem", said)
        self.assertIn("give both files of one pair", said)

    def test_unknown_key_names_the_nearest(self) -> None:
        said = self.fails(**{"mqtt.max_packet_sise": "1MB"})
        self.assertIn("mqtt.max_packet_size", said)
        self.assertIn("tidegate.conf", said)

    def test_missing_unit(self) -> None:
        self.assertIn("mqtt.max_packet_size", self.fails(**{"mqtt.max_packet_size": "1000000"}))

    def test_acl_errors_name_the_line(self) -> None:
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as acl:
            acl.write("{allow, all}.\n{deny, all, subscribe, [}.\n")
            acl.flush()
            said = self.fails(acl_file=acl.name)
            self.assertIn(f"acl_file: {acl.name}:2:25: ", said)

    def test_development_certificates(self) -> None:
        adapters.require(PYTHON)
        with tempfile.TemporaryDirectory() as parent:
            directory = pathlib.Path(parent, "certs")
            adapters.run([brokers.binary(), "cert", "--out", str(directory)])
            for key in ("ca-key.pem", "server-key.pem", "client-key.pem"):
                self.assertEqual(
                    stat.S_IMODE((directory / key).stat().st_mode) & 0o077, 0, f"{key} is readable by others"
                )
            base = "listeners.ssl.default"
            broker = brokers.start({
                f"{base}.bind": "127.0.0.1:0",
                f"{base}.ssl_options.certfile": str(directory / "server.pem"),
                f"{base}.ssl_options.keyfile": str(directory / "server-key.pem"),
                f"{base}.ssl_options.cacertfile": str(directory / "ca.pem"),
                f"{base}.ssl_options.verify": "verify_peer",
                f"{base}.ssl_options.fail_if_no_peer_cert": "true",
            })  # fmt: skip
            self.addCleanup(broker.close)
            context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
            context.load_cert_chain(directory / "client.pem", directory / "client-key.pem")
            PYTHON.connect(broker, "ssl", V5, context=context).close()

    def test_passwords(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            users = pathlib.Path(directory, "users")
            for number, algorithm in enumerate(("argon2id", "bcrypt", "pbkdf2")):
                subprocess.run(
                    [brokers.binary(), "passwd", "--file", str(users), "--algorithm", algorithm, "--stdin", f"user{number}"],
                    input=f"secret{number}\n", text=True, capture_output=True, timeout=20, check=True,
                )  # fmt: skip
            text = users.read_text(encoding="utf-8")
            self.assertNotIn("secret", text)
            broker = brokers.start({"allow_anonymous": "false"}, users=text)
            self.addCleanup(broker.close)
            for version, refused in ((wire.V31, 4), (wire.V311, 4), (wire.V5, 0x86)):
                for number in range(3):
                    self.assertEqual(self.answer(broker, version, f"user{number}", f"secret{number}"), 0)
                self.assertEqual(self.answer(broker, version, "user0", "secret1"), refused)
                # 5 and 0x87: not authorized, for who brings no name at all.
                self.assertIn(self.answer(broker, version, None, None), (refused, 5, 0x87))
                self.assertIn(self.answer(broker, version, "nobody", "secret0"), (refused, 5, 0x87))

    def answer(self, broker: brokers.Broker, version: int, user: str | None, password: str | None) -> int:
        """The code of CONNACK."""
        with wire.Link(broker.address(), version) as link:
            secret = None if password is None else password.encode()
            link.send(wire.connect(version, adapters.unique("login"), username=user, password=secret))
            return link.expect(wire.CONNACK).code


if __name__ == "__main__":
    unittest.main()
