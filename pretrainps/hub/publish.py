"""Save a model in a folder or on the Hub, so that it loads again exactly.

A saved model is `model.safetensors` (reproducible bytes, the configuration repeated in its header), `config.json` and a
model card. `pretrainps.load("file:FOLDER")` and `pretrainps.load("hf:owner/repository")` rebuild it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from pretrainps._version import __version__
from pretrainps.detectors import PersonSearchDetector
from pretrainps.download.connection import explain
from pretrainps.download.source import is_offline
from pretrainps.errors import ArgumentError, GatedWeightsError, OfflineError, WeightsUnavailableError
from pretrainps.files import WEIGHTS, sha256_of, write_text
from pretrainps.heads import CropModel
from pretrainps.hub.cards import render_card
from pretrainps.hub.load import Model
from pretrainps.hub.resolve import CONFIG, FORMAT
from pretrainps.hub.saving import own_model, state_to_save
from pretrainps.registry import ModelSpec, spec_to_mapping
from pretrainps.registry.specs import FileFormat, LocalSource
from pretrainps.weights import write_safetensors
from pretrainps.weights.unwrap import unwrap


def save_pretrained(model: Model, folder: Path | str, *, spec: ModelSpec | None = None, load_as: str | None = None) -> Path:
    """Write a model, its configuration and its card into a folder.

    Args:
        model: A model from `pretrainps.load` or `pretrainps.build_detector`, trained further or not. It is taken out of
        torch.compile, DistributedDataParallel and other wrappers of torch.
        folder: The folder, created if needed; files of the same names are replaced, each in one step.
        spec: The spec of the model; by default that of its loading.
        load_as: The name for loading in its card; by default the folder.

    Returns:
        The folder.

    Raises:
        ArgumentError: there is no spec, in the model or as argument; or the model is not of this package, or is sharded.
        StateDictMismatchError: its tensors are not those of its spec (it is pruned, quantized, has adapters), so the file
        could not be loaded; nothing was written.
        CacheError: the folder cannot be written to, or the disk is full.
    """
    folder = Path(folder).expanduser()
    model = own_model(model)
    state = state_to_save(model)
    spec = _description(model, spec, state)
    write_safetensors(state, folder / WEIGHTS, {"config": _config(spec)})
    spec = replace(spec, sha256=sha256_of(folder / WEIGHTS))
    document = {"library_name": "pretrainps", "library_version": __version__, "pretrainps": _config(spec)}
    write_text(folder / "README.md", render_card(spec, load_as=load_as or f"file:{folder.name}"))
    write_text(folder / CONFIG, json.dumps(document, indent=2, sort_keys=True) + "\n")
    return folder


def push_to_hub(
    model: Model,
    repo_id: str,
    *,
    spec: ModelSpec | None = None,
    private: bool = False,
    token: str | None = None,
    message: str = "Upload model",
) -> str:
    """Save a model to a Hub repository in one commit. The repository is created if needed.

    Args:
        model: A model from `pretrainps.load`, trained further or not.
        repo_id: `owner/name`.
        spec: The spec of the model; by default that of its loading.
        private: Whether to make a new repository private.
        token: Hub token; by default that of the login, or `HF_TOKEN`.
        message: The commit message.

    Returns:
        The commit's 40-hex id: `pretrainps.load(f"hf:{repo_id}@{commit}")` always gives exactly this model.

    Raises:
        ArgumentError: see `save_pretrained`.
        StateDictMismatchError: see `save_pretrained`.
        OfflineError: offline mode is on.
        GatedWeightsError: the token is missing or does not allow it.
        WeightsUnavailableError: the Hub does not answer.
    """
    from huggingface_hub import HfApi, close_session, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx in 1.x, httpx2 in 2.x

    if is_offline(None):
        raise OfflineError("offline mode is on (PRETRAINPS_OFFLINE or HF_HUB_OFFLINE), so nothing can be uploaded. Unset it.")
    with tempfile.TemporaryDirectory(prefix="pretrainps-") as folder:
        save_pretrained(model, folder, spec=spec, load_as=f"hf:{repo_id}")
        api = HfApi(token=token, library_name="pretrainps", library_version=__version__)
        try:
            api.create_repo(repo_id, private=private, exist_ok=True)
            commit = api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message=message)
        except HfHubHTTPError as error:
            if error.response.status_code in (401, 403):
                raise GatedWeightsError(
                    f"the Hub refuses to write to {repo_id} ({error.response.status_code}). Log in with `hf auth login`, "
                    "or set HF_TOKEN to a token with write access."
                ) from error
            raise WeightsUnavailableError(f"the Hub answers {error.response.status_code} for {repo_id}: {error}") from error
        except HFValidationError as error:
            raise ArgumentError(f"{repo_id!r} is no Hub repository name: {error}") from error
        # huggingface_hub wraps a failed upload in a RuntimeError
        except (httpx.HTTPError, OfflineModeIsEnabled, RuntimeError, OSError) as error:
            close_session()  # it keeps its first certificates and proxies, which may be corrected by now
            failure = explain(error, constants.ENDPOINT)
            advice = "Nothing was committed." if failure.final else "Nothing was committed. Try again."
            raise WeightsUnavailableError(f"the upload to {repo_id} failed: {failure.reason}. {advice}") from error
    return commit.oid


def saved_config(model: Model, spec: ModelSpec | None = None) -> dict[str, Any]:
    """Return the configuration that `save_pretrained` writes into a weight file, so that the file loads alone.

    Args:
        model: A model of this package.
        spec: The spec of the model; by default that of its loading.

    Raises:
        ArgumentError: see `save_pretrained`.
        StateDictMismatchError: see `save_pretrained`.
    """
    return _config(_description(model, spec, state_to_save(model)))


def _description(model: Model, spec: ModelSpec | None, state: Mapping[str, Tensor]) -> ModelSpec:
    spec = spec or getattr(model, "spec", None)
    if spec is None:
        raise ArgumentError("this model was not loaded by pretrainps, so nothing is known of it: give spec=.")
    detector = model.detector_spec() if isinstance(model, PersonSearchDetector) else None
    backbone = unwrap(model.backbone) if isinstance(model, CropModel | PersonSearchDetector) else model
    # the path of a file on this machine is private
    origin = spec.title if spec.name.startswith("file:") else spec.name
    precisions = {str(value.dtype).removeprefix("torch.") for value in state.values() if value.is_floating_point()}
    stored = "" if precisions == {"float32"} else f", in {' and '.join(sorted(precisions))}"
    note = f"Saved by pretrainps from {origin}, perhaps after further training{stored}."
    return replace(
        spec,
        name=origin,
        arch=backbone.arch,
        arch_options=backbone.options(),
        provenance=replace(spec.provenance, note=" ".join(part for part in (spec.provenance.note, note) if part)),
        results=(),  # those of the weights it started from say nothing about it
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        task="detector" if detector else "backbone",
        head=model.head_spec if isinstance(model, CropModel) else None,
        detector=detector,
        file=FileFormat(tensors=len(state)),
        sources=(LocalSource(path=WEIGHTS),),
        sha256=None,
        sha256_prefix=None,
        published_size=None,
    )


def _config(spec: ModelSpec) -> dict[str, Any]:
    return {"format": FORMAT, "name": spec.name, "model": spec_to_mapping(spec)}
