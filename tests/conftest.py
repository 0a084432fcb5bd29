"""Fixtures that several test files share; the repository root is put on the import path."""
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


@pytest.fixture
def run():
    """run("train.py", "--stage", ...) -> the finished process, its output as text."""
    def call(*args, **kwargs):
        return subprocess.run([sys.executable, *map(str, args)], cwd=kwargs.pop("cwd", ROOT), text=True,
                              capture_output=True, timeout=300, **kwargs)
    return call


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """A folder with a very small random mBART and the base's tokenizer: seconds, not minutes."""
    import torch

    from model import Config, MBart
    from tokenizer import Tokenizer
    folder = tmp_path_factory.mktemp("small")
    tokenizer = Tokenizer.from_pretrained(ROOT / "base")
    torch.manual_seed(0)
    MBart(Config(vocab_size=tokenizer.vocab_size, d_model=32, encoder_layers=2, decoder_layers=2,
                 encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64,
                 max_position_embeddings=256)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
