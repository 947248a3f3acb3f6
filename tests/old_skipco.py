"""A search space of DeepHyper 0.1's days, with nothing but its imports changed."""

import collections

import tensorflow as tf

from dhmpi.nas.compat import (
    AddByProjecting,
    AutoKSearchSpace,
    Connect,
    ConstantNode,
    Dense,
    Identity,
    Tensor,
    VariableNode,
)


def swish(x):
    return x * tf.nn.sigmoid(x)


ACTIVATIONS = [None, swish, tf.nn.relu, tf.nn.tanh, tf.nn.sigmoid]


def create_search_space(input_shape=(10,), output_shape=(7,), num_layers=10, regression=True, *args, **kwargs):
    space = AutoKSearchSpace(input_shape, output_shape, regression=regression)
    source = space.input_nodes[0]
    anchors = collections.deque([source], maxlen=3)
    for _ in range(num_layers):
        layer = VariableNode()
        layer.add_op(Identity())
        for units in range(16, 97, 16):
            for activation in ACTIVATIONS:
                layer.add_op(Dense(units=units, activation=activation))
        space.connect(source, layer)

        merge = ConstantNode()
        merge.set_op(AddByProjecting(space, [layer], activation="relu"))
        for anchor in anchors:
            skip = VariableNode()
            skip.add_op(Tensor([]))
            skip.add_op(Connect(space, anchor))
            space.connect(skip, merge)

        source = merge
        anchors.append(source)
    return space
