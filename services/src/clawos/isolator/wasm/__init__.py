"""run-wasm: one WebAssembly module as a tool, under limits of its own, inside the sandbox.

`plan.py` is the service's side. Everything else runs in the sandbox and imports nothing beside ctypes: of
what a call costs, most is what Python imports.
"""
