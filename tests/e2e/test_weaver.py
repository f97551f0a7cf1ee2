"""`batos weaver`: the gateway as a process, before played vLLM engines as processes, over real sockets."""

import concurrent.futures
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request

import pytest

from bus import DEADLINE, wait_until
from universe import BATOS, ROOT, batos, free_port

FAKE = os.environ.get("BATOS_FAKE_VLLM")
ADAPTERS = ROOT / "tests" / "fake-vllm" / "adapters"
CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"

pytestmark = pytest.mark.skipif(not FAKE, reason="BATOS_FAKE_VLLM names no binary")


def call(url, body=None, token=None):
    """Status, headers and JSON of an answer, whatever it says."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=DEADLINE) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, error.headers, json.load(error)


def chat(text="hello there", **more):
    return {"messages": [{"role": "user", "content": text}], **more}


class Engine:
    """A fake-vllm."""

    def __init__(self, log, slots=2, host_slots=16, port=None):
        self.log, self.port = log, port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        arguments = ["--runtime-updates", f"--max-loras={slots}", f"--max-cpu-loras={host_slots}", "--max-lora-rank=16"]
        command = [FAKE, "base", "--host=127.0.0.1", f"--port={self.port}", *arguments]
        with log.open("w") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out)
        wait_until(lambda: " on 127.0.0.1:" in log.read_text(), "fake-vllm")

    def script(self, *steps):
        assert call(self.url + "/fake/script", list(steps))[0] == 200

    def release(self):
        """Streams that wait in their middle go on."""
        assert call(self.url + "/fake/release", {})[0] == 200

    def asked(self):
        return [request["body"] for request in call(self.url + "/fake/requests")[2]]

    def loads(self):
        return re.findall(r'^loaded: "([^"]*)"', self.log.read_text(), re.MULTILINE)

    def in_flight(self):
        """Sets of adapters that were in flight at once, the latest last."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=DEADLINE) as answer:
            seen = re.findall(r'running_lora_adapters="([^"]*)".* ([\d.]+)$', answer.read().decode(), re.MULTILINE)
        return [set(filter(None, names.split(","))) for names, _ in sorted(seen, key=lambda one: float(one[1]))]

    def kill(self):
        self.process.kill()
        self.process.wait()


class Gateway:
    def __init__(self, directory, engines, facets=(), **settings):
        """`facets` are names, or facets in full."""
        self.log, self.health = directory / "gateway.log", f"http://127.0.0.1:{free_port()}"
        self.file, self.config = directory / "gateway.yaml", {"model": "base"}
        engine = {key: settings.pop(key, usual) for key, usual in [("slots", 2), ("hostSlots", 16), ("seats", 64)]}
        self.configure(engine=engine, pods=engines, facets=facets, **settings)
        command = [BATOS, "weaver", "serve", "--config", self.file, "--listen", "127.0.0.1:0"]
        with self.log.open("w") as out:
            command += ["--health", self.health.removeprefix("http://")]
            self.process = subprocess.Popen([*map(str, command)], stdout=out, stderr=out)
        found = wait_until(lambda: re.search(r"serving on (127\.0\.0\.1:\d+)", self.log.read_text()), "the gateway")
        self.address = found[1]
        self.url = f"http://{self.address}"

    def configure(self, **changes):
        self.config |= changes
        pods = [engine if isinstance(engine, str) else engine.url for engine in self.config["pods"]]
        facets = [facet(name) if isinstance(name, str) else name for name in self.config["facets"]]
        self.write(json.dumps({**self.config, "pods": pods, "facets": facets}))

    def write(self, text):
        # Never seen half written.
        new = self.file.with_suffix(".new")
        new.write_text(text)
        new.replace(self.file)

    def ready(self):
        try:
            with urllib.request.urlopen(self.health + "/readyz", timeout=DEADLINE) as answer:
                return answer.status == 200
        except (urllib.error.URLError, ConnectionError):
            return False

    def metric(self, line):
        """The value of a series, 0 while there is none."""
        with urllib.request.urlopen(self.health + "/metrics", timeout=DEADLINE) as answer:
            text = answer.read().decode()
        found = re.search(rf"^batos_weaver_{re.escape(line)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def chat(self, model, token=None, path=CHAT, **more):
        return call(self.url + path, {"model": model, **chat(**more)}, token)

    def refused(self, status, code, *arguments, **more):
        """Asserts that a chat is refused so; answers the headers and what the error says."""
        answered, headers, body = self.chat(*arguments, **more)
        assert (answered, body["error"]["code"]) == (status, code), body
        assert set(body["error"]) == {"message", "type", "param", "code"}
        return headers, body["error"]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)


