"""The peer: one-object transactions on ZODB's FileStorage, which syncs each. Prints one line of JSON."""

import argparse
import json
import signal
import threading
import time

import persistent
import transaction
from BTrees.OOBTree import OOBTree
from ZODB import DB
from ZODB.FileStorage import FileStorage
from ZODB.POSException import ConflictError


class Counter(persistent.Persistent):
    def __init__(self):
        self.n = 0


def resident():
    """kB that are resident now."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:"))


def written():
    """Bytes that this process has sent to the disk."""
    with open("/proc/self/io") as io:
        return next(int(line.split()[1]) for line in io if line.startswith("write_bytes:"))


def turns(path, clients, seconds, shared):
    db = DB(FileStorage(path), pool_size=clients + 1)
    with db.transaction() as connection:
        for n in range(clients):
            connection.root()[n] = Counter()
    counts, conflicts = [0] * clients, [0] * clients
    begin = threading.Barrier(clients + 1)
    stop = threading.Event()

    def client(me):
        manager = transaction.TransactionManager(explicit=True)
        connection = db.open(manager)
        manager.begin()
        counter = connection.root()[0 if shared else me]
        counter.n  # loaded
        manager.abort()
        begin.wait()
        while not stop.is_set():
            manager.begin()
            try:
                counter.n += 1
                manager.commit()
                counts[me] += 1
            except ConflictError:
                manager.abort()
                conflicts[me] += 1

    threads = [threading.Thread(target=client, args=(me,)) for me in range(clients)]
    for thread in threads:
        thread.start()
    before = written()
    begin.wait()
    begun = time.perf_counter()
    time.sleep(seconds)
    stop.set()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - begun
    with db.transaction() as connection:
        total = sum(connection.root()[n].n for n in range(clients))
    assert total == sum(counts), (total, counts)
    figures = {"turns": total / took, "conflicts": sum(conflicts) / took}
    return figures | {"written": (written() - before) / total, "resident": resident()}


def fill(path, objects):
    db = DB(FileStorage(path))
    for start in range(0, objects, 1000):
        with db.transaction() as connection:
            tree = connection.root().setdefault("objects", OOBTree())
            for n in range(start, min(start + 1000, objects)):
                tree[f"{n:08}"] = Counter()
    db.close()
    # Without a clean stop the index of some earlier moment is there.
    db = DB(FileStorage(path))
    with db.transaction() as connection:
        connection.root()["objects"]["00000000"].n += 1
    print("{}", flush=True)
    signal.pause()


def opening(path):
    begun = time.perf_counter()
    db = DB(FileStorage(path))
    with db.transaction() as connection:
        assert connection.root()["objects"]["00000007"].n == 0
    took = time.perf_counter() - begun
    figures = {"seconds": took, "resident": resident()}
    db.close()
    return figures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["turns", "fill", "open"])
    parser.add_argument("path")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--shared", action="store_true")
    parser.add_argument("--objects", type=int, default=100_000)
    arguments = parser.parse_args()
    match arguments.what:
        case "turns":
            figures = turns(arguments.path, arguments.clients, arguments.seconds, arguments.shared)
        case "fill":
            figures = fill(arguments.path, arguments.objects)
        case "open":
            figures = opening(arguments.path)
    print(json.dumps(figures))


main()
