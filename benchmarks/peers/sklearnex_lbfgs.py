"""scikit-learn-intelex's replacement of LogisticRegression, with lbfgs.

The arguments are those of scikit-learn, with C = 1 / (l2 · n); see sklearn_lbfgs.py.
"""

import warnings

import mnist
from sklearn.exceptions import ConvergenceWarning
from sklearnex.linear_model import LogisticRegression

data, output, iterations = mnist.arguments()
pixels, labels = mnist.load(data)
warnings.simplefilter("ignore", ConvergenceWarning)  # runs are stopped at the limit on purpose
model = LogisticRegression(C=1 / (mnist.L2 * len(labels)), solver="lbfgs", max_iter=iterations, tol=1e-7)
model.fit(pixels, labels)
mnist.save(output, model.coef_.T, model.intercept_)