class Stream:
    """A streamed chat that is read event by event."""

    def __init__(self, gateway, model, token=None):
        self.connection = http.client.HTTPConnection(gateway.address, timeout=DEADLINE)
        body = json.dumps({"model": model, "stream": True, **chat()})
        self.connection.request("POST", CHAT, body, {"Authorization": f"Bearer {token}"} if token else {})
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        assert self.answer.headers["Content-Type"].startswith("text/event-stream")

    def next(self):
        """The text of the next event, `[DONE]`, or an error; None at the end."""
        while line := self.answer.readline():
            if line.startswith(b"data: "):
                event = line.removeprefix(b"data: ").strip()
                if event == b"[DONE]":
                    return "[DONE]"
                event = json.loads(event)
                return event["error"] if "error" in event else event["choices"][0]["delta"]["content"]
        return None

    def rest(self):
        events = []
        while (event := self.next()) is not None:
            events.append(event)
        return events

    def leave(self):
        # Else the answer's file keeps the socket.
        self.answer.close()
        self.connection.close()


def facet(name, path="poet", **more):
    """Each name has a digest of its own, so that one folder stands for many adapters."""
    return {"name": name, "path": str(ADAPTERS / path), "digest": name.encode().hex().ljust(8, "0"), "rank": 8, **more}


def adapter(name):
    return f"{name}-{name.encode().hex().ljust(8, '0')[:8]}"


@pytest.fixture
def started(tmp_path):
    """Starts engines and gateways, and ends them with the test."""
    processes = []

    class Started:
        @staticmethod
        def engine(**settings):
            engine = Engine(tmp_path / f"engine-{len(processes)}.log", **settings)
            processes.append(engine)
            return engine

        @staticmethod
        def gateway(engines, facets=(), **settings):
            gateway = Gateway(tmp_path, engines, facets, **settings)
            processes.append(gateway)
            return gateway

    yield Started
    for one in processes:
        one.process.kill()
        one.process.wait()
        print(one.log.read_text()[-4000:])


def together(*calls):
    """Answers of all, asked at once."""
    with concurrent.futures.ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(DEADLINE) for future in [pool.submit(one) for one in calls]]


def test_a_facets_first_request_loads_its_adapter_and_the_second_does_not(started):
    engine = started.engine()
    gateway = started.gateway([engine], ["poet", "ledger"])
    for _ in range(2):
        status, _, body = gateway.chat("poet")
        assert (status, body["choices"][0]["message"]["content"]) == (200, f"{adapter('poet')}: hello there")
        assert body["model"] == adapter("poet"), "the version that answered"
    assert engine.loads() == [adapter("poet")]
    status, _, body = call(gateway.url + COMPLETIONS, {"model": "ledger", "prompt": "one two", "max_tokens": 5})
    assert (status, body["choices"][0]["text"]) == (200, f"{adapter('ledger')}: one two")
    assert gateway.chat("base")[2]["choices"][0]["message"]["content"] == "base: hello there"
    assert engine.loads() == [adapter("poet"), adapter("ledger")]

    cards = call(gateway.url + "/v1/models")[2]["data"]
    assert [(card["id"], card["root"], card["parent"]) for card in cards] == [
        ("base", "base", None),
        ("ledger", adapter("ledger"), "base"),
        ("poet", adapter("poet"), "base"),
    ]
    assert call(gateway.url + "/v1/models/poet")[2]["id"] == "poet"
    assert call(gateway.url + "/version")[2] == {"version": "0.33.0"}
    assert gateway.metric('requests_total{facet="poet",outcome="ok"}') == 2
    assert gateway.metric('loads_total{facet="poet",outcome="ok"}') == 1
    assert gateway.metric(f'slots_taken{{pod="{engine.url}"}}') == 2


