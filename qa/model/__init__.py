"""The built-in model: its corpus, training, export and evaluation."""
