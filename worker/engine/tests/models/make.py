"""Writes the small models of this folder, and for each what ONNX Runtime answers.

    python -m venv venv && venv/bin/pip install -r requirements.txt && venv/bin/python make.py

`<name>.onnx` is the model, `<name>.json` holds one run of it: inputs and outputs as
`{"element", "shape", "data"}`, floats printed so that they read back to the same bits.
A model that ONNX Runtime cannot run, or must not be compared with, has no `.json`.
Weights come from a fixed seed, so the files change only when this script or a pinned version does.
"""

import json
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
OPSET = 17
DOMAINS = {"ai.onnx.ml": 3}
ELEMENTS = {
    "float32": "f32",
    "float16": "f16",
    "float64": "f64",
    "int64": "i64",
    "bool": "bool",
    "object": "string",
}
rng = np.random.default_rng(20240607)


def floats(*shape):
    return rng.standard_normal(shape).astype(np.float32)


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


def save(name, nodes, inputs, outputs, weights=(), feeds=None, opset=OPSET, external=None):
    """`weights` and `feeds` map names to arrays; without `feeds` no answers are stored.

    `external` names a file that takes the weights instead of the model.
    """
    initializers = [numpy_helper.from_array(array, key) for key, array in dict(weights).items()]
    graph = helper.make_graph(nodes, name, inputs, outputs, initializers)
    domains = {"": opset} | {node.domain: DOMAINS.get(node.domain, 1) for node in nodes if node.domain}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    model = helper.make_model(graph, opset_imports=opsets)
    model.ir_version = 8
    path = HERE / f"{name}.onnx"
    if external:
        # The writer appends to a file that is there.
        (HERE / external).unlink(missing_ok=True)
        onnx.save(model, path, save_as_external_data=True, location=external, size_threshold=0)
        (HERE / external).chmod(0o644)
    else:
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString(deterministic=True))
    if feeds is None:
        return
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    answers = dict(zip(names, session.run(names, feeds)))
    case = {
        "inputs": [tensor(each.name, feeds[each.name]) for each in session.get_inputs()],
        "outputs": [tensor(each, answers[each]) for each in names],
    }
    (HERE / f"{name}.json").write_text(json.dumps(case, ensure_ascii=False) + "\n")


def tensor(name, array):
    array = np.asarray(array)
    element = ELEMENTS[str(array.dtype)] if array.dtype.kind != "U" else "string"
    flat = array.reshape(-1)
    # A f32 widened to a double prints in a form that gives the same f32 back.
    data = [float(x) for x in flat] if array.dtype.kind == "f" else flat.tolist()
    return {"name": name, "element": element, "shape": list(array.shape), "data": data}


def forest(name, kind, classes, negative=False, **attributes):
    """11 trees of depth 3 over 5 features that are whole numbers, so that equal ones meet; 13 rows."""
    prefix = "class" if kind == "Classifier" else "target"
    draw = np.random.default_rng(len(name) * 1000 + classes)
    columns = {key: [] for key in ("treeids", "nodeids", "featureids", "modes", "values", "truenodeids", "falsenodeids")}
    leaves = {key: [] for key in ("treeids", "nodeids", "ids", "weights")}
    kinds = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"]
    for tree in range(11):
        for node in range(15):
            branch = node < 7
            row = (tree, node, int(draw.integers(5)), str(draw.choice(kinds)) if branch else "LEAF", float(draw.integers(-2, 3)))
            for key, item in zip(columns, (*row, 2 * node + 1 if branch else 0, 2 * node + 2 if branch else 0)):
                columns[key].append(item)
            if not branch:
                for target in range(classes):
                    weight = float(np.float32(draw.random() - (0.5 if negative else 0)) / 11)
                    for key, item in zip(leaves, (tree, node, target, weight)):
                        leaves[key].append(item)
    nodes = {f"nodes_{key}": column for key, column in columns.items()}
    nodes |= {f"{prefix}_{key}": column for key, column in leaves.items()} | attributes
    outputs = [value("score", TensorProto.FLOAT, ["batch", None])]
    if kind == "Classifier":
        label = TensorProto.STRING if "classlabels_strings" in attributes else TensorProto.INT64
        outputs.insert(0, value("label", label, ["batch"]))
    names = [output.name for output in outputs]
    save(
        name,
        [helper.make_node(f"TreeEnsemble{kind}", ["x"], names, name="trees", domain="ai.onnx.ml", **nodes)],
        [value("x", TensorProto.FLOAT, ["batch", 5])],
        outputs,
        feeds={"x": draw.integers(-3, 4, (13, 5)).astype(np.float32)},
    )


