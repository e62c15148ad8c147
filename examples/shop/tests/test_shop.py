"""The shop's own tests: `make test`."""

import http.client
import json
import random
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path

from shop.catalogue import PRICES, Catalogue, PriceLookupFailed
from shop.server import Server
from shop.settings import Settings, read

ROOT = Path(__file__).parent.parent


class TheCatalogue(unittest.TestCase):
    def test_knows_every_price(self):
        self.assertEqual(Catalogue(Settings("1")).prices(), PRICES)

    def test_fails_as_often_as_it_is_told_to_and_not_before(self):
        catalogue = Catalogue(Settings("1", fault_rate=0.25, fault_after=100), random.Random(7))
        failed = [self._fails(catalogue) for _ in range(4100)]
        self.assertEqual(sum(failed[:100]), 0)
        self.assertAlmostEqual(sum(failed[100:]) / 4000, 0.25, delta=0.03)

    def _fails(self, catalogue):
        try:
            catalogue.prices()
        except PriceLookupFailed:
            return True
        return False


class TheSettings(unittest.TestCase):
    def test_are_those_of_the_build(self):
        self.assertRegex(read().version, r"\d+\.\d+\.\d+")

    def test_refuse_a_rate_that_is_none(self):
        with self.assertRaises(ValueError):
            Settings("1", fault_rate=20)


class TheService(unittest.TestCase):
    def setUp(self):
        self.server = Server(("127.0.0.1", 0), Settings("1.2.3"))
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=5)
        self.addCleanup(self.connection.close)

    def get(self, path):
        self.connection.request("GET", path)
        answer = self.connection.getresponse()
        return answer.status, json.loads(answer.read())

    def test_tells_the_prices(self):
        self.assertEqual(self.get("/"), (200, {"version": "1.2.3", "currency": "EUR", "prices": PRICES}))

    def test_tells_its_version_and_that_it_lives(self):
        self.assertEqual(self.get("/version"), (200, {"version": "1.2.3"}))
        self.assertEqual(self.get("/healthz"), (200, {"healthy": True}))

    def test_answers_another_page_with_404_and_goes_on(self):
        self.assertEqual(self.get("/nowhere")[0], 404)
        self.assertEqual(self.get("/")[0], 200)

    def test_a_failed_lookup_is_a_500(self):
        self.server.catalogue = Catalogue(Settings("1.2.3", fault_rate=1))
        self.assertEqual(self.get("/")[0], 500)
        self.assertEqual(self.get("/healthz")[0], 200)


class TheArchive(unittest.TestCase):
    def test_is_the_same_every_time(self):
        with tempfile.TemporaryDirectory() as folder:
            archives = [Path(folder, name) for name in ("one.tar.gz", "two.tar.gz")]
            for archive in archives:
                subprocess.run([sys.executable, ROOT / "package.py", archive], check=True, stdout=subprocess.DEVNULL)
            self.assertEqual(*(archive.read_bytes() for archive in archives))


if __name__ == "__main__":
    unittest.main()
