# Each of these makes one change, and may be asked for again. What it says goes
# to standard error.

# resolve PATH: follows symbolic links, the last one too, and gives $real
resolve() {
	at=$1 real=$1
	while [ "$at" ]; do
		if [ -L "$at" ]; then
			real=$(readlink -fv -- "$1" 2>&1) || die "$real"
			return
		fi
		at=${at%/*}
	done
}

# known OWNER GROUP: that they exist, as install asks
known() {
	id -u -- "$1" >/dev/null 2>&1 || die "install: invalid user '$1'"
	getent group -- "$2" >/dev/null 2>&1 || die "install: invalid group '$2'"
}

# stage PATH: an empty file $tmp beside $real, with what is kept of the file that
# it is to replace: owner, mode, ACL, label. Those that a run which was cut off
# has left are swept, since they may hold a key.
stage() {
	resolve "$1"
	case $real in
	/dev/* | /proc/* | /sys/*) die "install: cannot replace '$1' ($real): not a regular file" ;;
	esac
	[ -d "$real" ] && die "install: cannot overwrite directory '$1' with non-directory"
	[ -e "$real" ] && ! [ -f "$real" ] && die "install: cannot replace '$1' ($real): not a regular file"
	dir=${real%/*}
	dir=${dir:-/}
	if ! [ -d "$dir" ]; then
		at=$dir
		until [ -e "$at" ]; do at=${at%/*} at=${at:-/}; done
		[ -d "$at" ] || die "install: failed to access '$1': Not a directory"
		die "install: cannot create regular file '$1': No such file or directory"
	fi
	fresh=y
	for old in "$dir/.${real##*/}".new-??????; do
		[ -e "$old" ] && rm -f -- "$old"
	done
	tmp=$(umask 077 && mktemp -- "$dir/.${real##*/}.new-XXXXXX") || exit 1
	if [ -e "$real" ]; then
		fresh=
		cp --attributes-only --preserve=all -- "$real" "$tmp" || undo
	fi
}

undo() { # [WHY]
	rm -f -- "$tmp"
	[ $# = 0 ] || printf '%s\n' "$*" >&2
	exit 1
}

# settle OWNER GROUP MODE: what is not so yet
settle() {
	if ! chown -- "$1:$2" "$tmp"; then
		rm -f -- "$tmp"
		known "$1" "$2"
		exit 1
	fi
	chmod -- "$3" "$tmp" || undo
}

# place: the new file takes the old one's place, whole and on the disk
place() {
	sync -- "$tmp" || undo
	mv -fT -- "$tmp" "$real" || undo
	if [ "$fresh" ] && command -v restorecon >/dev/null 2>&1; then
		restorecon -- "$real" >/dev/null 2>&1 # only where SELinux is on
	fi
	sync -- "$dir" || exit 1
}

write_file() { # PATH OWNER GROUP MODE, and $content in base64
	stage "$1"
	settle "$2" "$3" "$4"
	printf %s "$content" | base64 -d >"$tmp" || undo
	place
}

put_program() { # PATH LENGTH SHA256, and the program on standard input
	receive "$@"
	settle root root 0755
	place
}

receive() { # PATH LENGTH SHA256
	stage "$1"
	head -c "$2" >"$tmp" || undo
	got=$(sha256sum <"$tmp") || undo
	[ "${got%% *}" = "$3" ] || undo "$1: its sha256 is ${got%% *} on arrival, and not $3"
}

put_file() { # PATH LENGTH SHA256, and the file on standard input
	receive "$@"
	settle root root 0600
	place
}

copy_program() { # FROM PATH
	[ -f "$1" ] || die "install: cannot stat '$1': No such file or directory"
	stage "$2"
	cat -- "$1" >"$tmp" || undo
	settle root root 0755
	place
}

have_file() { # PATH SHA256: status 3 when it has to be sent
	[ -f "$1" ] || exit 3
}

# restore_data PROGRAM WORK WALWORK DATA WAL OWNER GROUP ARGUMENTS: what etcdutl
# makes is moved into place when it is whole, and never over other data. One of
# these that was left behind may still run: each works in a directory of its own.
restore_data() {
	program=$1 work=$2 walwork=$3 data=$4 wal=$5 owner=$6 group=$7
	shift 7
	known "$owner" "$group"
	[ -d "$data" ] || die "restore: $data: No such directory"
	if [ -e "$data/member" ]; then
		die "restore: cannot overwrite '$data/member': File exists"
	fi
	made=$(umask 077 && mktemp -d -- "$work/made-XXXXXX") || exit 1
	log=
	trap 'rm -rf -- "$made" ${log:+"$log"}' EXIT
	if [ "$wal" ]; then
		log=$(umask 077 && mktemp -d -- "$walwork/made-XXXXXX") || exit 1
		set -- "$@" "--wal-dir=$log/wal"
	fi
	n=$#
	while [ "$n" -gt 0 ]; do
		a=$1
		shift
		case $a in --data-dir=@DATA@) a=--data-dir=$made/data ;; esac
		set -- "$@" "$a"
		n=$((n - 1))
	done
	said=$("$program" "$@" 2>&1 </dev/null) || die "$(printf '%s\n' "$said" | tail -n 5)"
	chown -R -- "$owner:$group" "$made/data" ${log:+"$log/wal"} || exit 1
	find "$made" ${log:+"$log"} -type f -exec sync -- {} + || exit 1
	if [ "$log" ]; then
		for f in "$log/wal"/*; do
			mv -fT -- "$f" "$wal/${f##*/}" || exit 1
		done
		sync -- "$wal" || exit 1
	fi
	if ! mv -nT -- "$made/data/member" "$data/member" || [ -e "$made/data/member" ]; then
		die "mv: cannot overwrite '$data/member': File exists"
	fi
	if command -v restorecon >/dev/null 2>&1; then
		restorecon -R -- "$data/member" >/dev/null 2>&1 # only where SELinux is on
	fi
	sync -- "$data" || exit 1
}

