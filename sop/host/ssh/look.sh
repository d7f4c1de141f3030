# Answers are lines: what was asked, its number, a word, and what belongs to it.
# What may hold any byte is in base64.

b64() { base64 -w 0; }

# absent TEXT: whether an error says that something is not there
absent() {
	case $1 in
	*'No such file or directory' | *'Not a directory') ;;
	*) return 1 ;;
	esac
}

# blocks DIR: bytes that everything inside takes. It adds up in one expression,
# since a shell reads lines slowly.
blocks() {
	n=$(find "$1" ! -type d -printf '%b+' 2>/dev/null)
	echo $((512 * (${n}0)))
}

space() { # PATH: bytes free where it is, or would be
	at=$1
	until [ -d "$at" ]; do
		case $at in
		/*/*) at=${at%/*} ;;
		*) at=/ ;;
		esac
	done
	set -- $(stat -f -c '%a %S' -- "$at" 2>/dev/null) 0 0
	echo $(($1 * $2))
}

real() { # KIND NUMBER PATH
	r=$(readlink -f -- "$3" 2>/dev/null) && case $r in
	*'
'*) ;;
	*) printf '%s %s real %s\n' "$1" "$2" "$r" ;;
	esac
}

file() { # NUMBER PATH
	if ! s=$(stat -L -c '%a %U %u %G %g %s %F' -- "$2" 2>&1); then
		if absent "$s"; then
			real file "$1" "$2"
		else
			printf 'file %s problem %s\n' "$1" "${s##*: }"
		fi
		return
	fi
	printf 'file %s stat %s\n' "$1" "$s"
	real file "$1" "$2"
	if [ -d "$2" ]; then
		printf 'file %s problem is a directory\n' "$1"
	elif ! [ -f "$2" ]; then
		printf 'file %s problem not a regular file\n' "$1"
	elif set -- "$1" "$2" $s && [ "$8" -gt 8388608 ]; then
		printf 'file %s problem it is larger than 8 MiB\n' "$1"
	elif s=$(base64 -w 0 -- "$2" 2>&1); then
		printf 'file %s data %s\n' "$1" "$s"
	else
		printf 'file %s problem %s\n' "$1" "${s##*: }"
	fi
}

sum() { # NUMBER PATH
	if s=$(sha256sum -- "$2" 2>&1); then
		s=${s#\\}
		printf 'sum %s is %s\n' "$1" "${s%% *}"
	elif ! absent "$s"; then
		printf 'sum %s problem\n' "$1"
	fi
}

names() { # DIR: what is in it, but for what was set aside
	cd -- "$1" && for f in * .[!.]* ..?*; do
		[ -e "$f" ] || [ -L "$f" ] || continue
		case $f in
		.removed-*) ;;
		*) printf '%s\0' "$f" ;;
		esac
	done
}

dir() { # NUMBER PATH
	if ! s=$(stat -L -c '%a %U %u %G %g %s %F' -- "$2" 2>&1); then
		if absent "$s"; then
			printf 'dir %s free %s\n' "$1" "$(space "$2")"
		else
			printf 'dir %s problem %s\n' "$1" "${s##*: }"
		fi
		return
	fi
	printf 'dir %s stat %s\n' "$1" "$s"
	real dir "$1" "$2"
	if ! [ -d "$2" ]; then
		printf 'dir %s problem not a directory\n' "$1"
		return
	fi
	printf 'dir %s free %s\n' "$1" "$(space "$2")"
	if ! [ -r "$2" ] || ! [ -x "$2" ]; then
		printf 'dir %s problem Permission denied\n' "$1"
		return
	fi
	printf 'dir %s names %s\n' "$1" "$(names "$2" | b64)"
	printf 'dir %s used %s\n' "$1" "$(blocks "$2")"
	for w in "$2"/member/wal/*.wal "$2"/*.wal; do
		[ -e "$w" ] || continue
		last= from=${w%/*}
		for w in "$from"/*.wal; do last=$w; done
		printf 'dir %s wal %s\n' "$1" "$(head -c 512 -- "$last" 2>/dev/null | b64)"
		break
	done
	for a in "$2"/.removed-*; do
		[ -e "$a" ] || [ -L "$a" ] || continue
		printf 'dir %s aside %s %s %s\n' "$1" "$(blocks "$a")" "$(stat -c %Y -- "$a")" "$(printf %s "${a##*/}" | b64)"
	done
}

mounts() { printf 'mounts 0 are %s\n' "$(cut -d ' ' -f 5 /proc/self/mountinfo | b64)"; }

units() { # UNIT...: the answers stand in the order of the questions
	if s=$(systemctl show --no-pager -p Id,LoadState,ActiveState,SubState,UnitFileState,MainPID,ExecMainStartTimestampMonotonic,ExecMainStatus,FragmentPath,Environment,NeedDaemonReload -- "$@" 2>&1); then
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
	printf 'boot 0 is %s\n' "$(cat /proc/sys/kernel/random/boot_id 2>/dev/null)"
	up=$(cat /proc/uptime) now=$(date +%s.%N)
	printf 'clock 0 is %s %s\n' "$now" "${up%% *}"
}

# Those below run side by side, so they write short lines, each with one call.

program() { # NUMBER PATH
	if ! s=$(stat -L -c %F -- "$2" 2>&1); then
		absent "$s" || printf 'program %s problem %s\n' "$1" "${s##*: }"
	elif ! [ -f "$2" ]; then
		printf 'program %s problem not a regular file\n' "$1"
	elif ! [ -x "$2" ]; then
		printf 'program %s problem Permission denied\n' "$1"
	else
		s=$(timeout 5 "$2" --version 2>&1 </dev/null)
		printf 'program %s said %s %s\n' "$1" "$?" "$(printf %s "$s" | head -c 2000 | b64)"
	fi
}

dial() { # NUMBER HOST PORT
	if command -v bash >/dev/null 2>&1; then
		s=$(timeout 1 bash -c 'exec 3<>"/dev/tcp/$0/$1"' "$2" "$3" 2>&1)
	elif command -v curl >/dev/null 2>&1; then
		# It goes on until its time is up; when it connected, it tells when.
		at=$2
		case $2 in *:*) at="[$2]" ;; esac
		s=$(curl -q -sS -g --noproxy '*' --max-time 1 -w 'connected:%{time_connect}' "telnet://$at:$3" 2>&1 </dev/null)
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
