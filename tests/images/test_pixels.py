"""Preprocessing compared with torchvision's, and its description compared with its numbers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

import pretrainps
from pretrainps import errors
from pretrainps.images.pixels import Preprocess, require_fractions, to_tensor
from pretrainps.registry import find_spec

RGB = find_spec("resnet50-hybrid").input


def noise(height: int, width: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(300, 90), (64, 32), (256, 128)])
def test_equals_torchvision(size: tuple[int, int], interpolation: str) -> None:
    image = noise(*size)
    convention = replace(RGB, interpolation=interpolation)  # type: ignore[arg-type]
    theirs = v2.Compose(
        [
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Resize((256, 128), interpolation=v2.InterpolationMode(interpolation), antialias=True),
            v2.Lambda(lambda x: x.clamp(0, 1)),
            v2.Normalize(RGB.mean, RGB.std),
        ]
    )
    torch.testing.assert_close(Preprocess(convention)(image), theirs(image), rtol=1e-5, atol=1e-5)


def test_mean_and_scale_in_either_unit_are_the_same() -> None:
    """mmpretrain writes ImageNet's statistics in 0..255, torchvision in 0..1."""
    image = noise(256, 128)
    a = pretrainps.preprocess("shufflenetv1-imagenet")(image)
    b = pretrainps.preprocess("resnet50-imagenet")(image)
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_bgr_swaps_channels_before_mean_and_std() -> None:
    caffe = replace(RGB, colour="bgr", scale=255.0, mean=(103.53, 116.28, 123.675), std=(1.0, 1.0, 1.0))
    red = Image.new("RGB", (128, 256), (255, 0, 0))
    pixel = Preprocess(caffe)(red)[:, 0, 0]
    torch.testing.assert_close(pixel, torch.tensor([0 - 103.53, 0 - 116.28, 255 - 123.675]))


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60))
def test_every_kind_of_picture_gives_the_same(height: int, width: int) -> None:
    image = noise(height, width)
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    results = [to_tensor(x) for x in (image, array, tensor, tensor.float() / 255)]
    assert all(torch.equal(results[0], other) for other in results[1:])


def test_16_bit_pictures_keep_their_range(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    wanted = torch.from_numpy(values.astype(np.float32) / 65535)
    torch.testing.assert_close(to_tensor(tmp_path / "deep.png")[0], wanted, atol=1 / 255, rtol=0)
    Image.fromarray(values.astype(np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(errors.ImageError, match="range"):
        to_tensor(tmp_path / "float.tiff")


def test_files_are_turned_upright(tmp_path: Path) -> None:
    image = noise(40, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    image.save(tmp_path / "a.png", exif=exif)
    assert to_tensor(tmp_path / "a.png").shape == (3, 20, 40)


def test_scene_keeps_its_size() -> None:
    assert pretrainps.preprocess("resnet50-hybrid", size="scene")(noise(33, 77)).shape == (3, 33, 77)
    assert pretrainps.preprocess("resnet50-hybrid", size=(5, 6))(noise(33, 77)).shape == (3, 5, 6)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        [1],
        torch.full((3, 4, 4), float("nan")),
        torch.full((3, 4, 4), -2.0),
        torch.zeros(1, 4, 4),
        torch.zeros(4, 4),
        torch.zeros(3, 4, 4, dtype=torch.int64),
        torch.full((3, 4, 4), 200.0),
        np.zeros((4, 4), np.uint8),
    ],
)
def test_pictures_that_cannot_be_right(bad: object) -> None:
    with pytest.raises(errors.ArgumentError):
        to_tensor(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (torch.rand(3, 4, 4) * 255, "Divide by 255"),
        (torch.rand(3, 4, 4).double() * 255 + 2, "Divide by 255"),
        (torch.rand(3, 4, 4) * 4 - 2, "it is applied later"),
        (torch.rand(3, 4, 4) * torch.inf, "not finite"),
        (torch.full((3, 4, 4), float("nan")), "not finite"),
        (torch.full((3, 4, 4), -torch.inf), "not finite"),
    ],
)
def test_pixels_beyond_their_range_say_what_they_seem_to_be(pixels: torch.Tensor, message: str) -> None:
    with pytest.raises(errors.ArgumentError, match=f"the tensor holds numbers.*{message}"):
        Preprocess(RGB)(pixels)


def test_a_batch_is_looked_at_at_once() -> None:
    fine = torch.rand(3, 5, 5)
    require_fractions([], "image {}")
    require_fractions([fine, fine[:, :0], fine * 1.4 - 0.2], "image {}")
    with pytest.raises(errors.ArgumentError, match="image 2 holds"):
        require_fractions([fine, fine[:, :0], fine * 255, fine * 255], "image {}")


@pytest.mark.parametrize("size", ["crops", (0, 5), (5,), 5, None, (1.5, 2)])
def test_sizes_that_cannot_be_right(size: object) -> None:
    with pytest.raises(errors.ArgumentError, match="size must be"):
        Preprocess(RGB, size=size)  # type: ignore[arg-type]


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff\xe0broken"])
def test_unreadable_files(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(errors.ImageError, match=r"x\.jpg"):
        to_tensor(tmp_path / "x.jpg")


def test_describe_says_what_and_on_whose_authority() -> None:
    text = pretrainps.preprocess("resnet50-hybrid").describe()
    assert "256x128" in text and "RGB in 0..1" in text and "assumed" in text and "0.485" in text
    assert "documented" in pretrainps.preprocess("resnet50-imagenet").describe()


def test_a_strange_module_has_no_transform() -> None:
    with pytest.raises(errors.ArgumentError, match="has no spec"):
        pretrainps.preprocess(torch.nn.Linear(1, 1))