def add_node(nodes, operator, *names, **attributes):
    output = f"t{len(nodes)}"
    nodes.append(helper.make_node(operator, list(names), [output], name=f"node_{output}", **attributes))
    return output


def add_weight(weights, array):
    name = f"w{len(weights)}"
    weights[name] = np.asarray(array)
    return name


def encoder():
    """One layer of an encoder, 10 wide with 2 heads, as torch writes it; the last product is clipped."""
    f32, i64 = TensorProto.FLOAT, TensorProto.INT64
    weights, nodes = {}, []
    add, weight = partial(add_node, nodes), partial(add_weight, weights)

    def linear(rows, inside, outside, flipped=False):
        product = add("MatMul", rows, weight(floats(inside, outside) / np.float32(3)))
        bias = weight(floats(outside))
        return add("Add", bias, product) if flipped else add("Add", product, bias)

    mask = add("Unsqueeze", add("Cast", "mask", to=f32), weight(np.array([1, 2])))
    mask = add("Mul", add("Sub", weight(np.float32(1)), mask), weight(np.float32(-1e4)))
    split, joined = weight(np.array([0, 0, 2, 5])), weight(np.array([0, 0, 10]))
    heads = [add("Reshape", linear("x", 10, 10, flipped), split) for flipped in (False, True, False)]
    query, key, content = (
        add("Transpose", head, perm=perm) for head, perm in zip(heads, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
    )
    scores = add("Add", add("Div", add("MatMul", query, key), weight(np.float32(np.sqrt(5)))), mask)
    mixed = add("MatMul", add("Softmax", scores, axis=-1), content)
    mixed = linear(add("Reshape", add("Transpose", mixed, perm=[0, 2, 1, 3]), joined), 10, 10)
    rows = add("LayerNormalization", add("Add", "x", mixed), weight(floats(10)), weight(floats(10)), axis=-1)
    inner = add("Relu", linear(rows, 10, 21))
    last = add("Add", linear(inner, 21, 10), rows)
    nodes.append(helper.make_node("Clip", [last, weight(np.float32(-2)), weight(np.float32(2.5))], ["y"], name="clip"))
    mask = np.array([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0]])
    save(
        "encoder",
        nodes,
        [value("x", f32, ["batch", "sequence", 10]), value("mask", i64, ["batch", "sequence"])],
        [value("y", f32, ["batch", "sequence", 10])],
        weights,
        {"x": floats(3, 7, 10), "mask": mask.astype(np.int64)},
    )


