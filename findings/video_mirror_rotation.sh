#!/usr/bin/env bash
# PyAV 18.1.0: `frame.rotation` of a mirrored film is an angle by which no turning gives the picture back.
#
# A phone's front camera can store a display matrix that mirrors. One would turn the frame by `frame.rotation` and show it. A matrix
# that mirrors left and right is reported as a half turn (-180 or 180), one that mirrors top and bottom as 0. Only the matrix in the
# frame's side data tells a mirror from a turn: its determinant is negative.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import struct

import av
import numpy as np

ONE = 1 << 16
MATRICES = {"as it is": (ONE, ONE), "left-right": (-ONE, ONE), "top-bottom": (ONE, -ONE)}


def write(path):
    with av.open(path, "w") as film:
        stream = film.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(5):
            film.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), dtype=np.uint8), format="rgb24")))
        film.mux(stream.encode())


def with_matrix(data, across, down):
    """Put another matrix into the track header (tkhd, version 0): nine numbers, 40 bytes after its four flag bytes."""
    start = data.index(b"tkhd") + 4 + 40
    matrix = struct.pack(">9i", across, 0, 0, 0, down, 0, 0, 0, 1 << 30)
    return data[:start] + matrix + data[start + len(matrix) :]


write("film.mp4")
data = open("film.mp4", "rb").read()
seen = {}
for name, (across, down) in MATRICES.items():
    with open("turned.mp4", "wb") as file:
        file.write(with_matrix(data, across, down))
    with av.open("turned.mp4") as film:
        frame = next(film.decode(video=0))
        side = [entry for entry in frame.side_data if "DISPLAYMATRIX" in str(entry.type)]
        numbers = np.frombuffer(bytes(side[0]), dtype=np.int32).reshape(3, 3) if side else np.eye(3)
        determinant = float(np.sign(numbers[0, 0] * float(numbers[1, 1]) - numbers[0, 1] * float(numbers[1, 0])))
        seen[name] = (abs(frame.rotation), determinant)
print(seen)
assert seen == {"as it is": (0, 1.0), "left-right": (180, -1.0), "top-bottom": (0, -1.0)}, "the behaviour has changed"
PY
