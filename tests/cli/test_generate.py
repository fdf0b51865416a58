"""kvasir generate."""

import json
import os
import resource
import signal
import subprocess
import time
import unittest

from kvasir_cli import (PROGRAM, SANITIZED, CliTest, environment, kvasir,
                        wait_until_interrupts_are_caught)

PROMPT = "Once upon a time there was a little"


class Generate(CliTest):
    def json(self, *args, **options):
        return self.ok("generate", "--json", *args, **options).json

    def ids(self, *args, **options):
        return self.json("-p", PROMPT, *args, **options)["token_ids"]

    def test_json_has_the_promised_fields(self):
        result = self.json("-p", PROMPT, "-n", "8", "--ignore-eos")
        self.assertEqual(set(result), {"text", "prompt_token_ids", "token_ids", "finish_reason", "timings", "memory",
                                       "memory_plan"})
        self.assertEqual(set(result["timings"]), {"load_ms", "prefill_ms", "decode_ms", "prefill_tokens",
                                                  "cached_tokens", "decode_tokens", "prefill_tok_s", "decode_tok_s"})
        self.assertEqual(set(result["memory"]), {"weights_bytes", "kv_cache_bytes", "activation_peak_bytes",
                                                 "process_peak_bytes"})
        self.assertEqual(len(result["token_ids"]), 8)
        self.assertEqual(result["finish_reason"], "length")
        self.assertEqual(result["timings"]["prefill_tokens"], len(result["prompt_token_ids"]))
        self.assertEqual(result["timings"]["decode_tokens"], 7)
        for number in [*result["timings"].values(), *result["memory"].values()]:
            self.assertGreaterEqual(number, 0)
        self.assertGreater(result["memory"]["weights_bytes"], 6_000_000)
        self.assertGreater(result["timings"]["decode_tok_s"], 0)
        self.assertTrue(result["text"])

    def test_stream_file_and_stdin_give_the_same_text(self):
        expected = self.json("-p", PROMPT, "-n", "20")["text"] + "\n"
        file = self.write("prompt.txt", PROMPT + "\n")
        for args, stdin in [(["-p", PROMPT], b""), (["-f", file], b""), ([], PROMPT.encode() + b"\n"),
                            (["-f", "-"], PROMPT.encode()), (["-p", PROMPT, "--no-stream"], b"")]:
            run = self.ok("generate", "-n", "20", *args, stdin=stdin)
            self.assertEqual(run.text, expected)
            self.assertRegex(run.err, r"prefill \d+ tokens, [\d.]+ tok/s · decode 19 tokens, [\d.]+ tok/s .* thread")
        echoed = self.ok("generate", "-n", "20", "-p", PROMPT, "--echo").text
        self.assertEqual(echoed, PROMPT + expected)

    def test_the_seed_decides(self):
        self.assertEqual(self.ids("--seed", "5"), self.ids("--seed", "5", "-t", "1"))
        self.assertNotEqual(self.ids("--seed", "5"), self.ids("--seed", "6"))
        self.assertNotEqual(self.ids("--seed", "-1", "-n", "40"), self.ids("--seed", "-1", "-n", "40"))

    def test_generation_config_gives_defaults_that_flags_override(self):
        # The demonstration model's own temperature is 0.8 with top-p 0.95.
        self.assertEqual(self.ids("--seed", "3"), self.ids("--seed", "3", "--temp", "0.8", "--top-p", "0.95"))
        self.assertNotEqual(self.ids("--seed", "3"), self.ids("--seed", "3", "--temp", "0"))
        self.assertEqual(self.ids("--seed", "3", "--temp", "0"), self.ids("--seed", "4", "--temp", "0"))
        self.assertEqual(self.ids("--top-k", "1"), self.ids("--temp", "0"))

    def test_greedy_text_does_not_depend_on_how_it_is_computed(self):
        expected = self.ids("--temp", "0", "-n", "48")
        for args in (["--cache", "none"], ["--cache", "static"], ["-t", "1"], ["-b", "3"], ["--cache", "paged"],
                     ["--cache", "paged:16", "--pool-tokens", "100"], ["-c", "200"], ["--cache", "window:100"],
                     ["--cache", "recompute:100"], ["--cache", "sink:4,100"]):
            with self.subTest(args):
                self.assertEqual(self.ids("--temp", "0", "-n", "48", *args), expected)
        # Plain attention adds in another order: in bf16 that may decide between two tokens, in fp32 it must not.
        plain, flash = (self.ids("--temp", "0", "-n", "96", "--dtype", "f32", "--kv-type", "f32", "--attention", kind)
                        for kind in ("plain", "flash"))
        self.assertEqual(plain, flash)

    def test_bounded_caches_write_on_beyond_the_trained_length(self):
        for cache, tokens in [("window:40", 40), ("recompute:24", 24), ("sink:4,40", 40)]:
            for kv_type in ("bf16", "i8", "i4"):
                with self.subTest(cache=cache, kv_type=kv_type):
                    args = ["-p", PROMPT, "-n", "300", "--ignore-eos", "--temp", "0", "--cache", cache, "--kv-type", kv_type]
                    run = self.json(*args)
                    self.assertEqual(len(run["token_ids"]), 300)
                    self.assertEqual(run["memory_plan"]["cached_tokens"], tokens)
                    self.assertLessEqual(run["memory"]["kv_cache_bytes"], run["memory_plan"]["kv_cache_bytes"])
                    self.assertEqual(self.json(*args, "-t", "1")["token_ids"], run["token_ids"])
        whole = self.json("-p", PROMPT, "-n", "2")["memory_plan"]["kv_cache_bytes"]
        part = self.json("-p", PROMPT, "-n", "2", "--cache", "window:100")["memory_plan"]["kv_cache_bytes"]
        self.assertEqual(2 * part, whole)  # one block of 128 tokens, not two
        beams = self.json("-p", PROMPT, "-n", "40", "--num-beams", "3", "--num-return", "2", "--cache", "sink:4,24")
        self.assertEqual(len(beams["samples"]), 2)
        self.assertNotIn("beyond", self.ok("generate", "-p", PROMPT, "-n", "2", "--cache", "sink:4,40").err)

    def test_a_pool_is_all_that_the_sequences_get(self):
        several = ["-p", PROMPT, "-n", "60", "--ignore-eos", "--temp", "3", "--seed", "1", "-N", "4", "--cache", "paged:16"]
        run = self.json(*several)
        self.assertEqual(run["memory"]["kv_cache_bytes"], run["memory_plan"]["kv_cache_bytes"])
        samples = lambda r: [sample["token_ids"] for sample in r["samples"]]
        self.assertEqual(samples(self.json(*several[:-2], "--cache", "dynamic")), samples(run))
        part = self.json(*several, "-c", "100", "--pool-tokens", "400")
        self.assertEqual(samples(part), samples(run))
        self.assertLess(part["memory_plan"]["kv_cache_bytes"], run["memory_plan"]["kv_cache_bytes"])
        self.fails("generate", *several, "-c", "100", "--pool-tokens", "112",
                   says=["the KV cache is full", "0 free blocks of 16", "--pool-tokens"])

    def test_greedy_text_of_an_attention_pattern_does_not_depend_on_how_it_is_computed(self):
        texts = set()
        for pattern in ("local:6", "atrous:3", "sparse:5", "sparse:4,alternate"):
            base = ["--temp", "0", "-n", "32", "--attention", pattern]
            expected = self.ids(*base)
            texts.add(tuple(expected))
            for args in (["--cache", "none"], ["--cache", "static"], ["--cache", "paged:16"], ["-t", "1"], ["-b", "3"]):
                with self.subTest(pattern=pattern, args=args):
                    self.assertEqual(self.ids(*base, *args), expected)
        self.assertEqual(len(texts), 4)
        # Everything lies within these.
        full = self.ids("--temp", "0", "-n", "32")
        for pattern in ("local:1000", "sparse:1000", "atrous:1"):
            self.assertEqual(self.ids("--temp", "0", "-n", "32", "--attention", pattern), full)

    def test_a_session_goes_on_in_another_process(self):
        session = self.path("session")
        for cache in ("dynamic", "static", "paged", "paged:16", "window:20", "sink:4,20", "window:200", "sink:4,200"):
            args = ["-n", "30", "--temp", "0", "--ignore-eos", "--cache", cache]
            first = self.json("-p", PROMPT, *args, "--session", session)
            longer = ["-p", PROMPT + first["text"], *args]
            expected = self.json(*longer)
            run = self.json(*longer, "--session", session)
            self.assertEqual(run["token_ids"], expected["token_ids"])
            if run["prompt_token_ids"] == first["prompt_token_ids"] + first["token_ids"]:
                self.assertEqual(run["timings"]["cached_tokens"], len(run["prompt_token_ids"]) - 1)
            self.assertGreaterEqual(run["timings"]["cached_tokens"], len(first["prompt_token_ids"]))
            other = self.json("-p", "Quite another text", *args, "--session", session)  # shares at most the first token
            self.assertLessEqual(other["timings"]["cached_tokens"], 1)
            os.remove(session)

    def test_sessions_that_cannot_be(self):
        session = self.path("session")
        for args in (["--cache", "none"], ["--num-beams", "2"], ["--num-samples", "2"]):
            run = kvasir("generate", "-p", "x", "-n", "2", "--session", session, *args)
            self.assertEqual(run.code, 1, run)
            self.assertIn("session", run.err)
        self.assertEqual(os.listdir(self.folder), [])
        self.ok("generate", "-p", "x", "-n", "2", "--session", session)
        before = open(session, "rb").read()
        os.symlink(session, self.path("link"))
        for args in (["--kv-type", "i4"], ["--cache", "paged"], ["--cache", "sink:4,64"],
                     ["--session", self.path("link")], ["--attention", "local:3"]):
            self.fails("generate", "-p", "x", "-n", "2", "--session", session, *args, says=": error: ")
        self.assertEqual(open(session, "rb").read(), before)

    def test_a_session_is_whole_whenever_its_writer_is_killed(self):
        session = self.path("session")
        self.ok("generate", "-p", "x", "-n", "2", "--session", session)
        command = [PROGRAM, "generate", "-p", PROMPT, "-n", "200", "--ignore-eos", "--session", session]
        start = time.monotonic()
        subprocess.run(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        whole = time.monotonic() - start
        for i in range(16):
            process = subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(whole * (0.6 + i * 0.03))  # it writes at its end
            process.kill()
            process.wait()
            self.ok("generate", "-p", PROMPT, "-n", "1", "--session", session)  # what is damaged would be refused

    def test_lengths(self):
        ids = self.ids("-n", "-1", "-c", "40", "--ignore-eos")
        prompt = len(self.json("-p", PROMPT, "-n", "1")["prompt_token_ids"])
        self.assertEqual(len(ids) + prompt, 40)
        self.assertGreaterEqual(len(self.ids("--min-new-tokens", "30", "-n", "30")), 30)
        self.fails("generate", "-p", "x", "-n", "0", says="-n 0")

    @unittest.skipIf(SANITIZED, "sanitizers need address space of their own")
    def test_a_tiny_model_runs_in_little_memory(self):
        def limit():  # of address space: program, libraries and one thread take half of it
            resource.setrlimit(resource.RLIMIT_AS, (160 << 20, 160 << 20))

        self.assertTrue(self.ok("generate", "-p", PROMPT, "-n", "4", "-t", "1", preexec=limit).text)
        self.fails("generate", "-p", PROMPT, "-t", "1", "-c", "1000000", says=["needs", "MB free", "for 1000000 tokens"],
                   preexec=limit)

    def test_what_does_not_fit_is_refused_before_it_is_loaded(self):
        self.fails("generate", "-p", "x", "--memory-limit", "20M", says=["needs ", " free: weights 6.3 MB as bf16",
                                                                         "lower precision"])
        self.fails("generate", "-p", "x", "--memory-limit", "1X", code=2, says=["--memory-limit", "1X"])
        # A default context shrinks first, and says so.
        fits = self.json("-p", PROMPT, "-n", "2")["memory_plan"]
        self.assertEqual(fits["context"], 256)

    @unittest.skipIf(SANITIZED, "sanitizers need memory of their own")
    def test_runs_take_no_more_than_planned(self):
        fixtures = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "fixtures", "models")
        runs = [self.json("-p", " ".join(["the"] * 200), "-n", "40", "--ignore-eos", *args)
                for args in ([], ["--attention", "plain"], ["--attention", "sparse:16"],
                             ["--cache", "static", "-N", "3"], ["--kv-type", "f32", "-b", "64"])]
        for name in ("llama-q4_0", "gpt2", "mixtral"):  # without a tokenizer only the tools run
            runs += self.ok("bench", "-m", os.path.join(fixtures, name), "-p", "64", "-n", "4", "-r", "1", "--no-limits",
                            "--json").json
        for run in runs:
            plan, memory = run["memory_plan"], run["memory"]
            self.assertEqual(memory["weights_bytes"], plan["weights_bytes"])
            self.assertLessEqual(memory["kv_cache_bytes"], plan["kv_cache_bytes"])
            self.assertLessEqual(memory["activation_peak_bytes"], plan["activation_bytes"])
            self.assertLessEqual(memory["process_peak_bytes"], plan["process_peak_bytes"])

    def test_stop_strings_end_the_text_before_them(self):
        whole = self.json("-p", PROMPT, "-n", "60", "--temp", "0")["text"]
        word = whole.split()[5]
        run = self.json("-p", PROMPT, "-n", "60", "--temp", "0", "--stop", "never to be found", "--stop", word)
        self.assertEqual(run["text"], whole[:whole.index(word)])
        self.assertEqual(run["finish_reason"], "stop")

    def test_logit_bias_bans_and_forces(self):
        first = self.ids("--temp", "0", "-n", "1")[0]
        self.assertNotEqual(self.ids("--temp", "0", "-n", "1", "--logit-bias", f"{first}=-inf")[0], first)
        self.assertEqual(self.ids("--temp", "0", "-n", "3", "--logit-bias", "77=1e4"), [77, 77, 77])
        self.fails("generate", "-p", "x", "--logit-bias", "5", says=["--logit-bias", "ID=VALUE"])
        self.fails("generate", "-p", "x", "--logit-bias", "999999=1", says="999999")

    def test_samples_share_one_prompt(self):
        result = self.json("-p", PROMPT, "-n", "12", "--ignore-eos", "--num-samples", "3")
        self.assertEqual(len(result["samples"]), 3)
        self.assertEqual(len({tuple(s["token_ids"]) for s in result["samples"]}), 3)
        self.assertEqual(result["samples"][0]["token_ids"], result["token_ids"])
        self.assertEqual(result["token_ids"], self.ids("-n", "12", "--ignore-eos"))
        self.assertEqual(result["timings"]["prefill_tokens"], len(result["prompt_token_ids"]))
        self.assertEqual(result["timings"]["decode_tokens"], 33)
        text = self.ok("generate", "-p", PROMPT, "-n", "12", "-N", "3").text
        self.assertIn("--- 3 of 3 ---", text)

    def test_beams(self):
        result = self.json("-p", PROMPT, "-n", "12", "--num-beams", "4", "--num-return", "2")
        self.assertEqual(len(result["samples"]), 2)
        self.assertGreaterEqual(result["samples"][0]["score"], result["samples"][1]["score"])
        self.fails("generate", "-p", "x", "--num-beams", "2", "--num-return", "3", says="--num-return 3")
        self.fails("generate", "-p", "x", "--num-beams", "2", "-N", "2", says="choose one")
        self.fails("generate", "-p", "x", "--num-return", "2", says="needs --num-beams")

    def test_beams_of_generation_config(self):
        model = self.copy_demo()
        with open(os.path.join(model, "generation_config.json"), "w") as file:
            file.write('{"num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.5, "max_new_tokens": 9}')
        by_config = self.json("-m", model, "-p", PROMPT)
        by_flags = self.json("-p", PROMPT, "--num-beams", "3", "--num-return", "2", "--length-penalty", "0.5", "-n", "9")
        self.assertEqual(by_config["samples"], by_flags["samples"])

    def test_special_tokens_in_the_prompt_are_a_choice(self):
        ids = lambda *args: self.json("-p", "a<|endoftext|>b", "-n", "1", *args)["prompt_token_ids"]
        self.assertEqual(ids().count(0), 2)  # BOS and the one written
        self.assertEqual(ids("--no-parse-special").count(0), 1)

    def test_chat_puts_the_prompt_into_a_template(self):
        template = self.write("t.jinja", "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<bot>")
        result = self.json("--chat", "--template", template, "--system", "Be brief.", "-p", "Hi<|endoftext|>", "-n", "2")
        text = self.ok("tokenize", "--decode", " ".join(map(str, result["prompt_token_ids"]))).text
        self.assertEqual(text, "<system>Be brief.<user>Hi<|endoftext|><bot>")
        self.assertNotIn(0, result["prompt_token_ids"])  # what a user writes is text
        self.fails("generate", "--chat", "-p", "Hi", says=["no chat template", "--template"])
        self.fails("generate", "--system", "x", "-p", "Hi", says="--chat")

    def test_an_empty_prompt_begins_with_bos(self):
        self.assertEqual(self.json("-p", "", "-n", "2")["prompt_token_ids"], [0])


