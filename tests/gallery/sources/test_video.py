"""Frames of a video as images: at which times, the right way up, gone on with, and what is no video."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pretrainps import errors
from pretrainps.detectors import PersonSearchDetector
from pretrainps.gallery import Gallery
from pretrainps.gallery.sources import video
from pretrainps.gallery.sources.base import Survey
from pretrainps.gallery.sources.opening import open_source
from pretrainps.gallery.storage.header import Failure
from pretrainps.inference.runner import ImageInput
from tests.support.galleries import detector, everyone, indexed, noise

NOTHING = Survey(kept={}, wanted=None, expected=0)


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PersonSearchDetector, "optimize_for_inference", lambda self, dtype: self)


def film(path: Path, frames: int = 25, rate: int = 10, codec: str = "mpeg4", group: int = 8) -> Path:
    """Write a film whose frames are grey, each some steps brighter than the one before."""
    av = pytest.importorskip("av", reason="pretrainps[video] is not installed")
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", group
        for place in range(frames):
            pixels = np.full((48, 64, 3), min(8 * place + 16, 255), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def brightness(picture: Image.Image) -> float:
    return float(np.asarray(picture).mean())


@pytest.mark.parametrize(
    ("fps", "times"),
    [
        (1.0, ["0.000", "1.000", "2.000"]),
        (2.0, ["0.000", "0.500", "1.000", "1.500", "2.000"]),
        (4.0, ["0.000", "0.300", "0.500", "0.800", "1.000", "1.300", "1.500", "1.800", "2.000", "2.300"]),
        (0.1, ["0.000"]),
        (500.0, [f"{place / 10:.3f}" for place in range(25)]),
    ],
)
def test_frames_are_taken_at_their_times(tmp_path: Path, fps: float, times: list[str]) -> None:
    source = open_source(film(tmp_path / "walk.mp4"), fps=fps)
    assert source.survey({}, (), complete=False).expected == int(np.ceil(2.5 * fps))
    found = [reading for reading in source.read(NOTHING) if isinstance(reading, ImageInput)]
    assert [reading.key.name for reading in found] == [f"walk.mp4#{time}" for time in times]
    for reading in found:
        place = round(10 * float(reading.key.name.partition("#")[2]))
        assert float(reading.pixels.float().mean()) == pytest.approx(8 * place + 16, abs=3)
        assert brightness(source.picture(reading.key)) == pytest.approx(float(reading.pixels.float().mean()), abs=0.01)


def test_a_video_is_gone_on_with_and_made_anew_when_it_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, store = film(tmp_path / "walk.mp4"), tmp_path / "g"
    detector()  # the first call makes it, which takes forward passes of its own
    looked: list[int] = []
    forward = PersonSearchDetector.forward

    def counted(self: PersonSearchDetector[Any], images: Any, targets: Any = None) -> Any:
        if len(looked) == 3:
            raise KeyboardInterrupt
        looked.append(len(images))
        return forward(self, images, targets)

    monkeypatch.setattr(PersonSearchDetector, "forward", counted)
    with pytest.raises(KeyboardInterrupt):
        indexed(path, store, fps=2.0)
    monkeypatch.setattr(PersonSearchDetector, "forward", forward)
    first = Gallery.open(store)
    assert first.image_names == ("walk.mp4#0.000", "walk.mp4#0.500", "walk.mp4#1.000") and first.root == tmp_path
    report = indexed(path, store, fps=2.0)
    assert (report.added, report.unchanged, report.images) == (2, 3, 5)
    assert indexed(path, store, fps=2.0).unchanged == 5
    gallery = Gallery.open(store)
    assert brightness(gallery.picture("walk.mp4#1.500")) == pytest.approx(8 * 15 + 16, abs=3)
    result = gallery.search(
        detector(), gallery.picture("walk.mp4#0.500"), (2, 2, 40, 46), query_name="walk.mp4#0.500", exclude_query_image=True
    )
    assert result.query.image not in {hit.detection.image for hit in result.hits}
    with pytest.raises(errors.GalleryError, match=r"has 2 frames a second, not 1"):
        indexed(path, store)
    shutil.copy(film(tmp_path / "other.mp4", frames=12), path)
    with pytest.raises(errors.ImageError, match="changed since it was indexed"):
        gallery.picture("walk.mp4#0.500")
    report = indexed(path, store, fps=2.0)
    assert (report.changed, report.added, report.removed, report.images) == (3, 0, 2, 3)
    indexed(path, tmp_path / "anew", fps=2.0, batch_size=2)
    assert everyone(Gallery.open(store)).keys() == everyone(Gallery.open(tmp_path / "anew")).keys()


def test_films_are_shown_the_right_way_up(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="pretrainps[video] is not installed")
    picture = Image.open(noise(tmp_path / "p.png", 1, (6, 4)))

    class Frame:
        def __init__(self, rotation: int) -> None:
            self.rotation = rotation

        def to_image(self) -> Image.Image:
            return picture

    for rotation in (0, 90, -90, 180, -180):
        turned = np.rot90(np.asarray(picture), rotation // 90)  # counterclockwise
        assert np.array_equal(video._upright(Frame(rotation)), turned)


def test_what_is_no_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "walk.mkv", frames=60)
    raw = path.read_bytes()
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(errors.ImageError, match="not a video, or is damaged"):
        open_source(tmp_path / "text.mp4")
    for fps in (0.0, -1.0, float("nan")):
        with pytest.raises(errors.ArgumentError, match="above 0"):
            open_source(path, fps=fps)
    path.write_bytes(raw[: len(raw) // 2])
    found = list(open_source(path, fps=10).read(NOTHING))
    assert 5 < len(found) < 60
    monkeypatch.setattr(video, "import_module", lambda name: __import__("no_such_package"))
    with pytest.raises(errors.MissingPackageError, match=r"pretrainps\[video\]"):
        open_source(path)


def test_damage_on_the_way_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "walk.mp4")
    decoded = video._decoded

    def breaking(container: Any, *, since: float | None) -> Any:
        for time, frame in decoded(container, since=since):
            if time > 1.2:
                raise errors.ImageError("walk.mp4 cannot be decoded (broken).")
            yield time, frame

    monkeypatch.setattr(video, "_decoded", breaking)
    report = indexed(path, tmp_path / "g", fps=2.0)
    assert report.images == 3
    assert report.failures == (
        Failure(image="walk.mp4#1.200", reason="walk.mp4 cannot be decoded (broken). Frames after that were not looked at."),
    )
    monkeypatch.undo()
    monkeypatch.setattr(PersonSearchDetector, "optimize_for_inference", lambda self, dtype: self)
    assert indexed(path, tmp_path / "g", fps=2.0).failures == report.failures, "it is the same file, and not decoded again"
