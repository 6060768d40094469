"""The rules: a language (policies/detect/*.toml), and its compiler to closures by kind of event."""
