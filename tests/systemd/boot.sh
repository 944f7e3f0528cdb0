#!/bin/bash
# The first process of fresh namespaces, until it becomes systemd: `boot.sh SHARED FOLDER...`.
#
# Whatever systemd and its units write to is covered before systemd starts; the rest of the machine is read-only here.
# Each FOLDER stays visible at its own path, read-only; SHARED/etc is laid over a copy of /etc, SHARED/var over /var.
set -euo pipefail
shared=$1
shift

mount --make-rprivate /
while read -r mounted; do
    case $mounted in
        /) mount -o remount,bind,ro / ;;
        /proc | /proc/* | /sys | /sys/* | /dev | /dev/*) ;;
        *) mount -o remount,bind,ro "$mounted" 2>/dev/null || umount --recursive --lazy "$mounted" ;;
    esac
done < <(findmnt --noheadings --raw --output TARGET | xargs -0 printf %b)
# In this order: folders to keep and SHARED may lie in what is covered next.
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/kept /run/new /run/shared
mount --bind "$shared" /run/shared
kept=0
for folder; do
    mkdir /run/kept/$kept
    mount --bind "$folder" /run/kept/$kept
    kept=$((kept + 1))
done
mkdir /run/new/etc
cp -a /etc/. /run/new/etc/
rm -rf /run/new/etc/systemd
cp -r /run/shared/etc/. /run/new/etc/
mount --bind /run/new/etc /etc
for folder in /tmp /var /root /home; do
    if [ -d $folder ]; then mount -t tmpfs -o mode=755 tmpfs $folder; fi
done
chmod 1777 /tmp
mkdir -p /var/lib /var/log /var/cache /var/tmp
chmod 1777 /var/tmp
ln -s /run /var/run
cp -r /run/shared/var/. /var/
kept=0
for folder; do
    mkdir -p "$folder"
    mount --move /run/kept/$kept "$folder"
    kept=$((kept + 1))
done

# Devices of its own, so that nothing changes the machine's; no console, no kernel log.
mount -t tmpfs -o mode=755 tmpfs /run/new
for device in null zero full random urandom tty cpu_dma_latency; do
    if [ -e /dev/$device ]; then
        mknod -m "$(stat -c %a /dev/$device)" "/run/new/$device" c "0x$(stat -c %t /dev/$device)" "0x$(stat -c %T /dev/$device)"
    fi
done
mkdir -m 1777 /run/new/shm
mkdir /run/new/pts /run/new/mqueue /run/new/hugepages
ln -s /proc/self/fd /run/new/fd
mount --move /run/new /dev
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts /dev/pts
ln -s pts/ptmx /dev/ptmx

# /sys of this network namespace, and only this test's own control groups.
umount -R /sys
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for knobs in /proc/sys /proc/sysrq-trigger; do
    if [ -e $knobs ]; then
        mount --bind $knobs $knobs
        mount -o remount,bind,ro $knobs
    fi
done

systemd-sysusers
systemd-tmpfiles --create /etc/tmpfiles.d/rtqec.conf
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=rtqec-test \
    SYSTEMD_UNIT_PATH=/etc/systemd/system SYSTEMD_GENERATOR_PATH=/run/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/none \
    NOTIFY_SOCKET=/run/shared/notify \
    /lib/systemd/systemd --system --unit=multi-user.target --show-status=no --log-target=journal
