"""bench serve against a server whose delays and failures are known.

Times of a busy machine are never less than what the server waits, and may be far more: lower bounds are exact (but for
the clocks' difference), upper ones generous.
"""

import signal
import subprocess
import time
import unittest
import xml.etree.ElementTree as ET

from fake_openai_server import FakeServer, closed_port
from kvasir_cli import PROGRAM, SANITIZED, CliTest, environment, wait_until_interrupts_are_caught

SLACK_MS = 400 if not SANITIZED else 4000
CLOCK_MS = 2  # a sleep of the server may end that much earlier than it was asked to
HEADER = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


class BenchServe(CliTest):
    def bench(self, server, *args, **options):
        """The summary, settings and requests of a run."""
        return self.ok("bench", "serve", "--url", server.url, "-o", "json", "--per-request", *args, **options).json

    def assert_near(self, value, expected, tokens=1):
        self.assertGreaterEqual(value, expected - CLOCK_MS)
        self.assertLessEqual(value, expected + SLACK_MS / tokens)


class Latencies(BenchServe):
    def test_times_are_those_of_the_server(self):
        for endpoint in ("completions", "chat"):
            with FakeServer(first=0.12, step=0.03) as server:
                result = self.bench(server, "--endpoint", endpoint, "--requests", "6", "--concurrency", "3",
                                    "--prompt-tokens", "20", "--answer-tokens", "11")
            summary = result["summary"]
            self.assertEqual([summary[key] for key in ("requests", "served", "failed", "hung_up")], [6, 6, 0, 0])
            self.assertEqual(summary["answer_tokens"], 66)
            for key in ("mean", "median", "p50", "p90", "p95", "p99", "max"):
                self.assert_near(summary["ttft_ms"][key], 120)
                self.assert_near(summary["tpot_ms"][key], 30, tokens=2)
                self.assert_near(summary["e2e_ms"][key], 120 + 10 * 30)
            self.assertEqual(summary["itl_ms"]["count"], 60)  # ten between eleven, the role of a chat is none
            self.assert_near(summary["itl_ms"]["mean"], 30, tokens=2)
            # Two rounds of three.
            self.assertGreaterEqual(summary["duration_s"], 2 * 0.42 - 0.01)
            self.assertAlmostEqual(summary["answer_tokens_per_s"], 66 / summary["duration_s"], places=4)
            self.assertAlmostEqual(summary["requests_per_s"], 6 / summary["duration_s"], places=4)
            self.assertEqual(summary["cached_tokens"], 18)
            self.assertEqual(summary["peak_running"], 3)
            self.assertEqual(server.peak, 3)
            self.assertEqual(result["settings"]["endpoint"], endpoint)

    def test_every_request_has_its_times(self):
        with FakeServer(first=0.05, step=0.02, per_chunk=2) as server:
            result = self.bench(server, "--requests", "4", "--answer-tokens", "7", "--prompt-tokens", "9")
        self.assertEqual(sorted(request["index"] for request in result["requests"]), [0, 1, 2, 3])
        for request in result["requests"]:
            self.assertEqual(request["fate"], "served")
            self.assertEqual(request["prompt_tokens"], 9)
            self.assertEqual(request["answer_tokens"], 7)
            self.assertEqual(request["finish_reason"], "length")
            pieces = request["pieces_ms"]
            self.assertEqual(len(pieces), 4)  # of two tokens, the last one of one
            self.assertEqual(pieces, sorted(pieces))
            self.assertAlmostEqual(request["ttft_ms"], pieces[0])
            self.assertAlmostEqual(request["tpot_ms"], (pieces[-1] - pieces[0]) / 6, places=4)
            self.assert_near(pieces[-1] - pieces[0], 60)
            self.assertGreaterEqual(request["e2e_ms"], pieces[-1])

    def test_without_usage_chunks_are_counted(self):
        with FakeServer(usage=False) as server:
            summary = self.bench(server, "--requests", "3", "--answer-tokens", "5", "--prompt-tokens", "8")["summary"]
        self.assertEqual(summary["answer_tokens"], 15)
        self.assertEqual(summary["prompt_tokens"], 24)
        self.assertEqual(summary["counted_by_piece"], 3)

    def test_answers_that_are_too_short_are_said(self):
        with FakeServer(ignores_eos=False) as server:
            run = self.ok("bench", "serve", "--url", server.url, "--requests", "3", "--answer-tokens", "9")
            self.assertIn("3 answers have fewer tokens than were asked for", run.text)
            self.assertRegex(run.text, r"answer tokens +6\n")

    def test_goodput(self):
        with FakeServer(first=0.2, step=0.01) as server:
            args = ["--requests", "4", "--answer-tokens", "3", "--goodput"]
            summary = self.bench(server, *args, "ttft:60000,tpot:60000,e2el:60000")["summary"]
            self.assertAlmostEqual(summary["good_per_s"], summary["requests_per_s"])
            self.assertEqual(self.bench(server, *args, "ttft:190")["summary"]["good_per_s"], 0)
            self.assertEqual(self.bench(server, *args, "ttft:60000,e2el:200")["summary"]["good_per_s"], 0)


