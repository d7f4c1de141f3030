package workload

import (
	"context"
	"time"
)

// paceTick is the shortest time between two looks at what has arrived; at a
// higher rate several arrive at once.
const paceTick = time.Millisecond

// turn waits for a client's next call; false when the load is over. In a
// closed loop there is nothing to wait for.
func (l *Load) turn(ctx context.Context) bool {
	if l.over(ctx) {
		return false
	}
	if l.arrivals == nil {
		return true
	}
	select {
	case <-l.arrivals:
		return true
	case <-ctx.Done():
	case <-l.stopping:
	}
	return false
}

// arrive lets calls arrive at the profile's rate, however long they take to be
// answered. Those that find the backlog full are turned away and counted.
func (l *Load) arrive(ctx context.Context) {
	every := max(time.Duration(float64(time.Second)/l.spec.Rate), paceTick)
	tick := time.NewTicker(every)
	defer tick.Stop()
	began, arrived := l.Now(), 0.0
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.stopping:
			return
		case <-tick.C:
		}
		for due := (l.Now() - began).Seconds() * l.spec.Rate; arrived+1 <= due; arrived++ {
			select {
			case l.arrivals <- struct{}{}:
			default:
				l.log.turnAway()
			}
		}
	}
}
