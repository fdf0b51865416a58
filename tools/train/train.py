#!/usr/bin/env python3
"""Trains the demonstration model: tokenizer, model, Hugging Face folder. See README.md beside this file.

Runs are resumable: each trains for --minutes, saves a checkpoint in --work and writes the folder --out; the same
command again goes on where it stopped, until --steps are done. Needs torch, numpy, tokenizers and safetensors.
"""
import argparse
import contextlib
import math
import os
import pathlib
import platform
import time

import numpy as np
import torch

from data import Corpus, line_starts
from export import export, model_card
from model import Llama, ModelConfig, rope_tables


def parse_args():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--corpus", type=pathlib.Path, required=True, help="training text, .txt or .xz; <|endoftext|> ends a document")
    add("--heldout", type=pathlib.Path, help="held-out text (default: the last 1%% of the corpus)")
    add("--about", default="public-domain English books", help="what the corpus is, for the model card")
    add("--work", type=pathlib.Path, default=pathlib.Path("train-work"), help="caches and checkpoint")
    add("--out", type=pathlib.Path, default=pathlib.Path("train-out"), help="the Hugging Face folder to write")
    add("--minutes", type=float, default=8.5, help="wall-clock limit of this run, its start included")
    add("--steps", type=int, default=6000, help="optimizer steps of the whole training")
    add("--batch", type=int, default=64, help="sequences per step")
    add("--micro-batch", type=int, default=0, help="sequences at a time (default: all of the batch)")
    add("--lr", type=float, default=2e-3)
    add("--warmup", type=int, default=200)
    add("--decay", choices=["cosine", "linear"], default="cosine")
    add("--weight-decay", type=float, default=0.1)
    add("--seed", type=int, default=1)
    add("--heldout-tokens", type=int, default=1_000_000, help="how many held-out tokens to score")
    add("--vocab", type=int, default=16384)
    for name, default in (("width", 256), ("ffn", 1024), ("layers", 14), ("head-dim", 64), ("kv-heads", 2),
                          ("context", 2048)):
        add(f"--{name}", type=int, default=default)
    add("--no-compile", action="store_true", help="do not use torch.compile")
    add("--cpu", action="store_true", help="do not use CUDA")
    return parser.parse_args()


def learning_rate(args, step):
    if step < args.warmup:
        return args.lr * (step + 1) / args.warmup
    progress = min(1.0, (step - args.warmup) / max(1, args.steps - args.warmup))
    shape = 0.5 * (1 + math.cos(math.pi * progress)) if args.decay == "cosine" else 1 - progress
    return args.lr * (0.02 + 0.98 * shape)


def make_optimizer(args, model, cuda):
    matrices = [p for p in model.parameters() if p.dim() == 2]
    vectors = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": matrices, "weight_decay": args.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.95), **({"fused": True} if cuda else {}))


class Batches:
    """Training sequences: BOS, then context tokens from the beginning of a random line; the same for the same step."""

    def __init__(self, args, corpus, device):
        self.args = args
        self.tokens = torch.from_numpy(corpus.train.astype(np.int32)).to(device)
        self.starts = line_starts(corpus.tokenizer, corpus.train, args.context)
        if len(self.starts) == 0:
            raise SystemExit("the corpus is shorter than one training sequence")
        self.span = torch.arange(args.context, device=device)

    def get(self, step):
        random = np.random.default_rng((self.args.seed, step))
        starts = torch.from_numpy(random.choice(self.starts, self.args.batch)).to(self.span.device)
        windows = self.tokens[starts[:, None] + self.span].long()
        return torch.cat((torch.zeros_like(windows[:, :1]), windows), dim=1)  # [batch, 1 + context]


