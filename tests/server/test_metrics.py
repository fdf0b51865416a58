"""/metrics: what Prometheus reads, and whether the figures are those of what was done."""

import shutil
import subprocess
import unittest

from harness import CHAT, TEXT, Server, ServerTest, wait_until

BODY = {"prompt": "Once upon a time", "max_tokens": 10, "temperature": 0, "ignore_eos": True}


def grown(before, after, name):
    return after.get(name, 0) - before.get(name, 0)


class Figures(ServerTest):
    def test_they_add_up(self):
        self.server.wait_until_idle()
        before = self.server.metrics()
        prompt = completion = cached = 0
        for i in range(6):
            usage = self.server.post(TEXT, BODY | {"prompt": "A fox " * 20, "max_tokens": 10 + i}).json["usage"]
            prompt, completion = prompt + usage["prompt_tokens"], completion + usage["completion_tokens"]
            cached += usage["prompt_tokens_details"]["cached_tokens"]
        self.server.events(TEXT, BODY | {"n": 3})
        self.server.post(CHAT, {})
        self.server.wait_until_idle()
        after = self.server.metrics()
        one_prompt = 6
        self.assertGreater(cached, 0)
        for prefix, label in (("kvasir_", ""), ("vllm:", '{model_name="demo"}')):
            def of(name, prefix=prefix, label=label):
                return grown(before, after, prefix + name + label)
            self.assertEqual(of("prompt_tokens_total"), prompt + one_prompt)
            self.assertEqual(of("generation_tokens_total"), completion + 30)
            self.assertEqual(of("prefix_cache_queries_total"), prompt + one_prompt)
            self.assertEqual(of("prefix_cache_hits_total"), cached)
            self.assertEqual(of("e2e_request_latency_seconds_count"), 7)
            self.assertEqual(of("time_to_first_token_seconds_count"), 7)
            self.assertEqual(of("inter_token_latency_seconds_count"), 27)
        self.assertEqual(grown(before, after, 'kvasir_request_success_total{finished_reason="length"}'), 7)
        self.assertEqual(grown(before, after, 'kvasir_http_responses_total{code="400"}'), 1)
        for name in ("requests_running", "requests_waiting", "kv_cache_usage_ratio"):
            self.assertEqual(after["kvasir_" + name], 0)
        buckets = [value for name, value in after.items() if name.startswith("kvasir_step_seconds_bucket")]
        self.assertEqual(buckets, sorted(buckets))
        self.assertEqual(buckets[-1], after["kvasir_step_seconds_count"])

    def test_one_who_leaves_is_counted(self):
        name = 'kvasir_request_success_total{finished_reason="cancelled"}'
        before = self.server.metrics()
        with self.server.connect() as wire:
            wire.request("POST", TEXT, BODY | {"stream": True, "max_tokens": 240})
            wire.head()
        wait_until(lambda: grown(before, self.server.metrics(), name) == 1, "it is counted")


class UnderLoad(ServerTest):
    FLAGS = ("--parallel", 1)

    def test_what_runs_and_waits_can_be_seen(self):
        with self.server.connect() as wire:
            wire.request("POST", TEXT, BODY | {"prompt": ["Once"] * 20, "max_tokens": 250})
            figures = wait_until(lambda: (lambda f: f if f["kvasir_requests_waiting"] > 0 else None)(
                self.server.metrics()), "somebody waits")
            self.assertEqual(figures["kvasir_requests_running"], 1)
            wait_until(lambda: self.server.metrics()["kvasir_kv_cache_usage_ratio"] > 0, "blocks are in use")


@unittest.skipUnless(shutil.which("promtool"), "promtool is not installed (Debian: prometheus)")
class Promtool(unittest.TestCase):
    def check(self, server):
        answer = server.get("/metrics")
        self.assertEqual(answer.header("Content-Type"), "text/plain; version=0.0.4; charset=utf-8")
        run = subprocess.run(["promtool", "check", "metrics"], input=answer.body, capture_output=True, check=False)
        # vLLM's names have colons, whatever promtool thinks of them.
        told = [line for line in (run.stdout + run.stderr).decode().splitlines()
                if not line.endswith("metric names should not contain ':'")]
        self.assertEqual(told, [])
        self.assertIn(run.returncode, (0, 3))

    def test_it_takes_them(self):
        with Server() as server:
            self.check(server)
            server.post(TEXT, BODY)
            server.post(TEXT, {})
            self.check(server)

    def test_a_name_with_quotes(self):
        with Server("-a", 'a "model"\\ of \u00e4 {x="y"} 1\\n') as server:
            server.post(TEXT, BODY)
            self.check(server)


if __name__ == "__main__":
    unittest.main()
