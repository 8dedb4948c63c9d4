"""PyTorch's LBFGS on all images, with its strong Wolfe line search.

The argument is the largest number of iterations.
"""

import mnist
import torch
from torch.nn.functional import cross_entropy

data, output, iterations = mnist.arguments()
pixels, labels = mnist.load(data)
x, y = torch.from_numpy(pixels), torch.from_numpy(labels).long()
weights = torch.zeros(784, 10, requires_grad=True)
bias = torch.zeros(10, requires_grad=True)
optimizer = torch.optim.LBFGS(
    [weights, bias],
    max_iter=iterations,
    max_eval=10 * iterations,
    tolerance_grad=1e-9,
    tolerance_change=1e-12,
    history_size=10,
    line_search_fn="strong_wolfe",
)


def objective() -> torch.Tensor:
    """Return the objective and compute its gradient."""
    optimizer.zero_grad()
    loss = cross_entropy(torch.addmm(bias, x, weights), y) + mnist.L2 / 2 * weights.square().sum()
    loss.backward()
    return loss


optimizer.step(objective)
mnist.save(output, weights.detach().numpy(), bias.detach().numpy())
