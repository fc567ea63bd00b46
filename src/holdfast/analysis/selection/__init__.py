"""Which models are worth a second look, and which one of them may be shipped?

Pure arithmetic on readings: no model, no files. All values are 1 for good, 0 for bad and NaN for
unscored, so that higher is better on every task, however a report shows it.
"""

from holdfast.analysis.selection.court import Choice
from holdfast.analysis.selection.decision import Decision, confirm, decide, name_of
from holdfast.analysis.selection.frontier import (
    Candidate,
    Front,
    fronts,
    hypervolume,
    keepers,
    undominated,
)
from holdfast.analysis.selection.halves import Halves, halves
from holdfast.analysis.selection.rule import Need, check_rule, in_words, needs

__all__ = [
    "Candidate",
    "Choice",
    "Decision",
    "Front",
    "Halves",
    "Need",
    "check_rule",
    "confirm",
    "decide",
    "fronts",
    "halves",
    "hypervolume",
    "in_words",
    "keepers",
    "name_of",
    "needs",
    "undominated",
]
