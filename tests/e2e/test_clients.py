"""Many clients at the same time: what each was told is true, and all of it together is exact."""

import asyncio
import collections
import uuid

from bus import Bus, pack

CLIENTS = 200
CONNECTIONS = 20
COUNTERS = 10
SENDS = 10


def make_counters(bus):
    slots = [{"name": "n", "value": 0}, {"name": "count", "method": "count = ( n: n + 1. ^n )"}]
    for number in range(COUNTERS):
        bus.command(f"counter-{number}", "apply", {"definition": {"slots": slots}}, cls="adm", repeat=True)


async def client(bus, number, told, pause):
    """Counts in turn on all counters, repeating each message until it is answered."""
    payload = pack({"command": "send", "selector": "count", "arguments": []})
    for n in range(SENDS):
        target = f"counter-{(number + n) % COUNTERS}"
        id, sender = uuid.uuid4().hex, f"client-{number}"
        reply = await bus.ask_until_answered(target, "send", payload, id=id, sender=sender, timeout=5)
        assert reply["status"] == "ok", reply
        told[target].append(reply["value"])
        await pause()


def run_clients(universe, dice, disturb):
    """200 clients on 20 connections; `disturb` runs beside them. Asserts that every count was told exactly once."""
    buses = [Bus(universe.architect, universe.name) for _ in range(CONNECTIONS)]
    told = collections.defaultdict(list)

    async def pause():
        await asyncio.sleep(dice.random() * 0.2)

    async def share(bus, first):
        numbers = range(first, CLIENTS, CONNECTIONS)
        await asyncio.gather(*(client(bus, number, told, pause) for number in numbers))

    try:
        make_counters(buses[0])
        running = [asyncio.run_coroutine_threadsafe(share(bus, n), bus.loop) for n, bus in enumerate(buses)]
        disturb(lambda: sum(map(len, told.values())))
        for done in running:
            done.result(180)
        for target, values in told.items():
            assert sorted(values) == list(range(1, CLIENTS * SENDS // COUNTERS + 1)), target
            assert buses[0].send(target, "n", repeat=True)["value"] == len(values)
        assert len(told) == COUNTERS
    finally:
        for bus in buses:
            bus.close()


def test_200_clients_are_told_every_count_once(universe, dice):
    run_clients(universe, dice, lambda answered: None)


def test_200_clients_while_nats_and_batos_are_killed(universe, dice):
    from bus import wait_until

    def disturb(answered):
        for part, kill in enumerate([universe.kill_nats, universe.kill, universe.kill_nats], start=1):
            wait_until(lambda: answered() >= CLIENTS * SENDS * part // 5, "more replies", 120)
            kill()
            universe.recover()

    run_clients(universe, dice, disturb)
