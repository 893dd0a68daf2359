#!/bin/sh
# Fetches CIFAR-10's binary version into a folder, 170 MB, and unpacks it: for you to run by hand, no test does. An interrupted
# download goes on where it stopped; a file with the wrong checksum is thrown away and the next mirror tried. If you have the file
# cifar-10-binary.tar.gz already, put it into the folder first.
# usage: sh apps/cifar10.sh [FOLDER]          then: build/images train --data FOLDER --config compact --out out/cifar
folder=${1:-out/cifar10}
name=cifar-10-binary.tar.gz
sum=c32a1d4ab5d03f1284b67883e8d87530              # md5, as the data set's page states it
mirrors="https://www.cs.toronto.edu/~kriz/$name
http://www.cs.toronto.edu/~kriz/$name
https://storage.googleapis.com/s4tf-hosted-binaries/datasets/CIFAR10/$name
https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets/$name"

checksum() {
    if command -v md5sum >/dev/null 2>&1; then md5sum "$1" | cut -d ' ' -f 1
    elif command -v md5 >/dev/null 2>&1; then md5 -q "$1"
    else openssl md5 "$1" | sed 's/.*= *//'; fi
}
good() { [ -f "$1" ] && [ "$(checksum "$1")" = $sum ]; }
fetch() {
    if command -v curl >/dev/null 2>&1; then curl -fL -C - --retry 3 --connect-timeout 20 -o "$2" "$1"
    elif command -v wget >/dev/null 2>&1; then wget -c -t 3 -T 20 -O "$2" "$1"
    else echo "cifar10: neither curl nor wget is installed; fetch $1 by hand into $folder" >&2; exit 1; fi
}

mkdir -p "$folder" || exit 1
archive=$folder/$name
if ! good "$archive"; then
    for url in $mirrors; do
        echo "cifar10: trying $url"
        fetch "$url" "$archive.part" || continue
        if good "$archive.part"; then mv "$archive.part" "$archive"; break; fi
        echo "cifar10: its checksum is $(checksum "$archive.part"), expected $sum; thrown away" >&2
        rm -f "$archive.part"
    done
fi
if ! good "$archive"; then
    echo "cifar10: no mirror gave the file; put $name (md5 $sum) into $folder and run this again" >&2
    exit 1
fi
tar -xzf "$archive" -C "$folder" && mv "$folder"/cifar-10-batches-bin/* "$folder"/ && rmdir "$folder"/cifar-10-batches-bin || exit 1
echo "cifar10: ready in $folder; now: build/images train --data $folder --config compact --out out/cifar"
