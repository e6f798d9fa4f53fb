"""A TCP proxy that a test can cut, freeze, slow down and mend: how a server in trouble looks to its client."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit, urlunsplit


class Proxy:
    """Forwards 127.0.0.1:``port`` to one server, until a test makes trouble; ``mend`` ends all of it."""

    def __init__(self, host: str, port: int) -> None:
        self.answered = 0
        """Bytes that the server has sent to its clients."""
        self._target = (host, port)
        self._loop = asyncio.new_event_loop()
        self._open = True
        self._delay = 0.0
        self._left: int | None = None
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = self._call(asyncio.start_server(self._forward, "127.0.0.1", 0))
        self.port: int = self._server.sockets[0].getsockname()[1]

    def url(self, url: str) -> str:
        """``url`` with the proxy in place of its server."""
        parts = urlsplit(url)
        account = parts.netloc.rpartition("@")[0]
        return urlunsplit(
            parts._replace(netloc=f"{account}@127.0.0.1:{self.port}" if account else f"127.0.0.1:{self.port}")
        )

    def cut(self) -> None:
        """Drop every connection and refuse new ones."""
        self._call(self._set(is_open=False))

    def freeze(self) -> None:
        """Take connections and all that is sent, and forward nothing."""
        self._call(self._set(flows=False))

    def slow(self, seconds: float) -> None:
        """Let every piece of an answer (64 KiB at most) wait."""
        self._call(self._set(delay=seconds))

    def break_after(self, size: int) -> None:
        """Drop the connection on which the answers pass ``size`` bytes, counted from now, and all after it."""
        self._call(self._set(left=size))

    def mend(self) -> None:
        self._call(self._set())

    def close(self) -> None:
        self.cut()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _call(self, coroutine):  # type: ignore[no-untyped-def]
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=10)

    async def _set(
        self, *, is_open: bool = True, flows: bool = True, delay: float = 0.0, left: int | None = None
    ) -> None:
        self._open, self._delay, self._left = is_open, delay, left
        if flows:
            self._flows.set()
        else:
            self._flows.clear()
        for writer in () if is_open else tuple(self._writers):
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        there, back = await asyncio.open_connection(*self._target)
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._pump(reader, back), self._pump(there, writer, is_answer=True))
        finally:
            self._writers -= {writer, back}

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, is_answer: bool = False) -> None:
        try:
            while data := await source.read(65_536):
                await self._flows.wait()
                if is_answer:
                    await asyncio.sleep(self._delay)
                    data = self._let_through(data)
                    self.answered += len(data)
                sink.write(data)
                await sink.drain()
                if is_answer and self._left == 0:
                    return
        except OSError:
            return
        finally:
            sink.close()

    def _let_through(self, data: bytes) -> bytes:
        if self._left is None:
            return data
        data = data[: self._left]
        self._left -= len(data)
        return data


@contextmanager
def proxy_to(url: str) -> Iterator[Proxy]:
    """A proxy in front of the server of ``url``, for the time of the block."""
    parts = urlsplit(url)
    proxy = Proxy(parts.hostname or "127.0.0.1", parts.port or 5432)
    try:
        yield proxy
    finally:
        proxy.close()
