"""scikit-learn-intelex's replacement of SVC with a Gaussian kernel.

The argument is C. The width of the kernel is a usual one for MNIST.
"""

import mnist
from sklearnex.svm import SVC

data, output, penalty = mnist.arguments()
model = SVC(C=penalty, gamma=0.025, cache_size=2000)
model.fit(*mnist.load(data))
mnist.save_predictions(output, model.predict(mnist.load(data, "t10k")[0]))