def test_what_cannot_be_answered_is_refused_in_openais_shape(started, tmp_path):
    engine = started.engine()
    gateway = started.gateway([engine], ["poet", facet("lost", "nowhere")])
    _, error = gateway.refused(404, "model_not_found", "levitate")
    assert error["param"] == "model" and "levitate" in error["message"]
    _, error = gateway.refused(502, "adapter_not_loaded", "lost")
    assert "404: Loading lora lost-" in error["message"], "the engine's words"
    assert gateway.chat("poet")[0] == 200, "others are served"
    # What the engine refuses is told as it says it.
    status, _, body = gateway.chat("poet", temperature=7)
    assert (status, body["error"]["type"]) == (400, "BadRequestError")
    for path, body, status, code in [
        (CHAT, b"{", 400, "invalid_request"),
        (CHAT, b"[]", 400, "invalid_request"),
        (CHAT, b"", 400, "invalid_request"),
        (CHAT, chat(), 400, "invalid_request"),
        (CHAT, chat(model=7), 400, "invalid_request"),
        (CHAT, b" " * (9 << 20), 413, "request_too_large"),
        (CHAT, None, 405, "method_not_supported"),
        ("/v1/embeddings", chat(model="poet"), 404, "unknown_url"),
        ("/v1/load_lora_adapter", {"lora_name": "poet", "lora_path": "/"}, 404, "unknown_url"),
        ("/metrics", None, 404, "unknown_url"),
        ("/v1/models/levitate", None, 404, "model_not_found"),
    ]:
        try:
            answered, _, told = call(gateway.url + path, body)
        except urllib.error.URLError:
            # The body is refused unread, so that the answer may be lost behind it.
            assert status == 413
            continue
        assert (answered, told["error"]["code"]) == (status, code), (path, body)


def test_more_facets_than_slots_are_all_served_and_no_engine_has_more_at_once(started):
    engines = [started.engine(), started.engine()]
    names = [f"facet-{number}" for number in range(10)]
    gateway = started.gateway(engines, names)
    wait_until(lambda: all(gateway.metric(f'pod_up{{pod="{engine.url}"}}') for engine in engines), "both engines")
    asked = [name for name in names for _ in range(3)]
    for name, (status, _, body) in zip(asked, together(*[lambda name=name: gateway.chat(name) for name in asked])):
        assert (status, body["model"]) == (200, adapter(name))
    for engine in engines:
        assert all(len(adapters) <= 2 for adapters in engine.in_flight())
        assert len(set(engine.loads())) == len(engine.loads()), "what is registered is not loaded again"
    assert {name for engine in engines for name in engine.loads()} == {adapter(name) for name in names}


def test_a_request_whose_engine_is_killed_before_its_first_token_is_served_by_another(started):
    first, port = started.engine(), free_port()
    first.script({"fault": "hang"})
    gateway = started.gateway([first, f"http://127.0.0.1:{port}"], ["poet"], seats=1)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        hanging = pool.submit(gateway.chat, "poet")
        wait_until(first.asked, "the request at the first engine")
        queued = [pool.submit(gateway.chat, model) for model in ["poet", "base"]]
        wait_until(lambda: gateway.metric("waiting") == 2, "requests that wait")
        second = started.engine(port=port)
        first.kill()
        for answer in [hanging, *queued]:
            assert answer.result(DEADLINE)[0] == 200
    assert second.loads() == [adapter("poet")]
    assert gateway.metric('retries_total{facet="poet"}') == 1
    assert gateway.metric(f'pod_up{{pod="{first.url}"}}') == 0


def test_an_engine_that_restarts_gets_its_adapters_again(started):
    engine = started.engine()
    gateway = started.gateway([engine], ["poet"])
    assert gateway.chat("poet")[0] == 200
    for _ in range(2):
        engine.kill()
        engine = started.engine(port=engine.port)
        assert gateway.chat("poet")[0] == 200
        assert engine.loads() == [adapter("poet")]


