"""A universe that is killed again and again under load, beside a model of what it was told to do.

BATOS_SOAK_SECONDS says for how long (default 20). After each kill the store is checked; at the end, and whenever all
clients have their replies, the universe must be what the model says: nothing acknowledged is lost, nothing is applied
twice, and no event is missing. BATOS_E2E_SEED repeats a run's choices."""

import asyncio
import collections
import os
import time
import uuid

from bus import Bus, pack, wait_until
from universe import batos

SECONDS = float(os.environ.get("BATOS_SOAK_SECONDS") or 20)
CLIENTS = 12
ACCOUNTS = 4
METHODS = {
    "deposit:": "deposit: n = ( balance: balance + n. ^balance )",
    # Two objects in one turn: money is neither made nor lost.
    "give:to:": "give: n to: other = ( balance: balance - n. other deposit: n. ^balance )",
    "note:": "note: text = ( notes at: text put: (notes at: text ifAbsent: [0]) + 1. ^notes size )",
    "noted:": "noted: text = ( notes at: text ifAbsent: [0] )",
}


class Model:
    """What every acknowledged message must have done, and what those under way may do."""

    def __init__(self):
        self.balances = collections.Counter()
        self.notes = collections.defaultdict(list)
        self.acknowledged = 0

    def apply(self, target, selector, arguments):
        self.acknowledged += 1
        if selector == "deposit:":
            self.balances[target] += arguments[0]
        elif selector == "give:to:":
            self.balances[target] -= arguments[0]
            self.balances[arguments[1]] += arguments[0]
        else:
            self.notes[target].append(arguments[0])


class Load:
    def __init__(self, bus, dice, model, ids):
        self.bus, self.dice, self.model, self.ids = bus, dice, model, ids
        self.stopping = False

    async def client(self, number):
        """Each message is repeated under its id until it is answered, so all of them are carried out in the end."""
        while not self.stopping:
            target = f"soak-{self.dice.randrange(ACCOUNTS)}"
            other = f"soak-{self.dice.randrange(ACCOUNTS)}"
            selector = self.dice.choice(["deposit:", "give:to:", "note:"])
            arguments = {
                "deposit:": [self.dice.randrange(1, 100)],
                "give:to:": [self.dice.randrange(1, 100), other],
                "note:": [uuid.UUID(int=self.dice.getrandbits(128)).hex[:12]],
            }[selector]
            wire = [{"$ref": self.ids[a]} if a in self.ids else a for a in arguments]
            payload = pack({"command": "send", "selector": selector, "arguments": wire})
            options = {"id": uuid.uuid4().hex, "sender": f"soak-{number}", "timeout": 1}
            reply = await self.bus.ask_until_answered(target, "send", payload, **options)
            assert reply["status"] == "ok", reply
            self.model.apply(target, selector, arguments)

    async def clients(self):
        await asyncio.gather(*(self.client(number) for number in range(CLIENTS)))

    def start(self):
        self.stopping = False
        self.done = asyncio.run_coroutine_threadsafe(self.clients(), self.bus.loop)

    def stop(self):
        self.stopping = True
        self.done.result(120)


def check(universe):
    """The store of a batos that was killed, as `batos check` sees it before anything else opens it."""
    where = universe.store or ["--data", str(universe.data)]
    checked = batos("check", "--universe", universe.name, *where)
    assert checked.returncode == 0 and "all well" in checked.stdout, checked


def compare(bus, model, ids):
    for name in ids:
        state = bus.state(name, repeat=True)["state"]
        assert state["balance"] == model.balances[name], name
        for text in set(model.notes[name]):
            told = bus.send(name, "noted:", text, repeat=True)["value"]
            assert told == model.notes[name].count(text), (name, text)
        assert bus.send(name, "notes", repeat=True)["value"], name
    assert sum(bus.state(name)["state"]["balance"] for name in ids) == sum(model.balances.values())


def make(bus, name):
    slots = [{"name": "balance", "value": 0}, {"name": "notes", "value": None}]
    slots += [{"name": selector, "method": code} for selector, code in METHODS.items()]
    bus.command(name, "apply", {"definition": {"slots": slots}}, cls="adm", repeat=True)
    bus.command(name, "eval", {"source": "self notes: Dictionary new. nil"}, cls="adm", repeat=True)
    return bus.state(name)["object"]


def test_a_universe_survives_kills_under_load(universe, dice):
    bus = Bus(universe.architect, universe.name)
    try:
        ids = {f"soak-{number}": make(bus, f"soak-{number}") for number in range(ACCOUNTS)}
        model, kills, begun = Model(), 0, time.monotonic()
        load = Load(bus, dice, model, ids)
        while time.monotonic() - begun < SECONDS:
            load.start()
            for _ in range(3):
                target = model.acknowledged + dice.randrange(1, 150)
                wait_until(lambda: load.done.done() or model.acknowledged >= target, "more replies", 60)
                if load.done.done():
                    load.done.result()
                if dice.randrange(3) == 0:
                    universe.kill_nats()
                universe.kill()
                kills += 1
                check(universe)
                universe.recover()
            load.stop()
            compare(bus, model, ids)
        revs = {name: bus.state(name)["rev"] for name in ids}

        def told():
            seen = collections.defaultdict(set)
            for event in bus.events("state"):
                seen[event.get("name")].add(event["rev"])
            return all(seen[name] >= set(range(1, rev + 1)) for name, rev in revs.items())

        wait_until(told, "all events", 60)
        print(f"{kills} kills, {model.acknowledged} messages")
        assert kills >= 3 and model.acknowledged > 0
    finally:
        bus.close()
