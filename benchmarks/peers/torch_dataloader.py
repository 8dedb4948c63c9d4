"""PyTorch: as torch_sgd.py, with batches from a DataLoader.

This is how the tutorials of PyTorch do it.
"""

import mnist
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

data, output, epochs = mnist.arguments()
pixels, labels = mnist.load(data)
images = TensorDataset(torch.from_numpy(pixels), torch.from_numpy(labels).long())
torch.manual_seed(0)
loader = DataLoader(images, batch_size=256, shuffle=True)
model = torch.nn.Linear(784, 10)
torch.nn.init.zeros_(model.weight)
torch.nn.init.zeros_(model.bias)
optimizer = torch.optim.SGD(
    [{"params": model.weight, "weight_decay": mnist.L2}, {"params": model.bias}], lr=0.5, momentum=0.9
)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(loader))
for _ in range(epochs):
    for x, y in loader:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
        schedule.step()
mnist.save(output, model.weight.detach().T.numpy(), model.bias.detach().numpy())
