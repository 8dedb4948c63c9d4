"""scikit-learn's LogisticRegression with saga, recommended for many images; see sklearn_lbfgs.py for C.

Four pixels in five are 0, and saga is faster on a sparse matrix (CSR), so it gets one.
"""

import warnings

import mnist
from scipy.sparse import csr_array
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

data, output, epochs = mnist.arguments()
pixels, labels = mnist.load(data)
warnings.simplefilter("ignore", ConvergenceWarning)  # stopping at the cap is what is asked for
model = LogisticRegression(
    C=1 / (mnist.L2 * len(labels)), solver="saga", max_iter=epochs, tol=1e-7, random_state=0
)
model.fit(csr_array(pixels), labels)
mnist.save(output, model.coef_.T, model.intercept_)
