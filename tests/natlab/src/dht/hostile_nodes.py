"""Hostile nodes of a DHT: what they answer is garbage, floods, invented nodes, or the oldest item that they were given."""

import argparse
import os
import random
import selectors
import socket
import time

# Datagrams that a flooding node sends for each query.
FLOOD = 50

# Seconds between the queries by which the nodes stay in the tables of others.
INTRODUCTION_INTERVAL = 2


def encode(value):
    """Encodes a value (BEP 3)."""
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, list):
        return b"l" + b"".join(map(encode, value)) + b"e"
    return b"d" + b"".join(encode(key) + encode(value[key]) for key in sorted(value)) + b"e"


def decode(data, at=0):
    """Returns the value that begins there, and where it ends."""
    kind = data[at:at + 1]
    if kind == b"i":
        end = data.index(b"e", at)
        return int(data[at + 1:end]), end + 1
    if kind == b"l" or kind == b"d":
        items, at = [], at + 1
        while data[at:at + 1] != b"e":
            item, at = decode(data, at)
            items.append(item)
        return (items if kind == b"l" else dict(zip(items[::2], items[1::2]))), at + 1
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    return data[colon + 1:end], end


def compact(identifier, address, port):
    """Returns a node as lists of nodes have it."""
    return identifier + socket.inet_aton(address) + port.to_bytes(2, "big")


class Node:
    """One node. Its behavior follows from its number."""

    def __init__(self, number, address, options):
        self.behavior = ["garbage", "flood", "invent", "replay"][number % 4]
        self.address, self.port, self.accomplices = address, options.port, options.addresses
        self.identifier = os.urandom(20)
        self.items = {}
        self.asked = False
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, options.port))
        self.socket.setblocking(False)

    def introduce(self, others):
        """Asks the others something, so that they take up the node in their tables."""
        query = {b"t": b"hi", b"y": b"q", b"q": b"find_node",
                 b"a": {b"id": self.identifier, b"target": os.urandom(20)}}
        for other in others:
            host, port = other.rsplit(":", 1)
            self.socket.sendto(encode(query), (host, int(port)))

    def near(self, target):
        """Returns nodes that do not exist, at the addresses of accomplices, and nearer to the target than any other."""
        names = [target[:19] + bytes([number]) for number in range(8)]
        return b"".join(compact(name, random.choice(self.accomplices), self.port) for name in names)

    def answer(self, query):
        """Returns the response to a query."""
        arguments = query[b"a"]
        target = arguments.get(b"target") or arguments.get(b"info_hash") or self.identifier
        response = {b"id": self.identifier}
        if query[b"q"] != b"ping":
            response |= {b"nodes": self.near(target), b"token": b"hostile!"}
        if query[b"q"] == b"put" and b"k" in arguments:
            self.items.setdefault(arguments[b"k"], arguments)
        if query[b"q"] == b"get" and self.behavior == "replay":
            for item in self.items.values():
                response |= {name: item[name] for name in (b"k", b"seq", b"sig", b"v") if name in item}
        if query[b"q"] == b"get" and self.behavior == "invent":
            response |= {b"k": os.urandom(32), b"seq": 2**62, b"sig": os.urandom(64), b"v": os.urandom(600)}
        return encode({b"t": query[b"t"], b"y": b"r", b"r": response})

    def receive(self):
        """Answers a datagram."""
        data, sender = self.socket.recvfrom(2048)
        query, _ = decode(data)
        if query.get(b"y") != b"q":
            return
        if query[b"q"] == b"get" and not self.asked:
            self.asked = True
            print("asked:", self.behavior, flush=True)
        # Half of the garbage is refused by its first byte, the other half by a parser.
        garbage = [os.urandom(400), b"d1:rd2:id20:" + os.urandom(300)]
        if self.behavior == "garbage" and query[b"q"] in (b"get", b"put"):
            self.socket.sendto(random.choice(garbage), sender)
        elif self.behavior == "flood":
            for _ in range(FLOOD):
                self.socket.sendto(self.answer(query | {b"t": os.urandom(2)}), sender)
        else:
            self.socket.sendto(self.answer(query), sender)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=6881)
    parser.add_argument("--introduce", action="append", default=[])
    parser.add_argument("addresses", nargs="+")
    options = parser.parse_args()
    selector = selectors.DefaultSelector()
    nodes = [Node(number, address, options) for number, address in enumerate(options.addresses)]
    for node in nodes:
        selector.register(node.socket, selectors.EVENT_READ, node)
    print("ready", flush=True)
    introduced = 0
    while True:
        if time.monotonic() > introduced + INTRODUCTION_INTERVAL:
            introduced = time.monotonic()
            for node in nodes:
                node.introduce(options.introduce)
        for key, _ in selector.select(INTRODUCTION_INTERVAL):
            try:
                key.data.receive()
            except (ValueError, KeyError, IndexError, TypeError, AttributeError, OSError):
                continue


main()
