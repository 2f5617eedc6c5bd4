#!/usr/bin/env bash
# All that is measured on one GPU, in at most four minutes: experiments/speed/gpu.sh OUT [--wheels=FOLDER] [--tiny]
# One log, OUT/gpu.log, and its table, OUT/gpu.md. What fails or takes too long is said there, and
# the rest goes on. --wheels: packages that the machine lacks, for one without a network; they go to OUT/site. --tiny:
# small shapes on any machine, to try the script. PYTHON: another Python than python3; TORCH_PYTHON: the one with torch.
set -u
out=$(realpath -m "${1:?OUT, a folder for the log, is missing}")
shift
python=${PYTHON:-python3} tiny= wheels= slower=1
for argument in "$@"; do
  case $argument in
    --tiny) tiny=--tiny slower=6 ;;  # than a machine with a GPU
    --wheels=*) wheels=$(realpath "${argument#*=}") || exit ;;
    *) echo "gpu.sh: $argument is none of --wheels=FOLDER and --tiny" >&2; exit 2 ;;
  esac
done
cd "$(dirname "$0")/../.."
mkdir -p "$out"
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
if [ -n "$wheels" ]; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target "$out/site" \
    "$wheels"/*.whl || exit
  export PYTHONPATH="$out/site:$PYTHONPATH"
fi
: >"$out/gpu.log"
: >"$out/gpu.err"
run() {  # PART SECONDS COMMAND...: its lines go to the log; a failure is a line too
  local part=$1 seconds=$(($2 * slower)) code=0
  shift 2
  timeout --kill-after=5 "$seconds" "$@" >>"$out/gpu.log" 2>>"$out/gpu.err" || code=$?
  [ "$code" = 0 ] || echo "{\"part\": \"$part\", \"failed\": \"exit code $code (124: over $seconds s); see gpu.err\"}" \
    >>"$out/gpu.log"
}
run training 140 "$python" experiments/speed/gpu.py $tiny --seconds=95
resumed='--times=1 --deterministic'
[ -n "$tiny" ] && resumed+=' --platform=cpu --steps=40' || resumed+=' --platform=cuda --steps=1600'
run resume 50 "$python" experiments/resume/kill.py $resumed
run timm 45 "${TORCH_PYTHON:-$python}" experiments/speed/gpu_timm.py "$out/gpu.log" $tiny --seconds=25
"$python" experiments/speed/gpu.py table "$out/gpu.log" | tee "$out/gpu.md"
