# Answers are lines: what was asked, its number, a word, and what belongs to it.
# What may hold any byte is in base64.

b64() { base64 -w 0; }

# A look is taken often, and each program that is started costs a millisecond of
# the host's. So one program is asked about all files, and what the shell can see
# by itself is left to it.

# absent TEXT: whether an error says that something is not there
absent() {
	case $1 in
	*'No such file or directory' | *'Not a directory') ;;
	*) return 1 ;;
	esac
}

# nearest PATH: gives $at, what there is of the path
nearest() {
	at=$1
	until [ -e "$at" ]; do
		case $at in
		/*/*) at=${at%/*} ;;
		*) at=/ ;;
		esac
	done
}

# see KIND NUMBER PATH: whether it is there; where that is not plain, stat tells.
see() {
	[ -e "$3" ] && return
	nearest "$3"
	if [ -L "$3" ] || { [ -d "$at" ] && ! [ -x "$at" ]; }; then
		s=$(stat -L -c %F -- "$3" 2>&1)
		absent "$s" || printf '%s %s problem %s\n' "$1" "$2" "${s##*: }"
	fi
	return 1
}

# linked PATH: whether a symbolic link is in it
linked() {
	at=$1
	while [ "$at" ]; do
		[ -L "$at" ] && return
		at=${at%/*}
	done
	return 1
}

real() { # KIND NUMBER PATH
	linked "$3" || return 0
	r=$(readlink -f -- "$3" 2>/dev/null) && case $r in
	*'
'*) ;;
	*) printf '%s %s real %s\n' "$1" "$2" "$r" ;;
	esac
}

stats() { # PATH...
	[ $# = 0 ] || printf 'stats 0 are %s\n' "$(stat -L --printf '%n\0%a\0%U\0%u\0%G\0%g\0%s\0%F\0%.9Z\0' -- "$@" 2>/dev/null | b64)"
}

# Files are read by one head, which writes their names between them; how long
# each is stat has told.
files() { # PATH...
	n=0
	for f; do
		shift
		real file "$n" "$f"
		if see file "$n" "$f"; then
			if ! [ -f "$f" ]; then
				:
			elif [ -r "$f" ]; then
				printf 'file %s read\n' "$n"
				set -- "$@" "$f"
			else
				printf 'file %s problem Permission denied\n' "$n"
			fi
		fi
		n=$((n + 1))
	done
	[ $# = 0 ] || printf 'heads 0 are %s\n' "$(head -v -c 8388609 -- "$@" 2>/dev/null | b64)"
}

sums() { # PATH...
	n=0
	for f; do
		shift
		if see sum "$n" "$f"; then
			if [ -f "$f" ] && [ -r "$f" ]; then
				set -- "$@" "$f"
			else
				printf 'sum %s problem\n' "$n"
			fi
		fi
		n=$((n + 1))
	done
	[ $# = 0 ] || printf 'sums 0 are %s\n' "$(sha256sum -z -- "$@" 2>/dev/null | b64)"
}

dirs() { # PATH...
	n=0
	for d; do
		shift
		real dir "$n" "$d"
		if see dir "$n" "$d" && [ -d "$d" ]; then
			if [ -r "$d" ] && [ -x "$d" ]; then
				set -- "$@" "$d"
			else
				printf 'dir %s problem Permission denied\n' "$n"
			fi
			for w in "$d"/member/wal/*.wal "$d"/*.wal; do
				[ -e "$w" ] || continue
				last= from=${w%/*}
				for w in "$from"/*.wal; do last=$w; done
				printf 'dir %s wal %s\n' "$n" "$(head -c 512 -- "$last" 2>/dev/null | b64)"
				break
			done
		fi
		n=$((n + 1))
	done
	[ $# = 0 ] || printf 'found 0 are %s\n' "$(find -H "$@" -printf '%H\0%P\0%y\0%b\0%T@\0' 2>/dev/null | head -c 16777216 | b64)"
	printf 'mounts 0 are %s\n' "$(base64 -w 0 /proc/self/mountinfo)"
}

spaces() { # PATH...: bytes free where they are, or would be
	n=0
	for d; do
		shift
		nearest "$d"
		printf 'dir %s at %s\n' "$n" "$at"
		set -- "$@" "$at"
		n=$((n + 1))
	done
	printf 'spaces 0 are %s\n' "$(stat -f --printf '%n\0%a\0%S\0' -- "$@" 2>/dev/null | b64)"
}

runs=
units() { # UNIT...: the answers stand in the order of the questions
	if s=$(systemctl show --no-pager -p Id,LoadState,ActiveState,SubState,UnitFileState,MainPID,ExecMainStartTimestampMonotonic,ExecMainStatus,FragmentPath,Environment,NeedDaemonReload -- "$@" 2>&1); then
		case $s in *MainPID=[1-9]*) runs=1 ;; esac
		printf 'units 0 are %s\n' "$(printf %s "$s" | b64)"
	else
		printf 'units 0 problem %s\n' "$(printf %s "$s" | b64)"
	fi
}

user() { # NUMBER NAME
	id -u -- "$2" >/dev/null 2>&1 && printf 'user %s there\n' "$1"
}

listeners() { # ports as in /proc/net/tcp: ":094B"...
	found=$(grep -h ' 0A ' /proc/net/tcp /proc/net/tcp6 2>/dev/null | while read -r _ local _ _ _ _ _ _ _ inode _; do
		for p; do
			case $local in *"$p") printf 'port 0 %s %s\n' "${p#:}" "$inode" ;; esac
		done
	done)
	[ "$found" ] || return 0
	printf '%s\n' "$found"
	# To go through all processes of a host is a quarter of a look, and nobody asks for
	# the name where a unit runs.
	[ "$runs" ] && return
	inodes=$(printf '%s\n' "$found" | cut -d ' ' -f 4)
	set -- -e '^/proc/'
	for i in $inodes; do set -- "$@" -e "socket:.$i]"; done
	# One process for all that /proc tells about who has which socket.
	ls -ln /proc/[0-9]*/fd 2>/dev/null | grep "$@" | {
		pid=
		while read -r l; do
			case $l in
			/proc/*) pid=${l#/proc/} pid=${pid%%/*} ;;
			*)
				l=${l##*socket:\[}
				printf 'holder 0 %s %s\n' "${l%]}" "$(cat "/proc/$pid/comm" 2>/dev/null)"
				;;
			esac
		done
	}
}

fetch() { # PATH: compressed, so that it proves itself whole
	[ -f "$1" ] && [ -r "$1" ] || exec cat -- "$1"
	command -v gzip >/dev/null 2>&1 || die 'gzip is not on the host'
	gzip -1c <"$1" | base64 -w 3000
	echo
}

callers() { # ports as in /proc/net/tcp, "094B"...: who is connected to them
	ports=$(printf '|%s' "$@")
	printf 'callers 0 are %s\n' "$(grep -h -E ": [0-9A-F]+:(${ports#|}) [0-9A-F:]+ 01 " /proc/net/tcp /proc/net/tcp6 2>/dev/null | b64)"
}

glob() { # NUMBER NAME...: as the shell has expanded them
	n=$1
	shift
	printf 'glob %s are %s\n' "$n" "$(for f; do [ -e "$f" ] && printf '%s\0' "$f"; done | b64)"
}

addrs() {
	if command -v ip >/dev/null 2>&1; then
		ip -o addr show | while read -r _ _ _ a _; do printf 'addr 0 is %s\n' "$a"; done
	else
		for a in $(hostname -I); do printf 'addr 0 is %s\n' "$a"; done
	fi
}

boot() {
	read -r b </proc/sys/kernel/random/boot_id
	printf 'boot 0 is %s\n' "$b"
	read -r up _ </proc/uptime
	printf 'clock 0 is %s %s\n' "$(date +%s.%N)" "$up"
}

# Those below run side by side, so they write short lines, each with one call.

program() { # NUMBER PATH ASK STAMP: one that is still as it was then is not run again
	if ! s=$(stat -L --printf '%d:%i:%s:%a:%.9Y:%.9Z %F' -- "$2" 2>&1); then
		absent "$s" || printf 'program %s problem %s\n' "$1" "${s##*: }"
		return
	fi
	stamp=${s%% *}
	if ! [ -f "$2" ]; then
		printf 'program %s problem not a regular file\n' "$1"
	elif ! [ -x "$2" ]; then
		printf 'program %s problem Permission denied\n' "$1"
	elif [ "$stamp" = "$4" ]; then
		printf 'program %s same\n' "$1"
	else
		s=$(timeout 5 "$2" "$3" 2>&1 </dev/null)
		printf 'program %s said %s %s %s\n' "$1" "$?" "$stamp" "$(printf %s "$s" | head -c 2000 | b64)"
	fi
}

offers() { # PACKAGE
	if command -v apt-cache >/dev/null 2>&1; then
		apt-cache madison -- "$1" 2>/dev/null | while IFS='| ' read -r _ v _; do printf 'offer 0 is %s\n' "$v"; done
	elif command -v dnf >/dev/null 2>&1; then
		dnf -q -C list --showduplicates -- "$1" 2>/dev/null | while read -r n v _; do
			case $n in "$1".*) printf 'offer 0 is %s\n' "$v" ;; esac
		done
	fi
}

trial() { # NUMBER CONFIG NAME=VALUE... PROGRAM ARGUMENT...: CONFIG in base64, on standard input
	number=$1 config=$2
	shift 2
	s=$(printf %s "$config" | base64 -d | env -i "PATH=$PATH" timeout 5 env "$@" 2>&1)
	printf 'trial %s said %s %s\n' "$number" "$?" "$(printf %s "$s" | tail -c 4096 | b64)"
}

# A first packet that was lost is sent again after a second: that is no firewall.
dial() { # NUMBER HOST PORT
	if command -v bash >/dev/null 2>&1; then
		s=$(timeout 3 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$2" "$3" 2>&1)
	elif command -v curl >/dev/null 2>&1; then
		# It goes on until its time is up; when it connected, it tells when.
		at=$2
		case $2 in *:*) at="[$2]" ;; esac
		s=$(curl -q -sS -g --noproxy '*' --max-time 3 -w 'connected:%{time_connect}' "telnet://$at:$3" 2>&1 </dev/null)
		status=$?
		case $s in
		*connected:0 | *connected:0[.,]000000)
			s=${s%connected:*}
			(exit "$status")
			;;
		*) s= ;;
		esac
	else
		s='neither bash nor curl is on the host to try it with' && false
	fi
	printf 'dial %s said %s %s\n' "$1" "$?" "$(printf %s "$s" | head -c 2000 | b64)"
}

http() { # NUMBER URL
	{
		if command -v curl >/dev/null 2>&1; then
			curl -q -sS -i -k -g --noproxy '*' --max-time 3 "$2" 2>&1 </dev/null
		elif command -v wget >/dev/null 2>&1; then
			wget -q --save-headers --content-on-error --max-redirect=0 --no-check-certificate --no-proxy -T 3 -t 1 -O - "$2" 2>&1 </dev/null
		else
			echo 'neither curl nor wget is on the host to ask with'
			false
		fi
		printf '\netcdrill:%s\n' "$?"
	} | head -c 81920 | base64 -w 3000 | while read -r l || [ "$l" ]; do printf 'http %s part %s\n' "$1" "$l"; done
}

shake() { # NUMBER HOST PORT KIND CA CERT KEY, where KIND is ip or hostname
	n=$1 h=$2 p=$3 kind=$4 ca=$5 cert=$6 key=$7
	for f in "$ca" "$cert" "$key"; do
		if [ "$f" ] && ! s=$(head -c 1 -- "$f" 2>&1); then
			printf 'shake %s said 1 %s\n' "$n" "$(printf %s "$f: ${s##*: }" | b64)"
			return
		fi
	done
	at=$h
	case $h in *:*) at="[$h]" ;; esac
	set --
	if command -v curl >/dev/null 2>&1; then
		[ "$ca" ] && set -- "$@" --cacert "$ca"
		[ "$cert" ] && set -- "$@" --cert "$cert"
		[ "$key" ] && set -- "$@" --key "$key"
		s=$(curl -q -sS -g --noproxy '*' --max-time 3 -o /dev/null "$@" "https://$at:$p/health" 2>&1 </dev/null)
	elif command -v openssl >/dev/null 2>&1; then
		[ "$ca" ] && set -- "$@" -CAfile "$ca"
		[ "$cert" ] && set -- "$@" -cert "$cert"
		[ "$key" ] && set -- "$@" -key "$key"
		s=$(printf 'GET /health HTTP/1.0\r\n\r\n' | timeout 3 openssl s_client -quiet -verify_return_error "-verify_$kind" "$h" -connect "$at:$p" "$@" 2>&1)
		case $s in *HTTP/[0-9]*) s= ;; *) false ;; esac
	else
		s='neither curl nor openssl is on the host to try it with' && false
	fi
	printf 'shake %s said %s %s\n' "$n" "$?" "$(printf %s "$s" | head -c 2000 | b64)"
}
