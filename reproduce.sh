#!/usr/bin/env bash
# The tables of Solovyev, Liu and Niehues 2024 (arXiv 2404.05720) on the built-in corpus, from base/, as plain commands.
#
#   ./reproduce.sh                    everything, 3 seeds; a finished row is not run again
#   ./reproduce.sh --seeds "0 1 2 3"  more seeds
#   ./reproduce.sh --jobs 1           one row at a time (default 2: each row computes on one thread)
#
# It leaves models in runs/paper/, their scores in results/ and writes RESULTS.md. To start a row anew, remove its file in
# results/. Nothing is chosen by a test score: learning rates by the validation loss of the seen language (part 1).
set -euo pipefail
cd "$(dirname "$0")"
SEEDS="0 1 2" JOBS=2
while [ $# -gt 0 ]; do
    case $1 in
        --seeds) SEEDS=$2; shift 2 ;;
        --jobs) JOBS=$2; shift 2 ;;
        *) sed -n '2,10p' "$0"; exit 2 ;;
    esac
done
PYTHON=${PYTHON:-.venv-dev/bin/python}  # the README's second command makes it; the pictures need its matplotlib
[ -x "$PYTHON" ] || { echo "error: $PYTHON is missing; run the README's test command first" >&2; exit 2; }
export OMP_NUM_THREADS=1
mkdir -p runs/paper results

# job FILE COMMAND: runs it in the background unless FILE stands, $JOBS at once; a failure is told and the rest goes on.
job() {
    local file=$1 log=runs/paper/$(basename "$1" .json).log; shift
    [ -f "$file" ] && return
    while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n || true; done
    { if "$@" > "$log" 2>&1; then echo "$(date +%H:%M:%S) $file"; else echo "FAILED $file: see $log" >&2; fi; } &
}
finish() { wait || true; }  # for all jobs

# score FILE MODEL [options of eval.py]: 100 test documents a pair.
score() { $PYTHON eval.py --model "$2" --stage summarize --examples 100 --samples 0 --json "$1" "${@:3}"; }

# row NAME SEED "PAIRS" [options of train.py]: trains runs/paper/NAME-sSEED and scores it on PAIRS.
row() { job "results/$1-s$2.json" train_and_score "$@"; }
train_and_score() {
    $PYTHON train.py --stage summarize --seed "$2" --no-eval --overwrite --out "runs/paper/$1-s$2" "${@:4}" &&
        score "results/$1-s$2.json" "runs/paper/$1-s$2" --pairs $3
}

WITHIN="en_XX-en_XX es_XX-es_XX ru_RU-ru_RU tr_TR-tr_TR gu_IN-gu_IN"
ACROSS="es_XX-en_XX ru_RU-en_XX tr_TR-en_XX es_XX-ru_RU en_XX-tr_TR tr_TR-tr_TR"

# 1. full and qk, trained on English alone and asked in every language, at every rate of the same grid. The best rate of
#    each is that of the lowest validation loss on English; the test scores of all rates are shown.
for seed in $SEEDS; do
    for rate in 5e-4 1e-3 2e-3 4e-3 8e-3; do
        for recipe in full qk; do row rate-$recipe-$rate $seed "$WITHIN" --recipe $recipe --lr $rate; done
    done
done
finish
FULL=$($PYTHON report.py --best-rate runs/paper/rate-full-*)
QK=$($PYTHON report.py --best-rate runs/paper/rate-qk-*)
echo "learning rates by English validation loss: full $FULL, qk $QK"

# 2. The other recipes at qk's rate (the paper's XL-Sum table; full and qk at that rate are there already).
for seed in $SEEDS; do
    row full+embeddings $seed "$WITHIN" --recipe full+embeddings --lr $QK
    row frozen_decoder $seed "$WITHIN" --recipe frozen_decoder --lr $QK
    row attn_ln $seed "$WITHIN" --recipe attn_ln --lr $QK
    row vqk $seed "$WITHIN" --recipe vqk --lr $QK
    row q $seed "$WITHIN" --recipe q --lr $QK
