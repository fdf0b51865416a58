"""inspect, analyze, tokenize, logits, perplexity, bench and pack."""

import array
import json
import math
import os
import re
import struct
import unittest

from kvasir_cli import DEMO, CliTest, kvasir

TEXT = "The king said: “Bring me the café's key!” 🙂\n\nAnd so they went."


def log_softmax(row, index):
    top = max(row)
    return row[index] - top - math.log(math.fsum(math.exp(x - top) for x in row))


class Inspect(CliTest):
    def test_json(self):
        result = self.ok("inspect", "--json").json
        self.assertEqual(result["format"], "safetensors")
        spec = result["spec"]
        self.assertEqual((spec["width"], spec["vocab_size"], len(spec["layers"])), (192, 4096, 6))
        self.assertEqual(spec["layers"][0]["attention"]["n_kv_heads"], 2)
        self.assertEqual(spec["position"]["kind"], "rope")
        memory = result["memory"]
        stored = sum(t["bytes"] for t in result["tensors"])
        self.assertEqual(memory["parameters"] * 2, stored)
        self.assertEqual(memory["bits16_rule_bytes"], stored)
        self.assertEqual(memory["fp32_rule_bytes"], 2 * stored)
        self.assertTrue(stored <= memory["weights_bytes"] < 1.01 * stored, memory)  # norms are held in fp32
        self.assertEqual((memory["weights_mapped"], memory["fits"]), (False, True))
        self.assertEqual(memory["kv_bytes_per_token"], 6 * 2 * 2 * 32 * 2)
        self.assertEqual(memory["kv_cache_bytes"], memory["kv_bytes_per_token"] * 256)
        plan = self.ok("inspect", DEMO, "--json", "--dtype", "f32", "--kv-type", "f16", "-c", "100").json["memory"]
        self.assertEqual(plan["weights_bytes"], stored * 2)
        self.assertEqual(plan["kv_cache_bytes"], 6 * 2 * 2 * 32 * 2 * 128)  # blocks of 128 tokens

    def test_text(self):
        text = self.ok("inspect", os.path.join(DEMO, "model.safetensors"), "--tensors").text
        for part in ("6 layers", "GQA with 2 KV heads", "tied", "model.embed_tokens.weight", "[4096, 192]"):
            self.assertIn(part, text)

    def test_a_plan_that_does_not_fit(self):
        memory = self.ok("inspect", "--json", "--memory-limit", "20M").json["memory"]
        self.assertFalse(memory["fits"])
        self.assertLess(memory["available_bytes"], memory["needed_bytes"])
        self.assertIn("does not fit", self.ok("inspect", "--memory-limit", "20M").text)

    def test_a_config_alone(self):
        config = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "configs", "mpt-30b.json")
        memory = self.ok("inspect", config, "--json").json["memory"]
        self.assertEqual(memory, {"parameters": 29957200896, "fp32_rule_bytes": 119828803584,
                                  "bits16_rule_bytes": 59914401792})
        self.assertIn("29957.20 M: 119.8 GB in fp32, 59.9 GB in 16 bits", self.ok("inspect", config).text)
        with open(config) as file:
            self.write("config.json", file.read())
        self.assertEqual(self.ok("inspect", self.folder, "--json").json["memory"], memory)
        self.fails("inspect", config, "--check-tensors", says="no tensors")

    def test_check_tensors(self):
        result = self.ok("inspect", "--check-tensors", "--json").json
        for tensor in result["tensors"]:
            self.assertEqual((tensor["nan"], tensor["inf"]), (0, 0))
            self.assertLess(tensor["min"], tensor["mean"])
            self.assertLess(tensor["mean"], tensor["max"])


