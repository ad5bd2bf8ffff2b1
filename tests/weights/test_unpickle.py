"""Objects next to the tensors become placeholders; no name in a file is imported or called."""

from __future__ import annotations

import argparse
import collections
import datetime
import enum
import functools
import io
import pickle
import struct
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch

from pretrainps.download.pickled import is_refused, normal_name
from pretrainps.errors import CheckpointFormatError
from pretrainps.weights import read_object, read_tensors
from pretrainps.weights.inspect import inspect
from pretrainps.weights.placeholders import Stranger
from pretrainps.weights.read import read_contents
from tests.support.weights import torch_bytes

TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.num_batches_tracked": torch.tensor(5)}


class Mode(enum.Enum):
    TRAIN = "train"


class Outer:
    class Inner(enum.Enum):
        ONE = 1


class History(list):  # type: ignore[type-arg]
    """A list of a class of its own."""


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self) -> None:
        self.a, self.b = 1, torch.ones(2)


class WithState:
    def __getstate__(self) -> tuple[int, str]:
        return 1, "x"

    def __setstate__(self, state: object) -> None:
        raise AssertionError("the file's class was asked to do something")


class WithArguments:
    def __reduce_ex__(self, protocol: Any) -> Any:
        return copyreg_newobj_ex, (WithArguments, (), {"a": 1})


def copyreg_newobj_ex(*args: object) -> object:
    raise AssertionError("the file's function was called")


def settings(monkeypatch: pytest.MonkeyPatch, module: str, name: str) -> Any:
    """An object of a dictionary class in a package that is not there once the file is written."""
    made = type(name, (dict,), {"__module__": module})
    for depth in range(module.count(".") + 1):
        part = ".".join(module.split(".")[: depth + 1])
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    setattr(sys.modules[module], name, made)
    found = made(lr=0.1)
    found.immutable = True
    return found


SIDE: dict[str, Any] = {
    "numpy float": np.float32(0.9),
    "numpy int of another order": np.array([7], ">i8")[0],
    "numpy array": np.arange(6.0).reshape(2, 3),
    "numpy array by columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "numpy texts": np.array(["a", "b"]),
    "numpy record": np.zeros(2, [("a", "f4"), ("b", "i4")]),
    "numpy masked": np.ma.masked_array([1, 2], [True, False]),
    "namespace": argparse.Namespace(out=PurePosixPath("/x"), nested=argparse.Namespace(a=1)),
    "path": Path("/tmp/x"),
    "date": datetime.datetime(2024, 1, 2, tzinfo=datetime.UTC),
    "span": datetime.timedelta(days=1),
    "enum": Mode.TRAIN,
    "enum in a class": Outer.Inner.ONE,
    "enum as a key": {Mode.TRAIN: 1},
    "partial": functools.partial(torch.nn.functional.relu, inplace=True),
    "a class": torch.nn.Linear,
    "a list class": History([1, torch.ones(2)]),
    "slots": Slotted(),
    "state": WithState(),
    "reduced": WithArguments(),
    "deque": collections.deque([1, 2], maxlen=3),
    "defaultdict": collections.defaultdict(list, {"a": [1]}),
    "simple namespace": types.SimpleNamespace(a=1),
    "torch version": torch.__version__,
    "torch device": torch.device("cpu"),
    "torch generator state": torch.get_rng_state(),
    "torch size": torch.Size([1, 2]),
    "a bytes object": b"\x00\xff",
    "a set of tuples": {(1, 2), (3, 4)},
    "an optimizer": torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1).state_dict(),
}


def same(found: dict[str, torch.Tensor]) -> bool:
    return list(found) == list(TENSORS) and all(torch.equal(found[key], TENSORS[key]) for key in TENSORS)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("label", SIDE)
def test_whatever_lies_with_the_tensors(tmp_path: Path, label: str, legacy: bool) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes({"state_dict": TENSORS, "x": SIDE[label]}, legacy=legacy))
    assert same(read_tensors(path, ("state_dict",)))
    path.write_bytes(torch_bytes({**TENSORS, "x": SIDE[label]}, legacy=legacy))
    contents = read_contents(path)
    assert {**TENSORS}.keys() <= contents.tensors.keys() and (
        "x" in contents.side_data or isinstance(SIDE[label], torch.Tensor)
    )


