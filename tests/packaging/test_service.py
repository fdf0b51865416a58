"""The server as the unit and the image run it, and its figures as the dashboard asks for them."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/cli"), str(ROOT / "tests/server")]
from harness import TEXT, Server  # noqa: E402
from test_files import COUNTERS, GAUGES, HISTOGRAMS, LABELS, PACKAGING  # noqa: E402

KEY = {"Authorization": "Bearer sesame"}


class Service(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.credentials = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.credentials.cleanup)
        (pathlib.Path(cls.credentials.name) / "api-keys").write_text("sesame\n")
        unit = (PACKAGING / "systemd/kvasir.service").read_text()
        command = re.search(r"(?m)^ExecStart=\S+/kvasir serve (.*)$", unit).group(1)
        flags = command.replace("%d", cls.credentials.name).split()
        cls.server = Server(*flags, chat=False, env={"KVASIR_ARG_MODEL": str(ROOT / "models/demo"), "KVASIR_ARG_HOST": "127.0.0.1"})
        cls.addClassCleanup(cls.server.__exit__, None, None, None)

    def test_wants_the_key_of_its_file(self):
        self.assertEqual(self.server.get("/v1/models").status, 401)
        self.assertEqual(self.server.get("/v1/models", **KEY).status, 200)
        self.assertEqual(self.server.get("/health").status, 200)

    def test_has_every_metric_of_the_dashboard(self):
        answer = self.server.post(TEXT, {"prompt": "Once upon a time", "max_tokens": 4}, **KEY)
        self.assertEqual(answer.status, 200, answer)
        text = self.server.get("/metrics", **KEY).text
        kinds = dict(re.findall(r"(?m)^# TYPE (\S+) (\S+)$", text))
        for names, kind in ((GAUGES, "gauge"), (COUNTERS, "counter"), (HISTOGRAMS, "histogram")):
            self.assertEqual({name: kinds.get(name) for name in names}, dict.fromkeys(names, kind))
        for name, label in LABELS.items():
            self.assertRegex(text, rf'(?m)^{name}\{{[^}}]*\b{label}="')

    def test_passes_the_health_check_of_the_image(self):
        dockerfile = (PACKAGING / "docker/Dockerfile").read_text()
        check = json.loads(re.search(r"(?m)^HEALTHCHECK .*CMD (\[.*\])$", dockerfile).group(1))
        run = subprocess.run(check, env={**os.environ, "KVASIR_ARG_PORT": str(self.server.port)}, capture_output=True, timeout=60)
        self.assertEqual(run.returncode, 0, run.stderr)


if __name__ == "__main__":
    unittest.main()