class Requests(BenchServe):
    def test_prompts_are_ids_of_the_lengths_asked_for(self):
        with FakeServer() as server:
            self.bench(server, "--requests", "40", "--prompt-tokens", "20", "--range-ratio", "0.5", "--answer-tokens",
                       "4", "--shared-prefix", "6", "--vocab", "100", "--seed", "3")
            bodies = server.asked()
            self.bench(server, "--requests", "40", "--prompt-tokens", "20", "--range-ratio", "0.5", "--answer-tokens",
                       "4", "--shared-prefix", "6", "--vocab", "100", "--seed", "3")
            by_text = lambda asked: sorted(map(str, asked))
            self.assertEqual(by_text(server.asked()[40:]), by_text(bodies))
        prompts = [body["prompt"] for body in bodies]
        self.assertEqual(len({tuple(prompt[:6]) for prompt in prompts}), 1)
        self.assertEqual(len({tuple(prompt[6:]) for prompt in prompts}), 40)
        self.assertGreater(len({len(prompt) for prompt in prompts}), 5)
        for body in bodies:
            self.assertTrue(16 <= len(body["prompt"]) <= 36)
            self.assertTrue(2 <= body["max_tokens"] <= 6)
            self.assertTrue(all(25 <= token < 100 for token in body["prompt"]))
            self.assertEqual(body["model"], "fake-model")
            self.assertIs(body["ignore_eos"], True)
            self.assertEqual(body["stream_options"], {"include_usage": True})

    def test_words_are_one_token_each_where_the_server_says_so(self):
        with FakeServer(takes_ids=False) as server:
            result = self.bench(server, "--requests", "3", "--prompt-tokens", "30")
        self.assertEqual(result["settings"]["prompts"], "text")
        for body in server.asked():
            words = body["prompt"].split()
            self.assertEqual(len(words), 29)  # the fake server adds one token to every text
            self.assertLessEqual(set(words), {"the", "and"})
        self.assertEqual(result["summary"]["prompt_tokens"], 90)

    def test_words_where_the_server_counts_none(self):
        with FakeServer(tokenize=False) as server:
            run = self.ok("bench", "serve", "--url", server.url, "--endpoint", "chat", "--requests", "2",
                          "--prompt-tokens", "30", "--extra-body", '{"cache_salt": "s", "temperature": 0.5}')
        self.assertIn("the server has no /tokenize", run.err)
        for body in server.asked("/v1/chat/completions"):
            self.assertEqual(len(body["messages"][0]["content"].split()), 30)
            self.assertEqual((body["cache_salt"], body["temperature"]), ("s", 0.5))

    def test_keys_and_models(self):
        with FakeServer(api_key="secret-key", model="another") as server:
            args = ["bench", "serve", "--url", server.url + "/v1", "--requests", "2"]
            run = self.ok(*args, "--api-key", "secret-key", "-o", "json")
            self.assertEqual(run.json["settings"]["model"], "another")
            self.assertNotIn(b"secret-key", run.out)
            self.ok(*args, "--model", "mine", env={"KVASIR_ARG_API_KEY": "secret-key"})
            self.assertEqual(server.asked()[-1]["model"], "mine")
            self.fails(*args, "--api-key", "wrong", says=["status 401", "who are you?"])
            self.fails(*args, "--api-key", "a\r\nX: y", says="--api-key")

    def test_warming_up_does_not_count(self):
        with FakeServer(failures=[None] * 5 + [500]) as server:
            result = self.bench(server, "--requests", "4", "--warmup", "5", "--prompt-tokens", "12")
            self.assertEqual(result["summary"]["requests"], 4)
            self.assertEqual(result["summary"]["failures"]["status 500"]["count"], 1)
            self.assertEqual(len(server.asked()), 9)
            self.assertEqual(len({tuple(body["prompt"]) for body in server.asked()}), 9)
        with FakeServer(failures=[503]) as server:
            self.fails("bench", "serve", "--url", server.url, "--warmup", "1", says=["warming up", "status 503"])


