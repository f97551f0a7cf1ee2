"""Several workers of one universe on TiKV: they come, go and die, NATS and TiKV fail, and every message has one effect.

BATOS_CHAOS_SECONDS says for how long things fail (default 60), BATOS_E2E_SEED repeats a run's choices."""

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
import uuid

import pytest

from bus import Bus, wait_until
from load import ACCOUNTS, Load, Model, all_told, compare, make
from universe import BATOS, NATS_SERVER, ROOT, batos, free_port

SECONDS = float(os.environ.get("BATOS_CHAOS_SECONDS") or 60)
STORE = os.environ.get("BATOS_E2E_STORE")
CONTROL = os.environ.get("BATOS_TIKV_CONTROL")


class Crew:
    """Workers with a nats-server of their own."""

    def __init__(self, folder):
        self.folder, self.port = folder, free_port()
        self.name = f"e2e-{uuid.uuid4().hex[:12]}"
        self.workers, self.nats, self.begun = {}, None, 0

    @property
    def url(self):
        return f"nats://127.0.0.1:{self.port}"

    def start_nats(self):
        command = [NATS_SERVER, "--addr", "127.0.0.1", "--port", str(self.port), "--jetstream"]
        with (self.folder / "nats.log").open("a") as log:
            self.nats = subprocess.Popen([*command, "--store_dir", self.folder / "nats"], stdout=log, stderr=log)

    def kill_nats(self):
        self.nats.kill()
        self.nats.wait()

    def start(self):
        """Begins another worker; answers its number."""
        self.begun += 1
        probe, log = free_port(), self.folder / f"worker-{self.begun}.log"
        command = [BATOS, "uvm", "--universe", self.name, "--store", STORE, "--nats", self.url]
        with log.open("a") as file:
            process = subprocess.Popen([*command, "--health", f"127.0.0.1:{probe}"], stdout=file, stderr=file)
        self.workers[self.begun] = (process, probe, log)
        return self.begun

    def ready(self, number):
        process, _, log = self.workers[number]
        wait_until(lambda: "ready" in log.read_text() or process.poll() is not None, f"worker {number}", 60)
        assert process.poll() is None, log.read_text()[-3000:]

    def end(self, number, with_signal):
        process, _, _ = self.workers.pop(number)
        process.send_signal(with_signal)
        return process.wait(60)

    def revive(self):
        """What whoever supervises them does: starts again those that ended."""
        for number, (process, _, _) in list(self.workers.items()):
            if process.poll() is not None:
                del self.workers[number]
                self.start()

    def metric(self, number, name):
        """None while it cannot be had."""
        _, probe, _ = self.workers[number]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{probe}/metrics", timeout=5) as answer:
                lines = answer.read().decode().splitlines()
        except (urllib.error.URLError, OSError):
            return None
        return next(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"batos_{name} "))

    def know_each_other(self):
        wait_until(
            lambda: all(self.metric(number, "workers") == len(self.workers) for number in self.workers),
            "workers that know each other",
        )

    def discard(self):
        for process in [self.nats, *(process for process, _, _ in self.workers.values())]:
            if process and process.poll() is None:
                process.kill()
                process.wait()
        for log in sorted(self.folder.glob("worker-*.log")):
            print(f"--- {log.name}\n{log.read_text()[-2500:]}")


@pytest.fixture
def crew(tmp_path):
    crew = Crew(tmp_path)
    crew.start_nats()
    try:
        for number in [crew.start() for _ in range(3)]:
            crew.ready(number)
        crew.know_each_other()
        yield crew
    finally:
        crew.discard()


@pytest.fixture
def bus(crew):
    bus = Bus(crew.url, crew.name)
    yield bus
    bus.close()


