# What every script begins with. It runs in a shell of its own, whose standard
# output is read by us alone and whose standard error is kept.
export LC_ALL=C SYSTEMD_COLORS=0 SYSTEMD_PAGER= PAGER=cat
PATH=${PATH:-/usr/bin:/bin}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH
umask 022
die() { printf '%s\n' "$*" >&2; exit 1; }