# replay_log PROGRAM DATA WAL WORK SEGMENT OFFSET PATH, and $record and $conf in
# base64: etcd runs on a copy until it serves. One that was left behind runs in a
# directory of its own, and not for ever.
replay_log() {
	program=$1 data=$2 wal=$3 work=$4 segment=$5 offset=$6 to=$7
	[ -e "$to" ] && return
	[ -x "$program" ] || die "$program: not found"
	made=$(umask 077 && mktemp -d -- "$work/made-XXXXXX") || exit 1
	trap 'rm -rf -- "$made"' EXIT
	mkdir -- "$made/data" && cp -a -- "$data/member" "$made/data/member" || exit 1
	if [ "$wal" ]; then
		mkdir -p -- "$made/data/member/wal" && cp -a -- "$wal"/*.wal "$made/data/member/wal/" || exit 1
	fi
	if [ "$record" ]; then
		last=$made/data/member/wal/$segment
		truncate -s "$offset" -- "$last" && printf %s "$record" | base64 -d >>"$last" || exit 1
	fi
	cd -- "$made" && printf %s "$conf" | base64 -d >etcd.yml || exit 1
	timeout -k 5 1500 "$program" --config-file=etcd.yml >log 2>&1 </dev/null &
	pid=$!
	until grep -q "$serves" log; do
		if ! kill -0 "$pid" 2>/dev/null; then
			die "$(tail -n 5 log)"
		fi
		sleep 0.1
	done
	kill "$pid"
	wait "$pid"
	chown root:root -- data/member/snap/db && chmod 0600 -- data/member/snap/db || exit 1
	sync -- data/member/snap/db && mv -nT -- data/member/snap/db "$to" || exit 1
	sync -- "${to%/*}" || exit 1
}

have_program() { # PATH SHA256: status 3 when it has to be sent
	[ -f "$1" ] || exit 3
	got=$(sha256sum <"$1") || exit 3
	[ "${got%% *} $(stat -L -c '%a %U %G' -- "$1")" = "$2 755 root root" ] || exit 3
}

remove_file() { # PATH
	if [ -d "$1" ] && ! [ -L "$1" ]; then
		die "rm: cannot remove '$1': Is a directory"
	fi
	rm -f -- "$1" || exit 1
	if [ -d "${1%/*}/" ]; then
		sync -- "${1%/*}/" || exit 1
	fi
}

make_dir() { # PATH OWNER GROUP MODE
	resolve_new "$1"
	install -d -o "$2" -g "$3" -m "$4" -- "$real" || exit 1
	sync -- "$real" || exit 1
}

# resolve_new PATH: like resolve, and parts of the path may be missing
resolve_new() {
	real=$(readlink -m -- "$1") || die "install: cannot create directory '$1'"
}

unit() { # VERB UNIT [--no-block]
	if [ "$2" ]; then
		verb=$1 name=$2
		shift 2
		systemctl --no-ask-password "$verb" "$@" -- "$name" >&2 && return
	else
		systemctl --no-ask-password "$1" >&2
		exit
	fi
	status=$?
	case $verb in
	start | restart | reload) systemctl --no-pager -l -n 20 status -- "$name" >&2 ;;
	esac
	exit "$status"
}

# mounted PATH: whether something is mounted there; within PATH: the first mount
# point below it. Blanks stand as \040 in that list.
mounted() {
	cut -d ' ' -f 5 /proc/self/mountinfo | grep -qxF -- "$(coded "$1")"
}
within() {
	want=$(coded "$1")
	cut -d ' ' -f 5 /proc/self/mountinfo | while read -r m; do
		case $m in "$want"/*) printf '%s\n' "$m" && break ;; esac
	done | sed -e 's/\\040/ /g' -e 's/\\011/	/g' -e 's/\\134/\\/g'
}
coded() {
	printf %s "$1" | sed -e 's/\\/\\134/g' -e 's/ /\\040/g' -e 's/	/\\011/g'
}

set_aside() { # PATH STAMP
	[ -e "$1" ] || [ -L "$1" ] || return 0
	resolve "$1"
	[ -e "$real" ] || return 0
	[ -d "$real" ] || die "set aside $1: Not a directory"
	[ "$real" != / ] || die "set aside $1: it is the root of the host"
	to=$real/.removed-$2
	cd -- "$real" || exit 1
	for f in * .[!.]* ..?*; do
		[ -e "$f" ] || [ -L "$f" ] || continue
		case $f in .removed-*) continue ;; esac
		if mounted "$real/$f"; then
			die "mv: cannot move '$real/$f' to '$to/$f': Device or resource busy"
		fi
		if [ -e "$to/$f" ] || [ -L "$to/$f" ]; then
			die "mv: cannot overwrite '$to/$f': File exists"
		fi
		if ! [ -d "$to" ]; then
			mkdir -m 0700 -- "$to" || exit 1
		fi
		mv -nT -- "./$f" "$to/$f" || exit 1
	done
	[ -d "$to" ] || return 0
	sync -- "$to" "$real" || exit 1
}

delete_in() { # PATH
	[ -e "$1" ] || [ -L "$1" ] || return 0
	resolve "$1"
	[ -e "$real" ] || return 0
	case $real in
	/*/*) ;;
	*) die "delete what is in $1: $real is less than two levels deep" ;;
	esac
	[ -d "$real" ] || die "delete what is in $1: Not a directory"
	mount=$(within "$real")
	[ -z "$mount" ] || die "find: cannot delete '$mount': Device or resource busy"
	find "$real" -xdev -mindepth 1 -delete || exit 1
	sync -- "$real" || exit 1
}