class Arrivals(BenchServe):
    def test_a_rate_spreads_requests_over_time(self):
        with FakeServer() as server:
            result = self.bench(server, "--requests", "60", "--rate", "60", "--answer-tokens", "1", "--seed", "5")
        due = [request["due_s"] for request in sorted(result["requests"], key=lambda r: r["index"])]
        self.assertEqual(due[0], 0)
        self.assertEqual(due, sorted(due))
        self.assertTrue(0.4 < due[-1] < 2, due)
        for request in result["requests"]:
            self.assertGreaterEqual(request["start_s"], request["due_s"] - 1e-6)
        self.assertGreaterEqual(result["summary"]["duration_s"], due[-1])

    def test_a_trace_brings_lengths_and_times(self):
        trace = self.write("t.csv", HEADER + "2024-02-29 23:59:59.5,30,3\n2024-02-29 23:59:59.7,9000,1\n"
                           "2024-03-01 00:00:00.5,20,2\n2024-03-01 00:00:01.5,10,4\n2024-03-01 09:00:00,1,1\n")
        with FakeServer() as server:
            args = ["--trace", trace, "--trace-longest", "1000", "--trace-requests", "3"]
            result = self.bench(server, *args, "--time-scale", "0.25")
            asked = server.asked()
            self.assertEqual([len(body["prompt"]) for body in asked], [30, 20, 10])
            self.assertEqual([body["max_tokens"] for body in asked], [3, 2, 4])
            self.assertEqual([request["due_s"] for request in result["requests"]], [0, 0.25, 0.5])
            self.assertGreaterEqual(server.arrivals[-1] - server.arrivals[-3], 0.5 - 0.05)
            # A rate takes the lengths alone.
            result = self.bench(server, *args, "--rate", "inf", "--requests", "2")
            self.assertEqual([request["due_s"] for request in result["requests"]], [0, 0])

    def test_a_duration_ends_the_arrivals(self):
        with FakeServer(first=0.05) as server:
            result = self.bench(server, "--duration", "0.6", "--concurrency", "2", "--answer-tokens", "1")
        self.assertTrue(all(request["start_s"] < 0.6 for request in result["requests"]))
        self.assertGreaterEqual(result["summary"]["requests"], 2)
        self.assertLessEqual(result["summary"]["requests"], 2 * (0.6 / 0.048 + 1))

    def test_many_connections_at_once(self):
        with FakeServer(first=1.5) as server:
            result = self.bench(server, "--requests", "500", "--prompt-tokens", "4", "--answer-tokens", "2")
        self.assertEqual(result["summary"]["served"], 500)
        # All are there before the first one gets its token, unless the machine is very busy.
        self.assertGreater(server.peak, 100)
        self.assertGreater(result["summary"]["peak_running"], 100)


