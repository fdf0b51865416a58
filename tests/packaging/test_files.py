#!/usr/bin/env python3
"""The dashboard names metrics that there are, the unit is one for systemd, and the image has what the program needs.

Checks by promtool, systemd-analyze, ldd and dpkg are skipped where those are not.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/cli"))
from fake_openai_server import FakeServer, closed_port  # noqa: E402

PACKAGING = ROOT / "packaging"
# What the server's /metrics has.
GAUGES = {"kvasir_requests_running", "kvasir_requests_waiting", "kvasir_kv_cache_usage_ratio"}
COUNTERS = {"kvasir_prefix_cache_queries_total", "kvasir_prefix_cache_hits_total", "kvasir_preemptions_total",
            "kvasir_prompt_tokens_total", "kvasir_generation_tokens_total", "kvasir_request_success_total",
            "kvasir_http_responses_total"}
HISTOGRAMS = {"kvasir_time_to_first_token_seconds", "kvasir_inter_token_latency_seconds",
              "kvasir_e2e_request_latency_seconds", "kvasir_request_queue_time_seconds", "kvasir_step_seconds"}
LABELS = {"kvasir_request_success_total": "finished_reason", "kvasir_http_responses_total": "code"}


def needs(program):
    return unittest.skipUnless(shutil.which(program), f"{program} is not installed")


class Dashboard(unittest.TestCase):
    def setUp(self):
        self.dashboard = json.loads((PACKAGING / "grafana/kvasir.json").read_text())
        self.panels = [panel for panel in self.dashboard["panels"] if panel["type"] != "row"]
        self.targets = [(panel["title"], target) for panel in self.panels for target in panel["targets"]]

    def test_every_metric_there_is_and_no_other_is_shown(self):
        shown = set()
        for title, target in self.targets:
            names = set(re.findall(r"\b(?:kvasir|vllm)[_:]\w+", target["expr"]))
            self.assertTrue(names, title)
            for name in names:
                if name.endswith("_bucket"):
                    name = name.removesuffix("_bucket")
                    self.assertIn(name, HISTOGRAMS, title)
                    self.assertRegex(target["expr"], r"^histogram_quantile\(0\.\d+, sum by \(le\) \(rate\(")
                elif name in COUNTERS:
                    self.assertRegex(target["expr"], rf"rate\({name}\{{[^}}]*\}}\[\$__rate_interval\]\)", title)
                else:
                    self.assertIn(name, GAUGES, title)
                shown.add(name)
        self.assertEqual(shown, GAUGES | COUNTERS | HISTOGRAMS)
        for name, label in LABELS.items():
            self.assertTrue(any(name in target["expr"] and f"by ({label})" in target["expr"]
                                and target["legendFormat"] == f"{{{{{label}}}}}" for _, target in self.targets), name)

    def test_latencies_have_three_percentiles(self):
        for name in HISTOGRAMS:
            found = {re.match(r"histogram_quantile\((0\.\d+),", target["expr"]).group(1) for _, target in self.targets
                     if f"{name}_bucket" in target["expr"]}
            self.assertEqual(found, {"0.5", "0.9", "0.99"}, name)

    def test_everything_comes_from_the_chosen_source(self):
        variables = {variable["name"]: variable for variable in self.dashboard["templating"]["list"]}
        self.assertEqual(variables["datasource"]["type"], "datasource")
        self.assertEqual(variables["datasource"]["query"], "prometheus")
        source = {"type": "prometheus", "uid": "${datasource}"}
        self.assertEqual(variables["instance"]["datasource"], source)
        for panel in self.panels:
            self.assertEqual(panel["datasource"], source)
        for title, target in self.targets:
            self.assertEqual(target["datasource"], source)
            selectors = re.findall(r"\bkvasir_\w+(\{[^}]*\})?", target["expr"])
            self.assertEqual(set(selectors), {'{instance=~"$instance"}'}, title)

    def test_panels_stand_side_by_side(self):
        taken = {}
        for panel in self.dashboard["panels"]:
            place = panel["gridPos"]
            self.assertTrue(place["w"] > 0 and place["x"] + place["w"] <= 24, panel["title"])
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    self.assertNotIn((x, y), taken, f'{panel["title"]} lies on {taken.get((x, y))}')
                    taken[x, y] = panel["title"]
        ids = [panel["id"] for panel in self.dashboard["panels"]]
        self.assertEqual(len(ids), len(set(ids)))

    @needs("promtool")
    def test_prometheus_can_read_every_expression(self):
        rules = [{"record": f"panel:{i}", "expr": target["expr"].replace("$__rate_interval", "1m")
                  .replace("$instance", ".*")} for i, (_, target) in enumerate(self.targets)]
        with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
            json.dump({"groups": [{"name": "dashboard", "rules": rules}]}, file)  # JSON is YAML
            file.flush()
            run = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True)
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        self.assertIn(f"{len(rules)} rules found", run.stdout)


class Unit(unittest.TestCase):
    PATH = PACKAGING / "systemd/kvasir.service"

    def lines(self):
        return [line for line in self.PATH.read_text().splitlines() if line and not line.startswith("#")]

    def test_is_confined_and_drains(self):
        lines = self.lines()
        for line in ("DynamicUser=yes", "ProtectSystem=strict", "ProtectHome=yes", "NoNewPrivileges=yes", "PrivateTmp=yes",
                     "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX", "SystemCallFilter=@system-service",
                     "MemoryDenyWriteExecute=yes", "CapabilityBoundingSet=", "KillSignal=SIGTERM", "Restart=on-failure",
                     "LoadCredential=api-keys:/etc/kvasir/api-keys"):
            self.assertIn(line, lines)
        stop = next(int(line.split("=")[1]) for line in lines if line.startswith("TimeoutStopSec="))
        self.assertGreaterEqual(stop, 30)
        files = next(int(line.split("=")[1]) for line in lines if line.startswith("LimitNOFILE="))
        self.assertGreaterEqual(files, 8192)

    @needs("systemd-analyze")
    def test_systemd_finds_no_mistake(self):
        with tempfile.TemporaryDirectory() as folder:
            # The program stands elsewhere here.
            unit = pathlib.Path(folder) / "kvasir.service"
            unit.write_text(re.sub(r"(?m)^ExecStart=\S+", "ExecStart=/bin/true", self.PATH.read_text()))
            run = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True)
            self.assertEqual(run.returncode, 0, run.stderr)
            about_it = [line for line in run.stderr.splitlines() if "kvasir" in line]
            self.assertEqual(about_it, [])
            run = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", str(unit)],
                                 capture_output=True, text=True)
            self.assertEqual(run.returncode, 0, run.stdout[-400:] + run.stderr)  # 2.0 of 10 at most

    @unittest.skipIf(os.environ.get("KVASIR_SANITIZE"), "sanitizers map memory as they like")
    def test_the_program_runs_where_no_memory_becomes_code(self):
        # As MemoryDenyWriteExecute has it: prctl(PR_SET_MDWE), Linux 6.3.
        script = ("import ctypes, os, sys\n"
                  "if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(77)\n"
                  "os.execv(sys.argv[1], sys.argv[1:])\n")
        program = os.environ.get("KVASIR_PROGRAM", str(ROOT / "build/release/kvasir"))
        run = subprocess.run([sys.executable, "-c", script, program, "generate", "-m", str(ROOT / "models/demo"), "-p",
                              "Once upon a time", "-n", "8", "--temp", "0"], capture_output=True, text=True, timeout=120)
        if run.returncode == 77:
            self.skipTest("this kernel cannot deny it")
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertTrue(run.stdout.strip())


class Image(unittest.TestCase):
    def setUp(self):
        # As Docker reads it: lines that end with a backslash go on, comments are none.
        text = "\n".join(line for line in (PACKAGING / "docker/Dockerfile").read_text().splitlines()
                         if not line.startswith("#"))
        self.instructions = re.sub(r"\\\n", " ", text).splitlines()

    def all_of(self, word):
        return [line.removeprefix(word).strip() for line in self.instructions if line.startswith(word + " ")]

    def test_builds_as_the_scripts_do(self):
        run = " ".join(self.all_of("RUN"))
        for name in re.findall(r"(?<![\w-])(build_packages|install_missing|job_count)\b", run):
            self.assertRegex((ROOT / "scripts/lib.sh").read_text(), rf"(?m)^{name}(\(\) \{{|=\()")
        for word in ("build_packages", "install_missing", "job_count", "cmake --preset release", "cmake --install"):
            self.assertIn(word, run)
        for source in re.findall(r"--from=build /src/(\S+)", " ".join(self.all_of("COPY"))):
            self.assertTrue((ROOT / source).exists(), source)

    def test_commands_are_ones_for_a_shell(self):
        for command in self.all_of("RUN"):
            for shell, script in [("sh", command), *(("bash", inner) for inner in re.findall(r"bash -c '([^']*)'", command))]:
                run = subprocess.run([shell, "-n", "-c", script], capture_output=True, text=True)
                self.assertEqual(run.returncode, 0, f"{script}: {run.stderr}")

    def test_nothing_runs_as_root(self):
        user = self.all_of("USER")
        self.assertEqual(user, ["10001:10001"])
        self.assertGreater(self.instructions.index(f"USER {user[0]}"), self.instructions.index("FROM debian:bookworm-slim"))
        self.assertEqual(self.all_of("EXPOSE"), ["8080"])

    def test_the_health_check_knows_a_server_from_none(self):
        _, command = self.all_of("HEALTHCHECK")[0].split("CMD ")
        command = json.loads(command)

        def healthy(port):
            return subprocess.run(command, env={**os.environ, "KVASIR_ARG_PORT": str(port)}, capture_output=True,
                                  timeout=30).returncode == 0

        with FakeServer() as server:
            self.assertTrue(healthy(server.port))
            server.behaviour.health = 503
            self.assertFalse(healthy(server.port))
        with closed_port() as port:
            self.assertFalse(healthy(port))

    @needs("ldd")
    @needs("dpkg-query")
    @unittest.skipIf(os.environ.get("KVASIR_SANITIZE"), "linked with more than the release is")
    def test_has_the_libraries_that_the_program_is_linked_with(self):
        install = next(run for run in self.all_of("RUN") if "apt-get" in run)
        # What every Debian has.
        have = set(install.split()) | {"libc6", "libgcc-s1"}
        program = os.environ.get("KVASIR_PROGRAM", str(ROOT / "build/release/kvasir"))
        for name in re.findall(r"(?m)^\s*(lib\S+) => /", subprocess.check_output(["ldd", program], text=True)):
            owners = subprocess.run(["dpkg-query", "-S", f"*/{name}"], capture_output=True, text=True).stdout
            packages = {line.split(":")[0] for line in owners.splitlines()}
            if not packages:
                self.skipTest(f"{name} is of no Debian package here")
            self.assertTrue(packages & have, f"{name} is in {packages}, and the image has {sorted(have)}")


if __name__ == "__main__":
    unittest.main()
