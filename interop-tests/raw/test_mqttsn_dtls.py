"""MQTT-SN over DTLS 1.2, with OpenSSL as the client: keys, certificates, who is who, datagrams that are none."""

from __future__ import annotations

import pathlib
import socket
import subprocess
import tempfile
from typing import Any, ClassVar

from mqttsn_case import SnCase, settings

from harness import broker as brokers
from harness import dtls, mqttsn
from harness.case import unique
from harness.sensor import Lost, Sensor
from harness.wire import V5

LISTENER = "gateway.mqttsn.listeners.dtls.default."
OPTIONS = f"{LISTENER}dtls_options."
KEYS = {"sensor-1": b"secret of sensor 1", "sensor-2": bytes(range(32))}
ACL = """
{allow, {username, "sensor-1"}, all, ["only/sensor-1/#"]}.
{allow, {username, "interop client"}, all, ["only/certificate/#"]}.
{deny, all, all, ["only/#"]}.
{allow, all}.
"""


class DtlsCase(SnCase):
    """Listeners for UDP and DTLS; the bystander is a sensor on UDP."""

    acl = ACL
    options: ClassVar[dict[str, str]] = {}
    more: ClassVar[dict[str, str]] = {}

    @classmethod
    def setUpClass(cls) -> None:
        directory = tempfile.TemporaryDirectory(prefix="tidegate-psk-")
        cls.addClassCleanup(directory.cleanup)
        keys = pathlib.Path(directory.name, "keys")
        keys.write_text("sensor-1:secret of sensor 1\nsensor-2:hex:" + KEYS["sensor-2"].hex() + "\n", encoding="ascii")
        made = brokers.certificates()
        known = {"psk_file": str(keys), "certfile": made.path("server.pem"), "keyfile": made.path("server-key.pem"),
                 "cacertfile": made.ca}  # fmt: skip
        cls.settings = {
            **settings(),
            f"{LISTENER}bind": "127.0.0.1:0",
            "gateway.mqttsn.clientinfo_override.username": "${ConnInfo.identity}",
            **{OPTIONS + name: known.get(value, value) for name, value in cls.options.items()},
            **cls.more,
        }
        super().setUpClass()

    @property
    def secured(self) -> mqttsn.Address:
        return self.broker.mqttsn("dtls:default")

    def secure(self, options: list[str], client_id: str | None = None) -> Sensor:
        """A sensor with an association of its own, without connection."""
        stream = dtls.DtlsSocket(self.secured, *options)
        found = Sensor(self.secured, client_id or unique("dtls"), stream=stream, retry=2)
        self.addCleanup(found.close)
        return found

    def assert_refused(self, options: list[str]) -> None:
        sensor = self.secure(options)
        with self.assertRaises((dtls.Refused, Lost)):
            sensor.connect()

    def exchange(self, sensor: Sensor, prefix: str) -> None:
        """Both directions at each QoS."""
        sensor.connect()
        topic = unique(prefix)
        topic_id = sensor.register(topic)
        sensor.subscribe(topic, 2)
        for qos in range(3):
            self.assertEqual(sensor.publish(topic_id, b"%d" % qos, qos), mqttsn.ACCEPTED)
            self.assertEqual(sensor.take().payload, b"%d" % qos)


