"""Many Prototypes, one universe, the real operator: prints a table, fails where a limit is broken. hack/bench k8s starts it.

k8s.py OBJECTS IDLE_SECONDS UNIVERSE BATOS OPERATOR_ARGUMENT..., with KUBECONFIG and kubectl on PATH. Only the standard
library: this process shares the cores with what it measures.
"""

import base64
import http.client
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

OBJECTS, IDLE, UNIVERSE = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
OPERATOR = sys.argv[4:]
PROTOTYPES = "/apis/batos.dev/v1alpha1/namespaces/default/prototypes"
CREATORS = 4
CHANGES = 200
PAUSE = 0.05  # between changes
MOST_MEMORY = 96.0  # MB
MOST_WRITES = 2.05  # an object: its status, and an event that tells of it
PATIENCE = 3600


class Api:
    """The API server under the kubeconfig's certificate; one connection a thread."""

    def __init__(self):
        view = json.loads(subprocess.check_output(["kubectl", "config", "view", "--raw", "-o", "json"]))
        cluster, user = view["clusters"][0]["cluster"], view["users"][0]["user"]
        self.host = cluster["server"].removeprefix("https://")
        self.tls = ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
        with tempfile.NamedTemporaryFile() as pair:
            for part in ("client-certificate-data", "client-key-data"):
                pair.write(base64.b64decode(user[part]))
            pair.flush()
            self.tls.load_cert_chain(pair.name)
        self.mine = threading.local()

    def connect(self, timeout=60):
        connection = http.client.HTTPSConnection(self.host, context=self.tls, timeout=timeout)
        connection.connect()
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def call(self, *request, **more):
        try:
            return self.try_call(*request, **more)
        except (OSError, http.client.HTTPException):  # one that was idle for long
            del self.mine.connection
            return self.try_call(*request, **more)

    def try_call(self, method, path, body=None, media="application/json"):
        if not hasattr(self.mine, "connection"):
            self.mine.connection = self.connect()
        data = None if body is None else json.dumps(body)
        self.mine.connection.request(method, path, data, {"Content-Type": media, "Accept": "application/json"})
        answer = self.mine.connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:500]}")
        return json.loads(text)


class Seen(threading.Thread):
    """Follows the Prototypes: when which generation of each was first seen to be Ready."""

    def __init__(self, api):
        super().__init__(daemon=True)
        self.api, self.ready, self.changed, self.failed = api, {}, threading.Condition(), None
        self.since = api.call("GET", PROTOTYPES + "?limit=1")["metadata"]["resourceVersion"]

    def run(self):
        try:
            while True:
                self.watch()
        except Exception as error:  # whoever waits has to know
            with self.changed:
                self.failed = error
                self.changed.notify_all()

    def watch(self):
        connection = self.api.connect(timeout=PATIENCE)
        connection.request("GET", f"{PROTOTYPES}?watch=true&resourceVersion={self.since}")
        for line in connection.getresponse():
            now, event = time.monotonic(), json.loads(line)
            if event["type"] == "ERROR":
                raise RuntimeError(event["object"])
            meta, status = event["object"]["metadata"], event["object"].get("status", {})
            self.since = meta["resourceVersion"]
            good = any(c["type"] == "Ready" and c["status"] == "True" for c in status.get("conditions", []))
            if good and status.get("observedGeneration") == meta["generation"]:
                with self.changed:
                    self.ready.setdefault((meta["name"], meta["generation"]), now)
                    self.changed.notify_all()

    def wait(self, keys):
        """The times at which these were Ready."""
        keys, end = list(keys), time.monotonic() + PATIENCE
        with self.changed:
            while self.failed is None and not all(key in self.ready for key in keys):
                if not self.changed.wait(timeout=max(0, end - time.monotonic())):
                    raise TimeoutError(f"{sum(key in self.ready for key in keys)} of {len(keys)} are Ready")
            if self.failed is not None:
                raise self.failed
            return [self.ready[key] for key in keys]


