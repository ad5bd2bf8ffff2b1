"""Download from the Hugging Face Hub with `huggingface_hub`, and its settings for endpoint, token, offline mode and proxies.

`huggingface_hub` compares sizes, not contents. Here the commit is fixed first. Then the body is compared with the Hub's hash
for that commit (sha256 for LFS and Xet files, git's sha1 for small ones).
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from pretrainps._version import __version__
from pretrainps.download import http
from pretrainps.download.connection import explain, login_wanted, untrusted, without_login
from pretrainps.download.locks import lacks_locks
from pretrainps.download.source import RETRY_STATUS, TRIES, Backoff, SourceError, is_silent
from pretrainps.files import git_blob_sha1_of, sha256_of
from pretrainps.registry.specs import HubSource

T = TypeVar("T")
_LIBRARY: dict[str, Any] = {"library_name": "pretrainps", "library_version": __version__}


def download(source: HubSource, folder: Path, *, progress: bool, label: str) -> tuple[Path, str | None]:
    """Download one file below `folder`; return its path and the commit that it belongs to.

    A file that is in the user's own Hub cache at this revision is taken from there.

    Raises:
        SourceError: there is no such repository or file, no access or no connection; or the body does not match its hash.
        OSError: the disk fails.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

    class Bar(tqdm):  # type: ignore[type-arg]  # tqdm cannot be subscripted at run time
        """A progress bar that follows `progress`."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.update(disable=is_silent(progress), desc=label, leave=False)
            super().__init__(*args, **kwargs)

    def metadata() -> Any:
        return get_hf_file_metadata(hf_hub_url(source.repo, source.file, revision=source.revision), **_LIBRARY)

    described = _retried(metadata, source)
    commit: str | None = described.commit_hash

    def fetch(force: bool) -> Path:
        revision = commit or source.revision
        try:
            found = hf_hub_download(
                source.repo,
                source.file,
                revision=revision,
                local_dir=folder,
                tqdm_class=Bar,
                force_download=force,
                **_LIBRARY,
            )
        except OSError as error:
            if not lacks_locks(error):
                raise
            # huggingface_hub requires a lock that this file system lacks; our own lock is held already
            return _plainly(replace(source, revision=revision), folder, progress=progress, label=label)
        return Path(found)

    etag = (described.etag or "").strip('"')
    path = _retried(lambda: fetch(False), source)
    if not _is_announced(path, etag):
        # huggingface_hub takes a file from its own cache without a hash check: fetch it anew before an error
        path = _retried(lambda: fetch(True), source)
        if not _is_announced(path, etag):
            raise SourceError(f"the body is not the one that the Hub announced ({etag[:12]}...)", integrity=True)
    return path, commit


def _plainly(source: HubSource, folder: Path, *, progress: bool, label: str) -> Path:
    """Download a file by its address alone."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # exported at run time only

    session = http.new_session()
    session.headers.update(build_hf_headers(**_LIBRARY))  # requests removes the token on a redirect to another host
    path = folder / source.filename
    folder.mkdir(parents=True, exist_ok=True)
    url = hf_hub_url(source.repo, source.file, revision=source.revision)
    http.download(url, path, progress=progress, label=label, session=session)
    return path


def unchanged(source: HubSource, path: Path, commit: str | None) -> bool:
    """Return whether a file is the Hub's current one under this name; false if the Hub does not say.

    Args:
        source: The source of the file.
        path: The file.
        commit: The commit that it came from, if the other files of that commit matter too.

    Raises:
        SourceError: the Hub does not answer.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(source.repo, source.file, revision=source.revision)
    described = _retried(lambda: get_hf_file_metadata(url, **_LIBRARY), source)
    etag = (described.etag or "").strip('"')
    return bool(etag) and _is_announced(path, etag) and commit in (None, described.commit_hash)


def files_of(source: HubSource) -> list[str]:
    """Return the names of a repository's files at the source's revision; an empty list if the Hub does not answer."""
    from huggingface_hub import HfApi

    def listed() -> list[str]:
        found = HfApi(**_LIBRARY).model_info(source.repo, revision=source.revision)
        return sorted(each.rfilename for each in found.siblings or ())

    try:
        return _retried(listed, source, tries=1)
    except SourceError:
        return []


def revisions_of(source: HubSource) -> list[str]:
    """Return a repository's branches, then its tags; an empty list if the Hub does not answer."""
    from huggingface_hub import HfApi

    def listed() -> list[str]:
        refs = HfApi(**_LIBRARY).list_repo_refs(source.repo)
        return [each.name for each in (*refs.branches, *refs.tags)]

    try:
        return _retried(listed, source, tries=1)
    except SourceError:
        return []


