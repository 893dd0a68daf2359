"""The training step that `build/bench ctm_step_mlp` times, in PyTorch, written to be quick rather than instructive.
usage: bench_peers.py THREADS      prints `peer ctm_step_mlp MILLISECONDS ms`, the median of 15 groups of steps"""
import statistics
import sys
import time
import torch
from torch import nn
import torch.nn.functional as F

torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)
B, N, SD, T, MIN, RHO = 256, 18, 0.5, 80.0, 0.002, 7.0


class MLP(nn.Module):
    def __init__(self, with_s):
        super().__init__()
        self.register_buffer('f', 2.0 ** (torch.arange(8) - 1))
        sizes = [2 + 16 * (1 + with_s), 128, 128, 128, 2]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, sizes[1:]))

    def forward(self, x, t, s):
        parts = [x]
        for v in (t, s):
            if v is not None:
                a = (v.log() / 4)[:, None] * self.f
                parts += [a.sin(), a.cos()]
        h = torch.cat(parts, 1)
        for layer in self.layers[:-1]:
            h = F.silu(layer(h))
        return self.layers[-1](h)


def g(net, x, t, s):
    q = (t * t + SD * SD)[:, None]
    return SD * SD / q * x + t[:, None] * SD / q.sqrt() * net(x / q.sqrt(), t, s)


def G(net, x, t, s):
    r = (s / t)[:, None]
    return r * x + (1 - r) * g(net, x, t, s)


def level(i):
    a, b = T ** (1 / RHO), MIN ** (1 / RHO)
    return (a + i / (N - 1) * (b - a)) ** RHO


model, ema, teacher = MLP(True), MLP(True), MLP(False)
for p in [*ema.parameters(), *teacher.parameters()]:
    p.requires_grad_(False)
opt = torch.optim.RAdam(model.parameters(), lr=4e-4)
x0, eps, eps2 = torch.randn(3, B, 2)
i_t = torch.randint(0, N - 2, (B,))
i_s = i_t + 2 + (torch.rand(B) * (N - 2 - i_t)).long()
sigma = torch.cat([(1.2 * torch.randn(B // 2) - 1.2).exp(), level(0.7 * torch.rand(B // 2) * (N - 1))])
zero = torch.full((B,), MIN)


def step():
    t, u, s = level(i_t), level(i_t + 2), level(i_s)
    x_t = x0 + t[:, None] * eps
    est = G(ema, G(model, x_t, t, s), s, zero)
    with torch.no_grad():
        x = x_t
        for j in range(2):
            a, b = level(i_t + j), level(i_t + j + 1)
            d = (x - g(teacher, x, a, None)) / a[:, None]
            y = x + (b - a)[:, None] * d
            x = x + (b - a)[:, None] / 2 * (d + (y - g(teacher, y, b, None)) / b[:, None])
        target = G(ema, G(model, x, u, s), s, zero)
    ctm = ((est - target) ** 2).mean()
    w = (sigma ** 2 + SD ** 2) / (sigma * SD) ** 2
    dsm = (w * ((g(model, x0 + sigma[:, None] * eps2, sigma, sigma) - x0) ** 2).mean(1)).mean()
    last = model.layers[-1].weight
    n_ctm, n_dsm = (torch.autograd.grad(v, last, retain_graph=True)[0].norm() for v in (ctm, dsm))
    total = ctm + (n_ctm / (n_dsm + 1e-4)).clamp(0, 1e4).detach() * dsm
    opt.zero_grad(set_to_none=True)
    total.backward()
    opt.step()
    with torch.no_grad():
        torch._foreach_mul_(list(ema.parameters()), 0.999)
        torch._foreach_add_(list(ema.parameters()), [p.detach() for p in model.parameters()], alpha=0.001)


def seconds(n):
    start = time.perf_counter()
    for _ in range(n):
        step()
    return (time.perf_counter() - start) / n


seconds(20)
print(f'peer ctm_step_mlp {1e3 * statistics.median(seconds(20) for _ in range(15)):.4g} ms')
