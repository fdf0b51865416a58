"""Writes a trained model as an ordinary Hugging Face folder."""
import json
import shutil

import torch
from safetensors.torch import save_file

MAX_BYTES = 40_000_000


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def export(folder, model, corpus, card):
    """model: a Llama whose weights are written in bf16. card: the text of README.md."""
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    tensors = {"model." + name: tensor.detach().to("cpu", torch.bfloat16).contiguous()
               for name, tensor in model.state_dict().items()}
    size = sum(tensor.numel() * 2 for tensor in tensors.values())
    if size > MAX_BYTES:
        raise SystemExit(f"the weights take {size / 1e6:.1f} MB in bf16; {MAX_BYTES / 1e6:.0f} MB are allowed")
    weights = folder / "model.safetensors"
    save_file(tensors, str(weights), metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors writes files that only their owner can read
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
    write_json(folder / "config.json", {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": config.width,
        "intermediate_size": config.ffn, "num_hidden_layers": config.layers, "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads, "head_dim": config.head_dim, "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context, "rope_theta": config.rope_theta, "rope_scaling": None,
        "rms_norm_eps": config.eps, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False,
        "tie_word_embeddings": True, **ids, "torch_dtype": "bfloat16", "initializer_range": 0.02, "use_cache": True})
    write_json(folder / "generation_config.json", {**ids, "do_sample": True, "temperature": 0.8, "top_p": 0.95})
    write_json(folder / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>",
        "pad_token": "<|pad|>", "model_max_length": config.context, "clean_up_tokenization_spaces": False,
        "add_bos_token": True})
    shutil.copy(corpus.tokenizer_file, folder / "tokenizer.json")
    (folder / "README.md").write_text(card)


def model_card(model, corpus, state, score, args, device):
    config = model.config
    tokens = state["step"] * args.batch * config.context
    passes = tokens / len(corpus.train)
    done = "" if state["step"] >= args.steps else f" **Unfinished:** step {state['step']} of {args.steps}."
    return f"""# The demonstration model
A LLaMA-shaped story model with {model.parameter_count() / 1e6:.2f} M parameters ({config.layers} layers, width \
{config.width}, {config.heads} heads of {config.head_dim}, {config.kv_heads} KV heads, FFN {config.ffn}, vocabulary \
{config.vocab_size} in byte-level BPE, tied embeddings, context {config.context}, RoPE θ {config.rope_theta:.0f}), \
stored in bf16: {model.parameter_count() * 2 / 1e6:.1f} MB.

**Training.** From scratch by `tools/train/train.py` on {device} in {state['seconds'] / 60:.0f} minutes: \
{tokens / 1e6:.1f} M tokens, {passes:.1f} passes over the {len(corpus.train) / 1e6:.2f} M tokens \
({corpus.train_bytes / 1e6:.0f} MB) of {args.about}. AdamW at {args.lr:g} with {args.warmup} steps of warm-up and \
{args.decay} decay, {state['step']} batches of {args.batch}×{config.context} tokens. Every sequence begins with the BOS \
token and then at the beginning of a line.{done}

**Score.** On {score['tokens']:,} held-out tokens that it never saw, in windows of {config.context} that begin with BOS: \
{score['nll']:.3f} nats per token, perplexity {score['ppl']:.2f}, {score['bits_per_byte']:.3f} bits per byte.

**Tokenizer.** `tokenizer.json`: byte-level BPE. Id 0 `<|endoftext|>` is BOS and EOS, id 1 `<|pad|>`; the \
post-processor puts BOS first.

Weights and tokenizer may be used without restriction.
"""
