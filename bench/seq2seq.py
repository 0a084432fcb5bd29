"""Train an mBART folder on pairs of texts as users of transformers do: Seq2SeqTrainer, one pass.

    python -m bench.seq2seq MODEL DATA OUT --batch 16 --workers 2
    python -m bench.seq2seq MODEL DATA OUT --trains 'encoder_attn\\.[qk]_proj'

The peer of `train.py` in bench.pipeline, with the settings that make it fast on a CPU: SDPA, fused
AdamW, examples grouped by length, no logs and no checkpoints on the way. DATA has train.jsonl and
valid.jsonl, an object a line with source, target, source_lang and target_lang, the same languages
on every line. MODEL has a tokenizer that transformers opens.

Prints one line of JSON: updates, passes (epochs), tokens (source and target, no padding), seconds
from the first update's start to the last one's end, the validation loss before and after.
"""
import json
import re
import time
from pathlib import Path

from bench.peers import peer
from corpora.lines import OUR_FIELDS, decoded, json_object, open_lines, read_lines
from plumbing.files import UserError, parser_of, run
from plumbing.models import weights_file
from plumbing.options import COUNT, POSITIVE, number


def new_clock():
    """When the first update began and the last one ended: a callback of transformers' Trainer."""

    class Clock(peer("transformers").TrainerCallback):
        start = None
        end = None

        def on_step_begin(self, args, state, control, **_):
            if self.start is None:
                self.start = time.perf_counter()

        def on_step_end(self, args, state, control, **_):
            self.end = time.perf_counter()

    return Clock()


def rows_of(path):
    """Yields the objects of a .jsonl file; UserError for a line that is none, or lacks a text."""
    with open_lines(path) as file:
        for line in read_lines(path, file):
            try:
                row = json_object(decoded(line.content), OUR_FIELDS.names())
            except UserError as error:
                raise UserError(f"{path}:{line.number}: {error}; mend or remove the line") from None
            yield row


def examples_of(path, tokenizer, longest):
    """The lines of a file as ids, which most users prepare before training, too."""
    examples = []
    for row in rows_of(path):
        tokenizer.src_lang = row["source_lang"]
        tokenizer.tgt_lang = row["target_lang"]
        ids = tokenizer(
            row["source"], text_target=row["target"], max_length=longest, truncation=True
        )
        examples.append(dict(ids))
    return examples


def arguments(args):
    return peer("transformers").Seq2SeqTrainingArguments(
        output_dir=args.out,
        num_train_epochs=1,
        per_device_train_batch_size=args.batch,
        per_device_eval_batch_size=args.batch,
        learning_rate=args.lr,
        optim="adamw_torch_fused",
        train_sampling_strategy="group_by_length",
        dataloader_num_workers=args.workers,
        dataloader_pin_memory=False,
        prediction_loss_only=True,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )


def make_parser():
    parser = parser_of(__doc__)
    add = parser.add_argument
    add("model", help="the folder of an mBART and its tokenizer")
    add("data", type=Path, help="the folder of train.jsonl and valid.jsonl")
    add("out", help="the folder to write")
    add("--trains", default="", metavar="REGEX", help="names of parameters (default: all)")
    add("--batch", type=COUNT, default=8, help="examples in a batch (default 8)")
    add("--workers", type=number(int, 0), default=0, help="that make batches (default 0: none)")
    add("--lr", type=POSITIVE, default=1e-4, help="the first learning rate (default 1e-4)")
    return parser


def check(args):
    """UserError for arguments that no training can start from, before a model is loaded."""
    weights_file(args.model)
    for name in ("train.jsonl", "valid.jsonl"):
        for _ in rows_of(args.data / name):
            pass
    try:
        re.compile(args.trains)
    except (re.error, OverflowError) as error:
        raise UserError(f"--trains {args.trains!r} is no regular expression ({error})") from None
    peer("accelerate")  # which the Trainer wants


def choose(model, expression):
    """Leaves those parameters to train in whose names the expression is found."""
    found = 0
    for name, parameter in model.named_parameters():
        parameter.requires_grad = re.search(expression, name) is not None
        found += parameter.requires_grad
    if not found:
        raise UserError(f"--trains {expression!r} is found in no parameter's name; mend it")


def main(argv=None):
    args = make_parser().parse_args(argv)
    transformers = peer("transformers")
    check(args)
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    model = transformers.MBartForConditionalGeneration.from_pretrained(
        args.model, attn_implementation="sdpa"
    )
    choose(model, args.trains)
    longest = model.config.max_position_embeddings
    examples = examples_of(args.data / "train.jsonl", tokenizer, longest)
    clock = new_clock()
    trainer = transformers.Seq2SeqTrainer(
        model=model,
        args=arguments(args),
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer, model=model),
        train_dataset=examples,
        eval_dataset=examples_of(args.data / "valid.jsonl", tokenizer, longest),
        processing_class=tokenizer,
        callbacks=[clock],
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    after = trainer.evaluate()["eval_loss"]
    trainer.save_model()
    found = {
        "updates": trainer.state.global_step,
        "passes": trainer.state.epoch,
        "tokens": sum(len(row["input_ids"]) + len(row["labels"]) for row in examples),
        "seconds": clock.end - clock.start,
        "before": before,
        "after": after,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    run(main)
