"""Picks models: the frontier of all, and the one that a rule for shipping allows.

Pure arithmetic on readings: no model, no files. All values are 1 for good, 0 for bad and NaN for
unscored, so that higher is better on every task, however a report shows it.
"""

from holdfast.analysis.selection.area import hypervolume, undominated
from holdfast.analysis.selection.decision import Decision, confirm, decide, name_of
from holdfast.analysis.selection.evaluator import Choice, RuleEvaluator, Tasks
from holdfast.analysis.selection.frontier import (
    Candidate,
    Front,
    fronts,
    keepers,
)
from holdfast.analysis.selection.power import attainable, check_power
from holdfast.analysis.selection.rule import Need, check_rule, in_words, needs

__all__ = [
    "Candidate",
    "Choice",
    "Decision",
    "Front",
    "Need",
    "RuleEvaluator",
    "Tasks",
    "attainable",
    "check_power",
    "check_rule",
    "confirm",
    "decide",
    "fronts",
    "hypervolume",
    "in_words",
    "keepers",
    "name_of",
    "needs",
    "undominated",
]
