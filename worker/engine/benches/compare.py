"""Times models here, in plain tract and in ONNX Runtime, and prints the ratios.

    python -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python compare.py [WORDS ..]

Each engine has one thread. A round gives each its turn for a tenth of a second; the order changes
from round to round, so that a busy neighbour troubles all alike. A cell is the median over the rounds
of each round's median, the ratio that of the rounds' own ratios. `WORDS` keep the cases whose name
has one of them; `--profile` shows where our time goes instead, `--resident` what versions of a model
take together in memory. The largest difference between the answers is printed too: a fast wrong answer is none.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
ROUNDS, TURN_SECONDS = int(os.environ.get("ROUNDS", 15)), 0.1
rng = np.random.default_rng(7)


def pixels(*shape):
    return {"x": rng.random(shape, dtype=np.float32)}


def text(rows, length):
    mask = np.ones((rows, length), np.int64)
    mask[-1, length // 2 :] = 0
    return {"ids": rng.integers(0, 1000, (rows, length)), "mask": mask}


CASES = {f"mlp {rows}": ("mlp", pixels(rows, 784)) for rows in (1, 8, 32, 128)}
CASES |= {f"bert {b}x{s}": ("bert", text(b, s)) for b, s in ((1, 16), (1, 128), (8, 32), (8, 128))}
CASES |= {f"convnet {rows}": ("convnet", pixels(rows, 3, 32, 32)) for rows in (1, 8, 32)}
CASES |= {
    f"forest {rows}": ("forest", {"X": (rng.random((rows, 64)) * 16).round().astype(np.float32)})
    for rows in (1, 8, 32, 128)
}


def timer(purging=False):
    """Builds timer.rs into the folder of all other builds and starts it."""
    variables = subprocess.run(["make", "-s", "env"], cwd=HERE.parents[2], check=True, capture_output=True, text=True)
    folder = variables.stdout.split('CARGO_TARGET_DIR="')[1].split('"')[0]
    build = ["cargo", "build", "--workspace", "--bench", "timer", "--message-format", "json"]
    build += ["--target-dir", folder]
    output = subprocess.run(build, cwd=HERE, check=True, capture_output=True, text=True).stdout
    messages = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    programs = [m["executable"] for m in messages if m.get("target", {}).get("name") == "timer"]
    # What is freed goes back at once; else the memory of models would hide behind that of loading them.
    environment = os.environ | {"MIMALLOC_PURGE_DELAY": "0"} if purging else None
    return subprocess.Popen([programs[-1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def ask(process, order):
    print(json.dumps(order), file=process.stdin, flush=True)
    answer = json.loads(process.stdout.readline())
    if "error" in answer:
        raise SystemExit(f"{order['engine']} {order.get('model', '')}: {answer['error']}")
    return answer


class Ours:
    """One plan in the timer's process: `inferq` or `tract`."""

    def __init__(self, process, engine, path, feeds):
        self.process, self.engine, self.path = process, engine, str(path)
        self.inputs = []
        for name, array in feeds.items():
            file = path.with_suffix(f".{name}.bin")
            file.write_bytes(array.tobytes())
            self.inputs.append({"name": name, "file": str(file), "element": array.dtype.name, "shape": array.shape})

    def ask(self):
        order = {"model": self.path, "engine": self.engine, "inputs": self.inputs, "seconds": TURN_SECONDS}
        return ask(self.process, order)

    def turn(self):
        answer = self.ask()
        self.output = np.array(answer["output"], np.float32)
        return answer["median_ms"]


class Theirs:
    """ONNX Runtime with one thread."""

    def __init__(self, path, feeds):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.feeds = feeds

    def turn(self):
        times, begun = [], time.perf_counter()
        while time.perf_counter() - begun < TURN_SECONDS or len(times) < 3:
            start = time.perf_counter()
            outputs = self.session.run(None, self.feeds)
            times.append(time.perf_counter() - start)
        self.output = outputs[-1].astype(np.float32).ravel()
        return statistics.median(times) * 1000


def profile(name, engine):
    """The operators by their share of one run."""
    times = {}
    for operator, _, took in engine.ask()["nodes"]:
        count, total = times.get(operator, (0, 0.0))
        times[operator] = (count + 1, total + took)
    whole = sum(total for _, total in times.values())
    print(f"{name}: {whole:.3f} ms")
    for operator, (count, total) in sorted(times.items(), key=lambda item: -item[1][1]):
        print(f"  {total / whole:6.1%} {total:10.3f} ms {count:5} x {operator}")


def resident(process):
    """Memory of one version of a 50 MB model, of three that are the same and of three that differ in a quarter."""
    import models

    for name, versions in (("same", (0, 0, 0)), ("last layer differs", (0, 1, 2))):
        with tempfile.TemporaryDirectory() as folder:
            paths = []
            for place, version in enumerate(versions):
                paths.append(str(Path(folder) / f"{place}.onnx"))
                models.wide(Path(paths[-1]), version)
            sizes = ask(process, {"engine": "resident", "models": paths})["mib"]
        base, one, three = sizes[0], sizes[1], sizes[-1]
        ratio = (three - base) / (one - base)
        print(f"three versions, {name}: {one - base:.0f} MiB for one, {three - base:.0f} for all, ratio {ratio:.2f}")


def main(words):
    import models

    if words == ["--resident"]:
        return resident(timer(purging=True))
    profiling = "--profile" in words
    words = [word for word in words if word != "--profile"]
    process = timer()
    cases = {name: case for name, case in CASES.items() if not words or any(word in name for word in words)}
    if not profiling:
        print(f"{'ms, one thread':16}{'inferq':>10}{'tract':>10}{'ORT':>10}{'/ORT':>8}{'tract/ORT':>11}  difference")
    with tempfile.TemporaryDirectory() as folder:
        for name, (model, feeds) in cases.items():
            path = Path(folder) / f"{model}.onnx"
            if not path.exists():
                models.MODELS[model](path)
            if profiling:
                profile(name, Ours(process, "profile", path, feeds))
                continue
            engines = [Ours(process, "inferq", path, feeds), Ours(process, "tract", path, feeds), Theirs(path, feeds)]
            rounds = [[0.0] * 3 for _ in range(ROUNDS)]
            for turn, times in enumerate(rounds):
                for place in range(3):
                    which = (turn + place) % 3
                    times[which] = engines[which].turn()
            ours, tract, theirs = (statistics.median(column) for column in zip(*rounds))
            ratio = statistics.median(times[0] / times[2] for times in rounds)
            plain = statistics.median(times[1] / times[2] for times in rounds)
            difference = np.abs(engines[0].output - engines[2].output).max()
            print(f"{name:16}{ours:10.3f}{tract:10.3f}{theirs:10.3f}{ratio:8.2f}{plain:11.2f}  {difference:.1e}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
