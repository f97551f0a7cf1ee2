"""What was acknowledged stays, what was not is applied once when it is repeated: whatever dies in between."""

import asyncio
import uuid

import pytest

from bus import pack, wait_until
from universe import running

CLIENTS = 4


class Load:
    """Clients that deposit until they are told to stop, each repeating a message until it is answered."""

    def __init__(self, bus, dice):
        self.bus, self.dice = bus, dice
        self.sent, self.replies, self.stopping = 0, [], False

    async def client(self, sender):
        while not self.stopping:
            amount = self.dice.randrange(1, 1000)
            payload = pack({"command": "send", "selector": "deposit:", "arguments": [amount]})
            self.sent += amount
            id = uuid.uuid4().hex
            reply = await self.bus.ask_until_answered(
                "account", "send", payload, id=id, sender=f"client-{sender}", timeout=1
            )
            assert reply["status"] == "ok", reply
            self.replies.append((id, reply))

    async def clients(self):
        await asyncio.gather(*(self.client(number) for number in range(CLIENTS)))

    def start(self):
        self.done = asyncio.run_coroutine_threadsafe(self.clients(), self.bus.loop)

    def wait_for_more(self, count):
        target = len(self.replies) + count
        wait_until(lambda: self.done.done() or len(self.replies) >= target, f"{count} more replies")
        if self.done.done():
            self.done.result()

    def stop(self):
        self.stopping = True
        self.done.result(120)


@pytest.mark.parametrize("victim", ["batos", "nats-server", "both"])
def test_kill_9_loses_nothing_and_repeats_nothing(universe, bus, dice, victim):
    before = bus.state("account")
    load = Load(bus, dice)
    load.start()
    for _ in range(4):
        load.wait_for_more(dice.randrange(1, 60))
        if victim != "batos":
            universe.kill_nats()
        if victim != "nats-server":
            universe.kill()
        universe.recover()
    load.wait_for_more(20)
    load.stop()

    after = bus.state("account", repeat=True)
    assert after["state"]["balance"] == before["state"]["balance"] + load.sent
    revs = [reply["rev"] for _, reply in load.replies]
    assert sorted(revs) == list(range(before["rev"] + 1, after["rev"] + 1)), "one revision for each id"

    def told():
        return [event for event in bus.events("state") if event.get("name") == "account"]

    wait_until(lambda: max((event["rev"] for event in told()), default=0) == after["rev"], "the last event")
    events = told()
    assert {event["rev"] for event in events} == set(range(1, after["rev"] + 1)), "no gaps"
    assert all(event["prev_rev"] == event["rev"] - 1 for event in events)


def test_a_clean_stop_ends_everything_and_a_restart_goes_on(universe, bus):
    first = bus.raw("account", "send", pack({"command": "send", "selector": "deposit:", "arguments": [5]}), id="once")
    state = bus.state("account")
    nats_server = universe.pids["nats-server"]
    assert universe.stop() == 0
    assert not (universe.data / "up.json").exists()
    assert not running(nats_server)
    universe.start()
    assert bus.state("account", repeat=True) == state
    again = bus.raw("account", "send", pack({"command": "send", "selector": "deposit:", "arguments": [5]}), id="once")
    assert again == first
    assert bus.state("account") == state


def test_ctrl_c_under_load_answers_what_it_began(universe, bus, dice):
    load = Load(bus, dice)
    load.start()
    load.wait_for_more(30)
    assert universe.stop() == 0
    universe.start()
    load.wait_for_more(10)
    load.stop()
    assert bus.state("account")["state"]["balance"] == load.sent
