"""Measured layers: how long the GEMMs, norms and activations of one layer take.

From Vidur's published profiles (github.com/microsoft/vidur, data/profiling/compute,
commits 41ab8ab1 and 683364e9): medians or means of ``attn_pre_proj + attn_rope +
attn_post_proj + mlp_up_proj + mlp_act + mlp_down_proj + input_layernorm +
post_attention_layernorm + 2 x add``, on one GPU. Another dense model's layer takes its
share by parameters, since both the weights read and the arithmetic go with them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """One layer of a model on one GPU.

    Args:
        params: weights of that layer.
        layer_ms: (tokens, milliseconds); cliffs where they were seen.
    """

    params: int
    layer_ms: tuple[tuple[int, float], ...]


# Meta-Llama-3-8B.
A100 = Profile(
    218_103_808,
    (
        (0, 0.304), (8, 0.313), (16, 0.318), (32, 0.330), (64, 0.356), (65, 0.388),
        (96, 0.397), (128, 0.415), (129, 0.567), (136, 0.567), (160, 0.549), (192, 0.528),
        (193, 0.581), (256, 0.615), (257, 0.834), (304, 0.851), (384, 0.860), (385, 1.049),
        (448, 1.088), (512, 1.087), (513, 1.233), (1024, 2.150), (32768, 67.99),
    ),
)  # fmt: skip
# Llama-2-70b. Past 512 tokens the profile's down projection flickers between 0.46 and
# 0.75 ms, so the cliff there, +28 %, and the points to 1024 follow the steadier projections.
H100 = Profile(
    855_638_016,
    (
        (0, 0.620), (64, 0.640), (128, 0.652), (129, 0.740), (160, 0.747), (192, 0.800),
        (256, 0.770), (257, 1.071), (288, 1.071), (289, 0.986), (448, 1.280), (512, 1.266),
        (513, 1.620), (768, 2.050), (1024, 2.720), (3584, 9.680), (4096, 10.82),
    ),
)  # fmt: skip
