"""The models of compare.py, written with random weights from a fixed seed.

A forward pass takes as long whatever the weights are, so none has to be fetched; only the forest is
trained, since its cost is in how the data runs through the trees.
"""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

OPSET = 20
WIDE, HEADS, INNER, LAYERS, VOCABULARY = 384, 12, 1536, 6, 1000
rng = np.random.default_rng(20240607)


def value(name, kind, shape):
    return helper.make_tensor_value_info(name, kind, shape)


class Graph:
    """Nodes and weights under names of their own."""

    def __init__(self):
        self.nodes, self.weights = [], []

    def weight(self, array):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def random(self, *shape):
        scale = 1 / np.sqrt(np.prod(shape[1:]) if len(shape) == 4 else shape[0])
        return self.weight((rng.standard_normal(shape) * scale).astype(np.float32))

    def add(self, operator, *inputs, **attributes):
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=f"n{name}", **attributes))
        return name

    def linear(self, rows, inside, outside):
        return self.add("Add", self.add("MatMul", rows, self.random(inside, outside)), self.random(outside))

    def norm(self, rows):
        return self.add("LayerNormalization", rows, self.weight(np.ones(WIDE, np.float32)), self.random(WIDE))

    def save(self, path, inputs, output, shape):
        self.nodes[-1].output[0] = output
        outputs = [value(output, TensorProto.FLOAT, shape)]
        graph = helper.make_graph(self.nodes, path.stem, inputs, outputs, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)])
        model.ir_version = 9
        path.write_bytes(model.SerializeToString())


def mlp(path):
    """784-1024-1024-10 with ReLU: 1.9 million multiply-adds a row."""
    graph = Graph()
    rows = graph.add("Relu", graph.linear("x", 784, 1024))
    rows = graph.add("Relu", graph.linear(rows, 1024, 1024))
    graph.linear(rows, 1024, 10)
    graph.save(path, [value("x", TensorProto.FLOAT, ["batch", 784])], "y", ["batch", 10])


def wide(path, version=0):
    """Four layers 1792 wide, 50 MB; versions differ in the last."""
    graph = Graph()
    global rng
    rng = np.random.default_rng(5)
    rows = "x"
    for _ in range(3):
        rows = graph.add("Relu", graph.linear(rows, 1792, 1792))
    rng = np.random.default_rng(version)
    graph.linear(rows, 1792, 1792)
    graph.save(path, [value("x", TensorProto.FLOAT, ["batch", 1792])], "y", ["batch", 1792])


def bert(path):
    """An encoder of 6 layers, 384 wide, 12 heads: 10.6 million weights in its layers."""
    graph = Graph()
    shape = ["batch", "seq"]
    inputs = [value("ids", TensorProto.INT64, shape), value("mask", TensorProto.INT64, shape)]
    rows = graph.norm(graph.add("Gather", graph.random(VOCABULARY, WIDE), "ids"))
    mask = graph.add("Unsqueeze", graph.add("Cast", "mask", to=TensorProto.FLOAT), graph.weight(np.array([1, 2])))
    one, low = graph.weight(np.float32(1)), graph.weight(np.float32(-1e4))
    mask = graph.add("Mul", graph.add("Sub", one, mask), low)
    split, joined = graph.weight(np.array([0, 0, HEADS, WIDE // HEADS])), graph.weight(np.array([0, 0, WIDE]))
    scale = graph.weight(np.float32(np.sqrt(WIDE // HEADS)))
    for _ in range(LAYERS):
        heads = [graph.add("Reshape", graph.linear(rows, WIDE, WIDE), split) for _ in range(3)]
        query, key, content = (
            graph.add("Transpose", head, perm=perm)
            for head, perm in zip(heads, ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
        )
        scores = graph.add("Div", graph.add("MatMul", query, key), scale)
        weights = graph.add("Softmax", graph.add("Add", scores, mask), axis=-1)
        mixed = graph.add("Transpose", graph.add("MatMul", weights, content), perm=[0, 2, 1, 3])
        mixed = graph.linear(graph.add("Reshape", mixed, joined), WIDE, WIDE)
        rows = graph.norm(graph.add("Add", mixed, rows))
        inner = graph.add("Gelu", graph.linear(rows, WIDE, INNER))
        rows = graph.norm(graph.add("Add", graph.linear(inner, INNER, WIDE), rows))
    graph.add("ReduceMean", rows, graph.weight(np.array([1])), keepdims=0)
    graph.save(path, inputs, "y", ["batch", WIDE])


def convnet(path):
    """Five 3x3 convolutions over a 3x32x32 image, two of them with stride 2: 29 million multiply-adds."""
    graph = Graph()
    rows = "x"
    for inside, outside, stride in [(3, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)]:
        weights = (graph.random(outside, inside, 3, 3), graph.random(outside))
        rows = graph.add("Conv", rows, *weights, kernel_shape=[3, 3], strides=[stride] * 2, pads=[1] * 4)
        rows = graph.add("Relu", rows)
    graph.linear(graph.add("Flatten", graph.add("GlobalAveragePool", rows)), 128, 10)
    graph.save(path, [value("x", TensorProto.FLOAT, ["batch", 3, 32, 32])], "y", ["batch", 10])


def forest(path):
    """A classifier of 100 trees, trained by scikit-learn on the digits that come with it."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier

    rows, labels = load_digits(return_X_y=True)
    rows = rows.astype(np.float32)
    model = RandomForestClassifier(100, random_state=1).fit(rows, labels)
    path.write_bytes(to_onnx(model, rows[:1], options={"zipmap": False}).SerializeToString())


MODELS = {"mlp": mlp, "bert": bert, "convnet": convnet, "forest": forest}
