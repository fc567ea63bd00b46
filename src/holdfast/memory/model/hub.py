"""Says within two seconds whether a model can be had from the hub, before anything waits for it.

The hub's own client repeats a failing request for half a minute, for every file of every model.
Here its address is asked once for the whole command; what came of that is remembered. Where nothing
answers, a copy in the local cache is used, and the client is told to ask for no more.
"""

from __future__ import annotations

import importlib.util
import os
import re
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from holdfast.environment import install_command
from holdfast.errors import MissingDependency, ModelError, Unreachable

PATIENCE_S = 1.8
"""How long the hub's address is waited for."""
ANSWER_S = 8.0
"""How long one file is waited for once it is known that the hub answers."""
REMEMBERED_S = 300.0
"""After so long an address that did not answer is tried again; notebooks live long."""
OFFLINE, ASKED_BY_US = "HF_HUB_OFFLINE", "HOLDFAST_HUB_IS_DOWN"
CONFIG = "config.json"
ELSEWHERE = (
    "go online; or set HF_ENDPOINT to a mirror of the hub (such as "
    "HF_ENDPOINT=https://hf-mirror.com where huggingface.co is blocked); or name a local folder; "
    "or fetch it where there is a network (`hf download {name}`), copy the hub's cache here and "
    "set HF_HUB_OFFLINE=1"
)
CONSENT = "accept its licence on its page on the hub, and log in with `hf auth login`"
Found = TypeVar("Found")
ADDRESS = re.compile(
    r"(?:https?://|hf://)?(?:www\.)?(?:huggingface\.co|hf\.co|hf-mirror\.com|"
    r"modelscope\.(?:cn|com|ai)/models)/|hf://",
    re.IGNORECASE,
)
"""What stands before a repository's name in the addresses that people copy."""


def repository(text: str) -> str:
    """A repository's name, where its address is given: `https://hf.co/Qwen/Qwen3-8B/tree/main`.

    Slashes behind a name go too, and the tag of `hf.co/owner/name:Q4_K_M`. A GGUF file that the
    address names stays named. Anything else is returned as it is.
    """
    plain = text.strip()
    found = ADDRESS.match(plain)
    if found is None:
        return plain.rstrip("/") if plain.count("/") == 2 and plain[0] not in "./~" else text
    parts = plain[found.end() :].split("?")[0].split("#")[0].strip("/").split("/")
    owner, name = [*parts[:2], ""][:2] if len(parts) > 1 else ("", parts[0])
    name = name.partition(":")[0]
    file = parts[-1] if parts[-1].lower().endswith(".gguf") else ""
    return "/".join(filter(None, (owner, name, file)))


def require(
    name: str, revision: str | None = None, file: str = CONFIG, meant: str = "", cache: Any = None
) -> None:
    """Refuse a model that the hub does not give and the local cache does not hold.

    Args:
        name: hub id.
        revision: branch, tag or commit.
        file: of it, that is asked after.
        meant: a name of the right sort that is near, as ``did you mean ...? ``.
        cache: of the hub; None: the usual one.

    Raises:
        Unreachable: the hub does not answer, or may not be asked.
        ModelError: no such model or file, or consent or a login is needed.
        MissingDependency: without the hub's client nothing can be had from it.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise MissingDependency(
            "a model on the hub needs huggingface_hub",
            remedy=f"{install_command('train')}, or name a local folder",
        )
    meant = meant or _folder_meant(name)
    if not _is_id(name):
        raise ModelError(
            f"{name!r} is not a hub id, and there is no such folder",
            where=name,
            remedy=f"{meant}check the name (owner/model), or name a local folder",
        )
    kept = is_cached(name, revision, file, cache)
    if asked_offline():
        if kept:
            return
        raise Unreachable(
            f"is not in the hub's cache ({file}), and HF_HUB_OFFLINE forbids to fetch it",
            where=name,
            remedy=f"{meant}unset HF_HUB_OFFLINE, run `hf download {name}` where there is a "
            "network, or name a local folder",
        )
    why = down()
    if why:
        if kept:
            return
        raise Unreachable(
            f"the hub ({endpoint()}) cannot be reached: {why}",
            where=name,
            remedy=meant + ELSEWHERE.format(name=name),
        )
    if not kept:
        _ask(name, revision, file, meant)


def down() -> str:
    """Why the hub cannot be reached, in words; "" where it answers. Asked once for a command."""
    reason = _down(endpoint(), int(time.monotonic() / REMEMBERED_S))
    _use_cache_only(bool(reason))
    return reason


def endpoint() -> str:
    """The hub's address: huggingface.co, or the mirror that HF_ENDPOINT names."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def asked_offline() -> bool:
    """Whether the user forbids to ask the hub."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE) and ASKED_BY_US not in os.environ


def is_cached(
    name: str, revision: str | None = None, file: str = CONFIG, cache: Any = None
) -> bool:
    """Whether a file of a model lies in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(name, file, cache_dir=cache, revision=revision)
    except ValueError:  # no hub id
        return False
    return isinstance(found, str)