def old_encoder():
    """One layer of an encoder as torch wrote it before the operators for norms and gelu, 12 wide with 3 heads."""
    f32 = TensorProto.FLOAT
    weights, nodes = {}, []
    add, weight = partial(add_node, nodes), partial(add_weight, weights)

    def linear(rows, inside, outside):
        product = add("MatMul", rows, weight(floats(inside, outside) / np.float32(3)))
        return add("Add", product, weight(floats(outside)))

    def norm(rows):
        centered = add("Sub", rows, add("ReduceMean", rows, axes=[-1]))
        variance = add("ReduceMean", add("Pow", centered, weight(np.float32(2))), axes=[-1])
        root = add("Sqrt", add("Add", variance, weight(np.float32(1e-12))))
        return add("Add", add("Mul", add("Div", centered, root), weight(floats(12))), weight(floats(12)))

    def gelu(rows):
        raised = add("Add", add("Erf", add("Div", rows, weight(np.float32(np.sqrt(2))))), weight(np.float32(1)))
        return add("Mul", add("Mul", rows, raised), weight(np.float32(0.5)))

    x = norm("x")
    split, joined = weight(np.array([0, 0, 3, 4])), weight(np.array([0, 0, 12]))
    heads = [add("Reshape", linear(x, 12, 12), split) for _ in range(3)]
    query, key, content = (
        add("Transpose", head, perm=perm) for head, perm in zip(heads, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
    )
    scores = add("Div", add("MatMul", query, key), weight(np.float32(2)))
    mixed = add("MatMul", add("Softmax", add("Add", scores, "mask"), axis=-1), content)
    mixed = linear(add("Reshape", add("Transpose", mixed, perm=[0, 2, 1, 3]), joined), 12, 12)
    rows = norm(add("Add", mixed, x))
    last = norm(add("Add", linear(gelu(linear(rows, 12, 23)), 23, 12), rows))
    nodes.append(helper.make_node("Identity", [last], ["y"], name="y"))
    mask = np.where(np.arange(6) < np.array([6, 4, 1])[:, None], 0, -1e4)[:, None, None, :]
    save(
        "old_encoder",
        nodes,
        [value("x", f32, ["batch", "sequence", 12]), value("mask", f32, ["batch", 1, 1, "sequence"])],
        [value("y", f32, ["batch", "sequence", 12])],
        weights,
        {"x": floats(3, 6, 12), "mask": mask.astype(np.float32)},
        opset=13,
    )


def scaled_heads():
    """Attention as torch writes it today: queries and keys are scaled by half of the scale each; 3 heads share keys."""
    f32 = TensorProto.FLOAT
    weights, nodes = {}, []
    add, weight = partial(add_node, nodes), partial(add_weight, weights)

    def linear(rows, columns):
        product = add("MatMul", rows, weight(floats(12, columns) / np.float32(3)))
        return add("Add", weight(floats(columns)), product)

    joined = weight(np.array([0, 0, 12]))
    heads = [add("Reshape", linear("x", 4 * count), weight(np.array([0, 0, count, 4]))) for count in (3, 1, 1)]
    query, key, content = (add("Transpose", head, perm=[0, 2, 1, 3]) for head in heads)
    root = weight(np.float32(np.sqrt(0.5)))
    key = add("Mul", add("Transpose", key, perm=[0, 1, 3, 2]), root)
    scores = add("Add", add("MatMul", add("Mul", query, root), key), "mask")
    mixed = add("MatMul", add("Softmax", scores, axis=-1), content)
    mixed = linear(add("Reshape", add("Transpose", mixed, perm=[0, 2, 1, 3]), joined), 12)
    nodes.append(helper.make_node("Identity", [mixed], ["y"], name="y"))
    mask = np.where(np.arange(6) < np.array([6, 4, 1])[:, None], 0, -1e4)[:, None, None, :]
    save(
        "scaled_heads",
        nodes,
        [value("x", f32, ["batch", "sequence", 12]), value("mask", f32, ["batch", 1, 1, "sequence"])],
        [value("y", f32, ["batch", "sequence", 12])],
        weights,
        {"x": floats(3, 6, 12), "mask": mask.astype(np.float32)},
    )


def normalized():
    """A Gemm with a factor, a dense layer and a batch norm in numbers of their own, and a bound: two layers in all."""
    f32 = TensorProto.FLOAT
    weights, nodes = {}, []
    add, weight = partial(add_node, nodes), partial(add_weight, weights)
    rows = add("Gemm", "x", weight(floats(7, 5)), weight(floats(7)), alpha=0.25, beta=2.0, transB=1)
    rows = add("Add", add("MatMul", rows, weight(floats(7, 6))), weight(floats(6)))
    spread = weight(np.abs(floats(6)) + np.float32(0.5))
    rows = add("BatchNormalization", rows, weight(floats(6)), weight(floats(6)), weight(floats(6)), spread)
    nodes.append(helper.make_node("Relu", [rows], ["y"], name="relu"))
    shapes = [value("x", f32, ["batch", 5])], [value("y", f32, ["batch", 6])]
    save("normalized", nodes, *shapes, weights, {"x": floats(4, 5)})


def gates():
    """Dense layers, each through another function, and what they give multiplied, subtracted and added."""
    f32 = TensorProto.FLOAT
    functions = [
        ("tanh", "Tanh", {}),
        ("sigmoid", "Sigmoid", {}),
        ("swish", "HardSwish", {}),
        ("leaky", "LeakyRelu", {"alpha": 0.2}),
        ("gelu", "Gelu", {}),
        ("gelu_tanh", "Gelu", {"approximate": "tanh"}),
    ]
    nodes, weights = [], {"last": floats(9, 5), "bound": np.float32(1.5)}
    for name, operator, attributes in functions:
        weights |= {f"{name}_w": floats(7, 9), f"{name}_b": floats(9)}
        nodes += [
            helper.make_node("MatMul", ["x", f"{name}_w"], [f"{name}_p"], name=f"{name}_product"),
            helper.make_node("Add", [f"{name}_p", f"{name}_b"], [f"{name}_s"], name=f"{name}_bias"),
            helper.make_node(operator, [f"{name}_s"], [name], name=name, **attributes),
        ]
    nodes += [
        helper.make_node("Mul", ["tanh", "sigmoid"], ["gated"], name="gated"),
        helper.make_node("Sub", ["swish", "gated"], ["less"], name="less"),
        helper.make_node("Add", ["less", "leaky"], ["more"], name="more"),
        helper.make_node("Sub", ["bound", "more"], ["turned"], name="turned"),
        helper.make_node("Min", ["turned", "bound"], ["bounded"], name="bounded"),
        helper.make_node("Mul", ["bounded", "gelu"], ["both"], name="both"),
        helper.make_node("Add", ["both", "gelu_tanh"], ["all"], name="all"),
        helper.make_node("Sigmoid", ["all"], ["gate"], name="gate"),
        helper.make_node("Mul", ["all", "gate"], ["silu"], name="silu"),
        helper.make_node("MatMul", ["silu", "last"], ["y"], name="last"),
    ]
    save(
        "gates",
        nodes,
        [value("x", f32, ["batch", 7])],
        [value("y", f32, ["batch", 5])],
        weights,
        {"x": floats(4, 7)},
        opset=20,
    )


def residual_block():
    """Three convolutions: strided and padded by rule, dilated, and one added to what came in."""
    f32 = TensorProto.FLOAT
    kernels = {"k1": floats(7, 3, 3, 3), "k2": floats(7, 7, 3, 2) / np.float32(4), "k3": floats(7, 7, 1, 1)}
    save(
        "residual_block",
        [
            helper.make_node("Conv", ["x", "k1", "b"], ["c1"], name="first", strides=[2, 2], auto_pad="SAME_UPPER"),
            helper.make_node("Relu", ["c1"], ["r1"], name="first_relu"),
            helper.make_node("Conv", ["r1", "k2"], ["c2"], name="second", dilations=[2, 1], pads=[2, 0, 2, 1]),
            helper.make_node("Clip", ["c2", "low", "high"], ["r2"], name="second_clip"),
            helper.make_node("Conv", ["r2", "k3", "b"], ["c3"], name="third"),
            helper.make_node("Add", ["r1", "c3"], ["sum"], name="sum"),
            helper.make_node("Relu", ["sum"], ["y"], name="last_relu"),
        ],
        [value("x", f32, ["batch", 3, "height", "width"])],
        [value("y", f32, ["batch", 7, "rows", "columns"])],
        kernels | {"b": floats(7), "low": np.float32(0), "high": np.float32(6)},
        {"x": floats(3, 3, 9, 14)},
    )


def dense(batch, name, feeds=None, columns=8, opset=OPSET):
    save(
        name,
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h1"], name="hidden"),
            helper.make_node("Relu", ["h1"], ["r1"], name="relu"),
            helper.make_node("MatMul", ["r1", "w2"], ["h2"], name="last"),
            helper.make_node("Add", ["h2", "b2"], ["h3"], name="bias"),
            helper.make_node("Softmax", ["h3"], ["y"], name="softmax", axis=1),
        ],
        [value("x", TensorProto.FLOAT, [batch, columns])],
        [value("y", TensorProto.FLOAT, [batch, 5])],
        {"w1": floats(8, 13), "b1": floats(13), "w2": floats(13, 5), "b2": floats(5)},
        feeds,
        opset,
    )


