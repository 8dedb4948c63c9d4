"""scikit-learn's LogisticRegression with lbfgs, in float32, which it supports.

Its objective is C · Σ cross-entropy + ½ ‖W‖² (bias free), so C = 1 / (l2 · n).
"""

import warnings

import mnist
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

data, output, iterations = mnist.arguments()
pixels, labels = mnist.load(data)
warnings.simplefilter("ignore", ConvergenceWarning)  # stopping at the cap is what is asked for
model = LogisticRegression(C=1 / (mnist.L2 * len(labels)), solver="lbfgs", max_iter=iterations, tol=1e-7)
model.fit(pixels, labels)
mnist.save(output, model.coef_.T, model.intercept_)
