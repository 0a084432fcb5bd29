"""Tensors on disk: read without unpickling anything else, checked by name and shape, and written
with a checksum.
"""
import json
import os
import warnings
import zlib

import safetensors
import safetensors.torch
import torch
from safetensors import SafetensorError

from plumbing.files import UserError, first_line, is_full_memory, refuse_pointer, saving
from plumbing.models import parts_of, weights_file
from plumbing.progress import bytes_bar

# Tensors are mapped from their file. Windows refuses to replace such a file, and a run that goes on
# replaces the model that it was read from.
MAPPED_FILES_CAN_BE_REPLACED = os.name != "nt"


def read_tensors(folder):
    """{name: tensor} of a model folder, and the path to name in errors. Nothing is unpickled but
    plain tensors."""
    path = weights_file(folder)
    tensors = {}
    for part in parts_of(path):
        if not part.is_file():
            raise UserError(f"{part}: not found, but {path.name} names it; copy the missing shard")
        if part.suffix == ".safetensors":
            tensors |= read_safetensors(part)[0]
        else:
            tensors |= read_pickle(part)
    return tensors, path


def read_pickle(path):
    """{name: tensor} of a file that torch.save wrote; anything but plain tensors is refused."""
    refuse_pointer(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about its version: a bad file fails by itself
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a broken or hostile pickle raises many kinds
        refuse_full_memory(path, error)
        raise UserError(
            f"{path}: cannot be read safely as tensors ({first_line(error, 100)}); copy it again, "
            "or convert it to safetensors"
        ) from None
    if not isinstance(tensors, dict) or not all(map(torch.is_tensor, tensors.values())):
        raise UserError(
            f"{path}: not a table of tensors by name; save the model's state_dict() alone"
        )
    return tensors


def read_safetensors(path):
    """{name: tensor} and {key: text} of a safetensors file; UserError if it is missing or
    damaged."""
    refuse_pointer(path)
    try:
        tensors = safetensors.torch.load_file(path)
        if not MAPPED_FILES_CAN_BE_REPLACED:
            tensors = {name: tensor.clone() for name, tensor in tensors.items()}
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"{path}: not found") from None
    except (SafetensorError, OSError, MemoryError) as error:
        refuse_full_memory(path, error)
        raise UserError(f"{path}: damaged or cut short ({error}); copy it again") from None
    written = metadata.get("crc32")
    if written is not None and written != checksum(tensors):  # None: not written by us
        raise UserError(
            f"{path}: its bytes have changed since it was written (wrong checksum); copy it again, "
            "or train again with --overwrite"
        )
    return tensors, metadata


def refuse_full_memory(path, error):
    """UserError if a file could not be read for want of memory: there is nothing wrong with it."""
    if is_full_memory(error):
        raise UserError(
            f"{path}: there is not enough memory to read it ({first_line(error, 100)}); end other "
            "programs, or take a smaller model"
        ) from None


def write_tensors(tensors, path, **metadata):
    """Writes {name: tensor} as safetensors with a checksum and more metadata (texts)."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": "pt", "crc32": checksum(tensors)} | metadata
    with saving(path) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata=metadata)
        order_metadata(temporary, metadata)
        os.chmod(temporary, 0o644)


def order_metadata(path, metadata):
    """Puts the metadata of a safetensors file into the order of {key: text}.

    The library's own order is another at every write, but the same content should make the same
    file: a base is known by its file's bytes (runs.origin_of)."""
    with open(path, "rb+") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = metadata
        content = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        if len(content) <= size:  # it takes the old header's place; the rest is spaces
            file.seek(8)
            file.write(content.ljust(size))


def checksum(tensors):
    """CRC-32 over the bytes of {name: tensor}, by name: a safetensors file has none of its own."""
    value = 0
    size = sum(tensor.nbytes for tensor in tensors.values())
    with bytes_bar(size, "checking weights") as bar:
        for name in sorted(tensors):
            content = tensors[name].cpu().reshape(-1).view(torch.uint8).numpy().data
            value = zlib.crc32(name.encode(), value)
            value = zlib.crc32(content, value)
            bar.update(len(content))
    return f"{value:08x}"


def check_shapes(tensors, expected, where):
    """UserError if the names or shapes of {name: tensor} are not those of `expected`.

    It names the file `where` and the first fault."""
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise UserError(
            f"{where}: lacks {missing[0]} and {len(missing) - 1} other tensors that config.json "
            "asks for"
        )
    unknown = [name for name in tensors if name not in expected]
    if unknown:
        raise UserError(
            f"{where}: has {unknown[0]} and {len(unknown) - 1} other tensors that an mBART of this "
            "config.json does not have"
        )
    for name, parameter in expected.items():
        if tensors[name].shape != parameter.shape:
            raise UserError(
                f"{where}: {name} has shape {tuple(tensors[name].shape)}, but config.json makes it "
                f"{tuple(parameter.shape)}"
            )


def check_numbers(tensors, where):
    """UserError if {name: tensor} holds other types than floats of 16 bits or more, NaN, or an
    infinite number."""
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_meta:
            raise UserError(
                f"{where}: {name} is a sparse tensor, or one without its numbers; save the model's "
                "state_dict() with its tensors whole, in main memory"
            )
        if not tensor.is_floating_point() or tensor.itemsize == 1:  # some floats have 8 bits
            kind = str(tensor.dtype).removeprefix("torch.")
            raise UserError(
                f"{where}: {name} is {kind}, as in quantized checkpoints; only floating-point "
                "weights of 16 bits or more can be read"
            )
        # The largest and the smallest number tell, and need no memory; NaN passes through both.
        if tensor.numel() and not all(map(torch.isfinite, tensor.aminmax())):
            raise UserError(
                f"{where}: {name} holds NaN or infinite numbers; take an earlier checkpoint"
            )
