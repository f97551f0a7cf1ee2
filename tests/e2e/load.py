"""Many clients, and a model of what they were told: nothing acknowledged is lost, nothing is applied twice."""

import asyncio
import collections
import uuid

from bus import pack, wait_until

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


def all_told(bus, ids):
    """Waits until the stream has an event of each revision."""
    revs = {name: bus.state(name)["rev"] for name in ids}

    def told():
        seen = collections.defaultdict(set)
        for event in bus.events("state"):
            seen[event.get("name")].add(event["rev"])
        return all(seen[name] >= set(range(1, rev + 1)) for name, rev in revs.items())

    wait_until(told, "all events", 60)
