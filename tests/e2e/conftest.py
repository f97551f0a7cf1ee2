"""Fixtures. BATOS_BIN and BATOS_NATS_SERVER name the binaries; BATOS_E2E_STORE another store than redb;
BATOS_E2E_NATS a universe that is up already (only the tests marked `remote` run then)."""

import os
import random
import uuid

import pytest

from bus import Bus
from universe import Universe

REMOTE = os.environ.get("BATOS_E2E_NATS")
STORE = os.environ.get("BATOS_E2E_STORE")
SEED = int(os.environ.get("BATOS_E2E_SEED") or random.randrange(1 << 32))


# Several workers need a store that they can share.
collect_ignore = [] if STORE and STORE.startswith("tikv:") else ["workers"]


def pytest_report_header():
    return f"store {STORE or 'redb'}, universe {REMOTE or 'of each test'}, BATOS_E2E_SEED={SEED}"


def pytest_collection_modifyitems(items):
    for item in items:
        if REMOTE and not item.get_closest_marker("remote"):
            item.add_marker(pytest.mark.skip(reason="needs a universe of its own"))


@pytest.fixture
def dice(request):
    """Randomness that BATOS_E2E_SEED repeats."""
    return random.Random(f"{SEED} {request.node.name}")


@pytest.fixture
def universe(tmp_path, request):
    """A new universe of the quickstart, started; on a shared store its name keeps it apart."""
    universe = Universe(tmp_path, f"e2e-{uuid.uuid4().hex[:12]}", STORE)
    try:
        universe.start()
        yield universe
    finally:
        universe.discard()
        print(universe.log.read_text()[-8000:] if universe.log.exists() else "no log")


@pytest.fixture
def bus(request):
    """A client of the test's universe."""
    if REMOTE:
        bus = Bus(REMOTE, os.environ.get("BATOS_E2E_UNIVERSE", "quickstart"))
    else:
        universe = request.getfixturevalue("universe")
        bus = Bus(universe.architect, universe.name)
    yield bus
    bus.close()


@pytest.fixture
def account(bus):
    """The quickstart's account and its balance before the test, which is not 0 on a universe that is used already."""
    return bus.state("account")["state"]["balance"]
