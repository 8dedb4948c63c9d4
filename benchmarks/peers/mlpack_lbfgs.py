"""mlpack's softmax_regression: L-BFGS in float64 from a random start.

Its objective is the mean cross-entropy + lambda/2 · ‖parameters‖², so lambda = l2. The penalty includes
the bias, and this cannot be turned off. The model does not expose its weights. They are computed from its
probabilities for the origin and for each unit vector e_j as log p(e_j) − log p(0), up to a constant for all
classes.
"""

import mlpack
import mnist
import numpy as np

data, output, iterations = mnist.arguments()
pixels, labels = mnist.load(data)
trained = mlpack.softmax_regression(
    training=pixels.astype(np.float64),
    labels=labels.astype(np.int64),
    lambda_=mnist.L2,
    max_iterations=iterations,
    number_of_classes=10,
)
probes = np.vstack([np.zeros(784), np.eye(784)])
answer = mlpack.softmax_regression(input_model=trained["output_model"], test=probes)
evidence = np.log(answer["probabilities"])
evidence -= evidence.mean(axis=1, keepdims=True)
mnist.save(output, evidence[1:] - evidence[0], evidence[0])
