"""What a protocol buffer's bytes consist of; SentencePiece's model file is one.

A message is a row of fields. Each begins with a key, which holds the field's number and kind; the
kind says where its content ends.
"""
from dataclasses import dataclass

NUMBER = 0   # 7 bits a byte, as the key itself
MESSAGE = 2  # bytes with their length in front: a text, or another message
SIZES = {1: 8, 5: 4}  # of kinds that always have as many bytes


@dataclass
class Field:
    """Where a field stands in a message, in bytes."""
    number: int
    kind: int
    start: int  # of the key
    content_start: int
    end: int    # behind its content


def fields(message):
    """Yields the Fields of a message, bytes; ValueError if it is none."""
    start = 0
    while start < len(message):
        key, content_start = varint(message, start)
        number = key >> 3
        kind = key & 7  # the key's lowest three bits
        if kind == NUMBER:
            _, end = varint(message, content_start)
        elif kind == MESSAGE:
            length, content_start = varint(message, content_start)
            end = content_start + length
        elif kind in SIZES:
            end = content_start + SIZES[kind]
        else:
            raise ValueError(f"a field of kind {kind} at byte {start}")
        if end > len(message):
            raise ValueError(f"the field at byte {start} is not there to its end")
        yield Field(number, kind, start, content_start, end)
        start = end


def varint(message, at):
    """(value, next position) of a number of variable length: 7 bits a byte, the lowest first."""
    value = 0
    shift = 0
    while at < len(message):
        byte = message[at]
        value |= (byte & 127) << shift
        at += 1
        shift += 7
        if byte < 128:  # the highest bit is 0: no byte follows
            return value, at
    raise ValueError("a number is not there to its end")