# The lock is two lines: the token, and who holds it. A lock without words would
# hold for ever if the host died here, so the file is made with its words and
# then linked, which is as exclusive. Those who take one over do it one by one,
# where there is flock.
guard() {
	if command -v flock >/dev/null 2>&1; then
		exec 9</run
		flock -w 2 9 || die "another process holds /run for more than 2 s"
	fi
}

claim() { # LOCK TOKEN OWNER SUPERSEDED...
	lock=$1 token=$2 owner=$3
	shift 3
	guard
	new=$(mktemp -- "$lock.new-XXXXXX") || exit 1
	chmod 0644 -- "$new"
	printf '%s\n%s\n' "$token" "$owner" >"$new" || { rm -f -- "$new"; exit 1; }
	if ln -T -- "$new" "$lock" 2>/dev/null; then
		rm -f -- "$new"
		return
	fi
	held= holder=
	{ read -r held; read -r holder; } <"$lock" || { rm -f -- "$new"; die "the lock $lock cannot be read"; }
	for t in "$token" "$@"; do
		if [ "$held" = "$t" ]; then
			mv -fT -- "$new" "$lock" || { rm -f -- "$new"; exit 1; }
			return
		fi
	done
	rm -f -- "$new"
	printf '%s\n' "$holder" >&2
	exit 75
}

