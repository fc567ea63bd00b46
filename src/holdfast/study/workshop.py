"""The stages of a run folder, for a worker: its study, prepared once.

`holdfast.study.executing` names this module to its workers. What a worker prepares is the same
study as the coordinator's, so its stages have the same fingerprints; only the GPUs are its own.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from holdfast.config import Study
from holdfast.errors import UsageError
from holdfast.memory.hardware.devices import GPU
from holdfast.runs.executors.workers import Workbench
from holdfast.study import preflight, prepare
from holdfast.study.executing import ABLE, able_of
from holdfast.train.stage import check_fits, gpus_of


def stages_of(folder: Path, given: Mapping[str, Any]) -> Workbench:
    """The stages of a run folder with their code, and what must be alike on all workers.

    Args:
        folder: the run folder; its ``study.yaml`` holds the study.
        given: `gpus`, the worker's own as the coordinator knows them, or None where it has to look
            for itself, at what else its machine must have as well; `able`, what all GPUs of the run
            can compute in; `least`, how many GPUs there must be; `on`, who started the worker.

    Raises:
        UsageError: too few GPUs.
        HoldfastError: see `holdfast.study.prepare`, and `preflight.check_devices`.
    """
    text = (folder / "study.yaml").read_text(encoding="utf-8")  # which keeps the order of its arms
    study = Study.model_validate(yaml.safe_load(text))
    found = gpus_of(study) if given["gpus"] is None else [GPU(**one) for one in given["gpus"]]
    able: Mapping[str, bool] = given["able"]
    gpus = []
    for gpu in found:
        can: dict[str, Any] = {one: getattr(gpu, one) and able.get(one, True) for one in ABLE}
        gpus.append(replace(gpu, **can))
    if len(gpus) < given["least"]:
        raise UsageError(
            f"{given['least']} GPUs were asked for, and {len(gpus) or 'none'} can be used there",
            where=f"the worker on {socket.gethostname()}",
            remedy="see whether the machine has that many which torch can use (`holdfast doctor` "
            f"there); hardware.{given['on']}.gpus=0 does without them",
        )
    alike: dict[str, object] = {**able_of(gpus)} if gpus else {}
    session = prepare(study, folder, "the study of this run", gpus)
    session.pool.alone = False
    notices: list[str] = []
    if given["gpus"] is None:
        check_fits(session.study, gpus)
        notices = preflight.check_devices(session)
    alike = {"computes on": "GPU" if gpus else "CPU", **alike}
    return Workbench(session.stages, alike, notices)
