#!/usr/bin/env bash
# The tables of three papers on the built-in corpus, from base/, as plain commands:
#   parts 1 to 6   Solovyev, Liu and Niehues 2024 (arXiv 2404.05720)
#   part 7         Gheini, Ren and May 2021 (arXiv 2104.08771)
#   part 8         Liu and Niehues 2025 (arXiv 2502.14830)
#   parts 9 to 13  what these leave open
#
#   papers/reproduce.sh                    everything, 3 seeds; a finished row is not run again
#   papers/reproduce.sh --parts "1 2"      these parts alone, then the report
#   papers/reproduce.sh --seeds "0 1 2 3"  more seeds
#   papers/reproduce.sh --jobs 1           one row at a time (default 2; a row takes one thread)
#
# It leaves models in runs/paper/, their scores in results/ and writes papers/RESULTS.md. To start a
# row anew, remove its file in results/. A row whose model is missing is left out, and told with the
# part that makes it. Nothing is chosen by a test score: learning rates are chosen by the validation
# loss of the seen language (parts 1 and 9).
set -euo pipefail

help() { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; }

SEEDS="0 1 2"
PARTS="1 2 3 4 5 6 7 8 9 10 11 12 13"
JOBS=2
while [ $# -gt 0 ]; do
    case $1 in
        --seeds) SEEDS=${2:?--seeds: say which, as in --seeds "0 1 2"}; shift 2 ;;
        --parts) PARTS=${2:?--parts: say which, as in --parts "1 2"}; shift 2 ;;
        --jobs) JOBS=${2:?--jobs: say how many}; shift 2 ;;
        --help | -h) help; exit 0 ;;
        *) echo "error: $1 is no option of this script" >&2; help >&2; exit 2 ;;
    esac
done
[ "$JOBS" -ge 1 ] || { echo "error: --jobs $JOBS: at least 1" >&2; exit 2; }
FIRST=${SEEDS%% *}  # of rows that have one seed only
for part in $PARTS; do
    case $part in
        [1-9] | 1[0-3]) ;;
        *) echo "error: --parts $part: there are parts 1 to 13" >&2; exit 2 ;;
    esac
done

cd "$(dirname "$0")/.."  # the project's root: every command below runs there
PYTHON=${PYTHON:-.venv-dev/bin/python}  # its pictures need matplotlib
if ! command -v "$PYTHON" > /dev/null; then
    echo "error: $PYTHON is missing; the README's test command makes it" >&2
    exit 2
fi
python() { "$PYTHON" "$@"; }
export OMP_NUM_THREADS=1
mkdir -p runs/paper results

# ------------------------------------------------------------------------------------------ tools

# job FILE COMMAND: runs it in the background unless FILE stands, $JOBS at once. A failure is told,
# and the rest goes on. NEEDS="PART:MODEL ..." before it: not without these models, which those
# parts make.
job() {
    local file=$1 log needed
    log=runs/paper/$(basename "$file" .json).log
    shift
    [ -f "$file" ] && return
    for needed in ${NEEDS:-}; do
        if ! is_made "${needed#*:}"; then
            echo "MISSING ${needed#*:}, for $file: run --parts ${needed%%:*} first" >&2
            return
        fi
    done
    while [ "$(jobs -rp | wc -l)" -ge "$JOBS" ]; do wait -n || true; done
    [ -f "$file" ] && return  # one of those has made it
    run_job "$file" "$log" "$@" &
}

# is_made MODEL: its folder stands from the first update on, its scores when it is trained.
is_made() {
    local scored
    scored=results/$(basename "$1")
    [ -f "$1/config.json" ] && { [ -f "$scored.json" ] || [ -f "$scored.done" ]; }
}

run_job() {
    local file=$1 log=$2
    shift 2
    if "$@" > "$log" 2>&1; then
        echo "$(date +%H:%M:%S) $file"
    else
        echo "FAILED $file: $(tail -n 1 "$log") (see $log)" >&2
    fi
}
finish() { wait || true; }  # until all jobs are done
heading() { echo "$(date +%H:%M:%S) part $1: $2 (after $((SECONDS / 60)) minutes)"; }

