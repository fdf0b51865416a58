"""The corpus: tokenizer training, and the tokens as one cached array."""
import hashlib
import json
import lzma
import os
import pathlib
import re

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

EOT, PAD = "<|endoftext|>", "<|pad|>"  # ids 0 (begin and end of a text) and 1


def read_text(path):
    with (lzma.open if path.suffix == ".xz" else open)(path, "rb") as file:
        return file.read().decode("utf-8", errors="replace")


def pieces(text, size=1 << 20):
    """The text in pieces of about a megabyte that end at line ends."""
    begin = 0
    while begin < len(text):
        end = text.find("\n", begin + size)
        end = len(text) if end < 0 else end + 1
        yield text[begin:end]
        begin = end


def train_tokenizer(text, vocab_size):
    """A byte-level BPE whose post-processor puts <|endoftext|> first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=[EOT, PAD], show_progress=False,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    sample = (piece.replace(EOT, "") for piece in pieces(text))
    tokenizer.train_from_iterator(sample, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{EOT} $A", pair=f"{EOT} $A {EOT} $B", special_tokens=[(EOT, tokenizer.token_to_id(EOT))])
    assert tokenizer.token_to_id(EOT) == 0 and tokenizer.token_to_id(PAD) == 1
    return tokenizer


def encode(tokenizer, text):
    """All ids of the text as uint16, without BOS. <|endoftext|> in the text becomes id 0."""
    parts = []
    batch = []
    for piece in pieces(text):
        batch.extend(re.findall(r"[^\n]*\n|[^\n]+", piece))
        if len(batch) >= 1 << 15:
            parts.append(encode_batch(tokenizer, batch))
            batch = []
    parts.append(encode_batch(tokenizer, batch))
    return np.concatenate(parts)


def encode_batch(tokenizer, lines):
    encodings = tokenizer.encode_batch_fast(lines, add_special_tokens=False) \
        if hasattr(tokenizer, "encode_batch_fast") else tokenizer.encode_batch(lines, add_special_tokens=False)
    return np.fromiter((token for encoding in encodings for token in encoding.ids), dtype=np.uint16)


def line_starts(tokenizer, tokens, margin):
    """Positions where a line begins and at least `margin` tokens follow."""
    ends = np.zeros(tokenizer.get_vocab_size(), dtype=bool)
    ends[0] = True
    for token in range(2, len(ends)):
        ends[token] = tokenizer.id_to_token(token).endswith("Ċ")  # the byte-level alphabet's newline
    starts = np.flatnonzero(ends[tokens]) + 1
    starts = np.concatenate(([0], starts))
    return starts[starts + margin <= len(tokens)].astype(np.int64)


class Corpus:
    """Tokenizer and tokens of a training and a held-out text, cached in the work folder."""

    def __init__(self, corpus, heldout, vocab_size, work):
        work.mkdir(parents=True, exist_ok=True)
        if vocab_size > 1 << 16:
            raise SystemExit("--vocab must be at most 65536: tokens are kept in 16 bits")
        key = json.dumps([self.fingerprint(corpus), heldout and self.fingerprint(heldout), vocab_size])
        key_file, tokens_file = work / "corpus.json", work / "tokens.npz"
        tokenizer_file = work / "tokenizer.json"
        if not (key_file.exists() and key_file.read_text() == key):
            print("reading the corpus and training the tokenizer …", flush=True)
            text = read_text(corpus)
            if heldout:
                held_text = read_text(heldout)
            else:  # the last 1 % is held out where no file is
                cut = text.find("\n", int(len(text) * 0.99)) + 1
                text, held_text = text[:cut], text[cut:]
            tokenizer = train_tokenizer(text, vocab_size)
            if tokenizer.get_vocab_size() != vocab_size:
                raise SystemExit(f"the corpus is too small for a vocabulary of {vocab_size} "
                                 f"(it gives {tokenizer.get_vocab_size()})")
            tokenizer.save(str(tokenizer_file))
            np.savez(tokens_file, train=encode(tokenizer, text), heldout=encode(tokenizer, held_text),
                     sizes=np.array([len(text.encode()), len(held_text.encode())]))
            key_file.write_text(key)
        self.tokenizer = Tokenizer.from_file(str(tokenizer_file))
        self.tokenizer_file = tokenizer_file
        with np.load(tokens_file) as arrays:
            self.train, self.heldout = arrays["train"], arrays["heldout"]
            self.train_bytes, self.heldout_bytes = (int(size) for size in arrays["sizes"])

    @staticmethod
    def fingerprint(path):
        path = pathlib.Path(path)
        with open(path, "rb") as file:
            head = file.read(1 << 20)
        return [path.name, os.path.getsize(path), hashlib.sha256(head).hexdigest()]
