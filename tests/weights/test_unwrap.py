"""Models in wrappers are unwrapped, and changed models are refused with a reason before anything is written."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations, parametrize, prune
from torch.optim.swa_utils import AveragedModel

import pretrainps
from pretrainps.backbones import Backbone, build_backbone
from pretrainps.detectors import PersonSearchDetector
from pretrainps.errors import ArgumentError, StateDictMismatchError, UnsupportedModelError
from pretrainps.export.weights import export_weights
from pretrainps.gallery.model_match import fingerprint
from pretrainps.heads import CropModel
from pretrainps.inference.embed import embed
from pretrainps.inference.extraction import Extractor
from pretrainps.training.finetuning.from_detector import continue_detector
from pretrainps.training.finetuning.task import Finetuning
from pretrainps.training.pretraining.model import HybridModel
from pretrainps.training.pretraining.save import save_backbone
from pretrainps.weights.unwrap import bare_state, unwrap
from tests.support.fakehub import FakeHub
from tests.training.hybrids import hybrid

MODELS: dict[str, Callable[[], Any]] = {
    "backbone": lambda: pretrainps.load("tiny-hybrid-synthetic"),
    "embedder": lambda: pretrainps.load("tiny-hybrid-synthetic", head="embedding", embedding_dim=8),
    "detector": lambda: pretrainps.load("seqnet-tiny-synthetic"),
}


def compiled(model: nn.Module) -> nn.Module:
    found: nn.Module = torch.compile(model, backend="eager")
    return found


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile(backend="eager")
    return model


def compiled_inside(model: nn.Module) -> nn.Module:
    """A part of it alone, as regional compilation does."""
    if isinstance(model, Backbone):
        model.layer4 = compiled(model.layer4)
    else:
        model.backbone = compiled(model.backbone)
    return model


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": compiled,
    "compiled in place": compiled_in_place,
    "compiled inside": compiled_inside,
    "DataParallel": nn.DataParallel,
    "AveragedModel": AveragedModel,
    "AveragedModel of compiled": lambda model: AveragedModel(compiled(model)),
    "compiled DataParallel of averaged": lambda model: compiled(nn.DataParallel(AveragedModel(model))),
}


def same(found: nn.Module, wanted: dict[str, Tensor]) -> bool:
    state = found.state_dict()
    return set(state) == set(wanted) and all(torch.equal(state[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_model_is_saved_as_what_it_is(kind: str, wrapper: str, tmp_path: Path) -> None:
    model = MODELS[kind]()
    wanted = {key: value.clone() for key, value in model.state_dict().items()}
    wrapped = WRAPPERS[wrapper](model)
    pretrainps.save_pretrained(wrapped, tmp_path / "m")
    loaded = pretrainps.load(f"file:{tmp_path / 'm'}")
    assert type(loaded) is type(unwrap(wrapped)) and same(loaded, wanted) and loaded.load_report.ok
    export_weights(wrapped, "torchvision", tmp_path / "w.pth")
    if kind == "backbone":  # which is what is written of the others too, and recognizing it takes longest here
        assert pretrainps.load(f"file:{tmp_path / 'w.pth'}").load_report.share == 1.0
    assert set(bare_state(wrapped)) == set(wanted)


@pytest.mark.filterwarnings("ignore:Use 'content=<...>':DeprecationWarning")  # huggingface_hub's own upload code
def test_a_wrapped_detector_is_pushed(hub: FakeHub) -> None:
    model = MODELS["detector"]()
    commit = pretrainps.push_to_hub(compiled(model), "someone/detector", token="hf_test")
    loaded = pretrainps.load(f"hf:someone/detector@{commit}")
    assert same(loaded, model.state_dict())


def test_every_entry_takes_a_wrapped_model(tmp_path: Path) -> None:
    detector = MODELS["detector"]()
    wrapped = nn.DataParallel(compiled(detector))
    backbone, embedder = compiled(MODELS["backbone"]()), AveragedModel(MODELS["embedder"]()).eval()
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 64, 3), dtype=np.uint8))
    (tmp_path / "photos").mkdir()
    picture.save(tmp_path / "photos" / "a.png")

    assert pretrainps.preprocess(backbone).convention == unwrap(backbone).spec.input
    built = pretrainps.build_detector("nae", backbone=backbone, num_identities=3)
    assert built.spec.provenance.note.endswith("heads at random.") and built.convention == unwrap(backbone).spec.input
    assert embed(embedder, [tmp_path / "photos" / "a.png"], progress=False).vectors.shape == (1, 8)
    assert Extractor(wrapped).fingerprint == Extractor(detector).fingerprint
    pretrainps.Gallery.index(tmp_path / "photos", wrapped, store=tmp_path / "g", progress=False)
    gallery = pretrainps.Gallery.open(tmp_path / "g")
    assert gallery.matches(wrapped) and gallery.matches(detector)
    assert fingerprint(compiled_inside(MODELS["detector"]())) == fingerprint(detector)
    result = gallery.search(wrapped, picture, (4, 4, 40, 80))
    assert result.searched == len(gallery)
    assert isinstance(HybridModel(backbone, hybrid().settings), HybridModel)
    further = continue_detector(wrapped, num_identities=2)
    assert further.load_report.ok
    with pytest.raises(ArgumentError, match="is no detector"):
        Finetuning(None, embedder, None)
    with pytest.raises(ArgumentError, match="neither detects nor embeds"):
        Extractor(backbone)


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process group of this process alone."""
    if sys.platform == "linux":
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/meeting", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.mark.usefixtures("group")
def test_of_processes_that_train_together(tmp_path: Path) -> None:
    """DistributedDataParallel is unwrapped; what is sharded is refused, and the remedy works."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    for number, wrap in enumerate((DistributedDataParallel, lambda model: compiled(DistributedDataParallel(compiled(model))))):
        model = MODELS["embedder"]()
        pretrainps.save_pretrained(wrap(model), tmp_path / f"ddp{number}")
        assert same(pretrainps.load(f"file:{tmp_path / f'ddp{number}'}"), model.state_dict())

    sharded = MODELS["backbone"]()
    fully_shard(sharded, mesh=init_device_mesh("cpu", (1,)))
    for attempt in (
        lambda: pretrainps.save_pretrained(sharded, tmp_path / "m"),
        lambda: export_weights(sharded, "timm", tmp_path / "w.pth"),
    ):
        with pytest.raises(ArgumentError, match="spread over processes") as caught:
            attempt()
    assert "get_model_state_dict" in str(caught.value) and not (tmp_path / "m").exists()
    whole = MODELS["backbone"]()
    with torch.no_grad():
        whole.conv1.weight.zero_()
    whole.load_state_dict(get_model_state_dict(sharded, options=StateDictOptions(full_state_dict=True)))
    pretrainps.save_pretrained(whole, tmp_path / "m")
    assert same(pretrainps.load(f"file:{tmp_path / 'm'}"), MODELS["backbone"]().state_dict())


class Adapted(nn.Module):
    """A low-rank adapter around a linear layer, as peft puts one on."""

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.lora_A = nn.Linear(base_layer.in_features, 2, bias=False)
        self.lora_B = nn.Linear(2, base_layer.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base_layer(x) + self.lora_B(self.lora_A(x))
        return out


def adapt(model: CropModel) -> Callable[[], object]:
    projection = model.head.projection
    projection[0] = Adapted(projection[0])

    def merge() -> None:
        adapter = projection[0]
        with torch.no_grad():
            adapter.base_layer.weight += adapter.lora_B.weight @ adapter.lora_A.weight
        projection[0] = adapter.base_layer

    return merge


def parametrized(kind: Callable[..., nn.Module]) -> Callable[[CropModel], Callable[[], object]]:
    def change(model: CropModel) -> Callable[[], object]:
        layer = model.backbone.conv1
        kind(layer)
        return lambda: parametrize.remove_parametrizations(layer, "weight")

    return change


def pruned(model: CropModel) -> Callable[[], object]:
    layer = model.backbone.conv1
    prune.l1_unstructured(layer, "weight", amount=0.3)
    return lambda: prune.remove(layer, "weight")


def old_weight_norm(model: CropModel) -> Callable[[], object]:
    layer = model.backbone.conv1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls it deprecated, and files of it are still about
        torch.nn.utils.weight_norm(layer)
    return lambda: torch.nn.utils.remove_weight_norm(layer)


def old_spectral_norm(model: CropModel) -> Callable[[], object]:
    layer = model.backbone.conv1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.nn.utils.spectral_norm(layer)
    return lambda: torch.nn.utils.remove_spectral_norm(layer)


CHANGES: dict[str, tuple[Callable[[CropModel], Callable[[], object]], str]] = {
    "weight_norm": (parametrized(parametrizations.weight_norm), "remove_parametrizations"),
    "spectral_norm": (parametrized(parametrizations.spectral_norm), "remove_parametrizations"),
    "pruned": (pruned, r"prune\.remove"),
    "old weight_norm": (old_weight_norm, "remove_weight_norm"),
    "old spectral_norm": (old_spectral_norm, "remove_spectral_norm"),
    "adapters": (adapt, "merge them into the weights"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_model_is_refused_and_the_remedy_works(change: str, tmp_path: Path) -> None:
    model = MODELS["embedder"]()
    make, words = CHANGES[change]
    undo = make(model)
    with pytest.raises(StateDictMismatchError, match=words) as caught:
        pretrainps.save_pretrained(model, tmp_path / "m")
    assert caught.value.report.unexpected
    with pytest.raises(StateDictMismatchError, match=words):
        export_weights(model, "torchvision", tmp_path / "w.pth")
    assert not any(tmp_path.iterdir()), "nothing was written"
    undo()
    pretrainps.save_pretrained(model, tmp_path / "m")
    assert same(pretrainps.load(f"file:{tmp_path / 'm'}"), model.state_dict())


def quantized(model: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear})


def traced(model: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.trace(model.eval(), torch.zeros(1, 3, 64, 32))


def with_a_layer_more(model: Any) -> Any:
    model.neck = nn.Linear(4, 4)
    return model


def without_a_layer(model: Any) -> Any:
    model.head = nn.Identity()
    return model


def not_a_number(model: Any) -> Any:
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("nan")
    return model


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (quantized, "quantized"),
        (with_a_layer_more, r"2 tensors that such a model does not have \(neck"),
        (without_a_layer, "it lacks"),
        (not_a_number, "NaN or infinity"),
        (lambda model: model.to("meta"), "meta device"),
        (traced, "is no model of pretrainps"),
        (lambda model: nn.Sequential(model), "its attribute '0'"),
        (lambda model: nn.ModuleDict({"net": model, "loss": nn.Linear(2, 2)}), "what pretrainps.load"),
        (lambda model: nn.Linear(2, 2), "is no model of pretrainps"),
    ],
)
def test_what_would_not_load_back_is_not_written(change: Callable[[Any], Any], words: str, tmp_path: Path) -> None:
    odd = change(MODELS["embedder"]())
    spec = MODELS["embedder"]().spec
    for attempt in (
        lambda: pretrainps.save_pretrained(odd, tmp_path / "m", spec=spec),
        lambda: export_weights(odd, "native", tmp_path / "w.safetensors"),
    ):
        with pytest.raises((ArgumentError, StateDictMismatchError), match=words):
            attempt()
    assert not any(tmp_path.iterdir())


def test_a_half_of_a_backbone_and_a_pretraining_are_no_models(tmp_path: Path) -> None:
    trunk, _ = MODELS["backbone"]().split()
    with pytest.raises(StateDictMismatchError, match=r"it lacks .*layer4"):
        pretrainps.save_pretrained(trunk, tmp_path / "m")
    learned = hybrid()
    with pytest.raises(ArgumentError, match="save_backbone"):
        pretrainps.save_pretrained(learned, tmp_path / "m")
    folder = save_backbone(compiled(learned), tmp_path / "b")
    assert isinstance(pretrainps.load(f"file:{folder}"), Backbone)


def with_sync_batch_norm(model: nn.Module) -> nn.Module:
    found: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return found


def frozen(model: nn.Module) -> nn.Module:
    (model.backbone if isinstance(model, CropModel | PersonSearchDetector) else model).freeze("c3", batch_norm=True)
    return model.requires_grad_(False)


def checkpointing(model: nn.Module) -> nn.Module:
    (model.backbone if isinstance(model, CropModel) else model).enable_gradient_checkpointing()
    return model.train()


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("change", [with_sync_batch_norm, frozen, checkpointing])
def test_changes_that_leave_the_tensors_alone_are_fine(
    kind: str, change: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    model = change(MODELS[kind]())
    pretrainps.save_pretrained(model, tmp_path / "m")
    assert same(pretrainps.load(f"file:{tmp_path / 'm'}"), model.state_dict())


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float64"])
def test_the_precision_is_kept_and_stated(kind: str, precision: str, tmp_path: Path) -> None:
    model = MODELS[kind]().to(getattr(torch, precision))
    pretrainps.save_pretrained(model, tmp_path / "m")
    loaded = pretrainps.load(f"file:{tmp_path / 'm'}")
    assert f"in {precision}." in loaded.spec.provenance.note
    assert set(loaded.load_report.converted) == {key for key, value in model.state_dict().items() if value.is_floating_point()}
    assert pretrainps.inspect(tmp_path / "m").dtypes[precision] > 0
    for layout, file in (("torchvision", "w.pth"), ("detectron2", "w.pkl")):
        export_weights(model, layout, tmp_path / file)
        if kind == "backbone":
            assert pretrainps.load(f"file:{tmp_path / file}").load_report.share == 1.0


def test_training_keeps_its_random_numbers_when_it_saves(tmp_path: Path) -> None:
    """Building the model once more to compare draws weights."""
    model = build_backbone("timm:resnet10t")
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    export_weights(model, "timm", tmp_path / "w.pth")
    assert torch.equal(torch.rand(3), wanted)
    with pytest.raises(UnsupportedModelError, match="is no backbone"):
        HybridModel(nn.Linear(2, 2), hybrid().settings)
