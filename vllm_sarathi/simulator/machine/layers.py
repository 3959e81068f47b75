"""The shape of a decoder-only model: parameters, FLOPs and KV cache follow from it.

Left out are norms, biases and learned positions: less than 0.1 % of the parameters.
"""

from dataclasses import dataclass, replace

BYTES = 2  # of a bfloat16 weight, activation or cache entry


@dataclass(frozen=True, slots=True)
class Attention:
    """Multi-head, grouped-query or multi-query attention.

    Args:
        window: tokens that a token sees, itself included; None sees all before it.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    window: int | None = None

    def params(self, hidden: int, tensor_parallel: int = 1) -> int:
        """Weights on one GPU. KV heads are copied where there are more GPUs than heads."""
        kv_heads = max(1, self.num_kv_heads // tensor_parallel)
        return hidden * self.head_dim * (2 * self.num_heads // tensor_parallel + 2 * kv_heads)

    def kv_values(self, tensor_parallel: int = 1) -> int:
        """Values that a token leaves in the KV cache of one GPU."""
        return 2 * max(1, self.num_kv_heads // tensor_parallel) * self.head_dim

    @property
    def prefill_pair_flops(self) -> int:
        """FLOPs of one query-key pair, over all heads."""
        return 4 * self.num_heads * self.head_dim

    @property
    def decode_pair_flops(self) -> int:
        """As above, in a decode."""
        return self.prefill_pair_flops

    def check_split(self, tensor_parallel: int) -> None:
        """Refuse a split that vLLM refuses.

        Raises:
            ValueError: names the heads and the split.
        """
        fewer, more = sorted((self.num_kv_heads, tensor_parallel))
        if self.num_heads % tensor_parallel or more % fewer:
            raise ValueError(
                f"tensor_parallel={tensor_parallel} must divide num_heads={self.num_heads}, and "
                f"divide or be a multiple of num_kv_heads={self.num_kv_heads}"
            )


@dataclass(frozen=True, slots=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434).

    The cache holds one latent vector a token, which every GPU of a tensor-parallel group
    keeps in full. Decodes attend to the latents themselves, prefills to the heads made of
    them.
    """

    num_heads: int
    q_rank: int | None
    kv_rank: int
    nope_dim: int
    rope_dim: int
    value_dim: int

    def params(self, hidden: int, tensor_parallel: int = 1) -> int:
        """Weights on one GPU. Each holds the projections to the latents in full."""
        heads = self.num_heads // tensor_parallel
        query = heads * (self.nope_dim + self.rope_dim)
        queries = hidden * query if self.q_rank is None else self.q_rank * (hidden + query)
        latent = hidden * (self.kv_rank + self.rope_dim)
        keys_and_values = self.kv_rank * heads * (self.nope_dim + self.value_dim)
        return queries + latent + keys_and_values + heads * self.value_dim * hidden

    def kv_values(self, tensor_parallel: int = 1) -> int:
        """Values that a token leaves in the KV cache of one GPU."""
        return self.kv_rank + self.rope_dim

    @property
    def window(self) -> None:
        """No model has both."""
        return None

    @property
    def prefill_pair_flops(self) -> int:
        """FLOPs of one query-key pair, over all heads."""
        return 2 * self.num_heads * (self.nope_dim + self.rope_dim + self.value_dim)

    @property
    def decode_pair_flops(self) -> int:
        """As above, in a decode."""
        return 2 * self.num_heads * (2 * self.kv_rank + self.rope_dim)

    def check_split(self, tensor_parallel: int) -> None:
        """As ``Attention.check_split``."""
        if self.num_heads % tensor_parallel:
            raise ValueError(
                f"tensor_parallel={tensor_parallel} must divide num_heads={self.num_heads}"
            )


@dataclass(frozen=True, slots=True)
class Mlp:
    """A dense feed-forward network."""

    intermediate: int
    is_gated: bool = True

    def params(self, hidden: int) -> int:
        """Weights."""
        return (3 if self.is_gated else 2) * hidden * self.intermediate


@dataclass(frozen=True, slots=True)
class Experts:
    """A mixture of gated experts: each token goes to ``num_active`` and to the shared ones.

    Args:
        intermediate: size of one expert.
        shared_intermediate: size of all shared experts together.
    """

    num_experts: int
    num_active: int
    intermediate: int
    shared_intermediate: int = 0

    def expert_params(self, hidden: int) -> int:
        """Weights of one expert."""
        return 3 * hidden * self.intermediate

    def shared_params(self, hidden: int) -> int:
        """Weights that every token is multiplied with: shared experts and the router."""
        return hidden * (3 * self.shared_intermediate + self.num_experts)

    def params(self, hidden: int) -> int:
        """Weights."""
        return self.num_experts * self.expert_params(hidden) + self.shared_params(hidden)

    def num_touched(self, num_tokens: int) -> float:
        """Expected number of experts that a batch needs, were they chosen evenly."""
        return self.num_experts * (1 - (1 - self.num_active / self.num_experts) ** num_tokens)


@dataclass(frozen=True, slots=True)
class Layer:
    """Attention and a feed-forward network, with the bits of a weight of each."""

    attention: Attention | LatentAttention
    mlp: Mlp | Experts
    attention_bits: float = 16
    mlp_bits: float = 16

    @property
    def is_dense_bf16(self) -> bool:
        """Whether it is of the kind that was measured: no latents, experts, quantization."""
        is_dense = isinstance(self.attention, Attention) and isinstance(self.mlp, Mlp)
        return is_dense and self.attention_bits == self.mlp_bits == 16

    def params(self, hidden: int) -> int:
        """Weights."""
        return self.attention.params(hidden) + self.mlp.params(hidden)

    def weight_bytes(self, hidden: int, tensor_parallel: int) -> float:
        """Bytes of its weights on one GPU."""
        attention = self.attention.params(hidden, tensor_parallel) * self.attention_bits
        return (attention + self.mlp.params(hidden) / tensor_parallel * self.mlp_bits) / 8


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder-only transformer.

    Args:
        name: what deployments call it.
        hidden: size of a token's hidden state.
        vocab: tokens in the vocabulary.
        layers: first to last.
        max_model_len: longest prompt plus output, in tokens.
        is_tied: whether input and output share one embedding.
        kv_bytes: bytes of a value in the KV cache.
    """

    name: str
    hidden: int
    vocab: int
    layers: tuple[Layer, ...]
    max_model_len: int
    is_tied: bool = False
    kv_bytes: int = BYTES

    @property
    def is_dense_bf16(self) -> bool:
        """Whether all its layers are."""
        return all(layer.is_dense_bf16 for layer in self.layers)

    @property
    def num_params(self) -> int:
        """All weights."""
        embeddings = (1 if self.is_tied else 2) * self.vocab * self.hidden
        return embeddings + sum(layer.params(self.hidden) for layer in self.layers)

    @property
    def kv_token_bytes(self) -> int:
        """Bytes that a token's keys and values take, over all layers and GPUs."""
        return self.kv_bytes * sum(layer.attention.kv_values() for layer in self.layers)

    def with_fp8_kv(self) -> "Model":
        """The same model with a KV cache of one byte a value."""
        return replace(self, name=f"{self.name}-fp8-kv", kv_bytes=1)
