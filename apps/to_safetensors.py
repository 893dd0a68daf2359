#!/usr/bin/env python3
"""Weights that others trained, as files that ctm.h reads. Needs PyTorch.

    to_safetensors.py MODEL.pt OUT.safetensors            a checkpoint of the authors of CTM (a state dict, such as their EMA's)
    to_safetensors.py MODEL.pkl OUT.safetensors           a network of EDM (its "ema")
    to_safetensors.py --lpips VGG16.pth LPIPS.pth OUT.safetensors      torchvision's vgg16, and LPIPS's weights for it

The first two become a model for ctm_load (`images sample --weights OUT.safetensors`): tensors under the names of ctm_unet, and its
configuration, which is read off their names and shapes. Left out are resample_filter (constants) and map_augment (an input that
only training has). The third is for ctm_lpips_load.

No code from any of these files is run. A pickle is a program that may call any function of any module, so it is read by an
unpickler that knows five: those that put a tensor together from bytes, an ordered dict, a set, and the constructor of EDM's
stored objects, in whose place stands a class that only keeps their attributes. Any other class or function becomes an empty
stand-in. Hence neither EDM's sources nor a GPU are needed. Numbers become float32; one that is not finite is an error.
"""
import argparse
import collections
import io
import json
import os
import pickle
import re
import sys

DROPPED = re.compile(r'(^|\.)map_augment\.|(^|\.)resample_filter$')
PREFIX = re.compile(r'^((module|model|_orig_mod)\.)+')


class Refused(Exception):
    """The world is wrong; the text says how, in one line."""


# ---------------------------------------------------------------- reading

class Thing(dict):
    """Stands in for an object of any class: keeps what its pickle would have restored, as attributes or as a dict's entries."""

    def __init__(self, *args, **named):
        super().__init__()

    def __setstate__(self, state):
        self.__dict__.update(state if isinstance(state, dict) else {})

    def append(self, item):
        pass

    def extend(self, items):
        pass


def stored_object(meta):
    """EDM writes its networks as {source text, class name, attributes}; the attributes are all we want."""
    thing = Thing()
    thing.__setstate__(meta['state'])
    return thing


def storage(data):
    import torch
    return torch.load(io.BytesIO(data), map_location='cpu', weights_only=True)


class Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        import torch
        known = {('torch._utils', '_rebuild_tensor_v2'): torch._utils._rebuild_tensor_v2,
                 ('torch._utils', '_rebuild_parameter'): torch._utils._rebuild_parameter,
                 ('torch.storage', '_load_from_bytes'): storage,
                 ('collections', 'OrderedDict'): collections.OrderedDict,
                 ('builtins', 'set'): set,
                 ('torch_utils.persistence', '_reconstruct_persistent_obj'): stored_object}
        return known.get((module, name)) or Thing


def attribute(thing, name):
    found = getattr(thing, '__dict__', {}).get(name)
    return found if isinstance(found, dict) else {}


def tensors_of(thing, prefix=''):
    """The state dict of a module whose class is unknown."""
    for kind in '_parameters', '_buffers':
        for name, value in attribute(thing, kind).items():
            if value is not None:
                yield prefix + name, value
    for name, child in attribute(thing, '_modules').items():
        yield from tensors_of(child, f'{prefix}{name}.')


def read(path):
    """{name: tensor} of a file of either kind; the first bytes say which it is."""
    import torch
    try:
        with open(path, 'rb') as f:
            head = f.read(4)
            f.seek(0)
            if head[:2] == b'PK':
                found = torch.load(f, map_location='cpu', weights_only=True)
            else:
                try:
                    found = Unpickler(f).load()
                except (pickle.UnpicklingError, TypeError, AttributeError, KeyError, RuntimeError, EOFError):
                    found = None
                if not isinstance(found, (dict, list)) and not attribute(found, '_modules'):      # torch.save's older format: several pickles
                    f.seek(0)
                    found = torch.load(f, map_location='cpu', weights_only=True)
    except OSError as e:
        raise Refused(f'{path}: {e.strerror}')
    except Exception as e:
        raise Refused(f'{path}: is neither a state dict of PyTorch nor a pickle of EDM ({str(e).splitlines()[0] if str(e) else type(e).__name__})')
    if isinstance(found, dict) and 'ema' in found and not torch.is_tensor(found['ema']):
        found = found['ema']
    if attribute(found, '_modules'):
        found = dict(tensors_of(found))
    for key in 'state_dict', 'model':
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if isinstance(found, list):
        found = dict(enumerate(found))
    if not isinstance(found, dict) or not found or not all(torch.is_tensor(v) for v in found.values()):
        raise Refused(f'{path}: holds no state dict (names and tensors)')
    return found


# ---------------------------------------------------------------- writing

