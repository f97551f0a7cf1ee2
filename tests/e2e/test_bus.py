"""What NATS does to a worker: it goes, comes back, refuses, is too slow or too small. Nothing of it is silent."""

import asyncio
import re
import signal
import subprocess
import urllib.request
import uuid

import pytest

from bus import Bus, Failed, pack, unpack, wait_until
from universe import BATOS, NATS_SERVER, free_port, running

CREDENTIALS = """authorization {{ users: [
  {{ user: worker, password: w, permissions: {{ publish: {publish}, subscribe: {subscribe} }} }},
  {{ user: client, password: c }} ] }}"""


class Worker:
    """`batos uvm` with a nats-server of the test's own configuration."""

    def __init__(self, folder):
        self.folder, self.port, self.probe = folder, free_port(), free_port()
        self.name = f"e2e-{uuid.uuid4().hex[:12]}"
        self.log = folder / "batos.log"
        self.children = {}

    def url(self, login=""):
        return f"nats://{login}127.0.0.1:{self.port}"

    def serve(self, *more):
        config = self.folder / "nats.conf"
        lines = [f'listen: "127.0.0.1:{self.port}"', 'lame_duck_grace_period: "10ms"', 'lame_duck_duration: "30s"', *more]
        config.write_text("\n".join(lines))
        with (self.folder / "nats.log").open("a") as log:
            self.children["nats"] = subprocess.Popen([NATS_SERVER, "--config", config], stdout=log, stderr=log)

    def start(self, login=""):
        command = ["uvm", "--universe", self.name, "--store", f"redb://{self.folder}/u.redb"]
        with self.log.open("a") as log:
            self.children["batos"] = subprocess.Popen(
                [BATOS, *command, "--nats", self.url(login), "--health", f"127.0.0.1:{self.probe}"],
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: "ready" in self.log.read_text() or self.children["batos"].poll() is not None, "the worker")

    def metrics(self):
        with urllib.request.urlopen(f"http://127.0.0.1:{self.probe}/metrics", timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name.removeprefix("batos_"): float(value) for name, value in pairs}

    def end(self, child, with_signal=signal.SIGKILL):
        process = self.children.pop(child)
        process.send_signal(with_signal)
        return process.wait(60)

    def discard(self):
        for child in list(self.children):
            self.end(child)
        print(self.log.read_text()[-6000:] if self.log.exists() else "no log")


@pytest.fixture
def worker(tmp_path):
    worker = Worker(tmp_path)
    yield worker
    worker.discard()


@pytest.fixture
def connect(worker):
    made = []

    def connect(login=""):
        wait_until(lambda: is_listening(worker.port), "nats-server")
        made.append(Bus(worker.url(login), worker.name))
        return made[-1]

    yield connect
    for bus in made:
        bus.close()


def is_listening(port):
    import socket

    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def counter(bus, name="counter"):
    slots = [{"name": "n", "value": 0}, {"name": "count", "method": "count = ( n: n + 1. ^n )"}]
    bus.command(name, "apply", {"definition": {"slots": slots}}, cls="adm", repeat=True)


def jetstream(worker):
    return f'jetstream {{ store_dir: "{worker.folder}/jetstream" }}'


def test_metrics_count_what_a_worker_does(worker, connect):
    worker.serve(jetstream(worker))
    bus = connect()
    worker.start()
    counter(bus)
    for _ in range(5):
        bus.send("counter", "count")
    with pytest.raises(Failed):
        bus.send("nobody", "count")
    metrics = worker.metrics()
    assert metrics['requests_total{outcome="ok"}'] == 6
    assert metrics['requests_total{outcome="no_such_object"}'] == 1
    assert metrics['request_seconds_bucket{le="+Inf"}'] == metrics["request_seconds_count"] == 7
    assert metrics["nats_connected"] == 1 and metrics["busy_total"] == 0
    wait_until(lambda: worker.metrics()["events_published_total"] >= 6, "the events")


def test_events_can_be_replayed_once_jetstream_is_there(worker, connect):
    worker.serve()
    bus = connect()
    worker.start()
    following = bus.listen("state")
    counter(bus)
    assert following()["rev"] == 1, "events go over core NATS meanwhile"
    assert "cannot be replayed" in worker.log.read_text()
    worker.end("nats")
    worker.serve(jetstream(worker))
    for n in range(1, 4):
        assert bus.send("counter", "count", repeat=True)["value"] == n

    def replayed():
        try:
            return [event for event in bus.events("state") if event.get("name") == "counter" and event["rev"] == 4]
        except Exception:
            return None

    wait_until(replayed, "the event stream")


def test_a_stream_that_is_deleted_is_made_again_and_no_later_event_is_lost(worker, connect):
    worker.serve(jetstream(worker))
    bus = connect()
    worker.start()
    counter(bus)
    wait_until(lambda: bus.events("state"), "the stream")
    bus.run(bus.nats.jetstream().delete_stream(bus.stream))
    for _ in range(3):
        bus.send("counter", "count")

    def replayed():
        try:
            return {event["rev"] for event in bus.events("state") if event.get("name") == "counter"} >= {2, 3, 4}
        except Exception:
            return False

    wait_until(replayed, "the events")
    assert worker.metrics()["publish_failures_total"] >= 1


