"""Frames of a video as images of a gallery, decoded by PyAV (FFmpeg)."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from pretrainps.errors import ArgumentError, ImageError, MissingPackageError
from pretrainps.files import sha256_of
from pretrainps.gallery.sources.base import ImageSource, KnownImages, ReadImage, Survey
from pretrainps.gallery.storage.header import Failure, ImageRecord, SourceMark
from pretrainps.inference.runner import ImageFailure, ImageInput, read_ahead

_TURNS = {90: Image.Transpose.ROTATE_90, 180: Image.Transpose.ROTATE_180, 270: Image.Transpose.ROTATE_270}
"""Degrees counterclockwise. PyAV and Pillow count alike."""


class VideoSource(ImageSource):
    """Frames of a video, named by their time in seconds: "walk.mp4#12.500".

    A frame cannot change alone: if the file's bytes have changed, all frames are indexed again.

    Args:
        path: The video.
        fps: How many frames to index for each second. Of a slower video, all frames are indexed.

    Raises:
        ArgumentError: `fps` is not a number above 0.
        MissingPackageError: PyAV is not installed.
        ImageError: The file is not a video, or is damaged.
    """

    def __init__(self, path: Path, *, fps: float) -> None:
        if not 0 < fps < math.inf:
            raise ArgumentError(f"fps={fps}: frames a second must be a number above 0.")
        self.path, self.fps = Path(os.path.abspath(path)), fps
        self.root = self.path.parent
        self.mark = SourceMark(kind="video", root=str(self.path), fps=fps)
        with _opened(self.path) as container:
            duration = container.duration  # in microseconds; some videos do not say
        self._frames = math.ceil((duration or 0) / 1e6 * fps)

    def survey(self, known: KnownImages, failures: tuple[Failure, ...], *, complete: bool) -> Survey:
        """Find out whether the file is the one that was indexed, and whether it was indexed to its end."""
        kept = {}
        for record in known.values():  # all of one file
            now = self._record(record.name, unless_changed=record)
            if now.sha256 == record.sha256:
                kept = {name: ImageRecord(name, now.size, now.mtime_ns, now.sha256) for name in known}
            break
        if kept and complete:
            return Survey(kept=kept, wanted=(), expected=0, failures=failures)
        return Survey(kept=kept, wanted=None, expected=max(0, self._frames - len(kept)))

    def read(self, survey: Survey) -> Iterator[ReadImage]:
        """Decode in a thread, from where an interrupted run stopped."""
        if survey.wanted is None:
            frames = self._walk(survey.kept)
            for found in read_ahead(lambda _: next(frames, None), iter(int, 1), threads=1):  # iter(int, 1) never ends
                if found is None:
                    return
                yield found

    def picture(self, record: ImageRecord) -> Image.Image:
        """Decode a known frame again."""
        if not self.path.exists():
            raise ImageError(f"{self.path} no longer exists.")
        if self._record(record.name, unless_changed=record).sha256 != record.sha256:
            raise ImageError(f"{self.path} was changed since it was indexed. Run `pretrainps index` again.")
        wanted = _time_of(record.name)
        with _opened(self.path) as container:
            for time, frame in _decoded(container, since=wanted):
                if time >= wanted:
                    return _upright(frame)
        raise ImageError(f"{self.path} has no frame at {wanted:.3f} s.")

    def _walk(self, kept: KnownImages) -> Iterator[ReadImage]:
        file = next(iter(kept.values()), None) or self._record("")
        since = max((_time_of(name) for name in kept), default=None)
        number = None if since is None else self._number(since)
        time = since or 0.0
        try:
            with _opened(self.path) as container:
                for time, frame in _decoded(container, since=since):
                    if number is not None and self._number(time) <= number:
                        continue
                    number = self._number(time)
                    name = f"{self.path.name}#{time:.3f}"
                    record = ImageRecord(name, file.size, file.mtime_ns, file.sha256)
                    yield ImageInput(key=record, pixels=pil_to_tensor(_upright(frame)))
        except ImageError as error:
            rest = ImageError(f"{error} Frames after that were not looked at.")
            yield ImageFailure(key=f"{self.path.name}#{time:.3f}", error=rest)

    def _number(self, time: float) -> int:
        """Return which wanted moment a time belongs to. The first frame of each moment is indexed."""
        return math.floor(time * self.fps + 1e-6)

    def _record(self, name: str, *, unless_changed: ImageRecord | None = None) -> ImageRecord:
        stat = self.path.stat()
        old = unless_changed
        if old is not None and (stat.st_size, stat.st_mtime_ns) == (old.size, old.mtime_ns):
            return old
        return ImageRecord(name, stat.st_size, stat.st_mtime_ns, sha256_of(self.path))


def _time_of(name: str) -> float:
    return float(name.rpartition("#")[2])


def _opened(path: Path) -> Any:
    av = _av()
    try:
        container = av.open(str(path))
    except av.error.FFmpegError as error:
        raise ImageError(f"{path} is not a video, or is damaged ({error.strerror}).") from error
    if not container.streams.video:
        container.close()
        raise ImageError(f"{path} has no pictures, only sound or other things.")
    return container


def _decoded(container: Any, *, since: float | None) -> Iterator[tuple[float, Any]]:
    """Yield frames with their times in seconds, as names have them, from the last key frame before a time on."""
    av = _av()
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    try:
        if since is not None:
            container.seek(math.floor(since / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            if frame.time is None:
                raise ImageError(f"{container.name} does not say when its frames are shown. Write it anew with ffmpeg.")
            yield round(float(frame.time), 3), frame
    except av.error.FFmpegError as error:
        raise ImageError(f"{container.name} cannot be decoded ({error.strerror}).") from error


def _upright(frame: Any) -> Image.Image:
    picture: Image.Image = frame.to_image()
    turn = _TURNS.get(int(frame.rotation) % 360)
    return picture if turn is None else picture.transpose(turn)


def _av() -> Any:
    try:
        return import_module("av")
    except ImportError as error:
        raise MissingPackageError("videos need PyAV: pip install 'pretrainps[video]'") from error