done
row supervised 0 "$WITHIN" --recipe full --lr $FULL --langs en_XX es_XX ru_RU tr_TR gu_IN

#    How zero-shot scores move while English is learned: the same run, stopped and asked at these updates.
curve() {  # curve RECIPE RATE
    local run=runs/paper/curve-$1
    for update in 50 100 200 300 400; do
        if [ $update = 50 ]; then
            $PYTHON train.py --stage summarize --recipe "$1" --lr "$2" --eval-every 50 --no-eval --overwrite --out $run \
                --stop-at 50
        else
            $PYTHON train.py --resume $run --stop-at $update
        fi && score "results/curve-$1@$update-s0.json" $run --pairs $WITHIN || return 1
    done
}
job results/curve-full@400-s0.json curve full $QK
job results/curve-qk@400-s0.json curve qk $QK

# 3. Few-shot: 10, 100 and 1000 Spanish examples on top of the zero-shot models.
finish
for count in 10 100 1000; do
    for recipe in full qk; do
        row few-$recipe-$count 0 "es_XX-es_XX" --init runs/paper/rate-$recipe-$QK-s0 --langs es_XX --train-examples $count \
            --recipe $recipe --lr 1e-3 --steps 100 --eval-every 20
    done
done

# 4. The first of the two steps: translation in every pair of four languages, and copying.
translate() {
    $PYTHON train.py --stage translate --langs en_XX es_XX ru_RU tr_TR --no-eval --overwrite --out runs/paper/translate &&
        $PYTHON eval.py --model runs/paper/translate --pairs en_XX-es_XX es_XX-en_XX ru_RU-en_XX en_XX-tr_TR \
            --samples 0 --json results/translate.json
}
job results/translate.json translate
finish

# 5. Trained within en, es and ru, asked across languages and in Turkish (the paper's WikiLingua table).
JOINT="--langs en_XX es_XX ru_RU"
for seed in $SEEDS; do
    row joint-full $seed "$ACROSS" $JOINT --recipe full --lr $FULL
    row joint-qk $seed "$ACROSS" $JOINT --recipe qk --lr $QK
    row joint-tagless $seed "$ACROSS" $JOINT --recipe full --lr $FULL --tagless
    row joint-standard $seed "$ACROSS" $JOINT --recipe full --lr $FULL --adversarial standard
    row joint-balanced $seed "$ACROSS" $JOINT --recipe full --lr $FULL --adversarial balanced
    row joint-balanced-drop $seed "$ACROSS" $JOINT --recipe full --lr $FULL --adversarial balanced --residual-drop 2
    row two-step-qk $seed "$ACROSS" $JOINT --recipe qk --lr $QK --init runs/paper/translate
    row two-step-full $seed "$ACROSS" $JOINT --recipe full --lr $FULL --init runs/paper/translate
done
row joint-supervised 0 "$ACROSS" --pairs $ACROSS --recipe full --lr $FULL
finish
for seed in $SEEDS; do
    row joint-adv-tuned $seed "$ACROSS" $JOINT --recipe adv_tuned --lr 1e-3 --init runs/paper/joint-balanced-s$seed
done

# 6. What needs no more training: the untuned base, the pipeline, the probes.
job results/base-s0.json score results/base-s0.json base --pairs $WITHIN $ACROSS
pipeline() { score "$1" "$2" --pipeline runs/paper/translate --pairs "${@:3}"; }
job results/qk-pipeline-s0.json pipeline results/qk-pipeline-s0.json runs/paper/rate-qk-$QK-s0 es_XX-es_XX ru_RU-ru_RU tr_TR-tr_TR
job results/joint-pipeline-s0.json pipeline results/joint-pipeline-s0.json runs/paper/joint-qk-s0 $ACROSS
job results/base+probe-s0.json score results/base+probe-s0.json base --probe
for seed in $SEEDS; do
    for name in joint-full joint-qk joint-tagless joint-standard joint-balanced joint-balanced-drop two-step-qk; do
        file=results/$name+probe-s$seed.json
        job $file score $file runs/paper/$name-s$seed --probe
    done
done
finish

$PYTHON report.py
