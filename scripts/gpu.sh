#!/usr/bin/env bash
# What one GPU must show, in at most 8 minutes; each part by itself, and resumable.
#
#     scripts/gpu.sh [FOLDER]           # results in FOLDER, by default build/gpu
#     DRY=1 scripts/gpu.sh [FOLDER]     # each part, as small as it gets, on a CPU
#
# PETS=FOLDER names the whole Oxford-IIIT Pet data set, for "seconds to 0.75"; PYTHON the interpreter;
# SECONDS_IN_ALL another time; TIMES=2 gives each part twice its share. Each part writes PART.log and,
# when it has ended well, PART.done: such parts aren't run again. What the time leaves no room for is
# named, and runs the next time; steps go on with the row that they had come to.
set -u
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-build/gpu}" && cd "${1:-build/gpu}" && pwd)
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python)}
dry=${DRY:-}
failed=0
ends=$(($(date +%s) + ${SECONDS_IN_ALL:-$([ -n "$dry" ] && echo 7200 || echo 480)}))

part() {  # part NAME SECONDS COMMAND...: runs a command within a time, unless it has ended well
  local name=$1 limit=$2 began left; shift 2
  limit=$((limit * ${TIMES:-1}))
  [ -n "$dry" ] && limit=$((limit * 10))  # whose device may be slow and busy
  [ -e "$out/$name.done" ] && { echo "$name: done before"; return; }
  began=$(date +%s)
  left=$((ends - began))
  [ "$left" -lt 5 ] && { failed=1; echo "$name: NOT RUN, the time is over"; return; }
  [ "$left" -lt "$limit" ] && limit=$left
  if timeout "$limit" "$@" >"$out/$name.log" 2>&1; then
    echo "$(($(date +%s) - began)) s, commit $commit" >"$out/$name.done"
    echo "$name: $(cat "$out/$name.done")"
  else
    failed=1
    echo "$name: FAILED after $(($(date +%s) - began)) s, see $out/$name.log"
    tail -n 3 "$out/$name.log" | sed 's/^/    /'
  fi
}

train() {  # train NAME WORDS...: a training in a run directory of its own, which goes on if it is there
  local run="$out/runs/$1"; shift
  if [ -e "$run/summary.json" ]; then set -- "resume=$run"; else set -- "$@" "hydra.run.dir=$run"; fi
  "$python" -m segpets.train "$@"
}

side_by_side() {  # the losses of the first steps there and here, of the same seed
  local words="trainer.precision=32-true trainer.max_epochs=1 trainer.log_every_n_steps=1 test=false"
  words="$words trainer.limit_train_batches=$1 trainer.limit_val_batches=1 $2"
  train losses_there "$3" $words && train losses_here trainer=cpu $words || return 1
  "$python" - "$out/runs/losses_there/metrics.csv" "$out/runs/losses_here/metrics.csv" <<'END'
import csv, sys
there, here = ([float(r["train/loss"]) for r in csv.DictReader(open(f)) if r["train/loss"]] for f in sys.argv[1:])
for step, pair in enumerate(zip(there, here, strict=True)):
    print("step", step, "loss there, here: %.5f %.5f" % pair)
sys.exit(abs(there[0] - here[0]) > 1e-3)
END
}
export -f train side_by_side
export out python

little="model.widths=[4,8] data.size=32"
if [ -n "$dry" ]; then
  device=trainer=cpu; epochs="debug=smoke"; tests="not gpu"; target=0.05
  steps="--rounds 1 --steps 2"; batches="4 256"; words="$little"; of_efficient="$little trainer.max_epochs=1"
else
  device=trainer=gpu; epochs="trainer.max_epochs=1"; tests=gpu; target=0.70
  steps="--rounds 3 --steps 30"; batches="8 64 256"; words=""; of_efficient=""
fi
step() {  # step NAME SECONDS WORDS...: steps a second against the bare loops
  local name=$1 limit=$2; shift 2
  part "$name" "$limit" "$python" benchmarks/train_step.py $steps --json "$out/$name.json" --resume $device "$@"
}

commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
{ echo "$commit"; "$python" -c 'import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'; date -u; } >"$out/machine.txt" 2>&1
cat "$out/machine.txt"
if [ -z "$dry" ] && grep -q "no GPU" "$out/machine.txt"; then
  echo "PyTorch finds no GPU, so its tests would all be skipped: DRY=1 goes through the parts on a CPU"
  exit 1
fi

part smoke 40 bash -c "train smoke $device debug=smoke model.widths=[4,8]"
part losses 40 bash -c "side_by_side $([ -n "$dry" ] && echo 2 || echo 20) '${dry:+$little}' $device"
part tests_no_waiting 40 "$python" -m pytest -q -p no:cacheprovider -m "$tests" tests/train/test_no_waiting.py $([ -n "$dry" ] && echo "-k no_resident")
part tests_device 100 "$python" -m pytest -q -p no:cacheprovider -m "$tests" tests/gpu
step steps 60 $words --models unet --batches $batches --variants "" "augment=torchvision_crop" "trainer.benchmark=true"
step steps_fp32 30 $words --models unet --batches $([ -n "$dry" ] && echo 4 || echo 64) --variants trainer.precision=32-true "trainer.precision=32-true trainer.float32_matmul=high"
part efficient_to_target 60 "$python" benchmarks/seconds_to.py --target $target --json "$out/pets_mini.json" $device experiment=efficient data=pets_mini $of_efficient
if [ -n "${PETS:-}" ]; then
  part efficient_to_0.75 60 "$python" benchmarks/seconds_to.py --target $([ -n "$dry" ] && echo 0.05 || echo 0.75) --json "$out/pets.json" $device experiment=efficient data=oxford_pets "data.root=$PETS" data.size=128 $of_efficient
fi
step steps_compiled 90 $words --models unet --batches $([ -n "$dry" ] && echo 4 || echo $batches) --variants trainer.compile=true
step steps_of_others 30 --models $([ -n "$dry" ] && echo fcn || echo segnet_dsc vit_tiny) --batches $([ -n "$dry" ] && echo 4 || echo 8)
for batch in 8 128; do
  part "pets_mini_$batch" 30 bash -c "train pets_mini_$batch $device $epochs data.batch_size=$batch ${dry:+$little}"
done
for file in conf/model/*.yaml; do
  model=$(basename "$file" .yaml)
  part "model_$model" 30 bash -c "train model_$model $device model=$model $epochs"
done
exit $failed
