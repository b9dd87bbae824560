#!/bin/bash
# The lab's first process: makes a host of the machine, runs the command that was given, and tells its status.
set -u
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
lab=/lab

main() {
    local status=0
    set -a
    # shellcheck source=/dev/null
    . $lab/environment
    set +a
    # Among what goes along may be VMMs.
    PATH=$LAB_CHECKOUT/target/lab:$PATH
    mount_host && load_modules && bring_up_network && lay_out_assets && lay_out_checkout && cd "$LAB_CHECKOUT" || end 125
    # A session of its own, on a terminal of its own: what it prints is not mixed with the kernel's messages.
    setsid --ctty --wait bash $lab/command </dev/hvc0 >/dev/hvc0 2>&1 || status=$?
    end "$status"
}

mount_host() {
    mount -o remount,rw / &&
    mount -t sysfs sys /sys &&
    mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts --mkdir &&
    ln -sf /proc/self/fd /dev/fd &&
    mount -t tmpfs -o mode=1777 shm /dev/shm --mkdir &&
    mount -t tmpfs -o mode=755 run /run &&
    # Servers keep their data there. In large pages, which cost an emulated processor fewer faults than small ones of a disk's.
    # They want much of it free, and take little.
    mount -t tmpfs -o mode=1777,huge=always,size=100% tmp /tmp &&
    mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup &&
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
        echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
    done &&
    stty -F /dev/hvc0 -echo -onlcr
}

load_modules() {
    modprobe -a virtio_net erofs overlay loop tun veth nf_tables fuse vhost_vsock vhost_net &&
    { modprobe kvm-amd || modprobe kvm-intel; } && test -c /dev/kvm
}

bring_up_network() {
    ip link set lo up &&
    ip link set eth0 up &&
    ip address add 10.0.2.15/24 dev eth0 &&
    ip route add default via 10.0.2.2 &&
    echo 1 >/proc/sys/net/ipv4/ip_forward &&
    printf '127.0.0.1 localhost\n127.0.1.1 lab\n' >/etc/hosts &&
    hostname lab
}

# Read from a disk, written to this one.
lay_out_assets() {
    mkdir -p /run/assets /var/lib/rekindle/{assets,assets-written,assets-work} &&
    mount -t erofs -o ro /dev/vda /run/assets &&
    mount -t overlay overlay -o lowerdir=/run/assets,upperdir=/var/lib/rekindle/assets-written,workdir=/var/lib/rekindle/assets-work \
        /var/lib/rekindle/assets || return
    local assets=/var/lib/rekindle/assets gib
    # shellcheck source=/dev/null
    . $lab/scratch.sh
    for gib in "${SCRATCH_SIZES_GIB[@]}"; do
        make_scratch "$gib" "$assets/scratch-${gib}g.ext4" || return
    done
}

# Below the path that it has on the machine that it was built on, which its tests have in them.
lay_out_checkout() {
    mkdir -p "$LAB_CHECKOUT" && mount --bind "$lab/checkout$LAB_CHECKOUT" "$LAB_CHECKOUT"
}

# The status goes out by a port of its own: what the command prints cannot be taken for it.
end() {
    sync
    printf '%d\n' "$1" >"$(echo /dev/vport*p1)"
    echo o >/proc/sysrq-trigger
    sleep 60
}

main
