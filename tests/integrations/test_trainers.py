"""Monitor in trainers that have callbacks of their own: Keras 3 on PyTorch, and skorch."""

import numpy as np
import pytest
import torch
from torch import nn

from layerfreq import Monitor, Run, hidden_layers, layer_spectra
from tests.integrations.training import GRID, X, Y

WHEN = 2


@pytest.fixture
def keras(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    import keras as found

    if found.backend.backend() != "torch":
        pytest.skip("keras: runs on another backend here")
    found.utils.set_random_seed(0)
    return found


def sequential(keras):
    dense = keras.layers.Dense
    return keras.Sequential(
        [
            keras.layers.Input((4,)),
            dense(8, activation="tanh", name="first"),
            keras.layers.Dropout(0.2),
            dense(8, name="second"),
            keras.layers.Activation("relu", name="act"),
            dense(2, name="out"),
        ]
    )


def functional(keras):
    inputs = keras.Input((4,))
    h = keras.layers.Dense(8, activation="tanh", name="first")(inputs)
    h = keras.layers.Add(name="sum")([h, keras.layers.Dense(8, activation="relu", name="inner")(h)])
    return keras.Model(inputs, keras.layers.Dense(2, name="out")(h))


def subclassed(keras):
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.first, self.out = keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(2)
            self.second = keras.layers.Dense(8, activation="relu")

        def call(self, x):
            return self.out(self.second(self.first(x)))

    model = Net()
    model(X)
    return model


@pytest.mark.needs("keras")
@pytest.mark.compatibility("framework", "Keras 3 on PyTorch", "works")
@pytest.mark.parametrize(
    ("make", "expected"),
    [(sequential, ["first", "act"]), (functional, ["first", "sum"]), (subclassed, ["first", "second"])],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_layers_have_the_names_of_keras(keras, make, expected):
    model = make(keras)
    assert hidden_layers(model, X) == expected
    found = layer_spectra(model, X, Y, inv_delta=GRID, layers=[expected[0], "out"])
    assert list(found) == [expected[0], "out"]


@pytest.mark.needs("keras")
@pytest.mark.compatibility("framework", "Keras 3 on PyTorch", "works")
def test_fit_is_bit_identical_with_a_monitor_in_a_callback_of_keras(keras, tmp_path):
    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.monitor, self.seen = Monitor(self.model, X, Y, run=tmp_path / "run", when=WHEN, inv_delta=GRID), 0

        def on_train_batch_begin(self, batch, logs=None):
            self.monitor.measure(self.seen)
            self.seen += 1

        def on_train_end(self, logs=None):
            self.monitor.close()

    def fit(*callbacks):
        keras.utils.set_random_seed(0)
        model = sequential(keras)
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        told = model.fit(X.numpy(), Y.numpy(), batch_size=16, epochs=2, verbose=0, callbacks=list(callbacks))
        return told.history["loss"], model.get_weights()

    (losses, weights), (watched, other) = fit(), fit(Watch())
    assert losses == watched
    assert all(np.array_equal(a, b) for a, b in zip(weights, other, strict=True))
    run = Run(tmp_path / "run")
    assert run.steps() == [0, 2, 4]
    assert run.spectra["layer"].unique().tolist() == ["first", "act"]


@pytest.mark.needs("skorch")
@pytest.mark.compatibility("framework", "skorch", "works")
def test_fit_is_bit_identical_with_a_monitor_in_a_callback_of_skorch(tmp_path):
    import skorch

    class Watch(skorch.callbacks.Callback):
        def on_train_begin(self, net, **_):
            self.monitor, self.seen = Monitor(net.module_, X, Y, run=tmp_path / "run", when=WHEN, inv_delta=GRID), 0

        def on_batch_begin(self, net, batch=None, training=False, **_):
            if training:
                self.monitor.measure(self.seen)
                self.seen += 1

        def on_train_end(self, net, **_):
            self.monitor.close()

    def module():
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))

    def fit(*callbacks):
        torch.manual_seed(0)
        options = {"max_epochs": 2, "batch_size": 16, "train_split": None, "verbose": 0}
        net = skorch.NeuralNetClassifier(module, criterion=nn.CrossEntropyLoss, callbacks=list(callbacks), **options)
        net.fit(X.numpy(), Y.numpy())
        return net.history[:, "train_loss"], list(net.module_.parameters())

    (losses, parameters), (watched, other) = fit(), fit(Watch())
    assert losses == watched
    assert all(torch.equal(a, b) for a, b in zip(parameters, other, strict=True))
    run = Run(tmp_path / "run")
    assert run.steps() == [0, 2, 4]
    assert run.spectra["layer"].unique().tolist() == ["1", "4"]
