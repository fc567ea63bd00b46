"""Does a regular expression for names of modules come to an end? Told before it is matched.

PEFT matches it against every module's name, and an expression such as `(a+)+x` takes longer than
the world has been there. It is tried in a process of its own, which can be stopped.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import lru_cache

NAMES = (
    "model.layers.31.self_attn.q_proj", "transformer.h.11.mlp.c_fc", "lm_head", "a" * 60, "." * 60,
    "model.language_model.layers.63.mlp.shared_experts.down_proj", "1" * 60, "q_proj" * 10,
)  # fmt: skip
"""Of modules as they are called, and of what is hard to match."""
LONGEST = 10_000
ENDLESS = "does not come to an end when it is matched; repeat no repetition, as in (a+)+"
TRY = """
import re, sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, (1, 2))
except Exception:  # no such limits here; whoever waits has one
    pass
pattern = re.compile(sys.argv[1])
for name in sys.argv[2:]:
    pattern.fullmatch(name), pattern.match(name)
"""
"""All names in a second of work; a sound expression takes a thousandth of that."""
PATIENCE_S = 20.0
"""Where work cannot be limited, and on a machine that is very busy."""


@lru_cache(maxsize=256)
def pattern_fault(pattern: str) -> str:
    """Why a regular expression cannot be used, as the end of a sentence; "" where it can."""
    if len(pattern) > LONGEST:
        return f"has {len(pattern):,} characters; {LONGEST:,} is the most"
    if not pattern.isprintable():
        return "holds characters that cannot be printed, which no module's name has"
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return f"is no regular expression: {error}"
    if len(re.findall(r"[*+{]", pattern)) < 2:
        return ""  # one repetition alone comes to an end
    command = [sys.executable, "-I", "-S", "-c", TRY, pattern, *NAMES]
    try:
        done = subprocess.run(command, timeout=PATIENCE_S, capture_output=True, check=False)
    except subprocess.TimeoutExpired:
        return ENDLESS
    except (OSError, ValueError):  # no process to be had: then matching itself will tell
        return ""
    return ENDLESS if done.returncode else ""
