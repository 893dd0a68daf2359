"""Consistency trajectory models in PyTorch, on points; and the U-Net for images: the second opinion that the C tests compare with.

Every function is a formula of the paper (Kim et al., ICLR 2024) and nothing is tuned for speed. Nothing here draws
random numbers: all noise, all times and all weights are arguments, so that C can be fed the very same numbers.
The number format is that of the arguments; the golden files come from float64.

Shapes: x [B,D]; t, u, s [B], with sigma_max >= t > u >= s >= sigma_min; index i [B] on the grid, 0 = sigma_max.
A network is called net(x, z_t, z_s) with x already multiplied by c_in, z = ln(time)/4; z_s is None for a teacher.
"""
import math
from functools import partial
import torch

SIGMA_MIN, SIGMA_MAX, SIGMA_DATA, RHO = 0.002, 80.0, 0.5, 7.0
INNER = 'edm', 'cm', 'no'
OUTER = 'euler', 'variance', 'mixed'
WEIGHTS = 'snr', 'snr+1', 'karras', 'truncated-snr', 'uniform', 'uniform_g', 'karras_weight', 'sq-t-inverse'


def col(v):
    """[B] -> [B,1], so that a per-sample number multiplies a row."""
    return v[:, None]


def silu(x):
    return x * torch.sigmoid(x)


# ---------------------------------------------------------------- networks

class Net:
    """Named weights w (PyTorch layout [out,in]) and one of the three forward formulas below."""

    def __init__(self, kind, w):
        self.w, self.forward = w, {'concat': concat, 'film': film, 'unet': unet}[kind]

    def __call__(self, x, z_t, z_s=None, *label):
        return self.forward(self, x, z_t, z_s, *label)

    def linear(self, name, x):
        y = x @ self.w[name + '.weight'].T
        return y + self.w[name + '.bias'] if name + '.bias' in self.w else y

    @property
    def depth(self):
        return sum(n.startswith('layers.') and n.endswith('.weight') for n in self.w)


def concat(net, x, z_t, z_s):
    """Input [x, sin(f z_t), cos(f z_t), sin(f z_s), cos(f z_s)] with f = 1/2, 1, 2, 4; then SiLU layers."""
    f = torch.tensor([0.5, 1., 2., 4.], dtype=x.dtype)
    h = [x]
    for z in (z_t, z_s):
        if z is not None:
            h += [torch.sin(col(z) * f), torch.cos(col(z) * f)]
    h = torch.cat(h, 1)
    for l in range(net.depth):
        h = silu(net.linear(f'layers.{l}', h))
    return net.linear('out', h)


def film_features(z):
    """[z, sin(pi/2 2^k z), cos(pi/2 2^k z)], k = 0..3: nine numbers."""
    a = col(z) * (math.pi / 2 * 2.0 ** torch.arange(4, dtype=z.dtype))
    return torch.cat([col(z), torch.sin(a), torch.cos(a)], 1)


def film(net, x, z_t, z_s):
    """The times scale and shift every layer: h <- silu((1 + scale_l) (W_l h + b_l) + shift_l)."""
    e = net.linear('map_t', film_features(z_t))
    if z_s is not None:
        e = e + net.linear('map_s', film_features(z_s))
    modulation = net.linear('film', silu(e)).chunk(2 * net.depth, 1)
    h = x
    for l in range(net.depth):
        scale, shift = modulation[2 * l], modulation[2 * l + 1]
        h = silu((1 + scale) * net.linear(f'layers.{l}', h) + shift)
    return net.linear('out', h)


# ---------------------------------------------------------------- the U-Net (DDPM++ as EDM uses it), with a second time
# Images are [B,C,H,W]. The parameters have the authors' names, and these say what there is to do: a stage is a name such as
# enc.16x16_block0, its layers hang below it, stages follow each other in the order of the dictionary, and a layer that has no
# parameters is not there.

