"""Writes the golden files: python3 make_golden.py [FOLDER]              (default: the folder of this script)
Checks the files there:   python3 make_golden.py --check REFERENCE       (README.md says what REFERENCE must offer)

Every case is evaluated in float64, which is stored, and in float32, whose deviation tells a float32 program
what accuracy to expect. Random numbers are numpy's RandomState (a frozen stream), seeded by the case's name
and rounded to float32, so that a float32 program starts from exactly the same inputs and weights.
"""
import argparse
import importlib
import json
import os
import sys
import zlib
from functools import partial
import numpy as np
import torch
import oracle as o

HERE = os.path.dirname(os.path.abspath(__file__))
D, H, L, E, N = 2, 16, 3, 8, 18
FLOOR = 6e-8      # half a unit in float32's last place: the least deviation that is stated

# (t, s) pairs: the ends of the range, long and short jumps, s = t
PAIRS = [(80, .002), (80, 5), (80, 80), (40, 39.5), (5, 5), (5, .002),
         (.5, .1), (.5, .5), (.1, .05), (.1, .002), (.004, .003), (.002, .002)]

# (network, role, match, distance, h or None for one h per sample, solver substeps)
LOSSES = [('concat', 'soft', 'zero', 'l2', 3, 1), ('concat', 'soft', 'zero', 'l1', 3, 1), ('concat', 'soft', 'zero', 'huber', 3, 1),
          ('concat', 'soft', 's', 'l2', 3, 1), ('concat', 'soft', 'half', 'huber', 3, 1),
          ('concat', 'paper', 'zero', 'l2', 3, 1), ('concat', 'paper', 'half', 'l1', 3, 1),
          ('concat', 'local', 'zero', 'l2', 1, 1), ('concat', 'local', 's', 'huber', 1, 1),
          ('concat', 'global', 'zero', 'l2', 3, 1), ('concat', 'global', 's', 'l1', 3, 1),
          ('film', 'soft', 'zero', 'l2', 3, 1), ('film', 'soft', 'half', 'huber', None, 3)]

# Small U-Nets whose widths are not round, and the authors' one for CIFAR-10, of which only the parameters are counted
UNETS = {'unet': dict(size=8, channels=3, width=4, mult=[1, 3], num_blocks=1, attn=[4], with_s=True, classes=3),
         'unet_teacher': dict(size=8, channels=1, width=4, mult=[1, 1, 2], num_blocks=2, attn=[8], with_s=False, classes=0)}
CIFAR = dict(size=32, channels=3, width=128, mult=[2, 2, 2], num_blocks=4, attn=[16])
PARAMETERS = [('student', dict(with_s=True), 60395267), ('student of 10 classes', dict(with_s=True, classes=10), 60396675),
              ('teacher', dict(), 55732739)]


# ---------------------------------------------------------------- safetensors

KINDS = {'F64': '<f8', 'F32': '<f4', 'I64': '<i8'}


def save(path, tensors, metadata):
    """Length of the header, header (JSON, blanks up to a multiple of 8), then the raw numbers.
    Tensors of 8-byte items come first, so that every one is aligned in the file."""
    names = sorted(tensors, key=lambda n: tensors[n].dtype == np.float32)
    ends = np.cumsum([0] + [tensors[n].nbytes for n in names]).tolist()
    header = {'__metadata__': metadata}
    for n, begin, end in zip(names, ends, ends[1:]):
        kind = {'float64': 'F64', 'float32': 'F32', 'int64': 'I64'}[tensors[n].dtype.name]
        header[n] = dict(dtype=kind, shape=list(tensors[n].shape), data_offsets=[begin, end])
    text = json.dumps(header, separators=(',', ':'))
    text = text.ljust((len(text) + 7) // 8 * 8)
    with open(path, 'wb') as f:
        f.write(len(text).to_bytes(8, 'little'))
        f.write(text.encode('ascii'))
        for n in names:
            f.write(tensors[n].astype(KINDS[header[n]['dtype']]).tobytes())


def load(path):
    with open(path, 'rb') as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), 'little')))
        data = f.read()
    metadata = header.pop('__metadata__')
    tensors = {k: np.frombuffer(data[slice(*v['data_offsets'])], KINDS[v['dtype']]).reshape(v['shape']) for k, v in header.items()}
    return tensors, metadata


# ---------------------------------------------------------------- one case

def layer_shapes(kind, with_s):
    """{name: (outputs, inputs, has a bias)}"""
    inputs = D if kind == 'film' else D + 8 * (1 + with_s)
    body = {f'layers.{l}': (H, H if l else inputs, True) for l in range(L)}
    embed = {}
    if kind == 'film':
        embed = dict(map_t=(E, 9, True), **({'map_s': (E, 9, False)} if with_s else {}), film=(2 * L * H, E, True))
    return {**embed, **body, 'out': (D, H, True)}


class Case:
    """Collects what goes into one file, in one number format."""

    def __init__(self, name, dtype, **metadata):
        self.name, self.dtype = name, dtype
        self.metadata = {k: str(v) for k, v in metadata.items()}
        self.rng = np.random.RandomState(zlib.crc32(name.encode()))
        self.inputs, self.weights, self.outputs = {}, {}, {}

    def input(self, name, value):
        """Python floats stay as they are; arrays of indices stay integers."""
        value = torch.as_tensor(np.asarray(value))
        self.inputs[name] = value
        return value.to(self.dtype, copy=True) if value.is_floating_point() else value

    def randn(self, name, *shape, scale=1.0):
        return self.input(name, (scale * self.rng.standard_normal(shape)).astype(np.float32).astype(np.float64))

    def net(self, name, kind, with_s, train=False):
        w = {}
        for layer, (rows, cols, bias) in layer_shapes(kind, with_s).items():
            w[layer + '.weight'] = self.rng.standard_normal((rows, cols)) * 1.2 / np.sqrt(cols)
            if bias:
                w[layer + '.bias'] = self.rng.standard_normal(rows) * 0.3
        return self.net_of(name, kind, w, train)

    def unet(self, name, config):
        """Biases around 0, the norms' scales around 1; no layer is nearly zero, as the authors' are at first."""
        w = {}
        for k, shape in o.unet_shapes(**config).items():
            r = self.rng.standard_normal(shape)
            w[k] = r / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 0.2 * r + ('norm' in k and k.endswith('.weight'))
        return self.net_of(name, 'unet', w, True)

    def net_of(self, name, kind, w, train):
        w = {k: v.astype(np.float32) for k, v in w.items()}
        self.weights.update({f'{name}.{k}': v for k, v in w.items()})
        return o.Net(kind, {k: torch.tensor(v).to(self.dtype).requires_grad_(train) for k, v in w.items()})

    def out(self, values, prefix=''):
        self.outputs.update({prefix + k: torch.as_tensor(v).detach().clone() for k, v in values.items()})

    def grads(self, prefix, y, net):
        self.out(dict(zip(net.w, o.grad(y, list(net.w.values())))), f'grad.{prefix}')


def karras(n):
    return o.grid_time(torch.arange(n, dtype=torch.float64), n).tolist()


def case_net(c, kind, with_s):
    """F(x, z_t, z_s), and the gradient of sum(F * grad_y)."""
    net = c.net('net', kind, with_s, train=True)
    pairs = np.array(PAIRS[::2] + PAIRS[-1:])
    x, gy = c.randn('x', len(pairs), D).requires_grad_(), c.randn('grad_y', len(pairs), D)
    c.input('t', pairs[:, 0])
    z = [c.input('z_t', np.log(pairs[:, 0]) / 4)]
    if with_s:
        c.input('s', pairs[:, 1])
        z.append(c.input('z_s', np.log(pairs[:, 1]) / 4))
    y = net(x, *z)
    L = (y * gy).sum()
    c.out(dict(y=y, **{'grad.x': o.grad(L, [x])[0]}))
    c.grads('', L, net)