# score FILE MODEL "PAIRS": summaries of 100 test documents a pair. ROUGE of stemmed words too: the
# published figures are of these.
score() {
    local pairs
    read -ra pairs <<< "$3"
    python eval.py --model "$2" --stage summarize --examples 100 --samples 0 --stem \
        --json "$1" --pairs "${pairs[@]}"
}

# row NAME SEED "PAIRS" [options of train.py]: trains runs/paper/NAME-sSEED and scores it on PAIRS.
row() { job "results/$1-s$2.json" train_and_score "$@"; }
train_and_score() {
    python train.py --stage summarize --seed "$2" --no-eval --overwrite --out "runs/paper/$1-s$2" \
        "${@:4}" &&
        score "results/$1-s$2.json" "runs/paper/$1-s$2" "$3"
}

# translated FILE MODEL "PAIRS", teach NAME SEED PAIR [options of train.py]: the same for
# translation.
translated() {
    local pairs
    read -ra pairs <<< "$3"
    python eval.py --model "$2" --stage translate --examples 100 --samples 0 --json "$1" \
        --pairs "${pairs[@]}"
}
teach() {
    python train.py --stage translate --seed "$2" --pairs "$3" --no-eval --overwrite \
        --out "runs/paper/$1-s$2" "${@:4}" &&
        translated "results/$1-s$2.json" "runs/paper/$1-s$2" "$3"
}

# probe NAME SEED MODEL: how much each layer tells of the source language.
probe() {
    local file=results/$1+probe-s$2.json
    job "$file" python -m tools.layers --model "$3" --stage summarize --measures probe svcca \
        --source-lang en_XX es_XX ru_RU tr_TR --json "$file"
}

# retrieve NAME SEED MODEL: how near each layer brings translations.
retrieve() {
    local file=results/$1+retrieval-s$2.json
    job "$file" python -m tools.layers --model "$3" --stage summarize --measures retrieval \
        --source-lang en_XX es_XX ru_RU tr_TR gu_IN --json "$file"
}

WITHIN="en_XX-en_XX es_XX-es_XX ru_RU-ru_RU tr_TR-tr_TR gu_IN-gu_IN"
BETWEEN="es_XX-en_XX ru_RU-en_XX tr_TR-en_XX es_XX-ru_RU en_XX-tr_TR"
ACROSS="$BETWEEN tr_TR-tr_TR"

ALL_PAIRS="$(for a in en_XX es_XX ru_RU tr_TR; do
    for b in en_XX es_XX ru_RU tr_TR; do echo "$a-$b"; done
done)"
JOINT=(--langs en_XX es_XX ru_RU)
# All rows that train whole layers within three languages take the same rate: the adversary needs
# one at which the encoder really moves.
MOVE=(--recipe full --lr 2e-3)

# best_rate RECIPE PART: prints the learning rate with the lowest validation loss on English, of the
# grid that PART runs.
best_rate() {
    python -m papers.report --best-rate "runs/paper/rate-$1-"* && return
    echo "error: the learning rates of $1 are tried in part $2: run --parts $2 first" >&2
    return 2
}
rates() {
    [ -n "${QK:-}" ] && return
    FULL=$(best_rate full 1)
    QK=$(best_rate qk 1)
    echo "learning rates by English validation loss: full $FULL, qk $QK"
}

# --------------------------------------------------------------------------------------- part 1
# What does full finetuning on English lose of the other languages, and does qk keep it? Both at
# every rate of the same grid (the first seed). The best rate of each is that of the lowest
# validation loss on English; the test scores of all rates are shown.
part_1() {
    local rate seed
    heading 1 "full and qk on English, every learning rate of the grid"
    for rate in 5e-4 1e-3 2e-3 4e-3 8e-3; do
        row "rate-full-$rate" "$FIRST" "$WITHIN" --recipe full --lr "$rate"
        row "rate-qk-$rate" "$FIRST" "$WITHIN" --recipe qk --lr "$rate"
    done
    finish
    rates
    for seed in $SEEDS; do
        row "rate-full-$QK" "$seed" "$WITHIN" --recipe full --lr "$QK"
        if [ "$FULL" != "$QK" ]; then
            row "rate-full-$FULL" "$seed" "$WITHIN" --recipe full --lr "$FULL"
        fi
        row "rate-qk-$QK" "$seed" "$WITHIN" --recipe qk --lr "$QK"
    done
}

