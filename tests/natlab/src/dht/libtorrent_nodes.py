"""Nodes of the Mainline DHT in the lab, by libtorrent: many of them, or one that stores or fetches an item."""

import argparse
import sys
import time

import libtorrent

# Of the nodes that it was told of, a node has to know this share before it counts as ready.
READY_SHARE = 0.7


def node(address, port, routers):
    """Starts a node with the defaults of libtorrent for everything that concerns the DHT."""
    return libtorrent.session({
        "listen_interfaces": f"{address}:{port}",
        "dht_bootstrap_nodes": ",".join(routers),
        # The homes of the lab have addresses that nobody uses on the internet.
        "dht_ignore_dark_internet": False,
        "enable_lsd": False,
        "enable_upnp": False,
        "enable_natpmp": False,
        "enable_incoming_tcp": False,
        "enable_outgoing_tcp": False,
        "aio_threads": 1,
        "alert_mask": libtorrent.alert.category_t.dht_notification,
    })


def known_nodes(session):
    """Returns the number of nodes in the routing table."""
    session.post_session_stats()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        session.wait_for_alert(100)
        for alert in session.pop_alerts():
            if isinstance(alert, libtorrent.session_stats_alert):
                return alert.values["dht.dht_nodes"]
    return 0


def wait_for_alert(session, kind, seconds):
    """Returns the next alert of that kind, or None if there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        session.wait_for_alert(100)
        for alert in session.pop_alerts():
            if isinstance(alert, kind):
                return alert
    return None


def meet(session, nodes, count):
    """Asks these nodes until the routing table has so many of any."""
    deadline = time.monotonic() + 20
    while known_nodes(session) < count:
        if time.monotonic() > deadline:
            sys.exit("the other nodes do not answer")
        for host, port in nodes:
            session.add_dht_node((host, port))
        time.sleep(0.2)


def serve(options):
    """Runs nodes until the process is killed."""
    sessions = [node(address, options.port, options.router) for address in options.addresses]
    for session in sessions:
        others = [(address, options.port) for address in options.addresses]
        meet(session, others, int(READY_SHARE * (len(sessions) - 1)))
    print("ready", flush=True)
    while True:
        time.sleep(1)
        for session in sessions:
            session.pop_alerts()


def client(options):
    """Starts one node that has found others."""
    session = node(options.address, options.port, options.router)
    routers = [router.rsplit(":", 1) for router in options.router]
    meet(session, [(host, int(port)) for host, port in routers], len(routers))
    return session


def put(options):
    """Stores an item, signed with an expanded private key, and prints the number of nodes that accepted it."""
    session = client(options)
    private, public = bytes.fromhex(options.private), bytes.fromhex(options.public)
    session.dht_put_mutable_item(private, public, options.value.encode(), b"")
    alert = wait_for_alert(session, libtorrent.dht_put_alert, 20)
    print(alert.num_success if alert else 0, flush=True)


def get(options):
    """Fetches an item and prints its sequence number and value."""
    session = client(options)
    session.dht_get_mutable_item(bytes.fromhex(options.public), b"")
    alert = wait_for_alert(session, libtorrent.dht_mutable_item_alert, 20)
    print(alert.seq, alert.item if alert else None, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=6881)
    parser.add_argument("--router", action="append", default=[])
    tasks = parser.add_subparsers(required=True)
    task = tasks.add_parser("serve")
    task.add_argument("addresses", nargs="+")
    task.set_defaults(run=serve)
    task = tasks.add_parser("put")
    for name in ["address", "private", "public", "value"]:
        task.add_argument(name)
    task.set_defaults(run=put)
    task = tasks.add_parser("get")
    for name in ["address", "public"]:
        task.add_argument(name)
    task.set_defaults(run=get)
    options = parser.parse_args()
    options.run(options)


main()
