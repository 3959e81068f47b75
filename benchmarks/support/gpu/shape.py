"""A model of a known shape without weights: a folder that vLLM serves with ``dummy`` weights."""

import json
from dataclasses import dataclass
from pathlib import Path

MAX_MODEL_LEN = 8192
END = "w0"


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a Llama decides the time of a step."""

    name: str
    hidden: int
    intermediate: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    vocab: int


LLAMA_3_8B = Shape("llama-3-8b-shape", 4096, 14336, 32, 32, 8, 128_256)
TINY = Shape("tiny-llama-shape", 128, 256, 2, 2, 1, 49_152)


def written(shape: Shape, folder: Path) -> Path:
    """Write the model, with a tokenizer of one word for each token: text has exact lengths."""
    target = folder / shape.name
    target.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "vocab_size": shape.vocab,
        "max_position_embeddings": MAX_MODEL_LEN,
        "rope_theta": 500_000.0,
        "rms_norm_eps": 1e-5,
        "hidden_act": "silu",
        "tie_word_embeddings": False,
        "eos_token_id": 0,
        "torch_dtype": "bfloat16",
    }
    (target / "config.json").write_text(json.dumps(config))
    write_tokenizer(shape.vocab, target)
    return target


def write_tokenizer(num_words: int, folder: Path) -> None:
    """A tokenizer whose token n is the word "wn"."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = WordLevel({f"w{i}": i for i in range(num_words)}, unk_token=END)
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END).save_pretrained(folder)
