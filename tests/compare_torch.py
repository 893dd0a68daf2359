"""Images of `build/images sample` against PyTorch's, from the same weights and noise.

    python3 tests/compare_torch.py [--full] [--reference FOLDER]

Weights are random, have the authors' names (with the tensors of theirs that no forward pass reads) and none of ctm.h's metadata, so
that the program must take the configuration from its flags. The network and the formulas are those of tests/golden/oracle.py in
float32; with --reference also those of another package (FOLDER/unet.py), for the network. --full adds the paper's CIFAR-10 network.
Prints, for each sampler, the largest difference between two pixels; images span about [-1,1]. Exit status 1 above 1e-3.
"""
import argparse
import importlib
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, 'golden'))
import oracle as o                      # noqa: E402
from make_golden import save            # noqa: E402

PROGRAM = os.path.join(HERE, '..', 'build', 'images')
SMALL = dict(size=16, channels=3, width=16, mult=(1, 2), num_blocks=1, attn=(8,))
CASES = {
    'student': dict(SMALL, with_s=True),
    'student, 10 classes': dict(SMALL, with_s=True, classes=10),
    'student, three levels of 32 x 32': dict(size=32, channels=3, width=32, mult=(1, 2, 2), num_blocks=2, attn=(16,), with_s=True),
    'teacher, grey': dict(SMALL, channels=1, with_s=False),
}
FULL = {'the paper\'s student': dict(size=32, channels=3, width=128, mult=(2, 2, 2), num_blocks=4, attn=(16,), with_s=True)}


def random_weights(shapes, seed):
    """Of a size that keeps activations near 1; the last convolution small, as in a trained network near its data."""
    gen = torch.Generator().manual_seed(seed)
    w = {}
    for name, shape in shapes.items():
        r = torch.randn(shape, generator=gen)
        if len(shape) > 1:
            w[name] = r * (0.3 if 'aux_conv' in name else 1.0) / np.sqrt(np.prod(shape[1:]))
        else:
            w[name] = 0.1 * r + (0.0 if name.endswith('bias') else 1.0)
    return w


def as_authors(w):
    """The tensors of the authors' files that no forward pass reads."""
    out = {k: v.numpy() for k, v in w.items()}
    for k in w:
        if k.endswith('conv0.weight') and ('_down.' in k or '_up.' in k):
            out[k.replace('weight', 'resample_filter')] = np.full((1, 1, 2, 2), 0.25, np.float32)
    out['map_augment.weight'] = np.zeros((w['map_layer0.weight'].shape[1], 9), np.float32)
    return out


def with_wrapper(case, w, reference):
    """net(x, z_t, z_s) by the oracle's formulas, or by the other package's module."""
    if not reference:
        return o.Net('unet', w)
    net = reference.UNet(img_resolution=case['size'], in_channels=case['channels'], out_channels=case['channels'], label_dim=case.get('classes', 0),
                         model_channels=case['width'], channel_mult=case['mult'], num_blocks=case['num_blocks'], attn_resolutions=case['attn'],
                         with_s=case['with_s'])
    own = net.state_dict()
    own.update(w)
    net.load_state_dict(own)
    net.eval()
    n = case.get('classes', 0)

    def call(x, z_t, z_s=None, label=None):
        hot = None if label is None else (label[:, None] == torch.arange(n)).float()
        return net(x, z_t, z_s, hot)
    return call


def maps(case, net, label):
    """The jump G(x,t,s) and the denoiser D(x,t) with scalar times."""
    extra = () if label is None else (label,)

    def run(x, t, s):
        B = len(x)
        z_t = torch.full((B,), np.log(t) / 4, dtype=torch.float32)
        z_s = torch.full((B,), np.log(s) / 4, dtype=torch.float32) if case['with_s'] else None
        scale = 1 / np.sqrt(t * t + 0.25)
        F = net(scale * x, z_t, z_s, *extra)
        return 0.25 * scale ** 2 * x + 0.5 * t * scale * F

    def G(x, t, s):
        return s / t * x + (1 - s / t) * run(x, t, s)
    return G, lambda x, t: run(x, t, t)


def karras(n):
    a, b = o.SIGMA_MAX ** (1 / o.RHO), o.SIGMA_MIN ** (1 / o.RHO)
    return [(a + i / (n - 1) * (b - a)) ** o.RHO for i in range(n)] if n > 1 else [o.SIGMA_MAX]