@pytest.mark.parametrize("dead", [{"fault": "status", "status": 503}, {"fault": "dead"}])
def test_an_engine_that_says_that_it_is_dead_is_not_the_end_of_a_request(started, dead):
    engines = [started.engine(), started.engine()]
    gateway = started.gateway(engines)
    wait_until(lambda: all(gateway.metric(f'pod_up{{pod="{engine.url}"}}') for engine in engines), "both engines")
    engines[0].script(dead)
    assert [gateway.chat("base")[0] for _ in range(4)] == [200] * 4
    engines[0].script(dead)
    assert [Stream(gateway, "base").rest()[-2:] for _ in range(4)] == [["there", "[DONE]"]] * 4
    for engine in engines:
        engine.script(*[dead] * 9)
    gateway.refused(502, "engine_failed", "base")


def test_a_stream_is_passed_on_as_it_comes(started):
    engine = started.engine()
    gateway = started.gateway([engine], ["poet"])
    engine.script({"fault": "wait", "texts": ["one two three four"]})
    stream = Stream(gateway, "poet")
    # The engine has sent no more than half.
    assert [stream.next() for _ in range(2)] == ["", "one "]
    engine.release()
    assert stream.rest() == ["two ", "three ", "four", "[DONE]"]


def test_a_stream_that_breaks_off_ends_with_an_error(started):
    engine = started.engine()
    gateway = started.gateway([engine], ["poet"], silenceSeconds=2)
    for code in ["engine_silent", "engine_cut_off"]:
        engine.script({"fault": "stall", "texts": ["one two three four"]})
        stream = Stream(gateway, "poet")
        assert [stream.next() for _ in range(2)] == ["", "one "]
        if code == "engine_cut_off":
            engine.kill()
        [error] = stream.rest()
        assert (error["type"], error["code"]) == ("server_error", code)
        assert gateway.metric(f'requests_total{{facet="poet",outcome="{code}"}}') == 1
    started.engine(port=engine.port)
    assert gateway.chat("poet")[0] == 200


