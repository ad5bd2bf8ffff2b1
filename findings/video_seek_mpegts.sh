#!/usr/bin/env bash
# PyAV 18.1.0 (its FFmpeg): in MPEG-TS a backward seek lands after the time that was asked for; in MP4 and Matroska before it.
#
# `container.seek(t, backward=True)` is documented as "the nearest key frame at or before". One would decode on from there until
# the wanted frame comes. Seen on Linux x86-64, with 100 frames of H.264 at 25 a second and a key frame every 25:
#   mp4, mkv: asked for frame 30, the first decoded frame is 25 (at or before)
#   ts:       asked for frame 30, the first decoded frame is 50 (the next key frame)
#   ts:       asked for frame 90, past the last key frame, no frame comes at all
# A reader that takes the first frame after a seek shows another frame, or loses the end, without an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
from fractions import Fraction

import av
import numpy as np


def write(path):
    with av.open(path, "w") as film:
        stream = film.add_stream("libx264", rate=25, options={"g": "25", "keyint_min": "25", "sc_threshold": "0", "bf": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for number in range(100):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 2 * number, dtype=np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())


def first_after_seek(path, number):
    with av.open(path) as film:
        stream = film.streams.video[0]
        start = stream.start_time or 0
        film.seek(start + int(Fraction(number, 25) / stream.time_base), stream=stream, backward=True)
        for frame in film.decode(stream):
            return round(float((frame.pts - start) * stream.time_base) * 25)
    return None


seen = {}
for ending in ("mp4", "mkv", "ts"):
    write(f"film.{ending}")
    seen[ending] = [first_after_seek(f"film.{ending}", number) for number in (30, 90)]
print(seen)
assert seen["mp4"] == [25, 75] and seen["mkv"] == [25, 75], "the behaviour has changed"
assert seen["ts"] == [50, None], "the behaviour has changed"
PY
