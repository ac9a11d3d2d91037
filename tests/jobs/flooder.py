"""A hostile runner in a process of its own: `flooder.py KIND FRAMES_PER_S BYTES`, its identity on stdin.

Says hello, waits for its Run, says "go" and sends frames of `KIND` with that many bytes, at that rate (0: as fast as it
can), until it is killed. It never reads again.
"""

import sys
import time

import zmq

from expert_runner.contract import wire
from expert_runner.contract.wire import Header, Kind, encode_header
from expert_runner.version import RUNTIME_VERSION


def main(kind: str, rate: float, size: int) -> None:
    identity = wire.Identity.model_validate_json(sys.stdin.read())
    context = zmq.Context()
    socket = context.socket(zmq.DEALER)
    socket.curve_serverkey = identity.server_key.encode()
    socket.curve_publickey = identity.public_key.encode()
    socket.curve_secretkey = identity.secret_key.encode()
    socket.connect(identity.endpoint)
    words = wire.Hello(runtime_version=RUNTIME_VERSION, protocol_version=wire.PROTOCOL_VERSION).encode()
    hello = encode_header(Header(Kind.HELLO, 0, 0))
    socket.send_multipart((hello, words))
    while wire.decode_header(socket.recv_multipart()[0]).kind is not Kind.DATA:
        pass
    first = b'[{"type":"startGeneration"}]'
    socket.send_multipart((encode_header(Header(Kind.DATA, 1, 0)), first))
    frame = {
        "beats": (encode_header(Header(Kind.BEAT, 0, 0)), b"x" * size),
        "hellos": (hello, words + b" " * size),
        # Never taken again: it was taken before.
        "repeats": (encode_header(Header(Kind.DATA, 1, 0)), b"x" * size),
        # Never taken either: the one before it never comes.
        "gaps": (encode_header(Header(Kind.DATA, 200, 0)), b"x" * size),
    }[kind]
    print("go", flush=True)
    begun, sent = time.monotonic(), 0
    while True:
        socket.send_multipart(frame, copy=False)
        sent += 1
        if rate:
            time.sleep(max(0.0, begun + sent / rate - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))
