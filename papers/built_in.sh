# Parts 1 to 8 of reproduce.sh: the three papers on the built-in corpus.

# score FILE MODEL "PAIRS": summaries of 100 test documents a pair.
score() { summaries "$@" --examples 100; }

# row NAME SEED "PAIRS" [options of train.py]: trains runs/paper/NAME-sSEED and scores it on PAIRS.
row() { job "results/$1-s$2.json" train_and score "$@"; }

# translated FILE MODEL "PAIRS", teach NAME SEED PAIR [options of train.py]: the same for
# translation.
translated() {
    local pairs
    read -ra pairs <<< "$3"
    evaluate --model "$2" --stage translate --examples 100 --samples 0 --json "$1" \
        --pairs "${pairs[@]}"
}
teach() {
    train --stage translate --seed "$2" --pairs "$3" --no-eval --overwrite \
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

rates() {
    [ -n "${QK:-}" ] && return
    FULL=$(best_rate rate-full 1)
    QK=$(best_rate rate-qk 1)
    echo "learning rates by English validation loss: full $FULL, qk $QK"
}

# --------------------------------------------------------------------------------------- part 1
# What does full finetuning on English lose of the other languages, and does qk keep it? Both at
# every rate of the same grid (the first seed). The best rate of each is that of the lowest
# validation loss on English; the test scores of all rates are shown.
RATES="5e-4 1e-3 2e-3 4e-3 8e-3"
part_1() {
    local rate seed
    heading 1 "full and qk on English, every learning rate of the grid"
    for rate in $RATES; do
        row "rate-full-$rate" "$FIRST" "$WITHIN" --recipe full --lr "$rate"
        row "rate-qk-$rate" "$FIRST" "$WITHIN" --recipe qk --lr "$rate"
    done
    finish
    rates
    for seed in $MORE_SEEDS; do
        row "rate-full-$QK" "$seed" "$WITHIN" --recipe full --lr "$QK"
        row "rate-full-$FULL" "$seed" "$WITHIN" --recipe full --lr "$FULL"
        row "rate-qk-$QK" "$seed" "$WITHIN" --recipe qk --lr "$QK"
        # 1,000 validation documents in place of 32 would choose this rate for qk (LOG.md).
        row rate-full-2e-3 "$seed" "$WITHIN" --recipe full --lr 2e-3
        row rate-qk-2e-3 "$seed" "$WITHIN" --recipe qk --lr 2e-3
    done
}

# --------------------------------------------------------------------------------------- part 2
# Which tensors may train? The other recipes at qk's rate (the paper's XL-Sum table; full and qk are
# there already), and each at its own best rate of part 1's grid; and how the scores move while
# English is learned.
OTHER_RECIPES="full+embeddings frozen_decoder attn_ln vqk q"
part_2() {
    local recipe rate best seed
    rates
    heading 2 "the other recipes on English, and how zero-shot scores move while it is learned"
    for seed in $SEEDS; do
        for recipe in $OTHER_RECIPES; do
            row "$recipe" "$seed" "$WITHIN" --recipe "$recipe" --lr "$QK"
        done
    done
    for recipe in $OTHER_RECIPES; do
        for rate in $RATES; do
            row "own-$recipe-$rate" "$FIRST" "$WITHIN" --recipe "$recipe" --lr "$rate"
        done
    done
    finish
    for recipe in $OTHER_RECIPES; do
        best=$(best_rate "own-$recipe" 2)
        if [ "$best" = "$QK" ]; then continue; fi  # the rows above are at this rate
        for seed in $SEEDS; do
            row "own-$recipe-$best" "$seed" "$WITHIN" --recipe "$recipe" --lr "$best"
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
    train --stage summarize --recipe "$1" --lr "$2" --eval-every 50 --keep last \
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
    train --stage translate --langs en_XX es_XX ru_RU tr_TR --no-eval --overwrite \
        --out runs/paper/translate &&
        evaluate --model runs/paper/translate --samples 0 --json results/translate.json \
            --pairs en_XX-es_XX es_XX-en_XX ru_RU-en_XX en_XX-tr_TR
}

# --------------------------------------------------------------------------------------- part 4
# What do a few Spanish examples add? All layers train, on top of either zero-shot model, for 12, 6,
# 4 and 2 epochs of 10, 100, 1000 and 10000 examples, and the last model counts (as published). A
# batch of 1600 tokens holds about 26 documents with their headlines (measured on 60 batches:
# 25.7), 10 documents are one batch and 100 four, so these epochs are 12, 24, 154 and 769 updates.
part_4() {
    rates
    heading 4 "a few Spanish examples on top"
    few 10 12 1
    few 100 24 3
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
    rates
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
        # Is it the rate alone? The same two at the one that English validation chooses for full.
        row joint-full-best "$seed" "$ACROSS" "${JOINT[@]}" --recipe full --lr "$FULL"
        two_step two-step-full-best "$seed" --recipe full --lr "$FULL"
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
    rates
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
            NEEDS="7:$child" job "$file" python -m papers.dictionary "$child" de_DE "$PARENT" \
                fr_XX src --json "$file"
            # What is forgotten: the parent's French embeddings back in the child's body.
            file=results/child-src$what+parent-s$seed.json
            NEEDS="7:$child" job "$file" grafted "$file" "$child" "$PARENT" fr_XX-en_XX
        done
        # Stitched: the German embeddings of one child in the body of the French -> Spanish child.
        file=results/stitched-s$seed.json
        child=runs/paper/child-spanish-s$seed
        NEEDS="7:$child 7:runs/paper/child-src+xattn-s$seed" job "$file" grafted "$file" "$child" \
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
# Does it help transfer when translations meet in a middle layer? Alignment in encoder layer 3 of 6,
# of Spanish and of Russian sentences with English ones: beside the task, as LoRA (without dropout,
# as everything here), and trained apart and merged.
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
            NEEDS="8:runs/paper/lora-task-s$seed 8:runs/paper/lora-align-s$seed" \
                job "results/lora-merged-$weight-s$seed.json" merged "$seed" "$weight"
        done
    done
    finish
    retrieve base 0 base
    for seed in $SEEDS; do
        for name in joint-full joint-align lora-task lora-align lora-joint lora-merged-0.5; do
            NEEDS="8:runs/paper/$name-s$seed" retrieve "$name" "$seed" "runs/paper/$name-s$seed"
        done
    done
}

align_apart() {
    train --stage align --align-layer 3 "${JOINT[@]}" --recipe lora "${LORA[@]}" \
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
