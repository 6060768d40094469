"""The monitor judged from outside: acts of others' test suites done anew, and what alerts came of them."""
