#!/usr/bin/env bash
# pycocotools 2.0.11 and faster-coco-eval 1.8.0: with another largest number of detections, one gives AP -1, the other the AP.
#
# Crowded scenes need more than 100 detections an image, so one sets `params.maxDets = [1, 10, 1000]`. One would expect the same
# figure from both tools, the second being a faster drop-in for the first. pycocotools looks up its first figure (AP) at 100
# detections whatever the setting says, finds none, and prints -1, which some scripts take for "no ground truth".
# faster-coco-eval takes the last entry. Seen with one person who is found exactly: -1.0 and 1.0.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check pycocotools==2.0.11 faster-coco-eval==1.8.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import contextlib
import copy
import io
import json

import faster_coco_eval
import pycocotools.coco
import pycocotools.cocoeval

truth = {
    "images": [{"id": 1, "width": 100, "height": 100, "file_name": "a.jpg"}],
    "categories": [{"id": 1, "name": "person"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 60], "area": 2400, "iscrowd": 0}],
}
found = [{"image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 60], "score": 0.9}]
with open("truth.json", "w") as file:
    json.dump(truth, file)


def ap(coco, evaluation):
    with contextlib.redirect_stdout(io.StringIO()):
        annotated = coco("truth.json")
        tool = evaluation(annotated, annotated.loadRes(copy.deepcopy(found)), "bbox")
        tool.params.maxDets = [1, 10, 1000]
        tool.evaluate()
        tool.accumulate()
        tool.summarize()
    return float(tool.stats[0])


seen = {
    "pycocotools": ap(pycocotools.coco.COCO, pycocotools.cocoeval.COCOeval),
    "faster-coco-eval": ap(faster_coco_eval.COCO, faster_coco_eval.COCOeval_faster),
}
print(seen)
assert seen["pycocotools"] == -1 and abs(seen["faster-coco-eval"] - 1) < 1e-6, "the behaviour has changed"
PY
