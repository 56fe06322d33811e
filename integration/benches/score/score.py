"""Scores a large CSV with `inferq score` and with pandas + ONNX Runtime, and says what each took.

    python -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python score.py [WORDS ..]

The table is digits with noise: 64 columns of numbers, ROWS rows (1 000 000 unless told). Both read the CSV,
run the digits model on every row and write a CSV of its outputs; the start of the private nats-server and
workers counts for `inferq score`. They take turns, ROUNDS times, and the ratio is the median of the rounds' own.

    time      the above, with the peak memory of the command, and whether the answers agree (default)
    memory    peak memory of the command for ROWS / 10 and for ROWS
    engine    an MLP (784-1024-1024-10): rows per second of one worker with one thread through the queue, against
              the same engine in a loop over batches of the same size in one process
    workers   the same MLP and a small BERT (8 x 128): two workers of one thread each against one
    live      p99 of 200 calls per second to the digits, alone and beside a run that scores the MLP, with all of
              the executors' time and with --max-share (SHARES), on EXECUTORS threads (all cores but one)
    kills     kills the command KILLS times (20) at random moments, resumes it each time, and compares the
              output with that of an undisturbed run, byte by byte
"""

import contextlib
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
MODELS = ROOT / "integration" / "models"
ROWS = int(os.environ.get("ROWS", 1_000_000))
ROUNDS = int(os.environ.get("ROUNDS", 3))
KILLS = int(os.environ.get("KILLS", 20))

PANDAS = """
import sys, numpy as np, pandas as pd, onnxruntime as ort
model, source, target = sys.argv[1:]
session = ort.InferenceSession(model)
name = session.get_inputs()[0].name
first = True
for chunk in pd.read_csv(source, dtype=np.float32, chunksize=4096):
    label, scores = session.run(None, {name: chunk.to_numpy(np.float32)})
    out = pd.DataFrame(np.column_stack([label.reshape(len(chunk), -1), scores.reshape(len(chunk), -1)]))
    out.to_csv(target, index=False, header=first, mode="w" if first else "a")
    first = False
"""


def table(path, rows):
    """Held-out digits over and over, each pixel moved a little, so that no two rows are equal."""
    digits = np.loadtxt(MODELS / "digits" / "held_out.csv", delimiter=",", skiprows=1)[:, :64]
    random_numbers = np.random.default_rng(7)
    with open(path, "w") as file:
        file.write(",".join(f"pixel_{n}" for n in range(64)) + "\n")
        for start in range(0, rows, 10_000):
            some = digits[np.arange(start, min(start + 10_000, rows)) % len(digits)]
            np.savetxt(file, some + random_numbers.normal(0, 0.3, some.shape), fmt="%.3f", delimiter=",")


