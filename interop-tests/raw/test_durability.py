"""What outlives the process: the executable is killed, started again on the same directory, and its clients come back.

`crash/` does this under load and at every moment; here each promise stands by itself. Only for tidegate."""

from __future__ import annotations

import pathlib
import shutil
import subprocess
import tempfile
import threading
import time
import unittest

from harness import broker as brokers
from harness import wire
from harness.wire import V5, V31, V311, VERSIONS

KEPT = [(wire.SESSION_EXPIRY, 3600)]


@unittest.skipIf(brokers.KIND != "tidegate", "about the executable tidegate")
class DurableCase(unittest.TestCase):
    """A directory, and the node on it."""

    settings: dict[str, str] = {}

    def setUp(self) -> None:
        self.root = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-durable-"))
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        self.data = self.root / "data"
        self.links: list[wire.Link] = []
        self.addCleanup(lambda: [link.drop() for link in self.links])
        self.start()

    def start(self, **settings: str) -> None:
        # More than one shard, whatever the machine.
        wanted = {"node.data_dir": str(self.data), "node.workers": "2", **self.settings, **settings}
        self.broker = brokers.start(wanted)
        self.addCleanup(self.broker.close)

    def kill(self) -> None:
        assert self.broker.process is not None
        self.broker.process.kill()
        self.broker.process.wait()

    def restart(self, **settings: str) -> None:
        """SIGKILL, and a new process."""
        self.kill()
        self.start(**settings)

    def link(self, version: int = V5) -> wire.Link:
        found = wire.Link(self.broker.address(), version)
        self.links.append(found)
        return found

    def session(self, client_id: str, version: int = V5, present: bool | None = None, **options: object) -> wire.Link:
        """A client whose session is kept."""
        link = self.link(version)
        if version == V5:
            options.setdefault("props", KEPT)
        found = link.connect(client_id, clean=False, **options)
        if present is not None and version != V31:
            self.assertEqual(found.session_present, present, client_id)
        return link

    def assert_nothing_new(self, packets: list[wire.Packet]) -> None:
        """What clients acknowledge is promised nothing: it may be asked for again, but not as something new."""
        for packet in packets:
            self.assertTrue(packet.kind == wire.PUBREL or (packet.kind == wire.PUBLISH and packet.dup), packet)

    def client(self, version: int = V5, client_id: str = "", **options: object) -> wire.Link:
        link = self.link(version)
        link.connect(client_id or f"client{len(self.links)}", **options)
        return link