@torch.no_grad()
def held_out_score(args, model, corpus, tables, device):
    """Every token is predicted once, in windows that begin with BOS; weights as exported, in bf16."""
    kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.copy_(parameter.to(torch.bfloat16))
    tokens = corpus.heldout[: args.heldout_tokens].astype(np.int64)
    window = args.context - 1
    nll = 0.0
    for begin in range(0, len(tokens), window):
        part = torch.from_numpy(tokens[begin:begin + window]).to(device)
        sequence = torch.cat((torch.zeros_like(part[:1]), part))[None]
        nll += model.loss(sequence, *tables, reduction="sum").item()
    model.load_state_dict(kept)
    text_bytes = corpus.heldout_bytes * len(tokens) / len(corpus.heldout)
    mean = nll / len(tokens)
    return {"tokens": len(tokens), "nll": mean, "ppl": math.exp(mean), "bits_per_byte": nll / math.log(2) / text_bytes}


def save_checkpoint(path, state):
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def train(args, model, corpus, tables, device, state, began):
    cuda = device.type == "cuda"
    optimizer = make_optimizer(args, model, cuda)
    if "optimizer" in state:
        optimizer.load_state_dict(state["optimizer"])
    batches = Batches(args, corpus, device)
    loss_function = model.loss
    if cuda and hasattr(torch, "compile") and not args.no_compile:
        loss_function = torch.compile(model.loss)
    autocast = torch.autocast("cuda", dtype=torch.bfloat16) if cuda else contextlib.nullcontext()
    micro = args.micro_batch or args.batch
    trained = state["seconds"]
    mark, report = time.monotonic(), time.monotonic()
    while state["step"] < args.steps:
        step = state["step"]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args, step)
        total = torch.zeros((), device=device)
        for part in batches.get(step).split(micro):
            with autocast:
                loss = loss_function(part, *tables) * (len(part) / args.batch)
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        state["step"] = step + 1
        now = time.monotonic()
        state["seconds"] = trained + now - mark
        if now - report > 10 or state["step"] == args.steps:
            report = now
            value = total.item()
            if not math.isfinite(value):
                raise SystemExit(f"the loss is {value} at step {step}; lower --lr")
            rate = (state["step"] * args.batch * args.context) / max(state["seconds"], 1e-9)
            print(f"step {state['step']}/{args.steps}  loss {value:.4f}  {rate:,.0f} tokens/s", flush=True)
        if now - began > args.minutes * 60:
            break
    state["optimizer"] = optimizer.state_dict()


def main():
    began = time.monotonic()
    args = parse_args()
    config = ModelConfig(args.vocab, args.width, args.ffn, args.layers, args.head_dim, args.kv_heads, args.context)
    config.check()
    device = torch.device("cuda" if torch.cuda.is_available() and not args.cpu else "cpu")
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    torch.manual_seed(args.seed)
    corpus = Corpus(args.corpus, args.heldout, args.vocab, args.work)
    model = Llama(config).to(device)
    tables = rope_tables(config, device)
    print(f"{model.parameter_count() / 1e6:.2f} M parameters, {len(corpus.train) / 1e6:.2f} M training tokens, "
          f"{device}", flush=True)

    checkpoint = args.work / "checkpoint.pt"
    state = {"step": 0, "seconds": 0.0}
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device)
        if state["config"] != vars(config):
            raise SystemExit(f"{checkpoint} is of a model with other sizes: {state['config']}")
        model.load_state_dict(state["model"])
        print(f"going on at step {state['step']}", flush=True)
    train(args, model, corpus, tables, device, state, began)
    state.update(model=model.state_dict(), config=vars(config))
    save_checkpoint(checkpoint, state)

    score = held_out_score(args, model, corpus, tables, device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"a CPU ({os.cpu_count()} × {platform.machine()})"
    export(args.out, model, corpus, model_card(model, corpus, state, score, args, name))
    print(f"step {state['step']} of {args.steps}; held out: {score['nll']:.4f} nats per token, "
          f"perplexity {score['ppl']:.2f}, {score['bits_per_byte']:.4f} bits per byte; written to {args.out}")


if __name__ == "__main__":
    main()
