# Objects of many types, each said before it dies: what python3 of the machine is asked by tests/types.rs.
import os
import sys


class Session:
    def __init__(self, number):
        self.number = number


print("VERSION", *sys.version_info[:2])
keep = []
for number in range(40):
    keep.append(
        [
            Session(number),
            {"number": number},
            [number] * 9,
            {number, -1},
            (number, "x"),
            "text of %d " % number * 4,
            b"bytes of %d " % number * 4,
            float(number) / 3,
            1 << (90 + number),
        ]
    )
for one in keep:
    for it in one:
        print("OBJECT", hex(id(it)), type(it).__name__)
sys.stdout.flush()
os.abort()