release() { # LOCK TOKEN
	[ -e "$1" ] || return 0
	guard
	held=
	read -r held <"$1" || [ -e "$1" ] || return 0
	[ "$held" = "$2" ] || return 0
	rm -f -- "$1"
}

add_user() { # NAME HOME
	id -u -- "$1" >/dev/null 2>&1 && return
	useradd --system --user-group --no-create-home --home-dir "${2:-/nonexistent}" --shell /usr/sbin/nologin -- "$1" >&2
}

note() { # $line
	if command -v logger >/dev/null 2>&1; then
		printf '%s\n' "$line" | logger -t etcdrill
	else
		printf '%s\n' "$line" | systemd-cat -t etcdrill
	fi
}

# Debian starts what it installs, unless policy-rc.d says no. Ours says no only
# while this very process lives, so that one that is left behind does nothing;
# and asks the one that was there before.
policy=/usr/sbin/policy-rc.d
forbid_starts() {
	if [ -e "$policy" ] && ! grep -q 'written by etcdrill' "$policy"; then
		mv -fT -- "$policy" "$policy.etcdrill" || exit 1
	fi
	born=$(cut -d ' ' -f 22 "/proc/$$/stat")
	cat >"$policy.new" <<END || exit 1
#!/bin/sh
# written by etcdrill while it installs a package; means nothing afterwards
[ "\$(cut -d ' ' -f 22 /proc/$$/stat 2>/dev/null)" = $born ] && exit 101
[ ! -x $policy.etcdrill ] || exec $policy.etcdrill "\$@"
END
	chmod 0755 "$policy.new" && mv -fT -- "$policy.new" "$policy" || exit 1
}
allow_starts() {
	if [ -e "$policy.etcdrill" ]; then
		mv -fT -- "$policy.etcdrill" "$policy"
	else
		rm -f -- "$policy"
	fi
}

apt_install() { # PACKAGE[=VERSION]
	DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends -o DPkg::Lock::Timeout=60 \
		-o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold install -- "$1" </dev/null >&2
}

install_package() { # PACKAGE VERSION
	if command -v apt-get >/dev/null 2>&1; then
		case $(dpkg-query -W -f '${db:Status-Status} ${Version}' -- "$1" 2>/dev/null) in
		"installed ${2:-}") return ;;
		'installed '*) [ "$2" ] || return 0 ;;
		esac
		forbid_starts
		what=$1${2:+=$2}
		# Lists that are old or not there are the usual reason for a failure.
		apt_install "$what" || { apt-get -q update </dev/null >&2 && apt_install "$what"; }
		status=$?
		allow_starts
		return "$status"
	fi
	if command -v dnf >/dev/null 2>&1; then
		have=$(rpm -q --qf '%{VERSION}-%{RELEASE} %{VERSION}\n' -- "$1" 2>/dev/null) && case "$2" in
		'' | "${have%% *}" | "${have##* }") return ;;
		esac
		dnf -y install "$1${2:+-$2}" </dev/null >&2
		return
	fi
	die "cannot install $1: neither apt-get nor dnf is on this host"
}
