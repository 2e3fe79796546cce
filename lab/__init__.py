"""The kernel lab: runs scenarios on real kernels in an emulator and records each TLB flush.

`python -m lab run`, `generate` and `convert`, from the top of the repository; README.md says how. Nothing here knows
the simulator, and nothing of the simulator needs this: they meet in the files `*.scn` and `*.jsonl.gz`.
"""