def sample_torch(G, D, sampler, nfe, gamma, noise):
    x, draw = o.SIGMA_MAX * noise[0], 1
    if sampler in ('exact', 'gamma', 'cm'):
        g = dict(exact=0.0, cm=1.0).get(sampler, gamma)
        ts = karras(nfe + 1)
        for n, (t, t_next) in enumerate(zip(ts, ts[1:])):
            last = n == nfe - 1
            s = t_next if last else max(np.sqrt(1 - g * g) * t_next, o.SIGMA_MIN)
            x = G(x, t, s)
            if not last:
                x, draw = x + np.sqrt(max(t_next ** 2 - s ** 2, 0)) * noise[draw] if g else x, draw + 1
        return x
    ts = karras((nfe + 1) // 2) + [0.0] if sampler == 'heun' else karras((nfe // 2 if sampler == 'dpm' else nfe) + 1)
    for t, t_next in zip(ts, ts[1:]):
        d = (x - D(x, t)) / t
        if sampler == 'euler':
            x = x + (t_next - t) * d
        elif sampler == 'heun':
            y = x + (t_next - t) * d
            x = y if t_next == 0 else x + (t_next - t) * (d + (y - D(y, t_next)) / t_next) / 2
        elif sampler == 'dpm':
            mid = ((t ** (1 / 3) + t_next ** (1 / 3)) / 2) ** 3
            y = x + (mid - t) * d
            x = x + (t_next - t) * (y - D(y, mid)) / mid
        else:                                          # ancestral: Euler below the next level, then noise up to it
            up = t_next * np.sqrt(t * t - t_next * t_next) / t
            down = np.sqrt(t_next * t_next - up * up)
            x, draw = x + (down - t) * d + up * noise[draw], draw + 1
    return x


def sample_c(folder, case, weights, noise, labels, sampler, nfe, gamma):
    np.save(folder + '/noise.npy', noise.numpy())
    out = folder + '/out.npy'
    command = [PROGRAM, 'sample', '--weights', weights, '--sampler', sampler, '--nfe', str(nfe), '--noise', folder + '/noise.npy', '--out', out, '--quiet',
               '--size', str(case['size']), '--channels', str(case['channels']), '--model-channels', str(case['width']),
               '--channel-mult', ','.join(map(str, case['mult'])), '--num-blocks', str(case['num_blocks']), '--attn', ','.join(map(str, case['attn']))]
    if labels is not None:
        np.save(folder + '/labels.npy', labels.numpy())
        command += ['--labels', folder + '/labels.npy', '--classes', str(case['classes'])]
    if sampler == 'gamma':
        command += ['--gamma', str(gamma)]
    subprocess.run(command, check=True)
    return np.load(out)


def compare(name, case, reference, n, jobs):
    shapes = o.unet_shapes(**{k: v for k, v in case.items()})
    w = random_weights(shapes, 1)
    net = with_wrapper(case, w, reference)
    gen = torch.Generator().manual_seed(2)
    labels = torch.arange(n) % (case['classes'] + 1) - 1 if case.get('classes') else None
    G, D = maps(case, net, labels)
    worst = 0
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        weights = folder + '/w.safetensors'
        save(weights, as_authors(w), {})
        for sampler, nfe in jobs:
            noise = torch.randn(nfe + 1, n, case['channels'], case['size'], case['size'], generator=gen)
            y = sample_torch(G, D, sampler, nfe, 0.5, noise).numpy()
            x = sample_c(folder, case, weights, noise, labels, sampler, nfe, 0.5)
            difference = float(np.abs(x - y).max())
            worst = max(worst, difference)
            print(f'{name:34s} {sampler:10s} nfe {nfe:2d}   largest pixel {np.abs(y).max():6.3f}   largest difference {difference:.1e}')
    return worst


def main():
    p = argparse.ArgumentParser()
    p.add_argument('--full', action='store_true')
    p.add_argument('--reference', help='a folder with another unet.py')
    a = p.parse_args()
    reference = None
    if a.reference:
        folder = os.path.abspath(a.reference)
        sys.path.insert(0, os.path.dirname(folder))
        reference = importlib.import_module(os.path.basename(folder) + '.unet')
    jumps = [('exact', 1), ('exact', 2), ('exact', 18), ('gamma', 4), ('cm', 4)]
    score = [('heun', 35), ('euler', 18), ('dpm', 36), ('ancestral', 18)]
    worst = 0
    for name, case in CASES.items():
        worst = max(worst, compare(name, case, reference, 4, (jumps if case['with_s'] else []) + score))
    for name, case in (FULL.items() if a.full else ()):
        worst = max(worst, compare(name, case, reference, 2, jumps[:3]))
    print(f'largest difference of all: {worst:.1e}')
    return worst > 1e-3


if __name__ == '__main__':
    sys.exit(main())