# --------------------------------------------------------------------------------------- part 2
# Which tensors may train? The other recipes at qk's rate (the paper's XL-Sum table; full and qk are
# there already), and how the scores move while English is learned.
part_2() {
    local recipe seed
    heading 2 "the other recipes on English, and how zero-shot scores move while it is learned"
    for seed in $SEEDS; do
        for recipe in full+embeddings frozen_decoder attn_ln vqk q; do
            row "$recipe" "$seed" "$WITHIN" --recipe "$recipe" --lr "$QK"
        done
    done
    row supervised "$FIRST" "$WITHIN" --recipe full --lr "$FULL" \
        --langs en_XX es_XX ru_RU tr_TR gu_IN
    job results/curve-full@400-s0.json curve full "$QK"
    job results/curve-qk@400-s0.json curve qk "$QK"
}

# curve RECIPE RATE: one run, stopped and asked at these updates, as it then is.
curve() {
    local run=runs/paper/curve-$1 update
    python train.py --stage summarize --recipe "$1" --lr "$2" --eval-every 50 --keep last \
        --no-eval --overwrite --out "$run" --stop-at 50 || return 1
    score "results/curve-$1@50-s0.json" "$run" "$WITHIN" || return 1
    for update in 100 200 300 400; do
        python train.py --resume "$run" --stop-at "$update" || return 1
        score "results/curve-$1@$update-s0.json" "$run" "$WITHIN" || return 1
    done
}

# --------------------------------------------------------------------------------------- part 3
# The first of part 5's two steps: translation in every pair of four languages, and copying. It
# takes long, so part 4 runs beside it.
part_3() {
    heading 3 "the translation model"
    job results/translate.json translate
}
translate() {
    python train.py --stage translate --langs en_XX es_XX ru_RU tr_TR --no-eval --overwrite \
        --out runs/paper/translate &&
        python eval.py --model runs/paper/translate --samples 0 --json results/translate.json \
            --pairs en_XX-es_XX es_XX-en_XX ru_RU-en_XX en_XX-tr_TR
}

# --------------------------------------------------------------------------------------- part 4
# What do a few Spanish examples add? All layers train, on top of either zero-shot model, for 12, 6,
# 4 and 2 epochs of 10, 100, 1000 and 10000 examples, and the last model counts (as published). A
# batch of 1600 tokens holds about 26 documents with their headlines (measured on 60 batches:
# 25.7), so these epochs are 5, 23, 154 and 769 updates.
part_4() {
    heading 4 "a few Spanish examples on top"
    few 10 5 1
    few 100 23 3
    few 1000 154 10
    few 10000 769 10
}

# few EXAMPLES UPDATES WARMUP
few() {
    local start zero_shot
    for start in full qk; do
        zero_shot=runs/paper/rate-$start-$QK-s$FIRST
        NEEDS="1:$zero_shot" row "few-$start-$1" "$FIRST" es_XX-es_XX --init "$zero_shot" \
            --langs es_XX --train-examples "$1" --recipe full --lr 1e-3 --steps "$2" \
            --warmup "$3" --keep last
    done
}

