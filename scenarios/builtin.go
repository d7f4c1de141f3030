package scenarios

// builtIn is the inventory of the drill, and of a lab for which none was named.
const builtIn = `all:
  children:
    etcd:
      hosts:
        10.10.10.10: { etcd_seq: 1 }
        10.10.10.11: { etcd_seq: 2 }
        10.10.10.12: { etcd_seq: 3 }
      vars:
        etcd_cluster: etcd
`

// BuiltIn gives the built-in inventory, and spares: hosts that its lab has and
// the inventory does not, to be added.
func BuiltIn() (inventory []byte, spares []string) {
	return []byte(builtIn), []string{"10.10.10.13", "10.10.10.14", "10.10.10.15"}
}
