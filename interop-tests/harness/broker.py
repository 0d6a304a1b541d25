"""Starts the broker under test and tells where it listens.

`BROKER` selects it: `tidegate` (default; the binary named by `BROKER_BIN`), `mosquitto` (a reference broker, to
check the tests themselves; settings that it does not have are left out) or `external` (a broker that runs already;
`BROKER_TCP`, `BROKER_SSL`, `BROKER_WS`, `BROKER_WSS`, `BROKER_MQTTSN` = host:port, with the certificates of
`INTEROP_CERTS`).
"""

from __future__ import annotations

import atexit
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from dataclasses import dataclass, field

KIND = os.environ.get("BROKER", "tidegate")
START_SECONDS = 20
_LISTENING = re.compile(
    r"(?P<name>(?:[a-z]+:)?(?:tcp|ssl|ws|wss|udp|dtls):[\w.-]+).*?"
    r"(?P<host>\d+\.\d+\.\d+\.\d+|\[[0-9a-fA-F:]+\]|localhost):(?P<port>\d+)"
)


class StartError(Exception):
    """The broker did not come up; the message holds what it printed."""


@dataclass
class Certificates:
    """A throw-away authority, a server certificate for localhost and 127.0.0.1, a client certificate, a stranger's."""

    directory: pathlib.Path

    def path(self, name: str) -> str:
        return str(self.directory / name)

    @property
    def ca(self) -> str:
        return self.path("ca.pem")


_CERTIFICATES: Certificates | None = None


def certificates() -> Certificates:
    """The certificates of this run, made on first use with the openssl command (in `INTEROP_CERTS`, if set)."""
    global _CERTIFICATES
    if _CERTIFICATES is None:
        kept = os.environ.get("INTEROP_CERTS")
        directory = pathlib.Path(kept or tempfile.mkdtemp(prefix="tidegate-certs-"))
        made = Certificates(directory)
        if (directory / "stranger.pem").exists():
            _CERTIFICATES = made
            return made
        directory.mkdir(parents=True, exist_ok=True)
        if kept is None:
            atexit.register(shutil.rmtree, directory, ignore_errors=True)
        _authority(made, "ca")
        _authority(made, "stranger-ca")
        _leaf(made, "server", "ca", "serverAuth", "DNS:localhost,IP:127.0.0.1,IP:::1")
        _leaf(made, "client", "ca", "clientAuth", "DNS:client")
        _leaf(made, "stranger", "stranger-ca", "clientAuth", "DNS:stranger")
        _CERTIFICATES = made
    return _CERTIFICATES


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def _authority(made: Certificates, name: str) -> None:
    _openssl(
        *("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30".split()),
        *("-subj", f"/CN=interop {name}", "-keyout", made.path(f"{name}-key.pem"), "-out", made.path(f"{name}.pem")),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
    )


def _leaf(made: Certificates, name: str, authority: str, usage: str, names: str) -> None:
    request, extensions = made.path(f"{name}.csr"), made.path(f"{name}.ext")
    _openssl(
        *("req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes".split()),
        *("-subj", f"/CN=interop {name}", "-keyout", made.path(f"{name}-key.pem"), "-out", request),
    )
    pathlib.Path(extensions).write_text(
        f"basicConstraints=CA:FALSE\nextendedKeyUsage={usage}\nsubjectAltName={names}\n", encoding="ascii"
    )
    _openssl(
        *("x509 -req -days 30 -CAcreateserial".split()),
        *("-in", request, "-CA", made.path(f"{authority}.pem"), "-CAkey", made.path(f"{authority}-key.pem")),
        *("-out", made.path(f"{name}.pem"), "-extfile", extensions),
    )


def tls_listener(name: str, kind: str = "ssl", verify: str = "verify_none", required: bool = False) -> dict[str, str]:
    """Settings of one TLS listener on a free port."""
    made = certificates()
    base = f"listeners.{kind}.{name}"
    return {
        f"{base}.bind": "127.0.0.1:0",
        f"{base}.ssl_options.certfile": made.path("server.pem"),
        f"{base}.ssl_options.keyfile": made.path("server-key.pem"),
        f"{base}.ssl_options.cacertfile": made.ca,
        f"{base}.ssl_options.verify": verify,
        f"{base}.ssl_options.fail_if_no_peer_cert": "true" if required else "false",
    }