# --------------------------------------------------------------------------------------- part 5
# Trained within en, es and ru, asked across languages and in Turkish (the paper's WikiLingua
# table): what makes a model write the language that it is asked for?
part_5() {
    local pairs seed
    heading 5 "trained within three languages, asked across them"
    for seed in $SEEDS; do
        row joint-full "$seed" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}"
        row joint-qk "$seed" "$ACROSS" "${JOINT[@]}" --recipe qk --lr "$QK"
        row joint-drop "$seed" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}" --residual-drop 4
        row joint-tagless "$seed" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}" --tagless
        row joint-standard "$seed" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}" --adversarial standard
        row joint-balanced "$seed" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}" --adversarial balanced
        row joint-balanced-drop "$seed" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}" \
            --adversarial balanced --residual-drop 4
        two_step two-step-qk "$seed" --recipe qk --lr "$QK"
        two_step two-step-dec-qk "$seed" --recipe 'encoder_attn\.[qk]_proj\.' --lr "$QK"
        two_step two-step-full "$seed" "${MOVE[@]}"
    done
    row joint-tagless-drop "$FIRST" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}" --tagless \
        --residual-drop 4
    read -ra pairs <<< "$ACROSS"
    row joint-supervised "$FIRST" "$ACROSS" "${MOVE[@]}" --pairs "${pairs[@]}"
    finish
    for seed in $SEEDS; do
        decoder_tuned joint-standard-tuned "$seed" "runs/paper/joint-standard-s$seed"
        decoder_tuned joint-adv-tuned "$seed" "runs/paper/joint-balanced-s$seed"
    done
}

# two_step NAME SEED [options of train.py]: summaries after translation.
two_step() {
    NEEDS="3:runs/paper/translate" row "$1" "$2" "$ACROSS" "${JOINT[@]}" \
        --init runs/paper/translate "${@:3}"
}

# decoder_tuned NAME SEED MODEL: the decoder alone, after an adversarial run.
decoder_tuned() {
    NEEDS="5:$3" row "$1" "$2" "$ACROSS" "${JOINT[@]}" --recipe adv_tuned --lr 1e-3 --init "$3"
}

# --------------------------------------------------------------------------------------- part 6
# What needs no more training: the untuned base, the pipeline, and what the layers tell of the
# source language.
part_6() {
    local name seed summarizer
    heading 6 "the untuned base, translate-summarize-translate, probes"
    job results/base-s0.json score results/base-s0.json base "$WITHIN $BETWEEN"

    summarizer=runs/paper/rate-qk-$QK-s$FIRST
    NEEDS="1:$summarizer 3:runs/paper/translate" pipeline results/qk-pipeline-s0.json \
        "$summarizer" "es_XX-es_XX ru_RU-ru_RU tr_TR-tr_TR"
    summarizer=runs/paper/joint-qk-s$FIRST
    NEEDS="5:$summarizer 3:runs/paper/translate" pipeline results/joint-pipeline-s0.json \
        "$summarizer" "$ACROSS"

    probe base 0 base
    for name in joint-qk two-step-qk; do
        NEEDS="5:runs/paper/$name-s$FIRST" probe "$name" "$FIRST" "runs/paper/$name-s$FIRST"
    done
    for seed in $SEEDS; do
        for name in joint-full joint-tagless joint-standard joint-balanced joint-balanced-drop; do
            NEEDS="5:runs/paper/$name-s$seed" probe "$name" "$seed" "runs/paper/$name-s$seed"
        done
    done
}

# pipeline FILE SUMMARIZER "PAIRS": to English and back.
pipeline() {
    local pairs
    read -ra pairs <<< "$3"
    job "$1" python -m papers.pipeline "$2" runs/paper/translate --examples 100 --json "$1" \
        --pairs "${pairs[@]}"
}