class Sigkill(DurableCase):
    def test_sessions_of_every_version_get_what_was_acknowledged_in_order(self) -> None:
        for version in VERSIONS:
            reader = self.session(f"reader{version}", version, present=False)
            self.assertEqual(reader.subscribe(("a/+", 2), ("a/b", 1)).codes, [2, 1])
            reader.drop()
        sender = self.client()
        for number in range(60):
            self.assertEqual(sender.publish("a/b", b"%d" % number, 1 + number % 2), 0)
        self.restart()
        for version in VERSIONS:
            reader = self.session(f"reader{version}", version, present=True)
            found = [reader.take() for _ in range(60)]
            self.assertEqual([int(message.payload) for message in found], list(range(60)))
            self.assertEqual([message.qos for message in found], [1 + number % 2 for number in range(60)])
            self.assertEqual([message.dup for message in found], [False] * 60)
            self.assertEqual(reader.settle(), [])
        # Of what was acknowledged to the end, at most the last quarter of a second comes again, and says so.
        self.restart()
        for version in VERSIONS:
            self.assert_nothing_new(self.session(f"reader{version}", version, present=True).settle())

    def test_sessions_are_there_before_a_listener_opens(self) -> None:
        self.session("reader").subscribe(("a", 1), ("$share/g/b", 1))
        self.restart()
        # The very first publications of the new process find both subscriptions.
        sender = self.client()
        self.assertEqual([sender.publish(topic, b"", 1) for topic in ("a", "b", "c")], [0, 0, 0x10])

    def test_what_a_client_has_not_acknowledged_comes_again_with_its_identifier(self) -> None:
        for version in (V311, V5):
            reader = self.session(f"reader{version}", version)
            reader.subscribe(("a", 2))
            sender = self.client()
            for number in range(6):
                sender.publish("a", b"%d" % number, 2)
            first = [reader.expect(wire.PUBLISH) for _ in range(6)]
            self.assertEqual([message.pid for message in first], [1, 2, 3, 4, 5, 6])
            # 1: done; 2: PUBREC sent, PUBREL seen; 3 to 6: nothing.
            reader.send(wire.ack(wire.PUBREC, 1))
            reader.expect(wire.PUBREL)
            reader.send(wire.ack(wire.PUBCOMP, 1), wire.ack(wire.PUBREC, 2))
            reader.expect(wire.PUBREL)
            self.restart()
            reader = self.session(f"reader{version}", version, present=True)
            again = [reader.receive() for _ in range(5)]
            kinds = {packet.pid: packet.kind for packet in again}
            # The PUBCOMP of 1 was promised nothing: a PUBREL that comes again is as good.
            if kinds.get(1) == wire.PUBREL:
                again.append(reader.receive())
                reader.send(wire.ack(wire.PUBCOMP, 1))
            kinds = {packet.pid: packet.kind for packet in again if packet.pid != 1}
            self.assertEqual(kinds, {2: wire.PUBREL, **dict.fromkeys((3, 4, 5, 6), wire.PUBLISH)})
            messages = [packet for packet in again if packet.kind == wire.PUBLISH]
            self.assertEqual([(found.pid, int(found.payload)) for found in messages], [(3, 2), (4, 3), (5, 4), (6, 5)])
            self.assertEqual([found.dup for found in messages], [True] * 4)
            reader.send(wire.ack(wire.PUBCOMP, 2))
            for message in messages:
                reader.acknowledge(message)
            self.client().publish("a", b"7", 1)
            self.assertEqual(reader.take().pid, 7, "identifiers go on")

    def test_a_publisher_that_repeats_is_not_heard_twice(self) -> None:
        self.session("reader").subscribe(("a", 2))
        sender = self.session("sender")
        sender.send(wire.publish(V5, "a", b"once", 2, 7), wire.publish(V5, "a", b"twice", 2, 8))
        self.assertEqual([sender.expect(wire.PUBREC).pid for _ in range(2)], [7, 8])
        sender.send(wire.ack(wire.PUBREL, 8))
        sender.expect(wire.PUBCOMP)
        self.restart()
        sender = self.session("sender", present=True)
        sender.send(wire.publish(V5, "a", b"once", 2, 7, dup=True))
        self.assertEqual(sender.expect(wire.PUBREC).pid, 7)
        sender.send(wire.ack(wire.PUBREL, 7))
        self.assertEqual(sender.expect(wire.PUBCOMP).code, 0)
        # 8 was released: it is free for another message.
        sender.send(wire.publish(V5, "a", b"another", 2, 8))
        self.assertEqual(sender.expect(wire.PUBREC).pid, 8)
        reader = self.session("reader", present=True)
        self.assertEqual([reader.take().payload for _ in range(3)], [b"once", b"twice", b"another"])
        self.assertEqual(reader.settle(), [])

    def test_subscriptions_keep_their_options(self) -> None:
        reader = self.session("reader")
        retain_as_published, no_local = 8, 4
        reader.subscribe(("a", 1 | retain_as_published), props=[(wire.SUBSCRIPTION_ID, 77)])
        reader.subscribe(("b", 1 | no_local), ("c", 1), ("$exclusive/d", 1))
        reader.send(wire.unsubscribe(V5, ["c"], 9))
        reader.expect(wire.UNSUBACK)
        self.restart()
        reader = self.session("reader", present=True)
        other = self.client()
        self.assertEqual(other.subscribe(("$exclusive/d", 1)).codes, [0x97])
        self.assertEqual(reader.publish("b", b"own", 1), 0)
        self.assertEqual(other.publish("c", b"", 1), 0x10)
        other.publish("a", b"x", 1, retain=True)
        found = reader.take()
        self.assertEqual((found.topic, found.retain, found.get(wire.SUBSCRIPTION_ID)), ("a", True, 77))
        self.assertEqual(reader.settle(), [])

    def test_properties_of_waiting_and_retained_messages(self) -> None:
        props = [
            *((wire.PAYLOAD_FORMAT, 1), (wire.CONTENT_TYPE, "text/plain"), (wire.RESPONSE_TOPIC, "answer")),
            *((wire.CORRELATION, b"\x00\xff"), (wire.USER_PROPERTY, ("k", "v")), (wire.USER_PROPERTY, ("k", "w"))),
        ]
        self.session("reader").subscribe(("a", 1))
        self.client().publish("a", b"x", 1, retain=True, props=props)
        self.restart()
        newcomer = self.client()
        newcomer.subscribe(("a", 0))
        for link in (self.session("reader", present=True), newcomer):
            self.assertCountEqual(link.take().props, props)

    def test_clean_start_forgets_for_good(self) -> None:
        self.session("reader").subscribe(("a", 1))
        self.client().publish("a", b"", 1)
        self.client(client_id="reader")
        self.restart()
        self.assertEqual(self.client().publish("a", b"", 1), 0x10)
        self.assertEqual(self.session("reader", present=False).settle(), [])