class Ending(CliTest):
    """Endings from outside: nobody reads, the disk is full, Ctrl-C."""

    LONG = ["generate", "-p", PROMPT, "-c", "200000", "-n", "199000", "--ignore-eos", "--kv-type", "bf16"]

    def start(self):
        return subprocess.Popen([PROGRAM, *self.LONG], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, env=environment())

    def test_ends_promptly_and_quietly_when_the_reader_goes(self):
        process = self.start()
        self.assertEqual(len(process.stdout.read(10)), 10)
        process.stdout.close()
        start = time.monotonic()
        code = process.wait(timeout=20)
        self.assertLess(time.monotonic() - start, 2)
        self.assertEqual(code, 1)
        self.assertNotIn("error", process.stderr.read().decode())
        process.stderr.close()

    def test_interrupt_ends_with_figures(self):
        process = self.start()
        process.stdout.read(10)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 130)
        self.assertTrue(out.endswith(b"\n"))
        self.assertIn("tok/s", err.decode())

    def test_interrupt_ends_a_long_prompt_between_its_pieces(self):
        file = self.write("long.txt", "word " * 60000)
        for args in ([], ["--json"], ["--num-beams", "2"]):
            process = subprocess.Popen([PROGRAM, "generate", "-f", file, "-c", "100000", "-b", "64", *args],
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                       env=environment())
            self.addCleanup(process.kill)
            wait_until_interrupts_are_caught(process)
            time.sleep(0.3)
            start = time.monotonic()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
            self.assertLess(time.monotonic() - start, 20 if SANITIZED else 2)
            self.assertEqual(process.returncode, 130, err)
            if args == ["--json"]:
                result = json.loads(out)
                self.assertEqual(result["finish_reason"], "cancelled")
                self.assertEqual(result["token_ids"], [])
                self.assertLess(result["timings"]["prefill_tokens"], len(result["prompt_token_ids"]))
            else:
                self.assertEqual(out.strip(), b"")
                self.assertRegex(err.decode(), r"prefill \d+ tokens")

    def test_full_disk_and_closed_output_are_errors(self):
        with open("/dev/full", "wb") as full:
            run = kvasir("generate", "-p", PROMPT, stdout=full)
        self.assertEqual(run.code, 1)
        self.assertIn("kvasir: error: cannot write to standard output: No space left", run.err)
        for args in (["generate", "-p", PROMPT], ["tokenize", "-p", PROMPT], ["--help"], ["inspect"]):
            run = kvasir(*args, stdout=None, preexec=lambda: os.close(1))
            self.assertEqual(run.code, 1, run)
            self.assertIn("cannot write to standard output", run.err)

    def test_closed_input_and_errors_do_no_harm(self):
        self.assertEqual(kvasir("generate", "-p", PROMPT, "-n", "2", preexec=lambda: os.close(0)).code, 0)
        self.assertEqual(kvasir("generate", "-p", PROMPT, "-n", "2", preexec=lambda: os.close(2)).code, 0)
        self.assertEqual(kvasir("generate", "-n", "2", preexec=lambda: os.close(0)).code, 1)


if __name__ == "__main__":
    unittest.main()