# --------------------------------------------------------------------------------------- part 7
# What must train when a translation model gets a new language? A parent translates French ->
# English with a French vocabulary of its own. Its children read German (a new source; 60 updates)
# or write German (a new target; 200: to write takes longer than to read); the mBART variants keep
# the base's vocabulary (200). A child starts as a folder of its own, with fresh embeddings and,
# where its name says so, a random cross-attention (randxattn) or nothing of the parent at all
# (scratch).
PARENT=runs/paper/parent-s0
SHORT=(--lr 4e-3 --eval-every 20 --steps 60 --warmup 10)
LONG=(--lr 4e-3 --eval-every 20 --steps 200 --warmup 30)
part_7() {
    local seed what child file
    heading 7 "new languages: the children of a French-English parent"
    job results/parent-s0.json parent
    finish
    for seed in $SEEDS; do
        reader child-src "$seed" src
        reader child-src+xattn "$seed" src+xattn
        reader child-src+randxattn "$seed" src+xattn --cross-attention random
        reader child-src+body "$seed" src+body
        reader child-src-scratch "$seed" full+embeddings --scratch
        writer child-tgt "$seed" de_DE tgt
        writer child-tgt+xattn "$seed" de_DE tgt+xattn
        writer child-tgt+randxattn "$seed" de_DE tgt+xattn --cross-attention random
        writer child-tgt+body "$seed" de_DE tgt+body
        writer child-tgt-scratch "$seed" de_DE full+embeddings --scratch
        writer child-spanish "$seed" es_XX tgt+xattn
        mbart mbart-emb "$seed" emb
        mbart mbart-emb+xattn "$seed" emb+xattn
        mbart mbart-full+embeddings "$seed" full+embeddings
        job "results/mbart-emb+randxattn-s$seed.json" mbart_random "$seed"
    done
    finish
    for seed in $SEEDS; do
        for what in "" +xattn +randxattn +body; do
            child=runs/paper/child-src$what-s$seed
            # Do German words lie where the parent's French ones do?
            file=results/child-src$what+dictionary-s$seed.json
            job "$file" python -m papers.dictionary "$child" de_DE "$PARENT" fr_XX src \
                --json "$file"
            # What is forgotten: the parent's French embeddings back in the child's body.
            file=results/child-src$what+parent-s$seed.json
            job "$file" grafted "$file" "$child" "$PARENT" fr_XX-en_XX
        done
        # Stitched: the German embeddings of one child in the body of the French -> Spanish child.
        file=results/stitched-s$seed.json
        job "$file" grafted "$file" "runs/paper/child-spanish-s$seed" \
            "runs/paper/child-src+xattn-s$seed" de_DE-es_XX
    done
    python -m tools.delta sizes base > results/sizes.txt
}

parent() {
    python -m tools.new_language fresh base runs/paper/parent-start --source fr_XX \
        --pairs fr_XX-en_XX --seed 0 --overwrite &&
        teach parent 0 fr_XX-en_XX --init runs/paper/parent-start --recipe src+body --steps 400
}

# reader NAME SEED RECIPE [options of tools.new_language]: a child that reads German.
reader() { job "results/$1-s$2.json" teach_reader "$@"; }
teach_reader() {
    local start=runs/paper/$1-start-s$2
    python -m tools.new_language fresh "$PARENT" "$start" --source de_DE --pairs de_DE-en_XX \
        --seed "$2" --overwrite "${@:4}" &&
        teach "$1" "$2" de_DE-en_XX --init "$start" --recipe "$3" "${SHORT[@]}"
}

# writer NAME SEED LANG RECIPE [options of tools.new_language]: a child that writes LANG.
writer() { job "results/$1-s$2.json" teach_writer "$@"; }
teach_writer() {
    local start=runs/paper/$1-start-s$2
    python -m tools.new_language fresh "$PARENT" "$start" --target "$3" --pairs "fr_XX-$3" \
        --seed "$2" --overwrite "${@:5}" &&
        teach "$1" "$2" "fr_XX-$3" --init "$start" --recipe "$4" "${LONG[@]}"
}

# mbart NAME SEED RECIPE: the base itself learns German -> English.
mbart() { job "results/$1-s$2.json" teach "$1" "$2" de_DE-en_XX --recipe "$3" "${LONG[@]}"; }
mbart_random() {
    local start=runs/paper/mbart-randxattn-start-s$1
    python -m tools.new_language random-cross-attention base "$start" --seed "$1" --overwrite &&
        teach mbart-emb+randxattn "$1" de_DE-en_XX --init "$start" --recipe emb+xattn "${LONG[@]}"
}