def write(path, tensors, metadata):
    """A safetensors file of float32, under its own name only when it is complete."""
    import torch
    header, at = {'__metadata__': metadata}, 0
    for name, v in tensors.items():
        if not torch.isfinite(v).all():
            raise Refused(f'"{name}" holds a number that is not finite')
        header[name] = dict(dtype='F32', shape=list(v.shape), data_offsets=[at, at + 4 * v.numel()])
        at += 4 * v.numel()
    text = json.dumps(header, separators=(',', ':')).encode('ascii')
    text += b' ' * (-len(text) % 8)
    temporary = path + '.tmp'
    try:
        with open(temporary, 'wb') as f:
            f.write(len(text).to_bytes(8, 'little') + text)
            for v in tensors.values():
                f.write(v.detach().to(torch.float32).contiguous().numpy().astype('<f4').tobytes())
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    except OSError as e:
        if os.path.exists(temporary):
            os.remove(temporary)
        raise Refused(f'{path}: {e.strerror}')


# ---------------------------------------------------------------- the U-Net

def shape(tensors, path, name):
    if name not in tensors:
        raise Refused(f'{path}: has no tensor "{name}", so it is not the U-Net (DDPM++) of ctm_unet')
    return tensors[name].shape


def configuration(tensors, path):
    """Sizes of the U-Net, from its names and shapes. Whether all of them fit is for ctm_load to say: it is strict."""
    sizes = sorted({int(m[1]) for m in (re.match(r'enc\.(\d+)x\1_', k) for k in tensors) if m}, reverse=True)
    if not sizes:
        raise Refused(f'{path}: has no tensor "enc.SIZExSIZE_conv.weight", so it is not the U-Net (DDPM++) of ctm_unet')
    width, channels, _, _ = shape(tensors, path, f'enc.{sizes[0]}x{sizes[0]}_conv.weight')
    mult = [shape(tensors, path, f'enc.{s}x{s}_block0.conv1.weight')[0] // width for s in sizes]
    blocks = len([k for k in tensors if re.match(rf'enc\.{sizes[0]}x{sizes[0]}_block\d+\.conv0\.weight$', k)])
    attention = [s for s in sizes if f'enc.{s}x{s}_block0.qkv.weight' in tensors]
    found = {'size': sizes[0], 'channels': channels, 'model_channels': width, 'num_blocks': blocks, 'dropout': 0,
             'classes': tensors['map_label.weight'].shape[1] if 'map_label.weight' in tensors else 0}
    found.update({f'channel_mult[{i}]': mult[i] if i < len(mult) else 0 for i in range(8)})
    found.update({f'attn[{i}]': attention[i] if i < len(attention) else 0 for i in range(4)})
    return found


def metadata(config, with_s):
    noise = {'noise.sigma_min': .002, 'noise.sigma_max': 80, 'noise.sigma_data': .5, 'noise.rho': 7, 'noise.N': 18, 'noise.inner': 0,
             'noise.outer': 0, 'hidden': 128, 'layers': 3, 'embed': 64}        # the last three are of networks for points
    values = {'format': 'model', 'version': '0.3.0', 'network': 'unet', 'dim': config['size'] ** 2 * config['channels'], 'with_s': int(with_s), **noise, **config}
    return {'ctm.' + k: str(v) for k, v in values.items()}


def convert(source, target):
    tensors = {}
    for name, v in read(source).items():
        short = PREFIX.sub('', str(name))
        if DROPPED.search(short):
            continue
        if short in tensors:
            raise Refused(f'{source}: two tensors are called "{short}" without their prefixes')
        tensors[short] = v
    config, with_s = configuration(tensors, source), 'map_layer0_s.weight' in tensors
    write(target, tensors, metadata(config, with_s))
    print(f'{target}: {"a CTM" if with_s else "a teacher (no s)"}, {config["size"]} x {config["size"]} x {config["channels"]}, '
          f'{config["classes"]} classes, {sum(v.numel() for v in tensors.values())} numbers')


# ---------------------------------------------------------------- LPIPS

def convert_lpips(vgg, lpips, target):
    tensors = {k: v for k, v in ((PREFIX.sub('', str(k)), v) for k, v in read(vgg).items()) if k.startswith('features.')}
    if not tensors:
        raise Refused(f'{vgg}: has no tensors "features.N.weight", so it is not torchvision\'s vgg16')
    weights = read(lpips)
    for l in range(5):
        name = f'lin{l}.model.1.weight'
        v = weights.get(name, weights.get(l))                  # some publish them as a list
        if v is None:
            raise Refused(f'{lpips}: has no tensor "{name}"')
        tensors[name] = v.reshape(1, -1, 1, 1)
    write(target, tensors, {'case': 'LPIPS with VGG16'})
    print(f'{target}: VGG16 and the weights of five features, {sum(v.numel() for v in tensors.values())} numbers')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--lpips', action='store_true', help='two sources: vgg16, and LPIPS\'s weights')
    parser.add_argument('files', nargs='+', metavar='FILE', help='source or sources, then what to write')
    args = parser.parse_args()
    if len(args.files) != (3 if args.lpips else 2):
        parser.error('three files were expected: VGG16 LPIPS OUT' if args.lpips else 'two files were expected: MODEL OUT')
    try:
        convert_lpips(*args.files) if args.lpips else convert(*args.files)
    except ImportError:
        print('to_safetensors.py: needs PyTorch (Debian: python3-torch)', file=sys.stderr)
        return 1
    except Refused as e:
        print(f'to_safetensors.py: {e}', file=sys.stderr)
        return 1
    return 0


if __name__ == '__main__':
    sys.exit(main())
