#!/usr/bin/env bash
# Every check that only a GPU can make, one after the other, in at most 40 minutes.
#
#     benchmarks/gpu.sh [--tiny] [--fresh] [--only NAME,NAME] [--list] [FOLDER]
#
# Each part has a time limit and a log of its own; one that fails does not stop the others. FOLDER
# ($OUT, or runs/gpu) gets a log per part, summary.md with all their tables, and summary.json.
# Started again with the same FOLDER, finished parts are skipped. Exit code 1: a part failed, ran out
# of time, or is missing. --tiny: the same parts on the CPU with the lab's model and SmolLM2, in
# half an hour, to try the script; it measures nothing.
set -u
cd "$(dirname "$0")/.." || exit 2

tiny="" fresh="" only="" list="" out="${OUT:-runs/gpu}"
while [ $# -gt 0 ]; do
  case "$1" in
    --tiny) tiny=--tiny ;;
    --fresh) fresh=1 ;;
    --list) list=1 ;;
    --only) only=",${2:?--only needs names},"; shift ;;
    -h|--help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "gpu.sh: unknown option $1 (--tiny, --fresh, --only, --list)" >&2; exit 2 ;;
    *) out="$1" ;;
  esac
  shift
done

python="${PYTHON:-}"
if [ -z "$python" ]; then
  if [ -x .venv/bin/python ]; then python=.venv/bin/python; else python=python3; fi
fi
export PYTHONPATH="$PWD/src:$PWD/tests:$PWD${PYTHONPATH:+:$PYTHONPATH}"
export TQDM_DISABLE=1 TRANSFORMERS_VERBOSITY=error HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
total_s="${TOTAL_S:-2400}"
if [ -n "$tiny" ]; then
  export CUDA_VISIBLE_DEVICES="" OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
  total_s="${TOTAL_S:-2400}" gpus=0 device=cpu
elif [ -z "$list" ]; then
  gpus=$("$python" -c 'import torch; print(torch.cuda.device_count())' 2>/dev/null) || gpus=0
  device=cuda
  if [ "${gpus:-0}" -eq 0 ]; then
    echo "gpu.sh: no GPU was found; --tiny tries the script on the CPU" >&2
    exit 2
  fi
fi
models="${HOLDFAST_REAL_MODELS:-.models}"
model=src/holdfast/lab/model
for one in ${tiny:+smollm2} qwen0.5b smollm2; do
  if [ -f "$models/$one/config.json" ]; then model="$models/$one"; break; fi
done

