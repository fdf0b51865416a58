"""`kvasir bench serve` against `kvasir serve`: what the one measured and what the other counted are the same."""

import json
import unittest

from harness import PATIENCE, ServerTest
from kvasir_cli import kvasir


class LoadTool(ServerTest):
    def load(self, *args):
        self.server.wait_until_idle()
        before = self.server.metrics()
        run = kvasir("bench", "serve", "--url", self.server.url, "-o", "json", *args, timeout=PATIENCE)
        self.assertEqual(run.code, 0, run)
        self.server.wait_until_idle()
        after = self.server.metrics()
        grown = {name: value - before.get(name, 0) for name, value in after.items()}
        return run.json, grown

    def test_figures_agree(self):
        result, grown = self.load("--requests", "24", "--concurrency", "6", "--prompt-tokens", "40", "--answer-tokens",
                                  "12", "--range-ratio", "0.5", "--shared-prefix", "64", "--prompts", "ids")
        summary = result["summary"]
        self.assertEqual(summary["served"], 24, json.dumps(summary["failures"]))
        self.assertEqual([summary["short_answers"], summary["counted_by_piece"]], [0, 0])
        self.assertEqual(grown["kvasir_prompt_tokens_total"], summary["prompt_tokens"])
        self.assertEqual(grown["kvasir_generation_tokens_total"], summary["answer_tokens"])
        self.assertEqual(grown["kvasir_prefix_cache_hits_total"], summary["cached_tokens"])
        self.assertGreater(summary["cached_tokens"], 0)
        self.assertEqual(grown['kvasir_request_success_total{finished_reason="length"}'], 24)
        self.assertLessEqual(summary["peak_running"], 6)
        # A client sees its first token no sooner than the server made it.
        self.assertEqual(grown["kvasir_time_to_first_token_seconds_count"], 24)
        mean = grown["kvasir_time_to_first_token_seconds_sum"] / 24
        self.assertGreaterEqual(summary["ttft_ms"]["mean"] + 1, 1e3 * mean)

    def test_a_chat_by_clients_that_leave_or_read_slowly(self):
        result, grown = self.load("--endpoint", "chat", "--requests", "30", "--rate", "60", "--prompt-tokens", "20",
                                  "--answer-tokens", "30", "--disconnect", "0.3", "--slow-readers", "0.2")
        summary = result["summary"]
        self.assertEqual(summary["failed"], 0, json.dumps(summary["failures"]))
        self.assertEqual(summary["served"] + summary["hung_up"], 30)
        self.assertTrue(summary["hung_up"] and summary["slow"])
        self.assertGreaterEqual(grown['kvasir_request_success_total{finished_reason="length"}'], summary["served"])
        self.assertEqual(summary["answer_tokens"], 30 * summary["served"])


if __name__ == "__main__":
    unittest.main()
