#!/usr/bin/env python3
"""A client of the broker, with nothing but Python's own library.

    client.py SOCKET publish SUBJECT TEXT
    client.py SOCKET subscribe PATTERN COUNT
    client.py SOCKET request SUBJECT TEXT
    client.py SOCKET serve PATTERN COUNT      answers in upper case
"""
import os
import socket
import struct
import sys

SUBSCRIBE, PUBLISH, REQUEST, SERVE, REPLY, PING, PONG, PROOF = 1, 3, 4, 5, 6, 7, 8, 10
MESSAGE, DELIVER, ANSWER, OK, ERROR, GAP, GOAWAY, CHALLENGE = range(0x11, 0x19)
STAMP = struct.Struct(">QQIIII")  # connection, sequence, uid, gid, pid, flags


class Broker:
    def __init__(self, path, server_uids=(0, os.geteuid())):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        # Verify the server before a byte is sent to it.
        found = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        uid = struct.unpack("3i", found)[1]
        if uid not in server_uids:
            raise PermissionError(f"the server runs as uid {uid}")
        self.socket.sendall(struct.pack(">4sHHII", b"SSB1", 1, 0, 1 << 20, 0))
        magic, version, flags, self.accepted, _ = struct.unpack(">4sHHII", self.read(16))
        if (magic, version, flags) != (b"SSB1", 1, 0):
            raise ConnectionError("not a broker of this version")

    def read(self, count):
        data = bytearray()
        while len(data) < count:
            part = self.socket.recv(count - len(data))
            if not part:
                raise ConnectionError("closed")
            data += part
        return bytes(data)

    def send(self, kind, number=0, subject="", body=b"", flags=0):
        subject = subject.encode()
        head = struct.pack(">IBBHQ", len(subject) + len(body), kind, flags, len(subject), number)
        self.socket.sendall(head + subject + body)

    def receive(self):
        """The next frame: kind, id, subject, stamp or None, body."""
        while True:
            length, kind, _, subject_length, number = struct.unpack(">IBBHQ", self.read(16))
            payload = self.read(length)
            subject, body = payload[:subject_length].decode(), payload[subject_length:]
            if kind == CHALLENGE:
                self.send(PROOF, body=body)
            elif kind == PING:
                self.send(PONG, number, body=body)
            elif kind == ERROR:
                code = struct.unpack(">H", body[:2])[0]
                raise RuntimeError(f"error {code}: {body[2:].decode()}")
            elif kind in (MESSAGE, DELIVER, ANSWER):
                return kind, number, subject, STAMP.unpack(body[:32]), body[32:]
            else:
                return kind, number, subject, None, body


def main():
    path, command, subject, argument = sys.argv[1:5]
    broker = Broker(path)
    if command == "publish":
        broker.send(PUBLISH, 1, subject, argument.encode())
        broker.receive()
    elif command == "request":
        broker.send(REQUEST, 1, subject, argument.encode())
        print(broker.receive()[4].decode(), flush=True)
    elif command in ("subscribe", "serve"):
        broker.send(SUBSCRIBE if command == "subscribe" else SERVE, 1, subject)
        left = int(argument)
        while left > 0:
            kind, number, subject, stamp, body = broker.receive()
            if kind == OK:
                print("ready", flush=True)
            elif kind in (MESSAGE, DELIVER):
                print(f"{subject} uid={stamp[2]} pid={stamp[4]} {body.decode()}", flush=True)
                left -= 1
                if kind == DELIVER:
                    broker.send(REPLY, number, body=body.upper())
    else:
        sys.exit(__doc__)


main()
