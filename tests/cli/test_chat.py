"""kvasir chat, fed from a pipe."""

import json
import os
import re
import signal
import subprocess
import time
import unittest

from kvasir_cli import (PROGRAM, SANITIZED, CliTest, environment, kvasir,
                        wait_until_interrupts_are_caught)

TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant]"


class Chat(CliTest):
    def setUp(self):
        super().setUp()
        self.template = self.write("t.jinja", TEMPLATE)

    def chat(self, *lines, args=(), code=0):
        run = kvasir("chat", "--template", self.template, "-n", "12", *args, stdin="\n".join(lines).encode() + b"\n")
        self.assertEqual(run.code, code, run)
        return run

    def test_answers_every_message_and_keeps_the_cache(self):
        run = self.chat("Tell me a story.", "And then?", "/stats", args=["--figures"])
        cached = [int(n) for n in re.findall(r"\(\+(\d+) cached\)", run.err)]
        self.assertEqual(len(cached), 1, run)  # the second turn only
        self.assertGreater(cached[0], 10)
        self.assertIn("4 messages", run.text)

    def test_the_cache_changes_no_answer(self):
        lines = ["Tell me a story.", "And then?", "/save " + self.path("a.json")]
        self.chat(*lines, args=["--temp", "0"])
        with_cache = json.load(open(self.path("a.json")))
        for cache in ("none", "paged:16"):
            self.chat(*lines, args=["--temp", "0", "--cache", cache])
            self.assertEqual(json.load(open(self.path("a.json"))), with_cache)

    def test_a_conversation_longer_than_its_cache(self):
        lines = ["Tell me a story.", "And then?", "And then?", "/stats", "/regen", "/stats"]
        for cache in ("window:32", "sink:4,32", "recompute:32"):
            run = self.chat(*lines, args=["--figures", "--cache", cache])
            self.assertIn("the cache keeps up to 32", run.text)
            turns = re.findall(r"(?m)^prefill .*$", run.err)
            self.assertEqual(["cached" in turn for turn in turns[:2]], [False, not cache.startswith("recompute")], run)
            self.assertNotIn("cached", turns[-1])  # what it would go on from has been dropped

    def test_save_and_load(self):
        file = self.path("talk.json")
        self.chat("Hello <|endoftext|> \\", "friend", f"/save {file}", args=["--system", "Be kind."])
        messages = json.load(open(file))["messages"]
        self.assertEqual([m["role"] for m in messages], ["system", "user", "assistant"])
        self.assertEqual(messages[1]["content"], "Hello <|endoftext|> \nfriend")
        run = self.chat(f"/load {file}", "Go on.", f"/save {file}")
        self.assertIn("3 messages read", run.text)
        self.assertEqual(len(json.load(open(file))["messages"]), 5)
        self.assertEqual(len(json.load(open(file))["messages"][4]), 2)
        self.chat("Go on.", f"/save {file}", args=["--load", file])
        self.assertEqual(len(json.load(open(file))["messages"]), 7)

    def test_a_session_goes_on_in_another_process(self):
        lines = ["Tell me a story.", "And then?", "Why?"]
        for args in (["--temp", "0"], ["--temp", "0.9", "--seed", "3"]):
            session, a, b = self.path("session"), self.path("a.json"), self.path("b.json")
            self.chat(*lines, f"/save {a}", args=args)
            for i, line in enumerate(lines):
                run = self.chat(line, f"/save {b}", args=[*args, "--session", session, "--figures"])
                self.assertEqual("cached" in run.err, i > 0, run)
            self.assertEqual(json.load(open(a)), json.load(open(b)))
            os.remove(session)
        self.chat("Hello", "/clear", args=["--session", session])
        empty = self.chat("/stats", f"/save {b}", args=["--session", session], code=1)
        self.assertIn("0 messages written", empty.text)
        # An error drops what the engine kept, not what was said.
        self.chat("Hello", "word " * 300, f"/save {a}", args=["--session", session], code=1)
        self.chat(f"/save {b}", args=["--session", session])
        self.assertEqual(json.load(open(a)), json.load(open(b)))
        before = open(session, "rb").read()
        self.fails("generate", "-p", "x", "-n", "2", "--session", session, says="holds a conversation")
        self.assertEqual(open(session, "rb").read(), before)
        self.ok("generate", "-p", "x", "-n", "2", "--session", self.path("text"))
        self.fails("chat", "--template", self.template, "--session", self.path("text"), says="holds no conversation")
        self.write("session", "not one")
        self.fails("chat", "--template", self.template, "--session", session, says=["is no session file", session])
        self.assertEqual(open(session).read(), "not one")
        self.fails("chat", "--session", session, "--load", a, says="two conversations")

    def test_a_session_of_a_cache_that_forgets(self):
        lines = ["Tell me a story.", "And then?", "Why?", "And then?"]
        for cache in ("window:40", "sink:4,40", "recompute:40"):
            for args in (["--temp", "0"], ["--temp", "0.9", "--seed", "3", "--kv-type", "i8"]):
                args = [*args, "--cache", cache]
                session, a, b = self.path("session"), self.path("a.json"), self.path("b.json")
                work = re.compile(r"prefill \d+ tokens(?: \(\+\d+ cached\))?")
                expected = work.findall(self.chat(*lines, f"/save {a}", args=[*args, "--figures"]).err)
                turns = [self.chat(line, f"/save {b}", args=[*args, "--session", session, "--figures"]) for line in lines]
                self.assertEqual(json.load(open(a)), json.load(open(b)), cache)
                self.assertEqual([work.search(run.err).group() for run in turns], expected)
                self.assertEqual("cached" in turns[1].err, not cache.startswith("recompute"))
                before = open(session, "rb").read()
                for other in ("dynamic", "window:41", "sink:5,40", "recompute:41"):
                    self.fails("chat", "--template", self.template, *args, "--cache", other, "--session", session,
                               stdin=b"Hello\n", says=[session, "was saved with", "cache " + cache])
                with open(session, "r+b") as file:
                    file.truncate(len(before) - 1)
                self.fails("chat", "--template", self.template, *args, "--session", session, stdin=b"Hello\n",
                           says=session)
                os.remove(session)

    def test_regenerate_and_clear(self):
        a, b = self.path("a.json"), self.path("b.json")
        self.chat("Hello", f"/save {a}", "/regen", f"/save {b}", "/clear", f"/save {self.path('c.json')}")
        first, second = (json.load(open(f))["messages"] for f in (a, b))
        self.assertEqual(first[0], second[0])
        self.assertNotEqual(first[1], second[1])
        self.assertEqual(json.load(open(self.path("c.json")))["messages"], [])

    def test_settings(self):
        a, b = self.path("a.json"), self.path("b.json")
        self.chat("/set temp 0", "/set max-new-tokens 5", "Hello", f"/save {a}")
        self.chat("Hello", f"/save {b}", args=["--temp", "0", "-n", "5"])
        self.assertEqual(open(a).read(), open(b).read())
        self.assertRegex(self.chat("/set top-k 7", "/set").text, r"top-k +7")
        run = self.chat("/set tempp 1", "/set temp hot", "/set temp", code=1)
        self.assertIn('no setting "tempp"; did you mean --temp?', run.err)
        self.assertIn('temp: "hot" is not a number', run.err)
        self.assertIn("/set temp needs a value", run.err)

    def test_commands_that_are_wrong(self):
        run = self.chat("/hlep", "/regen", "/stats", "/save", "/load", "/load " + self.path("none"), code=1)
        for text in ("unknown command /hlep; did you mean /help?", "no answer to replace", "no answer yet",
                     "/save needs", "/load needs", self.path("none")):
            self.assertIn(text, run.err)
        self.assertIn("/regen", self.chat("/help").text)
        self.assertEqual(self.chat("/exit", "Hello").text, "")

    def test_files_that_are_no_conversations(self):
        for content in ("", "[]", "{}", '{"messages": 5}', '{"messages": [5]}', '{"messages": [{"role": "user"}]}',
                        '{"messages": [{"role": "root", "content": "x"}]}', '{"messages": [' * 100):
            file = self.write("bad.json", content)
            self.assertIn(file, self.chat(f"/load {file}", code=1).err)

    def test_a_conversation_longer_than_the_context_is_told_and_goes_on(self):
        run = self.chat("word " * 300, "Hello", "/stats", code=1)
        self.assertRegex(run.err, r"the conversation has \d+ tokens with this message, the context holds 256: /clear")
        self.assertIn("2 messages", run.text)

    def test_interrupt_while_a_message_is_read_returns_to_the_prompt(self):
        process = subprocess.Popen([PROGRAM, "chat", "--template", self.template, "-n", "12", "-c", "100000", "-b", "64"],
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=environment())
        self.addCleanup(process.kill)
        wait_until_interrupts_are_caught(process)
        process.stdin.write(b"/help\n" + b"word " * 60000 + b"\n")
        process.stdin.flush()
        while b"Ctrl-C stops an answer" not in process.stdout.readline():
            pass
        time.sleep(0.5)
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(b"Hello\n/stats\n", timeout=60)
        self.assertLess(time.monotonic() - start, 60 if SANITIZED else 4)
        self.assertEqual(process.returncode, 0, err)
        self.assertIn(b"stopped before the answer began", err)
        self.assertIn(b"2 messages", out)  # the long one is forgotten

    def test_models_without_a_template_say_what_to_give(self):
        self.fails("chat", stdin=b"Hello\n", says=["no chat template", "--template chatml"])
        self.assertEqual(kvasir("chat", "--template", "chatml", "-n", "4", stdin=b"Hello\n").code, 0)
        wrong = self.write("w.jinja", "{% for %}")
        self.fails("chat", "--template", wrong, stdin=b"", says=wrong)
        self.fails("chat", "--template", self.path("none"), stdin=b"", says=self.path("none"))

    def test_invalid_utf8_is_refused(self):
        run = kvasir("chat", "--template", self.template, "-n", "3", stdin=b"caf\xe9\n")
        self.assertEqual(run.code, 1)
        self.assertIn("not valid UTF-8", run.err)


if __name__ == "__main__":
    unittest.main()
