"""Opens every shard under a folder in pyarrow with page checksums verified, and checks that a flipped
byte is noticed.

usage: test_shards.py FOLDER
"""
import json
import pathlib
import sys

import pyarrow
import pyarrow.parquet


def read(source):
    return pyarrow.parquet.ParquetFile(source, page_checksum_verification=True).read()


def flipped(path):
    """The file with a bit changed in the middle of its largest column chunk, as a buffer."""
    groups = pyarrow.parquet.read_metadata(path)
    chunks = [groups.row_group(group).column(column) for group in range(groups.num_row_groups) for column in range(groups.num_columns)]
    largest = max(chunks, key=lambda chunk: chunk.total_compressed_size)
    start = largest.dictionary_page_offset or largest.data_page_offset
    data = bytearray(path.read_bytes())
    data[start + largest.total_compressed_size // 2] ^= 4
    return pyarrow.BufferReader(bytes(data))


passed = failed = 0
for manifest in sorted(pathlib.Path(sys.argv[1]).glob("**/manifest.json")):
    entries = json.loads(manifest.read_text())
    for entry in entries["shards"] + ([entries["fact_index"]] if entries["fact_index"] else []):
        path = manifest.parent / entry["file"]
        problems = [] if read(path).num_rows == entry["rows"] else ["rows"]
        try:
            read(flipped(path))
            problems.append("a flipped byte was not noticed")
        except OSError as error:
            if "CRC checksum" not in str(error):
                problems.append(f"a flipped byte gave: {error}")
        if problems:
            print(f"{path}: PROBLEM: {', '.join(problems)}")
        passed, failed = passed + (not problems), failed + bool(problems)
print(f"{passed} Parquet files passed, {failed} failed")
sys.exit(failed > 0 or passed == 0)
