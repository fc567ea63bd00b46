"""Is the vLLM there that draws answers in training, can it serve the model, and do both fit?

Part of `holdfast.study.preflight`: nothing is loaded or started.
"""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.endpoint.client import require_packages
from holdfast.engines.vllm import program, servable
from holdfast.errors import HoldfastError, StudyError, located
from holdfast.memory.planner.request import CPU, PlanRequest
from holdfast.models import skeleton
from holdfast.study.session import Session
from holdfast.train.adapter_check import build, on_meta
from holdfast.train.planning import arms_of, fitting, plan_study

REMEDY = "leave `engine: vllm` out of the method, and answers are drawn by the model that trains"


def drawing(session: Session) -> Sequence[str]:
    """The server that arms want their answers drawn by can be had, and is told where it will lie.

    Raises:
        MissingDependency: vLLM, or a package; with what installs it.
        StudyError: vLLM does not serve the model, or the adapters that are trained.
        DoesNotFit: training and server together.
    """
    wanted = {name: one for name, one in arms_of(session.study).items() if one.overhead.served}
    if not wanted:
        return []
    require_packages()
    found = program.find(session.study.hardware.vllm)
    notices = []
    if found.untried:
        notices.append(f"vLLM {found.version} is newer than what was tried ({program.TRIED}).")
    ref = session.plan.model
    why = servable.refused_model(ref, nf4=False)
    if why := why or servable.refused_settings(skeleton.generation_config(ref)):
        raise StudyError(
            f"vLLM cannot draw the answers of {', '.join(wanted)}: {why}", remedy=REMEDY
        )
    for name in wanted:
        with located(f"arms.{name}"):
            config = build(on_meta(ref), session.arms[name].train)[0].peft_config["default"]
            if why := servable.refused_lora(config.to_dict()):
                raise StudyError(
                    f"vLLM does not take the adapters that are trained: {why}", remedy=REMEDY
                )
    asked = PlanRequest(gpus=tuple(session.gpus) or CPU, trace=False)
    try:
        report = plan_study(session.study, asked, arms=wanted)
    except HoldfastError:  # a kind that the planner does not know may train all the same
        return notices
    fitting(report)
    place = report.comparison.server
    return [*notices, place.reason.words("en")] if place else notices
