"""The second copy of an incremental backup: incremental.py URI CONTEXT IMAGE

Reads what CONTEXT calls dirty and writes it into IMAGE. Prints the bytes moved.
"""

import sys

import nbd

PIECE = 1 << 20
ASKED = 1 << 30


def main(uri, context, path):
    handle = nbd.NBD()
    handle.add_meta_context(context)
    handle.connect_uri(uri)
    assert handle.can_meta_context(context), f"{context} is not offered"
    size, at, moved = handle.get_size(), 0, 0
    with open(path, "r+b") as image:
        while at < size:
            runs = []

            def take(name, begin, found, error):
                assert (name, begin) == (context, at), (name, begin)
                runs.extend(found)

            handle.block_status(min(size - at, ASKED), at, take)
            for length, flags in zip(runs[::2], runs[1::2]):
                end = min(at + length, size)
                for part in range(at, end, PIECE) if flags & 1 else ():
                    bytes_read = handle.pread(min(PIECE, end - part), part)
                    image.seek(part)
                    image.write(bytes_read)
                    moved += len(bytes_read)
                at = end
    handle.shutdown()
    print(moved)


main(*sys.argv[1:])