class Analyze(CliTest):
    def config(self, **values):
        return self.write("config.json", json.dumps({"model_type": "gpt2", "n_positions": 2048, "vocab_size": 50257, **values}))

    def types(self, *args):
        return {t["type"]: t for t in self.ok("analyze", "--kv", *args, "--json").json["kv_cache"]}

    def test_the_published_example(self):
        # 4·b·l·h·(s + n) bytes in 16 bits with MHA, for GPT-3: FlexGen (Sheng 2023, arXiv:2303.06865).
        config = self.config(n_layer=96, n_embd=12288, n_head=96)
        args = [config, "--sequences", "64", "--prompt-tokens", "512", "-n", "32"]
        types = self.types(*args)
        for name in ("f16", "bf16"):
            self.assertEqual(types[name]["bytes"], 164_282_499_072)
        self.assertEqual(types["f32"]["bytes"], 2 * 164_282_499_072)
        self.assertEqual(types["i8"]["bytes_per_token"], 2 * 96 * 96 * (128 + 2))
        for t in types.values():  # whole blocks of 128 tokens
            self.assertEqual(t["allocated_bytes"], t["bytes_per_token"] * 640 * 64)
        self.assertIn("164282499072", self.ok("analyze", "--kv", *args).text)

    def test_it_is_what_a_run_allocates(self):
        for kv_type in ("f32", "bf16", "f16", "i8", "i4"):
            run = self.ok("generate", "-p", "Once", "-n", "140", "--ignore-eos", "--kv-type", kv_type, "--json").json
            tokens = len(run["prompt_token_ids"]) + 140
            need = self.types("--prompt-tokens", str(tokens))[kv_type]
            self.assertEqual(run["memory"]["kv_cache_bytes"], need["allocated_bytes"])
            self.assertTrue(0 <= need["allocated_bytes"] - need["bytes"] < 128 * need["bytes_per_token"])

    def test_shared_heads(self):
        run = self.ok("analyze", "--kv", "--json").json
        self.assertEqual((run["layers"], run["query_heads_per_kv_head"]), (6, 3))
        self.assertIn("3 times less", self.ok("analyze", "--kv").text)

    def test_what_cannot_be(self):
        self.fails("analyze", says="--kv")
        self.fails("analyze", "--kv", "--prompt-tokens", "0", says="0 prompt tokens and 0 new ones")
        self.fails("analyze", "--kv", "--sequences", "0", code=2, says="out of range")
        self.fails("analyze", "--kv", "--prompt-tokens", "1073741824", "-n", "1073741824", says="a sequence has 1 to")
        huge = self.config(n_layer=1000, n_embd=65536, n_head=512)
        self.fails("analyze", "--kv", huge, "--sequences", "1048576", "--prompt-tokens", "1073741824",
                   says="more bytes than can be counted")
        self.fails("analyze", "--kv", self.path("nothing.json"), says="nothing.json")


class Tokenize(CliTest):
    def test_round_trip(self):
        result = self.ok("tokenize", "-p", TEXT, "--json").json
        self.assertEqual(set(result), {"ids", "pieces"})
        self.assertEqual(len(result["ids"]), len(result["pieces"]))
        self.assertEqual(result["pieces"][0], "<|endoftext|>")
        plain = self.ok("tokenize", "-p", TEXT, "--json", "--no-special").json["ids"]
        self.assertEqual(result["ids"][1:], plain)
        ids = ",".join(map(str, plain))
        self.assertEqual(self.ok("tokenize", "--decode", ids).text, TEXT)
        self.assertEqual(self.ok("tokenize", "--decode", ids, "--json").json, {"text": TEXT})

    def test_special_tokens_in_text(self):
        ids = lambda *args: self.ok("tokenize", "-p", "a<|endoftext|>", "--json", "--no-special", *args).json["ids"]
        self.assertEqual(ids()[-1], 0)
        self.assertNotIn(0, ids("--no-parse-special"))
        self.assertEqual(self.ok("tokenize", "--decode", "0", "--skip-special").text, "")
        self.assertEqual(self.ok("tokenize", "--decode", "0").text, "<|endoftext|>")

    def test_tokenizer_files_and_table(self):
        file = os.path.join(DEMO, "tokenizer.json")
        self.assertEqual(self.ok("tokenize", "-m", file, "-p", "abc", "--json", "--no-special").json["ids"],
                         self.ok("tokenize", "-p", "abc", "--json", "--no-special").json["ids"])
        lines = self.ok("tokenize", stdin=b"Once upon").text.splitlines()
        self.assertRegex(lines[0], r"^ +0  <\|endoftext\|>  \(special\)$")

    def test_wrong_ids(self):
        self.fails("tokenize", "--decode", "1,x", says=["--decode", '"x"'])
        self.fails("tokenize", "--decode", "99999999", says="99999999")
        self.fails("tokenize", "--decode", "1", "-p", "x", says="--decode")


