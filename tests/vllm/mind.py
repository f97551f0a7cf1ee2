#!/usr/bin/env python3
"""A universe whose mind is a facet: `batos up`, `batos weaver serve`, a real vLLM. Its model is random, so that nothing but
the grammar makes a method of what it says. A message that nobody wrote is sent; the becoming runs to its end, which is that
it is refused; its journal is shown. Fails unless each draft that was not cut off is a method that compiles.

mind.py, with BATOS_VLLM, BATOS_VLLM_MODELS (hack/vllm env), BATOS_BIN and BATOS_NATS_SERVER.
"""

import json
import os
import pathlib
import sys
import tempfile
import time

from bus import Bus, Failed, wait_until
from test_weaver import Gateway
from universe import Universe, batos

BROKEN = "does not compile"


def main():
    with tempfile.TemporaryDirectory(prefix="batos-mind-") as work:
        work = pathlib.Path(work)
        smith = {"name": "smith", "path": f"{os.environ['BATOS_VLLM_MODELS']}/adapters/smith", "digest": "5" * 16, "rank": 8}
        gateway = Gateway(work, [os.environ["BATOS_VLLM"]], [smith], slots=1, hostSlots=2, seats=8)
        universe = Universe(work, "vllm")
        try:
            return run(gateway, universe)
        finally:
            universe.discard()
            gateway.stop()
            gateway.process.wait()


def run(gateway, universe):
    manifest = universe.manifests / "universe.yaml"
    before, _, _ = manifest.read_text().partition("  mind:")
    mind = {"url": f"{gateway.url}/v1", "model": "smith", "timeoutSeconds": 240}
    manifest.write_text(f"{before}  mind: {json.dumps(mind)}\n")
    universe.start()
    bus, began = Bus(universe.architect, universe.name), time.monotonic()
    try:
        made = bus.send("account", "withdraw:", 30, repeat=True)
        sys.exit(f"random weights wrote what the examples want: {made}")
    except Failed as failed:
        failure = failed
    print(f"`account withdraw: 30` after {time.monotonic() - began:.0f} s: {failure}")
    wait_until(lambda: bus.events("becoming")[-1]["step"] == "refused", "the becoming's last event")
    print("journal:", " ".join(event["step"] for event in bus.events("becoming")))
    bus.close()
    command = ["replay", failure.becoming, "--universe", universe.name, "--nats", universe.architect, "-o", "json"]
    ended = batos(*command)
    assert ended.returncode == 0, ended
    trials = json.loads(ended.stdout)["trials"]
    for trial in trials:
        print(f"  {trial['answer']!r}\n    {trial['verdict']}")
    broken = [trial for trial in trials if BROKEN in trial["verdict"]]
    loads = gateway.metric('loads_total{facet="smith",outcome="ok"}')
    print(f"{len(trials)} drafts, {len(broken)} of them do not compile; {loads:.0f} adapter loaded")
    return failure.kind != "refused" or broken or not trials


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
