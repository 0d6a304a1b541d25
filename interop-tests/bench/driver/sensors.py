"""Sensors that speak MQTT-SN."""

from __future__ import annotations

import json
import signal
import subprocess

from .bench import Bench
from .brokers import Broker
from .load import LIMIT_SECONDS, Failed, load, words
from .tables import median, number, table

# What waits for each sensor that sleeps.
WAITING = 2


def _start(broker: Broker, **options: object) -> subprocess.Popen:
    command = words("sensors", broker, {"sn_server": f"127.0.0.1:{broker.port}"} | options)
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _run(broker: Broker, extra: dict[str, str], sensors: int, kill: bool, **options: object) -> dict[str, float]:
    """Half of the sensors sleep; each of them is sent messages, the broker is killed or not, and they wake."""
    process = _start(broker, sensors=sensors, pause=True, **options)
    try:
        assert process.stdout is not None and process.stdin is not None
        if process.stdout.readline().strip() != "asleep":
            raise Failed(process.communicate(timeout=10)[1].strip() or "the sensors did not fall asleep")
        asleep = sensors // 2
        sent = load("publish", broker, topic="cmd/{n}", topics=asleep, count=WAITING * asleep, publishers=1, size=32)
        if kill:
            broker.stop(signal.SIGKILL)
            broker.start(extra)
        out, error = process.communicate(f"{broker.pid}\n", timeout=LIMIT_SECONDS)
    except subprocess.TimeoutExpired as expired:
        raise Failed(f"not done in {LIMIT_SECONDS} s") from expired
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        raise Failed(error.strip())
    figures = json.loads(out.splitlines()[-1])
    return figures | {"lost": sent["messages"] - figures["distinct_asleep"]}


def sensors(bench: Bench) -> str:
    """MQTT-SN over UDP, a session and a topic registered and one subscribed by each; half of them asleep."""
    rows = []
    cases = [("10 000 sensors", 0.01, 1, False), ("the same, SIGKILL while they sleep", 0.01, 1, True)]
    cases.append(("10 forwarders, 100 000 nodes", 0.1, 10_000, False))
    for case, millions, behind, kill in cases:

        def run(kind: str, millions: float = millions, behind: int = behind, kill: bool = kill) -> dict[str, float]:
            with bench.broker(kind, start=False) as broker:
                extra = {
                    "gateway.mqttsn.enable": "true",
                    "gateway.mqttsn.listeners.udp.default.bind": f"127.0.0.1:{broker.port}",
                    "gateway.mqttsn.listeners.udp.default.max_connections": "infinity",
                }
                broker.start(extra)
                count = bench.number_of(millions)
                return _run(broker, extra, count, kill, behind=min(behind, count), seconds=bench.seconds)

        found = bench.rounds("sensors", case, run, bench.have(["tidegate"]))
        for runs in found.values():
            of = lambda name, runs=runs: number(median(runs, name))  # noqa: E731
            names = ("connect_peers", "connect_peers_per_s", "connect_cpu_us_per_peer", "connect_rss_bytes_per_peer")
            names += ("publish_messages_per_s", "publish_cpu_us_per_message", "wake_wakes_per_s", "wake_cpu_us_per_wake")
            rows.append([case] + [of(name) for name in (*names, "distinct_asleep", "lost", "not_woken", "repeated")])
    head = ["case", "sensors", "connected/s", "CPU µs each", "RSS B each", "QoS 1 in, msg/s", "CPU µs/msg", "wakes/s"]
    return table(head + ["CPU µs/wake", "messages for sleepers", "lost", "not woken", "requests repeated"], rows)
