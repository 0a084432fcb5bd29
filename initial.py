"""What a run starts from: a folder's model, one with a new language, or a small random one for pretraining."""
from itertools import islice
from pathlib import Path

import torch
import torch.distributed as dist

from corpora.facts import BASE_LANGUAGES, Corpus
from corpora.sets import open_data, texts_of
from model import Config, MBart
from options import language_pairs
from plumbing.files import UserError
from tokenizer import MBART25, Tokenizer, train_sentencepiece
from tools.new_language import new_language
from tools.trim import trim

TINY_MODEL = {"d_model": 128, "encoder_layers": 3, "decoder_layers": 3, "encoder_attention_heads": 4,
              "decoder_attention_heads": 4, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512,
              "max_position_embeddings": 256}
TINY_PIECES = 3000
ROMANCE_GERMAN_LETTERS = "äöüßÄÖÜàâçèéêëîïôùûœæÀÂÇÈÉÊËÎÏÔÙÛŒ'"  # fr and de come later: their letters get pieces now


def initial_model(args, world):
    """(model, tokenizer): of --init, with a new language's embeddings if asked, or small and random for pretraining."""
    if args.init:
        model, tokenizer = MBart.from_pretrained(args.init), Tokenizer.from_pretrained(args.init)
        if args.trim_vocab and not args.resume:
            if world > 1:
                raise UserError("--trim-vocab works in one process: run `python -m tools.trim` first and give its folder to "
                                "--init")
            texts = texts_of(args.data, args.stage, language_pairs(args), tokenizer.languages, args.seed,
                             skip=args.skip_bad_lines)
            trimmed = trim(model, tokenizer, texts, args.out)
            model, tokenizer = trimmed.model, trimmed.tokenizer
            print(f"vocabulary trimmed to {len(trimmed.old_ids):,} tokens", flush=True)
        if (args.new_source or args.new_target) and not args.resume:
            model, tokenizer = renewed(args, model, tokenizer, world)
        return model, tokenizer
    path = Path(args.out) / "sentencepiece.bpe.model"
    if world == 1 or dist.get_rank() == 0:
        print(f"learning a vocabulary of up to {TINY_PIECES} pieces", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        corpus = Corpus(BASE_LANGUAGES)
        sentences = (sentence for index in range(4000) for lang in BASE_LANGUAGES
                     for sentence in corpus.sentences(corpus.document(index, "train", args.seed), lang))
        if args.data != "builtin":
            texts = texts_of(args.data, args.stage, language_pairs(args), MBART25, args.seed, skip=args.skip_bad_lines)
            sentences = islice(texts, 20_000)
        train_sentencepiece(sentences, path, TINY_PIECES, ROMANCE_GERMAN_LETTERS, args.seed)
    if world > 1:
        dist.barrier()
    tokenizer = Tokenizer(path, "mbart25")
    torch.manual_seed(args.seed)
    model = MBart(Config(vocab_size=tokenizer.vocab_size, **TINY_MODEL))
    with torch.no_grad():  # tags that start nearly alike do not push the languages' states apart from the first step
        tags = list(tokenizer.tag.values())
        shared = model.model.shared.weight
        shared[tags] = shared[tags[0]] + 0.1 * shared[tags]
    return model, tokenizer


def renewed(args, model, tokenizer, world):
    """The parent model and its tokenizer with one side new: a vocabulary learned from the training data's text in that
    language, and fresh embeddings for it (Gheini et al. 2021)."""
    side, lang = (0, args.new_source) if args.new_source else (1, args.new_target)
    path = Path(args.out) / f"{lang}.sentencepiece.bpe.model"
    if world == 1 or dist.get_rank() == 0:
        pairs = [pair for pair in language_pairs(args) if pair[side] == lang]
        if not pairs:
            raise UserError(f"no training pair has {lang} as its {('source', 'target')[side]}; name one with --pairs")
        print(f"learning a vocabulary of up to {args.new_pieces} pieces for {lang}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = open_data(args.data, args.stage, "train", pairs, tokenizer.languages, args.seed, args.skip_bad_lines)
        train_sentencepiece((data.text(pair, i)[side] for pair, size in data.sizes.items()
                             for i in range(min(size or 20_000, 20_000))), path, args.new_pieces, seed=args.seed)
    if world > 1:
        dist.barrier()
    if args.new_source:
        tokenizer = Tokenizer(tokenizer.model_file, tokenizer.layout, Tokenizer(path, tokenizer.layout))
    else:
        tokenizer = Tokenizer(path, tokenizer.layout, tokenizer.source)
    new = tokenizer.source if args.new_source else tokenizer
    return new_language(model, "src" if args.new_source else "tgt", new.vocab_size, seed=args.seed), tokenizer
