"""CUHK-SYSU: street snaps and movie frames; Xiao et al., "Joint Detection and Identification Feature Learning", CVPR 2017.

Images outside the pool of gallery images are for training. They come in the order of their names as text ("s10.jpg" before
"s2.jpg"), as in the readers of the torchvision family. Cameras are not known.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pretrainps.data.layout import Counts, Layout
from pretrainps.data.layouts import cuhk_files
from pretrainps.data.layouts.cuhk_files import Scenes, read_names, read_people, require_images
from pretrainps.data.matlab import cells, load_matlab, record, within
from pretrainps.data.records import SearchSet, Split
from pretrainps.errors import ArgumentError

_LISTS = "annotation/test/train_test"
_SUBSETS = {"occlusion": ("Occlusion.mat", "Occlusion1"), "resolution": ("Resolution.mat", "Test_Size")}


def recognize(root: Path) -> bool:
    """Whether a root holds the annotation of CUHK-SYSU."""
    return (root / "annotation/pool.mat").is_file() or (root / _LISTS / "Train.mat").is_file()


def read_split(root: Path, split: str) -> Split:
    """Read the training images, or the gallery ("test") with the ids that the smallest TestG file gives."""
    if split == "test":
        return read_search_set(root).gallery
    scenes, pool = _scenes(root), _pool(root)
    path = LAYOUT.wants(root / _LISTS / "Train.mat")
    with within(path):
        rows = [record(cell, 3) for cell in cells(load_matlab(path, "Train"))]
    people, _ = read_people(scenes, path, rows)
    samples = [scenes.sample(name) for name in sorted(set(scenes.names).difference(pool))]
    require_images(samples, of=scenes.path)
    return Split(
        dataset=LAYOUT.name, name=split, task="search", samples=samples, identities=people, notes=scenes.notes(samples)
    )


def read_search_set(root: Path) -> SearchSet:
    """Read the gallery, its 2,900 queries, and one list for each query for every TestG file that exists.

    The smallest TestG file names the people: TestG50.mat in the original readers.
    """
    folder = LAYOUT.wants(root / _LISTS)
    sizes = sorted(int(path.stem[5:]) for path in folder.glob("TestG*.mat") if path.stem[5:].isdecimal())
    if not sizes:
        LAYOUT.wants(folder / "TestG50.mat")
    return _read_lists(root, {size: (folder / f"TestG{size}.mat", f"TestG{size}") for size in sizes})


def read_subset(root: Path | str, subset: Literal["occlusion", "resolution"]) -> SearchSet:
    """Read one of the two small tests: 187 queries of occluded people, or 290 of small people, with 100 images each.

    Each has its own queries, and only their people have an id in the gallery.

    Args:
        root: The data set's folder.
        subset: Name of the test.

    Raises:
        ArgumentError: there is no such subset.
        DatasetError: the folder, or a file in it, does not follow the layout.
    """
    if subset not in _SUBSETS:
        raise ArgumentError(f"CUHK-SYSU has no subset {subset!r}. It has {', '.join(_SUBSETS)}.")
    file, variable = _SUBSETS[subset]
    folder = LAYOUT.folder(root)
    return _read_lists(folder, {100: (LAYOUT.wants(folder / "annotation/test/subset" / file), variable)})


def _read_lists(root: Path, files: dict[int, tuple[Path, str]]) -> SearchSet:
    scenes = _scenes(root)
    found = cuhk_files.read_search_set(scenes, _pool(root), files, dataset=LAYOUT.name)
    require_images([*found.gallery.samples, *(query.sample for query in found.queries)], of=root / "annotation/pool.mat")
    return found


def _scenes(root: Path) -> Scenes:
    return Scenes(LAYOUT.wants(root / "annotation/Images.mat"), LAYOUT.wants(root / "Image/SSM"))


def _pool(root: Path) -> list[str]:
    return read_names(LAYOUT.wants(root / "annotation/pool.mat"), "pool")


LAYOUT = Layout(
    name="cuhk_sysu",
    title="CUHK-SYSU",
    task="search",
    splits=("train", "test"),
    tree="""\
CUHK-SYSU/
    Image/SSM/s1.jpg ...
    annotation/Images.mat
    annotation/pool.mat
    annotation/test/train_test/Train.mat
    annotation/test/train_test/TestG50.mat            (and, as wanted, 100, 500, 1000, 2000, 4000)
    annotation/test/subset/Occlusion.mat, Resolution.mat   (as wanted)""",
    recognize=recognize,
    read_split=read_split,
    read_search_set=read_search_set,
    counts={
        "train": Counts(images=11_206, boxes=55_272, identities=5_532),
        "test": Counts(images=6_978, boxes=40_871, identities=2_900),
    },
    terms="On request by e-mail, for non-commercial research and education; no redistribution.",
)