def unet_shapes(size, channels, width, mult, num_blocks, attn, with_s=False, classes=0):
    """{parameter: shape} in the order of use. mult: width of every level, from fine to coarse, in units of `width`."""
    shapes, made = {}, [width]

    def layer(name, *shape):
        shapes[name + '.weight'], shapes[name + '.bias'] = shape, shape[:1]

    def block(name, c_in, c_out, attention=False):
        layer(name + '.norm0', c_in)
        layer(name + '.conv0', c_out, c_in, 3, 3)
        for affine in ('.affine', '.affine_s')[:1 + with_s]:
            layer(name + affine, c_out, 4 * width)
        layer(name + '.norm1', c_out)
        layer(name + '.conv1', c_out, c_out, 3, 3)
        if c_in != c_out or name.endswith(('_down', '_up')):
            layer(name + '.skip', c_out, c_in, 1, 1)
        if attention:
            layer(name + '.norm2', c_out)
            layer(name + '.qkv', 3 * c_out, c_out, 1, 1)
            layer(name + '.proj', c_out, c_out, 1, 1)
        return c_out

    if classes:
        layer('map_label', width, classes)
    for branch in ('', '_s')[:1 + with_s]:
        layer('map_layer0' + branch, 4 * width, width)
        layer('map_layer1' + branch, 4 * width, 4 * width)
    side = [f'{size >> i}x{size >> i}_' for i in range(len(mult))]
    layer(f'enc.{side[0]}conv', width, channels, 3, 3)
    c = width
    for i, m in enumerate(mult):
        if i:
            made.append(block(f'enc.{side[i]}down', c, c))
        for b in range(num_blocks):
            c = block(f'enc.{side[i]}block{b}', c, m * width, size >> i in attn)
            made.append(c)
    for i, m in reversed(list(enumerate(mult))):
        if i == len(mult) - 1:
            block(f'dec.{side[i]}in0', c, c, True)
            block(f'dec.{side[i]}in1', c, c)
        else:
            block(f'dec.{side[i]}up', c, c)
        for b in range(num_blocks + 1):
            c = block(f'dec.{side[i]}block{b}', c + made.pop(), m * width, b == num_blocks and size >> i in attn)
    layer(f'dec.{side[0]}aux_norm', c)
    layer(f'dec.{side[0]}aux_conv', channels, c, 3, 3)
    return shapes


