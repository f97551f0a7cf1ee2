"""A universe that is killed again and again under load, beside a model of what it was told to do.

BATOS_SOAK_SECONDS says for how long (default 20). After each kill the store is checked; at the end, and whenever all
clients have their replies, the universe must be what the model says: nothing acknowledged is lost, nothing is applied
twice, and no event is missing. BATOS_E2E_SEED repeats a run's choices."""

import os
import time

from bus import Bus, wait_until
from load import ACCOUNTS, Load, Model, all_told, compare, make
from universe import batos

SECONDS = float(os.environ.get("BATOS_SOAK_SECONDS") or 20)


def check(universe):
    """The store of a batos that was killed, as `batos check` sees it before anything else opens it."""
    where = universe.store or ["--data", str(universe.data)]
    checked = batos("check", "--universe", universe.name, *where)
    assert checked.returncode == 0 and "all well" in checked.stdout, checked


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
        all_told(bus, ids)
        print(f"{kills} kills, {model.acknowledged} messages")
        assert kills >= 3 and model.acknowledged > 0
    finally:
        bus.close()