class Failures(BenchServe):
    def test_each_failure_is_counted_by_its_kind_and_never_as_served(self):
        failures = [429, 500, "broken", "garbage", "error", "hang", "empty", "plain", "reset", 429]
        with FakeServer(failures=failures) as server:
            result = self.bench(server, "--requests", "14", "--concurrency", "1", "--answer-tokens", "6",
                                "--timeout", "1.5")
        summary = result["summary"]
        self.assertEqual([summary["requests"], summary["served"], summary["failed"]], [14, 4, 10])
        self.assertEqual(summary["answer_tokens"], 24)
        self.assertEqual(summary["ttft_ms"]["count"], 4)
        kinds = {kind: failure["count"] for kind, failure in summary["failures"].items()}
        self.assertEqual(kinds, {"status 429": 2, "status 500": 1, "broken stream": 3, "error in the stream": 1,
                                 "timeout": 1, "no token": 1, "connection": 1})
        self.assertEqual(summary["failures"]["status 429"]["first"], "failure 429")
        self.assertEqual(summary["failures"]["error in the stream"]["first"], "the model fell over")
        fates = {request["index"]: request["fate"] for request in result["requests"]}
        self.assertEqual([fates[i] for i in range(10)],
                         ["status 429", "status 500", "broken stream", "broken stream", "error in the stream",
                          "timeout", "no token", "broken stream", "connection", "status 429"])
        details = {request["index"]: request["detail"] for request in result["requests"]}
        self.assertIn("ended before the reply did", details[2])
        self.assertIn("a chunk of the stream", details[3])
        self.assertIn("text/event-stream", details[7])
        self.assertEqual(len(next(r for r in result["requests"] if r["index"] == 2)["pieces_ms"]), 3)

    def test_nothing_served_is_an_error(self):
        with FakeServer(failures=[500] * 9) as server:
            run = self.fails("bench", "serve", "--url", server.url, "--requests", "3", within=20,
                             says="no request was served; status 500: failure 500")
            self.assertRegex(run.text, r"served +0 of 3 requests")
        with closed_port() as port:
            self.fails("bench", "serve", "--url", f"http://127.0.0.1:{port}", says="cannot connect")

    def test_clients_that_hang_up(self):
        with FakeServer(step=0.01) as server:
            result = self.bench(server, "--requests", "30", "--disconnect", "0.5", "--answer-tokens", "10", "--seed", "1")
            deadline = time.monotonic() + 20
            while server.running and time.monotonic() < deadline:
                time.sleep(0.01)
        summary = result["summary"]
        self.assertGreater(summary["hung_up"], 4)
        self.assertGreater(summary["served"], 4)
        self.assertEqual(summary["failed"], 0)
        self.assertEqual(summary["served"] + summary["hung_up"], 30)
        self.assertEqual(summary["answer_tokens"], 10 * summary["served"])
        self.assertEqual(summary["ttft_ms"]["count"], summary["served"])
        lengths = {len(request["pieces_ms"]) for request in result["requests"] if request["fate"] == "hung up"}
        self.assertGreater(len(lengths), 2)
        self.assertLessEqual(max(lengths), 10)

    def test_slow_readers_are_served_and_not_measured(self):
        with FakeServer(padding=400) as server:
            result = self.bench(server, "--requests", "12", "--slow-readers", "0.5", "--answer-tokens", "8")
        slow = [request for request in result["requests"] if request["slow"]]
        self.assertTrue(0 < len(slow) < 12)
        self.assertEqual(result["summary"]["served"], 12)
        self.assertEqual(result["summary"]["slow"], len(slow))
        self.assertEqual(result["summary"]["ttft_ms"]["count"], 12 - len(slow))
        # 3200 bytes and more, 512 at a time, with pauses of 50 ms.
        self.assertTrue(all(request["e2e_ms"] > 300 for request in slow))

    def test_connections_that_the_server_closes(self):
        with FakeServer(keep_alive=False) as server:
            self.assertEqual(self.bench(server, "--requests", "20", "--concurrency", "2")["summary"]["served"], 20)
            self.assertGreaterEqual(server.connections, 20)
        with FakeServer() as server:
            self.assertEqual(self.bench(server, "--requests", "20", "--concurrency", "2")["summary"]["served"], 20)
            self.assertLess(server.connections, 10)

    def test_interrupts_end_the_run(self):
        with FakeServer(first=60) as server:
            process = subprocess.Popen([PROGRAM, "bench", "serve", "--url", server.url], env=environment(),
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            wait_until_interrupts_are_caught(process)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, err)
        self.assertEqual(out, b"")


