"""The files of a model folder (config.json, weights) and of a run (log.csv, state.pt), read with every check and
written under a temporary name first, so that nothing is lost.

Weights are safetensors or, for older folders, a pickle that is only read as plain tensors (weights_only). Values that
a config.json leaves out are what transformers would assume for them; keys that the model does not use are kept.
"""
import csv
import json
import os
import warnings
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError

TIED = ("lm_head.weight", "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight")
ACTIVATIONS = ("gelu", "relu")


class UserError(ValueError):
    """A mistake that the user can mend: the message says what is wrong, where, and what to do. Scripts print it
    without a traceback and exit with code 2."""


@dataclass
class Config:
    """The keys of config.json that the model reads. The defaults are mbart-large-cc25's published values."""
    vocab_size: int = 250027
    d_model: int = 1024
    encoder_layers: int = 12
    decoder_layers: int = 12
    encoder_attention_heads: int = 16
    decoder_attention_heads: int = 16
    encoder_ffn_dim: int = 4096
    decoder_ffn_dim: int = 4096
    max_position_embeddings: int = 1024
    activation_function: str = "gelu"
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.0
    init_std: float = 0.02
    scale_embedding: bool = True
    bos_token_id: int = 0
    pad_token_id: int = 1
    eos_token_id: int = 2
    decoder_start_token_id: int | None = None  # mBART-50: </s>; mBART-25: none (starts with LANG)
    source_vocab_size: int | None = None  # ours: an untied embedding of this many rows for the encoder's input
    residual_drop_layer: int = 0  # ours: this encoder layer (from 1) has no self-attention residual; 0: none
    extra: dict = field(default_factory=dict)  # all other keys of config.json, kept as they are

    # What transformers' MBartConfig assumes for keys that a config.json leaves out, where it is not the value above.
    ABSENT = {"vocab_size": 50265, "scale_embedding": False, "attention_dropout": 0.0}
    WRITTEN = {"model_type": "mbart", "architectures": ["MBartForConditionalGeneration"], "is_encoder_decoder": True,
               "tie_word_embeddings": True, "normalize_before": True, "normalize_embedding": True,
               "add_final_layer_norm": True}

    @classmethod
    def read(cls, path):
        """config.json -> Config; UserError if it is missing, not JSON or not an mBART's."""
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"{path}: not found; a model folder holds config.json and its weights") from None
        except ValueError as error:
            raise UserError(f"{path}: not valid JSON ({error})") from None
        if not isinstance(values, dict) or values.get("model_type", "mbart") != "mbart":
            raise UserError(f"{path}: model_type is not mbart; only mBART folders can be read")
        own = {f.name: f.type for f in fields(cls) if f.name != "extra"}
        config = cls(**cls.ABSENT | {k: v for k, v in values.items() if k in own},
                     extra={k: v for k, v in values.items() if k not in own})
        for name, kind in own.items():
            value = getattr(config, name)
            if kind is float and isinstance(value, int):
                value = float(value)
            wrong = not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or value < 0))
            if wrong:
                raise UserError(f"{path}: {name} is {value!r}, expected {getattr(kind, '__name__', kind)}")
        config.check(path)
        return config

    def check(self, where="config"):
        if self.activation_function not in ACTIVATIONS:
            raise UserError(f"{where}: activation_function {self.activation_function!r} is not one of "
                            f"{', '.join(ACTIVATIONS)}")
        for side in ("encoder", "decoder"):
            heads = getattr(self, f"{side}_attention_heads")
            if not heads or self.d_model % heads:
                raise UserError(f"{where}: d_model {self.d_model} is not a multiple of {side}_attention_heads {heads}")

    def write(self, path):
        values = {k: v for k, v in asdict(self).items() if k != "extra"}
        if self.source_vocab_size is None:
            del values["source_vocab_size"]
        if not self.residual_drop_layer:
            del values["residual_drop_layer"]
        write_text(path, json.dumps(self.extra | self.WRITTEN | values, indent=2) + "\n")


def write_text(path, text):
    """Under a temporary name first: a reader never finds half a file."""
    with saving(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")


def read_tensors(folder):
    """{name: tensor} of a model folder, and the path to name in errors. Nothing is unpickled but plain tensors."""
    for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin",
                 "pytorch_model.bin.index.json"):
        if (path := folder / name).is_file():
            break
    else:
        raise UserError(f"{folder}: no weights; expected model.safetensors or pytorch_model.bin (or their .index.json)")
    parts = [path]
    if path.suffix == ".json":
        try:
            parts = [folder / part for part in sorted(set(json.loads(path.read_text())["weight_map"].values()))]
        except (ValueError, KeyError, AttributeError) as error:
            raise UserError(f"{path}: not a shard index ({error})") from None
    tensors = {}
    for part in parts:
        if not part.is_file():
            raise UserError(f"{part}: not found, but {path.name} names it; copy the missing shard")
        try:
            if part.suffix == ".safetensors":
                tensors |= read_safetensors(part)[0]
            else:
                with warnings.catch_warnings():  # about the pickle's version: a file that matters fails by itself
                    warnings.simplefilter("ignore")
                    tensors |= torch.load(part, map_location="cpu", weights_only=True)
        except UserError:
            raise
        except Exception as error:  # a broken or hostile pickle raises many kinds
            raise UserError(f"{part}: cannot be read safely as tensors ({str(error).splitlines()[0][:100]}); copy it "
                            "again, or convert it to safetensors") from None
    return tensors, path


