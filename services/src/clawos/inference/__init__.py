"""Local models: chat, cancel and constrained tool calls, by llama.cpp in a confined process."""