class Output(BenchServe):
    def test_the_picture_is_one(self):
        picture = self.path("load.svg")
        with FakeServer(first=0.02, step=0.005) as server:
            self.ok("bench", "serve", "--url", server.url, "--requests", "5", "--plot", picture)
        root = ET.parse(picture).getroot()
        self.assertEqual(root.tag, "{http://www.w3.org/2000/svg}svg")
        texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
        self.assertLessEqual({"TTFT", "TPOT", "inter-token", "end to end", "milliseconds", "tokens/s"}, texts)
        lines = [element for element in root.iter("{http://www.w3.org/2000/svg}polyline")]
        self.assertEqual(len(lines), 6)
        self.assertFalse(any(element.tag.endswith("script") for element in root.iter()))

    def test_two_servers_are_compared(self):
        with FakeServer(first=0.04, step=0.004) as first, FakeServer(first=0.4, step=0.04, model="b") as second:
            args = ["bench", "serve", "--url", first.url, "--compare", second.url, "--pairs", "3", "--requests", "2",
                    "--answer-tokens", "6"]
            result = self.ok(*args, "-o", "json").json
            self.assertEqual(len(result["pairs"]), 3)
            self.assertEqual(result["compared_model"], "b")
            # Both were asked the same, and in every pair something new.
            prompts = [sorted(str(body["prompt"]) for body in server.asked()) for server in (first, second)]
            self.assertEqual(*prompts)
            self.assertEqual(len(set(prompts[0])), 6)
            for key in ("ttft_ms_median", "tpot_ms_median", "e2e_ms_median"):
                ratio = result["ratios"][key]
                self.assertLess(ratio["ratio"], 0.9)
                self.assertLessEqual(ratio["low"], ratio["ratio"])
                self.assertGreaterEqual(ratio["high"], ratio["ratio"])
                self.assertAlmostEqual(ratio["coverage"], 0.75)
            self.assertGreater(result["ratios"]["answer_tokens_per_s"]["ratio"], 1.1)
            text = self.ok(*args).text
            self.assertRegex(text, r"TTFT ms, median +\S+ +\S+ +0\.\d+ +0\.\d+ – 0\.\d+ \(only 75 %: too few pairs\)")

    def test_wrong_usage(self):
        usage = lambda *args, says: self.fails("bench", "serve", *args, code=2, says=says)
        usage("--url", "127.0.0.1:8080", says=["--url", "http://127.0.0.1:8080"])
        usage("--url", "https://h", says="forward a local port")
        usage("--rate", "0", says=["--rate", "neither inf nor a number above 0"])
        usage("--goodput", "itl:5", says=["--goodput", "ttft:MS"])
        usage("--endpoint", "embeddings", says="--endpoint")
        usage("--disconnect", "1.5", says="--disconnect")
        wrong = lambda *args, says: self.fails("bench", "serve", *args, says=says)
        wrong("--extra-body", "{", says="--extra-body")
        wrong("--prompts", "ids", "--endpoint", "chat", says="--prompts ids")
        wrong("--per-request", says="-o json")
        wrong("--duration", "5", says=["--duration", "--rate"])
        wrong("--trace-requests", "5", says="need --trace")
        wrong("--trace", self.path("none.csv"), says=["--trace", "none.csv"])
        untimed = self.write("t.csv", "ContextTokens,GeneratedTokens\n5,5\n")
        wrong("--trace", untimed, says="names no column TIMESTAMP")
        wrong("--plot", self.path("none/x.svg"), says=["--plot", "none"])


if __name__ == "__main__":
    unittest.main()
