"""A camera driver and back-end in a process of its own.

``friend`` sends until it is answered; ``intruder`` sends until its standard input has a line, and
asks for nothing. Both print how many matches came and how many subscriptions their images have.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading

from matcher_process import Image, Peer, image_message, picture


def friend(peer: Peer) -> None:
    for step in range(200):
        peer.send(10.0 + step, shift=5 * (step % 2))
        with contextlib.suppress(AssertionError):
            peer.wait(lambda: peer.received["matches"], "matches", 0.3)
            return


def intruder(peer: Peer) -> None:
    asked = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), asked.set()), daemon=True).start()
    publisher = peer.publisher("image", Image, ready=False)
    step = 0
    while not asked.wait(0.1):
        publisher.publish(image_message(picture(5 * (step % 2)), 10.0 + step))
        step += 1


if __name__ == "__main__":
    both = Peer(topics={"image": "/camera/image_raw"})
    {"friend": friend, "intruder": intruder}[sys.argv[1]](both)
    matched = max((len(message.u_ref) for message in both.received["matches"]), default=0)
    heard_by = both.node.count_subscribers("/camera/image_raw")
    print(json.dumps({"matched": matched, "heard_by": heard_by}))
    both.close()