DEFAULT_LISTENERS = {"listeners.tcp.default.bind": "127.0.0.1:0"}


@dataclass
class Broker:
    """A running broker; `close` ends it."""

    addresses: dict[str, tuple[str, int]]
    process: subprocess.Popen[str] | None = None
    directory: pathlib.Path | None = None
    output: list[str] = field(default_factory=list)

    def address(self, listener: str = "tcp:default") -> tuple[str, int]:
        if listener not in self.addresses:
            if KIND != "tidegate":
                raise unittest.SkipTest(f"this broker has no listener {listener}")
            raise StartError(f"no listener {listener}; known: {sorted(self.addresses)}")
        return self.addresses[listener]

    def mqttsn(self, listener: str = "udp:default") -> tuple[str, int]:
        """Where the gateway for MQTT-SN listens."""
        return self.address(f"mqttsn:{listener}")

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    def resident_kib(self) -> int:
        """Resident memory of the broker, KiB."""
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1])
        raise AssertionError("no VmRSS in the process status")

    def log(self) -> str:
        """What the broker has logged so far."""
        assert self.directory is not None
        return (self.directory / "log").read_text(encoding="utf-8")

    def await_log(self, text: str, start: int = 0, seconds: float = 10) -> str:
        """Waits for `text` in the log from `start` on, and returns the log from there."""
        deadline = time.monotonic() + seconds
        while text not in self.log()[start:]:
            if time.monotonic() > deadline:
                raise AssertionError(f"no {text!r} in the log: {self.log()[start:]}")
            time.sleep(0.02)
        return self.log()[start:]

    def terminate(self, seconds: float = 20) -> int:
        """Sends SIGTERM and returns the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.directory is not None:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None


def start(settings: dict[str, str] | None = None, acl: str | None = None, users: str | None = None) -> Broker:
    """Starts a broker with these settings over one TCP listener on a free port of the loopback."""
    wanted = dict(DEFAULT_LISTENERS)
    wanted.update(settings or {})
    if KIND == "external":
        return _external()
    directory = pathlib.Path(tempfile.mkdtemp(prefix="tidegate-broker-"))
    if acl is not None:
        (directory / "acl.conf").write_text(acl, encoding="utf-8")
        wanted["acl_file"] = str(directory / "acl.conf")
    if users is not None:
        (directory / "users").write_text(users, encoding="utf-8")
        wanted["authentication.users_file"] = str(directory / "users")
    if KIND == "mosquitto":
        return _mosquitto(directory, wanted)
    return _tidegate(directory, wanted)


def binary() -> str:
    """The broker's executable."""
    path = os.environ.get("BROKER_BIN")
    if not path:
        raise StartError("BROKER_BIN is not set")
    return path


def _external() -> Broker:
    addresses = {}
    for kind in ("tcp", "ssl", "ws", "wss"):
        value = os.environ.get(f"BROKER_{kind.upper()}")
        if value:
            host, port = value.rsplit(":", 1)
            addresses[f"{kind}:default"] = (host, int(port))
    if value := os.environ.get("BROKER_MQTTSN"):
        host, port = value.rsplit(":", 1)
        addresses["mqttsn:udp:default"] = (host, int(port))
    return Broker(addresses)


