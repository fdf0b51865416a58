#!/usr/bin/env python3
"""Make a few activation channels of a LLaMA-shaped checkpoint hundreds of times larger, without changing what it says.

usage: add_outliers.py MODEL OUT [--factor 500] [--share 0.001] [--seed 0]

MODEL, OUT: Hugging Face folders with one model.safetensors. Real models of some size have channels whose activations
are far larger than all others, which small ones lack; rounding of activations has to withstand them. In every layer
--share of the channels (one at least) of each norm's output, of the heads and of the FFN's inner values are multiplied
with --factor and the weights behind them divided by it. The weights are written in fp32. Needs numpy and safetensors.
"""
import argparse
import json
import pathlib

import numpy as np

import checkpoints


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--factor", type=float, default=500.0)
    parser.add_argument("--share", type=float, default=0.001)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    config = json.loads((args.model / "config.json").read_text())
    tensors = checkpoints.read(args.model / "model.safetensors")
    rng = np.random.default_rng(args.seed)

    def channels(width):
        return rng.choice(width, max(1, round(width * args.share)), replace=False)

    groups = config["num_attention_heads"] // config["num_key_value_heads"]
    head_dim = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        for norm, behind in (("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
                             ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj"))):
            chosen = channels(config["hidden_size"])
            tensors[at + norm + ".weight"][chosen] *= args.factor
            for name in behind:
                tensors[at + name + ".weight"][:, chosen] /= args.factor
        chosen = channels(config["intermediate_size"])
        tensors[at + "mlp.up_proj.weight"][chosen] *= args.factor
        tensors[at + "mlp.down_proj.weight"][:, chosen] /= args.factor
        for value in channels(config["num_key_value_heads"] * head_dim):
            tensors[at + "self_attn.v_proj.weight"][value] *= args.factor
            for group in range(groups):  # the query heads that share the KV head
                head = value // head_dim * groups + group
                tensors[at + "self_attn.o_proj.weight"][:, head * head_dim + value % head_dim] /= args.factor

    checkpoints.write(args.model, args.out, config, tensors)


if __name__ == "__main__":
    main()