def cached(source: HubSource) -> tuple[Path, str | None] | None:
    """Return the file from the user's own Hub cache, and its commit, without any network call; else `None`.

    Raises:
        SourceError: the file is there, but damaged.
    """
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(source.repo, source.file, revision=source.revision)
    if not isinstance(found, str):
        return None
    path = Path(found)
    # the cache links a snapshot's file to a blob named by its hash; the blob may be a link too, with another name
    if path.is_symlink() and not _is_announced(path, path.readlink().name):
        raise SourceError("the copy in the Hub's own cache is damaged: remove it there", integrity=True)
    match = re.search(r"/snapshots/([0-9a-f]{40})/", path.as_posix())
    return path, match.group(1) if match else None


def _is_announced(path: Path, etag: str) -> bool:
    """Return whether the body has the hash that the Hub gives; true if the Hub gives none."""
    if re.fullmatch(r"[0-9a-f]{64}", etag):
        return sha256_of(path) == etag
    if re.fullmatch(r"[0-9a-f]{40}", etag):
        return git_blob_sha1_of(path) == etag
    return True


def _retried(call: Callable[[], T], source: HubSource, *, tries: int = TRIES) -> T:
    """Run a Hub call, with waits and new tries where these may help; every failure becomes a `SourceError`."""
    from huggingface_hub import close_session, constants, errors
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]  # httpx in 1.x, httpx2 in 2.x

    backoff = Backoff(tries)
    while True:
        retry_after = None
        try:
            return call()
        except errors.GatedRepoError as error:
            raise SourceError(
                f"gated: accept its terms at https://huggingface.co/{source.repo} and set HF_TOKEN", gated=True
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise SourceError("no such repository, or it is private: check the name, or set HF_TOKEN", gated=True) from error
        except errors.RevisionNotFoundError as error:
            raise SourceError(f"the repository has no revision {source.revision!r}", absent="revision") from error
        except errors.RemoteEntryNotFoundError as error:
            raise SourceError("the repository has no such file", absent="file") from error
        except errors.HFValidationError as error:
            raise SourceError(f"not a Hub repository name ({error})") from error
        except errors.HfHubHTTPError as error:
            status = error.response.status_code
            if status == 407:
                raise SourceError(login_wanted(constants.ENDPOINT)) from error
            if status in (401, 403):
                raise SourceError(f"access refused ({status}): set HF_TOKEN", gated=True) from error
            reason, retry = f"server answers {status}", status in RETRY_STATUS
            retry_after = error.response.headers.get("Retry-After")
        except errors.OfflineModeIsEnabled as error:
            raise SourceError("HF_HUB_OFFLINE is set") from error
        except errors.FileMetadataError as error:  # for example, a proxy answers in place of the Hub
            raise SourceError(f"what answers at {constants.ENDPOINT} is no Hub ({error})") from error
        except (errors.LocalEntryNotFoundError, httpx.HTTPError) as error:
            failure = explain(error, constants.ENDPOINT)
            reason, retry = failure.reason, not failure.final
        except OSError as error:
            if "Consistency check failed" in str(error):
                reason, retry = "the connection ended before the whole file had come", True
            elif isinstance(error, ConnectionError | TimeoutError | ssl.SSLError) or untrusted():
                failure = explain(error, constants.ENDPOINT)
                reason, retry = failure.reason, not failure.final
            else:
                raise  # an error of the disk, not of the network
        except (ValueError, ImportError) as error:  # a malformed HF_ENDPOINT, or a proxy that needs a missing library
            raise SourceError(f"cannot be asked ({without_login(str(error))})") from error
        except RuntimeError as error:  # failures of the Xet client
            reason, retry = f"transfer failed ({error})", True
        if not retry or not backoff.wait(retry_after):
            close_session()  # it keeps its first certificates and proxies, which may be corrected by now
            raise SourceError(f"{reason}, tried several times" if retry else reason)