class Logits(CliTest):
    def test_json_has_plain_decimals(self):
        for args in (["logits", "--tokens", "0,5", "--json"], ["generate", "-p", "x", "-n", "3", "--json"],
                     ["inspect", "--check-tensors", "--json"], ["perplexity", "-p", TEXT, "--json"]):
            text = self.ok(*args).text
            json.loads(text)
            self.assertNotRegex(re.sub(r'"(?:[^"\\]|\\.)*"', '""', text), r"\d[eE][+-]?\d")

    def test_json_and_npy_agree(self):
        one = self.ok("logits", "--tokens", "0,5,9,300", "--json").json
        every = self.ok("logits", "--tokens", "0 5 9 300", "--all", "--json").json
        self.assertEqual((one["shape"], every["shape"]), ([1, 4096], [4, 4096]))
        self.assertEqual((len(one["data"]), len(every["data"])), (4096, 4 * 4096))
        self.assertEqual(one["data"], every["data"][-4096:])
        file = self.path("l.npy")
        self.ok("logits", "--tokens", "0,5,9,300", "--all", "--npy", file)
        with open(file, "rb") as npy:
            self.assertEqual(npy.read(8), b"\x93NUMPY\x01\x00")
            header = npy.read(struct.unpack("<H", npy.read(2))[0]).decode()
            self.assertIn("'shape': (4, 4096)", header)
            values = array.array("f", npy.read())
        self.assertEqual(values, array.array("f", every["data"]))

    def test_rope_by_flag_is_rope_by_config(self):
        tokens = ["logits", "--tokens", ",".join(str(7 * i % 4000) for i in range(300)), "--json", "-c", "400"]
        plain = self.ok(*tokens, "-m", DEMO).json["data"]
        for flags, config in (
                (["--rope-scaling", "linear:2"], {"rope_scaling": {"type": "linear", "factor": 2}}),
                (["--rope-scale", "2"], {"rope_scaling": {"type": "linear", "factor": 2}}),
                (["--rope-scaling", "dynamic:3"], {"rope_scaling": {"type": "dynamic", "factor": 3}}),
                (["--rope-scaling", "yarn", "--rope-scale", "4", "--yarn-orig-ctx", "200"],
                 {"rope_scaling": {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 200}}),
                (["--rope-theta", "50000"], {"rope_theta": 50000.0})):
            by_flag = self.ok(*tokens, "-m", DEMO, *flags).json["data"]
            self.assertEqual(by_flag, self.ok(*tokens, "-m", self.copy_demo(**config)).json["data"], flags)
            self.assertNotEqual(by_flag, plain)
        self.assertEqual(self.ok(*tokens, "-m", DEMO, "--rope-scaling", "none").json["data"], plain)
        spec = self.ok("inspect", "--json", "-m", DEMO, "--rope-scaling", "yarn:4").json["spec"]
        self.assertEqual(spec["context"], 1024)
        self.fails("logits", "--tokens", "1", "--rope-scaling", "wild:2", says=['"wild" is not known'])
        self.fails("generate", "-p", "x", "--rope-scaling", "yarn", says=["--rope-scaling", "factor"])
        self.fails("bench", "--rope-scale", "0.5", code=2, says="--rope-scale")

    def test_text_and_table(self):
        ids = self.ok("tokenize", "-p", "Once upon a", "--json").json["ids"]
        by_text = self.ok("logits", "-p", "Once upon a", "--json").json
        by_ids = self.ok("logits", "--tokens", str(ids), "--json").json
        self.assertEqual(by_text, by_ids)
        best = max(range(4096), key=by_ids["data"].__getitem__)
        table = self.ok("logits", "-p", "Once upon a", "--top", "3").text.splitlines()
        self.assertEqual(len(table), 4)
        self.assertEqual(int(table[1].split()[0]), best)
        self.assertEqual(self.ok("generate", "-p", "Once upon a", "-n", "1", "--temp", "0", "--json").json["token_ids"],
                         [best])

    def test_wrong_ids(self):
        self.fails("logits", "--tokens", "4096", says=["4096"])
        self.fails("logits", "--tokens", "", says="no token ids")
        self.fails("logits", "--tokens", ",".join(["5"] * 300), says=["300", "256"])
        self.fails("logits", "--tokens", "1", "--npy", self.path("no/l.npy"), says=self.path("no/l.npy"))