# grafted FILE BODY DONOR PAIR: BODY with DONOR's source embeddings, as it is.
grafted() {
    local out
    out=runs/paper/graft-$(basename "$1" .json)
    python -m tools.new_language graft "$2" "$3" src "$out" --overwrite &&
        translated "$1" "$out" "$4"
}

# --------------------------------------------------------------------------------------- part 8
# Does it help transfer when translations meet in a middle layer? Alignment in encoder layer 3 of 6, of
# Spanish and of Russian sentences with English ones: beside the task, as LoRA (without dropout, as
# everything here), and trained apart and merged.
LORA=(--lr 4e-3 --lora-dropout 0)
part_8() {
    local name seed weight
    heading 8 "translations meet in a middle layer"
    for seed in $SEEDS; do
        row joint-full "$seed" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}"  # part 5's
        row joint-align "$seed" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}" --align-layer 3
        row lora-task "$seed" "$ACROSS" "${JOINT[@]}" --recipe lora "${LORA[@]}"
        row lora-joint "$seed" "$ACROSS" "${JOINT[@]}" --recipe lora "${LORA[@]}" --align-layer 3
        job "results/lora-align-s$seed.done" align_apart "$seed"
    done
    finish
    for seed in $SEEDS; do
        for weight in 0.5 1.0; do
            job "results/lora-merged-$weight-s$seed.json" merged "$seed" "$weight"
        done
    done
    finish
    retrieve base 0 base
    for seed in $SEEDS; do
        for name in joint-full joint-align lora-task lora-align lora-joint lora-merged-0.5; do
            retrieve "$name" "$seed" "runs/paper/$name-s$seed"
        done
    done
}

align_apart() {
    python train.py --stage align --align-layer 3 "${JOINT[@]}" --recipe lora "${LORA[@]}" \
        --seed "$1" --no-eval --overwrite --out "runs/paper/lora-align-s$1" &&
        touch "results/lora-align-s$1.done"
}

# merged SEED WEIGHT: task and alignment, trained apart, put together.
merged() {
    local run=runs/paper/lora-merged-$2-s$1 task=runs/paper/task-$1-$2.delta
    local align=runs/paper/align-$1-$2.delta
    python -m tools.delta save "runs/paper/lora-task-s$1" base "$task" --overwrite &&
        python -m tools.delta save "runs/paper/lora-align-s$1" base "$align" --overwrite &&
        python -m tools.delta merge base "$run" "$task=$2" "$align=$2" --overwrite &&
        score "results/lora-merged-$2-s$1.json" "$run" "$ACROSS"
}

# --------------------------------------------------------------------------------------- part 9
# Open question: how little may train on English? Finer than modules at qk's rate: the cross-
# attention's queries and keys alone, the encoder's alone, those of one layer of each alone, and
# the two attentions whole. And is it which parameters train, or how many? LoRA of rank 12 has
# 285,696 parameters, qk 297,216 (4% more); its rate is chosen as theirs were.
part_9() {
    local layer lora rate seed
    heading 9 "finer freezing on English, and LoRA of qk's size"
    for rate in 5e-4 1e-3 2e-3 4e-3 8e-3 16e-3; do
        small_lora "$rate" "$FIRST"
    done
    for seed in $SEEDS; do
        finer dec_qk "$seed" 'encoder_attn\.[qk]_proj\.'
        finer enc_qk "$seed" 'encoder\.layers\.\d+\.self_attn\.[qk]_proj\.'
        finer encoder-attention "$seed" 'encoder\.layers\.\d+\.self_attn\.'
        finer cross-attention "$seed" 'encoder_attn\.'
        for layer in 1 3 6; do
            finer "qk-layer-$layer" "$seed" qk --recipe-layers "$layer"
        done
    done
    finish
    lora=$(best_rate lora 9)
    echo "learning rate of LoRA by English validation loss: $lora"
    for seed in $SEEDS; do
        small_lora "$lora" "$seed"
    done
}

# finer NAME SEED RECIPE [options of train.py]
finer() { row "$1" "$2" "$WITHIN" --lr "$QK" --recipe "${@:3}"; }

