"""scikit-learn's k nearest neighbours, by brute force, which is the fastest algorithm for so many pixels.

The argument is k.
"""

import mnist
from sklearn.neighbors import KNeighborsClassifier

data, output, neighbors = mnist.arguments()
model = KNeighborsClassifier(neighbors, weights="distance", algorithm="brute")
model.fit(*mnist.load(data))
mnist.save_predictions(output, model.predict(mnist.load(data, "t10k")[0]))
