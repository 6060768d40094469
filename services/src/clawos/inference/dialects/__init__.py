"""The two ways to ask for tool calls: in the built-in model's own language, or by a model's chat template."""
