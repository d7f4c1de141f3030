package netswitch_test

import (
	"encoding/json"
	"fmt"
	"net"
	"time"

	"github.com/etcdrill/etcdrill/lab/embedded/netswitch"
)

// A rule is a value: it can be printed, kept in a journal, and read back.
func ExampleRule() {
	r := netswitch.Rule{Delay: 50 * time.Millisecond, Jitter: 10 * time.Millisecond, Loss: 0.1, Ports: []int{2380}}
	fmt.Println(r)
	written, err := json.Marshal(map[netswitch.Link]netswitch.Rule{{From: "etcd-1", To: "etcd-2"}: r})
	fmt.Println(string(written), err)
	fmt.Println(netswitch.Rule{Loss: 10}.Validate())
	// Output:
	// delay 50ms, jitter 10ms, loss 10%, ports 2380
	// {"etcd-1-\u003eetcd-2":{"delay":"50ms","jitter":"10ms","loss":0.1,"ports":[2380]}} <nil>
	// loss 10 is not a probability between 0 and 1
}

// cable is a Wire without a network: what is put in at one end, the switch
// reads, and what the switch writes comes out.
type cable struct {
	in, out chan []byte
	closed  chan struct{}
}

func newCable() *cable {
	return &cable{in: make(chan []byte), out: make(chan []byte, 16), closed: make(chan struct{})}
}

func (c *cable) ReadFrame(buf []byte) (int, error) {
	select {
	case f := <-c.in:
		return copy(buf, f), nil
	case <-c.closed:
		return 0, net.ErrClosed
	}
}

func (c *cable) WriteFrame(f []byte) error {
	c.out <- append([]byte(nil), f...)
	return nil
}

func (c *cable) Close() error {
	close(c.closed)
	return nil
}

// A one-way cut: etcd-1 is heard no more by etcd-2, but hears it still.
func ExampleSwitch() {
	sw := netswitch.New(42)
	cut := netswitch.Rule{Cut: true}
	fmt.Println("set:", sw.SetRule("etcd-1", "etcd-2", cut))

	one, two := newCable(), newCable() // in a lab, from OpenPort
	macs := []net.HardwareAddr{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}}
	fmt.Println("plug:",
		sw.AddPort(netswitch.Port{Name: "etcd-1", Wire: one, MAC: macs[0]}),
		sw.AddPort(netswitch.Port{Name: "etcd-2", Wire: two, MAC: macs[1]}))

	// Ten bytes of offload header, two addresses, a type that is not IP.
	frame := func(to, from net.HardwareAddr) []byte {
		f := append(make([]byte, 10), to...)
		return append(append(f, from...), 0x88, 0xb5)
	}
	one.in <- frame(macs[1], macs[0])
	one.in <- nil // no frame; it is taken only when the one before is dealt with
	two.in <- frame(macs[0], macs[1])
	fmt.Println("etcd-1 hears", len(<-one.out)-10, "bytes")

	fmt.Println("close:", sw.Close())
	counters := sw.Counters()
	fmt.Println("passed:", counters[netswitch.Link{From: "etcd-2", To: "etcd-1"}].Frames)
	fmt.Println("cut:", counters[netswitch.Link{From: "etcd-1", To: "etcd-2"}].Cut)
	fmt.Println("heard by etcd-2:", len(two.out))
	// Output:
	// set: <nil>
	// plug: <nil> <nil>
	// etcd-1 hears 14 bytes
	// close: <nil>
	// passed: 1
	// cut: 1
	// heard by etcd-2: 0
}