class Keys(DtlsCase):
    options = {"psk_file": "psk_file"}

    def test_both_directions(self) -> None:
        for identity, key in KEYS.items():
            self.exchange(self.secure(dtls.psk(identity, key)), "free/")

    def test_each_cipher_suite(self) -> None:
        for suite in ("PSK-AES128-CCM8", "PSK-AES128-GCM-SHA256"):
            with self.subTest(suite=suite):
                options = [*dtls.psk("sensor-1", KEYS["sensor-1"])[:-1], suite]
                self.exchange(self.secure(options), "free/")

    def test_wrong_keys_and_strangers_are_refused(self) -> None:
        self.assert_refused(dtls.psk("sensor-1", b"guessed"))
        self.assert_refused(dtls.psk("nobody", KEYS["sensor-1"]))
        self.assert_refused(dtls.certificate())

    def test_the_identity_is_the_user(self) -> None:
        self.exchange(self.secure(dtls.psk("sensor-1", KEYS["sensor-1"])), "only/sensor-1/")
        other = self.secure(dtls.psk("sensor-2", KEYS["sensor-2"]))
        other.connect()
        other.send(mqttsn.subscribe("only/sensor-1/x", 1, 3))
        self.assertNotEqual(other.expect(mqttsn.SUBACK).code, mqttsn.ACCEPTED)

    def test_sleeping_across_associations(self) -> None:
        topic, publisher = unique("sleep/"), self.client(V5)
        sensor = self.secure(dtls.psk("sensor-1", KEYS["sensor-1"]))
        sensor.connect()
        sensor.subscribe(topic, 1)
        sensor.sleep(60)
        publisher.publish(topic, b"1", 1)
        self.assertEqual([found.payload for found in sensor.wake()], [b"1"])
        sensor.close()
        publisher.publish(topic, b"2", 1)
        # Neither another identity nor anybody without one.
        for thief in (self.secure(dtls.psk("sensor-2", KEYS["sensor-2"])), self.endpoint()):
            thief.send(mqttsn.pingreq(sensor.client_id))
            thief.expect(mqttsn.DISCONNECT, 10)
        again = self.secure(dtls.psk("sensor-1", KEYS["sensor-1"]), str(sensor.client_id))
        again.names = sensor.names
        self.assertEqual([found.payload for found in again.wake()], [b"2"])

    def test_garbage(self) -> None:
        sensor = self.secure(dtls.psk("sensor-1", KEYS["sensor-1"]))
        sensor.connect()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stream:
            hello = self.hello()
            for data in (b"", b"\x16", mqttsn.searchgw(), mqttsn.connect("plain"), b"\x16\xfe\xfd" + bytes(60),
                         b"\x17\xfe\xfd" + b"\xff" * 60, b"\x14\xfe\xfd\0\0\0\0\0\0\0\1\0\1\1", bytes(1_500),
                         *(hello[:size] for size in range(0, len(hello), 7)), hello + hello, hello[::-1]):  # fmt: skip
                stream.sendto(data, self.secured)
        sensor.ping()
        self.exchange(self.secure(dtls.psk("sensor-2", KEYS["sensor-2"])), "free/")

    def hello(self) -> bytes:
        """The first datagram of a client."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear:
            ear.bind(("127.0.0.1", 0))
            ear.settimeout(5)
            command = ["openssl", "s_client", "-dtls1_2", "-connect", "%s:%d" % ear.getsockname(), *dtls.psk("x", b"y")]
            client = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            try:
                return ear.recv(1 << 16)
            finally:
                client.kill()
                client.communicate()

    def test_first_answers_are_small_and_cost_nothing(self) -> None:
        hello = self.hello()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stream:
            stream.settimeout(5)
            stream.sendto(hello, self.secured)
            answer = stream.recv(1 << 16)
            # HelloVerifyRequest (RFC 6347 §4.2.1).
            self.assertEqual((answer[0], answer[13]), (22, 3))
            self.assertLessEqual(len(answer), len(hello))
        before = self.broker.resident_kib()
        for number in range(10_000):
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stream:
                stream.bind((f"127.9.{number // 250}.{1 + number % 250}", 0))
                stream.sendto(hello, self.secured)
        self.exchange(self.secure(dtls.psk("sensor-1", KEYS["sensor-1"])), "free/")
        self.assertLess(self.broker.resident_kib() - before, 8 * 1_024)


class Certificates(DtlsCase):
    options: ClassVar[dict[str, Any]] = {
        "certfile": "certfile", "keyfile": "keyfile", "cacertfile": "cacertfile", "verify": "verify_peer",
        "fail_if_no_peer_cert": "true",
    }  # fmt: skip

    def test_both_directions_and_the_user(self) -> None:
        self.exchange(self.secure(dtls.certificate("client")), "free/")
        self.exchange(self.secure(dtls.certificate("client")), "only/certificate/")

    def test_strangers_are_refused(self) -> None:
        self.assert_refused(dtls.certificate())
        self.assert_refused(dtls.certificate("stranger"))
        self.assert_refused(dtls.psk("sensor-1", KEYS["sensor-1"]))


class Both(DtlsCase):
    options: ClassVar[dict[str, Any]] = {
        "certfile": "certfile", "keyfile": "keyfile", "psk_file": "psk_file", "verify": "verify_none",
    }  # fmt: skip
    more = {"gateway.mqttsn.clientinfo_override.clientid": "${ConnInfo.identity}"}

    def test_the_client_chooses(self) -> None:
        self.exchange(self.secure(dtls.certificate()), "free/")
        self.exchange(self.secure(dtls.psk("sensor-1", KEYS["sensor-1"])), "free/")

    def test_one_session_per_identity(self) -> None:
        first = self.secure(dtls.psk("sensor-1", KEYS["sensor-1"]), "claims to be a")
        first.connect()
        other = self.secure(dtls.psk("sensor-2", KEYS["sensor-2"]), "claims to be a")
        other.connect()
        first.ping()
        again = self.secure(dtls.psk("sensor-1", KEYS["sensor-1"]), "claims to be b")
        again.connect()
        first.await_kind(mqttsn.DISCONNECT)
        other.ping()