# small_lora RATE SEED
small_lora() {
    row "rate-lora-$1" "$2" "$WITHIN" --recipe lora --lora-rank 12 --lora-dropout 0 --lr "$1"
}

# --------------------------------------------------------------------------------------- part 10
# Open question: translation as the task. English -> Spanish alone is taught, to the base and to the
# model that translates all pairs of four languages: what becomes of the other pairs?
part_10() {
    local seed
    heading 10 "translation as the task: English to Spanish alone"
    for seed in $SEEDS; do
        job "results/translation-full-s$seed.json" teach_pair translation-full "$seed" \
            --recipe full --lr 2e-3
        job "results/translation-qk-s$seed.json" teach_pair translation-qk "$seed" \
            --recipe qk --lr 4e-3
        NEEDS="3:runs/paper/translate" job "results/translator-full-s$seed.json" \
            teach_pair translator-full "$seed" --recipe full --lr 2e-3 --init runs/paper/translate
        NEEDS="3:runs/paper/translate" job "results/translator-qk-s$seed.json" \
            teach_pair translator-qk "$seed" --recipe qk --lr 4e-3 --init runs/paper/translate
    done
    NEEDS="3:runs/paper/translate" job results/translator-s0.json \
        translated results/translator-s0.json runs/paper/translate "$TAUGHT_AND_OTHERS"
}
TAUGHT_AND_OTHERS="en_XX-es_XX es_XX-en_XX ru_RU-en_XX en_XX-ru_RU en_XX-tr_TR ru_RU-es_XX"

# teach_pair NAME SEED [options of train.py]
teach_pair() {
    python train.py --stage translate --seed "$2" --pairs en_XX-es_XX --steps 400 --eval-every 100 \
        --no-eval --overwrite --out "runs/paper/$1-s$2" "${@:3}" &&
        translated "results/$1-s$2.json" "runs/paper/$1-s$2" "$TAUGHT_AND_OTHERS"
}

# --------------------------------------------------------------------------------------- part 11
# Open questions: does qk go with the adversary (a table of two by two, all without the source tag;
# full's half is part 5's)? And why does the balanced adversary lose a target language that it never
# saw, and what keeps it: a frozen decoder, a start from the translation model, alignment, or
# translations mixed into the summaries, without and with Turkish ones?
part_11() {
    local balanced seed
    heading 11 "qk and the adversary; what keeps an unseen target language"
    balanced=(--lr 2e-3 --adversarial balanced)
    for seed in $SEEDS; do
        row joint-qk-tagless "$seed" "$ACROSS" "${JOINT[@]}" --recipe qk --lr "$QK" --tagless
        row joint-qk-balanced "$seed" "$ACROSS" "${JOINT[@]}" --recipe qk --lr "$QK" \
            --adversarial balanced
        row joint-balanced-frozen-decoder "$seed" "$ACROSS" "${JOINT[@]}" "${balanced[@]}" \
            --recipe frozen_decoder
        NEEDS="3:runs/paper/translate" row joint-balanced-from-translation "$seed" "$ACROSS" \
            "${JOINT[@]}" "${balanced[@]}" --recipe full --init runs/paper/translate
        row joint-balanced-aligned "$seed" "$ACROSS" "${JOINT[@]}" "${balanced[@]}" \
            --recipe full --align-layer 3
        row joint-balanced-mix "$seed" "$ACROSS" "${JOINT[@]}" "${balanced[@]}" \
            --recipe full --mix 1
        # shellcheck disable=SC2086  # these pairs are words of their own
        row joint-balanced-mix-tr "$seed" "$ACROSS" "${JOINT[@]}" "${balanced[@]}" \
            --recipe full --mix 1 --mix-pairs $ALL_PAIRS
    done
    finish
    for seed in $SEEDS; do
        for name in joint-qk-tagless joint-qk-balanced; do
            NEEDS="11:runs/paper/$name-s$seed" probe "$name" "$seed" "runs/paper/$name-s$seed"
        done
    done
}

