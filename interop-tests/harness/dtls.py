"""A client of DTLS: `openssl s_client` behind the methods of a UDP socket that `mqttsn.Endpoint` needs."""

from __future__ import annotations

import os
import select
import subprocess
import time

from . import broker as brokers


class Refused(Exception):
    """The handshake did not succeed; the message is what openssl says."""


class DtlsSocket:
    """One association. The messages inside have to carry their length, as those of MQTT-SN do: openssl prints what it
    receives without the ends of records."""

    def __init__(self, address: tuple[str, int], *options: str, seconds: float = 10) -> None:
        self.address = address
        self.timeout = seconds
        self.buffer = b""
        command = ["openssl", "s_client", "-dtls1_2", "-connect", "%s:%d" % address, "-nbio", *options]
        # It reads commands from a terminal's lines, such as Q, unless it is quiet; quiet, it says nothing of success.
        self.process = subprocess.Popen(
            [*command, "-quiet", "-no_ign_eof"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            bufsize=0,
        )  # fmt: skip

    def getsockname(self) -> tuple[str, int]:
        return ("127.0.0.1", 0)

    def settimeout(self, seconds: float) -> None:
        self.timeout = seconds

    def sendto(self, data: bytes, _address: tuple[str, int]) -> None:
        """One write is one record, if openssl has read what came before; a pause of a moment sees to it."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(data)
        except BrokenPipeError:
            raise Refused(self.errors()) from None
        time.sleep(0.02)

    def recvfrom(self, _size: int) -> tuple[bytes, tuple[str, int]]:
        assert self.process.stdout is not None
        deadline = time.monotonic() + self.timeout
        while not (message := self._whole()):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.process.stdout], [], [], left)[0]:
                raise TimeoutError
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            if not data:
                raise Refused(self.errors())
            self.buffer += data
        return message, self.address

    def _whole(self) -> bytes:
        if not self.buffer:
            return b""
        if self.buffer[0] == 1:
            size = int.from_bytes(self.buffer[1:3], "big") if len(self.buffer) > 2 else 1 << 16
        else:
            size = self.buffer[0]
        if len(self.buffer) < size:
            return b""
        message, self.buffer = self.buffer[:size], self.buffer[size:]
        return message

    def errors(self) -> str:
        self.close()
        assert self.process.stderr is not None
        return self.process.stderr.read().decode(errors="replace")[-600:]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def psk(identity: str, key: bytes) -> list[str]:
    """Options of a client with a pre-shared key."""
    return ["-psk_identity", identity, "-psk", key.hex(), "-cipher", "PSK-AES128-CCM8:PSK-AES128-GCM-SHA256"]


def certificate(name: str | None = None) -> list[str]:
    """Options of a client that checks the server, and shows a certificate of the run if `name` says which."""
    made = brokers.certificates()
    out = ["-CAfile", made.ca, "-verify_return_error"]
    if name is not None:
        out += ["-cert", made.path(f"{name}.pem"), "-key", made.path(f"{name}-key.pem")]
    return out