class Retained(DurableCase):
    def test_set_replaced_and_removed(self) -> None:
        sender = self.client()
        for topic, payload in (("a", b"1"), ("b", b"1"), ("c", b"1"), ("a", b"2"), ("b", b"")):
            sender.publish(topic, payload, 1, retain=True)
        sender.publish("d", b"qos 0", 0, retain=True)
        sender.publish("short", b"", 1, retain=True)
        sender.publish("short", b"x", 1, retain=True, props=[(wire.MESSAGE_EXPIRY, 1)])
        sender.publish("long", b"x", 1, retain=True, props=[(wire.MESSAGE_EXPIRY, 100)])
        self.kill()
        time.sleep(1.5)
        self.start()
        reader = self.client()
        reader.subscribe(("#", 1))
        found = {message.topic: message for message in (reader.take() for _ in range(4))}
        self.assertEqual(
            {topic: message.payload for topic, message in found.items()},
            {"a": b"2", "c": b"1", "d": b"qos 0", "long": b"x"},
        )
        self.assertTrue(all(message.retain for message in found.values()))
        self.assertIn(found["long"].get(wire.MESSAGE_EXPIRY), range(90, 100))
        self.assertEqual(reader.settle(), [])


class Clocks(DurableCase):
    """What is counted in seconds goes on while nothing runs."""

    def test_delayed_messages(self) -> None:
        self.session("reader").subscribe(("a/#", 2))
        sender = self.client()
        for delay in (1, 4):
            sender.publish(f"$delayed/{delay}/a/{delay}", b"later", 2)
        began = time.monotonic()
        self.kill()
        time.sleep(1.5)
        self.start()
        reader = self.session("reader", present=True)
        self.assertEqual(reader.take().topic, "a/1", "due while nothing ran: at once")
        self.assertEqual(reader.take(10).topic, "a/4")
        self.assertGreaterEqual(time.monotonic() - began, 3.9)
        self.restart()
        self.assert_nothing_new(self.session("reader", present=True).settle())

    def test_wills_with_a_delay(self) -> None:
        watcher = self.session("watcher")
        watcher.subscribe(("will/#", 1))
        for name, delay in (("soon", 1), ("late", 4), ("back", 5)):
            will = wire.Will(f"will/{name}", b"gone", 1, name == "soon", [(wire.WILL_DELAY, delay)])
            self.session(name, will=will).drop()
        began = time.monotonic()
        # That a connection has ended is promised to nobody: it is stored when it is.
        time.sleep(0.5)
        self.kill()
        time.sleep(1)
        self.start()
        self.session("back", present=True)
        watcher = self.session("watcher", present=True)
        self.assertEqual(watcher.take().topic, "will/soon")
        self.assertEqual(watcher.take(10).topic, "will/late")
        self.assertGreaterEqual(time.monotonic() - began, 3.5)
        self.assertEqual(watcher.settle(), [])
        newcomer = self.client()
        newcomer.subscribe(("will/#", 1))
        self.assertEqual(newcomer.take().topic, "will/soon", "it was to be retained")

    def test_sessions_and_messages_expire(self) -> None:
        for name, seconds in (("short", 2), ("long", 100)):
            link = self.session(name, props=[(wire.SESSION_EXPIRY, seconds)])
            link.subscribe((name, 1))
            link.leave()
        sender = self.client()
        sender.publish("long", b"short-lived", 1, props=[(wire.MESSAGE_EXPIRY, 2)])
        sender.publish("long", b"long-lived", 1, props=[(wire.MESSAGE_EXPIRY, 100)])
        # A session whose client is connected when the process is killed begins to expire with the next one.
        time.sleep(0.5)
        self.kill()
        time.sleep(2.5)
        self.start()
        self.assertEqual(self.client().publish("short", b"", 1), 0x10)
        self.session("short", present=False)
        reader = self.session("long", present=True)
        found = reader.take()
        self.assertEqual(found.payload, b"long-lived")
        self.assertIn(found.get(wire.MESSAGE_EXPIRY), range(85, 99))
        self.assertEqual(reader.settle(), [])


