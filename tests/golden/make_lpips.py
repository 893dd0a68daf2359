"""Writes lpips.safetensors (inputs and results) and lpips_weights.safetensors (a VGG16 of a few channels): python3 make_lpips.py
LPIPS written out in PyTorch, images [B,3,H,W], float64; a float32 run tells what accuracy to expect of one."""
import os
import numpy as np
import torch
import torch.nn.functional as F
from make_golden import FLOOR, HERE, save

WIDTHS = [[5, 6], [7, 8], [8, 9, 10], [10, 11, 9], [8, 7, 12]]
LAYERS = [[0, 2], [5, 7], [10, 12, 14], [17, 19, 21], [24, 26, 28]]       # numbers in torchvision's vgg16().features
B, SIZE = 2, 12


def weights(rng):
    w, inputs = {}, 3
    for widths, layers in zip(WIDTHS, LAYERS):
        for width, layer in zip(widths, layers):
            w[f'features.{layer}.weight'] = rng.standard_normal((width, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
            w[f'features.{layer}.bias'] = 0.1 * rng.standard_normal(width)
            inputs = width
    for l, widths in enumerate(WIDTHS):
        w[f'lin{l}.model.1.weight'] = np.abs(rng.standard_normal((1, widths[-1], 1, 1)))
        w[f'lin{l}.model.1.weight'][0, 0] = 0                             # some of the published ones are zero
    return {k: v.astype(np.float32) for k, v in w.items()}


def features(w, x, pool):
    mean, std = (torch.tensor(v, dtype=x.dtype).view(1, 3, 1, 1) for v in ([.485, .456, .406], [.229, .224, .225]))
    if x.shape[2] < 256:
        x = F.interpolate(x, (224, 224), mode='bilinear', align_corners=False)
    x = ((x + 1) / 2 - mean) / std
    for l, layers in enumerate(LAYERS):
        if l:
            x = pool(x, 2)
        for layer in layers:
            x = F.relu(F.conv2d(x, w[f'features.{layer}.weight'], w[f'features.{layer}.bias'], padding=1))
        yield x


def lpips(w, a, b, pool):
    total = 0
    for l, (p, q) in enumerate(zip(features(w, a, pool), features(w, b, pool))):
        p, q = (v / (v.pow(2).sum(1, keepdim=True).add(1e-30).sqrt() + 1e-10) for v in (p, q))   # 1e-30: a gradient where all are 0
        total = total + F.conv2d((p - q) ** 2, w[f'lin{l}.model.1.weight']).mean((2, 3))[:, 0]
    return total


def large(k):
    """An image of 256 x 256, [1,3,256,256], that the test writes down by itself."""
    i = torch.arange(256 * 256 * 3, dtype=torch.float64).view(1, 256, 256, 3)
    return (torch.sin(i * (0.01 + 0.003 * k)) * 0.75).permute(0, 3, 1, 2)


def results(w, a, b, seed, dtype):
    w = {k: torch.tensor(v, dtype=dtype) for k, v in w.items()}
    nchw = lambda v: torch.tensor(v, dtype=dtype).view(B, SIZE, SIZE, -1).permute(0, 3, 1, 2)
    out = {}
    for name, pool in ('mean', F.avg_pool2d), ('max', F.max_pool2d):
        x = torch.tensor(a, dtype=dtype, requires_grad=True)
        d = lpips(w, x.view(B, SIZE, SIZE, 3).permute(0, 3, 1, 2), nchw(b), pool)
        (d * torch.tensor(seed, dtype=dtype)).sum().backward()
        out[f'out.{name}.d'], out[f'out.{name}.grad.a'] = d.detach().numpy(), x.grad.numpy()
        out[f'out.{name}.large'] = lpips(w, large(0).to(dtype), large(1).to(dtype), pool).numpy()
        grey = [nchw(v)[:, :1].expand(-1, 3, -1, -1) for v in (a, b)]
        out[f'out.{name}.grey'] = lpips(w, *grey, pool).numpy()
    return out


def main():
    rng = np.random.RandomState(16)
    w = weights(rng)
    a, b = (np.clip(0.5 * rng.standard_normal((B, SIZE * SIZE * 3)), -1, 1).astype(np.float32).astype(np.float64) for _ in range(2))
    seed = np.array([1.25, -0.75])
    exact, rough = results(w, a, b, seed, torch.float64), results(w, a, b, seed, torch.float32)
    metadata = {'case': 'lpips'}
    for k, v in exact.items():
        metadata['fp32_dev.' + k[4:]] = '%.1e' % max(FLOOR, np.abs(rough[k] - v).max() / np.abs(v).max())
    save(os.path.join(HERE, 'lpips_weights.safetensors'), w, {'case': 'a VGG16 of a few channels'})
    save(os.path.join(HERE, 'lpips.safetensors'), {'in.a': a, 'in.b': b, 'in.seed': seed, **exact}, metadata)


if __name__ == '__main__':
    main()
