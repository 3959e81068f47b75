"""Folders of small models with random weights: their logits lie far apart, so tokens tell."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

HIDDEN, LAYERS, HEADS, VOCABULARY = 128, 4, 4, 1000
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
LORA_RANK = 8

_SHAPE: dict[str, Any] = {
    "hidden_size": HIDDEN,
    "intermediate_size": 2 * HIDDEN,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "initializer_range": 0.3,  # the usual 0.02 gives near-ties
}


def llama(folder: Path, **shape: Any) -> None:
    """A Llama of four layers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    _save(folder, LlamaForCausalLM, LlamaConfig(**_SHAPE | shape))


def with_tokenizer(folder: Path, tokenizer: Path) -> None:
    """A Llama that speaks the tokens of a real model."""
    llama(folder, vocab_size=49152)
    for name in TOKENIZER:
        shutil.copy(tokenizer / name, folder / name)


def draft(folder: Path) -> None:
    """What drafts for ``llama``: its own weights, less two layers."""
    llama(folder, num_hidden_layers=LAYERS // 2)


def sliding_window(folder: Path) -> None:
    """A Gemma 3: every other layer sees 64 tokens, so there are two groups of KV caches."""
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    kinds = ["sliding_attention", "full_attention"] * (LAYERS // 2)
    shape = _SHAPE | {"sliding_window": 64, "layer_types": kinds, "head_dim": HIDDEN // HEADS}
    _save(folder, Gemma3ForCausalLM, Gemma3TextConfig(**shape))


def encoder_decoder(folder: Path) -> None:
    """A configuration of Whisper."""
    from transformers import WhisperConfig

    config = WhisperConfig(d_model=64, encoder_layers=2, decoder_layers=2)
    config.architectures = ["WhisperForConditionalGeneration"]
    config.save_pretrained(folder)


def bidirectional(folder: Path) -> None:
    """A configuration of BERT."""
    from transformers import BertConfig

    shape: dict[str, Any] = {
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": HEADS,
    }
    config = BertConfig(**shape, intermediate_size=128)
    config.architectures = ["BertModel"]
    config.save_pretrained(folder)


def adapter(folder: Path, seed: int) -> None:
    """A LoRA adapter of random weights for ``llama``."""
    import torch
    from safetensors.torch import save_file

    random = torch.Generator().manual_seed(seed)
    weights = {}
    for layer in range(LAYERS):
        for name in ("q_proj", "v_proj"):
            prefix = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            for part, shape in (("A", (LORA_RANK, HIDDEN)), ("B", (HIDDEN, LORA_RANK))):
                weights[f"{prefix}.lora_{part}.weight"] = 0.2 * torch.randn(shape, generator=random)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "adapter_model.safetensors")
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": LORA_RANK,
        "lora_alpha": 16,
        "target_modules": ["q_proj", "v_proj"],
        "bias": "none",
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))


def make_all(root: Path, tokenizer: Path) -> dict[str, str]:
    """Every model, by the name that rows call it."""
    makers: dict[str, Callable[[Path], None]] = {
        "llama": llama,
        "llama with tokenizer": lambda folder: with_tokenizer(folder, tokenizer),
        "draft": draft,
        "gemma": sliding_window,
        "whisper": encoder_decoder,
        "bert": bidirectional,
        "adapter 1": lambda folder: adapter(folder, 1),
        "adapter 2": lambda folder: adapter(folder, 2),
    }
    folders = {}
    for name, make in makers.items():
        folders[name] = str(root / name.replace(" ", "-"))
        make(Path(folders[name]))
    return folders


def _save(folder: Path, model_class: Any, config: Any) -> None:
    import torch

    torch.manual_seed(0)
    model_class(config).to(torch.float32).save_pretrained(folder)
