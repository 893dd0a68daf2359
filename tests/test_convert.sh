#!/bin/sh
# apps/to_safetensors.py: files as the authors of CTM and of EDM write them, made here, must load in ctm.h with the same numbers;
# a pickle that calls a function must not get it called. Skipped without PyTorch.
# usage: sh tests/test_convert.sh       (after make)
cd "$(dirname "$0")/.." || exit 1
python=${PYTHON:-/usr/bin/python3}
if ! "$python" -c 'import torch' 2>/dev/null; then
    echo "skip convert: there is no PyTorch here"
    echo "convert: 0 passed, 0 failed, 1 skipped"
    exit 0
fi
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
passed=0 failed=0
ok()   { passed=$((passed + 1)); }
fail() { failed=$((failed + 1)); echo "FAIL convert: $*"; sed 's/^/     /' "$tmp/log" | head -n 5; }
must() { what=$1; shift; if "$@" >"$tmp/log" 2>&1; then ok; else fail "$what"; fi; }
# PyTorch takes seconds to wake up, so all conversions are made in one process: a line each of status, text of the message, arguments.
cat >"$tmp/all.py" <<'END'
import contextlib, io, os, sys
sys.dont_write_bytecode = True
sys.path.insert(0, 'apps')
import to_safetensors
for line in sys.stdin:
    status, text, *args = line.rstrip('\n').split('|')
    said, target = io.StringIO(), args[-1]
    sys.argv = ['to_safetensors.py'] + args
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            got = to_safetensors.main()
        except SystemExit as e:
            got = e.code
    said = said.getvalue()
    lines = said.count('\n')
    good = got == int(status) and text in said and not os.path.exists(target + '.tmp') and (got == 2 or (lines == 1 and os.path.exists(target) == (got == 0)))
    print('ok' if good else f'FAIL convert: {line.strip()}: status {got}: {said.strip()}')
END

# ---- sources, from the golden networks' weights; and what the results should hold
cat >"$tmp/make.py" <<'END'
import collections, json, os, pickle, sys, types
import numpy as np
import torch
out = sys.argv[1]

def golden(name, prefix):
    with open(f'tests/golden/{name}.safetensors', 'rb') as f:
        header = json.loads(f.read(int.from_bytes(f.read(8), 'little')))
        data = f.read()
    return {k[len(prefix):]: torch.tensor(np.frombuffer(data[slice(*v['data_offsets'])], '<f4').reshape(v['shape']).copy())
            for k, v in header.items() if k.startswith(prefix) and k != '__metadata__'}

def extras(w):
    name = next(k for k in w if k.endswith('_block0.conv0.weight'))
    return {**w, name.replace('weight', 'resample_filter'): torch.ones(1, 1, 2, 2), 'map_augment.weight': torch.ones(4, 9)}

student, teacher = golden('unet', 'w.net.'), golden('unet_teacher', 'w.net.')
torch.save({'model.' + k: v for k, v in extras(student).items()}, out + '/student.pt')
torch.save({'module.model.' + k: v.double() for k, v in student.items()}, out + '/old.pt', _use_new_zipfile_serialization=False)
torch.save({'a.weight': torch.ones(2)}, out + '/other.pt')
torch.save({**student, 'model.map_layer0.weight': student['map_layer0.weight']}, out + '/twice.pt')
torch.save({**student, 'map_layer0.bias': student['map_layer0.bias'] / 0}, out + '/inf.pt')
torch.save([1, 2], out + '/list.pt')

# A pickle as EDM's torch_utils.persistence writes it: modules within modules, as {source text, class, attributes}.
persistence = types.ModuleType('torch_utils.persistence')
exec('def _reconstruct_persistent_obj(meta): raise Exception("foreign code was called")', persistence.__dict__)
persistence._reconstruct_persistent_obj.__module__ = 'torch_utils.persistence'
sys.modules['torch_utils'] = types.ModuleType('torch_utils')
sys.modules['torch_utils.persistence'] = persistence
edm = types.ModuleType('edm_things')
exec('class EasyDict(dict): pass\nclass Loss: pass', edm.__dict__)
edm.EasyDict.__module__ = edm.Loss.__module__ = 'edm_things'
sys.modules['edm_things'] = edm

class Persistent(torch.nn.Module):
    def __reduce__(self):
        return persistence._reconstruct_persistent_obj, (dict(type='class', version=6, module_src='raise Exception("foreign code was run")', class_name='X', state=self.__dict__),)

def tree(w):
    root = Persistent()
    for name, value in w.items():
        at, parts = root, name.split('.')
        if parts[0] in ('enc', 'dec'):                     # EDM's names of blocks are keys of a ModuleDict
            parts = [parts[0]] + parts[1:]
        for p in parts[:-1]:
            if p not in at._modules:
                at._modules[p] = torch.nn.ModuleDict() if p in ('enc', 'dec') else Persistent()
            at = at._modules[p]
        if parts[-1] == 'resample_filter':
            at.register_buffer(parts[-1], value)
        else:
            at.register_parameter(parts[-1], torch.nn.Parameter(value))
    return root

net = Persistent()
net._modules['model'] = tree(extras(teacher))
net.sigma_max, net.anything = float('inf'), np.arange(3)
loss = edm.Loss()
loss.P_mean = -1.2
with open(out + '/edm.pkl', 'wb') as f:
    pickle.dump(dict(ema=net, loss_fn=loss, augment_pipe=None, dataset_kwargs=edm.EasyDict(path='x', xflip=True)), f)

class Evil:
    def __reduce__(self):
        return os.system, (f'touch {out}/called',)
