"""scikit-learn's Nystroem features of a Gaussian kernel, and LogisticRegression.

The argument is the number of features. The width of the kernel and C are those with the highest accuracy of a
few values that were tried.
"""

import warnings

import mnist
from sklearn.exceptions import ConvergenceWarning
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

data, output, components = mnist.arguments()
warnings.simplefilter("ignore", ConvergenceWarning)  # more iterations take longer and gain nothing
model = make_pipeline(
    Nystroem(gamma=0.02, n_components=components, random_state=0),
    LogisticRegression(C=10, solver="lbfgs", max_iter=100),
)
model.fit(*mnist.load(data))
mnist.save_predictions(output, model.predict(mnist.load(data, "t10k")[0]))
