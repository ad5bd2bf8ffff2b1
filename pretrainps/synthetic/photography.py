"""The response of a camera: exposure, colours, blur, noise and compression."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from pretrainps.synthetic.domains import Domain
from pretrainps.synthetic.streams import Stream

_MIDDLE = 118
"""The grey level that a change of contrast leaves unchanged."""
_EXPOSURE_JITTER = 0.05
"""Standard deviation of the logarithm of the exposure between images of one camera."""
_WANDER = 96
"""Largest shift in pixels between the noise of two images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Response:
    """The response of one camera."""

    gains: tuple[float, float, float]
    gamma: float
    contrast: float
    saturation: float
    offset: float
    blur: float
    """Standard deviation of the blur in pixels."""
    noise: float
    """Standard deviation of the noise in grey levels."""
    jpeg: int
    """JPEG quality; above 91 there is no compression."""

    def develop(self, light: Image.Image, stream: Stream) -> Image.Image:
        """Return the camera's image of a rendered view."""
        image = light.point(self._curves(stream))
        if abs(self.saturation - 1) > 0.03:
            image = Image.blend(image.convert("L").convert("RGB"), image, self.saturation)
        if self.blur > 0.25:
            image = image.filter(ImageFilter.GaussianBlur(self.blur))
        if self.noise > 0.4:
            image = _noisy(image, self.noise, stream)
        if self.jpeg < 92:
            image = _compressed(image, self.jpeg)
        return image

    def _curves(self, stream: Stream) -> list[int]:
        """Return the lookup table of the 256 values of red, green and blue."""
        exposure = math.exp(stream.normal(0, _EXPOSURE_JITTER))
        value = np.arange(256) / 255
        curves = []
        for gain in self.gains:
            balance = math.exp(stream.normal(0, 0.3 * _EXPOSURE_JITTER))
            bent = 255 * np.clip(value * gain * exposure * balance, 0, 2) ** self.gamma
            curves.append((bent - _MIDDLE) * self.contrast + _MIDDLE + self.offset)
        curve: list[int] = np.clip(np.concatenate(curves), 0, 255).astype(np.uint8).tolist()
        return curve


def draw_response(domain: Domain, seed: int, stream: Stream) -> Response:
    """Draw the response of a camera of a domain.

    Args:
        domain: The domain; all its cameras share a tone.
        seed: Seed of the world.
        stream: Random numbers of the camera.
    """
    cast, tone = domain.cast, domain.tone
    shared = Stream("tone", seed, domain.name)
    tints = [shared.normal(0, 0.10 * tone) for _ in range(3)]
    gamma, contrast, saturation = (shared.normal(0, deviation * tone) for deviation in (0.14, 0.12, 0.16))
    exposure = stream.normal(0, 0.05 * cast)
    red, green, blue = (math.exp(exposure + tint + stream.normal(0, 0.035 * cast)) for tint in tints)
    return Response(
        gains=(red, green, blue),
        gamma=math.exp(gamma + stream.normal(0, 0.06 * cast)),
        contrast=math.exp(contrast + stream.normal(0, 0.05 * cast)),
        saturation=min(1.35, max(0.25, math.exp(saturation + stream.normal(0, 0.07 * cast)))),
        offset=stream.normal(0, 3 * cast),
        blur=stream.uniform(*domain.blur) * domain.unit,
        noise=stream.uniform(*domain.noise),
        jpeg=int(stream.uniform(*domain.jpeg)),
    )


def _noisy(image: Image.Image, deviation: float, stream: Stream) -> Image.Image:
    width, height = image.size
    top, left = stream.below(_WANDER), stream.below(_WANDER)
    grain = _grain(height, width)[top : top + height, left : left + width]
    pixels = np.asarray(image).astype(np.int16)
    pixels += (grain * int(4 * deviation)) >> 8
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


@lru_cache(maxsize=4)
def _sheet_of_grain(height: int, width: int) -> NDArray[np.int16]:
    """Return cached noise of standard deviation 64, (H, W, 3): new noise would take longer than a scene."""
    source = Stream("grain").array_source()
    return (source.standard_normal((height, width, 3)) * 64).astype(np.int16)


def _grain(height: int, width: int) -> NDArray[np.int16]:
    """Return noise that is large enough for shifts. Its sides are multiples of 256 pixels, so that crops share one sheet."""
    return _sheet_of_grain(-(-(height + _WANDER) // 256) * 256, -(-(width + _WANDER) // 256) * 256)


def _compressed(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    file.seek(0)
    with Image.open(file) as opened:
        opened.load()
        return opened.convert("RGB")
