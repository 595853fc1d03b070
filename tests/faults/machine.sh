#!/bin/bash
# Become a machine of its own within new namespaces, and serve ssh: NAME SSHD_CONFIG SKELETON KEPT...
# The folders KEPT stay where they are though /tmp is empty; SKELETON is what root's home begins as.
set -eu
name=$1 config=$2 skeleton=$3
shift 3

hostname "$name"
ip link set lo up
mount -t tmpfs tmpfs /mnt
mkdir /mnt/tmp
mount --bind /tmp /mnt/tmp
for empty in /tmp /home /run /dev/shm; do mount -t tmpfs tmpfs $empty; done
for kept; do
    case $kept in /tmp/*) mkdir -p "$kept" && mount --bind "/mnt$kept" "$kept" ;; esac
done
mkdir /run/sshd
cp -r "$skeleton" /home/igq
chmod -R go= /home/igq
sed 's,^root:.*,root:x:0:0::/home/igq:/bin/bash,' /etc/passwd >/mnt/passwd
printf '127.0.0.1 localhost %s\n' "$name" >/mnt/hosts
for file in passwd hosts; do mount --bind /mnt/$file /etc/$file; done
exec /usr/sbin/sshd -D -e -f "$config"
