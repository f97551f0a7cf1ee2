"""`batos up` as a child process: start it, stop it, kill it."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess

from bus import DEADLINE, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "manifests" / "quickstart"
BATOS = os.environ.get("BATOS_BIN", "batos")
NATS_SERVER = os.environ.get("BATOS_NATS_SERVER", "nats-server")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def batos(*arguments, cwd=None, **environment):
    """Runs a command to its end."""
    environment = {**os.environ, **environment}
    return subprocess.run(
        [BATOS, *arguments], capture_output=True, text=True, timeout=DEADLINE, env=environment, cwd=cwd
    )


def running(pid):
    """A zombie has ended."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def copy_manifests(target, name):
    """The quickstart's manifests with the universe renamed."""
    shutil.copytree(QUICKSTART, target)
    for path in target.glob("*.yaml"):
        path.write_text(re.sub(r"\bquickstart\b(?!-)", name, path.read_text()))


class Universe:
    def __init__(self, directory, name, store=None):
        self.name, self.data, self.manifests = name, directory / "data", directory / "manifests"
        self.log = directory / "batos.log"
        self.port, self.process = free_port(), None
        self.url = f"nats://127.0.0.1:{self.port}"
        self.store = ["--store", store] if store else []
        copy_manifests(self.manifests, name)

    @property
    def architect(self):
        """The URL with the Architect's credentials."""
        return (self.data / "architect.url").read_text().strip()

    @property
    def pids(self):
        return json.loads((self.data / "up.json").read_text())["pids"]

    def spawn(self, **environment):
        command = [BATOS, "up", "-f", self.manifests, "--data", self.data, "--nats-port", str(self.port)]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [*map(str, command), "--nats-server", NATS_SERVER, *self.store],
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )

    def start(self, **environment):
        """Answers when the universe says that it is ready."""
        self.spawn(**environment)
        wait_until(self.is_ready, "batos up")

    def is_ready(self):
        ended = self.process.poll()
        assert ended is None, f"batos up ended with {ended}:\n{self.log.read_text()[-4000:]}"
        try:
            return self.pids["batos"] == self.process.pid and running(self.pids["nats-server"])
        except (FileNotFoundError, json.JSONDecodeError):
            return False

    def kill(self):
        """kill -9 of batos alone; its nats-server is left to whatever happens to it then."""
        self.process.kill()
        self.process.wait()

    def wait_ended(self):
        return self.process.wait(DEADLINE)

    def kill_nats(self):
        """kill -9 of nats-server; batos may go on with a new one or end, then it is started again."""
        # When it was killed a moment ago, the file may still name the dead one.
        pid = wait_until(lambda: next(filter(running, [self.pids["nats-server"]]), None), "a nats-server that runs")
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not running(pid), "end of nats-server")

    def recover(self):
        """What whoever supervises it does: start it again if it ended."""
        if self.process.poll() is not None:
            self.start()

    def stop(self):
        """SIGTERM; answers the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait_ended()

    def discard(self):
        pids = [self.process.pid] if self.process else []
        try:
            pids += self.pids.values()
        except (FileNotFoundError, json.JSONDecodeError):
            pass
        if self.process and self.process.poll() is None:
            self.kill()
        for pid in pids:
            if running(pid) and is_ours(pid):
                os.kill(pid, signal.SIGKILL)


def is_ours(pid):
    """A pid from a file may be somebody else's by now."""
    try:
        command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return b"nats-server" in command or b"batos" in command
