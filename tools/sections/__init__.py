"""What the test command (tools/run_tests.py) consists of."""
