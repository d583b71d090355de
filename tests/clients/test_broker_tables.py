"""Headers of every type that RabbitMQ takes come out of a dead letter as they went in."""

from __future__ import annotations

import struct

from pika import data
from twisted.trial.unittest import SynchronousTestCase

from whatsapp_egress.clients.broker.tables import mend_pika


def a_field(kind: bytes, value: bytes) -> bytes:
    return b"\x04name" + kind + value


def sized(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def packed(form: str, *values: float | bytes) -> bytes:
    return struct.pack(f">{form}", *values)


class TableTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(data, "decode_value", data.decode_value)
        self.patch(data, "encode_value", data.encode_value)
        mend_pika()

    def read(self, field: bytes) -> object:
        table, end = data.decode_table(sized(field), 0)
        assert end == len(sized(field))
        return table

    def again(self, field: bytes) -> bytes:
        """The field as it is written after it was read."""
        pieces: list[bytes] = []
        data.encode_table(pieces, self.read(field))
        return b"".join(pieces)[4:]

    def test_what_pika_writes_in_one_way_stays_the_same_to_the_last_bit(self) -> None:
        for kind, value in (
            (b"T", packed("Q", 1_790_000_000)),
            (b"T", packed("Q", 1_790_000_000_000)),
            (b"T", packed("Q", 2**64 - 14_182_940)),
            (b"d", packed("d", 0.75)),
            (b"d", packed("d", float("nan"))),
            (b"d", packed("d", float("inf"))),
            (b"S", sized("é".encode())),
            (b"x", sized(b"\xff\x00")),
            (b"I", packed("i", -7)),
            (b"l", packed("q", 2**40)),
            (b"D", packed("Bi", 3, 12345)),
            (b"t", b"\x01"),
            (b"V", b""),
        ):
            field = a_field(kind, value)
            in_a_table = a_field(b"F", sized(field))
            in_a_list = a_field(b"A", sized(kind + value + b"V"))
            for each in (field, in_a_table, in_a_list):
                assert self.again(each) == each, (kind, value)

    def test_the_rest_keeps_its_value(self) -> None:
        for kind, value, expected in (
            (b"f", packed("f", 0.75), 0.75),
            (b"b", packed("b", -3), -3),
            (b"B", packed("B", 200), 200),
            (b"s", packed("h", -300), -300),
            (b"u", packed("H", 60000), 60000),
            (b"i", packed("I", 4_000_000_000), 4_000_000_000),
            (b"L", packed("q", -(2**40)), -(2**40)),
            (b"S", sized(b"\xff"), b"\xff"),
        ):
            field = a_field(kind, value)
            assert self.read(field) == {"name": expected}, kind
            assert self.read(self.again(field)) == {"name": expected}, kind
