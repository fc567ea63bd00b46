"""Puts an export on the hub, card included; says first what would go there.

Nothing is sent unless that is asked for, and a new repository is private. The study that lies
beside the weights may name places of this machine: then it is named before anything is sent.
"""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from holdfast.environment import install_command
from holdfast.errors import FolderError, HoldfastError, MissingDependency, Unreachable, UsageError
from holdfast.memory.model import hub
from holdfast.shipping.card import CARD

NAME = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
PLACE = re.compile(r"(?<![\w:/])(?:/[\w.-]+){2,}|\b[A-Za-z]:\\[\w.\\-]+|~/[\w./-]+")
"""An absolute path in a text."""
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Pushed:
    """What goes, or went, to the hub.

    Attributes:
        name: of the repository.
        address: of its page.
        files: name and bytes of each.
        sent: it is there; else it was only looked at.
        notices: what to look at before it is sent.
    """

    name: str
    address: str
    files: tuple[tuple[str, int], ...]
    sent: bool
    notices: tuple[str, ...] = ()

    def text(self) -> str:
        """All of it for a terminal."""
        size = sum(count for _, count in self.files)
        lines = [f"{name:<40} {count:>15,} bytes" for name, count in self.files]
        lines += [f"Note: {notice}" for notice in self.notices]
        what = "Sent to" if self.sent else "Would be sent to"
        lines.append(f"{what} {self.address}: {len(self.files)} files, {size:,} bytes, private if "
                     "the repository is new.")  # fmt: skip
        return "\n".join(lines)


def check_name(name: str) -> None:
    """Refuse what can be no repository of the hub.

    Raises:
        UsageError: it is not owner/name.
    """
    if not NAME.fullmatch(name) or ".." in name or name.endswith((".git", ".ipynb")):
        raise UsageError(
            f"{name[:200]!r} is no name on the hub", where="--push", remedy="write owner/name"
        )


def look(folder: Path, name: str) -> Pushed:
    """What of an export would go to the hub; sends nothing and asks nobody.

    Args:
        folder: that `holdfast ship` made.
        name: owner/name.

    Raises:
        UsageError: no such name can be.
        FolderError: the folder is no export.
    """
    check_name(name)
    if not (folder / CARD).is_file() or not (folder / "decision.json").is_file():
        raise FolderError(
            "is no export: it has no card and no decision",
            where=str(folder),
            remedy="make one: holdfast ship RUN --to FOLDER",
        )
    files = tuple(
        (file.relative_to(folder).as_posix(), file.stat().st_size)
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith(".")
    )
    study = folder / "study.yaml"
    places = PLACE.findall(study.read_text(encoding="utf-8")) if study.is_file() else []
    notices: tuple[str, ...] = ()
    if places:
        some = ", ".join(dict.fromkeys(places[:SHOWN]))
        notices = (f"study.yaml names places of this machine ({some}); edit it or take it out",)
    return Pushed(name, f"{_address()}/{name}", files, False, notices)


def push(folder: Path, name: str) -> Pushed:
    """Send an export to the hub.

    Args:
        folder: that `holdfast ship` made.
        name: owner/name; made, and private, where it is not there yet.

    Raises:
        UsageError, FolderError: see `look`.
        MissingDependency: the hub's client is not installed.
        Unreachable: the hub does not answer.
        HoldfastError: it does not take it: not logged in, not allowed.
    """
    found = look(folder, name)
    if importlib.util.find_spec("huggingface_hub") is None:
        raise MissingDependency("the hub needs huggingface_hub", remedy=install_command("train"))
    if hub.asked_offline() or (why := hub.down()):
        raise Unreachable(
            "HF_HUB_OFFLINE is set" if hub.asked_offline() else f"the hub does not answer: {why}",
            where=_address(),
            remedy="go online, or set HF_ENDPOINT to a mirror that takes uploads",
        )
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(name, private=True, exist_ok=True)
        api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=[one for one, _ in found.files],
            commit_message="Model and card by Holdfast",
        )
    except Exception as error:  # the hub's client raises many types, all meaning "not taken"
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise HoldfastError(
            f"the hub did not take it: {said[0]}",
            where=found.address,
            remedy="log in with `hf auth login` (a token that may write), and check the name; what "
            "was sent is not sent again",
        ) from error
    return Pushed(name, found.address, found.files, True, found.notices)


def _address() -> str:
    if importlib.util.find_spec("huggingface_hub") is None:
        return "https://huggingface.co"
    return hub.endpoint()