def case_unet(c, config):
    """F(x, z_t, z_s, label), and the gradient of sum(F * grad_y). Images [B,C,H,W]."""
    net = c.unet('net', config)
    label = [2, -1, 0] if config['classes'] else []
    shape = len(label) or 2, config['channels'], config['size'], config['size']
    x, gy = c.randn('x', *shape).requires_grad_(), c.randn('grad_y', *shape)
    pairs = np.array([(80, 5), (.5, .5), (.1, .002)][:shape[0]])
    z = [torch.log(c.input(n, pairs[:, i])) / 4 for i, n in enumerate('ts'[:1 + config['with_s']])]
    y = net(x, *z, *([c.input('label', label)] if label else []))
    L = (y * gy).sum()
    c.out(dict(y=y, **{'grad.x': o.grad(L, [x])[0]}))
    c.grads('', L, net)


def case_param(c, kind):
    """g, D, G for every inner and outer form; score; teacher."""
    net, teacher = c.net('net', kind, True), c.net('teacher', kind, False)
    t, s = (c.input(n, np.array(PAIRS)[:, i]) for i, n in enumerate('ts'))
    x = noisy_points(c, t)
    for inner in o.INNER:
        for outer in o.OUTER:
            g, den, G = o.evaluate(net, x, t, s, inner, outer)
            c.out({f'g.{inner}': g, f'D.{inner}.{outer}': den, f'G.{inner}.{outer}': G})
    c.out(dict(denoiser=o.denoise(net, x, t), score=o.score_of(o.denoise(net, x, t), x, t),
               teacher=o.teacher_denoise(teacher, x, t)))


def noisy_points(c, t):
    """x = x_0 + t noise, rounded to float32 (so it is an input, not an output)."""
    x = 0.5 * c.rng.standard_normal((len(t), D)) + t.double().numpy()[:, None] * c.rng.standard_normal((len(t), D))
    return c.input('x', x.astype(np.float32).astype(np.float64))


def case_schedule(c):
    t = c.input('t', np.geomspace(0.002, 80, 41))
    fraction = np.resize([1, .999, .5, .1, .002], 41)
    s = c.input('s', np.maximum(0.002, np.geomspace(0.002, 80, 41) * fraction))
    strict = c.input('s_strict', 0.7 * np.geomspace(0.002, 80, 41))
    for name, n in (('grid_18', 18), ('grid_40', 40)):
        c.out({name: o.grid_time(torch.arange(n, dtype=c.dtype), n)})
    c.out(dict(continuous=o.grid_time(c.input('continuous', np.linspace(0, 1, 21)), 2)))
    c.out(dict(substeps=o.grid_time(c.input('fractional_index', np.arange(52) / 3), 18)))
    c.out(dict(c_in=o.c_in(t)))
    for k in o.INNER:
        c.out(dict(zip(('c_skip', 'c_out'), o.inner_scalings(t, k))), f'inner.{k}.')
    for k in o.OUTER:
        c.out(dict(zip(('C_skip', 'C_out', 'D_skip'), o.outer_scalings(t, s, k))), f'outer.{k}.')
    for k in o.WEIGHTS:
        c.out({'weight.' + k: o.weight(k, t, strict, 1.5)})
    c.out(dict(dsm_sigma=o.dsm_sigmas(c.randn('dsm_normals', 8), c.input('dsm_uniforms', np.linspace(0, 1, 9)))))


def case_law(c):
    c.out({'h.weighted': o.law_of_h(17, 1), 'h.uniform': o.law_of_h(17, 0), 'h.square': o.law_of_h(20, 2),
           'tus.weighted': o.law_of_tus(18, 17, 1), 'tus.uniform': o.law_of_tus(6, 3, 0)})


NEAR = [.002, .002, .01, .05, .1, .2, .5, .5, 1, 2, 5, 10, 20, 80]
FAR = [.002, .002, .5, .5, 80, 80]


def points_near_or_far(c, far):
    """A dozen points at home at their times, or a few that are up to 1000 units away."""
    t = c.input('t', FAR if far else NEAR)
    x = c.rng.standard_normal((len(t), D)) * np.maximum(1, t.numpy())[:, None]
    if far:
        x[::2], x[1::2] = [1000, 700], [-30, 20]
    return c.input('x', x.astype(np.float32).astype(np.float64)), t


def case_mixture(c, far):
    means, weights = c.randn('means', 4, D), c.input('weights', [.4, .3, .2, .1])
    stds = c.input('stds', np.float32([.1, .2, .05, .3]).astype(np.float64))
    c.out(dict(zip(('D', 'logp', 'score'), o.mixture(*points_near_or_far(c, far), means, stds, weights))))


def case_empirical(c, far):
    points, ones = c.randn('points', 7, D), torch.ones(7, dtype=c.dtype)
    c.out(dict(zip(('D', 'logp'), o.mixture(*points_near_or_far(c, far), points, 0 * ones, ones / 7))))


def case_solver(c, kind):
    i = c.input('i', np.array([0, 14, 0, 1, 3, 5, 7, 9, 11, 12, 13, 14]))
    each = c.input('k_each', np.array([17, 3, 1, 5, 14, 2, 7, 1, 6, 4, 2, 1]))
    x = noisy_points(c, o.grid_time(i.double(), N))
    for name, k in (('k3', torch.full_like(i, 3)), ('each', each)):
        u = o.grid_time((i + k).double(), N)
        c.out({'u.' + name: u.to(c.dtype)})
    den = partial(o.teacher_denoise, c.net('teacher', kind, False))
    for name, k in (('k3', torch.full_like(i, 3)), ('each', each)):
        for sub in (1, 3):
            for method in ('heun', 'euler'):
                c.out({f'{method}.{name}.sub{sub}': o.solver(den, x, i, k, N, sub, method == 'heun')})