class Operator:
    """A process of the operator, and what it says of itself."""

    def __init__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = "127.0.0.1:%d" % free.getsockname()[1]
        self.log = tempfile.TemporaryFile()
        command = OPERATOR + ["--health", self.address]
        self.begun = time.monotonic()
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env={**os.environ, "RUST_LOG": "warn"})

    def get(self, path):
        connection = http.client.HTTPConnection(self.address, timeout=10)
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()

    def leads(self):
        while True:
            if self.process.poll() is not None:
                self.log.seek(0)
                raise RuntimeError(f"the operator ended: {self.log.read()[-3000:].decode()}")
            try:
                if "batos_leader 1" in self.get("/metrics")[1]:
                    return time.monotonic() - self.begun
            except OSError:
                pass
            time.sleep(0.05)

    def calls(self):
        """Calls to the API server by verb and code."""
        found = {}
        for line in self.get("/metrics")[1].splitlines():
            if line.startswith("batos_api_calls_total{"):
                labels, count = line.rsplit(" ", 1)
                verb, code = (part.split('"')[1] for part in labels.split(","))
                found[verb, code] = int(count)
        return found

    def peak(self):
        """The most memory that was resident, in MB."""
        with open(f"/proc/{self.process.pid}/status") as status:
            return next(int(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmHWM"))

    def processor(self):
        """Seconds of processor time."""
        with open(f"/proc/{self.process.pid}/stat") as stat:
            fields = stat.read().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def prototype(name, value=0):
    slots = [
        {"name": "balance", "value": value},
        {"name": "deposit:", "method": "deposit: n = ( balance: balance + n. ^balance )"},
        {"name": "withdraw:", "method": "withdraw: n = ( balance: balance - n. ^balance )"},
    ]
    spec = {"universe": UNIVERSE, "slots": slots}
    return {"apiVersion": "batos.dev/v1alpha1", "kind": "Prototype", "metadata": {"name": name}, "spec": spec}


def create(api, names):
    """Creates them all; answers when each was, by name."""
    created, waiting, failed = {}, iter(names), []
    lock = threading.Lock()

    def work():
        try:
            while True:
                with lock:
                    name = next(waiting, None)
                if name is None:
                    return
                api.call("POST", PROTOTYPES, prototype(name))
                created[name] = time.monotonic()
        except Exception as error:
            failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(CREATORS)]
    [worker.start() for worker in workers]
    [worker.join() for worker in workers]
    if failed:
        raise failed[0]
    return created


def writes(calls):
    """Successful and refused writes; those of the Lease alone are updates."""
    return sum(count for (verb, _), count in calls.items() if verb in ("apply", "create", "patch", "delete"))


def difference(after, before):
    return {key: count - before.get(key, 0) for key, count in after.items() if count != before.get(key, 0)}


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def tell(what, value, limit=""):
    print(f"{what:<58}{value:>16}  {limit}", flush=True)


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))  # the operator is stopped too
    api = Api()
    operator = Operator()
    broken = []

    def hold(good, what):
        if not good:
            broken.append(what)

    try:
        operator.leads()
        subprocess.check_call(["kubectl", "wait", "--for=condition=Ready", "--timeout=180s", f"universe/{UNIVERSE}"], stdout=2)
        seen = Seen(api)
        seen.start()
        tell("an operator without Prototypes, MB", f"{operator.peak():.1f}")

        names = [f"object-{number:05}" for number in range(OBJECTS)]
        calls, processor, begun = operator.calls(), operator.processor(), time.monotonic()
        created = create(api, names)
        creation = max(created.values()) - begun
        ready = seen.wait((name, 1) for name in names)
        took = max(ready) - begun
        made, used = difference(operator.calls(), calls), operator.processor() - processor
        refused = {f"{verb} {code}": count for (verb, code), count in made.items() if not code.startswith("2")}
        tell("time until all are created, s", f"{creation:.1f}")
        tell("time until all are Ready, s", f"{took:.1f}")
        tell("objects that became Ready a second", f"{OBJECTS / took:.1f}")
        tell("from a creation's answer to Ready while all are made, p50, ms", f"{1000 * percentile([r - created[n] for r, n in zip(ready, names)], 0.5):.0f}")
        tell("the operator's processor time an object, ms", f"{1000 * used / OBJECTS:.2f}")
        tell("writes to the API server an object", f"{writes(made) / OBJECTS:.3f}", f"at most {MOST_WRITES}")
        hold(writes(made) / OBJECTS <= MOST_WRITES + 20 / OBJECTS, "too many writes")
        tell("calls that were not carried out", str(refused or "none"))
        tell("the operator's peak memory, MB", f"{operator.peak():.1f}", f"at most {MOST_MEMORY:.0f}")
        hold(operator.peak() <= MOST_MEMORY, "too much memory")

        waits = []
        for number in range(min(CHANGES, OBJECTS)):
            name = names[number * OBJECTS // min(CHANGES, OBJECTS)]
            body = {"spec": {"slots": prototype(name, 1)["spec"]["slots"]}}
            api.call("PATCH", f"{PROTOTYPES}/{name}", body, "application/merge-patch+json")
            waits.append(((name, 2), time.monotonic()))
            time.sleep(PAUSE)
        latencies = [at - sent for at, (_, sent) in zip(seen.wait(key for key, _ in waits), waits)]
        tell("from a changed spec to its status, p50, ms", f"{1000 * percentile(latencies, 0.5):.0f}")
        tell("from a changed spec to its status, p99, ms", f"{1000 * percentile(latencies, 0.99):.0f}")

        operator.stop()
        operator = Operator()
        tell("a new operator leads after, s", f"{operator.leads():.1f}")
        settled(operator)
        calls, processor = operator.calls(), operator.processor()
        tell("its writes until it is idle: the children of the universe", str(writes(calls)), "at most 10")
        hold(writes(calls) <= 10, "a new operator wrote")
        tell("its processor time until it is idle, s", f"{processor:.1f}")
        time.sleep(IDLE)
        idle = difference(operator.calls(), calls)
        tell(f"writes in {IDLE} idle seconds, but the Lease's", str(writes(idle)), "at most 0")
        hold(writes(idle) == 0, "what was idle wrote")
        tell("renewals of the Lease meanwhile", str(idle.get(("update", "200"), 0)))
        hold(idle.get(("update", "200"), 0) > 0, "the Lease was not renewed")
        tell("its processor time meanwhile, ms a second", f"{1000 * (operator.processor() - processor) / IDLE:.1f}")
        tell("its peak memory, MB", f"{operator.peak():.1f}", f"at most {MOST_MEMORY:.0f}")
        hold(operator.peak() <= MOST_MEMORY, "too much memory after a start")
    finally:
        operator.stop()
        operator.log.seek(0)
        sys.stderr.write(operator.log.read()[-2000:].decode())
    if broken:
        sys.exit("broken: " + ", ".join(broken))


def settled(operator):
    """Waits until all that a start puts into the queues is done: the processor is used no more."""
    before = operator.processor()
    while True:
        time.sleep(2)
        now = operator.processor()
        if now - before < 0.2:
            return
        before = now


main()
