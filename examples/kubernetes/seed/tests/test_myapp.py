import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import myapp


class Answers(unittest.TestCase):
    def test_health_is_no_request(self):
        before = dict(myapp.COUNTS)
        self.assertEqual(myapp.answer("/healthz"), (200, "ok"))
        self.assertEqual(myapp.COUNTS, before)

    def test_requests_are_counted(self):
        myapp.answer("/")
        self.assertIn('http_requests_total{code="200"} 1', myapp.answer("/metrics")[1])
