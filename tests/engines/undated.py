"""undated.py ENGINE OURS CREATED...: an archive of `docker save` up to 24 against ours, byte for byte, but
for what Docker leaves with the time of the run: directories whose layer.tar is a link, and what they
hold. There ours must have one of CREATED, in seconds since 1970."""

import sys

BLOCK = 512
LINK = b"2"


def entries(path):
    """(name, header, body) of each entry, and what ends the tar."""
    with open(path, "rb") as file:
        tar = file.read()
    at, found = 0, []
    while tar[at : at + BLOCK].strip(b"\0"):
        header = tar[at : at + BLOCK]
        size = 0 if header[156:157] in b"123456" else int(header[124:135], 8)
        end = at + BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK
        found.append((header[:100].rstrip(b"\0"), header, tar[at + BLOCK : end]))
        at = end
    return found, tar[at:]


def dated(header, other):
    """`header` with the mtime of another."""
    header = bytearray(header)
    header[136:148] = other[136:148]
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def main():
    theirs, end = entries(sys.argv[1])
    ours, our_end = entries(sys.argv[2])
    created = {int(secs) for secs in sys.argv[3:]}
    links = {name.removesuffix(b"layer.tar") for name, header, _ in theirs if header[156:157] == LINK}
    assert links, "no layer is a link"
    names = [[entry[0] for entry in entries] for entries in (theirs, ours)]
    assert names[0] == names[1], "other entries, or another order"
    assert end == our_end == bytes(1024)
    for (name, header, body), (_, our_header, our_body) in zip(theirs, ours):
        if name[: name.find(b"/") + 1] in links:
            assert int(our_header[136:147], 8) in created, f"{name}: not the time of an image"
            header = dated(header, our_header)
        assert header == our_header, f"{name}: another header"
        assert body == our_body, f"{name}: other bytes"


main()