class Perplexity(CliTest):
    def test_is_what_the_logits_say(self):
        file = self.write("t.txt", TEXT)
        ids = self.ok("tokenize", "-f", file, "--json").json["ids"]
        data = self.ok("logits", "-f", file, "--all", "--json").json["data"]
        rows = [data[i * 4096:(i + 1) * 4096] for i in range(len(ids))]
        nll = -math.fsum(log_softmax(rows[i], ids[i + 1]) for i in range(len(ids) - 1)) / (len(ids) - 1)
        result = self.ok("perplexity", "-f", file, "--json").json
        self.assertEqual(set(result), {"tokens", "nll", "ppl"})
        self.assertEqual(result["tokens"], len(ids) - 1)
        self.assertAlmostEqual(result["nll"], nll, delta=1e-5)
        self.assertAlmostEqual(result["ppl"] / math.exp(nll), 1, delta=1e-5)
        self.assertRegex(self.ok("perplexity", "-f", file).text, r"^perplexity [\d.]+ ± [\d.]+ \(\d+ tokens")

    def test_windows(self):
        file = self.write("t.txt", "The king went into the wood and met a fox. " * 40)
        tokens = len(self.ok("tokenize", "-f", file, "--json").json["ids"])
        measure = lambda *args: self.ok("perplexity", "-f", file, "--json", "-c", "64", *args).json
        self.assertEqual(measure("--stride", "16")["tokens"], tokens - 1)
        self.assertLess(measure("--stride", "8")["ppl"], measure("--stride", "64")["ppl"])
        self.assertEqual(measure("--stride", "64")["tokens"], tokens - math.ceil(tokens / 64))
        self.assertEqual(measure("--mode", "chunks")["tokens"], tokens // 64 * 31)
        self.assertEqual(measure("--max-tokens", "50")["tokens"], 49)

    def test_reference(self):
        file = self.write("t.txt", "The king went into the wood and met a fox. " * 40)
        measure = lambda *args: self.ok("perplexity", "-f", file, "--json", "--reference", DEMO, *args).json
        same = measure()
        self.assertEqual((same["kl"], same["same_top"]), (0, 1))
        # More bits, less divergence; rounding changes little, and computing with integers hardly anything.
        int8, nf4 = measure("--weights", "int8"), measure("--weights", "nf4")
        self.assertLess(0, int8["kl"])
        self.assertLess(int8["kl"], nf4["kl"] / 4)
        self.assertLess(nf4["kl"], 0.2)
        self.assertGreater(int8["same_top"], 0.9)
        longer = os.path.join(os.path.dirname(__file__), "..", "..", "LICENSE")
        rounded, exact = (self.ok("perplexity", "-f", longer, "--json", "--weights", "nf4", "--dtype", dtype).json["ppl"]
                          for dtype in ("auto", "f32"))
        self.assertAlmostEqual(rounded / exact, 1, delta=0.005)
        text = self.ok("perplexity", "-f", file, "--reference", DEMO, "--weights", "fp4").text
        self.assertRegex(text, r"(?m)^divergence from .*demo: 0\.\d{5} nats per token; .* for [\d.]+ %$")
        self.fails("perplexity", "-f", file, "--reference", self.path("no"), says=self.path("no"))

    def test_streams(self):
        file = self.write("t.txt", "The king went into the wood and met a fox. " * 16)
        tokens = len(self.ok("tokenize", "-f", file, "--json").json["ids"])
        measure = lambda *args: self.ok("perplexity", "-f", file, "--mode", "stream", "--json", *args).json
        whole = self.ok("perplexity", "-f", file, "--json").json  # in one window
        for cache in ("dynamic", "none", "window:256", "sink:4,256", "recompute:256"):
            result = measure("--cache", cache, "--series", "100")
            self.assertEqual((result["tokens"], result["cache"], result["every"]), (tokens - 1, cache, 1))
            self.assertAlmostEqual(result["nll"], whole["nll"], delta=1e-6)
            self.assertEqual([entry["end"] for entry in result["series"]], [100, tokens] if tokens < 200 else [100, 200, tokens])
            self.assertEqual(sum(entry["tokens"] for entry in result["series"]), tokens - 1)
        for cache in ("window:24", "sink:4,24", "recompute:24"):
            every, some = measure("--cache", cache), measure("--cache", cache, "--every", "5")
            self.assertEqual((every["tokens"], some["tokens"]), (tokens - 1, (tokens - 1) // 5))
            self.assertNotEqual(every["nll"], whole["nll"])
        # Every token sees what a window of the text up to it would show.
        ids = self.ok("tokenize", "-f", file, "--json").json["ids"]
        data = self.ok("logits", "--tokens", ",".join(map(str, ids[59 - 24:59])), "--json").json["data"]
        last = measure("--cache", "recompute:24", "--max-tokens", "60", "--every", "59")
        self.assertAlmostEqual(last["nll"], -log_softmax(data, ids[59]), delta=1e-5)
        text = self.ok("perplexity", "-f", file, "--mode", "stream", "--cache", "sink:4,24", "--every", "2").text
        self.assertRegex(text, r"(?m)^up to token  perplexity, --cache sink:4,24\n +\d+  [\d.]+\n")
        self.assertRegex(text, r"(?m)^perplexity [\d.]+ ± [\d.]+ \(\d+ tokens, every 2-th of the text, ")
        self.fails("perplexity", "-p", TEXT * 40, "--mode", "stream", says=["the context holds 256", "-c"])
        self.fails("perplexity", "-p", TEXT, "--mode", "stream", "--reference", DEMO, says="--reference")
        self.fails("perplexity", "-p", TEXT, "--mode", "stream", "--stride", "5", says="--stride")
        self.fails("perplexity", "-p", TEXT, "--every", "5", says="--every")

    def test_wrong_input(self):
        self.fails("perplexity", "-f", self.write("e.txt", ""), says="tokens")
        self.fails("perplexity", "-p", TEXT, "-c", "32", "--stride", "33", says=["--stride 33", "32"])
        self.fails("perplexity", "-p", TEXT, "--mode", "chunks", says="256")
        self.fails("perplexity", "-p", TEXT, "-c", "1", says="a context of 1 has nothing to score; give -c 2")
        self.fails("perplexity", "-p", TEXT, "-c", "3", "--mode", "chunks", says="give -c 4 or more")


class Bench(CliTest):
    def test_json(self):
        rows = self.ok("bench", "-p", "16", "-n", "4", "-b", "1,2", "-r", "2", "-o", "json", "-t", "1").json
        self.assertEqual([row["test"] for row in rows], ["pp16", "tg4", "tg4@b2"])
        for row in rows:
            self.assertEqual((row["model"], row["type"], row["threads"]), (os.path.basename(DEMO), "bf16", 1))
            for key in ("tok_s_mean", "tok_s_median", "bytes_per_token", "flops_per_token", "limit_value",
                        "pct_of_limit"):
                self.assertGreater(row[key], 0, key)
            self.assertGreaterEqual(row["tok_s_sd"], 0)
            self.assertIn(row["limit"], ("bandwidth", "bf16", "fp32"))
            self.assertEqual(len(row["tok_s"]), 2)
            self.assertTrue(row["cache_sized"])
        # A step reads the weights once for all of its sequences.
        weights = 3_148_992 * 2
        self.assertAlmostEqual(rows[1]["bytes_per_token"] / weights, 1, delta=0.05)
        self.assertAlmostEqual(rows[2]["bytes_per_token"] / weights, 0.5, delta=0.05)
        self.assertAlmostEqual(rows[1]["flops_per_token"] / weights, 1, delta=0.05)

    def test_every_test_reports_its_own_memory(self):
        large, small = self.ok("bench", "--tests", "pp200,tg2", "-r", "1", "--no-limits", "--json").json
        self.assertEqual(large["attention"], "flash")
        for row in (large, small):
            for key, planned in [("kv_cache_bytes", "kv_cache_bytes"), ("activation_peak_bytes", "activation_bytes")]:
                self.assertLessEqual(row["memory"][key], row["memory_plan"][planned])
                self.assertGreater(row["memory"][key], 0)
        for key in ("kv_cache_bytes", "activation_peak_bytes"):
            self.assertLess(small["memory"][key], large["memory"][key], key)
        self.fails("bench", "--tests", "tg2", "--no-limits", "--memory-limit", "20M", says=["tg2: needs ", " free"])

    def test_tables(self):
        run = self.ok("bench", "--tests", "pp8,tg2@b3@d5", "-r", "1", "--no-limits", "-o", "md")
        self.assertRegex(run.text, r"(?m)^\| demo .*\| tg2@b3@d5 \|")
        self.assertIn("last-level cache", run.text)
        self.assertRegex(self.ok("bench", "-p", "8", "-n", "0", "-r", "1").text, r"pp8 .* % of \w+")

    def test_kernels(self):
        rows = self.ok("bench", "--kernels", "--formats", "q4_k", "-r", "1", "-o", "json", "-t", "2").json
        self.assertEqual([(row["format"], row["tokens"]) for row in rows],
                         [("q4_k", 1), ("q4_k", 4), ("q4_k", 16), ("q4_k", 512)])
        for row in rows:
            self.assertIn(row["limit"], ("bandwidth", "int8", "fp32"))
            for key in ("bytes_per_s", "ops_per_s", "pct_of_limit"):
                self.assertGreater(row[key], 0, key)
        self.fails("bench", "--kernels", "--formats", "q4_k,q9", says=['"q9"', "q4_0", "mxfp4"])
        rows = self.ok("bench", "--kernels", "--formats", "q4_0", "--tokens", "3,20", "-r", "1", "--json").json
        self.assertEqual([row["tokens"] for row in rows], [3, 20])
        self.fails("bench", "--kernels", "--tokens", "0", says=["--tokens"])

    def test_bounded_caches(self):
        rows = self.ok("bench", "--tests", "pp150,tg4@d150,tg4@b2@d90", "-r", "1", "--no-limits", "--json", "--cache",
                       "sink:4,100").json
        for row in rows:
            self.assertEqual((row["cache"], row["memory_plan"]["cached_tokens"]), ("sink:4,100", min(100, 150)
                             if row["test"] != "tg4@b2@d90" else 94))
            self.assertLessEqual(row["memory"]["kv_cache_bytes"], row["memory_plan"]["kv_cache_bytes"])
            self.assertLessEqual(row["memory"]["activation_peak_bytes"], row["memory_plan"]["activation_bytes"])
        self.fails("bench", "--cache", "recompute:8", says=["--cache recompute:8", "bench"])

    def test_bench_ladder(self):
        rows = self.ok("bench", "--ladder", "auto,int8,nf4", "--tests", "tg3,pp20", "-r", "2", "-o", "json").json
        self.assertEqual([(row["test"], row["weights"], row["steps"]) for row in rows],
                         [("tg3", name, 6) for name in ("auto", "int8", "nf4")] +
                         [("pp20", name, 2) for name in ("auto", "int8", "nf4")])
        self.assertEqual([row["type"] for row in rows[:3]], ["bf16", "int8", "nf4"])
        sizes = [row["bytes_per_token"] for row in rows[:3]]
        self.assertTrue(sizes[0] > sizes[1] > sizes[2])
        for row in rows:
            for ratio in (row[key] for key in ("over_first", "over_previous", "pct_of_reading") if key in row):
                self.assertTrue(0 < ratio["lower_quartile"] <= ratio["median"] <= ratio["upper_quartile"])
        self.assertNotIn("over_first", rows[0])
        self.assertIn("over_first", rows[1])
        self.fails("bench", "--ladder", "auto,", says=["--ladder", "empty"])
        self.fails("bench", "--ladder", "auto,none.gguf", says=["none.gguf"])
        self.fails("bench", "--ladder", "auto", "--weights", "int8", says=["--ladder", "--weights"])
        self.fails("bench", "--ladder", "auto", "--memory-limit", "20M", says=["auto: needs ", " free"])

    def test_wrong_tests(self):
        self.fails("bench", "--tests", "pp", says=["--tests", '"pp"'])
        self.fails("bench", "-p", "x", says=["-p", '"x"'])
        self.fails("bench", "-p", "0", "-n", "0", says="no tests")
        self.fails("bench", "-b", "0", says="-b")


class Pack(CliTest):
    def test_packed_files_run_alike(self):
        model = self.copy_demo()
        file = os.path.join(model, "weights.kvpack")
        result = self.ok("pack", model, "-o", file, "--json").json
        self.assertEqual(result["file"], file)
        self.assertEqual(result["bytes"], os.path.getsize(file))
        args = ["generate", "-p", "Once upon a time", "-n", "24", "--temp", "0", "--json"]
        self.assertEqual(self.ok(*args, "-m", file).json["token_ids"], self.ok(*args, "-m", model).json["token_ids"])
        held, mapped = (self.ok("inspect", path, "--json").json["memory"] for path in (model, file))
        self.assertEqual((held["weights_mapped"], mapped["weights_mapped"]), (False, True))
        self.assertEqual(held["needed_bytes"] - mapped["needed_bytes"], held["weights_bytes"])
        self.fails("pack", model, "-o", file, says=[file, "--force"])
        self.ok("pack", model, "-o", file, "--force")
        self.assertEqual([f for f in os.listdir(model) if ".kvpack." in f], [])

    def test_loading_a_folder_finds_its_packed_file(self):
        model = self.copy_demo()
        file = os.path.join(model, "model.kvpack")
        self.assertEqual(self.ok("pack", model, "--json").json["file"], file)
        self.assertTrue(self.ok("inspect", model, "--json").json["memory"]["weights_mapped"])
        self.fails("pack", model, says=[file, "--force"])
        self.fails("pack", file, "--force", says="the model itself")

    def test_damaged_packed_files(self):
        model = self.copy_demo()
        file = os.path.join(model, "model.kvpack")
        self.ok("pack", model)
        content = open(file, "rb").read()
        for name, damaged in [("half", content[:len(content) // 2]), ("head", content[:100]),
                              ("version", content[:8] + b"\xff" + content[9:])]:
            with self.subTest(name):
                with open(file, "wb") as out:
                    out.write(damaged)
                run = kvasir("generate", "-m", file, "-p", "x", "-n", "2")
                # Packing again, said aloud, is as good as an error.
                self.assertTrue(run.code == 1 or "pack" in run.err, run)

    def test_nowhere_to_write(self):
        self.fails("pack", DEMO, "-o", self.path("no/such/folder.kvpack"), says=self.path("no"))


if __name__ == "__main__":
    unittest.main()
