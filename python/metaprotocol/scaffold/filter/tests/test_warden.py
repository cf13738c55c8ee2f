"""What the filter makes of requests: for `ctest`, or `python -m unittest discover tests`."""

from __future__ import annotations

import os
import unittest
from pathlib import Path

from metaprotocol.engine import ConfigInvalid
from metaprotocol.engine.trial import FilterTrial

HERE = Path(__file__).resolve().parents[1]
LIBRARY = os.environ.get("FILTER_LIBRARY", str(HERE / "build" / "warden_filter.so"))


class WardenTest(unittest.TestCase):
    def test_a_request_that_says_for_whom_it_is_passes(self) -> None:
        result = FilterTrial(LIBRARY).call({"method": "get", "tenant": "acme"})
        assert result.sent is not None
        self.assertEqual(result.sent["x-warden"], "let acme pass")

    def test_others_are_denied(self) -> None:
        for metadata in ({"method": "get"}, {"tenant": ""}):
            result = FilterTrial(LIBRARY).call(metadata)
            self.assertIsNone(result.sent)
            self.assertEqual(result.answer, "denied: no tenant")
            self.assertEqual(result.counted, {"denied": 1})

    def test_the_key_is_an_option(self) -> None:
        trial = FilterTrial(LIBRARY, {"key": "user"})
        self.assertIsNotNone(trial.call({"user": "eve"}).sent)
        self.assertEqual(trial.call({"tenant": "acme"}).answer, "denied: no user")

    def test_wrong_options_are_refused(self) -> None:
        for options in ({"key": ""}, {"kye": "user"}):
            with self.assertRaises(ConfigInvalid):
                FilterTrial(LIBRARY, options)


if __name__ == "__main__":
    unittest.main()
