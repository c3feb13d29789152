#!/bin/bash
# Boots systemd as PID 1 on a throw-away overlay of the host's root; nothing is written to the host.
# Called by systemd_lab.py:  systemd_lab.sh join MOUNT BINDS CGROUP...
#   MOUNT    an empty directory that takes the mounts
#   BINDS    a file with one `source<TAB>target<TAB>ro|rw` a line
#   CGROUP   the lab's own cgroup, one in every hierarchy
# In the environment:
#   LAB_TARGET  what systemd boots into
#   LAB_BEFORE  a shell command for the lab before systemd starts, as on a machine that is still being set up
set -euo pipefail

# The cgroups are entered before the namespace is made: what a process is in at that moment is "/" inside.
join() {
  local mount=$1 binds=$2 cgroup
  shift 2
  for cgroup in "$@"; do echo $$ >"$cgroup/cgroup.procs"; done
  exec unshare --mount --propagation private --uts --ipc --cgroup --pid --fork --kill-child=SIGKILL \
    bash "$0" boot "$mount" "$binds" "$@"
}

boot() {
  local mount=$1 binds=$2
  shift 2
  mount -t tmpfs -o mode=755 tmpfs "$mount"
  root=$mount/root
  mkdir "$mount/upper" "$mount/work" "$root"
  mount -t overlay -o "lowerdir=/,upperdir=$mount/upper,workdir=$mount/work" overlay "$root"
  calm_units
  kernel_filesystems
  cgroup_filesystems "$@"
  bind_mounts "$binds"
  echo whisperd-lab >"$root/etc/hostname"
  cd "$root"
  mkdir .old
  pivot_root . .old
  umount --lazy /.old
  rmdir /.old
  mount --make-rshared / # PID 1 sets this on a real boot; without it credentials cannot be set up
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin bash -ec "$LAB_BEFORE"
  # With $container set, systemd leaves clock, sysctls and modules of the kernel alone.
  exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=dumb container=whisperd-lab \
    /lib/systemd/systemd --system "systemd.unit=$LAB_TARGET" systemd.log_target=journal-or-kmsg
}

# Nothing of the host's own services may start; the journal, D-Bus and tmpfiles stay.
calm_units() {
  local etc=$root/etc unit generator
  rm -rf "$etc"/systemd/system/*.wants "$root/var/log/journal"
  mkdir -p "$etc"/systemd/{system,system-generators,journald.conf.d,system.conf.d}
  for unit in "$root"/lib/systemd/system/{sysinit,local-fs,basic,sockets,timers,multi-user}.target.wants/*; do
    case ${unit##*/} in
    systemd-journald* | dbus* | systemd-tmpfiles-setup*) ;;
    *) ln -sfn /dev/null "$etc/systemd/system/${unit##*/}" ;;
    esac
  done
  for generator in "$root"/lib/systemd/system-generators/*; do
    ln -sfn /dev/null "$etc/systemd/system-generators/${generator##*/}"
  done
  : >"$etc/fstab"
  tr -d - </proc/sys/kernel/random/uuid >"$etc/machine-id"
  printf '[Journal]\nStorage=volatile\nRateLimitIntervalSec=0\nReadKMsg=no\n' >"$etc/systemd/journald.conf.d/lab.conf"
  printf '[Manager]\nDefaultTimeoutStopSec=15s\nShowStatus=no\n' >"$etc/systemd/system.conf.d/lab.conf"
  cat >"$etc/systemd/system/lab.target" <<'UNIT'
[Unit]
Description=Lab: a machine with a journal and D-Bus and nothing else
Requires=sysinit.target dbus.socket
After=sysinit.target dbus.socket
AllowIsolate=yes
UNIT
}

kernel_filesystems() {
  local device
  mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
  mount --bind "$root/proc/sys" "$root/proc/sys"
  mount -o remount,bind,ro "$root/proc/sys"
  mount -t sysfs -o ro,nosuid,nodev,noexec sysfs "$root/sys"
  mount -t tmpfs -o mode=755,nosuid tmpfs "$root/dev"
  for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
  done
  mkdir "$root"/dev/{pts,shm,mqueue,hugepages}
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
  mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/dev/shm"
  ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  ln -s fd/0 "$root/dev/stdin"
  ln -s fd/1 "$root/dev/stdout"
  ln -s fd/2 "$root/dev/stderr"
  mount -t tmpfs -o mode=755,nosuid,nodev tmpfs "$root/run"
  mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs "$root/tmp"
}

# Mounted inside the cgroup namespace, every hierarchy has the lab's own cgroup as its root.
cgroup_filesystems() {
  local cgroup hierarchy
  if [ -e /sys/fs/cgroup/cgroup.procs ]; then # version 2 only
    mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
    return
  fi
  mount -t tmpfs -o mode=755,nosuid,nodev,noexec tmpfs "$root/sys/fs/cgroup"
  for cgroup in "$@"; do
    hierarchy=${cgroup#/sys/fs/cgroup/}
    hierarchy=${hierarchy%%/*}
    mkdir "$root/sys/fs/cgroup/$hierarchy"
    case $hierarchy in
    unified) mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup/unified" ;;
    systemd) mount -t cgroup -o nosuid,nodev,noexec,none,name=systemd cgroup "$root/sys/fs/cgroup/systemd" ;;
    *) mount -t cgroup -o "nosuid,nodev,noexec,$hierarchy" cgroup "$root/sys/fs/cgroup/$hierarchy" ;;
    esac
  done
}

bind_mounts() {
  local source target mode
  while IFS=$'\t' read -r source target mode; do
    mkdir -p "$root$target"
    mount --rbind "$source" "$root$target"
    [ "$mode" = rw ] || mount -o remount,bind,ro "$root$target"
  done <"$1"
}

"$@"
