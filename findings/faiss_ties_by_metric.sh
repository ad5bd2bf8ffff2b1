#!/usr/bin/env bash
# faiss-cpu 1.15.1: which of several equal vectors comes first depends on the metric.
#
# A gallery with copies of one photograph has equal vectors. One would expect every exact index to return equal distances in
# the order in which the vectors were added. Seen on Linux x86-64, Python 3.11, with one query:
#   IndexFlatL2 returns equal distances by ascending id    [0, 1, 2]
#   IndexFlatIP returns equal products by descending id    [2, 1, 0]
# So "the first of equal rows" needs a sort of one's own, and moving from L2 to cosine changes which copy is shown.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check faiss-cpu==1.15.1 numpy==2.4.6
"$folder/venv/bin/python" - <<'PY'
import faiss
import numpy as np

rows = np.tile(np.array([[0.6, 0.8, 0.0, 0.0]], dtype=np.float32), (10, 1))
found = {}
for metric in (faiss.IndexFlatL2, faiss.IndexFlatIP):
    index = metric(4)
    index.add(rows)
    values, ids = index.search(rows[:1], 3)
    assert len(set(values[0].tolist())) == 1, "the distances are equal"
    found[metric.__name__] = ids[0].tolist()
print(found)
assert found == {"IndexFlatL2": [0, 1, 2], "IndexFlatIP": [2, 1, 0]}, "the behaviour has changed"
PY