def test_a_server_that_is_killed_loses_nothing(worker, connect):
    worker.serve(jetstream(worker))
    bus = connect()
    worker.start()
    counter(bus)
    for n in range(1, 10):
        if n % 3 == 0:
            worker.end("nats")
            worker.serve(jetstream(worker))
        assert bus.send("counter", "count", repeat=True)["value"] == n
    metrics = worker.metrics()
    assert metrics["nats_reconnects_total"] >= 3 and metrics["nats_connected"] == 1
    assert worker.log.read_text().count("connected again") >= 3


def test_a_lame_duck_is_left_and_counters_stay_exact(worker, connect):
    worker.serve(jetstream(worker))
    bus = connect()
    worker.start()
    counter(bus)
    sent = 0

    async def count():
        nonlocal sent
        while worker.children["nats"].poll() is None:
            reply = await bus.ask_until_answered("counter", "send", pack({"command": "send", "selector": "count", "arguments": []}))
            sent += 1
            assert reply["value"] == sent
            if sent == 20:
                subprocess.run([NATS_SERVER, "--signal", f"ldm={worker.children['nats'].pid}"], check=True)

    counting = asyncio.run_coroutine_threadsafe(count(), bus.loop)
    wait_until(lambda: counting.done() or worker.children["nats"].poll() is not None, "the end of nats-server", 60)
    worker.children.pop("nats")
    worker.serve(jetstream(worker))
    counting.cancel() if not counting.done() else counting.result()
    value = bus.send("counter", "n", repeat=True)["value"]
    assert value in (sent, sent + 1), "one may have been under way"
    assert worker.metrics()["nats_lame_ducks_total"] == 1
    assert "about to shut down" in worker.log.read_text()


def test_a_worker_that_may_not_listen_says_so_and_ends(worker, connect):
    worker.serve(CREDENTIALS.format(publish='[">"]', subscribe='["_INBOX_worker.>"]'))
    connect("client:c@")
    worker.start("worker:w@")
    assert worker.children["batos"].wait(30) != 0
    assert re.search(r"[Pp]ermissions [Vv]iolation.*cmd", worker.log.read_text())


def test_a_worker_that_may_not_publish_events_keeps_them(worker, connect):
    publish = '["_INBOX.>", "_INBOX_worker.>", "_INBOX_client.>"]'
    worker.serve(CREDENTIALS.format(publish=publish, subscribe='[">"]'))
    bus = connect("client:c@")
    worker.start("worker:w@")
    counter(bus)
    for _ in range(5):
        bus.send("counter", "count")
    wait_until(lambda: worker.metrics()["nats_refusals_total"] >= 1, "a refusal")
    bus.send("counter", "count")
    wait_until(lambda: worker.metrics()["publish_failures_total"] >= 1, "a failure")
    assert worker.metrics()["outbox_waiting"] >= 1
    assert "events wait in the outbox" in worker.log.read_text()


def test_more_than_can_wait_is_refused_at_once(worker, connect):
    worker.serve(jetstream(worker))
    bus = connect()
    worker.start()
    counter(bus)
    bus.create_method("counter", "spin", "spin = ( 1 to: 300000 do: [ :i | i * i ]. ^1 )")
    kinds = []

    async def flood():
        inbox = bus.nats.new_inbox()
        done = asyncio.Event()

        async def told(message):
            kinds.append(unpack(message.data).get("error", {}).get("kind"))
            if "unavailable" in kinds:
                done.set()

        await bus.nats.subscribe(inbox, cb=told)
        payload = pack({"command": "send", "selector": "spin", "arguments": []})
        for _ in range(9500):
            await bus.nats.publish(f"{bus.prefix}.cmd.counter.send", payload, reply=inbox)
        await asyncio.wait_for(done.wait(), 30)

    bus.run(flood())
    assert "unavailable" in kinds
    assert worker.metrics()["busy_total"] >= 1
    assert worker.metrics()["nats_slow_consumers_total"] == 0


def test_a_reply_that_the_server_does_not_take_is_a_typed_error(worker, connect):
    worker.serve(jetstream(worker), "max_payload: 65536")
    bus = connect()
    worker.start()
    counter(bus)
    with pytest.raises(Failed) as failed:
        source = "| s | s := 'x'. [ s size < 100000 ] whileTrue: [ s := s , s ]. s"
        bus.command("counter", "eval", {"source": source}, cls="adm")
    assert failed.value.kind == "limit_exceeded" and "max_payload" in failed.value.message
    assert worker.metrics()["replies_unsent_total"] == 1
    assert bus.send("counter", "count")["value"] == 1


def test_a_clean_stop_publishes_what_waits(worker, connect):
    worker.serve(jetstream(worker))
    bus = connect()
    worker.start()
    counter(bus)
    for _ in range(50):
        bus.send("counter", "count")
    assert worker.end("batos", signal.SIGTERM) == 0
    assert {event["rev"] for event in bus.events("state") if event.get("name") == "counter"} == set(range(1, 52))
