"""Lists tables of files that are not there, on a store that notes each request: `many_entries.py FOLDER ROWS ...`.

Prints for each count of rows a JSON object: requests of the driver and of all tasks, objects that the driver is left
with, and the sentence that the run ends with.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from curate.schema.errors import CurateError
from curate.storage import Folder

PARTITION = 4096
RECIPE = f"""\
name: many
partition: {PARTITION}
sources:
  - {{kind: table, name: gone, path: table.parquet}}
annotate:
  - name: brightness
tokenize:
  streams:
    - {{name: caption, tokenizer: text-bpe-8k}}
max_failed: 1
"""


def main(folder: str, *counts: str) -> None:
    from counted import Counted

    from curate.card.write import write_card
    from curate.pipeline.cluster import connect
    from curate.pipeline.plan import make_plan, open_sources
    from curate.pipeline.progress import console
    from curate.pipeline.run import run
    from curate.schema.recipe_file import RecipeFile

    with connect(None, 2) as cluster:
        for count in map(int, counts):
            root = Path(folder) / str(count)
            root.mkdir()
            names = pa.array([f"gone/{i:07d}.png" for i in range(count)])
            pq.write_table(pa.table({"uri": names}), root / "table.parquet", row_group_size=PARTITION)
            (root / "many.yaml").write_text(RECIPE)
            file = RecipeFile.load(str(root / "many.yaml"))
            build = Counted(Folder(root / "build"), root / "log")
            del names
            gc.collect()
            before = len(gc.get_objects())
            try:
                run(make_plan(file), open_sources(file, {}), build, cluster, console(quiet=True), write_card)
            except CurateError as exc:  # with its traceback, and so with all that the run held
                held = len(gc.get_objects()) - before
                said = str(exc)
            by = Counter(line.split(" ")[0] == str(os.getpid()) for line in (root / "log").read_text().splitlines())
            print(json.dumps({"driver": by[True], "tasks": by[False], "objects": held, "said": said}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