[ -n "$list" ] || mkdir -p "$out" || exit 2
[ -n "$fresh" ] && rm -f "$out"/*.result "$out"/*.log "$out"/summary.*
names="" began=$SECONDS worst=0

# part NAME LIMIT_S [needs N] COMMAND...: run one, unless it is finished already.
part() {
  local name="$1" limit="$2" needs=0 status code=0 start left
  shift 2
  if [ "$1" = needs ]; then needs="$2"; shift 2; fi
  if [ -n "$only" ] && [[ "$only" != *",$name,"* ]]; then return; fi
  names="$names $name"
  if [ -n "$list" ]; then printf '%-12s %5s s  %s\n' "$name" "$limit" "$*"; return; fi
  if [ -f "$out/$name.result" ] && grep -Eq '^(ok|skipped)' "$out/$name.result"; then
    echo "== $name: finished before"
    return
  fi
  start=$SECONDS left=$((total_s - SECONDS + began))
  [ "$limit" -gt "$left" ] && limit=$left
  printf '== %s ' "$name"
  if [ "$needs" -gt "$gpus" ] && [ -z "$tiny" ]; then
    status="skipped: needs $needs GPUs, there are $gpus"
  elif [[ "${1:-}" == benchmarks/* && ! -f "$1" ]]; then
    status="missing: $1" worst=1
  elif [ "$limit" -lt 5 ]; then
    status="no time left" worst=1
  else
    [[ "$1" == benchmarks/*.py || "$1" == -m ]] && set -- "$python" "$@"
    printf '%s\n' "$*" > "$out/$name.log"
    timeout --kill-after=15 "$limit" "$@" >> "$out/$name.log" 2>&1 < /dev/null || code=$?
    case "$code" in
      0) status=ok
         if [[ "$*" == *"-m pytest "* ]] && ! grep -Eq '[0-9]+ passed' "$out/$name.log"; then
           status="skipped: every test was ($(tail -n 1 "$out/$name.log"))"
         fi ;;
      124|137) status="failed: stopped after $limit s" worst=1 ;;
      5) if [[ "$*" == *"-m pytest "* ]]; then status="skipped: no such tests"
         else status="failed: exit code 5" worst=1; fi ;;
      *) status="failed: exit code $code" worst=1 ;;
    esac
  fi
  printf '%s\n%s\n' "$status" "$((SECONDS - start))" > "$out/$name.result"
  echo "($((SECONDS - start)) s): $status"
}

small() { if [ -n "$tiny" ]; then echo "$1"; else echo "$2"; fi; }

short="" # changes that make the built-in study one of a minute
[ -n "$tiny" ] && short="train.max_steps=4 train.checkpoints=1 tasks.lab_math.items=20 tasks.lab_math.train_items=60 tasks.lab_refuse.items=20 tasks.lab_help.items=20"

# Cheap and telling ones first, so that a short visit to a GPU is worth most.
part doctor     90 -m holdfast doctor
part course     90 -m holdfast plan examples/qwen2.5-7b-2x24g.yaml
part demo      "$(small 400 240)" -m holdfast demo --quick --runs-dir "$out/demo" hardware.device="${device:-}" $short
part oom       "$(small 400 240)" benchmarks/real/oom.py "$(small src/holdfast/lab/model "$model")" $tiny --json "$out/oom.json"
part memory    "$(small 240 600)" benchmarks/memory_gpu.py $tiny $(small "--only 2,8" "")
part tests     "$(small 120 300)" -m pytest -q -m gpu tests/train tests/engines -p no:cacheprovider
part two_gpus  300 needs 2 -m pytest -q -m gpu tests/train/test_distributed.py -p no:cacheprovider
part training  "$(small 240 300)" benchmarks/real/training.py "$model" $(small "--steps 1 --rounds 1 --batch 1 --rows 1 --sentences 1" "")
part answering "$(small 240 300)" benchmarks/real/answering.py "$model" $(small "--items 4 --new-tokens 8 --batches 2 --alone 1 --adapted 2" "")
part duration  "$(small 240 300)" benchmarks/real/duration.py ${tiny:+--quick} $short
part remedies  "$(small 900 420)" benchmarks/remedies_gpu.py $tiny --out "$out/lab-large"
if [ -n "$list" ] || [ -x "${HOLDFAST_VLLM:-$models/vllm/bin/vllm}" ]; then
  part vllm    300 -m pytest -q -m real -k vllm tests/endpoint -p no:cacheprovider
  part engines "$(small 500 400)" benchmarks/engines.py "$model" --rounds 1 $(small "--items 4 --new-tokens 8" "")
else
  echo "== vllm: not installed (python benchmarks/real/serve.py vllm)"
fi
[ -n "$list" ] && exit 0

"$python" - "$out" "$((SECONDS - began))" "${tiny:+tiny}" $names <<'PYTHON'
import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which

out, took, tiny, *names = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], *sys.argv[4:]
rows, tables = [], []
for name in names:
    result, log = out / f"{name}.result", out / f"{name}.log"
    if not result.is_file():
        continue
    status, seconds = (*result.read_text(encoding="utf-8").splitlines(), "0")[:2]
    rows.append({"part": name, "status": status, "seconds": int(seconds), "log": log.name})
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    shown = [line for line in lines if line.startswith("|") or " error" in line and "largest" in line]
    if not status.startswith("ok"):
        shown += ["", "```", *lines[-8:], "```"] if lines else []
    if shown:
        tables += ["", f"## {name}", "", *shown]
try:
    torch = version("torch")
except PackageNotFoundError:
    torch = "none"
asked = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
gpus = "" if tiny or not which(asked[0]) else subprocess.run(
    asked, capture_output=True, text=True, check=False).stdout.strip().replace("\n", "; ")
what = f"torch {torch}, {gpus or f'CPU ({platform.machine()})'}"
head = [f"# What the GPU showed{' (tiny: measures nothing)' if tiny else ''}", "",
        f"{what}; {took} s", "", "| part | status | seconds | log |", "|---|---|---|---|"]
head += [f"| {r['part']} | {r['status']} | {r['seconds']} | {r['log']} |" for r in rows]
text = "\n".join([*head, *tables]) + "\n"
(out / "summary.md").write_text(text, encoding="utf-8")
facts = {"device": what, "seconds": took, "tiny": bool(tiny), "parts": rows}
(out / "summary.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
print("\n" + text)
PYTHON
exit "$worst"
