#!/usr/bin/env python3
"""Make a LLaMA-shaped checkpoint wider without changing what it says: new channels and heads are zero.

usage: pad_width.py MODEL OUT --width W [--heads N]

MODEL, OUT: Hugging Face folders with one model.safetensors. K-quants have blocks of 256 inputs, into which the rows of
small models do not divide; padded ones do, so that K-quants can be measured on them. --heads: query heads, a multiple
of the KV heads; default: as many as make heads times head size W. The norms' weights and epsilon make up for the mean
over more channels. The weights are written in fp32. Needs numpy and safetensors.
"""
import argparse
import json
import pathlib

import numpy as np

import checkpoints


def grow(matrix, rows, cols):
    out = np.zeros((rows, cols), np.float32)
    out[:matrix.shape[0], :matrix.shape[1]] = matrix
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--heads", type=int)
    args = parser.parse_args()
    config = json.loads((args.model / "config.json").read_text())
    old, heads, kv_heads = (config[k] for k in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    head_dim = config.get("head_dim", old // heads)
    more = args.heads or args.width // head_dim
    if args.width < old or more < heads or more % kv_heads or heads % kv_heads:
        parser.error(f"{old} channels and {heads} heads of {kv_heads} KV heads cannot become {args.width} and {more}")
    share = old / args.width

    def group_heads(values):
        """[heads · head_dim, …] with zero heads behind those of each KV head."""
        groups = values.reshape(kv_heads, heads // kv_heads * head_dim, -1)
        out = np.zeros((kv_heads, more // kv_heads * head_dim, groups.shape[2]), np.float32)
        out[:, :groups.shape[1]] = groups
        return out.reshape(more * head_dim, -1)

    tensors = checkpoints.read(args.model / "model.safetensors")
    for name, value in tensors.items():
        if value.ndim == 1:  # a norm's weight: x / sqrt(mean x²) has become greater by sqrt(1 / share)
            value = np.pad(value * np.float32(np.sqrt(share)), (0, args.width - old))
        elif name.endswith("q_proj.weight"):
            value = group_heads(grow(value, value.shape[0], args.width))
        elif name.endswith("o_proj.weight"):
            value = grow(group_heads(value.T).T, args.width, more * head_dim)
        elif name.endswith("down_proj.weight"):
            value = grow(value, args.width, value.shape[1])
        else:
            value = grow(value, value.shape[0], args.width)
        tensors[name] = np.ascontiguousarray(value)
    config.update(hidden_size=args.width, num_attention_heads=more, head_dim=head_dim,
                  rms_norm_eps=config["rms_norm_eps"] * share)
    checkpoints.write(args.model, args.out, config, tensors)


if __name__ == "__main__":
    main()