# --------------------------------------------------------------------------------------- part 12
# Open question: how much hangs on the layer that is aligned, and on the languages? Part 8's row
# aligns es and ru with en in layer 3.
part_12() {
    local name seed
    heading 12 "alignment in other layers, and of other languages"
    for seed in $SEEDS; do
        aligned joint-align-1 "$seed" --align-layer 1
        aligned joint-align "$seed" --align-layer 3  # part 8's
        aligned joint-align-6 "$seed" --align-layer 6
        aligned joint-align-es "$seed" --align-layer 3 --align-pairs es_XX-en_XX
        aligned joint-align-ru "$seed" --align-layer 3 --align-pairs ru_RU-en_XX
        aligned joint-align-es-ru "$seed" --align-layer 3 --align-pairs es_XX-ru_RU
    done
    finish
    for seed in $SEEDS; do
        for name in joint-align-1 joint-align joint-align-6 joint-align-es joint-align-ru \
            joint-align-es-ru; do
            NEEDS="12:runs/paper/$name-s$seed" retrieve "$name" "$seed" "runs/paper/$name-s$seed"
        done
    done
}

# aligned NAME SEED [options of train.py]
aligned() { row "$1" "$2" "$ACROSS" "${JOINT[@]}" "${MOVE[@]}" "${@:3}"; }

# --------------------------------------------------------------------------------------- part 13
# Open questions: may both sides be new at once (German -> Spanish, of the French-English parent)?
# And how few sentences does a new source language need: is the cross-attention worth most where
# there are few? 200 updates for all, of about 57 sentences each (measured on 60 batches), which see
# 11,500 in all: each of 10000 once. The best model by validation loss counts.
part_13() {
    local recipe seed sentences start
    heading 13 "both sides new at once, and few sentences"
    for seed in $SEEDS; do
        start=runs/paper/both-start-s$seed
        NEEDS="7:$PARENT" job "results/both-start-s$seed.done" both_new "$seed" "$start"
        start=runs/paper/curve-start-s$seed
        NEEDS="7:$PARENT" job "results/curve-start-s$seed.done" german "$seed" "$start"
    done
    finish
    for seed in $SEEDS; do
        start=runs/paper/both-start-s$seed
        for recipe in both both+xattn both+body; do
            NEEDS="13:$start" job "results/child-$recipe-s$seed.json" teach "child-$recipe" \
                "$seed" de_DE-es_XX --init "$start" --recipe "$recipe" "${LONG[@]}"
        done
        start=runs/paper/curve-start-s$seed
        for sentences in 100 300 1000 3000 10000; do
            for recipe in src src+xattn src+body; do
                NEEDS="13:$start" job "results/low-$recipe@$sentences-s$seed.json" teach \
                    "low-$recipe@$sentences" "$seed" de_DE-en_XX --init "$start" \
                    --recipe "$recipe" "${LONG[@]}" --train-examples "$sentences"
            done
        done
    done
}

# both_new SEED FOLDER: the parent with a German source and a Spanish target, both fresh.
both_new() {
    python -m tools.new_language fresh "$PARENT" "$2-half" --source de_DE --pairs de_DE-es_XX \
        --seed "$1" --overwrite &&
        python -m tools.new_language fresh "$2-half" "$2" --target es_XX --pairs de_DE-es_XX \
            --seed "$1" --overwrite &&
        touch "results/both-start-s$1.done"
}

# german SEED FOLDER: the parent with a German source, from which all points of the curve start.
german() {
    python -m tools.new_language fresh "$PARENT" "$2" --source de_DE --pairs de_DE-en_XX \
        --seed "$1" --overwrite &&
        touch "results/curve-start-s$1.done"
}

# ------------------------------------------------------------------------------------ all of it
for part in $PARTS; do
    [ "$part" = 4 ] || finish  # part 4 runs beside part 3
    [ "$part" = 1 ] || rates
    "part_$part"
done
finish
python -m papers.report
echo "$(date +%H:%M:%S) parts $PARTS, after $((SECONDS / 60)) minutes"
