"""MovieNet-PS: movie frames in the files of CUHK-SYSU; Zheng et al., "Global-Local Context Network", 2021.

Five training lists name the same people: up to 10, 30, 50, 70 or 100 images of each. The authors' reader (`mvn.py` of
github.com/ZhengPeng7/GLCNet) trains on the images of one list only. The splits "train-10" to "train-100" are the same, and
"train" is that reader's default, the list of 10. An image of two people comes once here, and twice in that reader.

Each gallery size has its pool of images. Here the gallery is the union of all pools, the smallest first. The file of the
smallest size names the people in it, and the lists of each size hold images of its pool.
"""

from __future__ import annotations

from pathlib import Path

from pretrainps.data.layout import Counts, Layout
from pretrainps.data.layouts import cuhk_files
from pretrainps.data.layouts.cuhk_files import Scenes, read_names, read_people, require_images
from pretrainps.data.matlab import load_matlab, records, within
from pretrainps.data.records import SearchSet, Split

_FOLDERS = ("annotation", "anno_mvn-cs")
"""Folders of the annotation in the releases; some releases have parts of it in both."""
_LISTS = "test/train_test"
_APPEARANCES = (10, 30, 50, 70, 100)
_GALLERIES = (2000, 4000, 10000)


def recognize(root: Path) -> bool:
    """Whether a root holds the annotation of MovieNet-PS."""
    files = [f"pool_{size}.mat" for size in _GALLERIES] + [f"{_LISTS}/Train_app{count}.mat" for count in _APPEARANCES]
    return any((root / folder / file).is_file() for folder in _FOLDERS for file in files)


def read_split(root: Path, split: str) -> Split:
    """Read the images of a training list, or the gallery ("test")."""
    if split == "test":
        return read_search_set(root).gallery
    count = int(split.removeprefix("train-")) if split != "train" else _APPEARANCES[0]
    scenes = _scenes(root)
    path = _annotation(root, f"{_LISTS}/Train_app{count}.mat")
    with within(path):
        rows = records(load_matlab(path, "Train"), 3)
    people, images = read_people(scenes, path, rows)
    samples = [scenes.sample(name) for name in images]
    require_images(samples, of=path)
    return Split(
        dataset=LAYOUT.name, name=split, task="search", samples=samples, identities=people, notes=scenes.notes(samples)
    )


def read_search_set(root: Path) -> SearchSet:
    """Read the gallery, the queries, and one list for each query for every TestG file that exists."""
    scenes = _scenes(root)
    found_files = [path for folder in _FOLDERS for path in (root / folder / _LISTS).glob("TestG*.mat")]
    sizes = sorted({int(path.stem[5:]) for path in found_files if path.stem[5:].isdecimal()})
    if not sizes:
        _annotation(root, f"{_LISTS}/TestG{_GALLERIES[0]}.mat")
    pools = [_annotation(root, f"pool_{size}.mat") for size in sizes]
    pool = list(dict.fromkeys(name for path in pools for name in read_names(path, "pool")))
    lists = {size: (_annotation(root, f"{_LISTS}/TestG{size}.mat"), f"TestG{size}") for size in sizes}
    found = cuhk_files.read_search_set(scenes, pool, lists, dataset=LAYOUT.name)
    require_images([*found.gallery.samples, *(query.sample for query in found.queries)], of=pools[0].parent)
    return found


def _scenes(root: Path) -> Scenes:
    folder = root / "Image/SSM"
    return Scenes(_annotation(root, "Images.mat"), folder if folder.is_dir() else LAYOUT.wants(root / "Image"))


def _annotation(root: Path, name: str) -> Path:
    places = [root / folder / name for folder in _FOLDERS]
    return next((place for place in places if place.is_file()), None) or LAYOUT.wants(places[0])


LAYOUT = Layout(
    name="movienet_ps",
    title="MovieNet-PS",
    task="search",
    splits=("train", *(f"train-{count}" for count in _APPEARANCES), "test"),
    main_splits=("train", "test"),
    tree="""\
MovieNet-PS/
    Image/...jpg                                           (or Image/SSM/...jpg)
    annotation/Images.mat                                  (or anno_mvn-cs/ in place of annotation/)
    annotation/pool_2000.mat                               (and, as wanted, 4000, 10000)
    annotation/test/train_test/Train_app10.mat             (and, as wanted, 30, 50, 70, 100)
    annotation/test/train_test/TestG2000.mat               (and, as wanted, 4000, 10000)""",
    recognize=recognize,
    read_split=read_split,
    read_search_set=read_search_set,
    counts={"train": Counts(identities=2_087)},
    terms="For research, on the terms of MovieNet.",
)