def main():
    f32, i64 = TensorProto.FLOAT, TensorProto.INT64

    dense("batch", "mlp", {"x": floats(33, 8)})
    dense(None, "mlp_open", {"x": floats(3, 8)}, columns=None)
    dense("batch", "mlp_opset13", {"x": floats(2, 8)}, opset=13)
    dense(4, "fixed_batch", {"x": floats(4, 8)})

    save(
        "softmax_axis0",
        [helper.make_node("Softmax", ["x"], ["y"], name="softmax", axis=0)],
        [value("x", f32, ["batch", 4])],
        [value("y", f32, ["batch", 4])],
        feeds={"x": floats(3, 4)},
    )
    # The mean is spread over all rows again, so only a trial can tell that rows are mixed.
    save(
        "mean_axis0",
        [
            helper.make_node("ReduceMean", ["x"], ["m"], name="mean", axes=[0], keepdims=1),
            helper.make_node("Sub", ["x", "m"], ["y"], name="centre"),
        ],
        [value("x", f32, ["batch", 4])],
        [value("y", f32, ["batch", 4])],
        feeds={"x": floats(3, 4)},
    )
    save(
        "sum_without_batch",
        [
            helper.make_node("ReduceSum", ["x"], ["total"], name="sum", keepdims=0),
            helper.make_node("Relu", ["x"], ["rows"], name="relu"),
        ],
        [value("x", f32, ["batch", 4])],
        [value("rows", f32, ["batch", 4]), value("total", f32, [])],
        feeds={"x": floats(3, 4)},
    )
    save(
        "gram",
        [
            helper.make_node("Transpose", ["x"], ["t"], name="turn", perm=[1, 0]),
            helper.make_node("MatMul", ["x", "t"], ["y"], name="product"),
        ],
        [value("x", f32, ["batch", 4])],
        [value("y", f32, ["batch", "batch"])],
        feeds={"x": floats(3, 4)},
    )
    save(
        "two_inputs",
        [
            helper.make_node("MatMul", ["left", "w"], ["product"], name="product"),
            helper.make_node("Add", ["product", "right"], ["sum"], name="sum"),
            helper.make_node("Tanh", ["sum"], ["y"], name="tanh"),
        ],
        [value("left", f32, ["n", 3]), value("right", f32, ["n", 5])],
        [value("y", f32, ["n", 5])],
        {"w": floats(3, 5)},
        {"left": floats(2, 3), "right": floats(2, 5)},
    )
    save(
        "two_batches",
        [helper.make_node("MatMul", ["left", "right"], ["y"], name="product")],
        [value("left", f32, ["n", 3]), value("right", f32, [3, "m"])],
        [value("y", f32, ["n", "m"])],
        feeds={"left": floats(2, 3), "right": floats(3, 4)},
    )
    save(
        "tokens",
        [
            helper.make_node("Gather", ["table", "ids"], ["words"], name="embedding"),
            helper.make_node("ReduceMean", ["words"], ["y"], name="mean", axes=[1], keepdims=0),
        ],
        [value("ids", i64, ["batch", "sequence"])],
        [value("y", f32, ["batch", 6])],
        {"table": floats(11, 6)},
        {"ids": rng.integers(0, 11, (3, 7)).astype(np.int64)},
    )
    save(
        "text",
        [helper.make_node("Identity", ["x"], ["y"], name="same")],
        [value("x", TensorProto.STRING, ["batch", 2])],
        [value("y", TensorProto.STRING, ["batch", 2])],
        feeds={"x": np.array([["eins", ""], ["drei", "vierzig €"]], dtype=object)},
    )
    save(
        "logic",
        [helper.make_node("Not", ["x"], ["y"], name="not")],
        [value("x", TensorProto.BOOL, ["batch", 3])],
        [value("y", TensorProto.BOOL, ["batch", 3])],
        feeds={"x": np.array([[True, False, True], [False, False, True]])},
    )
    save(
        "half",
        [helper.make_node("Add", ["x", "b"], ["y"], name="add")],
        [value("x", TensorProto.FLOAT16, ["batch", 3])],
        [value("y", TensorProto.FLOAT16, ["batch", 3])],
        {"b": floats(3).astype(np.float16)},
        {"x": floats(2, 3).astype(np.float16)},
    )
    save(
        "double",
        [helper.make_node("Mul", ["x", "x"], ["y"], name="square")],
        [value("x", TensorProto.DOUBLE, ["batch", 3])],
        [value("y", TensorProto.DOUBLE, ["batch", 3])],
        feeds={"x": floats(2, 3).astype(np.float64)},
    )
    save(
        "noise",
        [
            helper.make_node("RandomUniform", [], ["r"], name="draw", shape=[1, 4]),
            helper.make_node("Add", ["x", "r"], ["y"], name="add"),
        ],
        [value("x", f32, ["batch", 4])],
        [value("y", f32, ["batch", 4])],
    )
    save(
        "dropout",
        [helper.make_node("Dropout", ["x", "", "training"], ["y"], name="drop")],
        [value("x", f32, ["batch", 4])],
        [value("y", f32, ["batch", 4])],
        {"training": np.array(False)},
        {"x": floats(2, 4)},
    )
    save(
        "image",
        [
            helper.make_node("Conv", ["x", "k"], ["c"], name="conv", strides=[2, 2]),
            helper.make_node("GlobalAveragePool", ["c"], ["p"], name="pool"),
            helper.make_node("Flatten", ["p"], ["y"], name="flat"),
        ],
        [value("x", f32, ["batch", 2, "height", "width"])],
        [value("y", f32, ["batch", 3])],
        {"k": floats(3, 2, 5, 5)},
        {"x": floats(2, 2, 9, 11)},
    )
    save(
        "lookup",
        [helper.make_node("Gather", ["table", "ids"], ["y"], name="lookup")],
        [value("ids", i64, ["batch"])],
        [value("y", f32, ["batch", 2])],
        {"table": floats(3, 2)},
        {"ids": np.array([2, 0], dtype=np.int64)},
    )
    save(
        "clash",
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        [value("x", f32, ["batch", 5])],
        [value("y", f32, ["batch", 2])],
        {"w": floats(6, 2)},
    )
    # Rows of 7 and 10 values: neither is a whole number of vector registers.
    save(
        "layer_norm",
        [
            helper.make_node("LayerNormalization", ["x", "g", "b"], ["n"], name="norm", axis=-1),
            helper.make_node("MatMul", ["n", "w"], ["p"], name="product"),
            helper.make_node("LogSoftmax", ["p"], ["y"], name="log", axis=-1),
            helper.make_node("ReduceMean", ["p"], ["m"], name="mean", axes=[-1], keepdims=0),
        ],
        [value("x", f32, ["batch", "sequence", 7])],
        [value("y", f32, ["batch", "sequence", 10]), value("m", f32, ["batch", "sequence"])],
        {"g": floats(7), "b": floats(7), "w": floats(7, 10)},
        {"x": floats(3, 5, 7)},
    )
    save(
        "softmax_channels",
        [helper.make_node("Softmax", ["x"], ["y"], name="softmax", axis=1)],
        [value("x", f32, ["batch", 5, "height", "width"])],
        [value("y", f32, ["batch", 5, "height", "width"])],
        feeds={"x": floats(2, 5, 3, 2)},
    )
    forest("trees_modes", "Classifier", classes=3, classlabels_int64s=[4, 2, 9])
    forest("trees_softmax", "Classifier", 3, classlabels_int64s=[0, 1, 2], post_transform="SOFTMAX", base_values=[0.1, -0.2, 0.3])
    forest("trees_binary", "Classifier", 1, classlabels_strings=["no", "yes"])
    forest("trees_margin", "Classifier", 1, negative=True, classlabels_int64s=[0, 1], post_transform="LOGISTIC", base_values=[0.2])
    forest("trees_sum", "Regressor", 1, negative=True, n_targets=1, base_values=[0.5])
    forest("trees_average", "Regressor", 2, n_targets=2, aggregate_function="AVERAGE", base_values=[0.5, -1.0])
    forest("trees_min", "Regressor", 1, negative=True, n_targets=1, aggregate_function="MIN")
    forest("trees_max", "Regressor", 1, n_targets=1, aggregate_function="MAX")
    save(
        "unknown_operator",
        [helper.make_node("Celebrate", ["x"], ["y"], name="party", domain="example")],
        [value("x", f32, ["batch", 4])],
        [value("y", f32, ["batch", 4])],
    )
    save(
        "weights_outside",
        [helper.make_node("Add", ["x", "b"], ["y"], name="add")],
        [value("x", f32, ["batch", 4])],
        [value("y", f32, ["batch", 4])],
        {"b": floats(4)},
        {"x": floats(2, 4)},
        external="weights_outside.bin",
    )
    encoder()
    residual_block()
    # The product has one column, which the sum spreads over four.
    save(
        "spread",
        [
            helper.make_node("MatMul", ["x", "w"], ["value"], name="value"),
            helper.make_node("Add", ["value", "x"], ["sum"], name="sum"),
            helper.make_node("Relu", ["sum"], ["y"], name="relu"),
        ],
        [value("x", f32, ["batch", 4])],
        [value("y", f32, ["batch", 4])],
        {"w": floats(4, 1)},
        {"x": floats(3, 4)},
    )
    save(
        "open_width",
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        [value("x", f32, ["batch", "rows", "width"])],
        [value("y", f32, ["batch", "rows", 3])],
        {"w": floats(6, 3)},
        {"x": floats(2, 5, 6)},
    )
    old_encoder()
    gates()
    # Three heads of queries share one of keys.
    save(
        "shared_head",
        [
            helper.make_node("MatMul", ["x", "w"], ["query"], name="query"),
            helper.make_node("MatMul", ["query", "keys"], ["y"], name="scores"),
        ],
        [value("x", f32, ["batch", 3, "rows", 5]), value("keys", f32, ["batch", 1, 5, "columns"])],
        [value("y", f32, ["batch", 3, "rows", "columns"])],
        {"w": floats(5, 5)},
        {"x": floats(2, 3, 4, 5), "keys": floats(2, 1, 5, 6)},
    )
    scaled_heads()
    normalized()


if __name__ == "__main__":
    main()