def read_fitting(folder, expected):
    """{name: tensor} of a model folder with the names and shapes of `expected`. Tied names that the file repeats, and a
    bias that it lacks, are put right; UserError names the file and the first tensor that does not fit."""
    tensors, where = read_tensors(folder)
    shared = tensors.get("model.shared.weight")
    if shared is None:  # some checkpoints carry only one of the tied names
        shared = next((tensors[name] for name in TIED if name in tensors), None)
        tensors |= {} if shared is None else {"model.shared.weight": shared}
    for name in TIED:
        if name in tensors and name not in expected:
            tied = tensors.pop(name)
            if tied is not shared and not (tied.shape == shared.shape and torch.equal(tied, shared)):
                raise UserError(f"{where}: {name} differs from model.shared.weight, but mBART ties them; the file is "
                                "not a plain mBART checkpoint")
    tensors.setdefault("final_logits_bias", torch.zeros(expected["final_logits_bias"].shape))
    if missing := [name for name in expected if name not in tensors]:
        raise UserError(f"{where}: lacks {missing[0]} and {len(missing) - 1} other tensors that config.json asks for")
    if unknown := [name for name in tensors if name not in expected]:
        raise UserError(f"{where}: has {unknown[0]} and {len(unknown) - 1} other tensors that an mBART of this "
                        "config.json does not have")
    for name, parameter in expected.items():
        if tensors[name].shape != parameter.shape:
            raise UserError(f"{where}: {name} has shape {tuple(tensors[name].shape)}, but config.json makes it "
                            f"{tuple(parameter.shape)}")
    return tensors


def read_safetensors(path):
    """{name: tensor} and {key: text} of a safetensors file; UserError if it is missing or damaged."""
    try:
        tensors = safetensors.torch.load_file(path)
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged or cut short ({error}); copy it again") from None
    if metadata.get("crc32") not in (None, checksum(tensors)):  # None: not written by us
        raise UserError(f"{path}: its bytes have changed since it was written (wrong checksum); copy it again, or "
                        "train again with --overwrite")
    return tensors, metadata


def checksum(tensors):
    """CRC-32 over the bytes of {name: tensor}, by name: a safetensors file has none of its own."""
    value = 0
    for name in sorted(tensors):
        value = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy().data, zlib.crc32(name.encode(), value))
    return f"{value:08x}"


def write_tensors(tensors, path, **metadata):
    """Writes {name: tensor} as safetensors with a checksum and more metadata, under a temporary name first."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with saving(path) as temporary:
        metadata |= {"format": "pt", "crc32": checksum(tensors)}
        safetensors.torch.save_file(tensors, temporary, metadata=metadata)
        os.chmod(temporary, 0o644)


@contextmanager
def saving(path):
    """The temporary name to write to; renamed to `path` if all went well. A full disk or a missing permission is a
    UserError, and what stood at `path` stays whole."""
    temporary = f"{path}.tmp"
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())  # a power cut must not leave a renamed file without its bytes
        os.replace(temporary, path)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch and safetensors wrap the system's error
        try:
            os.remove(temporary)
        except OSError:
            pass
        raise UserError(f"{path}: could not be written ({str(error).splitlines()[0][:120]}); make room or mend the "
                        "permissions. What was saved there before is whole") from None


@contextmanager
def only_run_in(folder):
    """Holds a folder for one training run; the system lets go when the process ends, however it ends."""
    import fcntl
    Path(folder).mkdir(parents=True, exist_ok=True)
    with open(Path(folder) / ".lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(f"{folder}: another run is training into this folder; wait for it, or name another with "
                            "--out") from None
        try:
            yield
        finally:
            if [path.name for path in Path(folder).iterdir()] == [".lock"]:  # a run that did not begin leaves nothing
                os.remove(Path(folder) / ".lock")
                os.rmdir(folder)


class Log:
    """log.csv of a run: one line a validation; a resumed run drops the lines after its checkpoint."""

    FIELDS = ("step", "loss", "validation loss", "tokens/s", "learning rate")

    def __init__(self, path, step=0):
        self.path, self.rows = path, []
        if step and path.exists():
            with open(path, newline="") as file:
                self.rows = [row for row in list(csv.reader(file))[1:] if int(row[0]) <= step]

    def write(self, *row):
        self.rows.append(row)
        with saving(self.path) as temporary, open(temporary, "w", newline="") as file:
            csv.writer(file).writerows([self.FIELDS, *self.rows])


def write_state(state, path):
    """Everything that a resume needs beside the folder's model, as one file."""
    with saving(path) as temporary:
        torch.save(state, temporary)


def read_state(path, device):
    try:
        with zipfile.ZipFile(path) as archive:  # torch reads on over a flipped bit; the archive's checksums do not
            if (changed := archive.testzip()) is not None:
                raise ValueError(f"checksum of {changed}")
        return torch.load(path, map_location=device, weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: not found; the run was stopped before its first checkpoint: start it again with "
                        "--overwrite") from None
    except Exception as error:  # a damaged archive raises many kinds
        raise UserError(f"{path}: damaged ({str(error).splitlines()[0][:100]}); the last best model in {path.parent} "
                        "is whole: use it with --init") from None