def test_what_belongs_to_another_worker_goes_there_and_is_taken_over(crew, bus):
    ids = [make(bus, f"soak-{number}") for number in range(24)]

    def total(name):
        return sum(crew.metric(number, name) for number in crew.workers)

    for each in ids:
        assert bus.send(each, "deposit:", 1)["value"] == 1
    forwarded, conflicts = total("forwarded_total"), total("conflicts_total")
    for turn in (2, 3):
        for each in ids:
            assert bus.send(each, "deposit:", 1)["value"] == turn
    # Two of three workers have to pass a message on, and nobody meets a record that another has changed.
    assert total("forwarded_total") - forwarded >= len(ids)
    assert total("conflicts_total") == conflicts

    # One leaves, one dies, one comes: what was theirs is carried out by the others, at once.
    leaving, dying, _ = list(crew.workers)
    assert crew.end(leaving, signal.SIGTERM) == 0
    crew.know_each_other()
    for each in ids:
        assert bus.send(each, "deposit:", 1, timeout=5)["value"] == 4
    crew.end(dying, signal.SIGKILL)
    for each in ids:
        assert bus.send(each, "deposit:", 1, repeat=True)["value"] == 5
    crew.ready(crew.start())
    crew.know_each_other()
    for each in ids:
        assert bus.send(each, "deposit:", 1, timeout=5)["value"] == 6


def control(switch):
    """Answers whether the server does."""
    try:
        return urllib.request.urlopen(f"http://{CONTROL}{switch}", timeout=5).read() is not None
    except (urllib.error.URLError, OSError):
        return False


def bed(*verb):
    subprocess.run([ROOT / "hack" / "testbed", *verb], check=True, capture_output=True, timeout=60)


def healed():
    for switch in ["/tso?stall=0", "/ack?drop=0", "/delay?ms=0", "/busy?calls=0", "/primary?refuse=0"]:
        wait_until(lambda: control(switch), switch)


def test_chaos_leaves_what_was_acknowledged(crew, bus, dice):
    ids = {f"soak-{number}": make(bus, f"soak-{number}") for number in range(ACCOUNTS)}
    model, happened = Model(), []

    def kill_worker():
        crew.end(dice.choice(list(crew.workers)), signal.SIGKILL)
        crew.start()

    def stop_worker():
        crew.end(dice.choice(list(crew.workers)), signal.SIGTERM)
        crew.start()

    def restart_nats():
        crew.kill_nats()
        crew.start_nats()

    def restart_tikv():
        bed("tikv", "kill")
        bed("tikv", "start")

    def split():
        control(f"/split?key={(b'batos/' + dice.randbytes(9)).hex()}")

    faults = {
        "worker killed": kill_worker,
        "worker stopped": stop_worker,
        "NATS killed": restart_nats,
        "TiKV killed": restart_tikv,
        "region split": split,
        "timestamps withheld": lambda: control("/tso?stall=1"),
        "acknowledgements lost": lambda: control(f"/ack?drop={dice.randrange(1, 4)}"),
        "calls slow": lambda: control(f"/delay?ms={dice.randrange(5, 60)}"),
        "server busy": lambda: control(f"/busy?calls={dice.randrange(1, 30)}"),
        "prewrites refused": lambda: control(f"/primary?refuse={dice.randrange(1, 4)}"),
    }
    load, begun, left = Load(bus, dice, model, ids), time.monotonic(), []
    try:
        while time.monotonic() - begun < SECONDS:
            load.start()
            for _ in range(4):
                # Each once in a round, in an order that the seed decides.
                left = left or dice.sample(list(faults), len(faults))
                happened.append(left.pop())
                faults[happened[-1]]()
                lasts, since = dice.uniform(0.3, 2.5), time.monotonic()
                target = model.acknowledged + dice.randrange(1, 60)
                wait_until(
                    lambda: load.done.done() or model.acknowledged >= target or time.monotonic() > since + lasts,
                    "the next fault",
                    60,
                )
                healed()
                crew.revive()
            load.stop()
            compare(bus, model, ids)
    finally:
        healed()
    all_told(bus, ids)
    for number in list(crew.workers):
        crew.end(number, signal.SIGTERM)
    checked = batos("check", "--universe", crew.name, "--store", STORE)
    assert checked.returncode == 0 and "all well" in checked.stdout, checked
    counted = ", ".join(f"{happened.count(name)} {name}" for name in faults)
    print(f"{model.acknowledged} messages; {counted}")
    assert model.acknowledged > 0 and len(happened) >= 8
