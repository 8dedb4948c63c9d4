"""PyTorch: SGD with momentum on mini-batches that are cut from tensors.

The batch size is 256, the momentum 0.9 and the learning rate 0.5 with a cosine schedule.
"""

import mnist
import torch
from torch.nn.functional import cross_entropy

BATCH = 256

data, output, epochs = mnist.arguments()
pixels, labels = mnist.load(data)
x, y = torch.from_numpy(pixels), torch.from_numpy(labels).long()
torch.manual_seed(0)
model = torch.nn.Linear(784, 10)
torch.nn.init.zeros_(model.weight)
torch.nn.init.zeros_(model.bias)
optimizer = torch.optim.SGD(
    [{"params": model.weight, "weight_decay": mnist.L2}, {"params": model.bias}], lr=0.5, momentum=0.9
)
steps = epochs * -(-len(y) // BATCH)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
for _ in range(epochs):
    for rows in torch.randperm(len(y)).split(BATCH):
        optimizer.zero_grad()
        cross_entropy(model(x[rows]), y[rows]).backward()
        optimizer.step()
        schedule.step()
mnist.save(output, model.weight.detach().T.numpy(), model.bias.detach().numpy())