class Limits(DurableCase):
    """The limits of a queue apply to a backlog on disk, before and after a restart."""

    def backlog(self, *topics: str, size: int = 3, **settings: str) -> list[tuple[str, int]]:
        """What is left of a hundred messages to each topic in turn."""
        self.restart(**settings)
        reader = self.session("reader")
        reader.subscribe(("#", 1))
        # Nothing is to be under way.
        reader.leave()
        sender = self.client()
        for number in range(100):
            for topic in topics:
                sender.publish(topic, b"%03d" % number + bytes(size - 3), 1)
        sender.publish("end", b"999", 1)
        self.restart(**settings)
        reader = self.session("reader", present=True)
        found = []
        while (message := reader.take()).topic != "end":
            found.append((message.topic, int(message.payload[:3])))
        return found

    def test_length(self) -> None:
        found = self.backlog("a", **{"mqtt.max_mqueue_len": "10", "mqtt.max_inflight": "1"})
        self.assertEqual(found, [("a", number) for number in range(91, 100)])

    def test_bytes(self) -> None:
        found = self.backlog("a", size=1000, **{"mqtt.max_mqueue_bytes": "20KB", "mqtt.max_inflight": "1"})
        numbers = [number for _, number in found]
        self.assertEqual(numbers, list(range(100 - len(numbers), 100)))
        self.assertIn(len(numbers), range(15, 22))

    def test_age(self) -> None:
        settings = {"mqtt.max_mqueue_age": "2s"}
        self.restart(**settings)
        reader = self.session("reader")
        reader.subscribe(("a", 1))
        reader.leave()
        self.client().publish("a", b"old", 1)
        self.kill()
        time.sleep(2.5)
        self.start(**settings)
        self.client().publish("a", b"new", 1)
        reader = self.session("reader", present=True)
        self.assertEqual(reader.take().payload, b"new")
        self.assertEqual(reader.settle(), [])

    def test_priorities(self) -> None:
        settings = {"mqtt.max_mqueue_len": "150", "mqtt.mqueue_priorities": "alarm=10", "mqtt.max_inflight": "1"}
        found = self.backlog("plain", "alarm", **settings)
        self.assertEqual(found[:100], [("alarm", number) for number in range(100)])
        self.assertEqual(found[100:], [("plain", number) for number in range(51, 100)])

    def test_the_size_of_the_log(self) -> None:
        settings = {
            "store.max_bytes": "16MB",
            "store.segment_bytes": "1MB",
            "mqtt.max_mqueue_bytes": "0",
            "node.name": "n",
            "sys_topics.sys_msg_interval": "1s",
        }
        self.restart(**settings)
        reader = self.session("reader")
        reader.subscribe(("a", 1))
        reader.leave()
        sender = self.client()
        for number in range(300):
            self.assertEqual(sender.publish("a", b"%03d" % number + bytes(100_000), 1), 0)
        self.broker.await_log("messages that sessions may be waiting for were dropped at store.max_bytes")
        watcher = self.client()
        watcher.send(wire.subscribe(V5, [("$SYS/brokers/n/store/trimmed/by_size", 0)], 1))
        watcher.expect(wire.SUBACK)
        while not int(watcher.take().payload):
            pass
        self.restart(**settings)
        self.client().publish("a", b"999", 1)
        reader = self.session("reader", present=True)
        found = []
        while (number := int(reader.take().payload[:3])) != 999:
            found.append(number)
        self.assertIn(len(found), range(130, 170))
        self.assertEqual(found, list(range(300 - len(found), 300)))


