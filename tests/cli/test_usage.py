"""Help, versions, flags, environment variables and exit codes."""

import json
import re
import unittest

from kvasir_cli import VERBS, CliTest, kvasir


class Usage(CliTest):
    def test_overview_lists_every_verb(self):
        for args in (["--help"], ["-h"], ["help"]):
            run = self.ok(*args)
            for verb in VERBS:
                self.assertRegex(run.text, rf"(?m)^  {verb} +\S")
        run = kvasir()
        self.assertEqual(run.code, 2)
        self.assertIn("usage: kvasir VERB", run.err)

    def test_version_names_kernel_sets(self):
        text = self.ok("--version").text
        self.assertRegex(text, r"^kvasir \d+\.\d+\.\d+\n")
        self.assertRegex(text, r"kernels: (\w+) \(available: .*ref\)")

    def test_version_reports_a_forced_kernel_set(self):
        self.assertIn("kernels: ref ", self.ok("--version", env={"KVASIR_ISA": "ref"}).text)

    def test_help_of_every_verb_names_every_flag_and_its_variable(self):
        for verb in VERBS:
            for flag in ("--help", "-h"):
                text = self.ok(*verb.split(), flag).text
            self.assertTrue(text.startswith(f"kvasir {verb} - "), text)
            self.assertIn(f"usage: kvasir {verb}", text)
            flags = re.findall(r"(?m)^  (-.*?)(?:  |$)", text)
            self.assertGreater(len(flags), 3)
            self.assertEqual(len(flags), len(re.findall(r"env:\s+KVASIR_ARG_[A-Z0-9_]+\]", text)), text)
            self.assertLess(max(map(len, text.splitlines())), 120)

    def test_promised_flags_exist(self):
        promised = {
            "generate": "-m -p -f -n --max-new-tokens --n-predict -c --max-model-len --ctx-size -t --threads -b "
                        "--batch-size --temp --temperature --top-k --top-p --min-p --typical-p --repeat-penalty "
                        "--repetition-penalty --presence-penalty --frequency-penalty --no-repeat-ngram --logit-bias "
                        "--min-new-tokens --ignore-eos --stop --seed --num-samples -N --num-beams --length-penalty "
                        "--early-stopping --num-return --cache --pool-tokens --attention --kv-type --dtype --raw --chat --special "
                        "--json --stream --no-stream --verbose",
            "chat": "-m --system --template --temp --seed -c -t",
            "inspect": "-m --json --check-tensors",
            "tokenize": "-m -p -f --decode --json --no-special --no-parse-special",
            "logits": "-m -p --tokens --all --json --npy",
            "perplexity": "-m -f -c --stride --json",
            "bench": "-m -p -n -b -r -o -t",
            "bench serve": "--url --endpoint --api-key --model --prompt-tokens --answer-tokens --requests --range-ratio "
                           "--shared-prefix --trace --trace-requests --time-scale --rate --burstiness --concurrency "
                           "--vocab --goodput --warmup --disconnect --slow-readers --duration --timeout -o "
                           "--per-request --plot --compare --pairs --seed",
            "pack": "-m -o",
        }
        for verb, names in promised.items():
            # Names stand at the front of a flag's line, before two spaces or the line's end.
            heads = re.findall(r"(?m)^  (-.*?)(?:  |$)", self.ok(*verb.split(), "--help").text)
            known = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", " ".join(heads)))
            self.assertEqual(set(names.split()) - known, set(), verb)

    def test_wrong_usage_exits_with_2(self):
        self.fails("genrate", code=2, says=['unknown verb "genrate"', "did you mean generate?"])
        self.fails("quantise-it", code=2, says='unknown verb "quantise-it"')
        self.fails("generate", "--tmep", "1", code=2, says=["unknown flag --tmep", "did you mean --temp?"])
        self.fails("generate", "hello", code=2, says='unexpected argument "hello"')
        self.fails("generate", "-n", code=2, says="needs a value")
        self.fails("generate", "-n", "ten", code=2, says=["--max-new-tokens", '"ten" is not a whole number'])
        self.fails("generate", "--cache", "pages", code=2, says=["--cache", "none|dynamic|static|paged[:N]"])
        self.fails("generate", "--cache", "paged:", code=2, says=["--cache", "paged:64"])
        self.fails("generate", "--cache", "paged:0", code=2, says=["--cache", "paged:0", "16 … 1024"])
        self.fails("generate", "--cache", "paged:17", code=2, says=["--cache", "paged:17", "a multiple of 16"])
        self.fails("generate", "--cache", "paged:1000000000", code=2, says=["--cache", "paged:1000000000", "16 … 1024"])
        self.fails("generate", "--cache", "paged:-16", code=2, says=["--cache", "paged:-16"])
        self.fails("generate", "--cache", "paged:64x", code=2, says=["--cache", "paged:64x"])
        self.fails("generate", "--pool-tokens", "0", code=2, says="--pool-tokens")
        self.fails("generate", "--cache", "window", code=2, says=["--cache", "window:256"])
        self.fails("generate", "--cache", "sink:4,4", code=2, says=["--cache", "sink:4,4", "5 or more"])
        self.fails("generate", "--cache", "sink:0,64", code=2, says=["--cache", "window:64"])
        self.fails("generate", "--cache", "recompute:0", code=2, says=["--cache", "recompute:0"])
        self.fails("generate", "--attention", "atrous:0", code=2, says=["--attention", "atrous: 0 is out of range"])
        self.fails("perplexity", "--attention", "sparse", code=2, says='"sparse" needs a distance, as in sparse:64')
        self.fails("bench", "--attention", "wide", code=2, says="local:K, atrous:K")
        self.fails("inspect", "a", "b", code=2, says='unexpected argument "b"')

    def test_patterns_that_need_slots_to_be_positions(self):
        for attention in ("atrous:4", "sparse:4", "sparse:4,alternate"):
            for cache in ("window:64", "sink:4,64"):
                self.fails("generate", "-p", "x", "--attention", attention, "--cache", cache,
                           says=["--attention atrous", "--attention local:K does"])

    def test_pools_that_cannot_be(self):
        self.fails("generate", "-p", "x", "--pool-tokens", "100", says=["--pool-tokens", "--cache dynamic", "--cache paged"])
        paged = ["generate", "-p", "x", "--cache", "paged", "--pool-tokens"]
        self.fails(*paged, "100", "-c", "200", says=["--pool-tokens 100", "-c 200"])
        self.fails(*paged, "1000000000000", says=["KV cache", "--pool-tokens"])

    def test_sampling_parameters_out_of_range(self):
        for flag, value in [("--top-p", "1.5"), ("--top-p", "0"), ("--top-p", "nan"), ("--temp", "-1"),
                            ("--temp", "inf"), ("--top-k", "-1"), ("--min-p", "2"), ("--typical-p", "0"),
                            ("--repeat-penalty", "0"), ("--repeat-penalty", "-1"), ("--presence-penalty", "2.5"),
                            ("--frequency-penalty", "-3"), ("--min-new-tokens", "-1"), ("--num-beams", "0"),
                            ("--num-samples", "0"), ("--seed", "-2"), ("-c", "0"), ("-t", "0"), ("-b", "0"),
                            ("-n", "-2"), ("--top-k", "99999999999999999999")]:
            with self.subTest(flag=flag, value=value):
                run = self.fails("generate", "-p", "x", flag, value, code=2, says=value)
                self.assertRegex(run.err, "out of range|not a number")

    def test_errors_are_one_json_object_when_asked(self):
        for args, code, word in [(["nonsense", "--json"], 2, "invalid_argument"),
                                 (["generate", "--json", "--top-p", "7"], 2, "invalid_argument"),
                                 (["inspect", "--json", self.path("none")], 1, "not_found"),
                                 (["bench", "-o", "json", "-m", self.path("none")], 1, "not_found")]:
            run = kvasir(*args)
            self.assertEqual(run.code, code, run)
            self.assertEqual(run.out, b"")
            error = json.loads(run.err)["error"]
            self.assertEqual(error["code"], word)
            self.assertTrue(error["message"])
        run = kvasir("inspect", self.path("none"), env={"KVASIR_ARG_JSON": "1"})
        self.assertEqual(json.loads(run.err)["error"]["code"], "not_found")

    def test_environment_sets_flags_and_the_command_line_wins(self):
        base = ["generate", "-p", "Once", "--json", "--ignore-eos"]
        count = lambda run: len(run.json["token_ids"])
        self.assertEqual(count(self.ok(*base, env={"KVASIR_ARG_MAX_NEW_TOKENS": "3"})), 3)
        self.assertEqual(count(self.ok(*base, env={"KVASIR_ARG_N_PREDICT": "4"})), 4)
        self.assertEqual(count(self.ok(*base, "-n", "5", env={"KVASIR_ARG_MAX_NEW_TOKENS": "3"})), 5)
        self.fails(*base[:3], env={"KVASIR_ARG_TOP_P": "2"}, code=2, says=["KVASIR_ARG_TOP_P", "2 is out of range"])

    def test_misspelt_variables_are_told(self):
        run = self.ok("tokenize", "-p", "x", env={"KVASIR_ARG_TEMPERATUR": "1"})
        self.assertIn("KVASIR_ARG_TEMPERATUR belongs to no flag; did you mean KVASIR_ARG_TEMPERATURE?", run.err)
        # A flag of another verb is no mistake.
        self.assertEqual(self.ok("tokenize", "-p", "x", env={"KVASIR_ARG_TEMP": "1"}).err, "")


if __name__ == "__main__":
    unittest.main()
