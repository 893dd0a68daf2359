"""The shapes of `make bench` in PyTorch, written to be quick rather than instructive.
usage: bench_peers.py THREADS NAME...     names as build/bench prints them; prints `peer NAME VALUE UNIT` for each
       bench_peers.py THREADS rss_unet_fwd_c64     (or rss_sample_onestep_c64) the process's peak memory: run on its own
       bench_peers.py THREADS blas                 which library PyTorch's matrix products come from: one word and its path"""
import ctypes
import math
import os
import resource
import statistics
import sys
import time
import torch
from torch import nn
import torch.nn.functional as F

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), 'golden'))
import oracle as o

torch.set_num_threads(int(sys.argv[1]))
torch.manual_seed(0)


def seconds(work, groups=9, least=0.05):
    work()
    times = []
    for _ in range(groups):
        start, calls = time.perf_counter(), 0
        while calls == 0 or time.perf_counter() - start < least:
            work()
            calls += 1
        times.append((time.perf_counter() - start) / calls)
    return statistics.median(times)


# ---------------------------------------------------------------- matrix product, convolution

def gemm(n):
    a, b, c = torch.randn(3, n, n)
    return 2 * n ** 3 / seconds(lambda: torch.mm(a, b, out=c)) / 1e9


def conv3x3(which, C, H):
    x, y = (v.contiguous(memory_format=torch.channels_last) for v in torch.randn(2, 16, C, H, H))
    w = torch.randn(C, C, 3, 3).contiguous(memory_format=torch.channels_last)
    leaves = [v.requires_grad_() for v in ([x] if which == 'bwd_x' else [w] if which == 'bwd_w' else [x, w])]

    def forward():
        with torch.no_grad():
            F.conv2d(x, w, padding=1)

    def both():
        torch.autograd.grad(F.conv2d(x, w, padding=1), leaves, y)
    cost = 2 * 9 * 16 * H * H * C * C / 1e9
    if which == 'fwd':
        return cost / seconds(forward)
    if which == 'fwdbwd':
        return 3 * cost / seconds(both)
    return cost / (seconds(both) - seconds(forward))


# ---------------------------------------------------------------- the U-Net of tests/golden/oracle.py with PyTorch's own layers

