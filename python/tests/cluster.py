"""Real clusters for the tests: `kdn node` processes and real sockets."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
KDN = Path(os.environ.get("KDN_BINARY", REPO / "build" / "bin" / "kdn"))
MODEL = REPO / "model" / "recall"
_START_TIMEOUT_S = 60
_PR_SET_PDEATHSIG = 1


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _die_with_parent() -> None:
    # The nodes end with the tests, even if the tests are killed.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def make_certificates(config: Path, directory: Path) -> None:
    """An authority, and a certificate of each node of `config`."""
    command = [str(KDN), "certs", "-c", str(config), "-o", str(directory)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


class Node:
    """One `kdn node` process and the lines of its log."""

    def __init__(self, config: Path, node_id: str) -> None:
        self.id = node_id
        self.lines: list[str] = []
        self._said = threading.Condition()
        self._process = subprocess.Popen(
            [str(KDN), "node", "-c", str(config), "--id", node_id],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=_die_with_parent,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._said:
                self.lines.append(line)
                self._said.notify_all()

    def wait_for(self, text: str) -> None:
        def said() -> bool:
            return any(text in line for line in self.lines)

        with self._said:
            if not self._said.wait_for(said, _START_TIMEOUT_S):
                raise TimeoutError(f"{self.id} did not log {text!r}:\n{''.join(self.lines)}")

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stops the process meanwhile: the kernel accepts connections, but nothing answers."""
        self._process.send_signal(signal.SIGSTOP)
        # Threads may still answer until all of them have stopped.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self._process.poll() is None:
            self._process.send_signal(number)
        self._process.wait(timeout=60)
        self._reader.join(timeout=10)


class Cluster:
    """Nodes n1, n2, ... on this host; a context manager. With `tls` they have certificates."""

    def __init__(
        self, directory: Path, nodes: int = 3, memory: str = "128 MiB", disk: bool = True, tls: bool = False
    ) -> None:
        self.directory = directory
        ports = _free_ports(3 * nodes)
        lines = ["cluster:", "  name: test", f"  replicas: {min(nodes, 2)}", "nodes:"]
        for i in range(nodes):
            control, bulk, gateway = ports[3 * i : 3 * i + 3]
            lines += [
                f"  - id: n{i + 1}",
                "    host: 127.0.0.1",
                f"    control_port: {control}",
                f"    bulk_port: {bulk}",
                f"    gateway_port: {gateway}",
                f"    gateway_socket: {directory}/n{i + 1}.sock",
                f"    memory: {memory}",
            ]
            if disk:
                lines += [f"    data_dir: {directory}/n{i + 1}", "    disk: 1 GiB"]
        self._ports = ports
        self._config = directory / "cluster.yaml"
        if tls:
            lines.append(f"security: {{certificates: {directory}/certs}}")
        self._config.write_text("\n".join(lines) + "\n")
        if tls:
            make_certificates(self._config, directory / "certs")
        self.nodes = [Node(self._config, f"n{i + 1}") for i in range(nodes)]
        for node in self.nodes:
            node.wait_for("ready:")
            if nodes > 1:
                node.wait_for(f"{nodes} of {nodes} nodes live")

    def unix(self, i: int = 0) -> str:
        return f"unix:{self.directory}/n{i + 1}.sock"

    def tcp(self, i: int = 0) -> str:
        return f"127.0.0.1:{self._ports[3 * i + 2]}"

    def tls(self, i: int = 0, host: str = "127.0.0.1") -> str:
        return f"tls://{host}:{self._ports[3 * i + 2]}"

    @property
    def ca(self) -> str:
        return f"{self.directory}/certs/ca.pem"

    def kill(self, i: int) -> None:
        """Kills node `i` with SIGKILL, so that it closes nothing in order."""
        self.nodes[i].end(signal.SIGKILL)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: Any) -> None:
        for node in self.nodes:
            node.end()