with open(out + '/evil.pkl', 'wb') as f:
    pickle.dump(dict(ema=Evil()), f)
with open(out + '/evil_storage.pkl', 'wb') as f:
    class Inner:
        def __reduce__(self):
            return torch.storage._load_from_bytes, (pickle.dumps(Evil()),)
    pickle.dump(dict(ema=Inner()), f)
torch.save({'a': Evil()}, out + '/evil.pt')
torch.save({'a': Evil()}, out + '/evil_old.pt', _use_new_zipfile_serialization=False)

lpips = golden('lpips_weights', '')
torch.save({**{k: v for k, v in lpips.items() if k.startswith('features.')}, 'classifier.0.bias': torch.ones(3)}, out + '/vgg.pth')
torch.save({k: v for k, v in lpips.items() if k.startswith('lin')}, out + '/lin.pth')
torch.save([lpips[f'lin{l}.model.1.weight'] for l in range(5)], out + '/lin_list.pth')
END

# What came out, as ctm.h reads it: every parameter against the golden file, and the network of the right kind.
cat >"$tmp/compare.c" <<'END'
#define CTM_IMPLEMENTATION
#include "ctm.h"
int main(int argc, char **argv) {               // compare CONVERTED GOLDEN PREFIX, or compare lpips CONVERTED
    ctm_ctx ctx;
    ctm_arena a;
    ctm_init(&ctx);
    ctm_arena_init(&a, &ctx, "compare");
    if (argc == 3) {
        if (!ctm_lpips_load(&a, argv[2], 32, 3)) puts(ctm_error(&ctx));
        return ctx.error[0] != 0;
    }
    ctm_config cfg;
    ctm_net *net = ctm_load(&a, argv[1], &cfg);
    ctm_file *golden = ctm_file_read(&a, argv[2]);
    if (!net || !golden) { puts(ctm_error(&ctx)); return 1; }
    ctm_net *want = ctm_net_clone(&a, net);
    memset(want->theta, 0, want->len * sizeof *want->theta);
    if (!ctm_net_read(want, golden, argv[3])) { puts(ctm_error(&ctx)); return 1; }
    if (memcmp(net->theta, want->theta, net->len * sizeof *net->theta) != 0) { puts("other numbers"); return 1; }
    printf("%d x %d x %d, with_s %d\n", net->size, net->size, net->channels, net->with_s);
    return 0;
}
END

must "the sources could not be made" "$python" "$tmp/make.py" "$tmp"
must "compare.c" ${CC:-cc} -O0 -I. "$tmp/compare.c" -o "$tmp/compare" -lm
echo "this is text" >"$tmp/text.pt"
head -c 3000 "$tmp/student.pt" >"$tmp/short.pt"
sed "s|@|$tmp/|g" >"$tmp/cases" <<'END'
0|a CTM, 8 x 8 x 3, 3 classes|@student.pt|@student.safetensors
0|a CTM, 8 x 8 x 3, 3 classes|@old.pt|@old.safetensors
0|a teacher (no s), 8 x 8 x 1|@edm.pkl|@edm.safetensors
0|five features|--lpips|@vgg.pth|@lin.pth|@lpips.safetensors
0|five features|--lpips|@vgg.pth|@lin_list.pth|@list.safetensors
1|no_such.pt: No such file|@no_such.pt|@none
1|not the U-Net|@other.pt|@none
1|two tensors are called "map_layer0.weight"|@twice.pt|@none
1|"map_layer0.bias" holds a number that is not finite|@inf.pt|@none
1|list.pt: holds no state dict|@list.pt|@none
1|text.pt: is neither a state dict|@text.pt|@none
1|short.pt: is neither a state dict|@short.pt|@none
1|evil.pkl|@evil.pkl|@none
1|evil_storage.pkl|@evil_storage.pkl|@none
1|evil.pt|@evil.pt|@none
1|evil_old.pt|@evil_old.pt|@none
1|so it is not torchvision's vgg16|--lpips|@student.pt|@lin.pth|@none
1|no tensor "lin0.model.1.weight"|--lpips|@vgg.pth|@vgg.pth|@none
1|No such file or directory|@student.pt|@no/such/folder
2|two files were expected|@student.pt
2|three files were expected|--lpips|@student.pt|@none
END
"$python" "$tmp/all.py" <"$tmp/cases" >"$tmp/verdicts" 2>&1
passed=$((passed + $(grep -c '^ok$' "$tmp/verdicts")))
failed=$((failed + $(wc -l <"$tmp/cases") - $(grep -c '^ok$' "$tmp/verdicts")))
grep -v '^ok$' "$tmp/verdicts"
must "code from a file was run" test ! -e "$tmp/called"
must "the student's numbers" "$tmp/compare" "$tmp/student.safetensors" tests/golden/unet.safetensors w.net.
must "the same from the older format, two prefixes, doubles" "$tmp/compare" "$tmp/old.safetensors" tests/golden/unet.safetensors w.net.
must "the teacher's numbers" "$tmp/compare" "$tmp/edm.safetensors" tests/golden/unet_teacher.safetensors w.net.
must "extras must be left out" sh -c '! grep -aq -e resample_filter -e map_augment "$1" "$2"' sh "$tmp/edm.safetensors" "$tmp/student.safetensors"
must "ctm_lpips_load" "$tmp/compare" lpips "$tmp/lpips.safetensors"
must "both forms of LPIPS give one file" cmp "$tmp/lpips.safetensors" "$tmp/list.safetensors"
echo "convert: $passed passed, $failed failed, 0 skipped"
test "$failed" = 0