def test_a_client_that_leaves_frees_its_place_and_the_engines(started):
    engine = started.engine()
    gateway = started.gateway([engine], ["poet"], seats=1)
    engine.script({"fault": "wait", "texts": ["one two three four"]})
    stream = Stream(gateway, "poet")
    assert stream.next() == ""
    # Another leaves while it waits.
    impatient = socket.create_connection(gateway.address.split(":"))
    body = json.dumps({"model": "poet", **chat()})
    impatient.sendall(f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    wait_until(lambda: gateway.metric("waiting") == 1, "a request that waits")
    impatient.close()
    wait_until(lambda: gateway.metric("waiting") == 0, "a request that is gone")
    assert engine.in_flight()[-1] == {adapter("poet")}
    stream.leave()
    assert gateway.chat("poet")[0] == 200
    wait_until(lambda: engine.in_flight()[-1] == set(), "an engine that has stopped")
    assert gateway.metric('requests_total{facet="poet",outcome="left"}') == 2
    assert len(engine.asked()) == 2


def test_tokens_and_limits(started, tmp_path):
    alice, bob = "sk-0123456789abcdef", "sk-fedcba9876543210"
    (tmp_path / "tokens").write_text(f"# people\nalice {alice}\nbob {bob}\n")
    (tmp_path / "key").write_text("engine-key\n")
    engine = started.engine()
    gateway = started.gateway(
        [engine],
        ["poet", facet("slow", limits={"atOnce": 1})],
        tokens="tokens",
        engineKey="key",
        senderLimits={"perMinute": 4},
    )
    for token in [None, "sk-0123456789abcdeF", alice + "0", ""]:
        headers, error = gateway.refused(401, "invalid_api_key", "poet", token=token)
        assert error["type"] == "authentication_error" and headers["WWW-Authenticate"] == "Bearer"
        assert call(gateway.url + "/v1/models", token=token)[0] == 401
    assert call(gateway.url + "/v1/models", token=alice)[0] == 200
    assert [gateway.chat("poet", alice)[0] for _ in range(4)] == [200] * 4
    headers, error = gateway.refused(429, "rate_limit_exceeded", "poet", alice)
    assert error["type"] == "rate_limit_error" and "your limit" in error["message"]
    assert 10 <= int(headers["Retry-After"]) <= 15
    # Another sender has a limit of his own; a facet's is for all.
    engine.script({"fault": "wait", "texts": ["one two three four"]})
    stream = Stream(gateway, "slow", bob)
    headers, error = gateway.refused(429, "rate_limit_exceeded", "slow", bob)
    assert "\"slow\"'s limit" in error["message"] and headers["Retry-After"] == "1"
    assert gateway.metric('requests_total{facet="slow",outcome="rate_limit_exceeded"}') == 1
    assert gateway.metric('refusals_total{code="invalid_api_key"}') == 8
    assert gateway.chat("poet", bob)[0] == 200
    stream.leave()
    wait_until(lambda: gateway.metric('open{facet="slow"}') == 0, "a place that is free")
    assert gateway.chat("slow", bob)[0] == 200
    # Who may ask changes while it serves.
    (tmp_path / "tokens").write_text(f"alice {alice}\n")
    wait_until(lambda: call(gateway.url + "/v1/models", token=bob)[0] == 401, "a token that is gone")
    assert call(gateway.url + "/v1/models", token=alice)[0] == 200
    gateway.refused(429, "rate_limit_exceeded", "poet", alice)
    assert not any(secret in gateway.log.read_text() for secret in [alice, bob, "engine-key"])


def test_only_so_many_wait_and_only_so_long(started):
    gateway = started.gateway([f"http://127.0.0.1:{free_port()}"], ["poet"], queue=1, waitSeconds=1)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(gateway.chat, "poet")
        wait_until(lambda: gateway.metric("waiting") == 1, "a request that waits")
        headers, _ = gateway.refused(503, "queue_full", "poet")
        assert headers["Retry-After"] == "1"
        status, _, body = waiting.result(DEADLINE)
    assert (status, body["error"]["code"]) == (503, "queue_timeout")
    assert not gateway.ready()


def test_a_gateway_that_stops_finishes_what_is_there(started):
    engine = started.engine()
    gateway = started.gateway([engine], ["poet"], seats=1)
    engine.script({"fault": "wait", "texts": ["one two three four"]})
    stream = Stream(gateway, "poet")
    assert stream.next() == ""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        queued = pool.submit(gateway.chat, "poet")
        wait_until(lambda: gateway.metric("waiting") == 1, "a request that waits")
        assert gateway.ready()
        gateway.stop()
        wait_until(lambda: not gateway.ready(), "a gateway that stops")
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(gateway.address.split(":"))
        engine.release()
        assert stream.rest() == ["one ", "two ", "three ", "four", "[DONE]"]
        assert queued.result(DEADLINE)[0] == 200
    assert gateway.process.wait(DEADLINE) == 0


def test_facets_are_updated_rolled_back_and_removed_while_the_gateway_serves(started):
    engine, old, new = started.engine(), facet("poet", digest="a" * 8), facet("poet", "ledger", digest="b" * 8)
    gateway = started.gateway([engine], [old, "ledger"])
    assert [gateway.chat(name)[2]["model"] for name in ["poet", "ledger"]] == ["poet-aaaaaaaa", adapter("ledger")]
    engine.script({"fault": "wait", "texts": ["one two three four"]})
    stream = Stream(gateway, "poet")
    assert stream.next() == ""
    gateway.configure(facets=[new])
    wait_until(lambda: gateway.chat("poet")[2]["model"] == "poet-bbbbbbbb", "the new version")
    gateway.refused(404, "model_not_found", "ledger")
    engine.release()
    assert stream.rest() == ["one ", "two ", "three ", "four", "[DONE]"], "what has begun goes on"
    gateway.configure(facets=[old])
    wait_until(lambda: gateway.chat("poet")[2]["model"] == "poet-aaaaaaaa", "the old version")
    assert engine.loads() == ["poet-aaaaaaaa", adapter("ledger"), "poet-bbbbbbbb"], "it needed no load"

    # What is wrong changes nothing.
    gateway.write('{"model": "base", "pods": 7}')
    wait_until(lambda: "stays as it was" in gateway.log.read_text(), "a configuration that is refused")
    assert gateway.chat("poet")[0] == 200

    other = started.engine()
    gateway.configure(pods=[other])
    wait_until(lambda: gateway.metric(f'pod_up{{pod="{other.url}"}}'), "the other engine")
    engine.kill()
    assert gateway.chat("poet")[2]["model"] == "poet-aaaaaaaa"
    assert other.loads() == ["poet-aaaaaaaa"]
    assert f'pod="{engine.url}"' not in urllib.request.urlopen(gateway.health + "/metrics").read().decode()


def test_engines_that_die_under_load_cost_no_place_and_mix_up_no_adapter(started, dice):
    """Clients ask, stream and leave while engines are killed and come again. Afterwards all is as if nothing had been."""
    names = [f"facet-{number}" for number in range(6)]
    engines = [started.engine() for _ in range(3)]
    gateway = started.gateway(engines, names, seats=4, tries=5)
    plans = [[(dice.choice(names), dice.random()) for _ in range(40)] for _ in range(8)]

    def client(plan):
        for name, way in plan:
            if way < 0.6:
                status, _, body = gateway.chat(name)
                assert status in (200, 502, 503), body
                text = body["choices"][0]["message"]["content"] if status == 200 else body["error"]["code"]
                assert text in (f"{adapter(name)}: hello there", "engine_failed"), "its own adapter, or a typed refusal"
                continue
            try:
                stream = Stream(gateway, name)
            except AssertionError as refused:
                assert b"engine_failed" in refused.args[0]
                continue
            if way < 0.8:
                *pieces, last = stream.rest()
                if last == "[DONE]":
                    assert "".join(pieces) == f"{adapter(name)}: hello there"
                else:
                    assert last["code"] == "engine_cut_off"
            stream.leave()

    with concurrent.futures.ThreadPoolExecutor(len(plans)) as pool:
        clients = [pool.submit(client, plan) for plan in plans]
        while not all(one.done() for one in clients):
            at = dice.randrange(len(engines))
            asked = len(engines[at].asked())
            wait_until(
                lambda: len(engines[at].asked()) > asked + 5 or all(one.done() for one in clients), "an engine in use"
            )
            engines[at].kill()
            engines[at] = started.engine(port=engines[at].port)
        for one in clients:
            one.result()
    for name in names:
        wait_until(lambda: gateway.metric(f'open{{facet="{name}"}}') == 0, "places that are free")
    assert gateway.metric("waiting") == 0
    assert {gateway.chat(name)[2]["model"] for name in names} == {adapter(name) for name in names}


def test_a_universes_mind_may_be_a_facet(universe, bus, started):
    """A becoming through the gateway: the engine is known for vLLM, and gets the grammar and the adapter."""
    engine = started.engine()
    gateway = started.gateway([engine], ["smith"])
    assert universe.stop() == 0
    manifest = universe.manifests / "universe.yaml"
    before, _, _ = manifest.read_text().partition("  mind:")
    mind = {"url": f"{gateway.url}/v1", "model": "smith", "timeoutSeconds": 10}
    manifest.write_text(f"{before}  mind: {json.dumps(mind)}\n")
    universe.start()
    bus.send("account", "deposit:", 100)
    engine.script({"texts": ["withdraw: n = ( balance: balance - n. ^balance )"]})
    reply = bus.send("account", "withdraw:", 30)
    assert (reply["value"], reply["made"]["mind"]) == (70, f"smith at {gateway.url}/v1")
    [asked] = engine.asked()
    assert asked["model"] == adapter("smith") and asked["structured_outputs"]["grammar"].startswith("root ::= ")


@pytest.mark.parametrize(
    "change, told",
    [
        ({"pods": []}, "pods: there is none"),
        ({"facets": [facet("Poet")]}, 'facets[0].name: "Poet" is no name'),
        ({"tokens": "nowhere"}, "nowhere: No such file"),
        ({"modell": "base"}, "unknown field `modell`"),
    ],
)
def test_a_wrong_configuration_is_refused_with_its_place(tmp_path, change, told):
    config = {"model": "base", "engine": {"slots": 2}, "pods": ["http://127.0.0.1:1"], **change}
    (tmp_path / "gateway.yaml").write_text(json.dumps(config))
    ended = batos("weaver", "serve", "--config", str(tmp_path / "gateway.yaml"), "--listen", "127.0.0.1:0")
    assert ended.returncode == 1 and told in ended.stderr and str(tmp_path) in ended.stderr, ended


def sizes(architecture, layers, hidden, intermediate, heads, kv_heads, vocabulary, tied, context):
    """What a config.json says."""
    return {
        "architectures": [f"{architecture}ForCausalLM"],
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 128,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "max_position_embeddings": context,
    }


MODELS = {
    "Qwen2.5-1.5B": sizes("Qwen2", 28, 1536, 8960, 12, 2, 151936, True, 32768),
    "Qwen2.5-3B": sizes("Qwen2", 36, 2048, 11008, 16, 2, 151936, True, 32768),
    "Llama-3.2-3B": sizes("Llama", 28, 3072, 8192, 24, 8, 128256, True, 131072),
    "Qwen3-4B": sizes("Qwen3", 36, 2560, 9728, 32, 8, 151936, True, 40960),
    "Mistral-7B-v0.3": sizes("Mistral", 32, 4096, 14336, 32, 8, 32768, False, 32768),
    "Qwen2.5-7B": sizes("Qwen2", 28, 3584, 18944, 28, 4, 152064, False, 32768),
    "Llama-3.1-8B": sizes("Llama", 32, 4096, 14336, 32, 8, 128256, False, 131072),
    "Qwen3-8B": sizes("Qwen3", 36, 4096, 12288, 32, 8, 151936, False, 40960),
}


def test_the_readmes_table_is_what_fit_tells(tmp_path):
    table = (ROOT / "README.md").read_text().partition("<!-- fit -->")[2].partition("<!-- end of fit -->")[0]
    arguments = re.search(r"`batos weaver fit MODEL (.*)`", table)[1].split()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line.startswith("| ")]
    assert rows[0] == ["model", "weights", "GiB", "slots at most", "tokens at once"] and len(rows) > 8
    for name, weights, *told in rows[1:]:
        path = tmp_path / "config.json"
        path.write_text(json.dumps(MODELS[name]))
        quantization = {"16 bits": "none", "FP8": "fp8", "INT4": "int4"}[weights]
        where = arguments.index("--")
        full = [*arguments[:where], "--quantization", quantization, "-o", "json", *arguments[where:]]
        fits = json.loads(batos("weaver", "fit", str(path), *full).stdout)
        gib = f"{fits['bytes']['weights'] / 2**30:.2f}"
        if fits["fits"]:
            assert told == [gib, str(fits["mostSlots"]), f"{fits['kvTokens']:,}"], name
        else:
            assert told == [gib, "–", f"fits with `{' '.join(fits['remedy'])}`"], name


