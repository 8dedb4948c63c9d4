"""scikit-learn's LogisticRegression with saga, recommended for many images.

The images are a sparse matrix (CSR), which is faster because four of five pixels are 0. See sklearn_lbfgs.py
for C.
"""

import warnings

import mnist
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

data, output, epochs = mnist.arguments()
pixels, labels = mnist.load(data)
warnings.simplefilter("ignore", ConvergenceWarning)  # runs are stopped at the limit on purpose
model = LogisticRegression(
    C=1 / (mnist.L2 * len(labels)), solver="saga", max_iter=epochs, tol=1e-7, random_state=0
)
model.fit(csr_array(pixels), labels)
mnist.save(output, model.coef_.T, model.intercept_)
