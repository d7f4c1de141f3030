#!/bin/bash
alias e="etcdctl"
alias em="etcdctl member"
export ETCDCTL_API=3
export ETCDCTL_ENDPOINTS="https://10.10.10.10:2379,https://10.10.10.11:2379,https://10.10.10.12:2379"
export ETCDCTL_CACERT=/etc/etcd/ca.crt
export ETCDCTL_CERT=/etc/etcd/server.crt
export ETCDCTL_KEY=/etc/etcd/server.key

case "$(id -un)" in
  root|dba)
    if [ -r /etc/etcd/etcd.pass ]; then export ETCDCTL_USER="root:$(cat /etc/etcd/etcd.pass)"; fi
    ;;
esac
