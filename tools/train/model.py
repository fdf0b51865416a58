"""The demonstration model: a LLaMA-shaped decoder in plain PyTorch, with Hugging Face's tensor names and layouts."""
import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class ModelConfig:
    vocab_size: int = 16384
    width: int = 256
    ffn: int = 1024
    layers: int = 14
    head_dim: int = 64
    kv_heads: int = 2
    context: int = 2048
    rope_theta: float = 10000.0
    eps: float = 1e-5

    @property
    def heads(self):
        return self.width // self.head_dim

    def check(self):
        if self.width % 256 or self.ffn % 256:
            raise SystemExit("--width and --ffn must be multiples of 256")
        if self.width % self.head_dim or self.heads % self.kv_heads:
            raise SystemExit("the width must be whole heads, and the KV heads must divide the heads")


class RMSNorm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        wide = x.float()
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.eps)).to(x.dtype) * self.weight.to(x.dtype)


def rope_tables(config, device):
    """cos and sin, [context, head_dim]: the half-split rotation of LLaMA."""
    half = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=device) / config.head_dim
    angles = torch.outer(torch.arange(config.context, dtype=torch.float32, device=device), config.rope_theta ** -half)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


class Attention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        kv_width = config.kv_heads * config.head_dim
        self.q_proj = nn.Linear(config.width, config.width, bias=False)
        self.k_proj = nn.Linear(config.width, kv_width, bias=False)
        self.v_proj = nn.Linear(config.width, kv_width, bias=False)
        self.o_proj = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x, cos, sin):
        batch, length, _ = x.shape

        def split(projected, heads):  # [batch, heads, length, head_dim]
            return projected.view(batch, length, heads, self.config.head_dim).transpose(1, 2)

        q = rotate(split(self.q_proj(x), self.config.heads), cos, sin)
        k = rotate(split(self.k_proj(x), self.config.kv_heads), cos, sin)
        v = split(self.v_proj(x), self.config.kv_heads)
        group = self.config.heads // self.config.kv_heads
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
        out = causal_attention(q.to(v.dtype), k.to(v.dtype), v)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


def causal_attention(q, k, v):
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    length = q.shape[2]
    mask = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    scores = (q @ k.transpose(-2, -1)).float() / math.sqrt(q.shape[-1])
    return scores.masked_fill(mask, float("-inf")).softmax(dim=-1).to(v.dtype) @ v


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.ffn, bias=False)
        self.up_proj = nn.Linear(config.width, config.ffn, bias=False)
        self.down_proj = nn.Linear(config.ffn, config.width, bias=False)

    def forward(self, x):
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.input_layernorm = RMSNorm(config.width, config.eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.width, config.eps)
        self.mlp = MLP(config)

    def forward(self, x, cos, sin):
        x = x + self.self_attn(self.input_layernorm(x), cos, sin)
        return x + self.mlp(self.post_attention_layernorm(x))


class Llama(nn.Module):
    """State dict keys, prefixed with "model.", are those of transformers' LlamaForCausalLM with a tied head."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.width)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm = RMSNorm(config.width, config.eps)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("o_proj.weight", "down_proj.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.layers) if residual else 0.02)

    def forward(self, tokens, cos, sin):
        """tokens: [batch, length] ids. Returns logits, [batch, length, vocab_size]. cos, sin: rope_tables()."""
        x = self.embed_tokens(tokens)
        for layer in self.layers:
            x = layer(x, cos[: tokens.shape[1]], sin[: tokens.shape[1]])
        return F.linear(self.norm(x), self.embed_tokens.weight)

    def loss(self, tokens, cos, sin, reduction="mean"):
        """Cross-entropy of predicting tokens[:, 1:] in nats per token."""
        logits = self(tokens[:, :-1], cos, sin)
        return F.cross_entropy(logits.float().reshape(-1, logits.shape[-1]), tokens[:, 1:].reshape(-1).long(),
                               reduction=reduction)

    def parameter_count(self):
        return sum(parameter.numel() for parameter in self.parameters())