@pytest.mark.parametrize(
    "name",
    ["yacs.config.CfgNode", "omegaconf.dictconfig.DictConfig", "mmengine.config.config.ConfigDict", "addict.addict.Dict"],
)
def test_settings_of_packages_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module, _, kind = name.rpartition(".")
    path = tmp_path / "w.pth"
    with monkeypatch.context() as there:
        path.write_bytes(torch_bytes({**TENSORS, "cfg": settings(there, module, kind)}))
    found = read_object(path)["cfg"]
    assert type(found) is Stranger and found.name == name and found == found and repr(found) == f"<{name}>"
    assert dict(found) == {"lr": 0.1}
    assert f"cfg ({name})" in str(inspect(path))
    with pytest.raises(CheckpointFormatError, match=name):
        read_object(path, plain=True)


def test_a_state_dict_in_a_dictionary_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pth"
    with monkeypatch.context() as there:
        found = settings(there, "easydict_gone", "EasyDict")
        found.clear()
        found.update(TENSORS)
        path.write_bytes(torch_bytes({"model": found}))
    assert same(read_tensors(path, ("model",)))


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_in_plain_pickles_of_every_protocol(tmp_path: Path, protocol: int) -> None:
    arrays = {
        "w": np.arange(6, dtype=np.float32).reshape(2, 3),
        "order": np.arange(3, dtype=">f4"),
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "empty": np.zeros((0, 3), np.int64),
        "half": np.ones(2, np.float16),
    }
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "x", "rank1": np.float64(0.5)}, protocol))
    if protocol < 2:  # begins like text
        with pytest.raises(CheckpointFormatError, match="neither safetensors nor"):
            read_object(path)
        return
    found = read_tensors(path, ("model",))
    assert list(found) == list(arrays)
    for key, value in arrays.items():
        assert (
            found[key].tolist() == value.tolist() and found[key].dtype == torch.from_numpy(value.astype(value.dtype.name)).dtype
        )
    assert read_object(path)["rank1"] == 0.5


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor", "ignore:TypedStorage is deprecated")
@pytest.mark.parametrize(
    "made",
    [
        lambda: torch.eye(2).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        lambda: torch.empty(2, device="meta"),
        lambda: torch.ones(2, dtype=torch.complex64).conj(),
        lambda: [1.0, 2.0],
        lambda: None,
    ],
    ids=["sparse", "quantized", "meta", "conjugated", "list", "None"],
)
def test_what_is_no_plain_tensor(tmp_path: Path, made: Callable[[], object]) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes({**TENSORS, "odd": made()}))
    contents = read_contents(path)
    assert same(contents.tensors) and list(contents.side_data) == ["odd"]
    with pytest.raises(CheckpointFormatError, match=r"no plain tensors \(odd\)"):
        read_tensors(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("mapped", [False, True])
def test_tensors_of_every_type_and_form(tmp_path: Path, mapped: bool, legacy: bool) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    tensors: dict[str, torch.Tensor] = {
        "part": base[1:3, ::2],
        "turned": base.t(),
        "wide": torch.ones(1).expand(5),
        "scalar": torch.tensor(3),
        "none": torch.zeros(0, 3),
        "channels last": torch.rand(1, 2, 3, 3).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "negated": torch.tensor([True, False]),
    }
    types = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
    tensors |= {str(dtype): torch.arange(5).to(dtype) for dtype in [*types, torch.complex64]}
    if not legacy:  # torch writes these in the newer format alone
        tensors |= {str(dtype): torch.arange(5).to(dtype) for dtype in (torch.float8_e4m3fn, torch.uint16)}
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes(tensors, legacy=legacy))
    found = read_tensors(path, mapped=mapped)
    for key, value in tensors.items():
        assert found[key].dtype is value.dtype and found[key].tolist() == value.tolist() and type(found[key]) is torch.Tensor, (
            key
        )
    assert found["part"].untyped_storage().data_ptr() == found["turned"].untyped_storage().data_ptr(), "one storage stays one"
    found["scalar"].fill_(9)
    assert int(read_tensors(path)["scalar"]) == 3, "what is written to a tensor does not reach the file"


def test_an_archive_of_the_other_order_of_bytes(tmp_path: Path) -> None:
    body = io.BytesIO()
    torch.save({"w": torch.arange(3.0), "i": torch.arange(3)}, body)
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(body) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("byteorder"):
                content = b"big"
            elif "/data/" in name:
                content = np.frombuffer(content, "<f4" if len(content) == 12 else "<i8").byteswap().tobytes()
            new.writestr(name, content)
    assert read_tensors(path)["w"].tolist() == [0, 1, 2] and read_tensors(path)["i"].tolist() == [0, 1, 2]


