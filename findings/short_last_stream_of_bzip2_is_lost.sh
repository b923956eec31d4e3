#!/usr/bin/env bash
# Of a bzip2 file in several streams, a short last stream is not read, and nothing says so (pyosmium).
#
# Versions     osmium (pyosmium) 4.3.2
# Expected     A .bz2 may consist of several streams one after the other; parallel compressors write one for each block.
#              All of it is read, as bzip2, Python's bz2, and osmium itself with .gz of several members do.
# Seen         Four nodes, two in each stream: the first two come, and no error. The same in one stream, or as gzip in
#              two members: all four. With two streams of 100,000 nodes each all nodes come: only what is short is lost.
# Matters      Planet files are .osm.bz2 of a parallel compressor, and their last block is as short as it happens to be.
#              Of XML one sees an error, since the closing tag is missing; of OPL, which is lines, one sees nothing.
# Remedy       Unpack with bz2 before osmium reads, where a file has more than one stream.
# Source       seen with the library; bzip2(1) and https://docs.python.org/3/library/bz2.html on several streams
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q "osmium==4.3.2"
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import bz2
import gzip
from pathlib import Path

import osmium

one, two = b"n1 v1 x9 y50\nn2 v1 x9.1 y50\n", b"n3 v1 x9.2 y50\nn4 v1 x9.3 y50\n"


def read(name: str, data: bytes) -> list[int]:
    Path(name).write_bytes(data)
    return [node.id for node in osmium.FileProcessor(name)]


streams = bz2.compress(one) + bz2.compress(two)
assert bz2.decompress(streams) == one + two
found = read("two.opl.bz2", streams)
print("bzip2, one stream: ", read("one.opl.bz2", bz2.compress(one + two)))
print("bzip2, two streams:", found)
print("gzip, two members: ", read("two.opl.gz", gzip.compress(one) + gzip.compress(two)))
assert read("one.opl.bz2", bz2.compress(one + two)) == [1, 2, 3, 4]
assert read("two.opl.gz", gzip.compress(one) + gzip.compress(two)) == [1, 2, 3, 4]
assert found == [1, 2], "the finding no longer holds"
many = [b"".join(b"n%d v1 x9 y50\n" % i for i in range(first, first + 100_000)) for first in (1, 100_001)]
assert len(read("large.opl.bz2", b"".join(map(bz2.compress, many)))) == 200_000
print("as described")
PYTHON