def program():
    variables = subprocess.run(["make", "-s", "env"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return variables.split('CARGO_TARGET_DIR="')[1].split('"')[0] + "/debug/inferq"


def command(source, target, *more):
    return [program(), "score", "--model", "digits", "--models", str(MODELS), "--in", source, "--out", target, *more]


def run(arguments):
    """Seconds, and the peak memory of the process itself in MB."""
    began = time.perf_counter()
    process = psutil.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    peak = 0
    while process.poll() is None:
        try:
            peak = max(peak, process.memory_info().rss)
        except psutil.Error:
            pass
        time.sleep(0.05)
    took = time.perf_counter() - began
    if process.returncode != 0:
        sys.exit(process.stderr.read().decode())
    return took, peak / 1e6


def compare_time(folder, source):
    ours, theirs = folder / "ours.csv", folder / "theirs.csv"
    script = [sys.executable, "-c", PANDAS, str(MODELS / "digits" / "1" / "model.onnx"), source, str(theirs)]
    ratios = []
    for round_number in range(ROUNDS):
        turns = [("inferq", command(source, str(ours), "--force")), ("pandas", script)]
        took = {name: run(arguments) for name, arguments in (turns if round_number % 2 else reversed(turns))}
        ratios.append(took["inferq"][0] / took["pandas"][0])
        told = ", ".join(f"{name} {seconds:.1f} s, {peak:.0f} MB" for name, (seconds, peak) in sorted(took.items()))
        print(f"{told}, ratio {ratios[-1]:.2f}", flush=True)
    one, two = (np.genfromtxt(path, delimiter=",", skip_header=1) for path in (ours, theirs))
    print(f"{ROWS} rows: ratio {statistics.median(ratios):.2f}; largest difference {np.abs(one - two).max():.1e}")


def compare_memory(folder, source):
    few = folder / "few.csv"
    table(few, ROWS // 10)
    for path in (str(few), source):
        took, peak = run(command(path, str(folder / "out.csv"), "--force"))
        print(f"{path}: {took:.1f} s, the command takes at most {peak:.0f} MB", flush=True)


BATCH = {"mlp": 256, "bert": 8}
SHARES = os.environ.get("SHARES", "1 0.5 0.25 0.1").split()
EXECUTORS = int(os.environ.get("EXECUTORS", max(1, os.cpu_count() - 1)))


@contextlib.contextmanager
def running(folder, workers, batch, executors=1):
    """A stack over the engine's benchmark models; gives its address."""
    arguments = ["up", "--models", str(folder / "models"), "--workers", str(workers), "--port", "0", "--redis", "off"]
    arguments += ["--data", str(folder / "data"), "--json", "--", "--executors", str(executors), "--max-batch-rows", str(batch)]
    stack = subprocess.Popen([program(), *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        yield json.loads(stack.stdout.readline())["nats"]
    finally:
        stack.send_signal(signal.SIGINT)
        stack.wait()


def benchmark_models(folder):
    sys.path.insert(0, str(ROOT / "worker" / "engine" / "benches"))
    import models

    for name in BATCH:
        path = folder / "models" / name / "1" / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        models.MODELS[name](path)


def rows_per_second(folder, model, source, workers=1):
    """Of a run with workers of one thread in its private stack, whose start does not count."""
    arguments = ["score", "--model", model, "--models", str(folder / "models"), "--workers", str(workers)]
    arguments += ["--in", source, "--out", str(folder / "out.npz"), "--force", "--json"]
    arguments += ["--", "--executors", "1", "--max-batch-rows", str(BATCH[model])]
    output = subprocess.run([program(), *arguments], check=True, capture_output=True, text=True).stdout
    done = json.loads(output.splitlines()[-1])
    return done["rows"] / done["seconds"]


def rows_for(folder, model, rows):
    dice = np.random.default_rng(7)
    path = folder / f"{model}.npz"
    if model == "mlp":
        np.savez(path, x=dice.random((rows, 784), dtype=np.float32))
    else:
        np.savez(path, ids=dice.integers(0, 1000, (rows, 128)), mask=np.ones((rows, 128), np.int64))
    return str(path)


def compare_engine(folder, _):
    benchmark_models(folder)
    import compare as engine

    rows, batch = 100_000, BATCH["mlp"]
    source = rows_for(folder, "mlp", rows)
    loop = engine.timer()
    feeds = {"x": np.random.default_rng(7).random((batch, 784), dtype=np.float32)}
    alone = engine.Ours(loop, "inferq", folder / "models" / "mlp" / "1" / "model.onnx", feeds)
    ratios = []
    for _ in range(ROUNDS):
        before = batch / alone.turn() * 1000
        queued = rows_per_second(folder, "mlp", source)
        after = batch / alone.turn() * 1000
        ratios.append(queued / statistics.mean((before, after)))
        print(f"mlp: queue {queued:.0f} rows/s, loop {before:.0f} and {after:.0f}, ratio {ratios[-1]:.2f}", flush=True)
    print(f"mlp: ratio {statistics.median(ratios):.2f}")


def compare_workers(folder, _):
    benchmark_models(folder)
    for model, rows in (("bert", 400), ("mlp", 100_000)):
        source, ratios = rows_for(folder, model, rows), []
        for _ in range(ROUNDS):
            each = {workers: rows_per_second(folder, model, source, workers) for workers in (1, 2)}
            ratios.append(each[2] / each[1])
            print(f"{model}: {each[1]:.1f} and {each[2]:.1f} rows/s, ratio {ratios[-1]:.2f}", flush=True)
        print(f"{model}: two workers do {statistics.median(ratios):.2f} times the work of one")


def compare_live(folder, _):
    benchmark_models(folder)
    shutil.copytree(MODELS / "digits", folder / "models" / "digits")
    source = rows_for(folder, "mlp", 150_000 * min(EXECUTORS, 4))
    body = json.dumps({"instances": [[0] * 64]})

    def p99(address):
        arguments = ["bench", "digits", "--body", body, "--mode", "rpc", "--rate", "200", "--duration", "5s", "--no-cache"]
        arguments += ["--nats", address, "--json"]
        output = subprocess.run([program(), *arguments], check=True, capture_output=True, text=True).stdout
        return json.loads(output.splitlines()[-1])["report"]["latency"]["p99_us"] / 1000

    with running(folder, 1, 32, EXECUTORS) as address:
        for share in SHARES:
            limit = ["--max-share", share] if share != "1" else []
            run = [program(), "score", "--model", "mlp", "--nats", address, "--in", source, "--json", *limit]
            ratios = []
            for number in range(ROUNDS):
                alone = p99(address)
                output = str(folder / f"{share}-{number}.npy")
                scoring = subprocess.Popen([*run, "--out", output], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                beside = p99(address)
                during = scoring.poll() is None
                scoring.send_signal(signal.SIGINT)
                scoring.wait()
                ratios.append(beside / alone)
                told = "" if during else " (the run ended before the calls did)"
                print(f"p99 alone {alone:.2f} ms, beside a run {beside:.2f} ms, ratio {ratios[-1]:.2f}{told}", flush=True)
            print(f"live: {EXECUTORS} executors, beside a run with {share} of their time, ratio {statistics.median(ratios):.2f}")


def compare_kills(folder, source):
    calm, harried = folder / "calm.csv", folder / "harried.csv"
    took, _ = run(command(source, str(calm), "--force"))
    harried.unlink(missing_ok=True)
    dice = random.Random(int(os.environ.get("SEED", 1)))
    kills = 0
    while kills < KILLS and not harried.exists():
        process = subprocess.Popen(command(source, str(harried), "--resume"), stderr=subprocess.DEVNULL)
        try:
            # Long enough for some chunks beside the start, short enough for all the kills.
            process.wait(dice.uniform(0.5, 1.0 + 2 * took / KILLS))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    if not harried.exists():
        run(command(source, str(harried), "--resume"))
    same = calm.read_bytes() == harried.read_bytes()
    print(f"{ROWS} rows, killed {kills} times: {'byte by byte the same' if same else 'THE OUTPUT DIFFERS'}")
    return same


def main():
    words = sys.argv[1:] or ["time"]
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        source = str(folder / "rows.csv")
        if set(words) - {"engine", "workers", "live"}:
            table(source, ROWS)
        cases = {"time": compare_time, "memory": compare_memory, "kills": compare_kills}
        cases |= {"live": compare_live, "engine": compare_engine, "workers": compare_workers}
        if any(cases[word](folder, source) is False for word in words):
            sys.exit(1)


main()
