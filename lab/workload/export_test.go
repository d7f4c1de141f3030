package workload

import "fmt"

// FillLog takes down n puts and their replies.
func FillLog(l *Log, n int) {
	l.header(Header{Schema: Schema, Clients: 8, Prefix: "/etcdrill/load/"})
	for i := range n {
		o := Op{Kind: Put, Client: i % 8, Key: fmt.Sprintf("/etcdrill/load/c%d/k%d", i%8, i%64), Value: fmt.Sprintf("%d-%d-1", i%8, i), Endpoint: "https://10.10.10.10:2379"}
		id := l.call(&o)
		o.Outcome, o.Revision, o.ModRevision, o.Prev = OK, int64(i+9), int64(i+1), o.Value
		l.reply(id, &o)
	}
	_, _ = l.close(true)
}