@lru_cache(maxsize=8)
def _down(address: str, window: int) -> str:
    """See `down`.

    Args:
        address: of the hub.
        window: changes when what was found is to be forgotten.
    """
    from huggingface_hub.utils._http import get_session

    _use_cache_only(False)

    def ask() -> str:
        get_session().head(address, timeout=PATIENCE_S)
        return ""

    try:
        return _within(PATIENCE_S, ask)
    except Exception as error:  # whatever the HTTP client of this version raises
        first = (str(error).strip().splitlines() or [""])[0]
        return f"{type(error).__name__} {first}".strip()[:200]


def _ask(name: str, revision: str | None, file: str, meant: str) -> None:
    """Ask after one file of a model."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    url = hf_hub_url(name, file, revision=revision)
    try:
        _within(ANSWER_S, lambda: get_hf_file_metadata(url, timeout=ANSWER_S))
    except Exception as error:  # whatever the HTTP client of this version raises
        why, remedy = _explained(error, name, revision, file)
        raise ModelError(why, where=name, remedy=meant + remedy) from error


def _explained(error: Exception, name: str, revision: str | None, file: str) -> tuple[str, str]:
    """What the hub means, and what to do about it."""
    from huggingface_hub import errors

    match error:
        case errors.GatedRepoError():
            return "its makers ask for consent to a licence first (gated)", CONSENT
        case errors.RevisionNotFoundError():
            return f"the hub has no revision {revision!r} of it", "check model.revision"
        case errors.RepositoryNotFoundError():
            return (
                "the hub has no such model, or it is private",
                "check the name; if it is private, log in with `hf auth login`",
            )
        case errors.EntryNotFoundError():
            return (
                f"it has no {file} on the hub",
                "name a whole model for transformers, not an adapter, a GGUF or a data set",
            )
        case errors.HfHubHTTPError():
            status = getattr(getattr(error, "response", None), "status_code", None)
            denied = status in (401, 403)
            return (
                f"the hub answered {status or error}",
                CONSENT if denied else "try again later, or name a local folder",
            )
    said = f"the hub did not answer: {type(error).__name__} {error}"
    return said[:200], ELSEWHERE.format(name=name)


def _within(seconds: float, work: Callable[[], Found]) -> Found:
    """What `work` gives, if it does so in time; looking a name up may hang without end."""
    found: list[Found] = []
    failed: list[Exception] = []

    def carry() -> None:
        try:
            found.append(work())
        except Exception as error:
            failed.append(error)

    one = threading.Thread(target=carry, daemon=True)
    one.start()
    one.join(seconds)
    if failed:
        raise failed[0]
    if not found:
        raise TimeoutError(f"no answer within {seconds:.0f} seconds")
    return found[0]


def _use_cache_only(only: bool) -> None:
    """Tell the hub's client, here and in processes to come, not to ask a hub that is down."""
    from huggingface_hub import constants

    if only and not constants.HF_HUB_OFFLINE:
        constants.HF_HUB_OFFLINE = True
        os.environ |= {OFFLINE: "1", ASKED_BY_US: "1"}
    elif not only and ASKED_BY_US in os.environ:
        constants.HF_HUB_OFFLINE = False
        del os.environ[ASKED_BY_US]
        os.environ.pop(OFFLINE, None)


def _is_id(name: str) -> bool:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _folder_meant(name: str) -> str:
    folder = Path(name).expanduser()
    if folder.is_dir():
        return ""
    near = near_folder(folder)
    return f"did you mean the folder {near}? Otherwise " if near else ""


def near_folder(folder: Path) -> str:
    """The folder whose path is nearest to one that is not there; "" where none is near."""
    from difflib import get_close_matches

    found = Path(folder.anchor) if folder.is_absolute() else Path()
    changed = False
    for part in folder.parts[1:] if folder.is_absolute() else folder.parts:
        if part == ".." or (found / part).is_dir():
            found = found / part
            continue
        try:
            names = [one.name for one in found.iterdir() if one.is_dir()]
        except OSError:
            return ""
        close = get_close_matches(part, names, n=1, cutoff=0.6)
        if not close:
            return ""
        found, changed = found / close[0], True
    return str(found) if changed else ""
