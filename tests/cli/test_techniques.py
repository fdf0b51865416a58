"""bench techniques: what does not depend on time, the trace, and the page."""

import base64
import hashlib
import html.parser
import os
import re
import unittest

from kvasir_cli import CliTest

HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def waste(used, allocated):
    return 100 * (allocated - used) / allocated


class Page(html.parser.HTMLParser):
    """The tags of a page, those left open, and the text of its style sheet."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.style, self.texts = [], [], "", ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "line", "polyline", "rect"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data
        self.texts += data


class Techniques(CliTest):
    def quick(self, *args):
        return self.ok("bench", "techniques", "--quick", *args)

    def rows(self, *args):
        """By name of the technique."""
        report = self.quick("-o", "json", "-t", "2", *args).json
        self.assertTrue(report["quick"])
        self.assertEqual(report["threads"], 2)
        self.assertGreater(report["limits"]["read_bytes_per_s"], 0)
        return {t["name"]: t["rows"] for t in report["techniques"]}

    def test_memory_of_attention(self):
        rows = self.rows("--only", "N5")["attention-memory"]
        self.assertEqual([row["tokens"] for row in rows], [256, 512, 1024, 2048])
        self.assertEqual(len({row["a2_scratch_bytes"] for row in rows}), 1, rows)
        self.assertGreater(rows[0]["a2_scratch_bytes"], 0)
        self.assertEqual([row["a1_source"] for row in rows], ["measured", "measured", "computed", "computed"])
        for row in rows:
            t = row["tokens"]
            self.assertEqual(row["a1_score_bytes_per_head"], 4 * t * t)
            # Keys and values of the one KV head in fp32 besides.
            self.assertEqual(row["a1_scratch_bytes"], row["heads"] * 4 * t * t + 2 * 4 * t * row["head_dim"])
            self.assertEqual(row["n5_bytes"], 40 * 2 * t * t)

    def test_attention_computes_the_same_either_way(self):
        for row in self.rows("--only", "attention-speed")["attention-speed"]:
            # bf16 rounds the weights of values around 1.
            self.assertLess(row["greatest_difference"], 6e-3 if row["kv_type"] == "bf16" else 1e-5, row)
            self.assertGreater(row["a2_flops_per_s"], 0)

    def test_bytes_and_work(self):
        rows = self.rows("--only", "A3,A6,K7")
        # A key and a value of 128 channels: 2 or 4 bytes each; a byte and a scale; half a byte, and scale and minimum
        # for 32 channels.
        per_head = {"f32": 1024, "bf16": 512, "f16": 512, "i8": 2 * (128 + 2), "i4": 2 * (64 + 4 * 4)}
        for row in rows["attention-decode"]:
            heads = {"GQA 8:1": 4, "MHA": 8}[row["heads"]]
            self.assertEqual(row["kv_bytes"], row["tokens"] * heads * per_head[row["kv_type"]])
        t, k = 1024, 64
        full = t * (t + 1) // 2
        seen = {"local:256": sum(min(i + 1, 257) for i in range(t)), "atrous:64": sum(i // k + 1 for i in range(t)),
                "sparse:64": sum(min(i, k) + 1 + max(i // k - 1, 0) for i in range(t))}
        for row in rows["attention-patterns"]:
            self.assertAlmostEqual(row["work_ratio"], full / seen[row["attention"]], places=5, msg=row)
        types = {row["kv_type"]: row for row in rows["kv-types"]}
        self.assertEqual(types["bf16"]["bytes_per_token"], 6 * 2 * 2 * 32 * 2)
        self.assertEqual(types["i8"]["bytes_per_token"], 816)
        self.assertEqual(types["i4"]["bytes_per_token"], 480)
        self.assertEqual(types["bf16"]["cache_bytes"], 128 * types["bf16"]["bytes_per_token"])
        self.assertEqual(types["f32"]["pct_of_bf16_bytes"], 200)

    def test_with_and_without_a_cache(self):
        rows = self.rows("--only", "K1", "-n", "10")["cache-ratio"]
        self.assertEqual([row["cache"] for row in rows], ["none (K1)", "dynamic (K2)"])
        for row in rows:
            self.assertEqual(row["new_tokens"], 10)
            self.assertGreater(row["seconds"], 0)

    def test_turns_run_only_what_is_new(self):
        rows = self.rows("--only", "K5")["many-turns"]
        self.assertEqual([row["prompt_tokens"] for row in rows], [40, 84, 128])
        # The last token of an answer has not been run yet; blocks of the tree are of 32 tokens.
        self.assertEqual([row["computed_kept"] for row in rows], [40, 41, 41])
        self.assertEqual([row["computed_tree"] for row in rows], [40, 84 - 32, 128 - 64])

    def test_waste_over_a_trace(self):
        # Blocks hold 128 tokens. The requests end at 128, 129, 1, 8192 and 9000 tokens.
        trace = self.write("t.csv", HEADER + "x,100,28\r\nx,129,0\r\nx,0,1\r\nx,8000,192\r\nx,1000,8000\n")
        rows = self.rows("--only", "A4", "--trace", trace)["cache-waste"]
        lengths = [128, 129, 1, 8192, 9000]
        blocks = {row["policy"].split("(")[1]: row for row in rows if "dynamic" in row["policy"]}["dynamic)"]
        self.assertEqual(blocks["requests"], 5)
        self.assertEqual(blocks["used_slots"], sum(lengths))
        self.assertEqual(blocks["allocated_slots"], 128 + 256 + 128 + 8192 + 9088)
        self.assertAlmostEqual(blocks["waste_pct"], waste(17450, 17792), places=4)
        paged = next(row for row in rows if "paged" in row["policy"])
        self.assertEqual((paged["block_slots"], paged["allocated_slots"]), (32, 128 + 160 + 32 + 8192 + 9024))
        longest, usual = [row for row in rows if "static" in row["policy"]]
        self.assertEqual((longest["context"], longest["refused"], longest["allocated_slots"]), (9000, 0, 5 * 9088))
        self.assertAlmostEqual(longest["waste_pct"], waste(17450, 45440), places=4)
        self.assertEqual((usual["context"], usual["refused"], usual["requests"]), (8192, 1, 4))
        self.assertEqual((usual["used_slots"], usual["allocated_slots"]), (8450, 4 * 8192))
        self.assertAlmostEqual(usual["waste_pct"], waste(8450, 32768), places=4)
        text = self.quick("--only", "A4", "--trace", trace).text
        self.assertRegex(text, r"(?m)^blocks as the text grows \(dynamic\) +128 +9000 +5 +0 +17450 +17792 +1\.92$")

    def stream_text(self):
        """A text that does not say the same again and again."""
        words = "the fox saw a bird who sang of rain and then they all went home to sleep by an old stone".split()
        return self.write("s.txt", " ".join(words[(i * i + i // 7) % len(words)] + "." * (i % 11 == 0) for i in range(6000)))

    def test_a_stream_is_scored_as_perplexity_does(self):
        text = self.stream_text()
        rows = self.rows("--only", "A10", "--text", text)["streaming"]
        self.assertEqual([row["cache"] for row in rows],
                         ["window:32", "recompute:32", "sink:4,32", "every token kept (not run)"])
        for row, every in zip(rows, (1, 25, 1)):
            verb = self.ok("perplexity", "-f", text, "--mode", "stream", "--max-tokens", "320", "--series", "64",
                           "--every", str(every), "--cache", row["cache"], "-t", "2", "--json").json
            self.assertEqual(row["scored_tokens"], verb["tokens"])
            self.assertAlmostEqual(row["ppl"], verb["ppl"], places=9)
            for i, entry in enumerate(verb["series"]):
                self.assertAlmostEqual(row[f"ppl_{i + 1}"], entry["ppl"], places=9)
            self.assertGreater(row["ms_per_token"], 0)
        token = 6 * 2 * 2 * 32 * 2
        # A block of 128 slots; the sinks' keys before rotation in fp32 besides.
        self.assertEqual([row["cache_bytes"] for row in rows],
                         [128 * token, 128 * token, 128 * token + 4 * token, 320 * token])
        self.assertEqual(rows[2]["time_ratio"], 1)
        self.assertIsNone(rows[3]["ppl"])
        page = self.path("r.html")
        self.quick("--only", "streaming", "--text", text, "--stream-tokens", "300", "--html", page)
        with open(page, encoding="utf-8") as file:
            parsed = Page(file.read())
        self.assertEqual([tag for tag, _ in parsed.tags].count("svg"), 1)
        self.assertIn("Perplexity over a stream", parsed.texts)
        self.assertIn("sink:4,32", parsed.texts)

    def test_wrong_texts(self):
        bench = ("bench", "techniques", "--quick")
        self.fails(*bench, "--only", "A11", says=["--only A11", "--text FILE"])
        text = self.stream_text()
        self.fails(*bench, "--only", "A2", "--text", text, says=["--text is for A9 to A11", "--only A2"])
        self.fails(*bench, "--text", self.path("none"), says="none")
        self.fails(*bench, "--text", self.folder, says="directory")
        self.fails(*bench, "--text", self.write("short.txt", "A fox."), says=["short.txt: has", "250 at least"])
        self.fails(*bench, "--text", self.write("bad.txt", b"caf\xe9 " * 400), says=["bad.txt: is not valid UTF-8"])
        self.fails(*bench, "--text", text, "--stream-tokens", "249", code=2, says=["--stream-tokens", "250"])
        model = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "models", "llama")
        self.fails(*bench, "--only", "A11", "--text", text, "-m", model, says="tokenizer")

    def test_wrong_traces(self):
        for content, says in [("", "is empty"), (HEADER, "no requests"), ("a,b\n1,2\n", "line 1 names no columns"),
                              (HEADER + "x,1\n", "line 2 has 2 fields"), (HEADER + "x,1,2\nx,-1,2\n", "line 3"),
                              (HEADER + "x,99999999999999999999,2\n", "line 2: ContextTokens"),
                              (HEADER + "x,1\0,2\n", "line 2: ContextTokens is \"1^@\""),
                              (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "line 1 names no columns")]:
            self.fails("bench", "techniques", "--quick", "--only", "A4", "--trace", self.write("t.csv", content),
                       says=["t.csv", says])
        self.fails("bench", "techniques", "--trace", self.path("none"), says="no such file")
        self.fails("bench", "techniques", "--trace", self.folder, says="a directory")

    def test_the_page(self):
        trace = self.write("t.csv", HEADER + "x,100,28\n")
        page = self.path("r.html")
        out = self.quick("--only", "A2,A4,A6", "--trace", trace, "--html", page).text
        self.assertIn("attention-memory", out)
        with open(page, encoding="utf-8", newline="") as file:
            text = file.read()
        parsed = Page(text)
        self.assertEqual(parsed.open, [])
        tags = [tag for tag, _ in parsed.tags]
        self.assertEqual(tags.count("svg"), 5)
        self.assertEqual(tags.count("table"), 4)
        for tag in ("script", "link", "img", "iframe", "object", "embed", "base", "form", "foreignobject"):
            self.assertNotIn(tag, tags)
        for tag, attributes in parsed.tags:
            for name, value in attributes.items():
                self.assertFalse(name.startswith("on") or name in ("src", "style"), (tag, name))
                self.assertTrue(name != "href" or value.startswith("#"), value)
        policy = next(a["content"] for _, a in parsed.tags if a.get("http-equiv") == "Content-Security-Policy")
        digest = base64.b64encode(hashlib.sha256(parsed.style.encode()).digest()).decode()
        self.assertEqual(policy, f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'")
        self.assertNotRegex(parsed.style, r"url\(|@import|@font-face")
        self.assertNotRegex(text, r"\bnan\b|\binf\b")
        self.assertIn("tokens of the prompt", parsed.texts)
        self.assertEqual(os.listdir(self.folder).count("r.html"), 1)
        self.assertFalse([name for name in os.listdir(self.folder) if name.endswith(".tmp")])

    def test_forms(self):
        self.assertRegex(self.quick("--only", "A6", "-o", "md").text, r"(?m)^\|---\|---\|--:\|")
        everything = self.quick("--json", "-n", "4").json["techniques"]
        self.assertEqual(len(everything), 11)
        for id, flag in (("A4", "--trace FILE"), ("A11", "--text FILE")):
            skipped = next(t for t in everything if id in t["ids"])
            self.assertEqual(skipped["rows"], [])
            self.assertIn(flag, skipped["notes"][0])

    def test_requests_that_come_and_go(self):
        rows = self.rows("--only", "V2,V3")
        padded, ragged, continuous, by_time = rows["batching"]
        # A step is a pass; answers of 16 tokens at most, four requests at once, three batches.
        self.assertEqual(padded["ratio_to_padded"], 1)
        self.assertLess(continuous["steps"], ragged["steps"])
        self.assertLessEqual(continuous["steps"], by_time["steps"])  # the same tokens, in pieces
        self.assertLessEqual(ragged["steps"], padded["steps"])
        alone, whole, *chunked = rows["chunked-prefill"]
        self.assertIsNone(alone["longest_ms"])
        self.assertEqual(alone["first_token_ratio"], 1)
        self.assertEqual([row["steps"] for row in chunked],
                         ["steps of 16 tokens (V3)", "steps of 64 tokens (V3)",
                          "steps by time: at most 2 times as long (V3)"])
        for row in (whole, *chunked):
            self.assertGreater(row["longest_ms"], 0)
        pairs = self.rows("--only", "V2", "--at-once", "2")["batching"]
        self.assertGreater(pairs[1]["steps"], ragged["steps"])
        # Requests of a trace: of 2 and 3 tokens in answer, which two steps more end.
        trace = self.write("few.csv", HEADER + "x,5,2\nx,3,3\n")
        for row in self.rows("--only", "V1", "--trace", trace)["batching"]:
            self.assertEqual(row["steps"], 3)

    def test_flags_that_cannot_be(self):
        fails = self.fails
        fails("bench", "techniques", "--only", "A99", says=['--only: "A99" is none of attention-memory (A1 A2 N5)'])
        fails("bench", "techniques", "--only", "A2,", says='--only: ""')
        fails("bench", "techniques", "--only", "A4", says=["--only A4", "--trace FILE"])
        fails("bench", "techniques", "--only", "A2", "--trace", self.write("t.csv", HEADER + "x,1,1\n"),
              says=["--trace is for A4 and V2", "--only A2"])
        fails("bench", "techniques", "--only", "K2", "-m", self.path("none"), says="none")
        fails("bench", "techniques", "--only", "A6", "--html", self.path("no/such/r.html"), says="--html")
        fails("bench", "techniques", "--longest", "1000", code=2, says=["--longest", "1024 … 32768"])
        fails("bench", "techniques", "--at-once", "1", code=2, says=["--at-once", "2 … 256"])
        fails("bench", "techniques", "-r", "0", code=2, says="--repetitions")
        fails("bench", "techniques", "--no-limits", code=2, says="unknown flag --no-limits")
        fails("bench", "techniques", "extra", code=2, says='unexpected argument "extra"')
        run = fails("bench", "technique", says="technique")  # a model of that name is not there
        self.assertNotIn("unknown verb", run.err)

    def test_more_tokens_than_a_model_has_positions(self):
        fixtures = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "models")
        learned = os.path.join(fixtures, "gpt2")
        self.assertTrue(os.path.isdir(learned))
        rows = self.rows("--only", "K7", "-m", learned)["kv-types"]
        self.assertEqual(len(rows), 5)
        self.fails("bench", "techniques", "--quick", "--only", "K2", "-m", learned, "-n", "5000",
                   says=["cache-ratio", "positions"])


if __name__ == "__main__":
    unittest.main()
