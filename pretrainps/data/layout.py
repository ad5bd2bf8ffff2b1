"""The type of a layout: the files of one data set on disk, and the functions that recognize and read them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pretrainps.data.records import SearchSet, Split, Task
from pretrainps.errors import ArgumentError, DatasetError


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """Numbers of images, people and boxes in a split; `None` for numbers that were not published."""

    images: int | None = None
    boxes: int | None = None
    labelled: int | None = None
    """Boxes with an identity."""
    identities: int | None = None
    cameras: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One data set's files on disk."""

    name: str
    """Its name in commands and recipes."""
    title: str
    """Its authors' name for it."""
    task: Task
    splits: tuple[str, ...]
    """Names of the splits for `read`, the training split first."""
    main_splits: tuple[str, ...] = ()
    """Splits that together are the whole data set, if `splits` also has unions of parts; by default, all splits."""
    tree: str
    """The expected folders and files, as error messages show them."""
    recognize: Callable[[Path], bool]
    """Whether a root looks like this layout. It looks at the names of a few files and folders, and opens few or none."""
    read_split: Callable[[Path, str], Split]
    read_search_set: Callable[[Path], SearchSet] | None = None
    counts: Mapping[str, Counts] = field(default_factory=dict)
    """Published counts of the splits."""
    terms: str = ""
    """The owners' terms of use, in one line."""
    withdrawn: str | None = None
    """Why its owners withdrew it, if they did."""
    shares_people_with: tuple[str, ...] = ()
    """Layouts that share people or cameras with this one: training on one leaks into a test on the other."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "main_splits", self.main_splits or self.splits)

    def read(self, root: Path | str, split: str, *, force: bool = False) -> Split:
        """Read a split.

        Args:
            root: The data set's folder.
            split: One of `splits`.
            force: Whether to read a data set that its owners have withdrawn.

        Raises:
            ArgumentError: there is no such split.
            DatasetError: the owners have withdrawn the data set; or the folder, or a file in it, does not follow the layout; or
                the
            split is empty.
        """
        self._require_given(force)
        if split not in self.splits:
            raise ArgumentError(f"{self.title} has no split {split!r}. It has {', '.join(self.splits)}.")
        found = self.read_split(self.folder(root), split)
        if not found.samples:
            raise DatasetError(f"{root}: the split {split!r} of {self.title} holds no image. Expected\n{self.tree}")
        _require_distinct(found, root)
        return found

    def read_search(self, root: Path | str, *, force: bool = False) -> SearchSet:
        """Read the gallery and the queries of a person-search data set.

        Args:
            root: The data set's folder.
            force: Whether to read a data set that its owners have withdrawn.

        Raises:
            ArgumentError: this data set is not for person search.
            DatasetError: the owners have withdrawn the data set; or the folder, or a file in it, does not follow the layout.
        """
        if self.read_search_set is None:
            raise ArgumentError(f"{self.title} is for {self.task}: it has no queries and no gallery of scenes.")
        self._require_given(force)
        found = self.read_search_set(self.folder(root))
        _require_distinct(found.gallery, root)
        return found

    def folder(self, root: Path | str) -> Path:
        """Return the root after a check that it is a folder.

        Raises:
            DatasetError: it is no folder.
        """
        path = Path(root).expanduser()
        if not path.is_dir():
            raise DatasetError(f"{path} is no folder. {self.title} is expected there as\n{self.tree}")
        return path

    def wants(self, path: Path) -> Path:
        """Return a path after a check that it exists.

        Raises:
            DatasetError: it does not exist; the message shows the whole layout.
        """
        if not path.exists():
            raise DatasetError(f"{path} is missing: is the archive of {self.title} only half unpacked? Expected\n{self.tree}")
        return path

    def _require_given(self, force: bool) -> None:
        if self.withdrawn is not None and not force:
            raise DatasetError(
                f"{self.title} is not read: {self.withdrawn} Use another data set, or say that you know (force=True; on the "
                "command line --force)."
            )


def _require_distinct(split: Split, root: Path | str) -> None:
    """Check that no image comes twice: a query would find its person in the second copy of its own image."""
    names = Counter(sample.name for sample in split.samples)
    name, times = max(names.items(), key=lambda item: item[1], default=("", 0))
    if times > 1:
        twice = sum(count > 1 for count in names.values())
        raise DatasetError(
            f"{root}: the split {split.name!r} names {twice} images more than once, such as {name!r} ({times} times). "
            "Remove the repetition from the annotation."
        )
