"""A libnbd client of a node that is taken over: libnbd_takeovers.py URI OFFSET LENGTH

Writes, zeroes, reads and flushes its part of the export, many requests at a time, and judges every
byte. libnbd (1.14, as 1.22) does not attach again by itself: like any program on it, this one makes
a new handle when the old one is dead, and repeats what had no reply.

Runs in step with the test that started it: "attached N" on stdout whenever it has attached and what
it had to repeat is answered; "stop" on stdin ends the load; "done: ..." once all is as it must be.

    request ─► reply ─► what was read is what the model says; what was written is the model from now on
       └─ dead ─► new handle ─► each sector of an unanswered write is old or new ─► repeated
"""

import errno
import os
import random
import select
import sys
import time

import nbd

DEPTH = 16
SECTOR = 512
# Requests of one slot never overlap in time.
SLOT = 64 << 10
ATTACH_MAX_S = 20


class Request:
    def __init__(self, kind, start, data):
        self.kind, self.start, self.data = kind, start, data
        self.buffer = None

    @property
    def end(self):
        return self.start + len(self.data)

    @property
    def slot(self):
        return self.kind if self.kind == "flush" else self.start // SLOT


class Client:
    def __init__(self, uri, offset, length):
        self.uri, self.offset = uri, offset
        self.model = bytearray(length)
        self.random = random.Random(offset)
        self.pending = {}
        self.wrong = []
        self.attached = self.answered = self.repeated = 0
        self.handle = None

    def attach(self):
        deadline = time.monotonic() + ATTACH_MAX_S
        while True:
            handle = nbd.NBD()
            handle.set_uri_allow_local_file(True)
            try:
                handle.connect_uri(self.uri)
                break
            except nbd.Error as error:
                # A handshake that began with the old process ends with it.
                assert time.monotonic() < deadline, error
                time.sleep(0.02)
        assert handle.get_tls_negotiated(), "TLS was asked for"
        self.handle = handle

    def is_lost(self):
        return self.handle.aio_is_dead() or self.handle.aio_is_closed()

    def next(self):
        """A request for a slot that has none."""
        kind = self.random.choices(["write", "zero", "read", "flush"], [50, 5, 40, 5])[0]
        if kind == "flush":
            return None if kind in self.pending else Request(kind, 0, b"")
        slot = self.random.randrange(len(self.model) // SLOT)
        if slot in self.pending:
            return None
        sectors = SLOT // SECTOR
        first = self.random.randrange(sectors)
        count = self.random.choice([1, 8, 8, 8, sectors]) if kind != "zero" else 16
        size = min(count, sectors - first) * SECTOR
        data = self.random.randbytes(size) if kind == "write" else bytes(size)
        return Request(kind, slot * SLOT + first * SECTOR, data)

    def send(self, request):
        self.pending[request.slot] = request
        at, size = self.offset + request.start, len(request.data)

        def ended(error):
            self.ended(request, error.value)
            return 1

        try:
            if request.kind == "write":
                request.buffer = nbd.Buffer.from_bytearray(bytearray(request.data))
                self.handle.aio_pwrite(request.buffer, at, completion=ended)
            elif request.kind == "zero":
                self.handle.aio_zero(size, at, completion=ended)
            elif request.kind == "read":
                request.buffer = nbd.Buffer(size)
                self.handle.aio_pread(request.buffer, at, completion=ended)
            else:
                self.handle.aio_flush(completion=ended)
        except nbd.Error as error:
            # It never left, or was aborted at once.
            assert self.is_lost(), error

    def ended(self, request, error):
        if error == errno.ENOTCONN:
            # libnbd's own word for no reply: it stays pending.
            return
        del self.pending[request.slot]
        self.answered += 1
        if error:
            self.wrong.append(f"{request.kind} at {request.start}: {errno.errorcode[error]}")
        elif request.kind == "read":
            found = request.buffer.to_bytearray()
            if found != self.model[request.start : request.end]:
                self.wrong.append(f"a read at {request.start}: not what was written")
        else:
            self.model[request.start : request.end] = request.data

    def move(self):
        """Lets replies come in; attaches anew if there is nobody to give them."""
        try:
            self.handle.poll(100)
        except nbd.Error as error:
            assert self.is_lost(), error
        assert not self.wrong, self.wrong
        if self.is_lost():
            self.begin()

    def begin(self):
        while not self.has_begun():
            pass
        self.attached += 1
        print(f"attached {self.attached}", flush=True)

    def has_begun(self):
        """Attaches, and repeats what had no reply, which must have happened or not. False if this
        connection is lost as well."""
        lost = list(self.pending.values())
        self.attach()
        try:
            for request in lost:
                self.judge_torn(request)
            for request in lost:
                self.send(request)
            while self.pending and not self.is_lost():
                self.handle.poll(100)
        except nbd.Error as error:
            assert self.is_lost(), error
        self.repeated += len(lost) - len(self.pending)
        return not self.pending

    def judge_torn(self, request):
        if request.kind == "flush":
            return
        found = self.handle.pread(len(request.data), self.offset + request.start)
        old = self.model[request.start : request.end]
        new = old if request.kind == "read" else request.data
        for at in range(0, len(found), SECTOR):
            part = slice(at, at + SECTOR)
            assert found[part] in (old[part], new[part]), (
                f"a {request.kind} without reply at {request.start}: byte {at} on is neither old nor new"
            )

    def run(self):
        self.begin()
        while not select.select([sys.stdin], [], [], 0)[0]:
            for _ in range(DEPTH - len(self.pending)):
                request = self.next()
                if request is not None:
                    self.send(request)
            self.move()
        assert sys.stdin.readline() == "stop\n"
        while self.pending:
            self.move()
        self.handle.flush()
        self.handle.shutdown()
        self.attach()
        for start in range(0, len(self.model), 1 << 20):
            found = self.handle.pread(1 << 20, self.offset + start)
            assert found == self.model[start : start + (1 << 20)], f"the MiB at {start} is wrong"
        self.handle.shutdown()


def main():
    uri, offset, length = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    client = Client(uri, offset, length)
    client.run()
    print(f"done: {client.answered} answers, attached {client.attached} times, "
          f"{client.repeated} requests repeated", flush=True)


main()