def draw_batch(c, B, h, role='soft', steps=()):
    """Inputs of one training step (or of several, stacked): data, times by the authors' law given h, noise."""
    shape = (*steps, B)
    h = c.rng.randint(1, 6, shape) if h is None else np.broadcast_to(h, shape)
    t = c.rng.randint(0, N - h)
    t[..., 0], t[..., 1] = 0, (N - 1 - h)[..., 1]                       # both ends of the grid
    u = t + h
    s = c.rng.randint(u, N)
    s[..., 2], s[..., 3] = u[..., 2], N - 1                             # s = u, s = sigma_min
    if role == 'global':
        s = u
    sigma = o.dsm_sigmas(torch.tensor(c.rng.standard_normal((*steps, B // 2))),
                         torch.tensor(c.rng.random_sample((*steps, B - B // 2))))
    return dict(x0=c.randn('x0', *shape, D, scale=0.5), noise=c.randn('noise', *shape, D),
                ind_t=c.input('ind_t', t), ind_u=c.input('ind_u', u), ind_s=c.input('ind_s', s),
                dsm_sigma=c.input('dsm_sigma', sigma.numpy().astype(np.float32).astype(np.float64)),
                dsm_noise=c.randn('dsm_noise', *shape, D))


def trio(c, kind):
    """Three unrelated networks, so that mixing them up shows."""
    return c.net('model', kind, True, train=True), c.net('ema', kind, True), c.net('teacher', kind, False)


def case_loss(c, kind, role, match, dist, h, substeps):
    model, ema, teacher = trio(c, kind)
    r = o.losses(model, ema, teacher, draw_batch(c, 8, h, role), role, match, dist, N, substeps)
    c.out(r)
    for k in ('ctm', 'dsm', 'total'):
        c.grads(k + '.', r[k], model)


def case_diag(c):
    """The diagonal trained by regression on an exact denoiser."""
    model = c.net('model', 'film', True, train=True)
    means, weights = c.randn('means', 3, D, scale=0.5), c.input('weights', [.5, .3, .2])
    stds = c.input('stds', np.float32([.1, .2, .05]).astype(np.float64))
    sigma = c.input('sigma', np.float32([80, 5, 1, .5, .3, .1, .01, .002]).astype(np.float64))
    x0, noise = c.randn('x0', 8, D, scale=0.5), c.randn('noise', 8, D)
    exact = lambda x, t: o.mixture(x, t, means, stds, weights)[0]
    x = x0 + o.col(sigma) * noise
    loss = o.dsm_loss(model, x0, sigma, noise, exact)
    c.out(dict(x=x, D=exact(x, sigma), g=o.denoise(model, x, sigma), loss=loss, diag=loss.mean()))
    c.grads('', loss.mean(), model)


def case_sampler(c):
    net = c.net('net', 'film', True)
    x, noise = c.randn('x_T', 6, D, scale=80), c.randn('noise', 3, 6, D)
    ts, ode = karras(5), [*karras(6), 0.0]
    c.input('ts', ts)
    c.input('ts_ode', ode)
    G, den = partial(o.jump, net), partial(o.denoise, net)
    for gamma in (0, 0.5, 1):
        c.out({f'gamma_{gamma}': o.gamma_sampler(G, x, ts, gamma, noise)})
    c.out({'gamma_0.5_shifted': o.gamma_sampler(G, x, ts, 0.5, noise, shifted=True),
           'cm': o.cm_sampler(G, x, ts, noise), 'onestep': o.gamma_sampler(G, x, [ts[0], ts[-1]], 0, [])})
    for method in ('heun', 'euler'):
        c.out({method: o.ode_sampler(den, x, ode, method == 'heun'),
               method + '_to_min': o.ode_sampler(den, x, ode[:-1], method == 'heun')})


def case_likelihood(c):
    net = c.net('net', 'film', True)
    x = c.randn('x', 6, D, scale=0.5)
    probe = c.input('probe', np.sign(c.rng.standard_normal((6, D))))
    ts = karras(12)[::-1]
    c.input('ts', ts)
    den = partial(o.denoise, net)
    logp, x_T = o.ode_log_likelihood(den, x, ts)
    c.out(dict(logp=logp, x_T=x_T, logp_hutchinson=o.ode_log_likelihood(den, x, ts, probe)[0]))


def case_optimizer(c):
    """Gradients from large to smaller than eps; one component is always zero."""
    p0 = c.randn('p0', 7)
    size = 10.0 ** np.array([1, 0, -1, -3, -6, -9, 0]) * [1, 1, 1, 1, 1, 1, 0]
    grads = c.input('grads', (c.rng.standard_normal((12, 7)) * size).astype(np.float32).astype(np.float64))
    for name in ('radam', 'adam'):
        p, out = p0.clone(), dict(params=[], ema_9=[], ema_999=[])
        averages = dict(ema_9=(0.9, p0.clone()), ema_999=(0.999, p0.clone()))
        optimizer = o.Adam([p], 0.01, rectified=name == 'radam')
        for g in grads:
            optimizer.step([g])
            out['params'].append(p.clone())
            for k, (rate, a) in averages.items():
                o.ema_update([a], [p], rate)
                out[k].append(a.clone())
        c.out({k: torch.stack(v) for k, v in out.items()}, name + '.')


def case_train(c):
    model, ema, teacher = trio(c, 'concat')
    h = np.array([[4], [1], [3], [2], [4], [4], [1], [2], [3], [4]])
    batches = draw_batch(c, 8, h, steps=(10,))
    optimizer, log = o.Adam(list(model.w.values()), 0.01, rectified=True), []
    for i in range(10):
        r = o.train_step(model, ema, teacher, optimizer, {k: v[i] for k, v in batches.items()}, 0.9)
        log.append(torch.stack([r[k].detach() for k in ('ctm', 'dsm', 'lambda_dsm', 'total')]))
    c.out(dict(log=torch.stack(log)))
    c.out(model.w, 'model.')
    c.out(ema.w, 'ema.')


CHURN = dict(S_churn=2.0, S_min=0.05, S_max=50.0, S_noise=1.003)


def case_sampler_score(c):
    net = c.net('net', 'film', True)
    x, noise = c.randn('x_T', 6, D, scale=80), c.randn('noise', 6, 6, D)
    ode = [*karras(6), 0.0]
    c.input('ts_ode', ode)
    for k, v in CHURN.items():
        c.input(k, v)
    G, den = partial(o.jump, net), partial(o.denoise, net)
    levels = c.input('two_step', [80.0, 2.5, 7.0])
    c.out(dict(two_step=o.two_step_sampler(G, x, *levels.double().tolist(), noise[0])))
    for method in ('heun', 'dpm2'):
        c.out({method + '_churn': o.score_sampler(den, x, ode, method, noise, **CHURN)})
    c.out(dict(dpm2=o.score_sampler(den, x, ode, 'dpm2', noise), ancestral=o.score_sampler(den, x, ode, 'ancestral', noise),
               ddim_to_min=o.score_sampler(den, x, ode[:-1], 'ddim', noise)))


def case_sampler_edit(c):
    """A mask for each point; and one direction of the plane, the weights of a two-pixel average."""
    net = c.net('net', 'film', True)
    ref, x, noise = c.randn('ref', 6, D, scale=0.5), c.randn('x', 6, D, scale=80), c.randn('noise', 8, 6, D)
    mask, w, ts = c.input('mask', np.array([[1, 0], [0, 1], [1, 0], [0, 1], [1, 1], [0, 0]])), c.input('w', [0.6, 0.8]), karras(5)
    c.input('ts', ts)
    G = partial(o.jump, net)
    puts = dict(mask=lambda y, r: torch.where(mask == 1, r, y), mean=lambda y, r: y + ((r - y) @ w)[:, None] * w)
    for name, put in puts.items():
        for gamma in (0, 0.5, 1):
            c.out({f'{name}_{gamma}': o.edit_sampler(G, put, ref, x, ts, gamma, iter(noise))})
        for gamma in (0.5, 1):
            c.out({f'{name}_{gamma}_authors': o.edit_sampler(G, put, ref, x, ts, gamma, iter(noise), True, 1.0 if name == 'mean' else None)})
    tail = ts[2:]
    c.out({f'stroke_{gamma}': o.gamma_sampler(G, ref + tail[0] * noise[0], tail, gamma, noise[1:]) for gamma in (0, 0.5)})


def case_sampler_guide(c):
    """loss: squared distance to the point `aim`."""
    net = c.net('net', 'film', True)
    x, noise, aim, ts = c.randn('x_T', 6, D, scale=80), c.randn('noise', 9, 6, D), c.randn('aim', D, scale=0.5), karras(5)
    c.input('ts', ts)
    G, den, loss = partial(o.jump, net), partial(o.denoise, net), lambda y: ((y - aim) ** 2).sum()
    c.out({'gradient_0': o.guided_sampler(G, loss, x, ts, 0, iter(noise), 0.1, 1),
           'gradient_0.5': o.guided_sampler(G, loss, x, ts, 0.5, iter(noise), 0.1, 2),
           'langevin_0': o.guided_sampler(G, loss, x, ts, 0, iter(noise), 1.0, 3, den),
           'langevin_0.5': o.guided_sampler(G, loss, x, ts, 0.5, iter(noise), 0.7, 2, den, 0.16),
           'langevin_free': o.guided_sampler(G, loss, x, ts, 0, iter(noise), 0.0, 1, den)})


def case_likelihood_probe(c):
    net = c.net('net', 'film', True)
    x, signs, normal = c.randn('x', 6, D, scale=0.5), c.input('signs', np.sign(c.rng.standard_normal((2, 6, D)))), c.randn('normal', 1, 6, D)
    draws = c.input('draws', np.concatenate([c.rng.random_sample((3, 6, 1)), c.rng.standard_normal((3, 6, 2 * D)),
                                             np.sign(c.rng.standard_normal((3, 6, D)))], 2).astype(np.float32).astype(np.float64))
    den, ts = partial(o.denoise, net), karras(12)[::-1]
    c.out(dict(logp_signs=sum(o.ode_log_likelihood(den, x, ts, e)[0] for e in signs) / 2))
    # with normal probes the identity's part of the trace is known to be D, so only that of the denoiser is estimated
    known = sum((b - a) / 2 * (1 / a + 1 / b) for a, b in zip(ts, ts[1:]))
    c.out(dict(logp_normal=o.ode_log_likelihood(den, x, ts, normal[0])[0] - known * ((normal[0] ** 2).sum(1) - D)))
    for authors in (False, True):
        part = [o.elbo(den, x, r[:, 0], r[:, 1:3], r[:, 3:5], r[:, 5:7], authors) for r in draws]
        c.out({'elbo' + '_authors' * authors: sum(part) / 3})


def all_cases(dtype):
    def run(fn, name, *args, **metadata):
        c = Case(name, dtype, **metadata)
        fn(c, *args)
        return c
    for kind in ('concat', 'film'):
        yield run(case_net, f'net_{kind}', kind, True, network=kind)
        yield run(case_net, f'net_{kind}_teacher', kind, False, network=kind)
        yield run(case_param, f'param_{kind}', kind, network=kind)
        yield run(case_solver, f'solver_{kind}', kind, network=kind, N=N)
    yield run(case_schedule, 'schedule', uniform_g_multiplier=1.5)
    yield run(case_law, 'law')
    for far in (False, True):
        yield run(case_mixture, 'mixture' + far * '_far', far)
        yield run(case_empirical, 'empirical' + far * '_far', far)
    for kind, role, match, dist, h, sub in LOSSES:
        yield run(case_loss, f'loss_{kind}_{role}_{match}_{dist}', kind, role, match, dist, h, sub,
                  network=kind, role=role, match=match, distance=dist, N=N, substeps=sub)
    yield run(case_diag, 'loss_diag', network='film')
    yield run(case_sampler, 'sampler', network='film')
    yield run(case_likelihood, 'likelihood', network='film')
    yield run(case_optimizer, 'optimizer', lr=0.01, beta1=0.9, beta2=0.999, eps=1e-8)
    yield run(case_train, 'train', network='concat', optimizer='radam', lr=0.01, ema_rate=0.9, N=N)
    for name, config in UNETS.items():
        yield run(case_unet, name, config, **{k: str(v).strip('[]').replace(' ', '') for k, v in config.items() if k != 'with_s'})
    yield from training_cases(run)
    for fn, name in ((case_sampler_score, 'sampler_score'), (case_sampler_edit, 'sampler_edit'), (case_sampler_guide, 'sampler_guide'),
                     (case_likelihood_probe, 'likelihood_probe')):
        yield run(fn, name, network='film')


def deviations(name, low, v):
    """How far a float32 run strays: relative to the whole output and, but for gradients, to each row (sample)."""
    dev, size = np.abs(low - v), np.abs(v).max() or 1.0
    found = {'fp32_dev.' + name: dev.max() / size}
    if v.ndim and not name.startswith('grad.'):
        rows = np.abs(v).reshape(len(v), -1).max(1)
        found['fp32_row.' + name] = (dev.reshape(len(v), -1).max(1) / np.where(rows > 0, rows, size)).max()
    return {k: '%.1e' % max(FLOOR, x) for k, x in found.items()}


def write(folder):
    os.makedirs(folder, exist_ok=True)
    total = 0
    for low, c in zip(all_cases(torch.float32), all_cases(torch.float64)):
        tensors = {'in.' + k: v.numpy() for k, v in c.inputs.items()}
        tensors.update({'w.' + k: v for k, v in c.weights.items()})
        for k, v in c.outputs.items():
            v = tensors['out.' + k] = v.double().numpy()
            assert np.isfinite(v).all(), (c.name, k)
            c.metadata.update(deviations(k, low.outputs[k].double().numpy(), v))
        path = os.path.join(folder, c.name + '.safetensors')
        save(path, tensors, dict(case=c.name, **c.metadata))
        total += os.path.getsize(path)
        print(f'{os.path.getsize(path):8d}  {c.name}.safetensors')
    print(f'{total:8d}  in all')


# ---------------------------------------------------------------- check of the files against an independent package

class FilmModule(torch.nn.Module):
    """The film network once more, with PyTorch's modules and explicit slices."""

    def __init__(self, with_s):
        super().__init__()
        lin = torch.nn.Linear
        self.map_t, self.film, self.out = lin(9, E), lin(E, 2 * L * H), lin(H, D)
        self.map_s = lin(9, E, bias=False) if with_s else None
        self.layers = torch.nn.ModuleList(lin(H if l else D, H) for l in range(L))

    @property
    def last_weight(self):
        return self.out.weight

    @staticmethod
    def features(z):
        a = [np.pi / 2 * 2 ** k * z for k in range(4)]
        return torch.stack([z] + [v.sin() for v in a] + [v.cos() for v in a], 1)

    def forward(self, x, z_t, z_s=None, labels=None):
        e = self.map_t(self.features(z_t)) + (0 if z_s is None else self.map_s(self.features(z_s)))
        m = self.film(torch.nn.functional.silu(e))
        for l, layer in enumerate(self.layers):
            scale, shift = m[:, 2 * l * H:(2 * l + 1) * H], m[:, (2 * l + 1) * H:(2 * l + 2) * H]
            x = torch.nn.functional.silu((1 + scale) * layer(x) + shift)
        return self.out(x)


class File:
    """One golden file as the check sees it."""

    def __init__(self, path, ref):
        tensors, self.metadata = load(path)
        part = lambda p: {k[len(p):]: torch.tensor(v) for k, v in tensors.items() if k.startswith(p)}
        self.name, self.ref = self.metadata['case'], ref
        self.inputs, self.weights, self.out = part('in.'), part('w.'), part('out.')
        self.config = ref.ctm.Config()

    def net(self, name, with_s, train=False):
        w = {k[len(name) + 1:]: v.double() for k, v in self.weights.items() if k.startswith(name + '.')}
        net = FilmModule(with_s) if self.metadata['network'] == 'film' else self.ref.mlp.MLP(D, H, L, 4, with_s=with_s)
        net.load_state_dict(w)
        return net.double().requires_grad_(train)

    def trio(self):
        return self.net('model', True, True), self.net('ema', True), self.net('teacher', False)


def named_grads(prefix, y, net):
    names, params = zip(*net.named_parameters())
    return {f'grad.{prefix}{n}': g for n, g in zip(names, torch.autograd.grad(y, params, retain_graph=True))}


def check_net(f, i):
    net = f.net('net', 'z_s' in i, True)
    x = i['x'].clone().requires_grad_()
    y = net(x, i['z_t'], i.get('z_s'))
    L = (y * i['grad_y']).sum()
    return dict(y=y, **{'grad.x': torch.autograd.grad(L, x, retain_graph=True)[0]}, **named_grads('', L, net))


def check_unet(f, i):
    config = dict(UNETS[f.name])
    names = dict(img_resolution='size', label_dim='classes', model_channels='width', channel_mult='mult',
                 num_blocks='num_blocks', attn_resolutions='attn', with_s='with_s')
    net = f.ref.unet.UNet(in_channels=config['channels'], out_channels=config['channels'], **{k: config[v] for k, v in names.items()})
    w = {k[len('net.'):]: v.double() for k, v in f.weights.items()}
    # What else PyTorch's state has is a constant of the resampling, which the files leave out.
    net.load_state_dict(dict(w, **{k: v for k, v in net.state_dict().items() if k.endswith('resample_filter')}), strict=True)
    one_hot = torch.stack([torch.arange(config['classes']) == k for k in i['label']]).double() if config['classes'] else None
    x = i['x'].clone().requires_grad_()
    y = net.double()(x, i['t'].log() / 4, i['s'].log() / 4 if config['with_s'] else None, one_hot)
    L = (y * i['grad_y']).sum()
    return dict(y=y, **{'grad.x': torch.autograd.grad(L, x, retain_graph=True)[0]}, **named_grads('', L, net))


def check_parameter_counts():
    ok = True
    for name, more, want in PARAMETERS:
        n = sum(int(np.prod(shape)) for shape in o.unet_shapes(**CIFAR, **more).values())
        ok &= n == want
        print(f'U-Net for CIFAR-10, {name}: {n:,d} parameters, {"as published" if n == want else f"NOT {want:,d}"}')
    return ok


def check_param(f, i):
    ctm, net, found = f.ref.ctm, f.net('net', True), {}
    for inner in o.INNER:
        for outer in o.OUTER:
            c = ctm.Config(inner=inner, outer={'mixed': 'euler_variance_mixed'}.get(outer, outer))
            names = f'g.{inner}', f'D.{inner}.{outer}', f'G.{inner}.{outer}'
            found.update(zip(names, ctm.evaluate(c, net, i['x'], i['t'], i['s'])))
    return dict(found, denoiser=ctm.denoise(f.config, net, i['x'], i['t']), score=ctm.score(f.config, net, i['x'], i['t']),
                teacher=ctm.denoise(f.config, f.net('teacher', False), i['x'], i['t'], kind='edm'))


def check_schedule(f, i):
    ctm = f.ref.ctm
    c, continuous = ctm.Config(), ctm.Config(time_continuous=True)
    found = dict(grid_18=ctm.get_t(c, torch.arange(18)), grid_40=ctm.get_t(ctm.Config(start_scales=40), torch.arange(40)),
                 continuous=ctm.get_t(continuous, i['continuous']),
                 substeps=ctm.get_t(ctm.Config(start_scales=52), torch.arange(52)),
                 c_in=1 / torch.hypot(i['t'], torch.tensor(.5)), dsm_sigma=ctm.dsm_sigmas(c, i['dsm_normals'], i['dsm_uniforms']))
    for k in o.INNER:
        found[f'inner.{k}.c_skip'], found[f'inner.{k}.c_out'] = ctm.inner_scalings(c, i['t'], k)
    for k in o.OUTER:
        c = ctm.Config(outer={'mixed': 'euler_variance_mixed'}.get(k, k))
        found[f'outer.{k}.C_skip'], found[f'outer.{k}.C_out'] = ctm.outer_scalings(c, i['t'], i['s'])
        found[f'outer.{k}.D_skip'] = ctm.denoiser_skip(c, i['t'])
    m = float(f.metadata['uniform_g_multiplier'])
    return dict(found, **{'weight.' + k: ctm.weighting(c, k, i['t'], i['s_strict'], m) for k in o.WEIGHTS})


def check_law(f, i):
    ctm = f.ref.ctm
    uniform = dict(heun_step_strategy='uniform')
    return {'h.weighted': ctm.heun_step_pmf(f.config), 'h.uniform': ctm.heun_step_pmf(ctm.Config(**uniform)),
            'h.square': ctm.heun_step_pmf(ctm.Config(num_heun_step=20, heun_step_multiplier=2.0)),
            'tus.weighted': ctm.joint_pmf(f.config),
            'tus.uniform': ctm.joint_pmf(ctm.Config(start_scales=6, num_heun_step=3, **uniform))}


def check_mixture(f, i):
    """PyTorch's distributions; the denoiser out of the score (Tweedie)."""
    if 'points' in i:
        i = dict(i, means=i['points'], stds=torch.zeros(7), weights=torch.ones(7) / 7)
    x, d = i['x'].clone().requires_grad_(), torch.distributions
    std = torch.sqrt(i['t'][:, None] ** 2 + i['stds'] ** 2)[:, :, None].expand(-1, -1, D)
    p = d.MixtureSameFamily(d.Categorical(i['weights'].expand(len(x), -1)),
                            d.Independent(d.Normal(i['means'].expand(len(x), -1, -1), std), 1))
    logp = p.log_prob(x)
    score, = torch.autograd.grad(logp.sum(), x)
    return {k: v for k, v in dict(logp=logp, score=score, D=x + i['t'][:, None] ** 2 * score).items() if k in f.out}


def heun_rows(f, teacher, x, i, k, substeps):
    """The package takes one k for all: row by row, on the grid refined by the substeps."""
    c = f.ref.ctm.Config(start_scales=(N - 1) * substeps + 1)
    return torch.cat([f.ref.ctm.heun_solver(c, teacher, None, x[b:b + 1], i[b:b + 1] * substeps, int(k[b]) * substeps)
                      for b in range(len(x))])


def check_solver(f, i):
    ctm, sp, teacher, found = f.ref.ctm, f.ref.samplers, f.net('teacher', False), {}
    _, den = sp.closures(f.config, teacher, kind='edm')
    for name, k in (('k3', torch.full_like(i['i'], 3)), ('each', i['k_each'])):
        found['u.' + name] = ctm.get_t(f.config, i['i'] + k)
        for sub in (1, 3):
            times = sp.karras_times((N - 1) * sub + 1)
            found[f'heun.{name}.sub{sub}'] = heun_rows(f, teacher, i['x'], i['i'], k, sub)
            found[f'euler.{name}.sub{sub}'] = torch.cat([
                sp.euler(den, i['x'][b:b + 1], times[a * sub:(a + int(k[b])) * sub + 1]) for b, a in enumerate(i['i'].tolist())])
    return found


def check_loss(f, i):
    ctm, meta, sub = f.ref.ctm, f.metadata, int(f.metadata['substeps'])
    model, ema, teacher = f.trio()
    role = dict(paper=dict(ctm_target_inner_type='target_model_sg'), **{'global': ctm.GLOBAL}).get(meta['role'], {})
    c = ctm.Config(**role)
    dist = dict(l2=ctm.l2, l1=lambda a, b: torch.nn.functional.l1_loss(a, b, reduction='none').mean(1),
                huber=lambda a, b: ctm.pseudo_huber(a, b, 0.03))[meta['distance']]
    t, u, s = (ctm.get_t(c, i['ind_' + n]) for n in 'tus')
    k, x_t = i['ind_u'] - i['ind_t'], i['x0'] + t[:, None] * i['noise']
    x_u = heun_rows(f, teacher, x_t, i['ind_t'], k, sub)
    with torch.no_grad():
        target_s = x_u if meta['role'] == 'global' else ctm.jump(c, ema if meta['role'] == 'paper' else model, x_u, u, s)
    est_s = ctm.jump(c, model, x_t, t, s)
    found = dict(t=t, u=u, s=s, x_t=x_t, x_u=x_u, est_s=est_s, target_s=target_s)
    at_s = dist(*(v * (0.25 / (s ** 2 + 0.25)).sqrt()[:, None] for v in (est_s, target_s)))
    if meta['match'] != 's':
        found['x_est'] = ctm.estimate(c, model, ema, x_t, t, u, s, None, c.ctm_estimate_inner_type,
                                      c.ctm_estimate_outer_type, c.ctm_target_matching)
        found['x_target'] = ctm.target(c, model, ema, x_u, u, s, None, c.ctm_target_inner_type)
        at_zero = dist(found['x_est'], found['x_target'])
    found['loss'] = at_s if meta['match'] == 's' else at_zero if meta['match'] == 'zero' else (at_zero + at_s) / 2
    found['dsm_loss'] = ctm.dsm_loss(c, model, i['x0'], i)
    found.update(ctm=found['loss'].mean(), dsm=found['dsm_loss'].mean())
    found['lambda_dsm'] = ctm.adaptive_weight(found['ctm'], found['dsm'], model.last_weight)
    found['total'] = found['ctm'] + found['lambda_dsm'] * found['dsm']
    if meta['match'] == 'zero':     # the package's own composition of the parts
        whole = ctm.generator_losses(c, model, ema, teacher, i['x0'], dict(i, k=int(k[0]), ind=i['ind_t']), None, dist)
        found.update({n: whole[{'x_est': 'est', 'x_target': 'target', 'lambda_dsm': 'w_dsm'}.get(n, n)]
                      for n in ('x_t', 'x_u', 'x_est', 'x_target', 'loss', 'ctm', 'dsm', 'lambda_dsm', 'total')})
    for n in ('ctm', 'dsm', 'total'):
        found.update(named_grads(n + '.', found[n], model))
    return found


def check_diag(f, i):
    ctm, model = f.ref.ctm, f.net('model', True, True)
    x = i['x0'] + i['sigma'][:, None] * i['noise']
    den = check_mixture(f, dict(i, x=x, t=i['sigma']))['D'].detach()
    g = ctm.denoise(f.config, model, x, i['sigma'])
    loss = ctm.weighting(f.config, 'karras_weight', i['sigma']) * ctm.l2(g, den)
    return dict(x=x, D=den, g=g, loss=loss, diag=loss.mean(), **named_grads('', loss.mean(), model))


def check_sampler(f, i):
    sp = f.ref.samplers
    G, den = sp.closures(f.config, f.net('net', True))
    x, ts, ode, tape = i['x_T'], i['ts'].tolist(), i['ts_ode'].tolist(), lambda: sp.Tape(replay=i['noise'])
    found = {f'gamma_{g}': sp.gamma_sampling(G, x, ts, g, tape()) for g in (0, 0.5, 1)}
    return {**found, 'gamma_0.5_shifted': sp.gamma_sampling(G, x, ts, 0.5, tape(), True), 'cm': sp.cm_multistep(G, x, ts, tape()),
            'onestep': sp.onestep(G, x, ts[0]), 'heun': sp.heun(den, x, ode, sp.Tape()), 'euler': sp.euler(den, x, ode),
            'heun_to_min': sp.heun(den, x, ode[:-1], sp.Tape()), 'euler_to_min': sp.euler(den, x, ode[:-1])}


def check_likelihood(f, i):
    sp = f.ref.samplers
    _, den = sp.closures(f.config, f.net('net', True))
    logp, x_T = sp.pf_ode_logp(den, i['x'], i['ts'].tolist())
    return dict(logp=logp, x_T=x_T, logp_hutchinson=sp.pf_ode_logp(den, i['x'], i['ts'].tolist(), i['probe'])[0])


def check_optimizer(f, i):
    """PyTorch's own optimisers."""
    found = {}
    for name, cls in (('radam', torch.optim.RAdam), ('adam', torch.optim.Adam)):
        p = torch.nn.Parameter(i['p0'].clone())
        averages = {k: torch.nn.ParameterList([torch.nn.Parameter(i['p0'].clone())]) for k in ('ema_9', 'ema_999')}
        optimizer, out = cls([p], lr=0.01), dict(params=[], ema_9=[], ema_999=[])
        for p.grad in i['grads'].clone():
            optimizer.step()
            out['params'].append(p.detach().clone())
            for k, rate in (('ema_9', .9), ('ema_999', .999)):
                f.ref.ctm.ema_update(averages[k], torch.nn.ParameterList([p]), rate)
                out[k].append(averages[k][0].detach().clone())
        found.update({f'{name}.{k}': torch.stack(v) for k, v in out.items()})
    return found


def check_train(f, i):
    ctm, log = f.ref.ctm, []
    model, ema, teacher = f.trio()
    c, optimizer = ctm.Config(start_ema=0.9), ctm.optimizer(model.parameters(), lr=0.01)
    for n in range(10):
        r = {k: v[n] for k, v in i.items()}
        r.update(k=int(r['ind_u'][0] - r['ind_t'][0]), ind=r['ind_t'])
        out = ctm.train_step(c, model, ema, teacher, optimizer, r['x0'], r)
        log.append(torch.stack([out[k].detach() for k in ('ctm', 'dsm', 'w_dsm', 'total')]))
    return dict(log=torch.stack(log), **{'model.' + k: v for k, v in model.named_parameters()},
                **{'ema.' + k: v for k, v in ema.named_parameters()})


def check_sampler_score(f, i):
    sp = f.ref.samplers
    G, den = sp.closures(f.config, f.net('net', True))
    x, ode, tape = i['x_T'], i['ts_ode'].tolist(), lambda: sp.Tape(replay=i['noise'])
    churn = [float(i[k]) for k in ('S_churn', 'S_min', 'S_max', 'S_noise')]
    t0, t1, t2 = i['two_step'].tolist()
    return dict(two_step=sp.gamma_two_step(G, x, t0, t1, t2, 0.002, tape()), heun_churn=sp.heun(den, x, ode, tape(), *churn),
                dpm2_churn=sp.dpm2(den, x, ode, tape(), *churn), dpm2=sp.dpm2(den, x, ode, tape()),
                ancestral=sp.ancestral(den, x, ode, tape()), ddim_to_min=sp.progdist(den, x, ode))


def at_each_landing(sp, G, ts, change):
    """G followed by change(x, s, last): what editing and guidance do, as a jump for the package's own gamma sampler."""
    def jump(x, t, s):
        return change(G(x, t, s), s, s == ts[-1])
    return lambda x, gamma, tape: sp.gamma_sampling(jump, x, ts, gamma, tape if gamma else lambda v: 0 * v)


def check_sampler_edit(f, i):
    sp, found = f.ref.samplers, {}
    G, _ = sp.closures(f.config, f.net('net', True))
    x, ref, ts, mask, w = i['x'], i['ref'], i['ts'].tolist(), i['mask'].double(), i['w']
    project = lambda v: (v * w).sum(1, keepdim=True) * w / (w * w).sum()
    puts = dict(mask=lambda y, r: r * mask + y * (1 - mask), mean=lambda y, r: y - project(y) + project(r))
    for name, put in puts.items():
        for gamma in (0, 0.5, 1):
            tape = sp.Tape(replay=i['noise'])
            def change(y, s, last):
                level = np.sqrt(s ** 2 - 0.002 ** 2)
                return put(y, ref + level * tape(y) if level > 0 else ref)
            found[f'{name}_{gamma}'] = at_each_landing(sp, G, ts, change)(x, gamma, tape)
    masked = ref * mask - (1 - mask)
    for gamma in (0.5, 1):
        start = [(x - masked) / ts[0]]
        found[f'mask_{gamma}_authors'] = sp.inpaint(G, ref, mask, ts, gamma, sp.Tape(replay=start + list(i['noise'])))[0]
        found[f'mean_{gamma}_authors'] = sp.restore(G, ref, project, ts, sp.Tape(replay=i['noise']), gamma, x)[0]
    for gamma in (0, 0.5):
        tape = sp.Tape(replay=i['noise'])
        found[f'stroke_{gamma}'] = sp.gamma_sampling(G, ref + ts[2] * tape(ref), ts[2:], gamma, tape)
    return found


def check_sampler_guide(f, i):
    sp, net, found = f.ref.samplers, f.net('net', True), {}
    G, _ = sp.closures(f.config, net)
    ts = i['ts'].tolist()
    grad_of = lambda y: 2 * (y - i['aim'])
    def gradient(scale, steps, tape):
        def change(y, s, last):
            for _ in range(0 if last else steps):
                y = y - scale * s * grad_of(y)
            return y
        return change
    def langevin(scale, steps, tape, snr=0.1):
        def change(y, s, last):
            for _ in range(0 if last else steps):
                score, g = f.ref.ctm.score(f.config, net, y, y.new_full((len(y),), s)).detach(), grad_of(y)
                v = score - scale * (score.pow(2).sum(1) / g.pow(2).sum(1)).sqrt()[:, None] * g
                z = tape(y)
                h = 2 * (snr * z.pow(2).sum(1).sqrt().mean() / v.pow(2).sum(1).sqrt().mean()) ** 2
                y = y + h * v + (2 * h).sqrt() * z
            return y
        return change
    for name, gamma, kind, args in (('gradient_0', 0, gradient, (0.1, 1)), ('gradient_0.5', 0.5, gradient, (0.1, 2)), ('langevin_0', 0, langevin, (1.0, 3)),
                                    ('langevin_0.5', 0.5, langevin, (0.7, 2)), ('langevin_free', 0, langevin, (0.0, 1))):
        tape = sp.Tape(replay=i['noise'])
        change = kind(*args, tape, 0.16) if name == 'langevin_0.5' else kind(*args, tape)
        found[name] = at_each_landing(sp, G, ts, change)(i['x_T'], gamma, tape)
    return found


def check_likelihood_probe(f, i):
    """The package draws the prior's noise too, where the files hold its expectation; its result is in bits."""
    sp, net, x = f.ref.samplers, f.net('net', True), i['x']
    _, den = sp.closures(f.config, net)
    ts = sp.karras_times(12)[::-1]
    ode = lambda e: sp.pf_ode_logp(den, x, ts, e)[0]
    found = dict(logp_signs=(ode(i['signs'][0]) + ode(i['signs'][1])) / 2)
    slopes = torch.tensor([1 / t for t in ts])
    found['logp_normal'] = ode(i['normal'][0]) + (D - i['normal'][0].pow(2).sum(1)) * torch.trapezoid(slopes, torch.tensor(ts))
    rows = lambda v, t: f.ref.ctm.denoise(f.config, net, v, t)
    for name, official in (('elbo', False), ('elbo_authors', True)):
        total = 0
        for r in i['draws']:
            parts = dict(u=r[:, 0], z=r[:, 1:3], z_prior=torch.zeros_like(x), z_res=r[:, 3:5], e=r[:, 5:7])
            total = total + (7 - sp.elbo_bpd(rows, x, parts, official=official)) * D * np.log(2) - D / 2
        found[name] = total / 3
    return found


def check(folder, reference):
    """Every output of every file, recomputed from the file's own inputs; relative to the output's largest value."""
    reference = os.path.abspath(reference)
    sys.path.insert(0, os.path.dirname(reference))
    ref = importlib.import_module(os.path.basename(reference))
    for part in ('ctm', 'mlp', 'samplers', 'unet'):
        importlib.import_module(f'{ref.__name__}.{part}')
    torch.set_default_dtype(torch.float64)
    worst = 0.0
    for name in sorted(f for f in os.listdir(folder) if f.endswith('.safetensors')):
        f = File(os.path.join(folder, name), ref)
        kind = 'diag' if f.name == 'loss_diag' else {'empirical': 'mixture'}.get(f.name.split('_')[0], f.name.split('_')[0])
        kind = f.name if 'check_' + f.name in globals() else kind
        found = globals()['check_' + kind](f, f.inputs)
        assert set(found) == set(f.out), set(found) ^ set(f.out)
        diff = {}
        for k, v in f.out.items():
            v2 = torch.as_tensor(found[k]).detach()
            assert v.shape == v2.shape, (f.name, k, v.shape, v2.shape)
            diff[k] = float((v - v2).abs().max() / (v.abs().max() or 1.0))
        k = max(diff, key=diff.get)
        assert kind != 'unet' or diff[k] < 1e-12, (f.name, k, diff[k])
        worst = max(worst, diff[k])
        print(f'{f.name:28s} {len(diff):3d} outputs, largest difference {diff[k]:.1e}  ({k})')
    counts_agree = check_parameter_counts()
    print(f'largest of all {worst:.1e}: {"agrees" if worst < 1e-11 and counts_agree else "DIFFERS"}')
    return worst >= 1e-11 or not counts_agree


# ================================================================ training: teachers, adversary, labels

def critic_shapes():
    return {'critic.0': (H, D, True), 'critic.1': (H, H, True), 'logit': (1, H, True)}


def with_shapes(c, name, shapes, train):
    """A network of named layers {name: (outputs, inputs, has a bias)}; returns the weights in the case's number format."""
    w = {}
    for layer, (rows, cols, bias) in shapes.items():
        w[layer + '.weight'] = c.rng.standard_normal((rows, cols)) * 1.2 / np.sqrt(cols)
        if bias:
            w[layer + '.bias'] = c.rng.standard_normal(rows) * 0.3
    w = {k: v.astype(np.float32) for k, v in w.items()}
    c.weights.update({f'{name}.{k}': v for k, v in w.items()})
    return {k: torch.tensor(v).to(c.dtype).requires_grad_(train) for k, v in w.items()}


def near(b):
    """The same batch with u one grid step after t and s at the end: consistency models."""
    t = torch.clamp(b['ind_t'], max=N - 2)
    return dict(b, ind_t=t, ind_u=t + 1, ind_s=torch.full_like(t, N - 1))


def case_forms(c):
    model, ema, teacher = trio(c, 'concat')
    b = draw_batch(c, 8, 3)
    for form in o.FORMS:
        found, t, s = o.form_loss(form, model, ema, teacher, near(b) if form in ('cd', 'ct') else b, N)
        found['ctm'] = found['loss'].mean()
        c.out(found, form + '.')
        c.grads(form + '.', found['ctm'], model)
    found, t, s = o.form_loss('distilled', model, ema, teacher, b, N)
    x = b['x0'] + o.col(b['dsm_sigma']) * b['dsm_noise']
    error = ((o.denoise(model, x, b['dsm_sigma']) - b['x0']) ** 2).mean(1)
    for k in o.WEIGHTS:
        c.out({'weighted.' + k: (o.weight(k, t, s, 1.5) * found['loss']).mean()})
        if k != 'uniform_g':
            c.out({'dsm.' + k: (o.weight(k, b['dsm_sigma']) * error).mean()})


def case_gan(c):
    model, ema, teacher = trio(c, 'concat')
    disc = o.Net('concat', with_shapes(c, 'disc', critic_shapes(), True))
    b = draw_batch(c, 8, 3)
    r = o.losses(model, ema, teacher, b)
    real, fake = o.logits(disc, b['x0']), o.logits(disc, r['x_est'])
    one_step = o.logits(disc, o.jump(model, r['x_t'], r['t'], torch.full_like(r['t'], o.SIGMA_MIN)))
    c.out(dict(ctm=r['ctm'], dsm=r['dsm'], lambda_dsm=r['lambda_dsm'], real=real, fake=fake, one_step=one_step))
    for kind in o.GAN:
        L, L_D = o.gan_student(kind, fake), o.gan_disc(kind, real, o.logits(disc, r['x_est'].detach()))
        lam = o.adaptive_weight(r['ctm'], L, model.w['out.weight']).clamp(0.01, 10)
        total = r['total'] + lam * L
        c.out({'L_gan.' + kind: L, 'L_disc.' + kind: L_D, 'lambda_gan.' + kind: lam, 'total.' + kind: total})
        c.grads(f'gan.{kind}.', L, model)
        c.grads(f'disc.{kind}.', L_D, disc)


def case_label(c):
    shapes = dict(layer_shapes('film', True), map_label=(E, 3, False))
    w = with_shapes(c, 'net', shapes, True)
    pairs = np.array(PAIRS[::2] + PAIRS[::2])
    labels = c.input('label', np.array([0, 1, 2, -1, 2, -1, 1, 1, 0, 0, -1, 2]))
    t, s = (c.input(n, pairs[:, i]) for i, n in enumerate('ts'))
    x, gy = noisy_points(c, t).requires_grad_(), c.randn('grad_y', len(pairs), D)
    net = o.Labelled(w, labels)
    g = o.evaluate(net, x, t, s)[0]
    c.out(dict(g=g, **{'grad.x': o.grad((g * gy).sum(), [x])[0]}))
    c.grads('', (g * gy).sum(), net)
    for weight in (0, 1, 2.5):
        c.out({f'G.{weight}': o.guided(o.jump, w, labels, weight, x, t, s), f'D.{weight}': o.guided(o.denoise, w, labels, weight, x, t)})


def training_cases(run):
    yield run(case_forms, 'forms', network='concat', role='soft', match='zero', distance='l2', N=N, substeps=1, uniform_g_multiplier=1.5)
    yield run(case_gan, 'gan', network='concat', role='soft', match='zero', distance='l2', N=N, substeps=1)
    yield run(case_label, 'label', network='film')


def check_forms(f, i):
    """Their own loss with their own settings; only ct, which they lack, is put together from their parts."""
    ctm, found = f.ref.ctm, {}
    model, ema, teacher = f.trio()
    settings = dict(self_jump=dict(self_learn=True), self_each=dict(self_learn=True, self_learn_iterative=True),
                    cd=dict(ctm_target_inner_type='target_model_sg'), ct=dict(ctm_target_inner_type='target_model_sg'),
                    outer_online=dict(ctm_estimate_outer_type='model'), variance=dict(outer='variance'), mixed=dict(outer='euler_variance_mixed'))
    for form in o.FORMS:
        c, j = ctm.Config(**settings.get(form, {})), i
        if form in ('cd', 'ct'):
            t = i['ind_t'].clamp(max=N - 2)
            j = dict(i, ind_t=t, ind_u=t + 1, ind_s=torch.full_like(t, N - 1))
        r = dict(j, ind=j['ind_t'], k=int(j['ind_u'][0] - j['ind_t'][0]))
        r = ctm.ctm_loss(c, model, ema, None if form.startswith('self') else teacher, i['x0'], r)
        if form == 'ct':
            r['x_u'] = i['x0'] + r['u'][:, None] * i['noise']
            r['target'] = ctm.target(c, model, ema, r['x_u'], r['u'], r['s'], None, c.ctm_target_inner_type)
            r['loss'] = ctm.l2(r['est'], r['target'])
        values = dict(x_u=r['x_u'], x_est=r['est'], x_target=r['target'], loss=r['loss'], ctm=r['loss'].mean())
        found.update({f'{form}.{k}': v for k, v in values.items()}, **named_grads(form + '.', values['ctm'], model))
    m = float(f.metadata['uniform_g_multiplier'])
    for k in o.WEIGHTS:
        c = ctm.Config(weight_schedule=k, weight_schedule_multiplier=m, diffusion_weight_schedule=k)
        r = dict(i, ind=i['ind_t'], k=3)
        found['weighted.' + k] = ctm.ctm_loss(c, model, ema, teacher, i['x0'], r)['loss'].mean()
        if k != 'uniform_g':
            found['dsm.' + k] = ctm.dsm_loss(c, model, i['x0'], r).mean()
    return found


def check_gan(f, i):
    """The package's total with its adversary (hinge, and its bce for log); minimax, which it lacks, by softplus."""
    ctm, found = f.ref.ctm, {}
    model, ema, teacher = f.trio()
    lin = torch.nn.Linear
    disc = torch.nn.ModuleDict(dict(critic=torch.nn.ModuleList([lin(D, H), lin(H, H)]), logit=lin(H, 1))).double()
    disc.load_state_dict({k[5:]: v.double() for k, v in f.weights.items() if k.startswith('disc.')})

    def judge(x):
        h = 2 * x
        for layer in disc['critic']:
            h = torch.nn.functional.silu(layer(h))
        return [disc['logit'](h)]
    r = dict(i, ind=i['ind_t'], k=3)
    for kind in o.GAN:
        c = ctm.Config(gan_loss='hinge' if kind == 'hinge' else 'bce')
        whole = ctm.generator_losses(c, model, ema, teacher, i['x0'], r, disc=judge)
        if kind == 'minimax':
            whole['gan'] = -torch.nn.functional.softplus(judge(whole['est'])[0]).mean()
            whole['w_gan'] = ctm.adaptive_weight(whole['ctm'], whole['gan'], model.last_weight).clip(0.01, 10)
            whole['total'] = whole['ctm'] + whole['w_dsm'] * whole['dsm'] + whole['w_gan'] * whole['gan']
        L_D = ctm.discriminator_loss(c, judge, whole['est'], i['x0'])
        found.update({'L_gan.' + kind: whole['gan'], 'L_disc.' + kind: L_D, 'lambda_gan.' + kind: whole['w_gan'], 'total.' + kind: whole['total']},
                     **named_grads(f'gan.{kind}.', whole['gan'], model), **named_grads(f'disc.{kind}.', L_D, disc))
    one = ctm.gan_fake(ctm.Config(gan_fake_outer_type='no'), model, ema, whole, None)
    found.update(ctm=whole['ctm'], dsm=whole['dsm'], lambda_dsm=whole['w_dsm'], real=judge(i['x0'])[0], fake=judge(whole['est'])[0], one_step=judge(one)[0])
    return found


class LabelModule(FilmModule):
    """FilmModule with one more layer on one-hot labels; zeros for a row without."""

    def __init__(self):
        super().__init__(True)
        self.map_label = torch.nn.Linear(3, E, bias=False)

    def forward(self, x, z_t, z_s=None, labels=None):
        map_t = self.map_t
        hot = torch.nn.functional.one_hot(labels + 1, 4)[:, 1:].double()
        try:        # FilmModule adds what map_t returns
            self._modules['map_t'] = lambda v: map_t(v) + self.map_label(hot)
            return super().forward(x, z_t, z_s)
        finally:
            self._modules['map_t'] = map_t


def check_label(f, i):
    ctm, net = f.ref.ctm, LabelModule().double()
    net.load_state_dict({k[4:]: v.double() for k, v in f.weights.items()})
    x, label, none = i['x'].clone().requires_grad_(), i['label'], torch.full_like(i['label'], -1)
    g = ctm.evaluate(f.config, net, x, i['t'], i['s'], label)[0]
    L = (g * i['grad_y']).sum()
    found = dict(g=g, **{'grad.x': torch.autograd.grad(L, x, retain_graph=True)[0]}, **named_grads('', L, net))
    for w in (0, 1, 2.5):
        for name, fn, times in (('G', ctm.jump, (i['t'], i['s'])), ('D', ctm.denoise, (i['t'],))):
            a, b = (fn(f.config, net, x, *times, labels) for labels in (label, none))
            found[f'{name}.{w}'] = w * a + (1 - w) * b
    return found


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder', nargs='?', default=HERE)
    parser.add_argument('--check', metavar='REFERENCE')
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.check:
        sys.exit(check(args.folder, args.check))
    write(args.folder)
