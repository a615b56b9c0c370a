#!/usr/bin/env bash
# test.sh WORK DEB RPM NEWER-DEB NEWER-RPM OTHER-DEB: tries packages out in a Debian of their own, which systemd runs in
# namespaces of its own, so that the service lives under its real unit. OTHER-DEB is the one that they replace. Needs root,
# and once the network, to fetch that Debian.
set -euo pipefail

work=$1 deb=$2 rpm=$3 newer_deb=$4 newer_rpm=$5 other_deb=$6
package=$(dpkg-deb --field "$deb" Package)
minimal=$work/bookworm base=$work/bookworm-$package
place=$(mktemp -d "$work/test.XXXXXX")
group=$(findmnt --noheadings --raw --output TARGET --types cgroup2 | head -n 1)/partyline-package-$$
table=()
step='get ready' booted='' host=''

leave() {
  local status=$?
  trap - EXIT
  if [ $status != 0 ]; then
    table+=("FAILED  $step")
    cat "$place/boot.log" || true
    [ -z "$host" ] || inside journalctl --no-pager --lines 40 --unit partyline || true
  fi
  # The kernel kills all that ran under this system's first process.
  [ -z "$booted" ] || kill -KILL "$booted" 2>/dev/null || true
  [ -z "$booted" ] || wait "$booted" 2>/dev/null || true
  for _ in $(seq 50); do
    [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || { sleep 0.1; continue; }
    break
  done
  rm -rf "$place"
  printf '\n=== %s\n' "$(basename "$deb")"
  printf '%s\n' "${table[@]}"
  exit $status
}
trap leave EXIT

begin() {
  step=$1 begun=$SECONDS
  echo "--- $step" >&2
}

passed() {
  table+=("passed  $step ($((SECONDS - begun)) s)")
}

# Until a command succeeds, for half a minute.
eventually() {
  local end=$((SECONDS + 30))
  until "$@" >/dev/null 2>&1; do
    [ $SECONDS -lt $end ] || { echo "in vain: $*" >&2; return 1; }
    sleep 0.2
  done
}

fail() {
  echo "$*" >&2
  return 1
}

debian() {
  [ ! -e "$minimal/.complete" ] || return 0
  rm -rf "$minimal"
  debootstrap --variant=minbase \
    --include=systemd-sysv,libpam-systemd,dbus,polkitd,iproute2,procps bookworm "$minimal" >"$work/debootstrap.log"
  rm -f "$minimal/usr/sbin/policy-rc.d"
  touch "$minimal/.complete"
}

# Over it, what the package says it depends on, and what the tests need; other libraries are not there.
dependencies() {
  local wanted
  wanted=$(dpkg-deb --field "$deb" Depends)
  [ "$(cat "$base/.complete" 2>/dev/null)" != "$wanted" ] || return 0
  rm -rf "$base" "$base.work"
  mkdir -p "$base" "$base.work" "$place/dependencies"
  unshare --mount bash -euc '
    mount --make-rprivate /
    mount -t overlay -o "lowerdir=$1,upperdir=$2,workdir=$2.work" overlay "$3"
    mount -t proc proc "$3/proc"
    cp /etc/resolv.conf "$3/etc/resolv.conf"
    in="chroot $3 env DEBIAN_FRONTEND=noninteractive"
    $in apt-get update -q
    $in apt-get satisfy -qy --no-install-recommends "$4"
    [ -z "$5" ] || $in apt-get install -qy --no-install-recommends $5
    $in apt-get clean
  ' -- "$minimal" "$base" "$place/dependencies" "$wanted" "$(has_app && echo "${seat_packages[*]}")" \
    >"$work/dependencies.log" 2>&1 || { tail -n 20 "$work/dependencies.log"; return 1; }
  echo "$wanted" >"$base/.complete"
}

has_app() {
  [ "$package" = partyline ]
}

# A copy of the Debian that costs nothing: what is written goes to a directory of its own.
copy() {
  mkdir -p "$place/$1/written" "$place/$1/work" "$place/$1/root"
  echo "lowerdir=$base:$minimal,upperdir=$place/$1/written,workdir=$place/$1/work"
}

boot() {
  local options
  options=$(copy system)
  mkdir "$group"
  (
    echo "$BASHPID" >"$group/cgroup.procs"
    exec unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child=KILL bash -euc '
      mount --make-rprivate /
      mount -t overlay -o "$1" overlay "$2"
      cd "$2"
      mount -t proc proc proc
      mount -t sysfs sys sys
      # Without virtual terminals the first to log in at the seat is in front at once.
      mount -t tmpfs tmpfs sys/class/tty
      mount -t cgroup2 cgroup sys/fs/cgroup
      mount -t tmpfs tmpfs run
      mount -t tmpfs tmpfs tmp
      mount -t tmpfs tmpfs dev
      mkdir dev/pts dev/shm dev/net
      mount -t devpts devpts dev/pts
      for device in null zero full random urandom tty net/tun; do
        touch dev/$device
        mount --bind /dev/$device dev/$device
      done
      hostname gamer
      ip link set lo up
      # A LAN that leads nowhere.
      ip link add lan0 type veth peer name lan1
      ip address add 192.168.77.2/24 dev lan0
      ip link set lan0 up
      ip link set lan1 up
      ip route add default via 192.168.77.1
      exec env --ignore-environment container=namespaces PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        chroot . /lib/systemd/systemd --log-target=journal --show-status=no
    ' -- "$options" "$place/system/root"
  ) </dev/null >"$place/boot.log" 2>&1 &
  booted=$!
  eventually pgrep --parent "$booted"
  host=$(pgrep --parent "$booted")
  eventually inside systemctl is-active dbus
  eventually settled
  inside useradd --uid 1000 ben
}

inside() {
  nsenter --target "$host" --mount --uts --ipc --net --pid --cgroup --root --wd -- \
    env --ignore-environment PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@"
}

as_user() {
  inside setpriv --reuid=1000 --regid=1000 --clear-groups "$@"
}

# Whether both ends of the LAN have the addresses that they give themselves.
settled() {
  [ "$(inside ip -6 -oneline address show scope link | grep ' lan[01] ' | grep -vc tentative)" = 2 ]
}

network() {
  inside ip -brief link
  inside ip -4 route show table all
  inside ip -6 route show table all
  inside ip -4 rule
  inside ip -6 rule
}

status() {
  inside partyline status --json
}

# The computer and its parties, by their ids.
identity() {
  status | jq --exit-status --compact-output '[.device.id, (.parties | map(.id))]'
}

has_device() {
  inside ip -oneline link show type tun | grep -q .
}

runs() {
  inside systemctl is-active --quiet partyline
}

pid() {
  inside systemctl show --property MainPID --value partyline
}

install_deb() {
  inside sh -c 'cat >/tmp/package.deb' <"$1"
  inside dpkg --install /tmp/package.deb
}

source "$(dirname "$0")/seat.sh"

begin "no errors by lintian"
lintian --allow-root --fail-on error --suppress-tags bad-distribution-in-changes-file "$deb"
passed

begin "scripts parse, and rpm knows the libraries"
for script in postinst prerm postrm; do
  dpkg-deb --ctrl-tarfile "$deb" | tar -xO "./$script" | sh -n
done
for script in POSTIN PREUN POSTUN; do
  rpm --query --package --queryformat "%{$script}" "$rpm" | sh -n
done
rpm --query --package --requires "$rpm" | grep -q '^libc.so.6(GLIBC_'
rpm --query --package --list "$rpm"
passed

begin "a Debian of its own boots"
debian
dependencies
boot
network >"$place/network"
passed

begin "installing starts the service"
install_deb "$deb"
eventually runs
inside systemctl is-enabled --quiet partyline
inside partyline service status
inside ls /usr/share/man/man1/partyline-create.1.gz /usr/share/bash-completion/completions/partyline >/dev/null
passed

begin "systemd rates its rights below 4"
inside systemd-analyze security --threshold=40 --no-pager partyline >"$place/rating" || { cat "$place/rating"; false; }
tail -n 1 "$place/rating"
passed

begin "polkit takes the rules"
inside systemctl start polkit
eventually inside sh -c "journalctl --unit polkit | grep -q 'Finished loading'"
if inside journalctl --unit polkit | grep -i error; then fail "polkit complains"; fi
passed

begin "strangers drive neither service nor unit"
refused=0
as_user partyline list || refused=$?
[ $refused = 4 ] || fail "exit $refused"
said=$(as_user systemctl --no-ask-password stop partyline 2>&1) || refused=systemd
[[ $refused = systemd && $said = *authentication\ required* ]] || fail "$said"
runs
passed

begin "a party is created, with its device"
inside partyline create Friday --name Ann
eventually has_device
identity >"$place/identity"
cat "$place/identity"
passed

if has_app; then
  begin "whoever sits at the computer may start and stop the service, and opens the app from the menu"
  sit_down
  as_ben systemctl --no-ask-password restart partyline
  eventually as_ben partyline status
  as_ben desktop-file-validate /usr/share/applications/partyline.desktop
  inside appstreamcli validate --no-net /usr/share/metainfo/app.partyline.desktop.metainfo.xml
  open_app
  eventually reads 'What do friends call you?'
  press 'Let’s go'
  eventually reads Friday
  no_alert
  passed

  begin "links open the app, and a stopped service is started by its button"
  [ "$(as_ben xdg-mime query default x-scheme-handler/partyline)" = partyline.desktop ]
  as_ben gio mime x-scheme-handler/partyline | grep -q partyline.desktop
  as_ben xdg-open partyline://join/AAAA
  eventually reads 'This invite link is damaged.'
  as_ben systemctl --no-ask-password stop partyline
  eventually reads 'Start the service'
  press 'Start the service'
  eventually runs
  eventually lacks 'Start the service'
  passed
fi

begin "an upgrade restarts the service, and keeps identity and party"
before=$(pid)
install_deb "$newer_deb"
eventually runs
[ "$(pid)" != "$before" ] || fail "not restarted"
eventually has_device
identity | diff "$place/identity" -
passed

if has_app; then
  begin "the open window has followed the upgrade"
  eventually lacks 'Start the service'
  reads Friday
  close_app
  passed
fi

begin "a killed service comes back"
before=$(pid)
inside kill -KILL "$before"
eventually status
[ "$(pid)" != "$before" ] || fail "not restarted"
eventually has_device
identity | diff "$place/identity" -
passed

begin "removing leaves no process, device, route or rule"
inside dpkg --remove "$package"
if runs || inside pgrep --list-name partyline; then fail "it runs"; fi
network | diff "$place/network" -
inside test ! -e /usr/bin/partyline
inside test -s /var/lib/partyline/state.json
passed

begin "installing again brings identity and party back"
install_deb "$newer_deb"
eventually status
eventually has_device
identity | diff "$place/identity" -
passed

if has_app; then
  begin "the package without the app takes its place, and the other way round"
  for next in "$other_deb" "$newer_deb"; do
    install_deb "$next"
    eventually status
    eventually has_device
    identity | diff "$place/identity" -
    inside systemctl is-enabled --quiet partyline
  done
  passed
fi

begin "who has disabled the service keeps it so"
inside systemctl disable --quiet --now partyline
install_deb "$newer_deb"
if runs; then fail "it runs"; fi
if inside systemctl is-enabled --quiet partyline; then fail "it is enabled"; fi
passed

begin "a service run by hand ends with its package, and a purge leaves nothing"
inside systemd-run --quiet --unit by-hand partyline-service run
eventually status
inside dpkg --purge partyline partyline-cli
if inside pgrep --list-name partyline; then fail "it runs"; fi
network | diff "$place/network" -
# What people keep in their homes is theirs.
left=$(inside find / -xdev -name '*partyline*' -not -path '/proc/*' -not -path '/home/*')
[ -z "$left" ] || fail "left: $left"
inside test ! -e /run/partyline
passed

begin "the rpm installs, upgrades and goes"
options=$(copy rpm)
root=$place/rpm/root
unshare --mount bash -euc '
  mount --make-rprivate /
  mount -t overlay -o "$1" overlay "$2"
  for change in "--install $3" "--upgrade $4"; do
    rpm --root "$2" --nodeps $change
    chroot "$2" partyline --version
    chroot "$2" systemctl is-enabled --quiet partyline
  done
  rpm --root "$2" --erase "$5"
  find "$2" -name "*partyline*" | { ! grep .; }
' -- "$options" "$root" "$rpm" "$newer_rpm" "$package"
passed
