"""Several processes draw the same as one, and none of them stays alive."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pretrainps.synthetic import DOMAINS, detection_split, reid_split
from pretrainps.synthetic.generation import generate
from pretrainps.synthetic.scene import draw_scene

ROOT = Path(__file__).parents[2]

DIGESTS = """
import hashlib
from pretrainps.synthetic import DOMAINS
from pretrainps.synthetic.scene import draw_scene
for index in (2, 0):
    scene = draw_scene(DOMAINS["det_street"], seed=5, split="train", index=index)
    print(hashlib.sha256(scene.pixels.tobytes() + scene.boxes.tobytes()).hexdigest())
"""

ENDLESS = """
from pretrainps.synthetic.generation import generate
if __name__ == "__main__":
    for job in generate(abs, range(10**9), workers=2):
        if job == 0:
            print("drawing", flush=True)
"""


def digest(index: int) -> str:
    scene = draw_scene(DOMAINS["det_street"], seed=5, split="train", index=index)
    return hashlib.sha256(scene.pixels.tobytes() + scene.boxes.tobytes()).hexdigest()


def test_another_process_draws_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", DIGESTS],
        env={**os.environ, "PYTHONHASHSEED": "77"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [digest(2), digest(0)]


def test_two_workers_draw_what_one_draws(capfd: pytest.CaptureFixture[str]) -> None:
    alone, together = (reid_split("reid_hall", range(3), workers=workers, progress=workers == 2) for workers in (1, 2))
    assert len(alone) == 27
    for one, other in zip(alone.samples, together.samples, strict=True):
        assert one.name == other.name and np.array_equal(one.image, other.image) and np.array_equal(one.ids, other.ids)
    assert "27/27" in capfd.readouterr().err, "with a bar"


def test_no_bar_unless_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    detection_split("det_yard", 1)
    assert capfd.readouterr() == ("", "")


def test_things_are_made_when_they_are_taken() -> None:
    made: list[int] = []

    def make(job: int) -> int:
        made.append(job)
        return job

    things = generate(make, range(1000))
    assert [next(things), next(things)] == [0, 1] and made == [0, 1]


def fail(job: int) -> int:
    raise ZeroDivisionError(f"job {job}")


def test_an_error_in_a_worker_is_an_error_here() -> None:
    with pytest.raises(ZeroDivisionError, match="job 0"):
        list(generate(fail, range(40), workers=2))


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(
    "end",
    [
        pytest.param(partial(os.killpg), id="an interrupt, which reaches all"),
        pytest.param(os.kill, id="the parent is killed"),
    ],
)
def test_no_process_is_left_behind(end: Callable[[int, int], None], tmp_path: Path) -> None:
    """Workers share the script's output: it ends when the last of them has."""
    script = tmp_path / "endless.py"
    script.write_text(ENDLESS)
    process = subprocess.Popen(
        [sys.executable, str(script)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None and process.stdout.readline() == "drawing\n"
        end(process.pid, signal.SIGKILL if end is os.kill else signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0 and (end is os.kill or "KeyboardInterrupt" in errors)