REFUSED = ["posix.system", "subprocess.Popen", "__builtin__.eval", "builtins.exec", "importlib.import_module", "runpy.run_path"]
REFUSED += ["torch.load", "torch.hub.load", "webbrowser.open", "shutil.rmtree", "pathlib.PosixPath.unlink", "pickle.loads"]
REFUSED += [
    "types.FunctionType",
    "operator.methodcaller",
    "code.interact",
    "timeit.timeit",
    "numpy.testing._private.utils.runstring",
]


@pytest.mark.parametrize("name", REFUSED)
def test_names_that_run_something_are_refused(tmp_path: Path, name: str) -> None:
    module, _, rest = name.rpartition(".")
    path = tmp_path / "w.pth"
    path.write_bytes(b"\x80\x02c" + f"{module}\n{rest}\n".encode() + b".")
    with pytest.raises(CheckpointFormatError, match=r"refused.*nothing of it was run") as caught:
        read_object(path)
    assert normal_name(name) in str(caught.value) and normal_name(name) in str(inspect(path).problem)


@pytest.mark.parametrize(
    "name", ["code.settings.Config", "profile.Person", "platform.uname_result", "builtins.slice", "types.SimpleNamespace"]
)
def test_names_that_a_script_may_well_have_are_not(name: str) -> None:
    assert not is_refused(name)


@pytest.mark.parametrize("attribute", ["touch", "unlink", "__class__", "_x"])
def test_attributes_are_names_too(tmp_path: Path, attribute: str) -> None:
    path = tmp_path / "w.pth"
    get = b"cbuiltins\ngetattr\n(cpathlib\nPosixPath\nX" + struct.pack("<I", len(attribute)) + attribute.encode() + b"tR."
    path.write_bytes(b"\x80\x02" + get)
    with pytest.raises(CheckpointFormatError, match="refused"):
        read_object(path)


@pytest.mark.parametrize(
    "value", [torch.nn.Linear(2, 2), argparse.Namespace(a=1), WithState()], ids=["model", "options", "other"]
)
def test_a_whole_object_is_no_checkpoint(tmp_path: Path, value: object) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes(value))
    with pytest.raises(CheckpointFormatError, match=rf"{type(value).__name__} as a whole.*state_dict"):
        read_object(path)


def text(content: str) -> bytes:
    return b"X" + struct.pack("<I", len(content)) + content.encode()


MANY = b"(" + b"K\x01" * 3000 + b"lq\x00"  # a list of 3,000 numbers, kept
BOMBS = {
    "sets of one list": MANY + b"cbuiltins\nset\nq\x010" + b"h\x01h\x00\x85R0" * 3000 + b".",
    "sizes of one list": MANY + b"ctorch\nSize\nq\x010" + b"h\x01h\x00\x85R0" * 3000 + b".",
    "bytes of one text": text("x" * 30_000)
    + b"q\x000"
    + text("latin1")
    + b"q\x010c_codecs\nencode\nq\x020"
    + b"h\x02h\x00h\x01\x86R0" * 9000
    + b".",
}


@pytest.mark.parametrize("label", BOMBS)
def test_the_same_content_ever_so_often(tmp_path: Path, label: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"\x80\x02" + BOMBS[label])
    with pytest.raises(CheckpointFormatError, match="many times as much content as the file has"):
        read_object(path)


def test_a_small_file_of_a_large_tensor(tmp_path: Path) -> None:
    """One number, seen as many, is a tensor that whoever copies it has to have room for."""
    path = tmp_path / "w.pth"
    path.write_bytes(torch_bytes({"w": torch.ones(1).expand(1 << 30)}))
    with pytest.raises(CheckpointFormatError, match="many times as much content as the file has"):
        read_object(path)


def test_deep_tuples_are_no_keys(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"\x80\x02}K\x01" + b"\x85" * 1000 + b"K\x02s.")
    assert [type(key) for key in read_object(path)] == [Stranger]


def test_a_memo_far_away_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(b"\x80\x02}r\xff\xff\xff\x7f.")
    assert read_object(path) == {}


def test_python_2_arrays(tmp_path: Path) -> None:
    """Raw bytes of an array, which Python 2 wrote as text."""
    raw = np.array([1.5, -2.5], "<f4").tobytes()
    body = (
        b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR(K\x01K\x02\x85cnumpy\ndtype\n"
        b"(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08" + raw + b"tbs."
    )
    (tmp_path / "w.pkl").write_bytes(body)
    assert read_tensors(tmp_path / "w.pkl")["w"].tolist() == [1.5, -2.5]
