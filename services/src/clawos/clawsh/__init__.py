"""The login shell of ClawOS: plain language in, tool calls and answers out. Holds no logic of the agent's."""
