"""Brokers under test: how each is started, told to keep what it acknowledges, and ended.

A broker that is not installed is left out, with the reason. Executables are looked for in `BENCH_BIN` (a directory) and in
the PATH; the one of Tidegate is `BROKER_BIN`.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field

READY_SECONDS = 300
# What a session may have under way at once, the same for all brokers.
INFLIGHT = 1000
CGROUPS = pathlib.Path("/sys/fs/cgroup")


class Absent(Exception):
    """The broker cannot be run here; the message says why."""


def _find(name: str) -> str:
    paths = os.pathsep.join([os.environ.get("BENCH_BIN", ""), os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    found = shutil.which(name, path=paths)
    if found is None:
        raise Absent(f"{name} is not installed")
    return found


def _write(path: pathlib.Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


@dataclass
class Command:
    """How to start a broker."""

    words: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    # Name of the process that does the work, if another one starts it.
    worker: str | None = None
    # Ends what it leaves behind.
    sweep: list[str] | None = None


def _tidegate(directory: pathlib.Path, port: int, extra: dict[str, str]) -> Command:
    binary = os.environ.get("BROKER_BIN")
    if not binary:
        raise Absent("BROKER_BIN is not set")
    settings = {
        "node.data_dir": str(directory / "data"),
        "listeners.tcp.default.bind": f"127.0.0.1:{port}",
        "listeners.ws.default.enable": "false",
        "gateway.mqttsn.enable": "false",
        "log.level": "warning",
        "mqtt.max_inflight": str(INFLIGHT),
        "mqtt.max_mqueue_len": "0",
        "mqtt.max_mqueue_bytes": "0",
    } | extra
    words = [binary]
    for key, value in settings.items():
        words += ["--set", f"{key}={value}"]
    return Command(words)


def _mosquitto(directory: pathlib.Path, port: int, extra: dict[str, str]) -> Command:
    lines = {
        "listener": f"{port} 127.0.0.1",
        "user": "root",
        "allow_anonymous": "true",
        "persistence": "true",
        "persistence_location": f"{directory}/data/",
        "max_inflight_messages": str(INFLIGHT),
        "max_queued_messages": "0",
        "set_tcp_nodelay": "true",
        "log_type": "error",
    } | extra
    (directory / "data").mkdir(exist_ok=True)
    text = "".join(f"{key} {value}\n" for key, value in lines.items())
    return Command([_find("mosquitto"), "-c", _write(directory / "mosquitto.conf", text)])


def _mosquitto_each(directory: pathlib.Path, port: int, extra: dict[str, str]) -> Command:
    return _mosquitto(directory, port, {"autosave_on_changes": "true", "autosave_interval": "1"} | extra)


def _nats(directory: pathlib.Path, port: int, extra: dict[str, str], sync: str = "2m") -> Command:
    text = (
        'server_name: bench\nlisten: "127.0.0.1:-1"\nmax_connections: 1000000\n'
        f'jetstream {{ store_dir: "{directory}/data", max_mem: 4G, max_file: 40G, sync_interval: {sync} }}\n'
        f'mqtt {{ listen: "127.0.0.1:{port}", max_ack_pending: {INFLIGHT} }}\n'
    )
    return Command([_find("nats-server"), "-c", _write(directory / "nats.conf", text)])


def _nats_sync(directory: pathlib.Path, port: int, extra: dict[str, str]) -> Command:
    return _nats(directory, port, extra, "always")


def _rabbitmq(directory: pathlib.Path, port: int, extra: dict[str, str]) -> Command:
    binary = "/usr/lib/rabbitmq/bin/rabbitmq-server"
    if not os.access(binary, os.X_OK):
        raise Absent("rabbitmq-server is not installed")
    _write(directory / "enabled_plugins", "[rabbitmq_mqtt].\n")
    _write(
        directory / "rabbitmq.conf",
        f"listeners.tcp.1 = 127.0.0.1:{port + 1}\nmqtt.listeners.tcp.1 = 127.0.0.1:{port}\n"
        f"mqtt.allow_anonymous = true\nmqtt.default_user = guest\nmqtt.default_pass = guest\nmqtt.prefetch = {INFLIGHT}\n"
        "mqtt.tcp_listen_options.nodelay = true\nlog.console = false\nlog.file.level = error\n"
        "disk_free_limit.absolute = 100MB\nvm_memory_high_watermark.relative = 0.6\n",
    )
    environment = {
        "HOME": str(directory),
        "RABBITMQ_CONFIG_FILE": str(directory / "rabbitmq"),
        "RABBITMQ_MNESIA_BASE": str(directory / "data"),
        "RABBITMQ_LOG_BASE": str(directory / "log"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(directory / "enabled_plugins"),
        "RABBITMQ_NODENAME": f"bench{port}@localhost",
        "RABBITMQ_DIST_PORT": str(port + 2),
        "ERL_EPMD_PORT": str(port + 3),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
    }
    return Command([binary], environment, worker="beam.smp", sweep=["epmd", "-port", str(port + 3), "-kill"])


def _rumqttd(directory: pathlib.Path, port: int, extra: dict[str, str]) -> Command:
    connections = (
        "connection_timeout_ms = 60000\nmax_payload_size = 1048576\nmax_inflight_count = 1000\ndynamic_filters = true\n"
    )
    text = (
        "id = 0\n[router]\nid = 0\nmax_connections = 10010\nmax_outgoing_packet_count = 200\n"
        "max_segment_size = 104857600\nmax_segment_count = 10\n"
        f'[v4.1]\nname = "v4-1"\nlisten = "127.0.0.1:{port}"\nnext_connection_delay_ms = 0\n'
        f"[v4.1.connections]\n{connections}"
        f'[console]\nlisten = "127.0.0.1:{port + 1}"\n'
    )
    return Command([_find("rumqttd"), "-q", "-c", _write(directory / "rumqttd.toml", text)])


KINDS = {
    "tidegate": _tidegate,
    "mosquitto": _mosquitto,
    "mosquitto-each": _mosquitto_each,
    "rabbitmq": _rabbitmq,
    "nats": _nats,
    "nats-sync": _nats_sync,
    "rumqttd": _rumqttd,
}

WHAT = {
    "tidegate": "the defaults (`durability = sync`), but no limits of queues and subscriptions",
    "mosquitto": "`persistence true`; its database is written every 30 minutes and at the end, the defaults",
    "mosquitto-each": "`autosave_on_changes true`, `autosave_interval 1`: its whole database is written after changes",
    "rabbitmq": "its MQTT plugin, durable classic queues, the defaults",
    "nats": "JetStream in files, `sync_interval` of 2 minutes, the default",
    "nats-sync": "JetStream in files, `sync_interval: always`",
    "rumqttd": "keeps its log in memory",
}


class Cage:
    """A control group with a limit of memory, page cache included; version 1 or 2, as the machine has it."""

    def __init__(self, limit_bytes: int) -> None:
        unified = (CGROUPS / "cgroup.controllers").exists()
        parent = CGROUPS if unified else CGROUPS / "memory"
        self.path = parent / f"durability-bench-{os.getpid()}"
        limit = self.path / ("memory.max" if unified else "memory.limit_in_bytes")
        try:
            if unified:
                (CGROUPS / "cgroup.subtree_control").write_text("+memory", encoding="ascii")
            self.path.mkdir()
            limit.write_text(str(limit_bytes), encoding="ascii")
        except OSError as error:
            raise Absent(f"no control group with a limit of memory: {error}") from error

    def wrap(self, words: list[str]) -> list[str]:
        return ["/bin/sh", "-c", f'echo $$ > {self.path}/cgroup.procs && exec "$@"', "sh", *words]

    def remove(self) -> None:
        try:
            self.path.rmdir()
        except OSError:
            pass


class Broker:
    """One running broker in a directory of its own."""

    def __init__(self, kind: str, directory: pathlib.Path, port: int) -> None:
        self.kind = kind
        self.directory = directory
        self.port = port
        self.process: subprocess.Popen | None = None
        self.pid = 0
        self.start_seconds = 0.0
        self.sweep: list[str] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    def start(self, extra: dict[str, str] | None = None, around: list[str] | None = None, cage: Cage | None = None) -> None:
        """Starts it and waits for its CONNACK. `around` are words in front of the command, such as strace's."""
        command = KINDS[self.kind](self.directory, self.port, extra or {})
        self.sweep = command.sweep
        words = (around or []) + command.words
        if cage is not None:
            words = cage.wrap(words)
        log = (self.directory / "log.txt").open("ab")
        began = time.monotonic()
        self.process = subprocess.Popen(
            words,
            cwd=self.directory,
            env=os.environ | command.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        log.close()
        while not self._answers():
            if self.process.poll() is not None:
                raise Absent(f"{self.kind} ended with status {self.process.returncode}; see {self.directory}/log.txt")
            if time.monotonic() - began > READY_SECONDS:
                self.stop(signal.SIGKILL)
                raise Absent(f"{self.kind} was not ready in {READY_SECONDS} s")
            time.sleep(0.005)
        self.start_seconds = time.monotonic() - began
        self.pid = self._worker(command.worker, bool(around))

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as link:
                link.sendall(bytes.fromhex("10 11 0004 4d515454 04 02 0e10 0005 72656164 79"))
                answer = link.recv(4)
                link.sendall(b"\xe0\x00")
                return answer[:1] == b"\x20" and answer[3:4] == b"\x00"
        except OSError:
            return False

    def _worker(self, name: str | None, wrapped: bool) -> int:
        assert self.process is not None
        if name is None and not wrapped:
            return self.process.pid
        below = [self.process.pid]
        for pid in below:
            for task in pathlib.Path(f"/proc/{pid}/task").iterdir():
                below += [int(child) for child in (task / "children").read_text(encoding="ascii").split()]
        for pid in below[1:]:
            if name is None or pathlib.Path(f"/proc/{pid}/comm").read_text(encoding="ascii").strip() == name:
                return pid
        return self.process.pid

    def stop(self, by: signal.Signals = signal.SIGTERM) -> None:
        if self.process is None:
            return
        try:
            if by == signal.SIGKILL:
                os.killpg(self.process.pid, by)
            else:
                os.kill(self.pid, by)
            self.process.wait(300)
        except ProcessLookupError:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(60)
        self.process = None

    def disk_bytes(self) -> int:
        total = 0
        for path in (self.directory / "data").rglob("*"):
            try:
                if path.is_file():
                    total += path.stat().st_blocks * 512
            except FileNotFoundError:
                continue
        return total

    def remove(self) -> None:
        """Ends it and takes away what it wrote."""
        self.stop(signal.SIGKILL)
        if self.sweep is not None:
            subprocess.run(self.sweep, capture_output=True, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)
