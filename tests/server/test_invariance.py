"""The same answer in any company: alone, among others, preempted, behind a shared prefix."""

import concurrent.futures
import unittest

from harness import CHAT, TEXT, Server, ServerTest, same_stream

PROMPTS = [f"Once upon a time there {'was a fox' if i % 3 else 'were ' + str(i) + ' hares'}" + " who ran" * (i % 7)
           for i in range(33)]


def body_of(prompt, **more):
    return {"prompt": prompt, "max_tokens": 40, "temperature": 0, "ignore_eos": True} | more


def text_of(server, prompt, **more):
    answer = server.post(TEXT, body_of(prompt, **more))
    assert answer.status == 200, answer
    return answer.json["choices"][0]["text"]


def all_at_once(server, prompts, **more):
    with concurrent.futures.ThreadPoolExecutor(len(prompts)) as threads:
        return list(threads.map(lambda prompt: text_of(server, prompt, **more), prompts))


class Company(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Server("--parallel", 1) as server:
            cls.alone = [text_of(server, prompt) for prompt in PROMPTS]
        assert len(set(cls.alone)) > 10

    def test_among_thirty_two_others(self):
        for flags in (("--parallel", 33), ("--parallel", 8, "--batching", "static"),
                      ("--parallel", 16, "-b", 16, "-t", 1), ("--parallel", 8, "--no-chunked-prefill")):
            with self.subTest(flags), Server(*flags) as server:
                self.assertEqual(all_at_once(server, PROMPTS), self.alone)
                server.wait_until_idle()

    def test_preempted(self):
        with Server("--parallel", 16, "--pool-tokens", 512, "--cache", "paged:16") as server:
            self.assertEqual(all_at_once(server, PROMPTS), self.alone)
            self.assertGreater(server.metrics()["kvasir_preemptions_total"], 0)
            self.assertEqual(server.metrics()["kvasir_swapped_out_bytes_total"], 0)
            server.wait_until_idle()

    def test_preempted_and_swapped(self):
        with Server("--parallel", 16, "--pool-tokens", 512, "--cache", "paged:16", "--swap-space", "64MiB") as server:
            self.assertEqual(all_at_once(server, PROMPTS), self.alone)
            server.wait_until_idle()
            metrics = server.metrics()
            self.assertGreater(metrics["kvasir_swapped_out_bytes_total"], 0)
            self.assertGreater(metrics["kvasir_swapped_in_bytes_total"], 0)
            self.assertEqual(metrics["kvasir_swap_space_used_bytes"], 0)

    def test_streams_are_the_same_bytes(self):
        def stream(prompt):
            return same_stream(server.events(TEXT, body_of(prompt)))
        with Server("--parallel", 12, "--pool-tokens", 512) as server:
            quiet = [stream(prompt) for prompt in PROMPTS]
            with concurrent.futures.ThreadPoolExecutor(len(PROMPTS)) as threads:
                self.assertEqual(list(threads.map(stream, PROMPTS)), quiet)


class Prefixes(ServerTest):
    FLAGS = ("--api-key", "one", "--api-key", "two")
    PROMPT = "Once upon a time there lived a fox in a wood, and a hare beside him. " * 3

    def tearDown(self):
        self.assertEqual(self.server.get("/health").status, 200)

    def ask(self, key="one", **more):
        answer = self.server.post(TEXT, body_of(self.PROMPT, **more), Authorization=f"Bearer {key}").json
        return answer["choices"][0]["text"], answer["usage"]["prompt_tokens_details"]["cached_tokens"]

    def test_who_shares_what(self):
        text, cached = self.ask()
        self.assertEqual(cached, 0)
        again, cached = self.ask()
        self.assertGreater(cached, 0)
        self.assertEqual(again, text)
        # Neither another's salt nor another's key finds it: how long an answer takes would tell who asked the same.
        self.assertEqual(self.ask(cache_salt="mine"), (text, 0))
        self.assertEqual(self.ask(cache_salt="mine"), (text, cached))
        self.assertEqual(self.ask("two"), (text, 0))
        self.assertEqual(self.ask("two", cache_salt="mine"), (text, 0))
        self.assertEqual(self.ask("two"), (text, cached))


class Samples(ServerTest):
    def texts(self, path, body):
        answer = self.server.post(path, body)
        self.assertEqual(answer.status, 200, answer)
        return [choice.get("text", choice.get("message")) for choice in answer.json["choices"]]

    def test_n_with_a_seed(self):
        body = body_of("Once upon a time", n=5, seed=3, temperature=1.2)
        chat = {"messages": [{"role": "user", "content": "Hello"}], "n": 5, "seed": 3, "max_tokens": 20}
        first, first_chat = self.texts(TEXT, body), self.texts(CHAT, chat)
        self.assertEqual(len(set(first)), 5)
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            for again in threads.map(lambda _: self.texts(TEXT, body), range(8)):
                self.assertEqual(again, first)
            for again in threads.map(lambda _: self.texts(CHAT, chat), range(4)):
                self.assertEqual(again, first_chat)

    def test_without_a_seed_it_is_drawn(self):
        body = body_of("Once upon a time", temperature=1)
        self.assertEqual(len({self.texts(TEXT, body)[0] for _ in range(4)}), 4)
        self.assertEqual(len({self.texts(TEXT, dict(body, seed=-1))[0] for _ in range(4)}), 4)


class SmallPool(ServerTest):
    FLAGS = ("--pool-tokens", 64, "--cache", "paged:16", "--parallel", 2)

    def test_what_never_fits_is_no_matter_of_trying_again(self):
        answer = self.server.post(TEXT, body_of("word " * 100))
        self.error_of(answer, 400, code="context_length_exceeded")
        self.assertIsNone(answer.header("Retry-After"))

    def test_an_answer_ends_where_the_pool_does(self):
        answer = self.server.post(TEXT, body_of("Once upon a time", max_tokens=200))
        self.assertEqual(answer.status, 200, answer)
        self.assertEqual(answer.json["choices"][0]["finish_reason"], "length")
        self.assertLessEqual(answer.json["usage"]["total_tokens"], 64)


if __name__ == "__main__":
    unittest.main()
