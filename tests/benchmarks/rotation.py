"""How long a database takes to be sealed again: `python -m tests.benchmarks.rotation sqlite|postgres [ROWS]`.

Four tables of `ROWS` / 4 rows each, evidence of the usual length. A reader with a ring of its own, which learns of the
new key from the file alone, reads rows all the while; its figures show that nobody reads in vain. One JSON line.
"""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from sidecar.store import Rotation, check_ring, load_keys, new_keys, open_store
from sidecar.store.keyfile import fresh_key, read_keys, replace_keys
from tests.harness import new_database
from tests.sealed_rows import Reader, fill, keys_in_use

ROWS, TABLES = 100_000, 4


async def measure(engine: str, rows: int, folder: Path) -> dict[str, Any]:
    """Turn the ring of a database with `rows` rows, and seal everything again beside a reader."""
    ring, count = folder / "keys.toml", rows // TABLES
    new_keys(ring)
    with new_database(folder, engine) as url:
        own = open_store(url)
        others = open_store(url) if engine == "postgres" else own
        cipher, theirs = load_keys(ring), load_keys(ring)
        values = await fill(own, cipher, count)
        await check_ring(own, cipher)
        replace_keys(ring, read_keys(ring).grown(2, fresh_key()).turned(2))
        reader, stop = Reader(others, theirs, count), asyncio.Event()
        reading = asyncio.create_task(reader.run(stop))
        rotation, began, cpu = Rotation(own, cipher), time.perf_counter(), time.process_time()
        done = await rotation.reseal(begin=True)
        while not done["done"]:
            done = await rotation.reseal(begin=False)
        took, used = time.perf_counter() - began, time.process_time() - cpu
        stop.set()
        await reading
        by_key = await keys_in_use(own, cipher)
        for store in {own, others}:
            store.close()
    return {
        "engine": engine, "rows": rows, "values": values, "seconds": round(took, 1), "cpu_seconds": round(used, 1),
        "reads": reader.read, "failed_reads": len(reader.failed), "values_by_key": by_key,
    }  # fmt: skip


if __name__ == "__main__":
    asked = (sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else ROWS)
    with tempfile.TemporaryDirectory() as scratch:
        sys.stdout.write(json.dumps(asyncio.run(measure(*asked, Path(scratch)))) + "\n")