def conv(net, name, x):
    """Every shift of the padded image times that shift's matrix."""
    w, b = net.w[name + '.weight'], net.w[name + '.bias']
    k, (H, W) = w.shape[-1], x.shape[2:]
    x = torch.nn.functional.pad(x, 4 * [k // 2])
    y = sum(torch.einsum('oc,nchw->nohw', w[:, :, i, j], x[:, :, i:i + H, j:j + W]) for i in range(k) for j in range(k))
    return y + b[:, None, None]


def group_norm(net, name, x):
    """Mean 0 and variance 1 in each of min(32, C/4) groups of neighbouring channels, then a scale and shift per channel."""
    C = x.shape[1]
    g = x.reshape(len(x), min(32, C // 4), -1)
    g = g - g.mean(2, keepdim=True)
    x = (g / torch.sqrt((g ** 2).mean(2, keepdim=True) + 1e-6)).reshape(x.shape)
    return x * net.w[name + '.weight'][:, None, None] + net.w[name + '.bias'][:, None, None]


def attention(qkv):
    """One head over all pixels. Channels come as q_0 k_0 v_0 q_1 k_1 v_1 ..."""
    q, k, v = (qkv[:, j::3].flatten(2) for j in range(3))                            # [B,C,pixels]
    share = torch.softmax(torch.einsum('bcp,bcr->bpr', q, k) / math.sqrt(q.shape[1]), 2)
    return torch.einsum('bpr,bcr->bcp', share, v).reshape(v.shape[:2] + qkv.shape[2:])


def resample(name, x):
    if name.endswith('_down'):
        return x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).mean((3, 5))
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3) if name.endswith('_up') else x


def unet_block(net, name, x, embeddings):
    h = conv(net, name + '.conv0', resample(name, silu(group_norm(net, name + '.norm0', x))))
    for affine, e in embeddings.items():
        h = h + net.linear(name + affine, e)[:, :, None, None]
    h = conv(net, name + '.conv1', silu(group_norm(net, name + '.norm1', h)))
    x = resample(name, x)
    x = (h + (conv(net, name + '.skip', x) if name + '.skip.weight' in net.w else x)) / math.sqrt(2)
    if name + '.qkv.weight' not in net.w:
        return x
    h = attention(conv(net, name + '.qkv', group_norm(net, name + '.norm2', x)))
    return (conv(net, name + '.proj', h) + x) / math.sqrt(2)


def unet_embedding(net, branch, z, label):
    """[sin(z f_i), cos(z f_i)], the f_i in equal ratios from 1 to 1/10000; plus the label's vector; two layers."""
    n = net.w['map_layer0.weight'].shape[1] // 2
    a = col(z) * torch.exp(-math.log(10000) / (n - 1) * torch.arange(n, dtype=z.dtype))
    e = torch.cat([torch.sin(a), torch.cos(a)], 1)
    if 'map_label.weight' in net.w:
        classes = net.w['map_label.weight'].shape[1]
        one_hot = (col(label) == torch.arange(classes)).to(z.dtype)                  # all zeros for label -1
        e = e + net.linear('map_label', math.sqrt(classes) * one_hot)
    for layer in ('map_layer0', 'map_layer1'):
        e = silu(net.linear(layer + branch, e))
    return e


def unet(net, x, z_t, z_s, label=None):
    """x [B,C,H,W]; label [B], -1: none. On the way up every block sees what the way down made, the last one first."""
    embeddings = {'.affine': unet_embedding(net, '', z_t, label)}
    if z_s is not None:
        embeddings['.affine_s'] = unet_embedding(net, '_s', z_s, label)
    made = []
    for stage in dict.fromkeys('.'.join(n.split('.')[:2]) for n in net.w if n.startswith(('enc.', 'dec.'))):
        if stage.startswith('dec.') and '_block' in stage:
            x = torch.cat([x, made.pop()], 1)
        if stage.endswith('conv'):
            x = conv(net, stage, x)
        elif stage.endswith('norm'):
            x = silu(group_norm(net, stage, x))
        else:
            x = unet_block(net, stage, x, embeddings)
        if stage.startswith('enc.'):
            made.append(x)
    return x


# ---------------------------------------------------------------- times and scalings

def grid_time(i, N):
    """Karras time of index i on a grid of N nodes; fractional indices are the ends of solver substeps."""
    a, b = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    return (a + i / (N - 1) * (b - a)) ** RHO


def c_in(t):
    return 1 / torch.sqrt(t * t + SIGMA_DATA ** 2)


def inner_scalings(t, inner):
    """(c_skip, c_out) of g = c_skip x + c_out F: of t only, never of s."""
    var = SIGMA_DATA ** 2
    if inner == 'no':
        return torch.zeros_like(t), torch.ones_like(t)
    d = t if inner == 'edm' else t - SIGMA_MIN
    return var / (d * d + var), d * SIGMA_DATA * c_in(t)


def outer_scalings(t, s, outer):
    """(C_skip, C_out) of G = C_skip x + C_out g, and D_skip = 1 - t dC_skip/ds at s = t, of D = g + D_skip x."""
    var = SIGMA_DATA ** 2
    at, as_ = (t - SIGMA_MIN) ** 2 + var, (s - SIGMA_MIN) ** 2 + var
    ratio, slope = torch.sqrt(as_ / at), (t - SIGMA_MIN) / at           # sqrt(as_/at) and its slope in s, at s = t
    C_skip, D_skip = {'euler': (s / t, 0 * t),
                      'variance': (ratio, 1 - t * slope),
                      'mixed': ((s + ratio) / (t + 1), 1 - t / (t + 1) * (1 + slope))}[outer]
    return C_skip, 1 - s / t, D_skip


def weight(name, t, s=None, m=1.0):
    """Loss weight of a time, by the authors' names; 'sq-t-inverse' is the square root of t all the same."""
    snr = 1 / (t * t)
    if name == 'snr+1':
        return snr + 1
    if name == 'karras':
        return snr + 1 / SIGMA_DATA ** 2
    if name == 'karras_weight':
        return (t * t + SIGMA_DATA ** 2) / (t * SIGMA_DATA) ** 2
    if name == 'truncated-snr':
        return torch.clamp(snr, min=1)
    if name == 'uniform_g':
        return (1 - s / t) ** -m
    return {'snr': snr, 'uniform': torch.ones_like(t), 'sq-t-inverse': torch.sqrt(t)}[name]


def law_of_h(M, m):
    """P(h), h = 1..M grid steps from t to u, proportional to h^m; m = 0 is uniform."""
    p = torch.arange(1, M + 1, dtype=torch.float64) ** m
    return p / p.sum()


def law_of_tus(N, M, m):
    """P(index of t, u, s) [N,N,N]: h by law_of_h, t uniform among those with u = t + h on the grid, s uniform in u..N-1."""
    p = torch.zeros(N, N, N, dtype=torch.float64)
    for h, p_h in enumerate(law_of_h(M, m).tolist(), 1):
        for i in range(N - h):
            for j in range(i + h, N):
                p[i, i + h, j] += p_h / (N - h) / (N - i - h)
    return p


def dsm_sigmas(normals, uniforms):
    """First half log-normal as EDM trains, second half on the upper 70 % of the grid's indices."""
    a, b = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    return torch.cat([torch.exp(-1.2 + 1.2 * normals), (a + 0.7 * uniforms * (b - a)) ** RHO], -1)


# ---------------------------------------------------------------- denoiser and jump

def evaluate(net, x, t, s, inner='edm', outer='euler'):
    """(g, D, G) at (x, t, s). D is what makes dG/ds at s = t equal (x - D)/t; it means E[x_0|x_t] only where s = t."""
    F = net(col(c_in(t)) * x, torch.log(t) / 4, torch.log(s) / 4)
    c_skip, c_out = inner_scalings(t, inner)
    g = col(c_skip) * x + col(c_out) * F
    C_skip, C_out, D_skip = outer_scalings(t, s, outer)
    return g, g + col(D_skip) * x, col(C_skip) * x + col(C_out) * g


def jump(net, x, t, s):
    """G(x,t,s) = (s/t) x + (1 - s/t) g(x,t,s)."""
    return evaluate(net, x, t, s)[2]


def denoise(net, x, t):
    """g(x,t,t), the CTM as a denoiser."""
    return evaluate(net, x, t, t)[0]


def teacher_denoise(net, x, t):
    """D_phi: the same inner form, a network without s."""
    c_skip, c_out = inner_scalings(t, 'edm')
    return col(c_skip) * x + col(c_out) * net(col(c_in(t)) * x, torch.log(t) / 4)


def score_of(D, x, t):
    return (D - x) / col(t * t)


def mixture(x, t, means, stds, weights):
    """Isotropic Gaussian mixture plus noise of std t: (E[x_0|x_t], log density of x_t, its gradient).
    stds = 0 is a set of points: the exact denoiser of a data set."""
    var = col(t * t) + stds ** 2                                            # [B,K]
    diff = means - x[:, None]                                               # [B,K,D]
    log_p = (torch.log(weights) - (diff ** 2).sum(2) / (2 * var)
             - x.shape[1] / 2 * torch.log(2 * math.pi * var))
    r = torch.softmax(log_p, 1)[:, :, None]
    kept = (stds ** 2 / var)[:, :, None]                                    # share of x - m_k that is data
    D = (r * (means - kept * diff)).sum(1)
    return D, torch.logsumexp(log_p, 1), (r * diff / var[:, :, None]).sum(1)


# ---------------------------------------------------------------- solver of dx/dt = (x - D(x,t))/t

def ode_step(D, x, t, r, heun=True):
    """One step from times t to r <= t: Euler, or Heun's trapezoid."""
    d = (x - D(x, t)) / col(t)
    y = x + col(r - t) * d
    return x + col(r - t) * (d + (y - D(y, r)) / col(r)) / 2 if heun else y


@torch.no_grad()
def solver(D, x, i, k, N, substeps=1, heun=True):
    """Solver(x_t, t -> u): k grid intervals down from index i (both [B]), each cut into equal pieces of the index."""
    for j in range(int(k.max()) * substeps):
        a, b = ((i.double() + (j + e) / substeps).clamp(max=N - 1) for e in (0, 1))
        y = ode_step(D, x, grid_time(a, N).to(x.dtype), grid_time(b, N).to(x.dtype), heun)
        x = torch.where(col(j < k * substeps), y, x)
    return x


# ---------------------------------------------------------------- losses

def distance(name, a, b):
    """Per sample [B]."""
    d = a - b
    return {'l2': lambda: (d ** 2).mean(1), 'l1': lambda: d.abs().mean(1),
            'huber': lambda: torch.sqrt((d ** 2).sum(1) + 0.03 ** 2) - 0.03}[name]()


def ctm_loss(model, ema, teacher, b, role, match, dist, N, substeps=1):
    """L_CTM and all it is made of. b: x0, noise, ind_t, ind_u, ind_s.

    role:  soft    u anywhere, the target's inner jump by the current weights (the authors' code);
           paper   the target's inner jump by the EMA weights;
           local   soft with u one grid step below t;
           global  s = u: the target is the solver's own point, no inner jump.
    match: zero    both sides carried to sigma_min by the EMA network: its weights are frozen, gradient passes through;
           s       compared where they are, each scaled by sigma_data / sqrt(s^2 + sigma_data^2);
           half    half the one plus half the other.
    """
    x0 = b['x0']
    t, u, s = (grid_time(b['ind_' + n].double(), N).to(x0.dtype) for n in 'tus')
    x_t = x0 + col(t) * b['noise']
    est_s = jump(model, x_t, t, s)
    with torch.no_grad():
        x_u = solver(partial(teacher_denoise, teacher), x_t, b['ind_t'], b['ind_u'] - b['ind_t'], N, substeps)
        target_s = x_u if role == 'global' else jump(ema if role == 'paper' else model, x_u, u, s)
    o = dict(t=t, u=u, s=s, x_t=x_t, x_u=x_u, est_s=est_s, target_s=target_s)
    loss = []
    if match != 's':
        zero = torch.full_like(s, SIGMA_MIN)
        o['x_est'] = jump(ema, est_s, s, zero)
        with torch.no_grad():
            o['x_target'] = jump(ema, target_s, s, zero)
        loss.append(distance(dist, o['x_est'], o['x_target']))
    if match != 'zero':
        c = col(SIGMA_DATA * c_in(s))
        loss.append(distance(dist, c * est_s, c * target_s))
    return dict(o, loss=sum(loss) / len(loss))


def dsm_loss(model, x0, sigma, noise, target=None):
    """Per sample: karras weight * mean (g(x,t,t) - x_0)^2; a target D(x,t) in place of x_0 is regression on a denoiser."""
    x = x0 + col(sigma) * noise
    y = x0 if target is None else target(x, sigma)
    return weight('karras', sigma) * ((denoise(model, x, sigma) - y) ** 2).mean(1)


def grad(y, xs):
    return torch.autograd.grad(y, xs, retain_graph=True)


def adaptive_weight(L_ctm, L_dsm, W):
    """lambda_DSM = |grad_W L_CTM| / (|grad_W L_DSM| + 1e-4), clamped to [0, 1e4]; a constant."""
    a, b = (grad(L, [W])[0].norm() for L in (L_ctm, L_dsm))
    return (a / (b + 1e-4)).clamp(0, 1e4)


def losses(model, ema, teacher, b, role='soft', match='zero', dist='l2', N=18, substeps=1):
    o = ctm_loss(model, ema, teacher, b, role, match, dist, N, substeps)
    o['ctm'] = o['loss'].mean()
    o['dsm_loss'] = dsm_loss(model, b['x0'], b['dsm_sigma'], b['dsm_noise'])
    o['dsm'] = o['dsm_loss'].mean()
    o['lambda_dsm'] = adaptive_weight(o['ctm'], o['dsm'], model.w['out.weight'])
    o['total'] = o['ctm'] + o['lambda_dsm'] * o['dsm']
    return o


# ---------------------------------------------------------------- samplers (ts: decreasing times)
# G(x,t,s) and D(x,t) take times [B], so partial(jump, net) and partial(denoise, net) fit.

def full(x, t):
    return x.new_full((len(x),), float(t))


def landing(t_next, gamma, shifted):
    """Where a jump towards t_next lands: sqrt(1 - gamma^2) t', never below sigma_min, or the authors' shifted form."""
    keep = math.sqrt(1 - gamma ** 2)
    if shifted:
        return SIGMA_MIN + keep * (t_next - SIGMA_MIN)
    return max(SIGMA_MIN, keep * t_next)


@torch.no_grad()
def gamma_sampler(G, x, ts, gamma, noise, shifted=False):
    """Jump below the next time, then diffuse up to it with std sqrt(t'^2 - s^2), which is gamma t' in the paper's form
    when s > sigma_min. gamma 0: no noise; gamma 1: the consistency model's sampler. The last jump ends at ts[-1]."""
    t = ts[0]
    for t_next, z in zip(ts[1:-1], noise):
        s = landing(t_next, gamma, shifted)
        x = G(x, full(x, t), full(x, s)) + math.sqrt(t_next ** 2 - s ** 2) * z
        t = t_next
    return G(x, full(x, t), full(x, ts[-1]))


@torch.no_grad()
def cm_sampler(G, x, ts, noise):
    """Always jump to sigma_min, then diffuse up to the next time."""
    zero = full(x, SIGMA_MIN)
    x = G(x, full(x, ts[0]), zero)
    for t, z in zip(ts[1:-1], noise):
        x = G(x + math.sqrt(t ** 2 - SIGMA_MIN ** 2) * z, full(x, t), zero)
    return x


@torch.no_grad()
def ode_sampler(D, x, ts, heun=True):
    """Heun or Euler on the denoiser; a step that ends at 0 is Euler's in both."""
    for t, r in zip(ts[:-1], ts[1:]):
        x = ode_step(D, x, full(x, t), full(x, r), heun and r > 0)
    return x


# ---------------------------------------------------------------- two-step, steps on the score (noise: a list, one for each step)

@torch.no_grad()
def two_step_sampler(G, x, t0, t1, t2, z):
    x = G(x, full(x, t0), full(x, t1)) + math.sqrt(t2 ** 2 - t1 ** 2) * z
    return G(x, full(x, t2), full(x, SIGMA_MIN))


@torch.no_grad()
def score_sampler(D, x, ts, method, noise, S_churn=0.0, S_min=0.0, S_max=1e30, S_noise=1.0):
    """EDM's churn before each step of heun, dpm2, ddim; ancestral has its own noise, after the step."""
    for t, r, z in zip(ts[:-1], ts[1:], noise):
        if method == 'ancestral':
            down = r * r / t
            x = ode_step(D, x, full(x, t), full(x, down), False) + math.sqrt(r * r - down * down) * z
            continue
        grow = 1 + min(S_churn / (len(ts) - 1), math.sqrt(2) - 1) if S_min <= t <= S_max else 1.0
        x = x + S_noise * t * math.sqrt(grow ** 2 - 1) * z
        t = t * grow
        if method == 'dpm2':
            mid = (t ** (1 / 3) / 2 + r ** (1 / 3) / 2) ** 3
            y = ode_step(D, x, full(x, t), full(x, mid), False)
            x = x + (r - t) * (y - D(y, full(x, mid))) / mid
        elif method == 'ddim':
            x = r / t * x + (1 - r / t) * D(x, full(x, t))
        else:
            x = ode_step(D, x, full(x, t), full(x, r), method == 'heun' and r > 0)
    return x


# ---------------------------------------------------------------- editing and guidance (noise: an iterator, in the order drawn)

@torch.no_grad()
def edit_sampler(G, put, ref, x, ts, gamma, noise, authors=False, clamp=None):
    """put(x0, ref) replaces what is known in x0. Paper's form: gamma-sampling, the known part noised from sigma_min to s. Authors' form:
    shifted s, known part noised by s (clean when gamma = 1), noise gamma t' (sqrt(t'^2 - sigma_min^2) when gamma = 1) at the end too."""
    t = ts[0]
    for j, r in enumerate(ts[1:]):
        last = j == len(ts) - 2
        s = landing(r, gamma, authors) if authors or not last else r
        x = G(x, full(x, t), full(x, s))
        if clamp and gamma == 1:
            x = x.clamp(-clamp, clamp)
        known = 0.0 if authors and gamma == 1 else s if authors else math.sqrt(s * s - SIGMA_MIN ** 2)
        x = put(x, ref + known * next(noise) if known > 0 else ref)
        std = gamma * r if authors and gamma < 1 else math.sqrt(max(r * r - s * s, 0)) if gamma > 0 else 0
        if std > 0:
            x = x + std * next(noise)
        t = r
    return x


@torch.no_grad()
def guided_sampler(G, loss, x, ts, gamma, noise, scale, steps, D=None, snr=0.1):
    """gamma-sampling; at every intermediate s, steps of x - scale s grad, or Langevin steps with the score of D."""
    t = ts[0]
    for j, r in enumerate(ts[1:]):
        s = landing(r, gamma, False) if j < len(ts) - 2 else r
        x = G(x, full(x, t), full(x, s))
        for _ in range(steps if j < len(ts) - 2 else 0):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                g, = torch.autograd.grad(loss(leaf), leaf)
            if D is None:
                x = x - scale * s * g
                continue
            v = score_of(D(x, full(x, s)), x, full(x, s))
            v = v - scale * col(v.norm(dim=1) / g.norm(dim=1)) * g
            z = next(noise)
            h = 2 * (snr * z.norm(dim=1).mean() / v.norm(dim=1).mean()) ** 2
            x = x + h * v + torch.sqrt(2 * h) * z
        if s < r:
            x = x + math.sqrt(r * r - s * s) * next(noise)
        t = r
    return x


# ---------------------------------------------------------------- likelihood

def drift(D, x, t, probe=None):
    """f = (x - D)/t and div f = sum_j e_j^T (df/dx) e_j over unit vectors e_j, or that term for a single +-1 probe."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        f = (x - D(x, full(x, t))) / t
        probes = [probe] if probe is not None else [e.expand_as(x) for e in torch.eye(x.shape[1], dtype=x.dtype)]
        terms = [(torch.autograd.grad(f, x, e, retain_graph=True)[0] * e).sum(1) for e in probes]
    return f.detach(), sum(terms)


def ode_log_likelihood(D, x, ts, probe=None):
    """(log p(x), x at ts[-1]) along ascending times: Heun on x and on the divergence, prior N(0, ts[-1]^2)."""
    log_det = torch.zeros(len(x), dtype=x.dtype)
    for t, r in zip(ts[:-1], ts[1:]):
        f, div = drift(D, x, t, probe)
        f_end, div_end = drift(D, x + (r - t) * f, r, probe)
        x = x + (r - t) / 2 * (f + f_end)
        log_det = log_det + (r - t) / 2 * (div + div_end)
    T = torch.tensor(ts[-1], dtype=x.dtype)
    prior = torch.distributions.Normal(0 * T, T).log_prob(x).sum(1)
    return prior + log_det, x


def elbo(D, x0, u, z, z_residual, probe, authors=False):
    """One draw's estimate of the bound of log p(x0), in nats [B]; u [B] in (0,1), probe +-1. The first term is the expectation
    over its noise. authors: the residual at q^(1/rho) instead of q."""
    n = x0.shape[1]
    q = float(grid_time(torch.tensor(999.0, dtype=torch.float64), 1001))
    Z = 2 * math.log(SIGMA_MAX / q)
    sigma = q * (SIGMA_MAX / q) ** u
    with torch.enable_grad():
        x = (x0 + col(sigma) * z).detach().requires_grad_()
        drift_term = D(x, sigma) - x                                        # sigma^2 times the score
        div = (torch.autograd.grad(drift_term, x, probe)[0] * probe).sum(1)
    integrand = div + ((drift_term.detach() / col(sigma)) ** 2).sum(1) / 2
    prior = -n / 2 * (math.log(2 * math.pi * SIGMA_MAX ** 2) + 1) - (x0 ** 2).sum(1) / (2 * SIGMA_MAX ** 2)
    r = q ** (1 / RHO) if authors else q
    back = D(x0 + r * z_residual, full(x0, r)).detach()
    return prior - Z * integrand - (((x0 - back) ** 2).sum(1) / (2 * r * r) - n / 2)


# ---------------------------------------------------------------- optimisers

class Adam:
    """Adam, or RAdam (rectified: plain momentum until the variance estimate can be trusted, the 6th step here)."""

    def __init__(self, params, lr, rectified=False, betas=(0.9, 0.999), eps=1e-8):
        self.params, self.lr, self.rectified, self.betas, self.eps, self.step_count = params, lr, rectified, betas, eps, 0
        self.m, self.v = ([torch.zeros_like(p) for p in params] for _ in range(2))

    @torch.no_grad()
    def step(self, grads):
        self.step_count += 1
        (b1, b2), k = self.betas, self.step_count
        rho_inf = 2 / (1 - b2) - 1
        rho = rho_inf - 2 * k * b2 ** k / (1 - b2 ** k)
        for p, g, m, v in zip(self.params, grads, self.m, self.v):
            m.mul_(b1).add_((1 - b1) * g)
            v.mul_(b2).add_((1 - b2) * g * g)
            m_hat = m / (1 - b1 ** k)
            if not self.rectified:
                p -= self.lr * m_hat / (torch.sqrt(v) / math.sqrt(1 - b2 ** k) + self.eps)
            elif rho <= 5:
                p -= self.lr * m_hat
            else:       # PyTorch adds eps before the bias correction here, after it in Adam
                r = math.sqrt((rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho))
                p -= self.lr * r * m_hat * math.sqrt(1 - b2 ** k) / (torch.sqrt(v) + self.eps)


@torch.no_grad()
def ema_update(average, params, rate):
    for a, p in zip(average, params):
        a.mul_(rate).add_((1 - rate) * p)


def train_step(model, ema, teacher, optimizer, b, rate):
    """One step of distillation: soft matching at time zero, L2, adaptive DSM weight; then the EMA."""
    o = losses(model, ema, teacher, b)
    optimizer.step(grad(o['total'], list(model.w.values())))
    ema_update(ema.w.values(), model.w.values(), rate)
    return o


# ================================================================ training: teachers, adversary, labels
# (what the files forms, gan and label are made of)

GAN = 'hinge', 'log', 'minimax'
FORMS = 'self_solve', 'self_jump', 'self_each', 'ct', 'cd', 'outer_online', 'variance', 'mixed'


def jump_in(net, x, t, s, outer):
    """G with another outer form."""
    return evaluate(net, x, t, s, 'edm', outer)[2]


@torch.no_grad()
def point_at_u(form, teacher, ema, b, x_t, N):
    """x_u by whoever teaches: a network without s; the EMA by its ODE, one jump, or one jump per grid step; or the data."""
    i, k = b['ind_t'], b['ind_u'] - b['ind_t']
    level = lambda j: grid_time(torch.minimum(i + j, b['ind_u']).double(), N).to(x_t.dtype)
    if form == 'ct':
        return b['x0'] + col(level(k)) * b['noise']
    if form == 'self_jump':
        return jump(ema, x_t, level(0), level(k))
    if form == 'self_each':
        for j in range(int(k.max())):
            moved = jump(ema, x_t, level(j), level(j + 1))
            x_t = torch.where(col(j < k), moved, x_t)
        return x_t
    D = partial(denoise, ema) if form == 'self_solve' else partial(teacher_denoise, teacher)
    return solver(D, x_t, i, k, N)


def form_loss(form, model, ema, teacher, b, N):
    """L2 at time zero; what differs is who teaches, who transports, the outer form. cd and ct: the EMA is the inner target."""
    outer = form if form in ('variance', 'mixed') else 'euler'
    G = partial(jump_in, outer=outer)
    x0 = b['x0']
    t, u, s = (grid_time(b['ind_' + n].double(), N).to(x0.dtype) for n in 'tus')
    zero = torch.full_like(s, SIGMA_MIN)
    x_t = x0 + col(t) * b['noise']
    x_u = point_at_u(form, teacher, ema, b, x_t, N)
    x_est = G(model if form == 'outer_online' else ema, G(model, x_t, t, s), s, zero)
    with torch.no_grad():
        x_target = G(ema, G(ema if form in ('cd', 'ct') else model, x_u, u, s), s, zero)
    return dict(x_u=x_u, x_est=x_est, x_target=x_target, loss=distance('l2', x_est, x_target)), t, s


def logits(disc, x):
    """x / sigma_data through SiLU layers to one logit a row."""
    h = x / SIGMA_DATA
    for l in range(sum(n.startswith('critic.') and n.endswith('.weight') for n in disc.w)):
        h = silu(disc.linear(f'critic.{l}', h))
    return disc.linear('logit', h)


def gan_student(kind, fake):
    return {'hinge': lambda: -fake, 'log': lambda: -torch.log(torch.sigmoid(fake)),
            'minimax': lambda: torch.log(1 - torch.sigmoid(fake))}[kind]().mean()


def gan_disc(kind, real, fake):
    if kind == 'hinge':
        return torch.clamp(1 - real, min=0).mean() + torch.clamp(1 + fake, min=0).mean()
    return -torch.log(torch.sigmoid(real)).mean() - torch.log(1 - torch.sigmoid(fake)).mean()


def film_labelled(net, x, z_t, z_s):
    """film, with a row of map_label added to the embedding of every row that has a label (not -1)."""
    e = net.linear('map_t', film_features(z_t)) + net.linear('map_s', film_features(z_s))
    known = net.labels >= 0
    e = e + col(known.to(e.dtype)) * net.w['map_label.weight'].T[net.labels.clamp(min=0)]
    modulation = net.linear('film', silu(e)).chunk(2 * net.depth, 1)
    h = x
    for l in range(net.depth):
        h = silu((1 + modulation[2 * l]) * net.linear(f'layers.{l}', h) + modulation[2 * l + 1])
    return net.linear('out', h)


class Labelled(Net):
    """The film network with labels: the same weights serve any labels."""

    def __init__(self, w, labels):
        self.w, self.forward, self.labels = w, film_labelled, labels


def guided(fn, w, labels, weight_, *args):
    """Classifier-free guidance of g, G or D: without labels + weight (with - without)."""
    free = fn(Labelled(w, torch.full_like(labels, -1)), *args)
    return free + weight_ * (fn(Labelled(w, labels), *args) - free)