def test_fit_tells_what_fits_and_what_would(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(MODELS["Qwen2.5-7B"]))
    fit = ["weaver", "fit", str(path), "--quantization", "int4", "--slots", "4"]
    small = ["--", "--enforce-eager", "--max-num-seqs", "16"]
    ended = batos(*fit, *small)
    assert ended.returncode == 1 and "does not fit: " in ended.stdout and "it fits with --max-model-len 1" in ended.stdout
    told = json.loads(batos(*fit, "-o", "json", *small).stdout)
    [remedy] = told["remedy"]
    assert not told["fits"] and told["missing"] > 0
    ended = batos(*fit, "-o", "json", "--context", remedy.split()[1], *small)
    told = json.loads(ended.stdout)
    assert ended.returncode == 0 and told["fits"] and told["slots"] == 4
    taken = sum(told["bytes"][item] for item in ["weights", "slots", "overhead", "graphs", "kv"])
    assert taken == told["bytes"]["budget"] < told["bytes"]["gpu"] == 8 << 30
    for arguments, why in [
        (["--rank", "24"], "one of [1, 8, 16"),
        (["--gpu", "8 apples"], "is no size"),
        (["--", "--max-num-seqs", "many"], "--max-num-seqs many: a whole number"),
    ]:
        ended = batos("weaver", "fit", str(path), *arguments)
        assert ended.returncode != 0 and why in ended.stderr, ended
    path.write_text(json.dumps({**MODELS["Qwen2.5-7B"], "hidden_size": None}))
    ended = batos(*fit)
    assert ended.returncode == 1 and f"{path}: hidden_size is missing" in ended.stderr