def _tidegate(directory: pathlib.Path, wanted: dict[str, str]) -> Broker:
    settings = {"allow_anonymous": "true", "node.data_dir": str(directory / "data"), "log.level": "warning"}
    for kind in ("tcp", "ssl", "ws", "wss"):
        # The listeners that are on by default would bind fixed ports.
        if f"listeners.{kind}.default.bind" not in wanted:
            settings[f"listeners.{kind}.default.enable"] = "false"
    if not any(key.startswith("gateway.mqttsn.listeners.") for key in wanted):
        settings["gateway.mqttsn.enable"] = "false"
    elif "gateway.mqttsn.listeners.udp.default.bind" not in wanted:
        settings["gateway.mqttsn.listeners.udp.default.enable"] = "false"
    settings.update(wanted)
    config = directory / "tidegate.conf"
    config.write_text("".join(f"{key} = {value}\n" for key, value in settings.items()), encoding="utf-8")
    log = (directory / "log").open("w", encoding="utf-8")
    process = subprocess.Popen(
        [binary(), "start", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=log,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=directory,
        # Variables of that prefix are settings of the broker: the tests' own do not reach it.
        env={name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")},
    )
    log.close()
    broker = Broker({}, process, directory)
    ready = threading.Event()
    threading.Thread(target=_read_output, args=(broker, ready), daemon=True).start()
    deadline = time.monotonic() + START_SECONDS
    while not ready.wait(0.02):
        if process.poll() is not None or time.monotonic() > deadline:
            printed = "\n".join(broker.output) + (directory / "log").read_text(encoding="utf-8")
            status = process.poll()
            broker.close()
            raise StartError(f"the broker is not ready (exit status {status}): {printed[-2000:]}")
    return broker


def _read_output(broker: Broker, ready: threading.Event) -> None:
    assert broker.process is not None and broker.process.stdout is not None
    for line in broker.process.stdout:
        broker.output.append(line.rstrip("\n"))
        found = _LISTENING.search(line)
        if found:
            broker.addresses[found["name"]] = (found["host"].strip("[]"), int(found["port"]))
        if line.strip() == "ready":
            ready.set()


def free_port() -> int:
    """A port of the loopback that was free a moment ago (for brokers that cannot pick one)."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


_MOSQUITTO_SETTINGS = {
    "mqtt.max_packet_size": "max_packet_size",
    "mqtt.server_keepalive": "max_keepalive",
    "mqtt.max_inflight": "max_inflight_messages",
    "mqtt.receive_maximum": "max_inflight_messages",
}


def _plain(value: str) -> int:
    """A size or duration as a bare number of bytes or seconds."""
    number, unit = re.fullmatch(r"(\d+)(\w*)", value).groups()  # type: ignore[union-attr]
    return int(number) * {"KB": 1 << 10, "MB": 1 << 20}.get(unit, 1)


def _mosquitto(directory: pathlib.Path, wanted: dict[str, str]) -> Broker:
    lines = ["per_listener_settings false", "allow_anonymous true", "persistence false", "user root"]
    for key, name in _MOSQUITTO_SETTINGS.items():
        if key in wanted:
            lines.append(f"{name} {_plain(wanted[key])}")
    names = sorted({".".join(key.split(".")[1:3]) for key in wanted if key.startswith("listeners.")})
    addresses = {}
    for name in names:
        kind, label = name.split(".")
        if kind in ("ws", "wss"):
            # Debian builds mosquitto without WebSocket.
            continue
        port = free_port()
        lines.append(f"listener {port} 127.0.0.1")
        options = {key.rsplit(".", 1)[1]: value for key, value in wanted.items() if f"{name}.ssl_options" in key}
        if options:
            lines += [
                f"cafile {options['cacertfile']}",
                f"certfile {options['certfile']}",
                f"keyfile {options['keyfile']}",
            ]
            lines.append(f"require_certificate {options['fail_if_no_peer_cert']}")
        addresses[f"{kind}:{label}"] = ("127.0.0.1", port)
    config = directory / "mosquitto.conf"
    config.write_text("\n".join(lines) + "\n", encoding="ascii")
    with (directory / "log").open("w", encoding="utf-8") as log:
        process = subprocess.Popen(["/usr/sbin/mosquitto", "-c", str(config)], stdout=log, stderr=log, text=True)
    broker = Broker(addresses, process, directory)
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(next(iter(addresses.values())), timeout=1).close()
            return broker
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                printed = (directory / "log").read_text(encoding="utf-8")
                broker.close()
                raise StartError(f"mosquitto is not ready: {printed[-2000:]}") from None
            time.sleep(0.02)
