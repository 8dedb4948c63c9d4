"""scikit-learn's LogisticRegression with lbfgs, in float32.

Its objective is C · Σ cross-entropy + ½ ‖W‖², without the bias, so that C = 1 / (l2 · n).
"""

import warnings

import mnist
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

data, output, iterations = mnist.arguments()
pixels, labels = mnist.load(data)
warnings.simplefilter("ignore", ConvergenceWarning)  # runs are stopped at the limit on purpose
model = LogisticRegression(C=1 / (mnist.L2 * len(labels)), solver="lbfgs", max_iter=iterations, tol=1e-7)
model.fit(pixels, labels)
mnist.save(output, model.coef_.T, model.intercept_)
