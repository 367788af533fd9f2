"""A TCP proxy that can hold back what passes: makes a pull or a push as slow as a test needs it."""

import contextlib
import socket
import threading


class Gate:
    """Forwards 127.0.0.1:`port` to `target`. Closed, it passes `let` bytes of each connection and waits."""

    def __init__(self, target: int, *, let: int = 64 * 1024) -> None:
        self._target = target
        self._let = let
        self._open = threading.Event()
        self._open.set()
        self.held = threading.Event()  # something waits at the closed gate
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self.held.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def shut_down(self) -> None:
        self.open()
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
            except OSError:
                return
            with server:
                server.settimeout(None)
                back = threading.Thread(target=self._pass, args=(server, client), daemon=True)
                back.start()
                self._pass(client, server)
                back.join()

    def _pass(self, source: socket.socket, sink: socket.socket) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(32 * 1024):
                passed += len(data)
                if passed > self._let and not self._open.is_set():
                    self.held.set()
                    self._open.wait()
                sink.sendall(data)
        for side in (source, sink):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