o.silu = F.silu
o.conv = lambda net, name, x: F.conv2d(x, net.w[name + '.weight'], net.w[name + '.bias'], padding=net.w[name + '.weight'].shape[-1] // 2)
o.group_norm = lambda net, name, x: F.group_norm(x, min(32, x.shape[1] // 4), net.w[name + '.weight'], net.w[name + '.bias'], 1e-6)


def attention(qkv):
    q, k, v = (qkv[:, j::3].flatten(2) for j in range(3))
    share = torch.softmax(torch.bmm(q.transpose(1, 2), k) / math.sqrt(q.shape[1]), 2)
    return torch.bmm(v, share.transpose(1, 2)).reshape(v.shape[:2] + qkv.shape[2:])


def resample(name, x):
    if name.endswith('_down'):
        return F.avg_pool2d(x, 2)
    return F.interpolate(x, scale_factor=2, mode='nearest') if name.endswith('_up') else x


o.attention, o.resample = attention, resample


def unet_work(C, backward):
    config = {32: dict(mult=[1, 2, 2], num_blocks=1), 64: dict(mult=[1, 2, 2], num_blocks=2), 128: dict(mult=[2, 2, 2], num_blocks=4)}[C]
    B = 4 if C == 128 else 16
    w = {k: (torch.randn(s) / math.sqrt(math.prod(s[1:])) if len(s) > 1 else torch.full(s, float('norm' in k and k.endswith('weight'))))
         for k, s in o.unet_shapes(size=32, channels=3, width=C, attn=[16], with_s=True, **config).items()}
    if backward:
        w = {k: v.requires_grad_() for k, v in w.items()}
    net = o.Net('unet', w)
    x, dy = torch.randn(2, B, 3, 32, 32)
    t = torch.linspace(-1, 1, B)

    def work():
        if not backward:
            with torch.no_grad():
                net(x, t, t - 0.1)
        else:
            for v in w.values():
                v.grad = None
            net(x, t, t - 0.1).backward(dy)
    return work, sum(v.numel() for v in w.values()) * 4e-6


# ---------------------------------------------------------------- one CTM step, of an MLP on points or a U-Net on images

N, SD, T, MIN, RHO = 18, 0.5, 80.0, 0.002, 7.0


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


def ctm_step(model, ema, teacher, last, B, dim, groups):
    for p in [*ema.parameters(), *teacher.parameters()]:
        p.requires_grad_(False)
    opt = torch.optim.RAdam(model.parameters(), lr=4e-4)
    x0, eps, eps2 = torch.randn(3, B, dim)
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
        n_ctm, n_dsm = (torch.autograd.grad(v, last, retain_graph=True)[0].norm() for v in (ctm, dsm))
        total = ctm + (n_ctm / (n_dsm + 1e-4)).clamp(0, 1e4).detach() * dsm
        opt.zero_grad(set_to_none=True)
        total.backward()
        opt.step()
        with torch.no_grad():
            torch._foreach_mul_(list(ema.parameters()), 0.999)
            torch._foreach_add_(list(ema.parameters()), [p.detach() for p in model.parameters()], alpha=0.001)
    return 1e3 * seconds(step, groups)


class Images(nn.Module):
    """The U-Net on rows of 3072 numbers."""

    def __init__(self, C, with_s):
        super().__init__()
        config = dict(size=32, channels=3, width=C, mult=[2, 2, 2] if C == 128 else [1, 2, 2], num_blocks={32: 1, 64: 2, 128: 4}[C], attn=[16], with_s=with_s)
        self.w = {k: nn.Parameter(torch.randn(s) / math.sqrt(math.prod(s[1:])) if len(s) > 1 else torch.full(s, float('norm' in k and k.endswith('weight'))))
                  for k, s in o.unet_shapes(**config).items()}
        for k, v in self.w.items():
            self.register_parameter(k.replace('.', '/'), v)
        self.net = o.Net('unet', self.w)

    def forward(self, x, t, s):
        return self.net(x.reshape(-1, 3, 32, 32), t.log() / 4, None if s is None else s.log() / 4).flatten(1)


def sample_work(C):
    """16 images drawn by one jump."""
    model = Images(C, True)
    x, t, zero = T * torch.randn(16, 3072), torch.full((16,), T), torch.full((16,), MIN)

    def work():
        with torch.no_grad():
            return G(model, x, t, zero)
    return work, sum(v.numel() for v in model.w.values()) * 4e-6


def measure(name):
    parts = name.split('_')
    if name.startswith('sample_onestep'):
        return 1e3 * seconds(sample_work(int(parts[-1][1:]))[0], 5), 'ms'
    if name == 'ctm_step_mlp':
        model = MLP(True)
        return ctm_step(model, MLP(True), MLP(False), model.layers[-1].weight, 256, 2, 15), 'ms'
    if name.startswith('ctm_step_unet'):
        model = Images(int(parts[-1][1:]), True)
        return ctm_step(model, Images(int(parts[-1][1:]), True), Images(int(parts[-1][1:]), False), list(model.w.values())[-2], 16, 3072, 5), 'ms'
    if parts[0] == 'gemm':
        return gemm(int(parts[1][1:])), 'GFLOP/s'
    if parts[0] == 'conv3x3':
        C, H = parts[-1][1:].split('h')
        return conv3x3('_'.join(parts[1:-1]), int(C), int(H)), 'GFLOP/s'
    if parts[0] == 'unet':
        return 1e3 * seconds(unet_work(int(parts[2][1:]), parts[1] == 'fwdbwd')[0], 5), 'ms'
    raise SystemExit(f'bench_peers.py: no peer for "{name}"')


def blas():
    """The library that the symbol of the matrix product leads to, looked up as PyTorch's own library does; netlib's is the reference."""
    with open('/proc/self/maps') as f:
        maps = [line.split() for line in f if '/' in line]
    try:
        own = ctypes.CDLL(next(line[-1] for line in maps if 'libtorch_cpu' in line[-1]))
        at = ctypes.cast(own.sgemm_, ctypes.c_void_p).value
    except (StopIteration, AttributeError):
        return 'unknown', '(linked into PyTorch)'
    for span, *_, path in maps:
        if int(span.split('-')[0], 16) <= at < int(span.split('-')[1], 16):
            return next((word for word in ('openblas', 'mkl', 'blis', 'atlas') if word in path), 'netlib'), path
    return 'unknown', hex(at)


for name in sys.argv[2:]:
    if name == 'blas':
        print(*blas())
    elif name.startswith('rss_'):
        C = int(name.split('_c')[1])
        work, parameters = sample_work(C) if 'sample' in name else unet_work(C, 'fwdbwd' in name)
        for _ in range(3):
            work()
        print(f'peer {name} {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.4g} MB\npeer parameters {parameters:.4g} MB')
    else:
        print('peer {} {:.4g} {}'.format(name, *measure(name)), flush=True)
