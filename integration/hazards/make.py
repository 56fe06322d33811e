"""Writes the models of this folder, each of which can harm the worker that runs it or keeps it busy.

    python -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python make.py

Each takes one number `n`, as FP32[1], and gives one number `y`; `heavy` takes images of 8 x 8 pixels.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
WIDTH = 64
STRETCH = 1_000_000
LINKS = 64
CHANNELS = 64
LAYERS = 112
node = helper.make_node


def value(name, shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def save(name, nodes, weights, inputs=(value("n", [1]),), outputs=(value("y", [1]),)):
    initializers = [numpy_helper.from_array(np.asarray(array), key) for key, array in weights.items()]
    graph = helper.make_graph(nodes, name, list(inputs), list(outputs), initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


def main():
    # 0, 1, ... n - 1
    count = [node("Squeeze", ["n"], ["count"]), node("Range", ["zero", "count", "one"], ["steps"])]
    numbers = {"zero": np.float32(0), "one": np.float32(1)}

    # A loop of n steps, each with a product of matrices: with ten million steps it takes many minutes.
    step = [
        node("MatMul", ["state", "turn"], ["turned"]),
        node("Tanh", ["turned"], ["small"]),
        node("Add", ["small", "x"], ["next"]),
    ]
    square = [WIDTH, WIDTH]
    body = helper.make_graph(step, "step", [value("state", square), value("x", [])], [value("next", square)])
    highest = [
        node("ReduceMax", ["end"], ["top"], axes=[0, 1], keepdims=0),
        node("Reshape", ["top", "single"], ["y"]),
    ]

    def spins(start, end):
        return node("Scan", [start, "steps"], [end], body=body, num_scan_inputs=1)

    spin = [spins("start", "end"), *highest]
    turn = np.random.default_rng(5).standard_normal(square).astype(np.float32) / WIDTH
    start = {"turn": turn, "start": np.zeros(square, np.float32), "single": np.array([1])}
    save("spin", count + spin, numbers | start)

    # The same one after another: a worker can stop between them, which it cannot within a loop.
    places = ["start", *(f"after_{link}" for link in range(1, LINKS)), "end"]
    chain = [spins(*ends) for ends in zip(places, places[1:])]
    save("chain", count + chain + highest, numbers | start)

    # A line of n points, drawn a million times as long: with twenty million points the engine asks for
    # more memory than a process can have, and Rust ends one whose memory is refused.
    stretch = [
        node("Reshape", ["steps", "line"], ["short"]),
        node("Resize", ["short", "", "scales"], ["long"], mode="linear", coordinate_transformation_mode="asymmetric"),
        node("ReduceMax", ["long"], ["top"], axes=[0, 1, 2], keepdims=0),
        node("Reshape", ["top", "single"], ["y"]),
    ]
    scales = np.array([1, 1, STRETCH], np.float32)
    shapes = {"line": np.array([1, 1, -1]), "scales": scales, "single": np.array([1])}
    save("stretch", count + stretch, numbers | shapes)

    # The same convolution again and again: milliseconds for each row, however many run together.
    draw = np.random.default_rng(7)
    scaled = {
        "first": draw.standard_normal((CHANNELS, 1, 3, 3)) / 3,
        "again": draw.standard_normal((CHANNELS, CHANNELS, 3, 3)) / np.sqrt(4.5 * CHANNELS),
    }
    weights = {key: array.astype(np.float32) for key, array in scaled.items()} | {"image": np.array([-1, 1, 8, 8])}
    heavy, rows = [node("Reshape", ["input", "image"], ["rows"])], "rows"
    for layer in range(LAYERS):
        kernel, name = "again" if layer else "first", f"layer_{layer}"
        heavy.append(node("Conv", [rows, kernel], [f"{name}_sums"], kernel_shape=[3, 3], pads=[1] * 4))
        heavy.append(node("Relu", [f"{name}_sums"], [name]))
        rows = name
    heavy += [node("GlobalAveragePool", [rows], ["means"]), node("Flatten", ["means"], ["y"])]
    save("heavy", heavy, weights, [value("input", ["batch", 64])], [value("y", ["batch", CHANNELS])])


main()
