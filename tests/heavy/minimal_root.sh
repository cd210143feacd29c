#!/usr/bin/env bash
# Runs the commands of the README in a Debian root with python3, python3-venv, make and ca-certificates alone.
#   minimal_root.sh [DIRECTORY] [COMMAND…]        default: /var/tmp/inferd-minimal-root, "make demo" and "make test"
# Needs root and debootstrap. The root is built once and kept; the work tree is copied anew. The network is used as this
# machine uses it: its name servers, its certificates, and the settings of proxies and pip.
set -euo pipefail

root=${1:-/var/tmp/inferd-minimal-root}
commands=("${@:2}")
[ ${#commands[@]} -gt 0 ] || commands=("make demo" "make test")
suite=${MINIMAL_ROOT_SUITE:-bookworm}
minutes=${MINIMAL_ROOT_MINUTES:-90}
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

command -v debootstrap >/dev/null || { echo "debootstrap is missing: apt-get install debootstrap" >&2; exit 2; }
[ "$(id -u)" = 0 ] || { echo "only root can build and enter such a root" >&2; exit 2; }

if [ ! -e "$root/.built" ]; then
    echo "building a root of $suite in $root"
    rm -rf "$root"
    debootstrap --variant=minbase --include=python3,python3-venv,make,ca-certificates "$suite" "$root" >/dev/null
    touch "$root/.built"
fi

leave() { for place in proc dev; do mountpoint -q "$root/$place" && umount -l "$root/$place"; done; }
trap leave EXIT
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --make-rslave "$root/dev"

cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
[ ! -e /etc/pip.conf ] || cp -L /etc/pip.conf "$root/etc/"
settings=()
while IFS= read -r -d '' variable; do
    case $variable in
        PIP_FIND_LINKS=*) ;;
        PIP_*=*|*_proxy=*|*_PROXY=*|*_CA_BUNDLE=*|SSL_CERT_*=*) settings+=("$variable") ;;
    esac
done < <(env -0)

rm -rf "$root/home/tree" "$root/home/empty"
mkdir -p "$root/home/tree" "$root/home/empty"
git -C "$source" ls-files -z | tar -C "$source" --null --files-from=- -cf - | tar -C "$root/home/tree" -xf -

for command in "${commands[@]}"; do
    echo "== $command"
    timeout "${minutes}m" chroot "$root" /usr/bin/env -i "${settings[@]}" HOME=/home/empty LANG=C.UTF-8 \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin sh -c "cd /home/tree && $command"
done
