"""A server that reads a whole body before it answers, as a replica does, whatever the body's size.

    python -m bench.routing.bodies PORT

A thread a connection and blocking calls: with few connections and large bodies nothing is faster here.
"""

import socket
import sys
import threading

_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n"
    b'{"result":[1.0]}'
)
_BUFFER = 2**20


def serve(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    buffer = bytearray(_BUFFER)
    with connection:
        rest = b""
        while True:
            while b"\r\n\r\n" not in rest:
                more = connection.recv(65536)
                if not more:
                    return
                rest += more
            head, _, rest = rest.partition(b"\r\n\r\n")
            lines = head.lower().split(b"\r\n")
            length = next(
                (int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0
            )
            missing = length - len(rest)
            rest = rest[length:]
            while missing > 0:
                size = connection.recv_into(buffer, min(missing, _BUFFER))
                if not size:
                    return
                missing -= size
            connection.sendall(_ANSWER)


def main(port: int) -> None:
    with socket.create_server(("127.0.0.1", port), backlog=512) as listener:
        while True:
            threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]))
