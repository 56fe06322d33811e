#!/usr/bin/env python3
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "numpy==2.4.6",
#     "onnx==1.23.2",
#     "onnxruntime==1.32.0",
#     "scikit-learn==1.9.1",
# ]
# ///
"""Makes the files of the model `digits`, beside this script.

    1/model.onnx    a multilayer perceptron of 64-64-64-10, float32
    model.toml      the names of the input columns
    held_out.csv    600 rows the training never saw, pixels and label

The data are the 1797 handwritten digits that scikit-learn ships: E. Alpaydin and C. Kaynak,
"Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998,
https://doi.org/10.24432/C50P49, licence CC BY 4.0. A pixel is an integer from 0 to 16; the model
takes it as it is and scales inside.

Run it with `uv run make.py`, or install the versions above and use `python make.py`. The seed is
fixed. Another processor may still train other last bits, so the script ends by checking what
everybody relies on, and fails where it does not hold.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

HERE = Path(__file__).resolve().parent
SEED = 20
# Sizes and weight decay with the best accuracy in four-fold cross-validation over the rows that
# are trained on; the held-out rows had no say in it.
HIDDEN = (64, 64)
WEIGHT_DECAY = 0.1
HELD_OUT_ROWS = 600
LEAST_ACCURACY = 0.96
MOST_BYTES = 300_000
LARGEST_PIXEL = 16.0
COLUMNS = [f"pixel_{i}" for i in range(64)]


def train(pixels, labels):
    """Dense layers; the training sees the pixels as the graph will scale them."""
    network = MLPClassifier(
        hidden_layer_sizes=HIDDEN, alpha=WEIGHT_DECAY, max_iter=400, random_state=SEED
    )
    network.fit((pixels / LARGEST_PIXEL).astype(np.float32), labels)
    return network


def stored(constant):
    """As float32, with what weight decay left of dead pixels set to zero: subnormals are slow."""
    constant = np.asarray(constant, dtype=np.float32)
    return np.where(np.abs(constant) < 1e-12, np.float32(0), constant)


def graph(network):
    """The network as ONNX: scale, then Gemm and Relu per hidden layer, Gemm, Softmax and ArgMax."""
    constants = {"scale": np.float32(1.0 / LARGEST_PIXEL)}
    nodes = [helper.make_node("Mul", ["input", "scale"], ["scaled"], "scale_pixels")]
    value, last = "scaled", len(network.coefs_) - 1
    for i, (weight, bias) in enumerate(zip(network.coefs_, network.intercepts_)):
        constants |= {f"weight_{i}": weight, f"bias_{i}": bias}
        dense = "logits" if i == last else f"dense_{i}"
        nodes.append(helper.make_node("Gemm", [value, f"weight_{i}", f"bias_{i}"], [dense], dense))
        value = dense
        if i < last:
            value = f"active_{i}"
            nodes.append(helper.make_node("Relu", [dense], [value], value))
    nodes += [
        helper.make_node("Softmax", ["logits"], ["probabilities"], "probabilities", axis=1),
        helper.make_node("ArgMax", ["logits"], ["label"], "label", axis=1, keepdims=0),
    ]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "digits",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 64])],
            [
                helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
                helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
            ],
            [numpy_helper.from_array(stored(value), name) for name, value in constants.items()],
        ),
        producer_name="inferq-digits",
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def settings():
    """`model.toml`: which column of a record is which element of a row."""
    rows = [COLUMNS[i : i + 8] for i in range(0, len(COLUMNS), 8)]
    lines = ["    " + ", ".join(f'"{name}"' for name in row) + "," for row in rows]
    return "\n".join(
        [
            "# Handwritten digits of 8 x 8 pixels, row by row from the top left, each 0 to 16.",
            "# Written by make.py, which also names the source of the data.",
            "[inputs.input]",
            "columns = [",
            *lines,
            "]",
            "",
        ]
    )


def check(pixels, labels):
    """Reads the files back as a worker would, and holds them to what is promised."""
    session = onnxruntime.InferenceSession(
        str(HERE / "1" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    names = ["probabilities", "label"]
    probabilities, answers = session.run(names, {"input": pixels})
    for i, row in enumerate(pixels):
        alone, answer = session.run(names, {"input": row[np.newaxis]})
        assert np.allclose(alone[0], probabilities[i], rtol=0, atol=1e-6), f"row {i} depends on the others"
        assert answer[0] == answers[i], f"row {i} depends on the others"

    accuracy = float(np.mean(answers == labels))
    size = sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file())
    print(f"accuracy on {len(labels)} held-out rows: {accuracy:.4f} (at least {LEAST_ACCURACY})")
    print(f"files: {size} bytes (at most {MOST_BYTES})")
    assert accuracy >= LEAST_ACCURACY, "the model is not accurate enough"
    assert size <= MOST_BYTES, "the files are too large"


def main():
    digits = load_digits()
    seen, held_out, seen_labels, held_out_labels = train_test_split(
        digits.data, digits.target, test_size=HELD_OUT_ROWS, stratify=digits.target, random_state=SEED
    )
    (HERE / "1").mkdir(exist_ok=True)
    model = graph(train(seen, seen_labels))
    (HERE / "1" / "model.onnx").write_bytes(model.SerializeToString(deterministic=True))
    (HERE / "model.toml").write_text(settings(), encoding="utf-8")
    table = np.column_stack([held_out, held_out_labels]).astype(int)
    np.savetxt(
        HERE / "held_out.csv", table, fmt="%d", delimiter=",", header=",".join([*COLUMNS, "label"]), comments=""
    )
    check(held_out.astype(np.float32), held_out_labels)


if __name__ == "__main__":
    main()
