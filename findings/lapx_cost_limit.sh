#!/usr/bin/env bash
# lapx 0.11.1: a cost limit changes the assignment of pairs whose costs are all below the limit.
#
# Trackers call `lapx.lapjv(cost, extend_cost=True, cost_limit=t)` to leave out pairs that cost more than t. One would expect it to
# be the cheapest assignment with the expensive pairs removed. It minimises "cost of the pairs + t/2 for each row and column left
# over", so two cheap pairs can lose against one cheaper pair. Seen: both pairs cost 0.5 and 0.5 in scipy's assignment; with limit
# 0.54 lapx keeps one pair (0.0) and leaves a row and a column alone; with limit 1.1 it keeps both.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check lapx==0.11.1 numpy==2.4.6 scipy==1.17.1
"$folder/venv/bin/python" - <<'PY'
from importlib.metadata import version

import lap
import numpy as np
from scipy.optimize import linear_sum_assignment

cost = np.array([[0.0, 0.5], [0.5, 10.0]])
rows, columns = linear_sum_assignment(cost)
print("lapx", version("lapx"))
seen = {"scipy": [(int(row), int(column)) for row, column in zip(rows, columns)]}
for limit in (0.54, 1.1):
    _, x, _ = lap.lapjv(cost, extend_cost=True, cost_limit=limit)
    seen[f"lapx, limit {limit}"] = [(row, int(column)) for row, column in enumerate(x) if column >= 0]
print(seen)
expected = {"scipy": [(0, 1), (1, 0)], "lapx, limit 0.54": [(0, 0)], "lapx, limit 1.1": [(0, 1), (1, 0)]}
assert seen == expected, "the behaviour has changed"
PY
