#!/usr/bin/env bash
# openvino 2026.4.1: NonMaxSuppression drops a box whose overlap equals the threshold; onnxruntime keeps it.
#
# One would expect one ONNX graph to give the same boxes in both runtimes. Of two boxes with an IoU of exactly 0.5 and a threshold
# of 0.5, onnxruntime 1.32.0 (like torchvision) keeps both, OpenVINO keeps one. Boxes on a pixel grid meet such thresholds often.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper

graph = helper.make_graph(
    [helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou"], ["kept"])],
    "nms",
    [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [1, 2, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 1, 2]),
    ],
    [helper.make_tensor_value_info("kept", TensorProto.INT64, ["n", 3])],
    [helper.make_tensor("most", TensorProto.INT64, [1], [10]), helper.make_tensor("iou", TensorProto.FLOAT, [1], [0.5])],
)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
boxes = np.array([[[0, 0, 2, 2], [0, 0, 1, 2]]], dtype=np.float32)  # overlap 2 of 4: an IoU of exactly 0.5
scores = np.array([[[0.9, 0.8]]], dtype=np.float32)
session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
by_onnxruntime = session.run(None, {"boxes": boxes, "scores": scores})[0]
with open("nms.onnx", "wb") as file:
    file.write(model.SerializeToString())
compiled = openvino.Core().compile_model("nms.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
by_openvino = compiled([boxes, scores])[0]
seen = {
    "onnxruntime": sorted(by_onnxruntime[:, 2].tolist()),
    "openvino": sorted(int(index) for index in by_openvino[:, 2] if index >= 0),
}
print(seen)
assert seen == {"onnxruntime": [0, 1], "openvino": [0]}, "the behaviour has changed"
PY
