"""The program that runs on a device: it times models there, or counts their instructions under an emulator.

- It needs Python 3.9 or newer, numpy and a runtime (onnxruntime, ncnn, LiteRT, or a C compiler for the project's own
  kernel). It imports nothing else of the project, and reaches the device as one file: see `workers.latency.agent_file`.
- The measuring itself: `sensors` and `runtimes`, `timing` and `counting` in one process, `subprocesses`, `cooling` and
  `batch` around such processes. The host probe uses these, too. `serving` does the work that a hub hands out.
- A sensor that isn't there is recorded as null. A model that the runtime refuses has its error in the report, and the
  other models are measured.
"""