class Damage(DurableCase):
    """Files that are not as they were written."""

    settings = {"log.level": "info"}

    def fill(self) -> None:
        self.session("reader").subscribe(("a", 1))
        sender = self.client()
        for number in range(100):
            sender.publish("a", b"message %03d" % number, 1)

    def drained(self) -> list[int]:
        reader = self.session("reader", present=True)
        self.client().publish("a", b"message 999", 1)
        found = []
        while (number := int(reader.take().payload[-3:])) != 999:
            found.append(number)
        return found

    def segment(self) -> pathlib.Path:
        (found,) = (self.data / "log").glob("*.log")
        return found

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [brokers.binary(), "store", *arguments, "--data-dir", str(self.data)],
            text=True, capture_output=True, timeout=30, check=False,
        )  # fmt: skip

    def test_a_torn_end(self) -> None:
        self.fill()
        self.kill()
        whole = self.segment().read_bytes()
        self.segment().write_bytes(whole + whole[64:100])
        self.start()
        self.assertIn("the end of the log is torn", self.broker.log())
        self.assertEqual(self.drained(), list(range(100)))

    def test_a_flipped_bit_in_the_log(self) -> None:
        self.fill()
        self.kill()
        damaged = bytearray(self.segment().read_bytes())
        damaged[damaged.index(b"message 050")] ^= 1
        self.segment().write_bytes(damaged)
        checked = self.command("check")
        self.assertEqual((checked.returncode, "the store is damaged" in checked.stdout), (1, True), checked)
        self.start()
        self.assertIn("a part of the log is damaged; what follows it was recovered", self.broker.log())
        self.assertEqual(self.drained(), [number for number in range(100) if number != 50])

    def test_a_flipped_bit_in_the_tables(self) -> None:
        self.fill()
        sender = self.client()
        for number in range(200):
            sender.publish(f"retained/{number}", b"x" * 100, 1, retain=True)
        self.assertEqual(self.broker.terminate(), 0)
        largest = max((self.data / "tables" / "tables").iterdir(), key=lambda file: file.stat().st_size)
        damaged = bytearray(largest.read_bytes())
        damaged[len(damaged) // 3] ^= 1
        largest.write_bytes(damaged)
        with self.assertRaisesRegex(brokers.StartError, r"exit status 3(?s:.*)tidegate store check"):
            self.start()
        self.assertEqual(self.command("check").returncode, 1)
        repaired = self.command("check", "--repair")
        self.assertEqual(repaired.returncode, 0, repaired)
        self.start()
        self.assertEqual(self.drained(), list(range(100)))
        reader = self.client()
        reader.subscribe(("retained/#", 0))
        self.assertEqual(len({reader.take().topic for _ in range(200)}), 200)

    def test_missing_files(self) -> None:
        self.fill()
        self.assertEqual(self.broker.terminate(), 0)
        shutil.rmtree(self.data / "log")
        self.start()
        self.assertIn("the tables know later commits than the log", self.broker.log())
        self.assertEqual(self.drained(), [], "the session is there, its messages are not")
        self.kill()
        (self.data / "VERSION").unlink()
        with self.assertRaisesRegex(brokers.StartError, "exit status 3(?s:.*)holds no store"):
            self.start()


class Terminate(DurableCase):
    def test_what_was_acknowledged_under_load_is_there(self) -> None:
        self.session("reader").subscribe(("a/+", 2))
        acknowledged = [0] * 4

        def load(topic: int, sender: wire.Link) -> None:
            try:
                while sender.publish(f"a/{topic}", b"%d" % acknowledged[topic], 1 + topic % 2) == 0:
                    acknowledged[topic] += 1
            except (wire.Closed, AssertionError, OSError):
                return

        threads = [threading.Thread(target=load, args=(topic, self.client())) for topic in range(4)]
        for thread in threads:
            thread.start()
        while min(acknowledged) < 50:
            time.sleep(0.01)
        self.assertEqual(self.broker.terminate(), 0)
        for thread in threads:
            thread.join()
        self.start(**{"mqtt.max_mqueue_len": "0"})
        reader = self.session("reader", present=True)
        self.client().publish("a/end", b"", 1)
        found: dict[str, list[int]] = {}
        while (message := reader.take()).topic != "a/end":
            found.setdefault(message.topic, []).append(int(message.payload))
        for topic, count in enumerate(acknowledged):
            numbers = found[f"a/{topic}"]
            self.assertEqual(numbers, list(range(len(numbers))))
            # One that was on its way at the end may have been stored.
            self.assertIn(len(numbers), (count, count + 1))


if __name__ == "__main__":
    unittest.main()
