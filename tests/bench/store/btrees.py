"""The peer: large collections in ZODB's BTrees, on a FileStorage that syncs each transaction. Prints one line of JSON.

An ordered collection is a BTree from numbers to elements: ZODB has none that is stored in parts.
"""

import argparse
import json
import statistics
import time

from BTrees.IOBTree import IOBTree
from BTrees.OOBTree import OOBTree, OOTreeSet
from ZODB import DB
from ZODB.FileStorage import FileStorage

BATCH, TURNS, READS, PUTS, PRIME = 20_000, 200, 100_000, 5_000, 1_000_003


def field(file, name):
    with open(file) as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name))


def written():
    """Bytes that this process has sent to the disk."""
    return field("/proc/self/io", "write_bytes:")


def run(path, size):
    db = DB(FileStorage(path))
    figures = {}
    for name, kind in ("dictionary", OOBTree), ("set", OOTreeSet), ("list", IOBTree):
        with db.transaction() as connection:
            connection.root()[name] = kind()
        begun = time.perf_counter()
        for start in range(0, size, BATCH):
            with db.transaction() as connection:
                tree = connection.root()[name]
                for i in range(start, min(size, start + BATCH)):
                    match name:
                        case "dictionary":
                            tree[i * 7919 % PRIME] = i
                        case "set":
                            tree.insert(i * 7919 % PRIME)
                        case "list":
                            tree[i] = i
        figures[f"build {name}"] = size / (time.perf_counter() - begun)

    def timed(body, count, *names):
        times = []
        for _ in range(4):
            begun = time.perf_counter()
            with db.transaction() as connection:
                body(*(connection.root()[name] for name in names))
            times.append((time.perf_counter() - begun) / count * 1e9)
        return statistics.median(times)

    def empty():
        for k in range(1, READS + 1):
            k * 104729 * 7919 % PRIME % size

    def at(elements):
        for k in range(1, READS + 1):
            elements[k * 104729 * 7919 % PRIME % size]

    def get(tree):
        for k in range(1, READS + 1):
            tree[k * 104729 % size * 7919 % PRIME]

    def put(tree):
        for k in range(1, PUTS + 1):
            i = k * 104729
            tree[i % size * 7919 % PRIME] = i

    loop = timed(empty, READS)
    figures["at"] = timed(at, READS, "list") - loop
    figures["get"] = timed(get, READS, "dictionary") - loop
    figures["put"] = timed(put, PUTS, "dictionary") - loop

    def turns(name, body, tree):
        before, begun = written(), time.perf_counter()
        for turn in range(TURNS):
            with db.transaction() as connection:
                body(connection.root()[tree], turn * 104729)
        figures[f"{name} bytes"] = (written() - before) / TURNS
        figures[f"{name} us"] = (time.perf_counter() - begun) / TURNS * 1e6

    turns("change", lambda tree, i: tree.__setitem__(i % size * 7919 % PRIME, i), "dictionary")
    turns("insert", lambda tree, i: tree.__setitem__(i + 2000000, i), "dictionary")
    turns("append", lambda tree, i: tree.__setitem__(tree.maxKey() + 1, i), "list")
    turns("shift", lambda tree, _: tree.pop(tree.minKey()), "list")
    figures["resident"] = field("/proc/self/status", "VmRSS:") / 1e3
    db.close()
    return figures


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["run"])
    parser.add_argument("path")
    parser.add_argument("size", type=int)
    arguments = parser.parse_args()
    print(json.dumps(run(arguments.path, arguments.size)))


main()
